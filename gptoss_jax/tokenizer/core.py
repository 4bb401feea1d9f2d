"""The tokenizer object: a rank table, its special tokens, and two engines that read them."""

import codecs
import functools
import operator
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

from gptoss_jax.tokenizer import bpe, files, training
from gptoss_jax.tokenizer.vocabulary import Vocabulary, check

if TYPE_CHECKING:
    import tiktoken

Engine = Literal["tiktoken", "scratch"]

# tiktoken's regular expression engine keeps one stack entry for each blank of a run and gives up at a million.
_BLANKS = 250_000


class Tokenizer:
    """Byte-pair encoding with special tokens.

    Ids of special tokens differ between vocabularies: always ask `special_tokens`, never write a number.

    >>> tokenizer = Tokenizer.o200k_harmony()
    >>> tokenizer.encode("hello world")
    [24912, 2375]
    >>> tokenizer.decode([24912, 2375])
    'hello world'
    >>> tokenizer.special_tokens["<|start|>"]
    200006

    Args:
      ranks: ordinary tokens: bytes -> id, ids 0 .. N-1, all 256 single bytes among them.
      special_tokens: control tokens: name -> id, ids from N on. Where two names share an id, the first one decodes it.
      pattern: regular expression that cuts text into pieces (for the `regex` package and tiktoken alike).
      name: shown in messages.
      engine: "tiktoken" (compiled) or "scratch" (`gptoss_jax.tokenizer.bpe`); both give the same ids.
    """

    def __init__(
        self,
        ranks: Mapping[bytes, int],
        special_tokens: Mapping[str, int],
        pattern: str = bpe.O200K_PATTERN,
        *,
        name: str = "custom",
        engine: Engine = "tiktoken",
    ) -> None:
        check(ranks, special_tokens, name)
        if engine not in ("tiktoken", "scratch"):
            raise ValueError(f"engine = {engine!r}: choose 'tiktoken' or 'scratch'")
        self.name = name
        self.engine = engine
        self.pattern = pattern
        self.ranks = MappingProxyType(dict(ranks))
        self.special_tokens = MappingProxyType(dict(special_tokens))
        self._bytes = {rank: token for token, rank in ranks.items()}
        self._special_names: dict[int, str] = {}
        for special, token_id in special_tokens.items():
            self._special_names.setdefault(token_id, special)
        self._bytes.update((token_id, special.encode()) for token_id, special in self._special_names.items())

    @classmethod
    @functools.cache
    def o200k_harmony(cls, engine: Engine = "tiktoken") -> Self:
        """The tokenizer of gpt-oss, from the table in this package: no network, hash verified, 201,088 ids."""
        return cls(files.o200k_ranks(), files.o200k_harmony_special_tokens(), name="o200k_harmony", engine=engine)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, sha256: str | None = None, engine: Engine = "tiktoken") -> Self:
        """Reads `tokenizer.json`, a `.tiktoken` rank file, or whichever of the two a checkpoint folder holds.

        A `.tiktoken` file holds no special tokens; OpenAI's o200k table gets those of gpt-oss, any other none.

        Raises:
          FileNotFoundError: nothing there, or a folder without a tokenizer.
          VocabularyError: not such a file, gaps or duplicates among the ranks, or a hash other than `sha256`.
        """
        vocabulary = files.load(path, sha256)
        name = Path(path).name
        return cls(vocabulary.ranks, vocabulary.special_tokens, vocabulary.pattern, name=name, engine=engine)

    @classmethod
    def train(
        cls, texts: str | Iterable[str], vocab_size: int, special_tokens: Iterable[str] = (), **options: Any
    ) -> Self:
        """Learns a vocabulary from text; special tokens take the last ids. See `gptoss_jax.tokenizer.training`."""
        names = list(special_tokens)
        ranks, _ = training.train(texts, vocab_size - len(names))
        return cls(ranks, {special: len(ranks) + i for i, special in enumerate(names)}, **options)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes `tokenizer.json` (also into a folder), or the ranks alone under a name ending in `.tiktoken`."""
        return files.save(Vocabulary(self.ranks, self.special_tokens, self.pattern), path)

    @property
    def n_vocab(self) -> int:
        """One more than the highest id."""
        return max(len(self.ranks) - 1, *self.special_tokens.values()) + 1 if self.special_tokens else len(self.ranks)

    def __repr__(self) -> str:
        return (
            f"Tokenizer({self.name}: {len(self.ranks):,} tokens and {len(self._special_names):,} special tokens, "
            f"engine={self.engine!r})"
        )

    def encode(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | Collection[str] = frozenset(),
        disallowed_special: Literal["all"] | Collection[str] = "all",
    ) -> list[int]:
        """Token ids of a text, with the rules of tiktoken for the names of special tokens that stand in it.

        Args:
          text: any text without lone surrogates.
          allowed_special: names that become control tokens, or "all".
          disallowed_special: names that raise an error; "all" means all that are not allowed, so that by default
            no text is taken for control tokens unnoticed. With ``()`` the others are spelled out as ordinary text.

        Raises:
          ValueError: a disallowed name or a lone surrogate, with its position in the text.
        """
        allowed = _names(allowed_special, "allowed_special", frozenset(self.special_tokens))
        disallowed = _names(disallowed_special, "disallowed_special", frozenset(self.special_tokens) - allowed)
        text = _well_formed(text)
        if found := _find_special(text, disallowed):
            raise ValueError(
                f"Encountered text corresponding to disallowed special token {found.group()!r} at character "
                f"{found.start()}; pass it in allowed_special to make it a control token, or disallowed_special=() "
                "to spell it out as text"
            )
        allowed = allowed.intersection(self.special_tokens)
        if not _find_special(text, allowed):
            return self._encode(text)
        tokens, start = [], 0
        for found in _special_pattern(allowed).finditer(text):
            tokens += self._encode(text[start : found.start()])
            tokens.append(self.special_tokens[found.group()])
            start = found.end()
        return tokens + self._encode(text[start:])

    def encode_ordinary(self, text: str) -> list[int]:
        """Token ids of a text in which nothing is special: ``<|start|>`` is spelled out as five tokens."""
        return self._encode(_well_formed(text))

    def _encode(self, text: str) -> list[int]:
        if self.engine == "scratch" or _may_hold_a_long_blank(text):
            return bpe.encode(text, self.ranks, self.pattern)
        return self._tiktoken.encode_ordinary(text)

    @functools.cached_property
    def _tiktoken(self) -> "tiktoken.Encoding":
        import tiktoken

        return tiktoken.Encoding(
            self.name, pat_str=self.pattern, mergeable_ranks=dict(self.ranks), special_tokens=dict(self.special_tokens)
        )

    def decode(self, tokens: Iterable[int], errors: str = "replace") -> str:
        """Text of token ids; bytes that are no UTF-8 become U+FFFD, or raise with ``errors="strict"``.

        Raises:
          ValueError: an id that no token has, with its position.
        """
        return self.decode_bytes(tokens).decode("utf-8", errors=errors)

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Bytes of token ids, joined; special tokens give their names."""
        ids = _as_list(tokens)
        try:
            return b"".join(map(self._bytes.__getitem__, ids))
        except (KeyError, TypeError):
            for position, token in enumerate(ids):
                self._check_id(token, f" at position {position}")
            raise

    def token_bytes(self, token: int) -> bytes:
        """The bytes behind one id: often a word, sometimes a part of a character."""
        self._check_id(token)
        return self._bytes[token]

    def token_text(self, token: int) -> str:
        r"""One token for display: bytes that are no UTF-8 of their own are shown as ``\xNN``."""
        return self.token_bytes(token).decode("utf-8", errors="backslashreplace")

    def is_special(self, token: int) -> bool:
        """Whether an id is a control token."""
        return token in self._special_names

    def __contains__(self, token: object) -> bool:
        """Whether a token has this id."""
        return token in self._bytes

    def stream(self) -> "StreamingDecoder":
        """A decoder that takes tokens one by one and never gives out half a character."""
        return StreamingDecoder(self)

    def _check_id(self, token: Any, where: str = "") -> None:
        try:
            known = operator.index(token) in self._bytes
        except TypeError:
            raise ValueError(f"Invalid token for decoding: {token!r}{where} is no integer") from None
        if not known:
            raise ValueError(
                f"Invalid token for decoding: {token}{where} is none of the ids 0 .. {self.n_vocab - 1} of {self.name}"
            )


class StreamingDecoder:
    """Decodes token by token. The bytes of a character that is still incomplete wait for the next token.

    >>> stream = Tokenizer.o200k_harmony().stream()
    >>> [stream.push(token) for token in (74580, 244)], stream.flush()
    ([' ', '💖'], '')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that this token completes; may be empty."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def flush(self) -> str:
        """Ends the stream: an incomplete character becomes U+FFFD."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


def _may_hold_a_long_blank(text: str) -> bool:
    """Whether a run of `_BLANKS` blanks is possible: looks at a few places, so that ordinary text costs nothing."""
    step = _BLANKS // 2
    return len(text) >= _BLANKS and any(text[i : i + 1000].isspace() for i in range(0, len(text), step))


def _names(value: Literal["all"] | Collection[str], argument: str, everything: frozenset[str]) -> frozenset[str]:
    if value == "all":
        return everything
    if isinstance(value, str):
        raise TypeError(f"{argument} = {value!r}: give 'all' or a collection of names, such as {{{value!r}}}")
    return frozenset(value)


@functools.lru_cache(maxsize=64)
def _special_pattern(names: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name))))


@functools.lru_cache(maxsize=64)
def _common_start(names: frozenset[str]) -> str:
    first, last = min(names), max(names)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _find_special(text: str, names: frozenset[str]) -> re.Match[str] | None:
    # Nearly every text is free of "<|"; looking for that first is a hundred times faster than the full pattern.
    if not names or _common_start(names) not in text:
        return None
    return _special_pattern(names).search(text)


def _well_formed(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {type(text).__name__}")
    if text.isascii():
        return text
    try:
        text.encode()
        return text
    except UnicodeEncodeError as error:
        position = error.start
    try:  # a pair of surrogates is one character written in two halves, as JSON and UTF-16 do
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ValueError(
            f"text holds half a character (a lone surrogate, first seen near character {position}: "
            f"U+{ord(text[position]):04X}); it has no UTF-8 form. Mend it with "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from None


def _as_list(tokens: Iterable[int]) -> list[int]:
    return tokens.tolist() if hasattr(tokens, "tolist") else list(tokens)
