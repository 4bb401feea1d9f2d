"""The conversation: streaming, commands, the tool's round trip, stopping; with a model that follows a script."""

import io
import json

import pytest
from rich.console import Console

import gptoss_jax as gj
from gptoss_jax.harmony import Conversation, Encoding
from gptoss_jax.nano import chat


@pytest.fixture(scope="module")
def built_in():
    return gj.load()


@pytest.fixture
def scripted(built_in, monkeypatch):
    """Replaces generation: each call writes the next text; a text that is an error is raised half way."""
    _, tokenizer = built_in
    script, prompts = [], []

    def generate(model, prompt, room, **options):
        prompts.append(tokenizer.decode(prompt))
        assert len(prompt) + room <= model.config.max_context
        text = script.pop(0)
        yield from tokenizer.encode(text.removesuffix("!STOP"), allowed_special="all")
        if text.endswith("!STOP"):
            raise KeyboardInterrupt

    monkeypatch.setattr(chat, "generate", generate)
    return script, prompts


def talk(built_in, lines, **options) -> tuple[str, Conversation]:
    lines = iter(lines)

    def read() -> str:
        line = next(lines, None)
        if line is None:
            raise EOFError
        if line == "!STOP":
            raise KeyboardInterrupt
        return line

    out = io.StringIO()
    console = Console(file=out, width=100, highlight=False)
    found = chat.chat(*built_in, read=read, console=console, **options)
    return out.getvalue(), found


THINK = "<|channel|>analysis<|message|>Use functions.calc.<|end|><|start|>assistant"
CALL = ' to=functions.calc<|channel|>commentary <|constrain|>json<|message|>{"expr": "6*7"}<|call|>'
FINAL = "<|channel|>final<|message|>42<|return|>"


def test_the_tool_goes_round(built_in, scripted):
    script, prompts = scripted
    script += [THINK + CALL, FINAL, "<|channel|>final<|message|>Bye<|return|>"]
    shown, found = talk(built_in, ["Compute 6*7", "Bye", "/quit"], effort="high")
    assert "analysis  Use functions.calc." in shown and "tool  42" in shown and "final  42" in shown
    assert 'commentary to functions.calc  {"expr": "6*7"}' in shown
    assert prompts[0].startswith("<|start|>system<|message|>Reasoning: high<|end|><|start|>developer<|message|># Tools")
    assert prompts[1].endswith("<|start|>functions.calc to=assistant<|channel|>commentary<|message|>42<|end|>"
                               "<|start|>assistant")  # fmt: skip
    assert "Use functions.calc." in prompts[1] and "Use functions.calc." not in prompts[2]  # old reasoning is dropped
    channels = [message.channel for message in found.messages]
    assert channels == [None, None, None, "analysis", "commentary", "commentary", "final", None, "final"]


def test_commands(built_in, scripted, tmp_path):
    script, prompts = scripted
    script += [FINAL, FINAL]
    path = tmp_path / "talk.json"
    lines = ["/effort low", "one", f"/save {path}", "/new", "/effort huge", "two", "/save", "/dance", "/help", "/quit"]
    shown, found = talk(built_in, lines)
    assert "Reasoning: low" in prompts[0] and "one" not in prompts[1]
    saved = Conversation.from_json(path.read_text())
    assert [message.text for message in saved.messages[2:]] == ["one", "42"]
    assert "effort 'huge' is none of low, medium, high" in shown and "/save needs the name of a file" in shown
    assert "unknown command /dance" in shown and len(found.messages) == 4
    assert list(tmp_path.iterdir()) == [path]


def test_stopping_an_answer_is_not_stopping_the_program(built_in, scripted):
    script, prompts = scripted
    script += [THINK + "!STOP", FINAL]
    shown, found = talk(built_in, ["first", "!STOP", "second"])
    assert "stopped; this question is forgotten" in shown and "/quit leaves" in shown
    assert "first" not in prompts[1] and [m.text for m in found.messages[2:]] == ["second", "42"]


def test_a_folder_that_cannot_be_written_and_a_question_too_long(built_in, scripted, tmp_path):
    shown, found = talk(built_in, [f"/save {tmp_path / 'no' / 'where.json'}", "7 " * 2000])
    assert "No such file" in shown and "leaves no room" in shown.replace("\n", " ")
    assert len(found.messages) == 2


def test_old_turns_make_room(built_in, scripted):
    script, prompts = scripted
    script += [FINAL] * 6
    talk(built_in, [f"question {i} " + "word " * 200 for i in range(6)])
    assert "question 0" in prompts[1] and "question 0" not in prompts[5] and "question 5" in prompts[5]


def test_reasoning_can_be_folded(built_in, scripted):
    script, _ = scripted
    script += [THINK + FINAL]
    shown, _ = talk(built_in, ["go"], fold=True)
    assert "Use functions.calc" not in shown and "19 characters folded" in shown


def test_markup_in_answers_is_not_interpreted(built_in, scripted):
    script, _ = scripted
    script += ["<|channel|>final<|message|>[red]x[/red]<|return|>", "nonsense without a header"]
    shown, found = talk(built_in, ["go", "on"])
    assert "[red]x[/red]" in shown and json.loads(found.to_json())


def test_the_built_in_model_speaks_harmony(built_in):
    session = chat.Session(*built_in, effort="low", max_new_tokens=48)
    pieces = list(session.say("Sort: 2 1 3"))
    assert {piece.kind for piece in pieces} <= {"final", "analysis", "commentary", "tool"} and pieces
    assert session.messages[-1].channel == "final"
    with pytest.raises(ValueError, match="effort"):
        session.effort = "extreme"
    assert Encoding(built_in[1]).render_conversation(session.conversation())
