"""What stands in a message: plain text, or the structured blocks of system and developer messages."""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any, Self

from gptoss_jax.harmony.forms import FormError, choice, expect, field, optional
from gptoss_jax.harmony.tools import ToolDescription, ToolNamespaceConfig


class ReasoningEffort(enum.StrEnum):
    """How long to think: one line of the system message, written in lower case there."""

    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"


@dataclasses.dataclass
class ChannelConfig:
    """The channels that the system message allows."""

    valid_channels: list[str]
    channel_required: bool

    @classmethod
    def require_channels(cls, channels: Sequence[str]) -> Self:
        return cls(list(channels), True)

    @classmethod
    def from_dict(cls, raw: Any, path: str = "channel_config") -> Self:
        channels = field(expect(raw, dict, path), "valid_channels", list, path)
        named = [expect(channel, str, f"{path}.valid_channels[{i}]") for i, channel in enumerate(channels)]
        return cls(named, field(raw, "channel_required", bool, path))


@dataclasses.dataclass
class TextContent:
    """Plain text. Special tokens in it stay text: nobody can smuggle in control tokens."""

    text: str

    def __post_init__(self) -> None:
        expect(self.text, str, "content.text")

    def to_dict(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text}


@dataclasses.dataclass
class _WithTools:
    """What system and developer content share."""

    tools: dict[str, ToolNamespaceConfig] | None = dataclasses.field(default=None, kw_only=True)

    def with_tools(self, ns_config: ToolNamespaceConfig) -> Self:
        self.tools = {**(self.tools or {}), ns_config.name: ns_config}
        return self

    def _tools_to_dict(self) -> dict[str, Any]:
        if self.tools is None:
            return {}
        return {"tools": {name: namespace.to_dict() for name, namespace in self.tools.items()}}


def _tools_from_dict(raw: dict[str, Any], path: str) -> dict[str, ToolNamespaceConfig] | None:
    tools = optional(raw, "tools", dict, path)
    if tools is None:
        return None
    return {name: ToolNamespaceConfig.from_dict(tools[name], f"{path}.tools.{name}") for name in tools}


@dataclasses.dataclass
class SystemContent(_WithTools):
    """Identity, dates, reasoning effort, built-in tools and channels; only in system messages."""

    model_identity: str | None = "You are ChatGPT, a large language model trained by OpenAI."
    reasoning_effort: ReasoningEffort | None = ReasoningEffort.MEDIUM
    conversation_start_date: str | None = None
    knowledge_cutoff: str | None = "2024-06"
    channel_config: ChannelConfig | None = dataclasses.field(
        default_factory=lambda: ChannelConfig.require_channels(["analysis", "commentary", "final"])
    )

    def __post_init__(self) -> None:
        if self.reasoning_effort is not None:
            self.reasoning_effort = choice(ReasoningEffort, self.reasoning_effort, "reasoning_effort")

    @classmethod
    def new(cls) -> Self:
        return cls()

    def with_model_identity(self, model_identity: str) -> Self:
        self.model_identity = model_identity
        return self

    def with_reasoning_effort(self, reasoning_effort: ReasoningEffort) -> Self:
        self.reasoning_effort = reasoning_effort
        return self

    def with_conversation_start_date(self, conversation_start_date: str) -> Self:
        self.conversation_start_date = conversation_start_date
        return self

    def with_knowledge_cutoff(self, knowledge_cutoff: str) -> Self:
        self.knowledge_cutoff = knowledge_cutoff
        return self

    def with_channel_config(self, channel_config: ChannelConfig) -> Self:
        self.channel_config = channel_config
        return self

    def with_required_channels(self, channels: Sequence[str]) -> Self:
        self.channel_config = ChannelConfig.require_channels(channels)
        return self

    def with_browser_tool(self) -> Self:
        return self.with_tools(ToolNamespaceConfig.browser())

    def with_python_tool(self) -> Self:
        return self.with_tools(ToolNamespaceConfig.python())

    def to_dict(self) -> dict[str, Any]:
        """The JSON form. A field set to None is written as null, because a missing one would be read as its default."""
        out: dict[str, Any] = {
            "model_identity": self.model_identity,
            "reasoning_effort": self.reasoning_effort and self.reasoning_effort.value,
            "knowledge_cutoff": self.knowledge_cutoff,
            "channel_config": self.channel_config and dataclasses.asdict(self.channel_config),
        }
        if self.conversation_start_date is not None:
            out["conversation_start_date"] = self.conversation_start_date
        return {**out, **self._tools_to_dict(), "type": "system_content"}

    @classmethod
    def from_dict(cls, raw: Any, path: str = "system_content") -> Self:
        expect(raw, dict, path)
        content = cls(tools=_tools_from_dict(raw, path))
        for name in ("model_identity", "conversation_start_date", "knowledge_cutoff"):
            setattr(content, name, optional(raw, name, str, path, getattr(content, name)))
        if "reasoning_effort" in raw:
            effort = raw["reasoning_effort"]
            at = f"{path}.reasoning_effort"
            content.reasoning_effort = None if effort is None else choice(ReasoningEffort, effort, at)
        if "channel_config" in raw:
            config = optional(raw, "channel_config", dict, path)
            content.channel_config = (
                None if config is None else ChannelConfig.from_dict(config, f"{path}.channel_config")
            )
        return content


@dataclasses.dataclass
class DeveloperContent(_WithTools):
    """Instructions ("the system prompt" of other models) and function tools; only in developer messages."""

    instructions: str | None = None

    @classmethod
    def new(cls) -> Self:
        return cls()

    def with_instructions(self, instructions: str) -> Self:
        self.instructions = instructions
        return self

    def with_function_tools(self, tools: Sequence[ToolDescription]) -> Self:
        return self.with_tools(ToolNamespaceConfig("functions", None, list(tools)))

    def to_dict(self) -> dict[str, Any]:
        out = {} if self.instructions is None else {"instructions": self.instructions}
        return {**out, **self._tools_to_dict(), "type": "developer_content"}

    @classmethod
    def from_dict(cls, raw: Any, path: str = "developer_content") -> Self:
        expect(raw, dict, path)
        return cls(optional(raw, "instructions", str, path), tools=_tools_from_dict(raw, path))


Content = TextContent | SystemContent | DeveloperContent


def as_content(content: Any, path: str) -> Content:
    """A string becomes `TextContent`; content stays as it is; anything else is refused."""
    if isinstance(content, str):
        return TextContent(content)
    if isinstance(content, Content):
        return content
    raise FormError(f"{path}: expected text, SystemContent or DeveloperContent, found {type(content).__name__}")


def content_from_dict(raw: Any, path: str) -> Content:
    """Reads one item of a message, of whichever type it says it is."""
    expect(raw, dict, path)
    match raw.get("type"):
        case "text":
            return TextContent(field(raw, "text", str, path))
        case "system_content":
            return SystemContent.from_dict(raw, path)
        case "developer_content":
            return DeveloperContent.from_dict(raw, path)
    raise FormError(f"{path}.type: expected 'text', 'system_content' or 'developer_content', found {raw.get('type')!r}")
