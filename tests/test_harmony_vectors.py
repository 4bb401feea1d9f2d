"""openai/harmony's own test data and tests, ported; the texts are in harmony_vectors/."""

from pathlib import Path
from typing import Any

import pytest

from gptoss_jax.harmony import (
    Author,
    Conversation,
    DeveloperContent,
    Encoding,
    FormError,
    HarmonyError,
    Message,
    ReasoningEffort,
    RenderConversationConfig,
    Role,
    StreamableParser,
    SystemContent,
    ToolDescription,
)

pytest_plugins = ["harmony_fixtures"]

say = Message.from_role_and_content
CALL = '{"location": "Tokyo"}'


def vector(name: str) -> str:
    return (Path(__file__).parent / "harmony_vectors" / f"test_{name}.txt").read_text(encoding="utf-8").rstrip()


def ids(name: str) -> list[int]:
    return [int(word) for word in vector(name).split()]


def system(**options: Any) -> Message:
    return say(Role.SYSTEM, SystemContent(**options))


def function(name: str, description: str, parameters: Any = None) -> ToolDescription:
    return ToolDescription.new(name, description, parameters)


def object_of(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


QUESTION = say(Role.USER, "What is the capital of the largest country in the world?")
ROBOT = say(Role.DEVELOPER, DeveloperContent("Answer the user's questions like a robot."))
DATE = {"conversation_start_date": "2025-06-28"}
FORMAT = {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"}
CITY = {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}
CITIES = {
    "type": "array",
    "items": {"type": "string"},
    "description": 'List of city and state, e.g. ["San Francisco, CA", "New York, NY"]',
}
KITCHEN_SINK = {"description": "params object"} | object_of(
    string={"type": "string", "title": "STRING", "description": "A string", "examples": ["hello", "world"]},
    string_nullable={
        "type": "string",
        "nullable": True,
        "description": "A nullable string",
        "default": "the default",
    },
    string_enum={"type": "string", "enum": ["a", "b", "c"]},
    oneof_string_or_number={
        "oneOf": [
            {"type": "string", "default": "default_string_in_oneof"},
            {"type": "number", "description": "numbers can happen too"},
        ],
        "description": "a oneof",
        "default": 20,
    },
)
FUNCTIONS = [
    function("get_location", "Gets the location of the user."),
    function(
        "get_current_weather",
        "Gets the current weather in the provided location.",
        object_of(["location"], location=CITY, format=FORMAT),
    ),
    function(
        "get_multiple_weathers",
        "Gets the current weather in the provided list of locations.",
        object_of(["locations"], locations=CITIES, format=FORMAT),
    ),
    function("kitchensink", "A function with various complex schemas.", KITCHEN_SINK),
]
LOOKUP = function(
    "lookup_weather",
    "Use this tool to lookup the weather in a given location. Call it with the parameter 'location', can be any "
    "textual description of a location.",
    object_of(["location"], location={"type": "string"}),
)


def channels(*names: str, **options: Any) -> Message:
    return say(Role.SYSTEM, SystemContent(**options).with_required_channels(names))


def effort(level: str) -> ReasoningEffort:
    return ReasoningEffort(level.capitalize())


PROMPTS: dict[str, list[Message]] = {
    "simple_convo": [system(), say(Role.USER, "What is 2 + 2?")],
    **{
        f"simple_convo_{e}_effort": [system(reasoning_effort=effort(e)), ROBOT, QUESTION]
        for e in ("low", "medium", "high")
    },
    **{
        f"simple_convo_{e}_effort_no_instruction": [system(reasoning_effort=effort(e)), QUESTION]
        for e in ("low", "medium", "high")
    },
    "reasoning_system_message": [channels("analysis", "final"), say(Role.USER, "What is 2 + 2?")],
    "reasoning_system_message_no_instruction": [
        channels("analysis", "final", reasoning_effort=ReasoningEffort.HIGH),
        say(Role.USER, "What is the best place to eat candy in the world?"),
    ],
    "reasoning_system_message_with_dates": [
        channels("analysis", "final", conversation_start_date="2021-01-01", knowledge_cutoff="2021-01"),
        say(Role.USER, "What is 42 * pi?"),
    ],
    "no_tools": [system(**DATE)],
    "browser_tool_only": [say(Role.SYSTEM, SystemContent(**DATE).with_browser_tool())],
    "browser_and_python_tool": [say(Role.SYSTEM, SystemContent(**DATE).with_browser_tool().with_python_tool())],
    "browser_and_function_tool": [
        say(Role.SYSTEM, SystemContent(**DATE).with_browser_tool()),
        say(Role.DEVELOPER, DeveloperContent().with_function_tools([LOOKUP])),
    ],
    "render_functions_with_parameters": [
        system(reasoning_effort=ReasoningEffort.HIGH, **DATE),
        say(Role.DEVELOPER, DeveloperContent("Always respond in riddles").with_function_tools(FUNCTIONS)),
        say(Role.USER, "What is the weather like in SF?"),
    ],
    "dropping_cot_by_default": [
        say(Role.USER, "What is 2 + 2?"),
        say(Role.ASSISTANT, "User asks: “What is 2 + 2?” Simple arithmetic. Provide answer.").with_channel("analysis"),
        say(Role.ASSISTANT, "2 + 2 equals 4.").with_channel("final"),
        say(Role.USER, "What about 9 / 2?"),
    ],
    "does_not_drop_if_ongoing_analysis": [
        say(Role.USER, "What is the weather in SF?"),
        say(Role.ASSISTANT, "User asks: “What is the weather in SF?” We need to use lookup_weather tool.").with_channel(
            "analysis"
        ),
        say(Role.ASSISTANT, '{"location": "San Francisco"}')
        .with_channel("commentary")
        .with_recipient("functions.lookup_weather")
        .with_content_type("<|constrain|>json"),
        Message.from_author_and_content(
            Author.new(Role.TOOL, "functions.lookup_weather"), '{"temperature": 20, "description": "sunny"}'
        ),
    ],
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompt(encoding: Encoding, name: str) -> None:
    tokens = encoding.render_conversation_for_completion(Conversation(PROMPTS[name]), Role.ASSISTANT)
    assert encoding.decode_utf8(tokens) == vector(name)
    assert tokens == encoding.encode(vector(name), allowed_special="all")


def test_preserve_cot(encoding: Encoding) -> None:
    messages = [
        say(Role.USER, "What is 2 + 2?"),
        say(Role.ASSISTANT, 'User asks a simple question: "What is 2 + 2?" The answer: 4.').with_channel("analysis"),
        say(Role.ASSISTANT, "2 + 2 equals 4.").with_channel("final"),
        say(Role.USER, "What about 9 / 2?"),
    ]
    keep = RenderConversationConfig(auto_drop_analysis=False)
    tokens = encoding.render_conversation_for_completion(Conversation(messages), Role.ASSISTANT, keep)
    assert encoding.decode_utf8(tokens) == vector("preserve_cot")


def test_keep_analysis_between_finals(encoding: Encoding) -> None:
    messages = [
        say(Role.USER, "What is 2 + 2?"),
        say(Role.ASSISTANT, "thinking 2+2").with_channel("analysis"),
        say(Role.ASSISTANT, "4").with_channel("final"),
        say(Role.USER, "What is 3 + 5?"),
        say(Role.ASSISTANT, "thinking 3+5").with_channel("analysis"),
        say(Role.ASSISTANT, "8").with_channel("final"),
    ]
    tokens = encoding.render_conversation(Conversation(messages))
    assert encoding.decode_utf8(tokens) == vector("keep_analysis_between_finals")


def test_simple_reasoning_response(encoding: Encoding) -> None:
    thought = 'User asks: "What is 2 + 2?" Simple arithmetic. Provide answer.'
    assert encoding.parse_messages_from_completion_tokens(ids("simple_reasoning_response"), Role.ASSISTANT) == [
        say(Role.ASSISTANT, thought).with_channel("analysis"),
        say(Role.ASSISTANT, "2 + 2 = 4.").with_channel("final"),
    ]


def test_simple_tool_call(encoding: Encoding) -> None:
    thought = 'User asks: "What is the weather in Tokyo?" We need to use lookup_weather tool.'
    call = say(Role.ASSISTANT, CALL).with_channel("analysis").with_recipient("lookup_weather").with_content_type("code")
    assert encoding.parse_messages_from_completion_tokens(ids("simple_tool_call"), Role.ASSISTANT) == [
        say(Role.ASSISTANT, thought).with_channel("analysis"),
        call,
    ]


@pytest.mark.parametrize(
    "header",
    [
        "assistant to=functions.get_weather<|channel|>commentary <|constrain|>json",
        "assistant to=functions.get_weather<|channel|>commentary<|constrain|>json",
        "assistant<|channel|>commentary to=functions.get_weather<|constrain|>json",
        "assistant<|channel|>commentary to=functions.get_weather <|constrain|>json",
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_recipient_before_or_behind_the_channel(encoding: Encoding, header: str, strict: bool) -> None:
    tokens = encoding.encode(f"<|start|>{header}<|message|>{CALL}<|call|>", allowed_special="all")
    call = say(Role.ASSISTANT, CALL).with_channel("commentary").with_recipient("functions.get_weather")
    parser = encoding.parse(tokens, strict=strict)
    assert parser.messages == [call.with_content_type("<|constrain|>json")]
    assert parser.repairs == []
    if " <|constrain|>" in header and " to=" in header.split("<|channel|>")[0]:
        assert encoding.render_conversation(Conversation(parser.messages)) == tokens


def test_tool_response_parsing(encoding: Encoding) -> None:
    author = Author.new(Role.TOOL, "browser.search")
    result = Message.from_author_and_content(author, '{"result": "https://openai.com/"}')
    tokens = encoding.render(result.with_channel("commentary").with_recipient("assistant"))[:-1]
    assert encoding.decode_utf8(tokens) == vector("tool_response_parsing")
    assert encoding.parse_messages_from_completion_tokens(tokens) == [result]


def test_streamable_parser(encoding: Encoding) -> None:
    tokens = encoding.encode(vector("streamable_parser"), allowed_special="all")
    messages = encoding.parse(tokens, Role.ASSISTANT, strict=True).messages
    assert [message.author.role for message in messages] == [Role.ASSISTANT, Role.ASSISTANT, Role.TOOL]
    assert messages[1].recipient == "browser.search" and messages[1].content_type == "code"
    assert "But w\ne need" in messages[0].text


MISSING = {
    "I must refuse<|end|>": say(Role.ASSISTANT, "I must refuse"),
    "<|channel|>analysis I must refuse<|end|>": say(Role.ASSISTANT, "I must refuse").with_channel("analysis"),
    "... Let's use the tool.<|end|>": say(Role.ASSISTANT, "... Let's use the tool."),
    "<|channel|>commentary Hello<|end|>": say(Role.ASSISTANT, "Hello").with_channel("commentary"),
}


@pytest.mark.parametrize("text", MISSING)
def test_missing_message_token(encoding: Encoding, text: str) -> None:
    """Refusals without a header: an error in strict mode, the same messages as the official non-strict mode else."""
    after = "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}<|call|>"
    tokens = encoding.encode(text + after, allowed_special="all")
    with pytest.raises(HarmonyError, match="unexpected tokens remaining in message header"):
        encoding.parse(tokens, Role.ASSISTANT, strict=True)
    call = say(Role.ASSISTANT, "{}").with_channel("commentary").with_recipient("functions.f").with_content_type("json")
    parser = encoding.parse(tokens, Role.ASSISTANT)
    assert parser.messages == [MISSING[text], call]
    assert [repair.name for repair in parser.repairs] == ["missing_message_token"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([9552, 9552], " \ufffd \ufffdworked"),
        ([9552, 55, 56], " \ufffdXYworked"),
        ([9552, 9559], " \ufffd interestingworked"),
        ([31446, 244], "💖worked"),
        ([9552], " \ufffdworked"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_utf8_across_tokens(encoding: Encoding, content: list[int], expected: str, strict: bool) -> None:
    start = encoding.encode("<|start|>assistant<|message|>", allowed_special="all")
    parser = StreamableParser(encoding, None, strict=strict)
    deltas = []
    for token in [*start, *content, *encoding.encode("worked")]:
        parser.process(token)
        deltas.append(parser.last_content_delta or "")
        assert parser.current_content == "".join(deltas)
        assert expected.startswith(parser.current_content)
    parser.process(encoding.control["<|end|>"])
    assert parser.messages == [say(Role.ASSISTANT, expected)]


def test_partial_bytes_end_with_their_message(encoding: Encoding) -> None:
    start = encoding.encode("<|start|>assistant<|message|>", allowed_special="all")
    end = encoding.encode("<|end|>", allowed_special="all")
    tokens = [*start, 9552, *end, *start, *encoding.encode("Hi"), 9552, *end]
    assert [message.text for message in encoding.parse(tokens, strict=True).messages] == [" \ufffd", "Hi \ufffd"]


def test_tricky_utf8(encoding: Encoding) -> None:
    text = "Müller, Γειά σου, Привет, שלום, مرحبا, नमस्ते, こんにちは, 안녕하세요, 你好. nai\u0308ve 😊👋🏾👨‍👩‍👧‍👦🇺🇸."
    parser = encoding.parse(encoding.render(say(Role.ASSISTANT, text)), strict=True)
    assert parser.messages == [say(Role.ASSISTANT, text)]


def test_training_render_ends_a_final_answer_with_return(encoding: Encoding) -> None:
    final = Conversation([say(Role.USER, "hi"), say(Role.ASSISTANT, "hello").with_channel("final")])
    plain, training = encoding.render_conversation(final), encoding.render_conversation_for_training(final)
    assert plain[:-1] == training[:-1]
    assert [plain[-1], training[-1]] == [encoding.control["<|end|>"], encoding.control["<|return|>"]]
    other = Conversation([say(Role.USER, "hi")])
    assert encoding.render_conversation_for_training(other) == encoding.render_conversation(other)


def test_token_helpers(encoding: Encoding) -> None:
    assert encoding.encode("hello world") == [24912, 2375]
    assert encoding.encode("<|start|>", allowed_special={"<|start|>"}) == [200006]
    assert encoding.encode("<|start|>", disallowed_special=()) == [27, 91, 5236, 91, 29]
    with pytest.raises(HarmonyError, match="Encountered text corresponding to disallowed special token"):
        encoding.encode("<|start|>")
    assert encoding.is_special_token(200006) and not encoding.is_special_token(24912)
    assert encoding.decode_utf8([200014]) == "<|reserved_200014|>"
    with pytest.raises(HarmonyError, match="Invalid token for decoding: 99999999"):
        encoding.decode_utf8([99999999])
    with pytest.raises(HarmonyError, match="Invalid utf-8"):
        encoding.decode_utf8([132990, 9552])
    assert "Chicken" in encoding.decode([132990, 9552])
    assert encoding.stop_tokens() == [200002, 200007, 200012]
    assert encoding.stop_tokens_for_assistant_actions() == [200002, 200012]
    with pytest.raises(FormError, match=r"messages\[0\]: expected a Message, found SystemContent"):
        Conversation.from_messages([SystemContent.new()])  # type: ignore[list-item]
