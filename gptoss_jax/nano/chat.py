"""A conversation in the terminal or in a notebook: streamed, channels apart, with the calculator's Harmony round trip.

`Session` is the conversation without any display; `chat` reads lines, shows what the session yields, and knows the
commands that begin with a slash.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from gptoss_jax.decoding import generate
from gptoss_jax.harmony import (
    Conversation,
    Encoding,
    HarmonyError,
    Message,
    ReasoningEffort,
    Role,
    StreamableParser,
    SystemContent,
)
from gptoss_jax.model import GptOss
from gptoss_jax.nano import rendering
from gptoss_jax.nano.calculator import answer_call
from gptoss_jax.nano.dialogs import EFFORTS
from gptoss_jax.tokenizer import Tokenizer

FULL_VOCABULARY = 100_000  # tokens; a tokenizer this large belongs to a released model, which knows the official prompt
CACHE = 1024  # positions: one compiled program serves all conversations up to this length
MAX_CALLS = 8  # of the tool in one turn
HELP = """/effort low|medium|high   how much to reason
/save FILE                write the conversation as JSON
/new                      forget the conversation
/help                     this list
/quit                     leave (or Ctrl-D); Ctrl-C stops an answer"""
STYLES = {"analysis": "dim italic", "commentary": "cyan", "tool": "magenta", "final": ""}


@dataclasses.dataclass(frozen=True)
class Piece:
    """A stretch of a turn as it is written.

    Attributes:
      kind: ``analysis``, ``commentary``, ``final``, another channel's name, or ``tool`` for the calculator's answer.
      recipient: to whom the message goes; "" for the user.
      text: what was added.
      first: whether a message begins here.
    """

    kind: str
    recipient: str
    text: str
    first: bool


class Session:
    """A conversation with a model that may call the calculator.

    Args:
      model: any model.
      tokenizer: its tokenizer.
      effort: low, medium or high.
      max_new_tokens: of one stretch of writing, up to an answer or a call.
      sampling: `temperature`, `top_k`, `top_p`, `seed` of `generate`.

    Attributes:
      messages: everything said, reasoning included, without the system and developer messages.
    """

    def __init__(
        self, model: GptOss, tokenizer: Tokenizer, *, effort: str = "medium", max_new_tokens: int = 512, **sampling: Any
    ):
        self.model, self.encoding = model, Encoding(tokenizer)
        self.max_new_tokens, self.sampling = max_new_tokens, sampling
        self.messages: list[Message] = []
        self.effort = effort

    @property
    def effort(self) -> str:
        """How much the model is asked to reason."""
        return self._effort

    @effort.setter
    def effort(self, effort: str) -> None:
        if effort not in EFFORTS:
            raise ValueError(f"effort {effort!r} is none of {', '.join(EFFORTS)}")
        self._effort = effort

    def conversation(self) -> Conversation:
        """System message, the tool, and everything said."""
        return Conversation([*self._head(), *self.messages])

    def _head(self) -> list[Message]:
        if len(self.encoding.tokenizer.ranks) < FULL_VOCABULARY:
            system = rendering.system_message(self.effort)
        else:
            content = SystemContent().with_reasoning_effort(ReasoningEffort(self.effort.capitalize()))
            system = Message.from_role_and_content(Role.SYSTEM, content)
        return [system, rendering.developer_message()]

    def _prompt(self, turn: int) -> tuple[list[int], int]:
        """The prompt and the room behind it: reasoning of earlier turns is left out, then the oldest turns."""
        earlier = [message for message in self.messages[:turn] if message.channel != "analysis"]
        context = self.model.config.max_context
        while True:
            kept = Conversation([*self._head(), *earlier, *self.messages[turn:]])
            prompt = self.encoding.render_conversation_for_completion(kept, Role.ASSISTANT, rendering.KEEP_ANALYSIS)
            room = min(context - len(prompt), self.max_new_tokens)
            if room >= min(self.max_new_tokens, context // 4):
                return prompt, room
            if not earlier:
                raise ValueError(
                    f"the question takes {len(prompt)} of the model's {context} tokens and leaves no room to answer: "
                    "ask something shorter"
                )
            users = [i for i, message in enumerate(earlier) if message.author.role is Role.USER]
            earlier = earlier[users[1] if len(users) > 1 else len(earlier) :]

    def say(self, text: str) -> Iterator[Piece]:
        """Ask; yields the answer as it is written. A turn that is not finished, for whatever reason, is forgotten.

        Raises:
          ValueError: a question that leaves no room for an answer.
        """
        turn = len(self.messages)
        self.messages.append(Message.from_role_and_content(Role.USER, text))
        finished = False
        try:
            for _ in range(MAX_CALLS):
                yield from self._write(turn)
                called = self.messages[-1].recipient
                if not called or called == "all":
                    break
                known = called == rendering.CALCULATOR
                answer = answer_call(self.messages[-1].text) if known else f"error: no tool {called!r}"
                self.messages.append(rendering.tool_message(answer))
                yield Piece("tool", "", answer, True)
            finished = True
        finally:
            if not finished:
                del self.messages[turn:]

    def _write(self, turn: int) -> Iterator[Piece]:
        prompt, room = self._prompt(turn)
        whole = len(prompt) + room
        size = min(CACHE, self.model.config.max_context)
        parser = StreamableParser(self.encoding, Role.ASSISTANT, strict=False)
        stops = self.encoding.stop_tokens_for_assistant_actions()
        shown = -1
        for token in generate(
            self.model, prompt, room, stop_tokens=stops, max_len=size if whole <= size else None, **self.sampling
        ):
            parser.process(token)
            if delta := parser.last_content_delta:
                number = len(parser.messages)
                yield Piece(parser.current_channel or "final", parser.current_recipient or "", delta, number != shown)
                shown = number
        self.messages += parser.process_eos().messages


def save(conversation: Conversation, path: str | Path) -> Path:
    """Write a conversation as JSON, complete or not at all."""
    path = Path(path).expanduser()
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(json.dumps(conversation.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def show(pieces: Iterator[Piece], console: Console, *, fold: bool = False) -> None:
    """Print pieces as they come: every message begins with the name of its channel.

    Args:
      pieces: of `Session.say`.
      console: where to print.
      fold: print the length of the reasoning in place of the reasoning.
    """
    hidden = 0
    for piece in pieces:
        style = STYLES.get(piece.kind, "")
        if fold and piece.kind == "analysis":
            hidden += len(piece.text)
            continue
        if piece.first:
            if hidden:
                console.print(Text(f"\nanalysis  ({hidden} characters folded)", STYLES["analysis"]), end="")
                hidden = 0
            to = f" to {piece.recipient}" if piece.recipient else ""
            console.print(Text(f"\n{piece.kind}{to}  ", f"bold {style}"), end="")
        console.print(Text(piece.text, style), end="", soft_wrap=True)
    console.print()


def chat(
    model: GptOss,
    tokenizer: Tokenizer,
    *,
    effort: str = "medium",
    max_new_tokens: int = 512,
    read: Callable[[], str] | None = None,
    console: Console | None = None,
    fold: bool = False,
    **sampling: Any,
) -> Conversation:
    """Talk until ``/quit`` or the end of the input; a notebook gives `read`, and gets the conversation back.

    Args:
      model, tokenizer, effort, max_new_tokens, sampling: as for `Session`.
      read: the next line, or EOFError; the keyboard by default.
      console: where to print.
      fold: hide the reasoning.

    Returns:
      Everything said.
    """
    console = console or Console(highlight=False)
    read = read or (lambda: console.input("\n[bold]you[/bold]  "))
    session = Session(model, tokenizer, effort=effort, max_new_tokens=max_new_tokens, **sampling)
    console.print(Text(f"{model.name}, effort {effort}. /help lists the commands.", "dim"))
    while True:
        try:
            line = read().strip()
        except EOFError:
            return session.conversation()
        except KeyboardInterrupt:
            console.print(Text("\n(/quit leaves)", "dim"))
            continue
        if line in ("/quit", "/exit"):
            return session.conversation()
        try:
            if line.startswith("/"):
                console.print(Text(command(session, line), "dim"))
            elif line:
                show(session.say(line), console, fold=fold)
        except KeyboardInterrupt:
            console.print(Text("\n(stopped; this question is forgotten)", "dim"))
        except (ValueError, OSError, HarmonyError) as error:
            console.print(Text(str(error), "red"))


def command(session: Session, line: str) -> str:
    """Carry out a line that begins with a slash; returns what to tell."""
    name, _, argument = line.partition(" ")
    argument = argument.strip()
    if name == "/effort":
        session.effort = argument
        return f"effort {argument}"
    if name == "/save":
        if not argument:
            raise ValueError("/save needs the name of a file")
        return f"saved in {save(session.conversation(), argument)}"
    if name == "/new":
        session.messages.clear()
        return "a new conversation"
    return HELP if name == "/help" else f"unknown command {name}\n{HELP}"
