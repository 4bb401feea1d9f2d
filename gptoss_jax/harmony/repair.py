"""Kind parsing: any stream of token ids, mended into one that strict mode accepts, with a list of what was mended.

The `Mender` stands before a strict parser. It passes tokens on as long as they fit, and edits the stream where they do
not. Each edit is a `Repair`: at a position of the input, some tokens were removed and others put in. Nothing is lost:
undoing the repairs gives back the input, token for token.
"""

import codecs
import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gptoss_jax.harmony import render
from gptoss_jax.harmony.forms import HarmonyError
from gptoss_jax.harmony.header import ParsedHeader, guess_header, parse_header
from gptoss_jax.harmony.messages import Role

if TYPE_CHECKING:
    from gptoss_jax.harmony.encoding import Encoding
    from gptoss_jax.harmony.parse import StreamableParser

_Item = tuple[int, int]  # position in the input, token

EXPLANATIONS = {
    "missing_start": "a message began without <|start|>",
    "own_start": "the stream has a <|start|> of its own, so the role given to the parser was not assumed",
    "malformed_header": "the header could not be read and was written anew",
    "missing_message_token": "<|message|> was missing between header and content",
    "unfinished_header": "the header broke off and nothing followed; it was left out",
    "empty_message": "a message without header and content was left out",
    "missing_end": "a new message began before the last one ended",
    "stray_stop_token": "a stop token stood outside of any message and was left out",
    "control_token_in_content": "a control token stood in the content and became plain text",
    "unknown_token": "no token has this id; it became U+FFFD",
}


@dataclasses.dataclass(frozen=True)
class Repair:
    """One edit of the stream.

    Attributes:
      name: a key of `EXPLANATIONS`.
      position: index of the first token concerned, in the tokens given to the parser.
      removed: the tokens that stood there.
      inserted: the tokens that took their place.
      text: the removed tokens as text; U+FFFD for an unknown id.
    """

    name: str
    position: int
    removed: tuple[int, ...]
    inserted: tuple[int, ...]
    text: str

    @property
    def explanation(self) -> str:
        """What was wrong, in one line."""
        return EXPLANATIONS[self.name]

    def __str__(self) -> str:
        where = f"token {self.position}" + (f" to {self.position + len(self.removed) - 1}" if self.removed[1:] else "")
        return f"{self.name} at {where}: {self.explanation}" + (f": {self.text!r}" if self.text else "")


class Mender:
    """Edits the stream of one parser; see `EXPLANATIONS` for all that it can mend.

    A header is held back until it is complete, because only then it is known what to mend. So every token is either
    passed on or part of one edit, in the order of the input.
    """

    def __init__(self, parser: "StreamableParser", encoding: "Encoding", role: Role | None) -> None:
        self.repairs: list[Repair] = []
        self.mended: list[int] = []
        self.role = role
        self.header: list[_Item] | None = None if role is None else []
        self._start: int | None = None  # where the <|start|> of this header stands, if it has one
        self._given = role  # the role of this header, if the caller gave it
        self._default_role = role or Role.ASSISTANT
        self._parser = parser
        self._tokenizer = encoding.tokenizer
        self._stops = frozenset(encoding.stop_tokens())
        self._control = encoding.control
        self._taken = 0
        self._waiting: deque[_Item] = deque()

    def take(self, token: int) -> None:
        """Feeds one token of the input to the parser, mended if need be."""
        self._waiting.append((self._taken, token))
        self._taken += 1
        self._work()

    def finish(self) -> None:
        """Ends the stream, if need be in the middle of a header."""
        while self.header is not None:
            self._close_header(None)
            self._work()

    def _work(self) -> None:
        while self._waiting:
            item = self._waiting.popleft()
            if self.header is not None:
                self._in_header(item)
            elif self._parser.in_content:
                self._in_content(item)
            else:
                self._before_message(item)

    def _before_message(self, item: _Item) -> None:
        position, token = item
        if token in self._stops:
            self._edit("stray_stop_token", position, [token])
            return
        self.header, self._start = [], None
        if token == self._control[render.START]:
            self._start = position
        else:
            self._waiting.appendleft(item)

    def _in_header(self, item: _Item) -> None:
        assert self.header is not None
        token, control = item[1], self._control
        second_channel = token == control[render.CHANNEL] and any(token == held for _, held in self.header)
        if token == control[render.START] or token in self._stops or second_channel:
            self._close_header(item)
        elif token == control[render.MESSAGE]:
            header = None
            if not self._readable(self._held()):
                header, _ = guess_header(self._text(self._held()), self._given, ended=True)
            self._send_header("malformed_header", len(self.header), header, item[0])
            self._pass(token)
        else:
            self.header.append(item)

    def _in_content(self, item: _Item) -> None:
        position, token = item
        if token in self._stops:
            self._pass(token)
        elif token in (self._control[render.START], self._control[render.CHANNEL]):
            self._edit("missing_end", position, [], [self._control[render.END]])
            self._waiting.appendleft(item)
        elif token not in self._tokenizer:
            self._edit("unknown_token", position, [token], self._tokenizer.encode_ordinary("\ufffd"))
        elif self._tokenizer.is_special(token):
            self._edit("control_token_in_content", position, [token], self._spelled([token]))
        else:
            self._pass(token)

    def _close_header(self, item: _Item | None) -> None:
        """Something else came where ``<|message|>`` was due: a stop token, a new message, or the end (None)."""
        assert self.header is not None
        held, text = self._held(), self._text(self._held())
        header, at = guess_header(text, self._given, ended=False)
        at += text[at : at + 1].isspace()
        stopped = item is not None and item[1] in self._stops
        if not text[at:].strip() and not (stopped and held):
            self._drop_header(item, stopped)
            return
        # The content begins at character `at`: behind `whole` tokens, perhaps within the `cut` tokens after them.
        whole, cut, spilled = self._locate(held, text, at)
        spill = self._tokenizer.encode_ordinary(spilled)
        rest = self.header[whole + cut :]
        message = [self._control[render.MESSAGE], *spill]
        here = rest[0][0] if rest else self._taken if item is None else item[0]
        if self._readable(held[:whole]):
            self._send_header("", whole, None, here)
            self._edit("missing_message_token", here - cut, held[whole : whole + cut], message)
        else:
            self._send_header("missing_message_token", whole + cut, header, here, message)
        self._waiting.extendleft(reversed([*rest, *([] if item is None else [item])]))

    def _locate(self, tokens: Sequence[int], text: str, at: int) -> tuple[int, int, str]:
        """The token border before character `at`, how many tokens until the next one, and their text from `at` on."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        done = whole = border = 0
        for i, token in enumerate(tokens):
            done += len(decoder.decode(self._bytes(token)))
            if decoder.getstate()[0]:
                continue  # within a character
            if done > at:
                return (whole, 0, "") if border == at else (whole, i + 1 - whole, text[at:done])
            whole, border = i + 1, done
        return (whole, 0, "") if border == at else (whole, len(tokens) - whole, text[at:])

    def _send_header(
        self, name: str, count: int, header: ParsedHeader | None, here: int, behind: Sequence[int] = ()
    ) -> None:
        """Sends the start and the first `count` tokens of the header, or `header` in their place."""
        assert self.header is not None
        first = self.header[0][0] if self.header else here
        held = self._held()[:count]
        if self._start is not None:
            self._pass(self._control[render.START])
        elif self._given is None:
            self._edit("missing_start", first, [], [self._control[render.START]])
        if header is None:
            for token in held:
                self._pass(token)
        else:
            self._edit(name, first, held, [*self._canonical(header), *behind])
        self.header, self._given = None, None

    def _drop_header(self, item: _Item | None, stopped: bool) -> None:
        """Leaves out a header that nothing followed, with its start and its stop token."""
        assert self.header is not None
        first = self._start if self._start is not None else self.header[0][0] if self.header else self._taken
        removed = ([] if self._start is None else [self._control[render.START]]) + self._held()
        name = "unfinished_header" if self.header or not stopped else "empty_message"
        if item is not None and not removed:
            first = item[0]
            name = name if stopped else "own_start"
        if stopped and item is not None:
            removed.append(item[1])
        elif item is not None:
            self._waiting.appendleft(item)
        if self._given is not None:
            self.role = self._given = None
            self._parser.expect_start()
        self.header = None
        self._edit(name, first, removed)

    def _held(self) -> list[int]:
        return [token for _, token in self.header or ()]

    def _readable(self, tokens: Sequence[int]) -> bool:
        """Whether strict mode reads this header, and reads it as meant: control tokens are not parts of names."""
        control = [token for token in tokens if self._tokenizer.is_special(token)]
        if not set(control) <= {self._control[render.CHANNEL], self._control[render.CONSTRAIN]}:
            return False
        if len(set(control)) < len(control) or any(token not in self._tokenizer for token in tokens):
            return False
        try:
            parse_header(self._tokenizer.decode(tokens, errors="strict"), self._given)
        except (HarmonyError, ValueError):
            return False
        return True

    def _canonical(self, header: ParsedHeader) -> list[int]:
        """Tokens of a header that strict mode reads as this one."""
        encode = self._tokenizer.encode_ordinary
        role = [] if self._given is not None else encode(header.author.name or header.author.role.value)
        tokens = list(role)
        if header.recipient is not None:
            tokens += encode(f" to={header.recipient}")
        if header.channel is not None:
            tokens += [self._control[render.CHANNEL], *encode(header.channel)]
        if header.content_type is not None and header.recipient is not None:
            bare = header.content_type.removeprefix(render.CONSTRAIN)
            marker = [*encode(" "), self._control[render.CONSTRAIN]] if bare != header.content_type else encode(" ")
            tokens += [*marker, *encode(bare)]
        return tokens if self._readable(tokens) else role

    def _pass(self, token: int) -> None:
        self.mended.append(token)
        self._parser.step(token)

    def _edit(self, name: str, position: int, removed: Sequence[int], inserted: Sequence[int] = ()) -> None:
        self.repairs.append(Repair(name, position, tuple(removed), tuple(inserted), self._text(removed)))
        for token in inserted:
            self._pass(token)

    def _spelled(self, tokens: Sequence[int]) -> list[int]:
        return self._tokenizer.encode_ordinary(self._text(tokens))

    def _text(self, tokens: Sequence[int]) -> str:
        return b"".join(map(self._bytes, tokens)).decode("utf-8", "replace")

    def _bytes(self, token: int) -> bytes:
        return self._tokenizer.token_bytes(token) if token in self._tokenizer else "\ufffd".encode()
