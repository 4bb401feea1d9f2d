"""Exercises of lesson 10, loading a checkpoint: headers, names, memory."""

import json

import numpy as np

from gptoss_jax.checkpoint.names import table
from gptoss_jax.config import TINY
from gptoss_jax.course.checks import Student, exercise

_BYTES = {"F32": 4, "BF16": 2, "U8": 1}


@exercise(
    "10",
    "parse_header",
    hints={
        "offsets-of-the-data": "`data_offsets` count from the end of the header; from where does `start` count?",
        "forgot-the-length": "eight bytes are missing from every start: what lies before the JSON?",
        "metadata": "one of the entries is no tensor.",
        "end-not-size": "the last number should be a length. Yours looks like a position.",
        "shape-not-tuple": "the shape should be a tuple; JSON knows only lists.",
        "numbers-not-bytes": "the length is counted in bytes, not in numbers: look at the offsets.",
        "names": "the names are not those of the header.",
    },
)
def parse_header(student: Student) -> None:
    """Random files with one to four tensors; every other one has metadata, some have padded headers."""
    for case in range(6):
        rng = student.rng
        entries: dict[str, dict[str, object]] = {}
        tensors: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
        end = 0
        for i in range(int(rng.integers(2, 5))):
            dtype = str(rng.choice(list(_BYTES)))
            shape = tuple(int(n) for n in rng.integers(2, 6, size=int(rng.integers(1, 4))))
            size = int(np.prod(shape)) * _BYTES[dtype]
            entries[f"layer.{i}.weight"] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
            tensors[f"layer.{i}.weight"] = (dtype, shape, end, size)
            end += size
        extra = {"__metadata__": {"format": "np"}} if case % 2 else {}
        text = json.dumps(extra | entries).encode()
        text += b" " * (-len(text) % 8)
        blob = len(text).to_bytes(8, "little") + text + bytes(end)
        n = len(text)
        got = student.call(blob)
        student.expect(isinstance(got, dict), "wrong-type", f"{type(got).__name__} instead of a dictionary")
        student.expect("__metadata__" not in got, "metadata")
        student.expect(set(got) == set(tensors), "names")
        for name, (dtype, shape, begin, size) in tensors.items():
            entry = got[name]
            student.expect(
                isinstance(entry, tuple | list) and len(entry) == 4, "wrong-type", "an entry that is not four values"
            )
            student.expect(not isinstance(entry[1], list), "shape-not-tuple")
            student.equal(entry[0], dtype)
            student.equal(entry[1], shape)
            student.equal(entry[2], 8 + n + begin, {"offsets-of-the-data": begin, "forgot-the-length": n + begin})
            count = int(np.prod(shape))
            student.equal(
                entry[3],
                size,
                {"end-not-size": begin + size, "numbers-not-bytes": count},
            )


@exercise(
    "10",
    "expert_bytes",
    hints={
        "start-left-out": "the tensor does not begin at the first byte of the file.",
        "counted-from-one": "the first expert is number 0.",
        "whole-tensor": "this reads all experts. How many bytes has one?",
        "rows": "this is a row, not an expert: which axes does an expert span?",
        "nibbles": "the entries are bytes; two codes share one. Is there anything left to halve?",
        "end-not-size": "the second number should be a count, not a position.",
    },
)
def expert_bytes(student: Student) -> None:
    """Random shapes and starts."""
    for _ in range(6):
        rng = student.rng
        shape = (*(int(n) for n in rng.integers(3, 40, size=3)), 16)
        start, expert = int(rng.integers(100, 10_000)), int(rng.integers(1, shape[0]))
        size, row = int(np.prod(shape[1:])), shape[2] * 16
        first = start + expert * size
        student.equal(
            student.call(start, shape, expert),
            (first, size),
            {
                "start-left-out": (expert * size, size),
                "counted-from-one": (first - size, size),
                "whole-tensor": (start, shape[0] * size),
                "rows": (start + expert * row, row),
                "nibbles": (start + expert * size / 2, size / 2),
                "end-not-size": (first, first + size),
            },
        )


@exercise(
    "10",
    "original_name",
    hints={
        "layer": "which layer is it? The number should come through unchanged, also with two digits.",
        "prefix": "the beginning is not right: look at the first word of the names in the other layout.",
        "norms": "a layer has two norms. Which of them stands before attention?",
        "qkv": "queries, keys and values are three tensors here and one there.",
        "router": "what is the router called in OpenAI's files?",
        "experts": "the experts' names do not match: compare gate_up and down, and how blocks and scales are joined.",
        "outside": "embedding, last norm and unembedding belong to no layer; their names are not right.",
    },
)
def original_name(student: Student) -> None:
    """Every name of four layers, and of layers beyond ten."""
    names = {(part.leaf, part.layer): part.name for part in table(TINY, "original")}
    pairs = [(part.name, names[part.leaf, part.layer], part.leaf) for part in table(TINY, "huggingface")]
    pairs += [
        (name.replace("layers.1.", "layers.17."), right.replace("block.1.", "block.17."), leaf)
        for name, right, leaf in pairs
        if ".layers.1." in name
    ]
    for name, right, leaf in sorted(pairs, key=lambda pair: "qkv" in pair[2] or "norm" in pair[2]):
        got = student.call(name)
        student.expect(isinstance(got, str), "wrong-type", f"{type(got).__name__} instead of text")
        if got == right:
            continue
        student.expect(leaf.startswith("blocks."), "outside")
        student.expect(got.startswith("block."), "prefix")
        student.expect(got.split(".")[1] == right.split(".")[1], "layer")
        for part, hint in (("experts", "experts"), ("router", "router"), ("norm", "norms"), ("qkv", "qkv")):
            student.expect(part not in leaf, hint)
        student.equal(got, right)


@exercise(
    "10",
    "loaded_bytes",
    hints={
        "unpacked": "the packed arrays are already bytes: `itemsize` is not theirs.",
        "packed-twice": "the shapes of packed arrays count bytes, not 4-bit codes: nothing is to be halved.",
        "norms": "norm scales are few, but they are not `itemsize` bytes each.",
        "sum-not-product": "an array of shape (3, 5) has fifteen entries.",
        "numbers": "these are entries, not bytes.",
        "scales": "scales are stored as bytes too, like the blocks.",
    },
)
def loaded_bytes(student: Student) -> None:
    """Random shapes under names like the model's."""
    kinds = ("qkv.weight", "norm.scale", "experts.gate_up_blocks", "experts.gate_up_scales", "sinks")
    for case in range(5):
        shapes = {
            name: tuple(int(n) for n in student.rng.integers(2, 12, size=1 + (len(name) + case) % 4)) for name in kinds
        }
        size = (2, 4)[case % 2] if case else 2

        def total(shapes=shapes, size=size, *, blocks=1.0, scales=1.0, norm=4.0, other=None, count=np.prod):
            of = {"_blocks": blocks, "_scales": scales, "norm.scale": norm}
            unit = size if other is None else other
            return sum(
                int(count(shape)) * next((b for end, b in of.items() if name.endswith(end)), unit)
                for name, shape in shapes.items()
            )

        student.equal(
            student.call(shapes, size),
            total(),
            {
                "unpacked": total(blocks=size, scales=size),
                "packed-twice": total(blocks=0.5),
                "norms": total(norm=size),
                "sum-not-product": total(count=np.sum),
                "numbers": total(norm=1, other=1),
                "scales": total(scales=size),
            },
        )
