"""Hugging Face `tokenizer.json`: the same vocabulary, spelled in printable letters and as a list of merges."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from gptoss_jax.tokenizer.vocabulary import Vocabulary, VocabularyError, check


@functools.cache
def byte_letters() -> dict[int, str]:
    """GPT-2's printable letter for each byte: visible Latin-1 stands for itself, the rest is U+0100 and on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in visible]
    return {value: chr(value) for value in visible} | {value: chr(0x100 + i) for i, value in enumerate(hidden)}


def to_tokenizer_json(vocabulary: Vocabulary, where: str) -> dict[str, Any]:
    """The document; for o200k its `model` equals that of the gpt-oss release, vocab and 446,189 merges alike."""
    letters, ranks = byte_letters(), vocabulary.ranks
    spell = lambda token: "".join(map(letters.__getitem__, token))
    ordered = sorted(ranks, key=ranks.__getitem__)
    # The file wants merges, not ranks: every way to cut a token into two tokens, in rank order. Among the cuts of
    # one token, that of lower ranks comes first (transformers, TikTokenConverter).
    merges = []
    for token in ordered:
        halves = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = sorted((ranks[a], ranks[b], a, b) for a, b in halves if a in ranks and b in ranks)
        merges += [[spell(a), spell(b)] for _, _, a, b in pairs]
    names: dict[int, str] = {}
    for name, token_id in vocabulary.special_tokens.items():
        names.setdefault(token_id, name)
    if sorted(names) != list(range(len(ranks), len(ranks) + len(names))):
        raise VocabularyError(
            f"{where}: Hugging Face numbers special tokens without gaps from {len(ranks)} on, these go "
            f"{min(names)} .. {max(names)}; save as .tiktoken or renumber them"
        )
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    cut = {"type": "Split", "pattern": {"Regex": vocabulary.pattern}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": names[i], **flags} for i in sorted(names)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, byte_level]},
        "post_processor": {**byte_level, "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {**byte_level, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {spell(token): ranks[token] for token in ordered},
            "merges": merges,
        },
    }


def parse_tokenizer_json(data: bytes, where: str) -> Vocabulary:
    """Reads a byte-level BPE document, and refuses one whose ids our rule would not reproduce."""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise VocabularyError(f"{where}: not JSON ({error})") from None
    model = _field(document, "model", dict, where)
    if model.get("type") != "BPE":
        raise VocabularyError(f"{where}: model.type is {model.get('type')!r}; only byte-level BPE can be read")
    values = {letter: value for value, letter in byte_letters().items()}
    special: dict[str, int] = {}
    for i, added in enumerate(_field(document, "added_tokens", list, where)):
        try:
            special[added["content"]] = int(added["id"])
        except (TypeError, KeyError, ValueError):
            raise VocabularyError(f"{where}: added_tokens[{i}] needs 'content' and 'id'") from None
    ranks: dict[bytes, int] = {}
    for spelling, rank in _field(model, "vocab", dict, where, "model.").items():
        if spelling in special and special[spelling] == rank:
            continue
        try:
            ranks[bytes(map(values.__getitem__, spelling))] = int(rank)
        except (KeyError, TypeError, ValueError):
            raise VocabularyError(f"{where}: model.vocab[{spelling!r}] = {rank!r} is no byte-level token") from None
    _check_merges(model.get("merges", []), ranks, values, where)
    vocabulary = Vocabulary(ranks, special, _pattern(document, where))
    check(vocabulary.ranks, vocabulary.special_tokens, where)
    return vocabulary


def _check_merges(merges: Any, ranks: Mapping[bytes, int], values: Mapping[str, int], where: str) -> None:
    """Ranks alone decide here, so the file's merges have to be in rank order or the ids would differ silently."""
    previous = -1
    for i, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        try:
            rank = ranks[bytes(map(values.__getitem__, "".join(pair)))]
        except (KeyError, TypeError):
            raise VocabularyError(f"{where}: model.merges[{i}] = {merge!r} makes no token of the vocab") from None
        if rank < previous:
            raise VocabularyError(f"{where}: model.merges[{i}] = {merge!r} is not in the order of the token ids")
        previous = rank


def _pattern(document: Mapping[str, Any], where: str) -> str:
    pre = document.get("pre_tokenizer") or {}
    for step in pre.get("pretokenizers", [pre]):
        if step.get("type") == "Split" and isinstance(step.get("pattern"), dict) and "Regex" in step["pattern"]:
            return step["pattern"]["Regex"]
    raise VocabularyError(f"{where}: pre_tokenizer has no Split step with a Regex to cut text with")


def _field(document: Any, name: str, kind: type, where: str, prefix: str = "") -> Any:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, kind):
        raise VocabularyError(f"{where}: {prefix}{name} should be a {kind.__name__}, not {type(value).__name__}")
    return value
