"""What Harmony refuses: JSON of the wrong form by its path, endless schemas, wrong values; and the transcript."""

import json
import time
from typing import Any

import pytest

from gptoss_jax.harmony import (
    Conversation,
    DeveloperContent,
    Encoding,
    FormError,
    Message,
    Role,
    SystemContent,
    ToolDescription,
    Transcript,
)
from gptoss_jax.harmony.view import visible

pytest_plugins = ["harmony_fixtures"]

TOOLS = {"functions": {"name": "functions", "tools": [{"name": "f"}]}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "conversation: not JSON"),
        ("[]", r"conversation: expected an object, found \[\]"),
        ("{}", "messages: missing"),
        ({"messages": 3}, "messages: expected a list, found 3"),
        ({"messages": [3]}, r"messages\[0\]: expected an object, found 3"),
        ({"messages": [{}]}, r"messages\[0\]\.role: missing"),
        ({"messages": [{"role": "bob"}]}, r"messages\[0\]\.role: expected one of 'user', .*'tool', found 'bob'"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]\.content: expected a string or a list, found None"),
        (
            {"messages": [{"role": "user", "content": 5}]},
            r"messages\[0\]\.content: expected .* found 5",
        ),
        ({"messages": [{"role": "user", "content": [5]}]}, r"messages\[0\]\.content\[0\]: expected an object"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            r".*content\[0\]\.type: .* found 'image'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            r".*content\[0\]\.text: missing",
        ),
        ({"messages": [{"role": "user", "content": "", "channel": 5}]}, r"messages\[0\]\.channel: expected a string"),
        ({"messages": [{"role": "user", "content": "", "name": []}]}, r"messages\[0\]\.name: expected a string"),
    ],
)
def test_conversations_of_the_wrong_form(document: Any, message: str) -> None:
    payload = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(FormError, match=f"^{message}"):
        Conversation.from_json(payload)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (
            "system",
            {"reasoning_effort": "low"},
            r"reasoning_effort: expected one of 'Low', .*found 'low'",
        ),
        ("system", {"model_identity": 5}, r"model_identity: expected a string, found 5"),
        ("system", {"channel_config": {}}, r"channel_config\.valid_channels: missing; expected a list"),
        (
            "system",
            {"channel_config": {"valid_channels": [1]}},
            r"channel_config\.valid_channels\[0\]: ",
        ),
        (
            "system",
            {"channel_config": {"valid_channels": []}},
            r"channel_config\.channel_required: missing",
        ),
        ("developer", {"instructions": {}}, r"instructions: expected a string, found \{\}"),
        ("developer", {"tools": []}, r"tools: expected an object"),
        ("developer", {"tools": {"a": {}}}, r"tools\.a\.tools: missing"),
        ("developer", {"tools": TOOLS}, r"tools\.functions\.tools\[0\]\.description: missing"),
    ],
)
def test_content_of_the_wrong_form(kind: str, fields: dict[str, Any], message: str) -> None:
    item = {"type": f"{kind}_content", **fields}
    document = {"messages": [{"role": "user", "content": "x"}, {"role": kind, "content": [item]}]}
    with pytest.raises(FormError, match=rf"^messages\[1\]\.content\[0\]\.{message}"):
        Conversation.from_json(json.dumps(document))


def test_values_of_the_wrong_kind() -> None:
    with pytest.raises(FormError, match=r"content: expected text, SystemContent or DeveloperContent, found int"):
        Message.from_role_and_content(Role.USER, 5)  # type: ignore[arg-type]
    with pytest.raises(FormError, match=r"author\.role: expected one of"):
        Message.from_role_and_content("nobody", "x")  # type: ignore[arg-type]
    assert Message.from_role_and_content("user", "x").author.role is Role.USER  # type: ignore[arg-type]


def test_absent_fields_are_defaults_and_null_is_none() -> None:
    assert SystemContent.from_dict({}) == SystemContent()
    nothing = dict.fromkeys(["model_identity", "reasoning_effort", "knowledge_cutoff", "channel_config", "tools"])
    assert SystemContent.from_dict(nothing) == SystemContent(
        model_identity=None, reasoning_effort=None, knowledge_cutoff=None, channel_config=None
    )


def function(schema: Any) -> Message:
    tool = ToolDescription("f", "", schema)
    return Message.from_role_and_content(Role.DEVELOPER, DeveloperContent().with_function_tools([tool]))


def cyclic() -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    schema["properties"] = {"left": schema, "right": schema}
    return schema


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def bushy() -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        schema = {"type": "object", "properties": {"a": schema, "b": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            cyclic(),
            r"functions\.f\.parameters\.properties\..*nested deeper than 128 .*contain itself",
        ),
        (deep(200), r"nested deeper than 128 levels"),
        (deep(100_000), r"nested deeper than 128 levels"),
        (bushy(), r"functions\.f\.parameters: more than 100,000 values when written out; does the schema share parts"),
        ({"default": float("nan")}, r"functions\.f\.parameters\.default: nan has no JSON form"),
        ({"enum": [{1, 2}]}, r"functions\.f\.parameters\.enum\[0\]: set has no JSON form"),
        ({"properties": {5: {}}}, r"functions\.f\.parameters\.properties: key 5 is no string"),
    ],
    ids=["cycle", "deep", "very deep", "shared", "nan", "set", "key"],
)
def test_endless_and_improper_schemas(encoding: Encoding, schema: Any, message: str) -> None:
    start = time.process_time()
    with pytest.raises(FormError, match=message):
        encoding.render(function(schema))
    assert time.process_time() - start < 5


def test_deep_but_finite_schemas_render(encoding: Encoding) -> None:
    assert "string" + "[]" * 100 in encoding.decode(encoding.render(function(deep(100))))


# The transcript


def transcript(encoding: Encoding, text: str, **options: Any) -> Transcript:
    return Transcript(encoding, encoding.encode(text, allowed_special="all"), **options)


CHAT = (
    "<|start|>user<|message|>1 < 2 & <b>bold</b> \x1b[31m\u202e<|end|>"
    "<|start|>assistant<|channel|>analysis<|message|>Secret <i>thought</i><|end|>"
    "<|start|>assistant to=functions.f<|channel|>commentary<|message|>{}<|call|>"
)


def test_html_is_escaped_labeled_and_folded(encoding: Encoding) -> None:
    page = transcript(encoding, CHAT)._repr_html_()
    assert "<b>bold" not in page and "&lt;b&gt;bold" in page and "<i>" not in page
    assert "\x1b" not in page and "\\x1b[31m\\u202e" in page
    assert page.count("<details>") == 1 and "<summary><b>assistant · analysis</b>" in page
    assert 'aria-label="assistant → functions.f · commentary"' in page, "named in words, not by color alone"
    assert "&lt;|start|&gt;" in page and "Repaired" not in page
    assert not any(word in page for word in ("<script", "<style", "http", "url(", "background:#"))
    assert "<details>" not in transcript(encoding, CHAT, unfold=True)._repr_html_()


def test_text_view(encoding: Encoding) -> None:
    view = transcript(encoding, CHAT)
    text = str(view)
    assert "▌ assistant → functions.f · commentary" in text and "\x1b" not in text
    assert "(folded) Secret <i>thought</i>" in text
    assert "analysis<|message|>Secret" in str(transcript(encoding, CHAT, unfold=True))


def test_repairs_are_listed(encoding: Encoding) -> None:
    view = transcript(encoding, "I must refuse<|end|>", role=Role.ASSISTANT)
    for shown in (str(view), view._repr_html_()):
        assert "Repaired" in shown and "missing_message_token at token 0" in shown


def test_any_ids_have_a_transcript(encoding: Encoding) -> None:
    view = Transcript(encoding, [10**9, 9552, encoding.control["<|end|>"], encoding.control["<|end|>"], -3])
    assert "outside of messages" in str(view) and view._repr_html_()
    assert str(Transcript(encoding, [])) == "" and Transcript(encoding, [])._repr_html_()


def test_visible_keeps_scripts_and_shows_controls() -> None:
    assert visible("日本 नमस्ते 👩‍🚀 e\u0301\n\t") == "日本 नमस्ते 👩‍🚀 e\u0301\n\t"
    assert visible("\x00\x7f\x9b\u2066") == "\\x00\\x7f\\x9b\\u2066"
