"""Tokens to messages, one token at a time: `StreamableParser`.

Three states follow each other: EXPECT_START until ``<|start|>``, HEADER until ``<|message|>``, CONTENT until a stop
token. Strict mode is that of openai-harmony 0.0.8 (src/encoding.rs, StreamableParser), token by token. With
``strict=False`` the tokens first pass through a `Mender` (repair.py), which turns any stream into one that strict mode
accepts and lists what it changed.
"""

import enum
from typing import TYPE_CHECKING, Any, Self

from gptoss_jax.harmony import render
from gptoss_jax.harmony.forms import HarmonyError
from gptoss_jax.harmony.header import ParsedHeader, parse_header
from gptoss_jax.harmony.messages import Message, Role
from gptoss_jax.harmony.repair import Mender, Repair

if TYPE_CHECKING:
    from gptoss_jax.harmony.encoding import Encoding


class StreamState(enum.Enum):
    """What the parser is in, or waits for."""

    EXPECT_START = "ExpectStart"
    HEADER = "Header"
    CONTENT = "Content"


class StreamableParser:
    """Parses tokens as they come.

    Args:
      encoding: the Harmony encoding.
      role: who speaks first, if the stream begins behind ``<|start|>role``, as a completion does; else None.
      strict: raise at the first malformed header or token. If False, repair and go on, whatever comes.
    """

    def __init__(self, encoding: "Encoding", role: Role | None, *, strict: bool = True) -> None:
        self._encoding = encoding
        self._stop_tokens = frozenset(encoding.stop_tokens())
        self._tokens: list[int] = []
        self._messages: list[Message] = []
        self._next_role = None if role is None else Role(role)
        self._state = StreamState.EXPECT_START if role is None else StreamState.HEADER
        self._header_tokens: list[int] = []
        self._header: ParsedHeader | None = None
        self._deltas: list[str] = []
        self._pending_bytes = b""
        self._broken = False
        self._delta: str | None = None
        self._mender = None if strict else Mender(self, encoding, self._next_role)

    def process(self, token: int) -> Self:
        """Takes one token.

        Raises:
          HarmonyError: in strict mode, where the token cannot stand. What was parsed before is kept.
        """
        self._tokens.append(token)
        if self._mender is None:
            self.step(token)
        else:
            self._mender.take(token)
        return self

    def process_eos(self) -> Self:
        """Ends the stream: a message whose stop token has not come is closed all the same.

        Raises:
          HarmonyError: in strict mode, inside a header.
        """
        if self._mender is not None:
            self._mender.finish()
        if self._state is StreamState.HEADER and self._mender is None:
            raise HarmonyError("Unexpected EOS while waiting for message header to complete")
        if self._state is StreamState.CONTENT:
            self._close_message()
        return self

    def step(self, token: int) -> None:
        """The strict parser underneath: one token, unmended."""
        control = self._encoding.control
        if self._state is StreamState.EXPECT_START:
            if token != control[render.START]:
                start = control[render.START]
                raise HarmonyError(f"Unexpected token {token} while expecting start token {start}")
            self._state, self._header_tokens = StreamState.HEADER, []
        elif self._state is StreamState.HEADER:
            if token != control[render.MESSAGE]:
                self._header_tokens.append(token)
                return
            self._state = StreamState.EXPECT_START  # where a header that cannot be read leaves the parser
            self._header = self._read_header(self._header_tokens, self._next_role)
            self._next_role = None
            self._state, self._deltas = StreamState.CONTENT, []
        elif token in self._stop_tokens:
            self._close_message()
        else:
            self._add_content(token)

    def expect_start(self) -> None:
        """Forgets the role given at the beginning, because that message never came."""
        self._state, self._next_role = StreamState.EXPECT_START, None

    @property
    def in_content(self) -> bool:
        """Whether the parser is between ``<|message|>`` and a stop token."""
        return self._state is StreamState.CONTENT

    def _read_header(self, tokens: list[int], role: Role | None) -> ParsedHeader:
        try:
            text = self._encoding.tokenizer.decode(tokens, errors="strict")
        except ValueError:
            raise HarmonyError("could not decode header") from None
        return parse_header(text, role)

    def _add_content(self, token: int) -> None:
        self._delta = None
        if self._broken or token not in self._encoding.tokenizer:
            self._broken = True  # an unknown id: the rest of the message cannot be decoded either
            return
        self._pending_bytes += self._encoding.tokenizer.token_bytes(token)
        try:
            text, self._pending_bytes = self._pending_bytes.decode(), b""
        except UnicodeDecodeError as error:
            text = self._pending_bytes[: error.start].decode()
            rest = error.start
            if error.reason != "unexpected end of data":
                text, rest = text + "\ufffd", error.end
            self._pending_bytes = self._pending_bytes[rest:]
            if not text:
                return
        self._deltas.append(text)
        self._delta = text

    def _close_message(self) -> None:
        assert self._header is not None
        broken = "\ufffd" if self._broken else ""
        text = "".join(self._deltas) + broken + self._pending_bytes.decode("utf-8", "replace")
        self._messages.append(self._header.message(text))
        self._state, self._header, self._delta = StreamState.EXPECT_START, None, None
        self._deltas, self._pending_bytes, self._broken = [], b"", False

    @property
    def messages(self) -> list[Message]:
        """The messages that are complete."""
        return list(self._messages)

    @property
    def tokens(self) -> list[int]:
        """All tokens taken so far."""
        return list(self._tokens)

    @property
    def current_content(self) -> str:
        """The text of the message at hand, as far as it is decoded; empty outside its content."""
        return "".join(self._deltas) if self._state is StreamState.CONTENT else ""

    @property
    def last_content_delta(self) -> str | None:
        """The text that the last token added; None outside content, or while a character is incomplete."""
        return self._delta

    @property
    def current_role(self) -> Role | None:
        """Who speaks, once known."""
        return self._header.author.role if self._header else self._next_role

    @property
    def current_channel(self) -> str | None:
        """Channel of the message at hand, once its content has begun."""
        return self._header.channel if self._header else None

    @property
    def current_recipient(self) -> str | None:
        """Recipient of the message at hand, once its content has begun."""
        return self._header.recipient if self._header else None

    @property
    def current_content_type(self) -> str | None:
        """Content type of the message at hand, once its content has begun."""
        return self._header.content_type if self._header else None

    @property
    def state(self) -> StreamState:
        """What the parser waits for."""
        return StreamState.HEADER if self._mender and self._mender.header is not None else self._state

    @property
    def state_data(self) -> dict[str, Any]:
        """The state with its tokens, in openai-harmony's JSON form. Content tokens are the text encoded anew."""
        if self.state is StreamState.HEADER:
            held = self._mender.header if self._mender else None
            tokens = self._header_tokens if held is None else [token for _, token in held]
            return {"state": self.state.value, "header_tokens": list(tokens)}
        if self._state is StreamState.CONTENT and self._header is not None:
            encode = self._encoding.tokenizer.encode_ordinary
            tokens = [token for delta in self._deltas for token in encode(delta)]
            return {"state": self._state.value, "header": self._header.to_dict(), "content_tokens": tokens}
        return {"state": self._state.value}

    @property
    def repairs(self) -> list[Repair]:
        """What had to be mended so far (``strict=False``); empty where the model kept to the format."""
        return list(self._mender.repairs) if self._mender else []

    @property
    def mended_tokens(self) -> list[int]:
        """The stream as strict mode accepts it: `tokens` with all `repairs` done."""
        return list(self._mender.mended) if self._mender else list(self._tokens)

    @property
    def mended_role(self) -> Role | None:
        """The role to give a strict parser of `mended_tokens`: None if the stream brought its own ``<|start|>``."""
        return self._mender.role if self._mender else None
