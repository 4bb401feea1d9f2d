"""Kind parsing: any stream is read, nothing is lost, and every repair is named with its position."""

import os
import random

import harmony_cases as cases
import pytest

from gptoss_jax.harmony import Encoding, Message, Role, StreamableParser, StreamState
from gptoss_jax.harmony.repair import EXPLANATIONS

pytest_plugins = ["harmony_fixtures"]

STREAMS = int(os.environ.get("GPTOSS_JAX_STREAMS", "2500"))


def undone(parser: StreamableParser) -> list[int]:
    """The mended stream with every repair taken back."""
    mended, out, at = parser.mended_tokens, [], 0
    for repair in parser.repairs:
        unchanged = repair.position - len(out)
        assert unchanged >= 0
        out += mended[at : at + unchanged]
        at += unchanged
        assert tuple(mended[at : at + len(repair.inserted)]) == repair.inserted
        out += repair.removed
        at += len(repair.inserted)
    return out + mended[at:]


def check(encoding: Encoding, stream: list[int], role: Role | None) -> StreamableParser:
    parser = encoding.parse(stream, role)
    assert parser.tokens == undone(parser) == stream
    assert all(repair.name in EXPLANATIONS and str(repair) for repair in parser.repairs)
    assert bool(parser.repairs) == (parser.mended_tokens != stream or parser.mended_role != role)
    if parser.mended_tokens or parser.mended_role is None:
        strict = encoding.parse_messages_from_completion_tokens(parser.mended_tokens, parser.mended_role)
        assert strict == parser.messages
    labels = encoding.label_tokens(stream, role)
    assert len(labels) == len(stream)
    assert {label.message for label in labels} - {-1} <= set(range(len(parser.messages)))
    return parser


def run(encoding: Encoding, count: int, seed: int) -> None:
    for number in range(count):
        rng = random.Random(seed + number)
        role = rng.choice([None, Role.ASSISTANT, Role.ASSISTANT, Role.USER, Role.TOOL])
        stream = cases.random_stream(rng, encoding) if number % 2 else cases.damaged_stream(rng, encoding)
        check(encoding, stream, role)


def test_random_streams(encoding: Encoding) -> None:
    """No exception; undoing the repairs gives the input; strict mode reads the mended stream to the same messages.

    GPTOSS_JAX_STREAMS sets the number; the full run is 100,000.
    """
    run(encoding, STREAMS, seed=1)


@pytest.mark.slow
def test_a_hundred_thousand_random_streams(encoding: Encoding) -> None:
    if encoding.tokenizer.engine == "scratch":
        pytest.skip("one engine is enough here")
    run(encoding, 100_000, seed=10**6)


def test_purely_random_ids(encoding: Encoding) -> None:
    rng = random.Random(3)
    for _ in range(300):
        check(
            encoding, [rng.randrange(-5, 201100) for _ in range(rng.randrange(30))], rng.choice([None, Role.ASSISTANT])
        )


def test_long_malformed_streams_take_linear_time(encoding: Encoding) -> None:
    control = encoding.control
    word = encoding.encode(" word")
    for stream in (
        word * 20_000,
        [control["<|channel|>"], *word] * 10_000,
        [control["<|start|>"]] * 20_000,
        [control["<|message|>"]] * 20_000,
        [control["<|channel|>"], *encoding.encode("analysis"), *word * 2, 9552] * 4_000,
    ):
        parser = encoding.parse(stream, Role.ASSISTANT)
        assert undone(parser) == stream


say = Message.from_role_and_content
FINAL = "<|start|>assistant<|channel|>final<|message|>Yes.<|return|>"
YES = say(Role.ASSISTANT, "Yes.").with_channel("final")

MALFORMED: dict[str, tuple[Role | None, str, list[str], list[Message]]] = {
    "refusal without channel": (
        Role.ASSISTANT,
        "I must refuse<|end|>" + FINAL,
        ["missing_message_token"],
        [say(Role.ASSISTANT, "I must refuse"), YES],
    ),
    "second message malformed too": (
        Role.ASSISTANT,
        "No<|end|><|start|>assistant<|channel|>analysis Hm  hm<|end|>" + FINAL,
        ["missing_message_token"] * 2,
        [say(Role.ASSISTANT, "No"), say(Role.ASSISTANT, "Hm  hm").with_channel("analysis"), YES],
    ),
    "words left in the header": (
        None,
        "<|start|>assistant to=functions.f<|channel|>commentary and so on json<|message|>{}<|call|>",
        ["malformed_header"],
        [say(Role.ASSISTANT, "{}").with_channel("commentary").with_recipient("functions.f")],
    ),
    "no role": (None, "<|start|><|channel|>final<|message|>Yes.<|return|>", ["malformed_header"], [YES]),
    "channel marker without channel": (
        None,
        "<|start|>assistant<|channel|><|message|>Yes.<|return|>",
        ["malformed_header"],
        [say(Role.ASSISTANT, "Yes.")],
    ),
    "two channels": (
        None,
        "<|start|>assistant<|channel|>analysis<|channel|>final<|message|>Yes.<|return|>",
        ["unfinished_header", "missing_start", "malformed_header"],
        [YES],
    ),
    "user with a name": (None, "<|start|>user:bob<|message|>Hi<|end|>", ["malformed_header"], [say(Role.USER, "Hi")]),
    "missing start": (
        None,
        "assistant<|channel|>final<|message|>Yes.<|return|>",
        ["missing_start"],
        [YES],
    ),
    "missing end": (
        None,
        "<|start|>assistant<|channel|>analysis<|message|>Hm" + FINAL,
        ["missing_end"],
        [say(Role.ASSISTANT, "Hm").with_channel("analysis"), YES],
    ),
    "missing end and start": (
        None,
        "<|start|>assistant<|channel|>analysis<|message|>Hm<|channel|>final<|message|>Yes.<|return|>",
        ["missing_end", "missing_start", "malformed_header"],
        [say(Role.ASSISTANT, "Hm").with_channel("analysis"), YES],
    ),
    "stop in the header": (Role.ASSISTANT, "<|channel|>final", ["unfinished_header"], []),
    "prompt without an answer": (
        None,
        "<|start|>user<|message|>Hi<|end|><|start|>assistant",
        ["unfinished_header"],
        [say(Role.USER, "Hi")],
    ),
    "stop in the content": (Role.ASSISTANT, "<|channel|>final<|message|>Yes.", [], [YES]),
    "stray stop token": (None, FINAL + "<|end|>" + FINAL, ["stray_stop_token"], [YES, YES]),
    "doubled start": (None, "<|start|>" + FINAL, ["unfinished_header"], [YES]),
    "empty message": (None, "<|start|><|end|>" + FINAL, ["empty_message"], [YES]),
    "prompt given as completion": (
        Role.ASSISTANT,
        "<|start|>user<|message|>Hi<|end|>" + FINAL,
        ["own_start"],
        [say(Role.USER, "Hi"), YES],
    ),
    "control token in the content": (
        None,
        "<|start|>assistant<|channel|>final<|message|>a<|message|>b<|constrain|>c<|return|>",
        ["control_token_in_content"] * 2,
        [say(Role.ASSISTANT, "a<|message|>b<|constrain|>c").with_channel("final")],
    ),
    "unknown recipient": (
        None,
        "<|start|>assistant<|channel|>commentary to=nobody.knows_me<|message|>{}<|call|>",
        [],
        [say(Role.ASSISTANT, "{}").with_channel("commentary").with_recipient("nobody.knows_me")],
    ),
    "tool result without recipient": (
        None,
        "<|start|>functions.f<|channel|>commentary<|message|>42<|end|>",
        ["malformed_header"],
        [
            Message.from_dict({"role": "tool", "name": "functions.f", "content": "42"})
            .with_channel("commentary")
            .with_recipient("assistant")
        ],
    ),
    "constrain marker with a blank": (
        None,
        "<|start|>assistant to=functions.f<|channel|>commentary <|constrain|> json<|message|>{}<|call|>",
        ["malformed_header"],
        [
            say(Role.ASSISTANT, "{}")
            .with_channel("commentary")
            .with_recipient("functions.f")
            .with_content_type("<|constrain|>json")
        ],
    ),
    "nothing": (Role.ASSISTANT, "", ["unfinished_header"], []),
    "nothing at all": (None, "", [], []),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(encoding: Encoding, name: str) -> None:
    role, text, repairs, messages = MALFORMED[name]
    parser = check(encoding, encoding.encode(text, allowed_special="all"), role)
    assert [repair.name for repair in parser.repairs] == repairs
    assert parser.messages == messages


def test_unknown_ids(encoding: Encoding) -> None:
    """The official strict parser turns everything behind an unknown id into one U+FFFD; here only the id is lost."""
    start = encoding.encode("<|start|>assistant<|message|>", allowed_special="all")
    stream = [*start, *encoding.encode("before"), 10**9, -7, *encoding.encode(" after")]
    parser = check(encoding, stream, None)
    assert [message.text for message in parser.messages] == ["before\ufffd\ufffd after"]
    assert [(repair.name, repair.position, repair.removed) for repair in parser.repairs] == [
        ("unknown_token", 4, (10**9,)),
        ("unknown_token", 5, (-7,)),
    ]


def test_a_parser_may_be_used_again(encoding: Encoding) -> None:
    """The second response to one parser used to fail with 'channel marker present but no channel value'."""
    answer = encoding.encode("<|channel|>final<|message|>Yes.<|return|>", allowed_special="all")
    parser = StreamableParser(encoding, Role.ASSISTANT, strict=False)
    for token in answer:
        parser.process(token)
    parser.process_eos()
    for token in answer:
        parser.process(token)
    parser.process_eos()
    assert parser.messages == [YES, YES]
    assert [(repair.name, repair.position) for repair in parser.repairs] == [
        ("missing_start", len(answer)),
        ("malformed_header", len(answer)),
    ]


def test_repairs_tell_what_and_where(encoding: Encoding) -> None:
    stream = encoding.encode("<|channel|>analysis I must refuse<|end|>", allowed_special="all")
    (repair,) = encoding.parse(stream, Role.ASSISTANT).repairs
    assert repair.position == 2 and repair.text == " I"
    assert str(repair) == ("missing_message_token at token 2: <|message|> was missing between header and content: ' I'")
    assert encoding.decode(repair.inserted) == "<|message|>I"


def test_streaming_shows_the_state_in_kind_mode(encoding: Encoding) -> None:
    parser = StreamableParser(encoding, Role.ASSISTANT, strict=False)
    assert parser.state is StreamState.HEADER and parser.current_role is Role.ASSISTANT
    states = []
    for token in encoding.encode("<|channel|>final<|message|>Yes.<|return|>", allowed_special="all"):
        states.append(parser.process(token).state.value)
    assert states == ["Header", "Header", "Content", "Content", "Content", "ExpectStart"]
    assert parser.process(encoding.control["<|start|>"]).state_data == {"state": "Header", "header_tokens": []}


# Labels


def test_labels_of_a_conversation(encoding: Encoding) -> None:
    text = (
        "<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>commentary to=functions.f<|message|>{}<|call|>"
        "<|start|>functions.f to=assistant<|message|>4<|end|><|start|>assistant"
    )
    tokens = encoding.encode(text, allowed_special="all")
    labels = encoding.label_tokens(tokens)
    assert [label.message for label in labels] == [0] * 5 + [1] * (len(tokens) - 16) + [2] * 9 + [-1] * 2
    assert [label.part for label in labels[:5]] == ["special", "header", "special", "content", "special"]
    assert {(label.role, label.channel, label.recipient) for label in labels} == {
        ("user", "", ""),
        ("assistant", "commentary", "functions.f"),
        ("tool", "", "assistant"),
        ("assistant", "", ""),
    }
    assert (labels[-1].role, labels[-1].part) == ("assistant", "header")
    assert (labels[-2].role, labels[-2].part) == ("assistant", "special")


def test_labels_of_a_refusal(encoding: Encoding) -> None:
    tokens = encoding.encode("<|channel|>analysis I must refuse<|end|>", allowed_special="all")
    labels = encoding.label_tokens(tokens, Role.ASSISTANT)
    assert [label.part for label in labels] == ["special", "header", "content", "content", "content", "special"]
    assert {(label.role, label.channel, label.message) for label in labels} == {("assistant", "analysis", 0)}
