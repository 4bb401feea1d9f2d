"""Message headers: the text between ``<|start|>`` and ``<|message|>``, read strictly and read kindly.

Models write the recipient before or behind the channel, with or without a blank before ``<|constrain|>``:

    assistant to=functions.f<|channel|>commentary <|constrain|>json
    assistant<|channel|>commentary to=functions.f<|constrain|>json
"""

import dataclasses
import json
import re
from typing import Any

from gptoss_jax.harmony.forms import HarmonyError
from gptoss_jax.harmony.messages import Author, Message, Role
from gptoss_jax.harmony.render import CHANNEL, CONSTRAIN

# Rust's char::is_whitespace (Unicode White_Space); Python's str.strip also takes U+001C to U+001F.
_WHITE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CHANNEL_VALUE = re.compile(f"[^<{_WHITE}]*")
_OUTER_WHITE = re.compile(f"^[{_WHITE}]+|[{_WHITE}]+$")
_ASCII_WHITE = re.compile("[\t\n\x0c\r ]+")


@dataclasses.dataclass
class ParsedHeader:
    """Who speaks, to whom, where, and in which form."""

    author: Author
    recipient: str | None = None
    channel: str | None = None
    content_type: str | None = None

    def to_dict(self) -> dict[str, Any]:
        author = {"role": self.author.role.value} | ({"name": self.author.name} if self.author.name is not None else {})
        rest = {"recipient": self.recipient, "channel": self.channel, "content_type": self.content_type}
        return {"author": author, **rest}

    def message(self, text: str) -> Message:
        message = Message.from_author_and_content(self.author, text)
        message.channel, message.recipient, message.content_type = self.channel, self.recipient, self.content_type
        return message


def parse_header(text: str, role: Role | None) -> ParsedHeader:
    """Reads a header as openai-harmony 0.0.8 does in strict mode, quirks included.

    Args:
      text: the decoded header tokens.
      role: the role if it is known already (the first message of a completion), else it is the first word.

    Raises:
      HarmonyError: no role, no channel behind ``<|channel|>``, or words that fit nowhere.
    """
    channel = None
    before, marker, after = text.partition(CHANNEL)
    if marker:
        channel = _CHANNEL_VALUE.match(after).group()  # type: ignore[union-attr]
        if not channel:
            raise HarmonyError("channel marker present but no channel value found in header")
        text = before + after[len(channel) :]
    text = _OUTER_WHITE.sub("", text).replace(CONSTRAIN, f" {CONSTRAIN}")
    words = [word for word in _ASCII_WHITE.split(text) if word]

    name = None
    if role is None:
        if not words:
            raise HarmonyError("message header did not contain a role")
        first = words[0]
        if first in list(Role):
            role = Role(first)
        elif len(words) > 1 or first.startswith("to="):
            role = Role.TOOL
            words.pop(0)
        else:
            raise HarmonyError(f"Unknown role: {first}")
        name = first if role is Role.TOOL else None
    if words and words[0] == role.value:
        words.pop(0)

    header = ParsedHeader(Author(role, name), channel=channel)
    if words:
        alone = len(words) == 1
        last = words.pop()
        if last.startswith("to=") or alone:
            header.recipient = last.removeprefix("to=")
        else:
            header.content_type = last
            header.recipient = words.pop().removeprefix("to=")
    if words:
        rest = json.dumps(" ".join(words), ensure_ascii=False)
        raise HarmonyError(f"unexpected tokens remaining in message header: Some({rest})")
    return header


_ROLE_WORD = re.compile(rf"(?:{'|'.join(Role)})(?=[\s<:]|$)(?::[^\s<]*)?")
_TOOL_NAME = re.compile(r"(?:python|browser|[A-Za-z_][\w-]*(?:\.[\w-]+)+)(?=[\s<]|$)")
_FIELD = re.compile(
    rf"\s*to=(?P<recipient>[^\s<]+)|\s*{re.escape(CHANNEL)}\s*(?P<channel>[^\s<]*)"
    rf"|\s*{re.escape(CONSTRAIN)}\s*(?P<constraint>[^\s<]*)"
)


def guess_header(text: str, role: Role | None, ended: bool) -> tuple[ParsedHeader, int]:
    """Makes the best of a header that cannot be read strictly. Never fails.

    Args:
      role: the role if it is known already; a header without one is taken for the assistant's.
      ended: whether ``<|message|>`` came; only then can a lone name be a tool, or a last word the content type.

    Returns:
      The header, and where in `text` its end was found; what follows is junk or the content.
    """
    at = len(text) - len(text.lstrip())
    author = Author(role or Role.ASSISTANT)
    recipient = None
    if word := _ROLE_WORD.match(text, at):
        if role is None or word.group().split(":")[0] == role:
            author = Author(Role(word.group().split(":")[0]))
            at = word.end()
    elif ended and role is None and (word := _TOOL_NAME.match(text, at)):
        author, recipient, at = Author(Role.TOOL, word.group()), "assistant", word.end()
    found: dict[str, str] = {}
    while field := _FIELD.match(text, at):
        for key, value in field.groupdict().items():
            if value is not None and (value or key == "constraint"):
                found.setdefault(key, value)
        at = field.end()
    content_type = CONSTRAIN + found["constraint"] if "constraint" in found else None
    rest = text[at:].split()
    if ended and len(rest) == 1 and "recipient" in found and content_type is None and "<" not in rest[0]:
        content_type, at = rest[0], len(text)
    return ParsedHeader(author, found.get("recipient", recipient), found.get("channel"), content_type), at
