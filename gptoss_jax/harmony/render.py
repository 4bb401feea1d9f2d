"""Messages to text: what stands in each part of a Harmony message, and which parts are control tokens.

A message is rendered as a list of `Piece`s. Each text piece is tokenized on its own, so the borders between pieces
decide the ids: ``" to=functions.f"`` is one piece, the channel's name another (openai-harmony 0.0.8, src/encoding.rs).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from gptoss_jax.harmony.content import Content, DeveloperContent, SystemContent, TextContent
from gptoss_jax.harmony.forms import FormError, HarmonyError
from gptoss_jax.harmony.messages import Message, Role
from gptoss_jax.harmony.schema import check_schema, compact_json, to_typescript
from gptoss_jax.harmony.tools import ToolDescription, ToolNamespaceConfig

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
END, CALL, RETURN = "<|end|>", "<|call|>", "<|return|>"


@dataclasses.dataclass(frozen=True)
class Piece:
    """A stretch of a rendered message: a control token or a text that is tokenized on its own."""

    text: str
    part: Literal["special", "role", "header", "content"]


def message_pieces(message: Message, has_function_tools: bool = False) -> Iterator[Piece]:
    """The pieces of one message, from ``<|start|>`` to its stop token.

    Args:
      has_function_tools: whether some developer message defines functions; the system message then says so.

    Raises:
      HarmonyError: a tool without a name, or system or developer content under another role.
    """
    author = message.author
    yield Piece(START, "special")
    if author.role is not Role.TOOL:
        yield Piece(author.role.value, "role")
        if author.name is not None:
            yield Piece(f":{author.name}", "role")
    elif author.name is not None:
        yield Piece(author.name, "role")
    else:
        raise HarmonyError("Tools should have a name!")

    if message.recipient is not None and message.recipient != "all":
        yield Piece(f" to={message.recipient}", "header")
    if message.channel is not None:
        yield Piece(CHANNEL, "special")
        yield Piece(message.channel, "header")
    if message.content_type is not None:
        if message.content_type.startswith(CONSTRAIN):
            yield Piece(" ", "header")
            yield Piece(CONSTRAIN, "special")
            yield Piece(message.content_type.removeprefix(CONSTRAIN), "header")
        else:
            yield Piece(f" {message.content_type}", "header")

    yield Piece(MESSAGE, "special")
    for content in message.content:
        yield Piece(content_text(content, author.role, has_function_tools), "content")
    calls = author.role is Role.ASSISTANT and message.recipient is not None
    yield Piece(CALL if calls else END, "special")


def content_text(content: Content, role: Role, has_function_tools: bool = False) -> str:
    """The text of one content item, as the model reads it."""
    if isinstance(content, TextContent):
        return content.text
    needed = Role.SYSTEM if isinstance(content, SystemContent) else Role.DEVELOPER
    if role is not needed:
        raise HarmonyError(
            f"{type(content).__name__} may only appear in {needed.value} messages, found in {role.name.capitalize()}"
        )
    if isinstance(content, DeveloperContent):
        return developer_text(content)
    return system_text(content, has_function_tools)


def system_text(content: SystemContent, has_function_tools: bool = False) -> str:
    """Identity and dates, reasoning effort, built-in tools, channels; absent sections leave no trace."""
    top = [content.model_identity] if content.model_identity is not None else []
    if content.knowledge_cutoff is not None:
        top.append(f"Knowledge cutoff: {content.knowledge_cutoff}")
    if content.conversation_start_date is not None:
        top.append(f"Current date: {content.conversation_start_date}")
    sections = ["\n".join(top)] if top else []
    if content.reasoning_effort is not None:
        sections.append(f"Reasoning: {content.reasoning_effort.value.lower()}")
    if content.tools:
        sections.append(tools_text(content.tools))
    if content.channel_config is not None and content.channel_config.valid_channels:
        channels = f"# Valid channels: {', '.join(content.channel_config.valid_channels)}."
        if content.channel_config.channel_required:
            channels += " Channel must be included for every message."
        if has_function_tools:
            channels += "\nCalls to these tools must go to the commentary channel: 'functions'."
        sections.append(channels)
    return "\n\n".join(sections)


def developer_text(content: DeveloperContent) -> str:
    """Instructions, then tools."""
    sections = [] if content.instructions is None else ["# Instructions", content.instructions]
    if content.tools:
        sections.append(tools_text(content.tools))
    return "\n\n".join(sections)


def tools_text(tools: dict[str, ToolNamespaceConfig]) -> str:
    """The ``# Tools`` section: namespaces in the order of their keys, each function as a TypeScript type."""
    sections = ["# Tools"]
    for key in sorted(tools):
        namespace = tools[key]
        lines = [f"## {namespace.name}\n"]
        comment = "// " if namespace.tools else ""
        lines += [comment + line for line in _lines(namespace.description or "")]
        if namespace.tools:
            lines.append(f"namespace {namespace.name} {{\n")
            for tool in namespace.tools:
                lines += [f"// {line}" for line in _lines(tool.description)]
                lines.append(f"type {tool.name} = {_signature(tool, key)} => any;\n")
            lines.append(f"}} // namespace {namespace.name}")
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def _signature(tool: ToolDescription, namespace: str) -> str:
    if tool.parameters is None:
        return "()"
    check_schema(tool.parameters, f"{namespace}.{tool.name}.parameters")
    return f"(_: {to_typescript(tool.parameters)})"


def _lines(text: str) -> list[str]:
    r"""Lines as in Rust's `str::lines`: cut at ``\n`` alone, one ``\r`` before it dropped, no empty line at the end."""
    *ended, last = text.split("\n")
    return [line.removesuffix("\r") for line in ended] + ([last] if last else [])


def response_format(name: str, schema: dict[str, Any], description: str | None = None) -> TextContent:
    """The ``# Response Formats`` section that asks for structured output; it stands last in a developer message.

    >>> message = Message.from_role_and_content(Role.DEVELOPER, DeveloperContent("You are a shopping assistant"))
    >>> message = message.adding_content(response_format("shopping_list", {"type": "array"}))

    This only asks: nothing makes the model follow the schema unless its sampling is constrained as well.
    """
    check_schema(schema, f"response_format.{name}")
    if not name or "\n" in name:
        raise FormError(f"response_format: name = {name!r} must be one line of text")
    comment = "".join(f"// {line}\n" for line in _lines(description or ""))
    return TextContent(f"\n\n# Response Formats\n\n## {name}\n\n{comment}{compact_json(schema)}")


def has_function_tools(messages: Sequence[Message]) -> bool:
    """Whether developer content defines functions: a namespace under the key ``functions`` that is not empty."""
    blocks = [item.tools for message in messages for item in message.content if isinstance(item, DeveloperContent)]
    return any(tools and "functions" in tools and tools["functions"].tools for tools in blocks)


def drop_old_analysis(messages: Sequence[Message]) -> list[Message]:
    """Leaves out the reasoning that led to the first answer, once the last word of the assistant is an answer.

    While the assistant is still at work (its last message is no `final`), everything stays: it needs its reasoning
    after a tool call. Otherwise every `analysis` message before the first `final` one goes, whoever wrote it, and
    analysis between two finals stays.
    """
    channels = [message.channel for message in messages]
    spoken = [message.channel for message in messages if message.author.role is Role.ASSISTANT]
    if not spoken or spoken[-1] != "final":
        return list(messages)
    first_final = channels.index("final")
    return [message for i, message in enumerate(messages) if i >= first_final or message.channel != "analysis"]
