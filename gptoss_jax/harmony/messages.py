"""Conversations as data: who says what to whom on which channel. Names and JSON forms are those of openai-harmony.

Roles, from the most to the least trusted: system, developer, user, assistant, tool. The assistant speaks on three
channels: `analysis` (its chain of thought), `commentary` (calls of functions, and words to the user before them) and
`final` (the answer).
"""

import dataclasses
import enum
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from gptoss_jax.harmony.content import Content, TextContent, as_content, content_from_dict
from gptoss_jax.harmony.forms import FormError, choice, expect, field, load_object, optional


class Role(enum.StrEnum):
    """Who speaks."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    DEVELOPER = "developer"
    TOOL = "tool"


@dataclasses.dataclass
class Author:
    """Who wrote a message; a tool is known by its name, such as ``functions.get_weather``."""

    role: Role
    name: str | None = None

    def __post_init__(self) -> None:
        self.role = choice(Role, self.role, "author.role")

    @classmethod
    def new(cls, role: Role, name: str) -> Self:
        return cls(role, name)


@dataclasses.dataclass
class Message:
    """One message: ``<|start|>{header}<|message|>{content}`` and a stop token."""

    author: Author
    content: list[Content] = dataclasses.field(default_factory=list)
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None

    def __post_init__(self) -> None:
        self.content = [as_content(item, f"content[{i}]") for i, item in enumerate(self.content)]

    @classmethod
    def from_author_and_content(cls, author: Author, content: str | Content) -> Self:
        return cls(author, [as_content(content, "content")])

    @classmethod
    def from_role_and_content(cls, role: Role, content: str | Content) -> Self:
        return cls.from_author_and_content(Author(role), content)

    @classmethod
    def from_role_and_contents(cls, role: Role, contents: Sequence[Content]) -> Self:
        return cls(Author(role), list(contents))

    def adding_content(self, content: str | Content) -> Self:
        self.content.append(as_content(content, "content"))
        return self

    def with_channel(self, channel: str) -> Self:
        self.channel = channel
        return self

    def with_recipient(self, recipient: str) -> Self:
        self.recipient = recipient
        return self

    def with_content_type(self, content_type: str) -> Self:
        self.content_type = content_type
        return self

    @property
    def text(self) -> str:
        """The plain text of the message, items joined; empty where the content is a system or developer block."""
        return "".join(item.text for item in self.content if isinstance(item, TextContent))

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "role": self.author.role.value,
            "name": self.author.name,
            "content": [item.to_dict() for item in self.content],
        }
        options = {"channel": self.channel, "recipient": self.recipient, "content_type": self.content_type}
        return {**out, **{name: value for name, value in options.items() if value is not None}}

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], path: str = "message") -> Self:
        raw = expect(data, dict, path)
        role = choice(Role, field(raw, "role", str, path), f"{path}.role")
        author = Author(role, optional(raw, "name", str, path))
        content = raw.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list):
            raise FormError(f"{path}.content: expected a string or a list, found {content!r}")
        items = [content_from_dict(item, f"{path}.content[{i}]") for i, item in enumerate(content)]
        options = {name: optional(raw, name, str, path) for name in ("channel", "recipient", "content_type")}
        return cls(author, items, **options)


@dataclasses.dataclass
class Conversation:
    """Messages in order."""

    messages: list[Message] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        for i, message in enumerate(self.messages):
            if not isinstance(message, Message):
                raise FormError(f"messages[{i}]: expected a Message, found {type(message).__name__}")

    @classmethod
    def from_messages(cls, messages: Sequence[Message]) -> Self:
        return cls(list(messages))

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def to_dict(self) -> dict[str, Any]:
        return {"messages": [message.to_dict() for message in self.messages]}

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, payload: str) -> Self:
        """Reads ``{"messages": [...]}``.

        Raises:
          FormError: with the path of what is wrong, such as ``messages[2].content[0].text``.
        """
        raw = load_object(payload, "conversation")
        if "messages" not in raw:
            raise FormError('messages: missing; a conversation is {"messages": [...]}')
        messages = expect(raw["messages"], list, "messages")
        return cls([Message.from_dict(message, f"messages[{i}]") for i, message in enumerate(messages)])
