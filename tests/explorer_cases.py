"""Traces for the explorer's tests: a Harmony conversation in realistic tokens, and routing whose truth is known.

Expert 0 of every layer loves function words, expert 1 digits and operators, expert 2 control tokens; the others are
chosen at random with a preference per token id, so that co-activation and top tokens have something to show.
"""

import re

import numpy as np

from gptoss_jax.tracing import Trace

CONVERSATION = (
    (
        "system",
        "",
        "You are ChatGPT, a large language model.\nKnowledge cutoff: 2024-06\n\nReasoning: medium\n\n"
        "# Valid channels: analysis, commentary, final. Channel must be included for every message.",
        False,
    ),
    ("developer", "", "# Instructions\n\nAnswer in one short paragraph and show your arithmetic.", False),
    (
        "user",
        "",
        "A train leaves Zürich at 09:12 and reaches Genève at 11:57. How long is the ride, and what is "
        "17 × 23? Also say “good morning” in 日本語.",
        False,
    ),
    (
        "assistant",
        "analysis",
        "The user wants the duration: 11:57 − 09:12 = 2 h 45 min. Then 17 × 23 = "
        "17 × 20 + 17 × 3 = 340 + 51 = 391. Good morning in Japanese: おはようございます.",
        True,
    ),
    (
        "assistant",
        "final",
        "The ride takes 2 hours and 45 minutes, because 11:57 − 09:12 is 2:45. "
        "And 17 × 23 = 340 + 51 = **391**. Good morning is おはようございます (ohayō gozaimasu).",
        True,
    ),
)

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<!--",
    "<script>alert(1)</script>",
    "]]>",
    "a\u2028b\u2029c",
    "\"quotes' & `ticks`",
    "\u202egnirts\u202c",
    "\u05e9\u05dc\u05d5\u05dd",
    "\x00\x07\x1b[31m",
    "\ud800",
    '=HYPERLINK("x")',
    "\r\n",
    "\t",
    "",
    "\\u003c/script>",
    "${{7*7}}",
    "{{DATA}}",
    "\ufeff\u200b",
    "👩‍👩‍👧",
    "\\xff",
)

SPECIAL_IDS = {
    "<|start|>": 200006,
    "<|end|>": 200007,
    "<|message|>": 200008,
    "<|channel|>": 200005,
    "<|return|>": 200002,
}
FUNCTION_WORDS = {"the", "a", "is", "in", "and", "to", "at", "of", "for", "be", "or"}


def harmony_tokens() -> tuple[list[str], list[str], list[str], list[bool], list[bool]]:
    """Text, role, channel, generated and special of each token of the conversation."""
    text, roles, channels, generated, special = [], [], [], [], []
    for number, (role, channel, content, wrote) in enumerate(CONVERSATION):
        last = number == len(CONVERSATION) - 1
        parts = ["<|start|>", role, *(["<|channel|>", channel] if channel else []), "<|message|>"]
        head = 2 if number == 3 else 0  # the prompt ends with <|start|>assistant
        parts += [*re.findall(r" ?[^\W\d]+| ?\d{1,3}| ?[^\w\s]+|\s", content), "<|return|>" if last else "<|end|>"]
        for i, part in enumerate(parts):
            text.append(part)
            roles.append(role)
            channels.append(channel)
            generated.append(wrote and i >= head)
            special.append(part in SPECIAL_IDS)
    return text, roles, channels, generated, special


def planted(layers=6, experts=32, chosen=4, repeat=1, seed=0, logits=True, noise=0.6, jitter=0.0, **fields) -> Trace:
    """The conversation `repeat` times through planted routers; `jitter` adds noise to the same router logits."""
    text, roles, channels, generated, special = (list(column) * repeat for column in harmony_tokens())
    vocabulary = {word: i for i, word in enumerate(sorted(set(text) - set(SPECIAL_IDS)), start=1000)}
    ids = np.array([SPECIAL_IDS.get(word, vocabulary.get(word, 0)) for word in text], np.int32)
    rng = np.random.default_rng(seed)
    taste = {int(i): rng.normal(size=(layers, experts)) for i in sorted(set(ids.tolist()))}
    z = np.stack([taste[int(i)] for i in ids]) + noise * rng.normal(size=(len(ids), layers, experts))
    z[..., 3:6] += rng.uniform(0, 1.5, (layers, 3))
    for t, word in enumerate(text):
        if word.strip().lower() in FUNCTION_WORDS:
            z[t, :, 0] += 4
        if any(c.isdigit() or c in "×=+−" for c in word):
            z[t, :, 1] += 4
        if special[t]:
            z[t, :, 2] += 4
    if jitter:
        z = z + jitter * np.random.default_rng(seed + 1).normal(size=z.shape)
    return routed(
        z.astype(np.float32),
        chosen,
        tokens=ids,
        keep_logits=logits,
        token_text=tuple(text),
        roles=tuple(roles),
        channels=tuple(channels),
        generated=np.array(generated),
        special=np.array(special),
        **{"model": "planted toy", "dtype": "float32", "package_version": "0.1.0", **fields},
    )


def routed(z: np.ndarray, chosen: int, tokens: np.ndarray, keep_logits: bool = True, **fields) -> Trace:
    """Router logits [T, L, E] to a Trace: the `chosen` largest, ties to the lower id, softmax over them."""
    experts = np.argsort(-z, axis=-1, kind="stable")[..., :chosen]
    top = np.take_along_axis(z, experts, -1)
    weights = np.exp(top - top.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return Trace(
        tokens=tokens,
        experts=experts,
        weights=weights.astype(np.float32),
        num_experts=z.shape[-1],
        router_logits=z if keep_logits else None,
        **fields,
    )


def hostile(**fields) -> Trace:
    """Tokens whose text tries to become markup, script, layout or a formula."""
    T = len(HOSTILE)
    z = np.random.default_rng(3).normal(size=(T, 3, 8)).astype(np.float32)
    return routed(
        z,
        2,
        tokens=np.arange(T),
        token_text=HOSTILE,
        roles=("<b>user</b>",) * T,
        channels=('"><i>x',) * T,
        **{"model": "<img src=x onerror=alert(2)>", **fields},
    )


def large() -> Trace:
    """36 layers x 128 experts x 2,048 tokens, everything random: the hardest to compress."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2048, 36, 128)).astype(np.float32)
    text, roles, channels, generated, special = (list(column) * 12 for column in harmony_tokens())
    keep = slice(0, 2048)
    assert len(text) >= 2048
    return routed(
        z,
        4,
        tokens=rng.integers(0, 200000, 2048),
        token_text=tuple(text[keep]),
        roles=tuple(roles[keep]),
        channels=tuple(channels[keep]),
        generated=np.array(generated[keep]),
        special=np.array(special[keep]),
        model="gpt-oss-120b (random)",
        dtype="bfloat16",
        package_version="0.1.0",
    )
