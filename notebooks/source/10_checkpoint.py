# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: Loading a checkpoint
#     minutes: 50
#     seconds: 12
#     needs: Lesson 08 for the packed experts; lesson 09 for the model they belong to.
#     modules: [checkpoint]
#     goals:
#       header: Read the header of a safetensors file by hand and say where each tensor's bytes lie.
#       lazy: Read a single expert from disk, and turn bfloat16 bytes into numbers.
#       names: Translate tensor names between the two published layouts.
#       memory: Say how much memory a model will take before any of it is loaded.
# ---

# %% [markdown]
# A **checkpoint** is a folder: some files of numbers, and a `config.json` that says what shape they have. Loading one
# sounds like a chore, and it is where many ports go wrong: a transposed matrix, two names exchanged, or a machine that
# dies because everything was in memory twice. This lesson opens the files with bare hands.

# %%
import json
import tempfile
from pathlib import Path

import numpy as np

import gptoss_jax as gj
from gptoss_jax import roofline
from gptoss_jax.checkpoint import CheckpointError, convert, open_checkpoint
from gptoss_jax.checkpoint.files import read_header
from gptoss_jax.checkpoint.inspecting import weight_bytes
from gptoss_jax.checkpoint.names import is_packed, leaf_shapes, table
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B

workspace = tempfile.TemporaryDirectory()
work = Path(workspace.name)

# %% [markdown]
# ## A file on one page
#
# The weights come as **safetensors**: an 8-byte number n (lowest byte first), n bytes of JSON, and then nothing but the
# tensors' bytes. The JSON is the header: for each name a type, a shape, and where the bytes begin and end. These
# offsets count from the end of the header. Here is a complete file with two tensors:

# %%
a, b = np.array([1.0, 2.0, 3.0], np.float32), np.array([[7, 8]], np.uint8)
header = {
    "a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
    "b": {"dtype": "U8", "shape": [1, 2], "data_offsets": [12, 14]},
}

# %% [markdown]
# The shape of `a` and its type say that it has 3 x 4 bytes, and its offsets say the same; a careful reader compares the
# two. Put the three parts one behind the other, and the file is complete:

# %%
text = json.dumps(header).encode()
blob = len(text).to_bytes(8, "little") + text + a.tobytes() + b.tobytes()
print(blob[:8], blob[8:70], "...", blob[-14:], sep="\n")

# %% [markdown] predict="where_b"
# The JSON has n bytes. At which byte of the file does tensor `b` begin, and how long is it?
#
# ANSWER: At 8 + n + 12: the length field, the header, and the twelve bytes of `a`. It is 14 - 12 = 2 bytes long. Reading
# it takes one seek and one read; nothing before it has to be touched.

# %% [markdown]
# Three ways to get `a` back: number by number, with one NumPy view, and with the package, which reads only the header
# until values are asked for.

# %%
(work / "page.safetensors").write_bytes(blob)
start = 8 + len(text)
looped = [np.frombuffer(blob[start + 4 * i : start + 4 * i + 4], "<f4")[0] for i in range(3)]
vectorized = np.frombuffer(blob, "<f4", count=3, offset=start)
packaged = np.empty(3, np.float32)
read_header(work / "page.safetensors")["a"].read_into(packaged)
assert looped == vectorized.tolist() == packaged.tolist() == [1, 2, 3]

# %% [markdown] exercise="parse_header" stars=2 minutes=12 goal="header"
# ### Parse a header
#
# Write `parse_header(blob)`: a dictionary from each tensor's name to `(dtype, shape, start, nbytes)`. `blob` is a whole
# safetensors file as bytes. `dtype` is the text of the header, `shape` a tuple, `start` the first byte *counted from the
# beginning of the file*. A header may also hold the key `__metadata__`, which is no tensor: leave it out.


# %% solution="parse_header"
def parse_header(blob):
    ### BEGIN SOLUTION
    n = int.from_bytes(blob[:8], "little")
    tensors = {}
    for name, entry in json.loads(blob[8 : 8 + n]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = (entry["dtype"], tuple(entry["shape"]), 8 + n + begin, end - begin)
    return tensors
    ### END SOLUTION


# %% check="parse_header"
lesson.check.parse_header(parse_header)

# %% [markdown]
# ## What lies inside
#
# Now a real layout: the small random gpt-oss of lesson 09, in the form in which OpenAI published the weights. Its
# header is a few kilobytes, and it answers most questions. The first layer:

# %%
golden = course.data("golden")
tensors = read_header(golden / "model.safetensors")
rows = [(t.name, t.dtype, str(list(t.shape))) for t in tensors.values() if t.name.startswith("block.0.")]
course.table(sorted(rows), header=("name", "dtype", "shape"))

# %% [markdown]
# `blocks` and `scales` are the packed experts of lesson 08: 4-bit codes, 16 bytes for 32 of them, and one scale byte for
# each group. `gate` is what everyone else calls the router, `mlp1` the projection up (gate and value interleaved), `mlp2`
# the projection down.

# %%
assert sum(t.nbytes for t in tensors.values()) < (golden / "model.safetensors").stat().st_size
assert {t.dtype for t in tensors.values()} == {"BF16", "U8"}
assert len(tensors) == 15 * 4 + 3  # 15 a layer, and embedding, last norm, unembedding

# %% [markdown]
# ## bfloat16 by hand
#
# Everything that is not packed is **bfloat16**: 16 bits, which are simply the *upper half of a float32*. So decoding needs
# no table. Put two zero bytes below, and read the result as a float32. The first four norm scales of layer 0:

# %%
scale = tensors["block.0.attn.norm.scale"]
raw = np.empty(scale.nbytes, np.uint8)
scale.read_into(raw)
print("bytes", raw[:8].tolist())

# %% [markdown]
# The second byte of each pair holds the sign and most of the exponent, which is why it is nearly the same for all of
# them: 63 stands for numbers around 1.

# %%
looped = [np.frombuffer(bytes([0, 0, raw[2 * i], raw[2 * i + 1]]), "<f4")[0] for i in range(4)]
vectorized = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
checkpoint = open_checkpoint(golden)
packaged = checkpoint.read("blocks.attention.norm.scale", (slice(0, 1),), np.float32)[0]
print(course.sig3(looped))
assert np.array_equal(looped, vectorized[:4]) and np.array_equal(vectorized, packaged)

# %% [markdown] predict="precision"
# A float32 has 23 bits behind the point, bfloat16 keeps 7 of them. Which of the two loses more when a weight of 0.02 is
# stored: its size, or its digits?
#
# ANSWER: Its digits. The eight bits of exponent are all in the upper half, so the range is that of float32; but only two
# to three decimal digits are left, a relative error of up to 1/256.

# %% [markdown]
# ## One expert, please
#
# Opening a checkpoint reads headers and checks names, shapes and types against the configuration; no weight is touched.
# After that any box of any array can be read alone. Expert 5 of layer 2, the packed projection up: row by row with seek
# and read, as a slice of a memory map, and with the package, which also counts the bytes.

# %%
blocks = tensors["block.2.mlp.mlp1_weight.blocks"]
E, rows_up, groups, half = blocks.shape
with blocks.file.open("rb") as file:
    looped = []
    for row in range(rows_up):
        file.seek(blocks.start + (5 * rows_up + row) * groups * half)
        looped.append(np.frombuffer(file.read(groups * half), np.uint8).reshape(groups, half))
mapped = np.memmap(blocks.file, np.uint8, "r", blocks.start, blocks.shape)
vectorized = np.array(mapped[5])

# %%
touched = []
index = (slice(2, 3), slice(5, 6))
packaged = checkpoint.read("blocks.mlp.experts.gate_up_blocks", index, advance=touched.append)[0, 0]
print(f"read {sum(touched):,} bytes of {sum(t.nbytes for t in tensors.values()):,}")
assert np.array_equal(looped, vectorized) and np.array_equal(vectorized, packaged)
assert sum(touched) == blocks.nbytes // E

# %% [markdown] exercise="expert_bytes" stars=1 minutes=8 goal="lazy"
# ### Find an expert
#
# Write `expert_bytes(start, shape, expert)`. A tensor of packed blocks with `shape` `(E, rows, groups, 16)`, one byte an
# entry, begins at byte `start` of its file. Return a pair: the first byte of expert number `expert` (counted from 0), and
# how many bytes it has.


# %% solution="expert_bytes"
def expert_bytes(start, shape, expert):
    ### BEGIN SOLUTION
    size = int(np.prod(shape[1:]))
    return start + expert * size, size
    ### END SOLUTION


# %% check="expert_bytes"
lesson.check.expert_bytes(expert_bytes)

# %% [markdown]
# This is how a machine with little memory can look at a model that does not fit: a single expert of gpt-oss-20b is
# 12.6 MiB out of 12.8 GiB. And it is how several machines load one model together, each its own part. The lessons use
# it too: with your own checkpoint they read only the first layers.

# %%
part, _ = gj.load(golden, first_layers=2)
course.show_shapes(two_layers=part.blocks.mlp.router.weight[...])
assert part.blocks.mlp.router.weight.shape == (2, 8, 128)

# %% [markdown]
# ## Two layouts
#
# The same weights were published under two sets of names. OpenAI's own files say `block.0.attn.qkv`; the Hugging Face
# files say `model.layers.0.self_attn.q_proj`, and keep queries, keys and values apart. The package has *one* table that
# lists both, and nothing else in it knows a name. Layer 0 of the table, without the experts:

# %%
config = checkpoint.config
theirs, ours = table(config, "huggingface"), table(config, "original")
original_of = {(part.leaf, part.layer): part.name for part in ours}
pairs = [(part.name, original_of[part.leaf, part.layer]) for part in theirs if part.layer == 0]
course.table([pair for pair in pairs if "experts" not in pair[0]], header=("Hugging Face", "original"))

# %% [markdown]
# And the experts, and what stands outside of the layers:

# %%
outside = [(part.name, original_of[part.leaf, part.layer]) for part in theirs if part.layer is None]
course.table([pair for pair in pairs if "experts" in pair[0]] + outside, header=("Hugging Face", "original"))
assert len(theirs) == 19 * 4 + 3 and len(ours) == len(tensors)

# %% [markdown] predict="sorted"
# Sorted as text, the layers of a model with 24 layers come as 0, 1, 10, 11, ... A loader stacks the tensors in the order
# in which it finds them. What happens, and would a test with four layers notice?
#
# ANSWER: Layer 10 lands in place 2. All shapes are right, nothing fails, and the model writes nonsense. A test with
# fewer than eleven layers sees nothing: so the number must be read from the name, never from the order.

# %% [markdown] exercise="original_name" stars=2 minutes=15 goal="names"
# ### Translate a name
#
# Write `original_name(name)`: takes a tensor's name in the Hugging Face layout and returns the name of the tensor in
# the original layout that holds the same numbers. The three parts of queries, keys and values all belong to one
# tensor there. The two tables above have all cases; the layer may be any number.


# %% solution="original_name"
def original_name(name):
    ### BEGIN SOLUTION
    renamed = {
        "input_layernorm.weight": "attn.norm.scale",
        "post_attention_layernorm.weight": "mlp.norm.scale",
        "model.embed_tokens.weight": "embedding.weight",
        "model.norm.weight": "norm.scale",
        "lm_head.weight": "unembedding.weight",
    }
    if not name.startswith("model.layers."):
        return renamed[name]
    _, _, layer, rest = name.split(".", 3)
    rest = renamed.get(rest, rest).replace("self_attn.", "attn.").replace("o_proj", "out")
    for letter in "qkv":
        rest = rest.replace(f"attn.{letter}_proj", "attn.qkv")
    rest = rest.replace("mlp.router", "mlp.gate").replace("mlp.experts.", "mlp.")
    rest = rest.replace("gate_up_proj", "mlp1").replace("down_proj", "mlp2")
    rest = rest.replace("_blocks", "_weight.blocks").replace("_scales", "_weight.scales")
    return f"block.{layer}.{rest}"
    ### END SOLUTION


# %% check="original_name"
lesson.check.original_name(original_name)

# %% [markdown]
# Names alone do not make the layouts equal: the rows of the three tensors must come in the right order. We write the
# golden checkpoint in the other layout and put the queries, keys and values of layer 1 together again: by copying rows,
# by concatenating, and by asking the package.

# %%
other = open_checkpoint(convert(golden, work / "huggingface", "huggingface"))
pieces = []
for letter in "qkv":
    tensor = other.tensors[f"model.layers.1.self_attn.{letter}_proj.weight"]
    pieces.append(np.empty(tensor.shape, np.uint16))
    tensor.read_into(pieces[-1])

# %% [markdown]
# Queries come first, then keys, then values. A loader that puts them together in alphabetical order (k, q, v) meets no
# error: all shapes fit, and the first rows of the queries are then keys.

# %%
looped = [row for piece in pieces for row in piece]
vectorized = np.concatenate(pieces)
qkv = tensors["block.1.attn.qkv.weight"]
published = np.empty(qkv.shape, np.uint16)
qkv.read_into(published)
packaged = other.read("blocks.attention.qkv.weight", (slice(1, 2),))[0].view(np.uint16)
course.show_shapes(q=pieces[0], k=pieces[1], v=pieces[2], qkv=published)
assert np.array_equal(looped, vectorized) and np.array_equal(vectorized, packaged)
assert np.array_equal(packaged, published)
wrong_order = np.concatenate([pieces[1], pieces[0], pieces[2]])
assert wrong_order.shape == published.shape and not np.array_equal(wrong_order, published)

# %% [markdown]
# The **fingerprint** of a checkpoint is a hash over samples of all arrays, taken after names and order are undone. Equal
# fingerprints in both layouts say that it is the same model.

# %%
assert checkpoint.fingerprint() == other.fingerprint()
print("the same fingerprint in both layouts")

# %% [markdown]
# ## A damaged file
#
# Downloads break off, disks fill up, copies are interrupted. The header says how many bytes there should be, so a missing one is found before anything is
# loaded, and the error says what to do. Watch what the loss of a single byte does:

# %%
broken = work / "broken.safetensors"
broken.write_bytes((golden / "model.safetensors").read_bytes()[:-1])
try:
    read_header(broken)
except CheckpointError as error:
    message = str(error).partition(": ")[2]
print(message)
assert "pass" in message or "accounts" in message

# %% [markdown]
# ## Will it fit?
#
# The shapes follow from the configuration, so the memory is known before a byte is read. Packed experts stay packed: one
# byte for two weights. Norm scales become float32. For all else you choose, usually bfloat16. For 20b in a loop, with
# arrays, and with the package:

# %%
shapes = leaf_shapes(GPT_OSS_20B)
looped = 0
for leaf, shape in shapes.items():
    count = 1
    for n in shape:
        count *= n
    looped += count * (1 if is_packed(leaf) else 4 if leaf.endswith("norm.scale") else 2)

# %%
counts = np.array([np.prod(shape, dtype=np.int64) for shape in shapes.values()])
itemsize = np.where([is_packed(leaf) for leaf in shapes], 1, 2) + 2 * np.char.endswith(list(shapes), "norm.scale")
assert looped == (counts * itemsize).sum() == weight_bytes(GPT_OSS_20B, 2)
print(f"{looped / 2**30:.1f} GiB")

# %% [markdown] predict="unpack_first"
# Many loaders unpack the experts while loading, because then they are ordinary matrices. How many GiB does 20b take in
# bfloat16, and in float32?
#
# ANSWER: 39 and 78 GiB, instead of 13. Two bytes a weight instead of 0.53 is 3.8 times as much for the experts, which
# are nine tenths of the model. On a laptop with 16 GB that is the difference between running and not running.

# %%
choices, rows = {"packed": None, "bfloat16": 2, "float32": 4}, []
for config in (GPT_OSS_20B, GPT_OSS_120B):
    total = roofline.parameters(config).total
    rows.append([weight_bytes(config, 2) if size is None else total * size for size in choices.values()])
memory = np.array(rows) / 2**30
course.table([("20b", *memory[0]), ("120b", *memory[1])], header=("GiB", *choices))
assert memory[0, 0] < 14.9 < memory[0, 1] and memory[1, 0] < 74.5 < memory[1, 1]

# %%
fig, axes = course.figure(7.5, 2, ncols=2)
for ax, name, values, size in zip(axes, ("20b", "120b"), memory, (16, 80), strict=True):
    ax.barh(list(choices), values, color="#00417d")
    ax.axvline(size * 1e9 / 2**30, color="black", linestyle=":")
    ax.set(title=f"{name}; dotted: {size} GB", xlabel="GiB of weights", ylim=(2.5, -0.5))
alt = "Two bar charts, 20b and 120b: memory with packed, bfloat16 and float32 experts; dotted lines at 16 and 80 GB. Only the packed bars end left of their line."
course.show(fig, alt=alt, summary=f"Packed, 20b takes {memory[0, 0]:.1f} GiB and 120b {memory[1, 0]:.1f}.")

# %% [markdown] exercise="loaded_bytes" stars=1 minutes=8 goal="memory"
# ### Plan the memory
#
# Write `loaded_bytes(shapes, itemsize)`. `shapes` maps names of arrays to shapes. Names that end in `_blocks` or
# `_scales` are packed and take one byte an entry; names that end in `norm.scale` take four; all others take `itemsize`.


# %% solution="loaded_bytes"
def loaded_bytes(shapes, itemsize):
    ### BEGIN SOLUTION
    total = 0
    for name, shape in shapes.items():
        size = 1 if name.endswith(("_blocks", "_scales")) else 4 if name.endswith("norm.scale") else itemsize
        total += int(np.prod(shape)) * size
    return total
    ### END SOLUTION


# %% check="loaded_bytes"
lesson.check.loaded_bytes(loaded_bytes)

# %% [markdown] predict="peak"
# A loader reads a 12.8 GiB file into memory, then makes JAX arrays from it and lets go of the first copy. What must the
# machine have?
#
# ANSWER: 25.6 GiB, twice the model, for a moment. The *peak* decides, not what is left at the end. The package reads each
# array straight into memory that JAX takes over without a copy, array by array.

# %% [markdown]
# ## What to remember
#
# - A header is a table of contents: anything can be read alone.
# - bfloat16 is the upper half of a float32; packed experts stay bytes until they are used.
# - Names differ between layouts, and so does what is fused. One table, both ways, tested on every name.
# - Know the memory before you load, and count the peak.

# %%
workspace.cleanup()
assert not work.exists()
