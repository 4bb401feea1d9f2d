"""Vocabularies on disk: `.tiktoken` rank files, Hugging Face `tokenizer.json`, and the built-in o200k table.

Everything here is read into a `Vocabulary`, checked, and written from one; no encoding happens in this module.
"""

import base64
import binascii
import functools
import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gptoss_jax.tokenizer.hugging_face import parse_tokenizer_json, to_tokenizer_json
from gptoss_jax.tokenizer.vocabulary import Vocabulary, VocabularyError, check

O200K_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
"""Published hash of o200k_base.tiktoken (tiktoken, openai_public.py)."""

_O200K_FILE = Path(__file__).parent.parent / "data" / "o200k_base.tiktoken.gz"
_O200K_NAMED = {  # tiktoken, openai_public.py, o200k_harmony; every other id up to 201087 is <|reserved_ID|>
    "<|startoftext|>": 199998,
    "<|endoftext|>": 199999,
    "<|return|>": 200002,
    "<|constrain|>": 200003,
    "<|channel|>": 200005,
    "<|start|>": 200006,
    "<|end|>": 200007,
    "<|message|>": 200008,
    "<|call|>": 200012,
}


def parse_ranks(data: bytes, where: str, sha256: str | None = None) -> dict[bytes, int]:
    """Reads the lines ``base64(token) rank`` of a `.tiktoken` file, refusing anything else."""
    if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise VocabularyError(f"{where}: sha256 is {found}, expected {sha256}; fetch or unpack the file again")
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        try:
            token_base64, rank_text = line.split()
            token, rank = base64.b64decode(token_base64, validate=True), int(rank_text)
        except (ValueError, binascii.Error):
            raise VocabularyError(f"{where}, line {number}: expected 'base64 rank', found {line[:60]!r}") from None
        if token in ranks:
            raise VocabularyError(f"{where}, line {number}: token {token!r} already has rank {ranks[token]}")
        ranks[token] = rank
    check(ranks, {}, where)
    return ranks


@functools.cache
def o200k_ranks() -> Mapping[bytes, int]:
    """The built-in table: 199,998 tokens, verified against the published hash."""
    return parse_ranks(gzip.decompress(_O200K_FILE.read_bytes()), str(_O200K_FILE), O200K_SHA256)


def o200k_harmony_special_tokens() -> dict[str, int]:
    """The 1,090 special ids 199998 .. 201087 of gpt-oss, which fill the embedding table's 201,088 rows.

    Two upstream quirks are settled here. 200018 has two names: it decodes as ``<|reserved_200018|>``, as in
    openai-harmony, and ``<|endofprompt|>``, tiktoken's and Hugging Face's name, encodes to it as well. 201088, which
    openai-harmony also names, has no row in the model and is left out.
    """
    names = {token_id: name for name, token_id in _O200K_NAMED.items()}
    table = {names.get(i, f"<|reserved_{i}|>"): i for i in range(199998, 201088)}
    return {**table, "<|endofprompt|>": 200018}


def load(path: str | os.PathLike[str], sha256: str | None = None) -> Vocabulary:
    """Reads a `.tiktoken` file (gzipped or not), a `tokenizer.json`, or the one that a checkpoint folder holds."""
    path = _find(Path(path))
    data = path.read_bytes()
    if path.name.endswith(".json"):
        if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256:
            raise VocabularyError(f"{path}: sha256 is {found}, expected {sha256}; fetch the file again")
        return parse_tokenizer_json(data, str(path))
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise VocabularyError(f"{path}: not a complete gzip file ({error})") from None
    if sha256 is None and path.name.startswith("o200k_base.tiktoken"):
        sha256 = O200K_SHA256
    ranks = parse_ranks(data, str(path), sha256)
    is_o200k = hashlib.sha256(data).hexdigest() == O200K_SHA256
    return Vocabulary(ranks, o200k_harmony_special_tokens() if is_o200k else {})


def _find(path: Path) -> Path:
    if path.is_file():
        if path.name.endswith((".json", ".tiktoken", ".tiktoken.gz")):
            return path
        raise VocabularyError(f"{path}: expected a tokenizer.json, a .tiktoken file or a checkpoint folder")
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    homes = [path, path.parent] if path.name == "original" else [path]
    for home in homes:
        if (home / "tokenizer.json").is_file():
            return home / "tokenizer.json"
        if found := sorted([*home.glob("*.tiktoken"), *home.glob("*.tiktoken.gz")]):
            return found[0]
    raise FileNotFoundError(f"{path}: holds neither tokenizer.json nor a .tiktoken file")


def save(vocabulary: Vocabulary, path: str | os.PathLike[str]) -> Path:
    """Writes `tokenizer.json` (a folder gets one inside) or, for a name ending in `.tiktoken`, the ranks alone."""
    path = Path(path)
    if path.suffix == ".tiktoken":
        ordered = sorted(vocabulary.ranks.items(), key=lambda item: item[1])
        data = b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ordered)
    elif path.suffix == ".json" or path.suffix == "" or path.is_dir():
        path = path if path.suffix == ".json" else path / "tokenizer.json"
        document = to_tokenizer_json(vocabulary, str(path))
        data = (json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    else:
        raise VocabularyError(f"{path}: name it tokenizer.json or NAME.tiktoken, or give a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
