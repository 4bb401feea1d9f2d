"""Harmony conversations with exact answers: eight tasks, three reasoning efforts, one tool.

`sample` draws a conversation whose every assistant message follows from the prompt, so that accuracy is an exact
match. At low effort there is no analysis; at medium it is short; at high it is worked out, and the final answer can
be read off its end. Prompts are divided by their hash: a sixteenth is never trained on (`held_out`).
"""

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable

from gptoss_jax.nano.calculator import calculate
from gptoss_jax.nano.phrases import CALLS, CHANNELS, GREETINGS, IDENTITY, TOOLS, WORDS

EFFORTS = ("low", "medium", "high")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
COLORS = ("red", "blue", "green", "black", "white", "pink", "gray", "brown", "gold", "orange")
HELD_OUT = 16  # one prompt in so many is never trained on


@dataclasses.dataclass(frozen=True)
class Message:
    """One Harmony message; `role` is the tool's name for a tool's answer."""

    role: str
    text: str
    channel: str = ""
    recipient: str = ""


@dataclasses.dataclass(frozen=True)
class Dialog:
    """A conversation that ends in the answer.

    Attributes:
      task: key of `TASKS`.
      effort: low, medium or high.
      messages: system first, the final answer last.
      answer: its text.
      prompt: number of messages that are given; the rest is the assistant's (and the tool's).
    """

    task: str
    effort: str
    messages: tuple[Message, ...]
    answer: str
    prompt: int


def user(text: str) -> Message:
    """What the user says."""
    return Message("user", text)


def final(text: str) -> Message:
    """The assistant's answer."""
    return Message("assistant", text, "final")


def analysis(text: str) -> list[Message]:
    """The assistant's reasoning; no message where there is none."""
    return [Message("assistant", text, "analysis")] if text else []


Made = tuple[list[Message], list[Message], str]  # given messages, the assistant's, the answer


def echo(rng: random.Random, effort: str) -> Made:
    """Repeat a few words, made up or real."""
    made_up = rng.random() < 0.5
    words = [_word(rng) if made_up else rng.choice(WORDS) for _ in range(rng.randint(1, 3))]
    text = " ".join(words)
    think = {"low": "", "medium": "Repeat the text.", "high": f"Repeat the text: {text}"}[effort]
    return [user(f"Repeat: {text}")], [*analysis(think), final(text)], text


def add(rng: random.Random, effort: str) -> Made:
    """Add two numbers of up to three digits, column by column."""
    digits = rng.choices((1, 2, 3), (1, 4, 7))[0]
    x, y = rng.randrange(10**digits), rng.randrange(10**digits)
    total, carry, written, steps = x + y, 0, "", []
    for p, q in zip(str(x).zfill(digits)[::-1], str(y).zfill(digits)[::-1], strict=True):
        column = int(p) + int(q) + carry
        written = f"{column % 10}{written}"
        step = f"{p}+{q}+{carry}={column}"
        carry = column // 10
        steps.append(step if effort == "medium" else f"{step}, carry {carry}, digits {written}")
    think = {"low": "", "medium": "; ".join(steps), "high": ". ".join(steps) + f". Sum {total}."}[effort]
    return [user(f"What is {x}+{y}?")], [*analysis(think), final(str(total))], str(total)


def reverse(rng: random.Random, effort: str) -> Made:
    """Reverse a word that is spelled out."""
    word = _word(rng)
    there, back = " ".join(word), " ".join(word[::-1])
    count = lambda letters, places: " ".join(f"{i}{c}" for i, c in zip(places, letters, strict=True))
    n = len(word)
    think = {
        "low": "",
        "medium": f"{there} -> {back}",
        "high": f"{count(word, range(1, n + 1))} -> {count(word[::-1], range(n, 0, -1))}",
    }[effort]
    return [user(f"Reverse the word {there}")], [*analysis(think), final(back)], back


def sort(rng: random.Random, effort: str) -> Made:
    """Sort three to seven different digits."""
    digits = rng.sample(range(10), rng.randint(3, 7))
    ordered = sorted(digits)
    answer = " ".join(map(str, ordered))
    think = {
        "low": "",
        "medium": f"Lowest {ordered[0]}, highest {ordered[-1]}.",
        "high": ", ".join(map(str, ordered)) + ".",
    }[effort]
    return [user("Sort: " + " ".join(map(str, digits)))], [*analysis(think), final(answer)], answer


def count(rng: random.Random, effort: str) -> Made:
    """Count a letter in a spelled word."""
    letter, word = rng.choice("abc"), [rng.choice("abcde") for _ in range(rng.randint(3, 8))]
    running, steps = 0, []
    for c in word:
        running += c == letter
        steps.append(f"{c}{running}" if c == letter else f"{c}-")
    answer = str(running)
    hits = " ".join(c for c in word if c == letter) or "none"
    think = {"low": "", "medium": hits, "high": " ".join(steps)}[effort]
    return [user(f"How many {letter} in {' '.join(word)}?")], [*analysis(think), final(answer)], answer


def day(rng: random.Random, effort: str) -> Made:
    """Weekday after up to 99,999 days: the remainder by seven digit by digit, then a countdown over the days."""
    start = rng.randrange(7)
    days = rng.randint(1, 20) if rng.random() < 0.25 else rng.randrange(1, 10 ** rng.randint(3, 5))
    left, steps = 0, []
    for digit in str(days):
        steps.append(f"{left}{digit}>{(10 * left + int(digit)) % 7}")
        left = (10 * left + int(digit)) % 7
    answer = DAYS[(start + left) % 7]
    walk = ", ".join(f"{DAYS[(start + i) % 7]} {left - i}" for i in range(left + 1))
    think = {
        "low": "",
        "medium": f"{days} mod 7 = {left}. {DAYS[start]} + {left} = {answer}",
        "high": f"{' '.join(steps)}. {walk}",
    }[effort]
    asked = f"Today is {DAYS[start]}. What day is it in {days} days?"
    return [user(asked)], [*analysis(think), final(answer)], answer


def calc(rng: random.Random, effort: str) -> Made:
    """Arithmetic on larger numbers, through the tool."""
    expression = f"{rng.randint(10, 9999)}{rng.choice('*+-')}{rng.randint(10, 9999)}"
    answer = calculate(expression)
    think = {
        "low": "",
        "medium": "Use functions.calc.",
        "high": f"The user wants {expression}. Numbers are large, so use functions.calc.",
    }[effort]
    call = Message("assistant", json.dumps({"expr": expression}), "commentary", "functions.calc")
    result = Message("functions.calc", answer, "commentary", "assistant")
    given = [Message("developer", TOOLS), user(f"Compute {expression}")]
    return given, [*analysis(think), call, result, final(answer)], answer


def recall(rng: random.Random, effort: str) -> Made:
    """A code that was given a turn earlier."""
    known = rng.sample(COLORS[:6] if rng.random() < 0.5 else COLORS, rng.randint(3, 4))
    values = [rng.choice(LETTERS) for _ in known]
    asked = rng.randrange(len(known))
    facts = ", ".join(f"{name} {value}" for name, value in zip(known, values, strict=True))
    name, answer = known[asked], values[asked]
    think = {"low": "", "medium": f"Asked: {name} {answer}", "high": f"Codes: {facts}. Asked: {name} {answer}"}[effort]
    given = [user(f"Codes: {facts}"), final("OK"), user(f"What is the code of {name}?")]
    return given, [*analysis(think), final(answer)], answer


TASKS: dict[str, Callable[[random.Random, str], Made]] = {
    "echo": echo,
    "add": add,
    "reverse": reverse,
    "sort": sort,
    "count": count,
    "day": day,
    "calc": calc,
    "recall": recall,
}


# how often each is trained on: what is learned late gets more
TRAINED = {"echo": 2, "add": 2, "reverse": 1, "sort": 2, "count": 2, "day": 1, "calc": 1, "recall": 2}


def greet(rng: random.Random, effort: str) -> Made:
    """Small talk; not a measured task."""
    text = rng.choice(list(GREETINGS))
    said = text + rng.choice(("", "", "!", ".")) if text[-1] != "?" else text
    said = said.lower() if rng.random() < 0.3 else said
    think = {"low": "", "medium": "Small talk.", "high": "The user makes small talk. Answer briefly."}[effort]
    return [user(said)], [*analysis(think), final(GREETINGS[text])], GREETINGS[text]


def system(rng: random.Random, effort: str, tools: bool, full: float) -> Message:
    """The system message: the effort alone or, with probability `full`, the official text."""
    if rng.random() >= full:
        return Message("system", f"Reasoning: {effort}")
    date = f"20{rng.randint(24, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    dated = f"\nCurrent date: {date}" if rng.random() < 0.7 else ""
    text = f"{IDENTITY}\nKnowledge cutoff: 2024-06{dated}\n\nReasoning: {effort}\n\n{CHANNELS}"
    return Message("system", text + CALLS if tools else text)


def sample(
    rng: random.Random,
    task: str | None = None,
    effort: str | None = None,
    *,
    held_out: bool = False,
    full: float = 0.15,
) -> Dialog:
    """One conversation of one measured task with one system message: what accuracy is measured on.

    Args:
      rng: source of randomness.
      task, effort: drawn evenly if not given.
      held_out: draw from the prompts that are never trained on, or from the others.
      full: share of official system messages.
    """
    task = task or rng.choice(list(TASKS))
    effort = effort or rng.choice(EFFORTS)
    while True:
        given, said, answer = TASKS[task](rng, effort)
        if is_held_out(given) == held_out:
            break
    tools = any(message.role == "developer" for message in given)
    messages = (system(rng, effort, tools, full), *given, *said)
    return Dialog(task, effort, messages, answer, 1 + len(given))


def conversation(rng: random.Random) -> Dialog:
    """A conversation to train on: mostly one task, sometimes small talk, earlier turns, or a tool that is not needed.

    Earlier turns have lost their analysis, as the Harmony renderer drops it.
    """
    effort = rng.choices(EFFORTS, (1, 1, 2))[0]
    turns = rng.choices((1, 2, 3), (80, 15, 5))[0]
    messages: list[Message] = []
    tools = rng.random() < 0.08
    for turn in range(turns):
        if rng.random() < 0.05:
            task, (given, said, answer) = "greet", greet(rng, effort)
        else:
            dialog = sample(rng, rng.choices(list(TRAINED), list(TRAINED.values()))[0], effort)
            task, answer = dialog.task, dialog.answer
            given, said = list(dialog.messages[1 : dialog.prompt]), list(dialog.messages[dialog.prompt :])
        tools |= any(message.role == "developer" for message in given)
        messages += [message for message in given if message.role != "developer"]
        if turn < turns - 1:
            said = [message for message in said if message.channel != "analysis"]
        prompt = len(messages)
        messages += said
    head = [system(rng, effort, tools, 0.1), *([Message("developer", TOOLS)] if tools else [])]
    return Dialog(task, effort, (*head, *messages), answer, len(head) + prompt)


def is_held_out(given: list[Message]) -> bool:
    """Whether a prompt belongs to the sixteenth that is never trained on, by the hash of its user messages."""
    text = "\n".join(message.text for message in given if message.role == "user")
    return hashlib.sha256(text.encode()).digest()[0] % HELD_OUT == 0


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 7)))
