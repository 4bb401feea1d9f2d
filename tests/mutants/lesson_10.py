"""Right and wrong answers to the exercises of lesson 10."""

import json
import math
import re
import struct

from gptoss_jax.checkpoint.names import table
from gptoss_jax.config import TINY


def _parse(blob, *, data=None, order="little", metadata=False, as_shape=tuple, size=lambda b, e, shape: e - b):
    n = int.from_bytes(blob[:8], order)
    first = 8 + n if data is None else data(n)
    return {
        name: (entry["dtype"], as_shape(entry["shape"]), first + begin, size(begin, end, entry["shape"]))
        for name, entry in json.loads(blob[8 : 8 + n]).items()
        if name != "__metadata__"
        for begin, end in [entry["data_offsets"]]
    } | ({"__metadata__": ("", (), 0, 0)} if metadata else {})


def _with_struct(blob):
    (n,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8 : 8 + n].decode())
    header.pop("__metadata__", None)
    out = {}
    for name in sorted(header):
        begin, end = header[name]["data_offsets"]
        out[name] = (header[name]["dtype"], tuple(header[name]["shape"]), begin + n + 8, end - begin)
    return out


_ORIGINAL = {(part.leaf, part.layer): part.name for part in table(TINY, "original")}
_NAMES = {part.name: _ORIGINAL[part.leaf, part.layer] for part in table(TINY, "huggingface")}


def _rename(name):
    found = re.match(r"model\.layers\.(\d+)\.", name)
    if not found:
        return _NAMES[name]
    layer = found[1]
    return _NAMES[name.replace(f"layers.{layer}.", "layers.0.", 1)].replace("block.0.", f"block.{layer}.", 1)


def _swap_norms(name):
    swapped = {"attn.norm": "mlp.norm", "mlp.norm": "attn.norm"}
    return re.sub(r"(attn|mlp)\.norm", lambda found: swapped[found[0]], _rename(name))


def _apart(name):
    letter = re.search(r"\.([qkv])_proj", name)
    return _rename(name).replace("qkv", letter[1]) if letter else _rename(name)


def _bytes(shapes, itemsize, *, packed=1.0, scales=1.0, norm=4, count=math.prod):
    total = 0
    for name, shape in shapes.items():
        if name.endswith("_blocks"):
            size = packed
        elif name.endswith("_scales"):
            size = scales
        else:
            size = norm if name.endswith("norm.scale") else itemsize
        total += count(shape) * size
    return total


ANSWERS = {
    "parse_header": {
        "right": [_with_struct],
        "wrong": {
            "offsets-of-the-data": lambda blob: _parse(blob, data=lambda n: 0),
            "forgot-the-length": lambda blob: _parse(blob, data=lambda n: n),
            "raises": lambda blob: _parse(blob, order="big"),
            "metadata": lambda blob: _parse(blob, metadata=True),
            "end-not-size": lambda blob: _parse(blob, size=lambda begin, end, shape: end),
            "shape-not-tuple": lambda blob: _parse(blob, as_shape=list),
            "numbers-not-bytes": lambda blob: _parse(blob, size=lambda begin, end, shape: math.prod(shape)),
            "names": lambda blob: {name.upper(): entry for name, entry in _parse(blob).items()},
            "returns-nothing": lambda blob: None,
        },
        "blind": [("wrong-type", lambda blob: list(_parse(blob).items()))],
    },
    "expert_bytes": {
        "right": [lambda start, shape, e: (start + e * math.prod(shape) // shape[0], math.prod(shape) // shape[0])],
        "wrong": {
            "start-left-out": lambda start, shape, e: (e * math.prod(shape[1:]), math.prod(shape[1:])),
            "counted-from-one": lambda start, shape, e: (start + (e - 1) * math.prod(shape[1:]), math.prod(shape[1:])),
            "whole-tensor": lambda start, shape, e: (start, math.prod(shape)),
            "rows": lambda start, shape, e: (start + e * shape[2] * 16, shape[2] * 16),
            "nibbles": lambda start, shape, e: (start + e * math.prod(shape[1:]) // 2, math.prod(shape[1:]) // 2),
            "end-not-size": lambda start, shape, e: (
                start + e * math.prod(shape[1:]),
                start + (e + 1) * math.prod(shape[1:]),
            ),
            "returns-nothing": lambda start, shape, e: None,
        },
        "blind": [("wrong-shape", lambda start, shape, e: start + e * math.prod(shape[1:]))],
    },
    "original_name": {
        "right": [_rename],
        "wrong": {
            "layer": lambda name: re.sub(r"block\.(\d)\d", r"block.\1", _rename(name)),
            "prefix": lambda name: _rename(name).replace("block.", "blocks."),
            "norms": _swap_norms,
            "qkv": _apart,
            "router": lambda name: _rename(name).replace("gate.", "router."),
            "experts": lambda name: _rename(name).replace("_weight.", "_"),
            "outside": lambda name: _rename(name) if "layers" in name else name,
            "returns-nothing": lambda name: None,
        },
        "blind": [("experts", lambda name: _rename(name).replace("mlp1", "mlp2"))],
    },
    "loaded_bytes": {
        "right": [_bytes],
        "wrong": {
            "unpacked": lambda shapes, itemsize: _bytes(shapes, itemsize, packed=itemsize, scales=itemsize),
            "packed-twice": lambda shapes, itemsize: _bytes(shapes, itemsize, packed=0.5),
            "norms": lambda shapes, itemsize: _bytes(shapes, itemsize, norm=itemsize),
            "sum-not-product": lambda shapes, itemsize: _bytes(shapes, itemsize, count=sum),
            "numbers": lambda shapes, itemsize: _bytes(shapes, 1, norm=1),
            "scales": lambda shapes, itemsize: _bytes(shapes, itemsize, scales=itemsize),
            "returns-nothing": lambda shapes, itemsize: None,
        },
        "blind": [("wrong-values", lambda shapes, itemsize: _bytes(shapes, itemsize) // 2**10)],
    },
}
