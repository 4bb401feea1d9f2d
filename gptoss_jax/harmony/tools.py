"""Tools a model may call: functions with a JSON schema, and the built-in browser and Python."""

import dataclasses
from typing import Any, Self

from gptoss_jax.harmony.forms import expect, field, optional


@dataclasses.dataclass
class ToolDescription:
    """One function: its name, what it does, and the JSON schema of its single argument (None: no argument)."""

    name: str
    description: str
    parameters: dict[str, Any] | None = None

    @classmethod
    def new(cls, name: str, description: str, parameters: dict[str, Any] | None = None) -> Self:
        return cls(name, description, parameters)

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"name": self.name, "description": self.description}
        return out if self.parameters is None else {**out, "parameters": self.parameters}

    @classmethod
    def from_dict(cls, raw: Any, path: str = "tool") -> Self:
        expect(raw, dict, path)
        return cls(
            field(raw, "name", str, path), field(raw, "description", str, path), optional(raw, "parameters", dict, path)
        )


@dataclasses.dataclass
class ToolNamespaceConfig:
    """Tools under one name. A namespace without functions, such as `python`, is called by that name itself."""

    name: str
    description: str | None = None
    tools: list[ToolDescription] = dataclasses.field(default_factory=list)

    @staticmethod
    def browser() -> "ToolNamespaceConfig":
        """The browser that gpt-oss was trained with; it belongs in the system message."""
        return ToolNamespaceConfig("browser", _BROWSER, [ToolDescription(*tool) for tool in _BROWSER_TOOLS])

    @staticmethod
    def python() -> "ToolNamespaceConfig":
        """The Python interpreter that gpt-oss was trained with; it belongs in the system message."""
        return ToolNamespaceConfig("python", _PYTHON)

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"name": self.name, "tools": [tool.to_dict() for tool in self.tools]}
        return out if self.description is None else {**out, "description": self.description}

    @classmethod
    def from_dict(cls, raw: Any, path: str = "namespace") -> Self:
        expect(raw, dict, path)
        tools = field(raw, "tools", list, path)
        return cls(
            field(raw, "name", str, path),
            optional(raw, "description", str, path),
            [ToolDescription.from_dict(tool, f"{path}.tools[{i}]") for i, tool in enumerate(tools)],
        )


def _schema(required: list[str] | None = None, **properties: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return schema if required is None else {**schema, "required": required}


def _number(default: int | None = None) -> dict[str, Any]:
    return {"type": "number"} if default is None else {"type": "number", "default": default}


# The texts below are interface strings: the model was trained on exactly these (openai-harmony 0.0.8, src/chat.rs).
_BROWSER = "\n".join(
    [
        "Tool for browsing.",
        "The `cursor` appears in brackets before each browsing display: `[{cursor}]`.",
        "Cite information from the tool using the following format:",
        "`【{cursor}†L{line_start}(-L{line_end})?】`, for example: `【6†L9-L11】` or `【8†L3】`.",
        "Do not quote more than 10 words directly from the tool output.",
        "sources=web (default: web)",
    ]
)
_BROWSER_TOOLS: list[tuple[str, str, dict[str, Any]]] = [
    (
        "search",
        "Searches for information related to `query` and displays `topn` results.",
        _schema(["query"], query={"type": "string"}, topn=_number(10), source={"type": "string"}),
    ),
    (
        "open",
        "Opens the link `id` from the page indicated by `cursor` starting at line number `loc`, showing `num_lines` "
        "lines.\n"
        "Valid link ids are displayed with the formatting: `【{id}†.*】`.\n"
        "If `cursor` is not provided, the most recent page is implied.\n"
        "If `id` is a string, it is treated as a fully qualified URL associated with `source`.\n"
        "If `loc` is not provided, the viewport will be positioned at the beginning of the document or centered on "
        "the most relevant passage, if available.\n"
        "Use this function without `id` to scroll to a new location of an opened page.",
        _schema(
            id={"type": ["number", "string"], "default": -1},
            cursor=_number(-1),
            loc=_number(-1),
            num_lines=_number(-1),
            view_source={"type": "boolean", "default": False},
            source={"type": "string"},
        ),
    ),
    (
        "find",
        "Finds exact matches of `pattern` in the current page, or the page given by `cursor`.",
        _schema(["pattern"], pattern={"type": "string"}, cursor=_number(-1)),
    ),
]
_PYTHON = (
    "Use this tool to execute Python code in your chain of thought. The code will not be shown to the user. This tool "
    "should be used for internal reasoning, but not for code that is intended to be visible to the user (e.g. when "
    "creating plots, tables, or files).\n\n"
    "When you send a message containing Python code to python, it will be executed in a stateful Jupyter notebook "
    "environment. python will respond with the output of the execution or time out after 120.0 seconds. The drive at "
    "'/mnt/data' can be used to save and persist user files. Internet access for this session is UNKNOWN. Depends on "
    "the cluster."
)
