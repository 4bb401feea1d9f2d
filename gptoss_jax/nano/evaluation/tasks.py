"""Answers to fresh prompts, written freely: greedy decoding, tool calls carried out, exact match of the answer."""

import dataclasses
import math
import random
from collections.abc import Sequence

from gptoss_jax.decoding import generate_batch
from gptoss_jax.harmony import Message, Role
from gptoss_jax.model import GptOss
from gptoss_jax.nano import dialogs, rendering
from gptoss_jax.nano.calculator import answer_call
from gptoss_jax.nano.rendering import Codec

ROWS = 64  # prompts at a time
MAX_CALLS = 2  # of the tool per prompt
SLACK = 24  # tokens an answer may be longer than the longest reference


@dataclasses.dataclass(frozen=True)
class Cell:
    """One task at one effort.

    Attributes:
      task, effort: which.
      right: prompts answered exactly.
      called: prompts in which the tool was called with the reference's expression.
      total: prompts.
    """

    task: str
    effort: str
    right: int
    called: int
    total: int

    @property
    def accuracy(self) -> float:
        """Share of exact answers."""
        return self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return wilson(self.right, self.total)


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927)."""
    if not total:
        return 0.0, 1.0
    share = right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def prompts(task: str, effort: str, count: int, seed: int) -> list[dialogs.Dialog]:
    """Distinct conversations whose prompts are never trained on; fewer where a task has no more of them."""
    rng = random.Random(f"evaluation {seed} {task} {effort}")
    found: dict[str, dialogs.Dialog] = {}
    for _ in range(20 * count):
        dialog = dialogs.sample(rng, task, effort, held_out=True)
        found.setdefault(" ".join(message.text for message in dialog.messages[1 : dialog.prompt]), dialog)
        if len(found) == count:
            break
    return list(found.values())


def answer(model: GptOss, codec: Codec, chosen: Sequence[dialogs.Dialog]) -> list[list[Message]]:
    """The messages that the model writes for each prompt, the tool's included."""
    encoding = codec.encoding
    stops = encoding.stop_tokens_for_assistant_actions()
    said: list[list[Message]] = [[] for _ in chosen]
    ids = [codec.prompt(dialog.messages[: dialog.prompt]) for dialog in chosen]
    longest = max(len(codec.training(dialog)[0]) - len(prompt) for dialog, prompt in zip(chosen, ids, strict=True))
    waiting = list(range(len(chosen)))
    for _ in range(MAX_CALLS + 1):
        rows = [ids[i] for i in waiting] + [ids[waiting[0]]] * (ROWS - len(waiting))
        written = generate_batch(model, rows, longest + SLACK, stop_tokens=stops)
        called = []
        for i, new in zip(waiting, written, strict=False):
            said[i] += encoding.parse(new, Role.ASSISTANT).messages
            last = said[i][-1] if said[i] else None
            if last is not None and last.recipient == rendering.CALCULATOR:
                said[i].append(rendering.tool_message(answer_call(last.text)))
                given = rendering.to_harmony(chosen[i].messages[: chosen[i].prompt])
                given.messages += said[i]
                ids[i] = encoding.render_conversation_for_completion(given, Role.ASSISTANT, rendering.KEEP_ANALYSIS)
                called.append(i)
        waiting = called
        if not waiting:
            break
    return said


def final_text(messages: Sequence[Message]) -> str | None:
    """The last message on the final channel; None if there is none."""
    return next((message.text for message in reversed(messages) if message.channel == "final"), None)


def measure(model: GptOss, codec: Codec, task: str, effort: str, count: int, seed: int) -> Cell:
    """Accuracy of one cell."""
    chosen = prompts(task, effort, count, seed)
    right = called = 0
    for at in range(0, len(chosen), ROWS):
        part = chosen[at : at + ROWS]
        for dialog, messages in zip(part, answer(model, codec, part), strict=True):
            right += final_text(messages) == dialog.answer
            wanted = [message.text for message in dialog.messages if message.recipient == rendering.CALCULATOR]
            called += bool(wanted) and wanted == [m.text for m in messages if m.recipient == rendering.CALCULATOR]
    return Cell(task, effort, right, called, len(chosen))


@dataclasses.dataclass(frozen=True)
class Swap:
    """What the answers do when the reasoning is replaced by that of another prompt.

    Attributes:
      task: which.
      changed: prompts whose answer became another one.
      followed: prompts whose answer became that of the foreign reasoning.
      total: prompts.
    """

    task: str
    changed: int
    followed: int
    total: int


def swap(model: GptOss, codec: Codec, task: str, count: int, seed: int) -> Swap:
    """Give each prompt its own reference reasoning, then another prompt's with another answer; compare the answers."""
    chosen = prompts(task, "high", count, seed)
    changed = followed = total = 0
    for at in range(0, len(chosen), ROWS):
        part = chosen[at : at + ROWS]
        others = [part[(i + 1) % len(part)] for i in range(len(part))]
        own = _conclude(model, codec, part, part)
        foreign = _conclude(model, codec, part, others)
        for dialog, other, before, after in zip(part, others, own, foreign, strict=True):
            if dialog.answer != other.answer:
                total += 1
                changed += before != after
                followed += after == other.answer
    return Swap(task, changed, followed, total)


def _conclude(
    model: GptOss, codec: Codec, part: Sequence[dialogs.Dialog], thoughts: Sequence[dialogs.Dialog]
) -> list[str | None]:
    """Final messages after reasoning that is given."""
    rows = []
    for dialog, thought in zip(part, thoughts, strict=True):
        given = [*dialog.messages[: dialog.prompt]]
        given += [m for m in thought.messages[thought.prompt :] if m.channel == "analysis"][:1]
        rows.append(codec.prompt(tuple(given)))
    stops = codec.encoding.stop_tokens()
    longest = max(len(codec.encode(dialog.answer)) for dialog in [*part, *thoughts]) + SLACK
    padded = rows + [rows[0]] * (ROWS - len(rows))
    written = generate_batch(model, padded, longest, stop_tokens=stops)[: len(rows)]
    return [final_text(codec.encoding.parse(new, Role.ASSISTANT).messages) for new in written]
