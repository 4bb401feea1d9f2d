"""Exercises of lesson 02, Harmony."""

from gptoss_jax.course.checks import Student, exercise
from gptoss_jax.harmony import Author, Message, Role


@exercise(
    "02",
    "render_message",
    hints={
        "channel-first": "in which order do recipient and channel stand in the header?",
        "always-end": "a message of the assistant with a recipient is a call: which token ends it?",
        "everyone-calls": "only the assistant calls. What ends the result of a tool, which has a recipient too?",
        "prints-none": "a part that is None leaves no trace in the header.",
        "no-blank": "one blank separates the role from `to=`.",
    },
)
def render_message(student: Student) -> None:
    """All roles, with and without channel and recipient."""
    cases = [
        ("user", None, None),
        ("assistant", "final", None),
        ("assistant", "commentary", "functions.f"),
        ("assistant", None, "python"),
        ("functions.f", "commentary", "assistant"),
        ("system", None, None),
    ]
    for role, channel, recipient in cases:
        content = f"text {student.rng.integers(100)}"
        to = "" if recipient is None else f" to={recipient}"
        on = "" if channel is None else f"<|channel|>{channel}"
        end = "<|call|>" if role == "assistant" and recipient else "<|end|>"
        right = f"<|start|>{role}{to}{on}<|message|>{content}{end}"
        student.equal(
            student.call(role, content, channel, recipient),
            right,
            {
                "channel-first": f"<|start|>{role}{on}{to}<|message|>{content}{end}",
                "always-end": f"<|start|>{role}{to}{on}<|message|>{content}<|end|>",
                "everyone-calls": f"<|start|>{role}{to}{on}<|message|>{content}{'<|call|>' if recipient else end}",
                "prints-none": f"<|start|>{role} to={recipient}<|channel|>{channel}<|message|>{content}{end}",
                "no-blank": f"<|start|>{role}{to.strip()}{on}<|message|>{content}{end}",
            },
        )


@exercise(
    "02",
    "for_the_user",
    hints={
        "shows-thoughts": "the analysis channel is not meant for the user.",
        "shows-calls": "a message to a function is not a message to the user.",
        "shows-others": "users know what they said themselves: whose messages are asked for?",
        "hides-preambles": "words to the user before a call stand on the commentary channel.",
        "returns-messages": "the texts are asked for, not the messages.",
    },
)
def for_the_user(student: Student) -> None:
    """Conversations with messages of every kind, in random order."""

    def say(role: Role, text: str, channel: str | None = None, to: str | None = None) -> Message:
        name = "functions.f" if role is Role.TOOL else None
        message = Message.from_author_and_content(Author(role, name), text)
        message.channel, message.recipient = channel, to
        return message

    assistant = Role.ASSISTANT
    kinds = [
        ("answer", say(assistant, "answer", "final")),
        ("preamble", say(assistant, "preamble", "commentary")),
        ("thought", say(assistant, "thought", "analysis")),
        ("call", say(assistant, "call", "commentary", "functions.f")),
        ("result", say(Role.TOOL, "result", "commentary", "assistant")),
        ("note", say(Role.TOOL, "note", "commentary")),
        ("question", say(Role.USER, "question")),
        ("plain", say(assistant, "plain")),
    ]

    def texts(picked: list[int], *names: str) -> list[str]:
        return [kinds[i][0] for i in picked if kinds[i][0] in names]

    for _ in range(8):
        picked = [*range(len(kinds)), *(int(i) for i in student.rng.integers(0, len(kinds), 4))]
        student.rng.shuffle(picked)
        got = student.call([kinds[i][1] for i in picked])
        student.expect(isinstance(got, list | tuple), "wrong-type", f"{type(got).__name__} instead of a list")
        student.expect(not any(isinstance(item, Message) for item in got), "returns-messages")
        got = list(got)
        right = texts(picked, "answer", "preamble")
        student.expect("thought" not in got, "shows-thoughts")
        student.expect("call" not in got, "shows-calls")
        student.expect(not {"result", "note", "question"} & set(got), "shows-others")
        student.expect(got != texts(picked, "answer"), "hides-preambles")
        student.expect(got == right, "wrong-values", f"{len(got)} texts instead of {len(right)}, or in another order")


@exercise(
    "02",
    "read_stream",
    hints={
        "only-end": "three different tokens can end a message.",
        "keeps-control": "the control tokens around header and content do not belong to either.",
        "one-message": "the list holds several messages; what happens after the first has ended?",
        "shared-lists": "all pairs share their lists. Begin new lists for each message.",
        "not-pairs": "each item should be a pair (header, content) of lists.",
        "loses-channel": "`<|channel|>` is a control token too, but it is part of the header.",
    },
)
def read_stream(student: Student) -> None:
    """Random messages under random ids of the control tokens."""
    names = ["<|start|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>", "<|channel|>", "<|constrain|>"]
    for round_ in range(8):
        ids = [1000 + int(i) for i in student.rng.permutation(len(names))]
        control = dict(zip(names, ids, strict=True))
        want, stream = [], []
        for number in range(round_ % 4 + (round_ > 0)):
            header = [int(i) for i in student.rng.integers(0, 100, 3)]
            if number % 2:
                header.insert(1, control["<|channel|>"])
            content = [int(i) for i in student.rng.integers(0, 100, int(student.rng.integers(0, 5)))]
            stop = control[["<|call|>", "<|end|>", "<|return|>"][number % 3]]
            want.append((header, content))
            stream += [control["<|start|>"], *header, control["<|message|>"], *content, stop]
        got = student.call(list(stream), dict(control))
        pairs = isinstance(got, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in got)
        student.expect(pairs and all(isinstance(part, list | tuple) for pair in got for part in pair), "not-pairs")
        found = [(list(header), list(content)) for header, content in got]
        if found == want:
            continue
        inside = {token for header, content in found for token in (*header, *content)}
        outer = {control[name] for name in names[:5]}
        bare = [([t for t in header if t != control["<|channel|>"]], content) for header, content in want]
        student.expect(found != bare, "loses-channel")
        student.expect(not inside & outer or len(found) != len(want), "keeps-control")
        student.expect(len(found) < 2 or len({id(part) for pair in got for part in pair}) > 2, "shared-lists")
        student.expect(not (len(found) == 1 < len(want) and found[0] == want[0]), "one-message")
        student.expect(len(found) >= len(want), "only-end")
        student.fail("wrong-values", f"{len(found)} messages, {len(want)} expected")
