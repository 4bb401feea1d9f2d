"""Rank files and tokenizer.json: round trips, what other programs read in them, and what is refused; training."""

import base64
import gzip
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizer_cases import random_text

from gptoss_jax.tokenizer import Tokenizer, VocabularyError, files
from gptoss_jax.tokenizer.training import learn_merges, train

TEXT = "the cat sat on the mat, the cat ate the rat. " * 30 + "other weather, otter water; naïve Zürich! " * 20
SPECIAL = ["<|start|>", "<|end|>"]


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return Tokenizer.train(TEXT, 320, SPECIAL, name="small")


def lines(small: Tokenizer) -> list[bytes]:
    return [base64.b64encode(token) + b" %d" % rank for token, rank in small.ranks.items()]


# Training


def test_training_joins_the_most_frequent_pair_first() -> None:
    steps = list(learn_merges("low low low lower lower newest newest newest newest"))
    assert [(step.left, step.right, step.count) for step in steps[:2]] == [(b"w", b"e", 6), (b"l", b"o", 5)]
    assert [step.rank for step in steps] == list(range(256, 256 + len(steps)))


def test_training_against_counting_from_scratch() -> None:
    """Each step: encode every word with the ranks so far, count all pairs anew, and take the best."""
    from collections import Counter
    from itertools import pairwise

    from gptoss_jax.tokenizer.bpe import merge, split

    words = Counter(piece.encode() for piece in split(TEXT))
    ranks = {bytes([value]): value for value in range(256)}
    for step in learn_merges(TEXT):
        names = {rank: token for token, rank in ranks.items()}
        counts: Counter[bytes] = Counter()
        for word, count in words.items():
            parts = [names[rank] for rank in merge(word, ranks)]
            for left, right in pairwise(parts):
                counts[left + right] += count
        best = max(counts, key=lambda token: (counts[token], [-value for value in token] + [1]))
        assert counts[step.token] == step.count == max(counts.values())
        assert step.token == min(token for token in counts if counts[token] == counts[best])
        ranks[step.token] = step.rank


def test_trained_tokenizer_is_consistent(small: Tokenizer) -> None:
    assert small.n_vocab == len(small.ranks) + 2
    scratch = Tokenizer(small.ranks, small.special_tokens, engine="scratch")
    rng = random.Random(1)
    for text in [TEXT, *(random_text(rng) for _ in range(200))]:
        ids = small.encode(text, disallowed_special=())
        assert ids == scratch.encode(text, disallowed_special=())
        assert small.decode(ids) == text
    assert len(small.encode(TEXT)) < len(TEXT.encode()) / 2
    assert small.special_tokens == {"<|start|>": len(small.ranks), "<|end|>": len(small.ranks) + 1}


def test_training_stops_when_nothing_repeats() -> None:
    ranks, steps = train("abcd", 1000)
    assert len(ranks) == 256 and steps == []


def test_training_needs_room_for_all_bytes() -> None:
    with pytest.raises(ValueError, match=r"num_ranks = 200: .* 256 single bytes"):
        train(TEXT, 200)


# Round trips


@pytest.mark.parametrize("name", ["small.tiktoken", "tokenizer.json", "folder"])
def test_round_trip(small: Tokenizer, tmp_path: Path, name: str) -> None:
    path = small.save(tmp_path / name)
    assert path == (tmp_path / name / "tokenizer.json" if name == "folder" else tmp_path / name)
    again = Tokenizer.from_file(tmp_path / name)
    assert again.ranks == small.ranks
    assert again.special_tokens == ({} if name.endswith(".tiktoken") else small.special_tokens)
    assert again.pattern == small.pattern
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no temporary file is left behind"


def test_o200k_round_trip(tmp_path: Path) -> None:
    full = Tokenizer.o200k_harmony()
    path = full.save(tmp_path / "o200k_base.tiktoken")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == files.O200K_SHA256, "written byte for byte as published"
    again = Tokenizer.from_file(path)
    assert again.special_tokens == full.special_tokens
    (tmp_path / "packed.tiktoken.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert Tokenizer.from_file(tmp_path / "packed.tiktoken.gz").ranks == full.ranks


def test_tokenizer_json_has_the_form_transformers_reads(small: Tokenizer, tmp_path: Path) -> None:
    document = json.loads(small.save(tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert document["model"]["ignore_merges"] is True
    assert document["model"]["vocab"]["Ġthe"] == small.ranks[b" the"]
    assert document["model"]["vocab"]["ï"[:1].encode("latin-1").decode("latin-1")] == small.ranks[b"\xef"]
    assert [added["id"] for added in document["added_tokens"]] == list(small.special_tokens.values())
    merged = {"".join(pair) for pair in document["model"]["merges"]}
    assert merged == {spelling for spelling in document["model"]["vocab"] if len(spelling) > 1}


def test_hugging_face_tokenizers_gives_the_same_ids(small: Tokenizer, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(small.save(tmp_path / "tokenizer.json")))
    rng = random.Random(2)
    for text in [TEXT, "<|start|>the cat<|end|>", *(random_text(rng) for _ in range(500))]:
        ids = small.encode(text, allowed_special="all")
        assert theirs.encode(text).ids == ids
        assert theirs.decode(ids, skip_special_tokens=False) == text


def test_the_folder_of_a_checkpoint(small: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "original").mkdir()
    small.save(tmp_path)
    assert Tokenizer.from_file(tmp_path).ranks == small.ranks
    assert Tokenizer.from_file(tmp_path / "original").ranks == small.ranks, "OpenAI's layout lies beside the tokenizer"


# What is refused


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such file or folder"):
        Tokenizer.from_file(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds neither tokenizer\.json nor a \.tiktoken file"):
        Tokenizer.from_file(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(VocabularyError, match=r"expected a tokenizer\.json, a \.tiktoken file"):
        Tokenizer.from_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:290] + rows[291:], r"ranks have a gap: 290 is missing"),
        (lambda rows: [*rows, base64.b64encode(b"new") + b" 7"], r"rank 7 is given to two tokens"),
        (lambda rows: [*rows, rows[5].split()[0] + b" %d" % len(rows)], r"line \d+: token b'.*' already has rank 5"),
        (lambda rows: [*rows, b"!!! 9"], r"line \d+: expected 'base64 rank', found b'!!! 9'"),
        (lambda rows: [*rows, b"YQ=="], r"line \d+: expected 'base64 rank'"),
        (lambda rows: [*rows, b"YQ== x"], r"line \d+: expected 'base64 rank'"),
        (lambda rows: rows[1:], r"gap: 0 is missing"),
        (lambda rows: [base64.b64encode(b"xy") + b" 3" if row.endswith(b" 3") else row for row in rows], r"0x03"),
        (lambda rows: [], r"256 of the 256 single bytes have no rank"),
    ],
)
def test_bad_rank_files(small: Tokenizer, tmp_path: Path, change: Any, message: str) -> None:
    (tmp_path / "bad.tiktoken").write_bytes(b"\n".join(change(lines(small))))
    with pytest.raises(VocabularyError, match=rf"bad\.tiktoken.*{message}"):
        Tokenizer.from_file(tmp_path / "bad.tiktoken")


def test_wrong_hash(small: Tokenizer, tmp_path: Path) -> None:
    path = small.save(tmp_path / "o200k_base.tiktoken")
    with pytest.raises(VocabularyError, match=r"sha256 is [0-9a-f]{64}, expected 446a9538"):
        Tokenizer.from_file(path)
    path = small.save(tmp_path / "tokenizer.json")
    with pytest.raises(VocabularyError, match=r"tokenizer.json: sha256 is [0-9a-f]{64}, expected 00"):
        Tokenizer.from_file(path, sha256="00")


def test_a_damaged_built_in_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = gzip.decompress(files._O200K_FILE.read_bytes())
    (tmp_path / "table.gz").write_bytes(gzip.compress(table.replace(b" 199997\n", b" 199998\n"), 1))
    monkeypatch.setattr(files, "_O200K_FILE", tmp_path / "table.gz")
    with pytest.raises(VocabularyError, match="sha256"):
        files.o200k_ranks.__wrapped__()


def test_truncated_gzip(tmp_path: Path) -> None:
    (tmp_path / "x.tiktoken.gz").write_bytes(gzip.compress(b"YQ== 0\n")[:-4])
    with pytest.raises(VocabularyError, match="not a complete gzip file"):
        Tokenizer.from_file(tmp_path / "x.tiktoken.gz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("model"), "model should be a dict, not NoneType"),
        (lambda d: d["model"].update(type="Unigram"), r"model\.type is 'Unigram'"),
        (lambda d: d["model"].pop("vocab"), r"model\.vocab should be a dict"),
        (lambda d: d["model"]["vocab"].update({"a b": 999}), r"model\.vocab\['a b'\] = 999 is no byte-level token"),
        (lambda d: d["model"]["vocab"].update({"Ġthe": None}), r"model\.vocab\['Ġthe'\] = None"),
        (lambda d: d["model"]["vocab"].pop("!"), "ranks have a gap"),
        (lambda d: d["model"]["merges"].reverse(), r"model\.merges\[\d+\] = .* is not in the order of the token ids"),
        (lambda d: d["model"]["merges"].insert(0, ["q", "z"]), r"model\.merges\[0\] = .* makes no token of the vocab"),
        (lambda d: d.update(added_tokens=[{"id": 3}]), r"added_tokens\[0\] needs 'content' and 'id'"),
        (lambda d: d["added_tokens"][0].update(id=5), r"'<\|start\|>' has id 5, which belongs to an ordinary token"),
        (lambda d: d.update(added_tokens=None), r"added_tokens should be a list"),
        (lambda d: d.update(pre_tokenizer={"type": "Whitespace"}), "pre_tokenizer has no Split step"),
    ],
)
def test_bad_tokenizer_json(small: Tokenizer, tmp_path: Path, change: Any, message: str) -> None:
    path = small.save(tmp_path / "tokenizer.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(VocabularyError, match=message):
        Tokenizer.from_file(path)


def test_tokenizer_json_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(VocabularyError, match=r"tokenizer\.json: not JSON"):
        Tokenizer.from_file(tmp_path)


def test_bad_tables_in_memory(small: Tokenizer) -> None:
    with pytest.raises(VocabularyError, match=r"special token '<\|x\|>' has id 9, .* special ids start at \d+"):
        Tokenizer(small.ranks, {"<|x|>": 9})
    with pytest.raises(VocabularyError, match="a special token has an empty name"):
        Tokenizer(small.ranks, {"": 9999})
    with pytest.raises(VocabularyError, match="have no rank"):
        Tokenizer({b"a": 0}, {})


def test_special_ids_with_gaps_have_no_tokenizer_json(small: Tokenizer, tmp_path: Path) -> None:
    gap = Tokenizer(small.ranks, {"<|a|>": len(small.ranks) + 5})
    with pytest.raises(VocabularyError, match="without gaps"):
        gap.save(tmp_path / "tokenizer.json")
    with pytest.raises(VocabularyError, match=r"name it tokenizer\.json or NAME\.tiktoken"):
        small.save(tmp_path / "x.txt")
