"""Random conversations in openai-harmony's JSON form, and the official library as the oracle."""

import gzip
import os
import random
import string
from pathlib import Path
from typing import Any

import gptoss_jax
from gptoss_jax.harmony import Encoding, Message

WORDS = ["hello", "weather", "Zürich", "東京", "naïve", "e\u0301", "👩‍🚀", "int x;", "a_b-c", "\u202eabc", "π≈3.14"]
SPECIALS = ["<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|call|>", "<|constrain|>", "<|endofprompt|>"]
BLANKS = ["", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000"]


def official_encoding(folder: Path) -> Any:
    """openai-harmony over the rank table of this package, in a folder of its own: no network."""
    packed = Path(gptoss_jax.__file__).parent / "data" / "o200k_base.tiktoken.gz"
    (folder / "o200k_base.tiktoken").write_bytes(gzip.decompress(packed.read_bytes()))
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = str(folder)
    import openai_harmony

    return openai_harmony.load_harmony_encoding("HarmonyGptOss")


def text(rng: random.Random, longest: int = 8) -> str:
    parts = []
    for _ in range(rng.randrange(longest)):
        kind = rng.random()
        if kind < 0.6:
            parts.append(rng.choice(WORDS))
        elif kind < 0.7:
            parts.append(rng.choice(SPECIALS))
        elif kind < 0.8:
            parts.append(str(rng.randrange(10**6)))
        else:
            parts.append("".join(rng.choices(string.printable, k=rng.randrange(6))))
        parts.append(rng.choice(BLANKS))
    return "".join(parts)


def name(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_letters + "_", k=rng.randint(1, 12)))


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value."""
    numbers = [0, -1, 3, 2**53, 2**64, -(2**63), 1.0, -0.0, 0.1, 1e-5, 1.25e-05, 1e-7, 1e15, 1e16, 1.5e300, 123456.789]
    kinds = [lambda: None, lambda: rng.random() < 0.5, lambda: rng.choice(numbers), lambda: text(rng, 3)]
    if depth < 2:
        kinds += [lambda: [value(rng, depth + 1) for _ in range(rng.randrange(3))]]
        kinds += [lambda: {text(rng, 2): value(rng, depth + 1) for _ in range(rng.randrange(3))}]
    return rng.choice(kinds)()


def schema(rng: random.Random, depth: int = 0) -> Any:
    """A JSON schema with every keyword that counts, some that do not, and some in the wrong place."""
    out: dict[str, Any] = {}
    kinds = ["string", "number", "integer", "boolean", "null", "object", "array", "strange"]
    roll = rng.random()
    if roll < 0.75:
        out["type"] = rng.choice(kinds if depth < 3 else kinds[:5])
    elif roll < 0.85:
        out["type"] = rng.choices([*kinds, 5], k=rng.randrange(4))
    if depth < 3:
        if out.get("type") == "object" or rng.random() < 0.05:
            if rng.random() < 0.9:
                out["properties"] = {name(rng): schema(rng, depth + 1) for _ in range(rng.randrange(4))}
            if rng.random() < 0.6:
                out["required"] = [key for key in out.get("properties", {}) if rng.random() < 0.5] + ["absent"]
        if out.get("type") == "array" and rng.random() < 0.8:
            out["items"] = schema(rng, depth + 1)
        if rng.random() < 0.2:
            variants = [schema(rng, depth + 1) for _ in range(rng.randrange(4))]
            out["oneOf"] = rng.choice([variants, variants, variants, "no list"])
    extras = {
        "description": lambda: rng.choice([text(rng, 4), "same", "same", 5]),
        "title": lambda: text(rng, 3),
        "default": lambda: value(rng),
        "nullable": lambda: rng.choice([True, False, "yes"]),
        "enum": lambda: [rng.choice([text(rng, 2), 3, None]) for _ in range(rng.randrange(4))],
        "examples": lambda: [value(rng) for _ in range(rng.randrange(3))],
        "minimum": lambda: 3,
        "additionalProperties": lambda: False,
    }
    for key, make in extras.items():
        if rng.random() < 0.2:
            out[key] = make()
    items = list(out.items())
    rng.shuffle(items)
    return dict(items) if rng.random() < 0.97 else True


def tool(rng: random.Random) -> dict[str, Any]:
    out: dict[str, Any] = {"name": name(rng), "description": text(rng)}
    if rng.random() < 0.85:
        parameters = schema(rng)
        out["parameters"] = parameters if isinstance(parameters, dict) and rng.random() < 0.9 else {}
    return out


def tools(rng: random.Random) -> dict[str, Any]:
    import openai_harmony

    spaces: dict[str, Any] = {}
    if rng.random() < 0.3:
        spaces["browser"] = openai_harmony.ToolNamespaceConfig.browser().model_dump()
    if rng.random() < 0.3:
        spaces["python"] = openai_harmony.ToolNamespaceConfig.python().model_dump()
    for _ in range(rng.randrange(3)):
        key = rng.choice(["functions", "functions", name(rng)])
        spaces[key] = {"name": rng.choice([key, name(rng)]), "tools": [tool(rng) for _ in range(rng.randrange(4))]}
        if rng.random() < 0.5:
            spaces[key]["description"] = rng.choice([None, text(rng)])
    return spaces


def system_content(rng: random.Random) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "system_content"}
    options = {
        "model_identity": lambda: text(rng),
        "reasoning_effort": lambda: rng.choice(["Low", "Medium", "High"]),
        "conversation_start_date": lambda: rng.choice(["2025-06-28", text(rng, 2)]),
        "knowledge_cutoff": lambda: "2024-06",
        "channel_config": lambda: {
            "valid_channels": rng.choice([[], ["final"], ["analysis", "commentary", "final"], [text(rng, 3)]]),
            "channel_required": rng.random() < 0.5,
        },
        "tools": lambda: tools(rng),
    }
    for key, make in options.items():
        if rng.random() < 0.6:
            out[key] = None if rng.random() < 0.2 else make()
    return out


def developer_content(rng: random.Random) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "developer_content"}
    if rng.random() < 0.7:
        out["instructions"] = rng.choice([None, "", text(rng)])
    if rng.random() < 0.6:
        out["tools"] = tools(rng)
    return out


def message(rng: random.Random) -> dict[str, Any]:
    """Any message the renderer accepts, including those the parser cannot read back."""
    role = rng.choice(["user", "assistant", "assistant", "assistant", "system", "developer", "tool"])
    out: dict[str, Any] = {"role": role}
    if role == "tool":
        out["name"] = rng.choice(["functions.f", "browser.search", "python", name(rng)])
    elif rng.random() < 0.1:
        out["name"] = rng.choice([None, name(rng)])
    blocks: list[Any] = [{"type": "text", "text": text(rng)} for _ in range(rng.choice([1, 1, 1, 0, 2, 3]))]
    if role == "system" and rng.random() < 0.8:
        blocks.insert(rng.randrange(len(blocks) + 1), system_content(rng))
    if role == "developer" and rng.random() < 0.8:
        blocks.insert(rng.randrange(len(blocks) + 1), developer_content(rng))
    plain = len(blocks) == 1 and blocks[0]["type"] == "text" and rng.random() < 0.5
    out["content"] = blocks[0]["text"] if plain else blocks
    if role in ("assistant", "tool") or rng.random() < 0.1:
        channel = rng.choice(["analysis", "analysis", "commentary", "final", "final", None, name(rng)])
        if channel:
            out["channel"] = channel
    if rng.random() < 0.35:
        out["recipient"] = rng.choice(["functions.f", "python", "browser.open", "assistant", "all", "user", name(rng)])
    if rng.random() < 0.25:
        out["content_type"] = rng.choice(["json", "code", "<|constrain|>json", "<|constrain|>", "<|constrain|> json"])
    return out


def conversation(rng: random.Random) -> dict[str, Any]:
    return {"messages": [message(rng) for _ in range(rng.randrange(8))]}


def readable_message(rng: random.Random) -> dict[str, Any]:
    """A message whose rendering the official parser reads back as it was."""
    role = rng.choice(["user", "assistant", "assistant", "system", "developer", "tool"])
    out: dict[str, Any] = {"role": role, "content": text(rng)}
    if role == "tool":
        out |= {"name": rng.choice(["functions.f", "python"]), "recipient": "assistant"}
    elif rng.random() < 0.4:
        out["recipient"] = rng.choice(["functions.f", "browser.open", name(rng)])
    if rng.random() < 0.8:
        out["channel"] = rng.choice(["analysis", "commentary", "final", name(rng)])
    if "recipient" in out and rng.random() < 0.5:
        out["content_type"] = rng.choice(["json", "code", "<|constrain|>json"])
    return out


PIECES = [
    "assistant", "user", "tool", "system", " to=functions.f", "to=x", "analysis", "final", "commentary", "functions.f",
    "functions.f to=assistant", "user:bob", " json", "json", " ", " code", "I must refuse", " hello world", "\n", "💖",
    " 🖖", "é", "<|start|>", " Some longer text, with signs.", "python", "all",
]  # fmt: skip


def random_stream(rng: random.Random, encoding: Encoding) -> list[int]:
    """Control tokens, header words, half characters and unknown ids in any order."""
    out: list[int] = []
    control = list(encoding.control.values())
    for _ in range(rng.randrange(14)):
        kind = rng.random()
        if kind < 0.5:
            out.append(rng.choice(control))
        elif kind < 0.88:
            out += encoding.tokenizer.encode_ordinary(rng.choice(PIECES))
        elif kind < 0.97:
            out.append(rng.choice([9552, 244, 31446, rng.randrange(201088)]))
        else:
            out.append(rng.choice([201088, 10**9, -1, 2**31]))
    return out


def damaged_stream(rng: random.Random, encoding: Encoding) -> list[int]:
    """Rendered messages with tokens lost, doubled, swapped or cut off."""
    out: list[int] = []
    for _ in range(rng.randrange(4)):
        out += encoding.render(Message.from_dict(readable_message(rng)))
    for _ in range(rng.randrange(4)):
        if out:
            at = rng.randrange(len(out))
            harm = rng.randrange(4)
            if harm == 0:
                del out[at]
            elif harm == 1:
                out.insert(at, out[at])
            elif harm == 2:
                out.insert(at, rng.choice(list(encoding.control.values())))
            else:
                del out[at:]
    return out
