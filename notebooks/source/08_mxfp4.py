# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: Four bits a weight
#     minutes: 60
#     seconds: 8
#     needs: Lesson 07.
#     modules: [mxfp4, roofline]
#     goals:
#       code: Decode a block of MXFP4 by hand, from its bytes to its 32 values.
#       layout: Find out whether a file was written with swapped nibbles, which no histogram shows.
#       round: Quantize a block as the standard has it, and say how large its errors can be.
#       memory: Derive the size of the published checkpoints from their shapes.
# ---

# %% [markdown]
# gpt-oss-120b has 117 billion parameters, and its file is 65 GB. That is less than five bits for each. The trick is a
# number format called **MXFP4**, which this lesson takes apart: first the four bits, then the scale that 32 of them
# share, then the way back, from ordinary numbers to four bits.

# %%
import math

import jax.numpy as jnp
import numpy as np

from gptoss_jax import roofline
from gptoss_jax.checkpoint import open_checkpoint
from gptoss_jax.checkpoint.reading import BUILT_IN
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B
from gptoss_jax.mxfp4 import E2M1_VALUES, dequantize, quantize, unpack
from gptoss_jax.routing import figures

# %% [markdown]
# ## Sixteen numbers
#
# Four bits can name sixteen things. The format **E2M1** spends one bit on the sign, two on an exponent and one on a
# mantissa, the digit behind the point. It follows the rules of every floating-point number: an exponent field of 0 is
# special and stands for 0 or 0.5; any other field x stands for $2^{x-1}$, multiplied by 1 or by 1.5.

# %% [markdown] predict="code_eleven"
# The code 11 is `1011` in binary. Which number is it? And how many *different* numbers can the sixteen codes name?
#
# ANSWER: The sign bit is 1, the exponent field is 01, the mantissa bit is 1: minus 1.5 times 2 to the power 0, so -1.5.
# There are fifteen different numbers, because 0 comes twice, once with each sign.


# %%
def value_slowly(code):
    sign, exponent, mantissa = code >> 3, (code >> 1) & 3, code & 1
    size = 0.5 * mantissa if exponent == 0 else (1 + 0.5 * mantissa) * 2 ** (exponent - 1)
    return -size if sign else size


slow = [value_slowly(code) for code in range(16)]
course.table([(code, f"{code:04b}", value) for code, value in enumerate(slow)], header=("code", "bits", "value"))

# %% [markdown]
# The same for all codes at once, and the table that the package uses. Sixteen entries are so few that nobody computes
# them: they are looked up. (Code 8 is minus zero. It prints like zero and is equal to it, and only its sign bit tells.)

# %%
codes = np.arange(16)
exponent, mantissa = (codes >> 1) & 3, codes & 1
size = np.where(exponent == 0, mantissa / 2, (1 + mantissa / 2) * 2.0 ** (exponent - 1))
fast = np.where(codes >= 8, -size, size)
assert (slow == fast).all() and (fast == E2M1_VALUES).all()

# %%
drawing = figures.code_points(E2M1_VALUES)
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)

# %% [markdown]
# Between 4 and 6 lies nothing, and nothing beyond 6. Weights of a network are around 0.02, and most would round to
# zero. Four bits alone are useless.

# %% [markdown]
# ## A scale for thirty-two
#
# So every group of 32 neighboring weights gets one more byte, its scale. The format of that byte is **E8M0**: eight
# bits of exponent, no mantissa and no sign. A byte b means $2^{b-127}$, a power of two. Multiplying by it moves all 32
# numbers up or down without changing any of their digits.

# %% [markdown] predict="bits_a_weight"
# How many bits does one weight cost, its share of the scale included? And which factor is that compared with bfloat16?
#
# ANSWER: 32 codes of 4 bits are 128 bits, the scale has 8 more. 136 / 32 = 4.25 bits a weight. bfloat16 takes 16, so the
# factor is 3.76.

# %%
bits = (32 * 4 + 8) / 32
print(f"{bits} bits a weight; bfloat16 takes {16 / bits:.2f} times as much")
assert 2.0 ** (130 - 127) == 8

# %% [markdown]
# ## From bytes to weights
#
# Two codes share a byte, and half a byte is called a **nibble**. The *first* of the two values is in the *low* nibble,
# the last four bits. Take the bytes 2A and 10 (in hexadecimal, where each digit is a nibble) and the scale 130.

# %% [markdown] predict="four_values"
# Which four values do the bytes 2A and 10 stand for, if the scale is 130?
#
# ANSWER: The scale is 8. The byte 2A has the low nibble A, which is code 10 with the value -1, and then 2 with the
# value 1. The byte 10 has first 0, then 1 with the value 0.5. Times 8: -8, 8, 0, 4.

# %%
block = np.zeros((1, 1, 16), np.uint8)  # one row, one group, sixteen bytes
block[0, 0, :2] = [0x2A, 0x10]
scale = np.array([[130]], np.uint8)
slow = []
for byte in block[0, 0]:
    for code in (byte & 0x0F, byte >> 4):
        slow.append(E2M1_VALUES[code] * 2.0 ** (int(scale[0, 0]) - 127))
print(course.sig3(slow[:6]), "...")

# %% [markdown]
# Without the loop: both nibbles of all bytes, side by side, looked up in the table, times the scale of their group. The
# package's `dequantize`, to **dequantize** being the name for this way of the conversion, does it for arrays of any
# shape.

# %%
nibbles = np.stack([block & 0x0F, block >> 4], axis=-1).reshape(1, 1, 32)
fast = (E2M1_VALUES[nibbles] * 2.0 ** (scale.astype(int) - 127)[..., None]).reshape(1, 32)
packaged = dequantize(block, scale)
assert (slow == fast[0]).all() and (fast == packaged).all()

# %% [markdown]
# These are equalities, not approximations. A value of E2M1 has two significant bits and the scale is a power of two, so
# bfloat16 and float32 hold every product exactly. Two programs that decode the same file must agree in every bit, and
# a test may demand it:

# %%
rng = np.random.default_rng(8)
blocks = rng.integers(0, 256, (64, 4, 16), np.uint8)
scales = rng.integers(110, 130, (64, 4), np.uint8)
wide, narrow = dequantize(blocks, scales), dequantize(blocks, scales, "bfloat16")
assert (wide == narrow.astype(np.float32)).all()
course.show_shapes(blocks=blocks, scales=scales, values=wide)

# %% [markdown] exercise="decode" stars=2 minutes=12 goal="code"
# ### Decode a block
#
# Write `decode(blocks, scales)` with NumPy and the table `E2M1_VALUES`, without the package's `dequantize`. `blocks` is
# uint8 `[rows, groups, 16]`, `scales` uint8 `[rows, groups]`; return float32 `[rows, groups * 32]`. Mind that uint8
# minus 127 wraps around.


# %% solution="decode"
def decode(blocks, scales):
    ### BEGIN SOLUTION
    codes = np.stack([blocks & 0x0F, blocks >> 4], axis=-1).reshape(*scales.shape, 32)
    factors = np.exp2(scales.astype(np.float32) - 127)
    return (E2M1_VALUES[codes] * factors[..., None]).reshape(len(blocks), -1)
    ### END SOLUTION


# %% check="decode"
lesson.check.decode(decode)

# %% [markdown]
# ## A mistake that no histogram shows
#
# What if a converter writes the *first* value into the high nibble? Every byte is still valid. Take a random matrix, pack
# it, swap the nibbles of every byte, and unpack.

# %%
weight_OI = rng.normal(size=(256, 256)).astype(np.float32) * 0.02
packed = quantize(weight_OI)
right_OI = packed.dequantize()
swapped_OI = dequantize((packed.blocks >> 4) | (packed.blocks << 4), packed.scales)
course.show_shapes(right_OI=right_OI, swapped_OI=swapped_OI)

# %% [markdown] predict="swapped"
# Compare the two matrices: their shape, their mean, their largest value, the histogram of their entries, the sum of
# each row. Which of these reveal the mistake?
#
# ANSWER: None. The swap exchanges neighbors within a row: entries 0 and 1, 2 and 3, and so on. Every statistic that
# ignores the order of the entries stays the same. Only a product with a vector, or a comparison entry by entry, shows it.

# %% [markdown]
# We multiply both matrices with the same random vector, and compare each with the product of the weights as they were
# before packing.

# %%
assert (np.sort(right_OI, axis=1) == np.sort(swapped_OI, axis=1)).all()
x_I = rng.normal(size=256).astype(np.float32)
products = {"right": right_OI @ x_I, "swapped": swapped_OI @ x_I}
exact_O = weight_OI @ x_I
likeness = {name: np.corrcoef(exact_O, y_O)[0, 1] for name, y_O in products.items()}
assert likeness["right"] > 0.99 and abs(likeness["swapped"]) < 0.3

# %%
fig, axes = course.figure(6.5, 3.2, ncols=2, sharey=True)
for ax, (name, y_O) in zip(axes, products.items(), strict=True):
    ax.plot(exact_O, y_O, ".", color="black", ms=3)
    ax.set(title=name, xlabel="product with the exact weights")
axes[0].set_ylabel("product with the packed weights")
alt = "Two scatter plots of 256 products: with the right order of nibbles the points lie close to a diagonal, with swapped nibbles they form a round cloud."
course.show(
    fig,
    alt=alt,
    summary=f"Correlation with the exact products: {likeness['right']:.3f} if right; swapped, no better than chance.",
)

# %% [markdown] exercise="find_swapped" stars=2 minutes=15 goal="layout"
# ### Find the swapped experts
#
# A faulty converter swapped the nibbles of some experts. You have its `blocks` `[E, O, groups, 16]` and `scales`
# `[E, O, groups]`, an input `x_I`, and the outputs `y_EO` that the sound experts gave for it, rounded to about three
# digits. Write `find_swapped(blocks, scales, x_I, y_EO)`: a list of the experts that were swapped. Beware: an expert may
# be damaged in another way, and does not belong in your list. You may use `dequantize`.


# %% solution="find_swapped"
def find_swapped(blocks, scales, x_I, y_EO):
    ### BEGIN SOLUTION
    turned = (blocks >> 4) | (blocks << 4)
    apart_E = np.abs(dequantize(turned, scales) @ x_I - y_EO).max(axis=1)
    return [e for e in range(len(blocks)) if apart_E[e] < 0.05 * np.abs(y_EO[e]).max()]
    ### END SOLUTION


# %% check="find_swapped"
lesson.check.find_swapped(find_swapped)

# %% [markdown]
# ## Rounding to four bits
#
# Now the other direction: to **quantize**. Given 32 numbers, find a scale and 32 codes. The standard, the Open Compute
# Project's Microscaling Formats 1.0, has this recipe:
#
# 1. take the largest magnitude and round it down to a power of two, $2^k$;
# 2. the scale is $2^{k-2}$, because the largest E2M1 number, 6, is $1.5 \cdot 2^2$;
# 3. divide by the scale and take the nearest E2M1 number. Halfway between two, take the one whose code is even; above 6
#    take 6.

# %% [markdown] predict="five_numbers"
# Follow the recipe for 7, 1, -0.3, 5, 3.5. What is the scale, and what do the five numbers become?
#
# ANSWER: The largest is 7, rounded down to a power of two 4 = 2², so the scale is 1. Then 7 becomes 6, the end of the
# range; 1 stays; -0.3 is nearer to -0.5 than to 0; 5 lies halfway between 4 and 6 and takes 4, whose code 6 is even;
# 3.5 lies halfway between 3 and 4 and takes 4.


# %%
def nearest_code(value):
    candidates = sorted(range(8), key=lambda code: (abs(abs(value) - E2M1_VALUES[code]), code % 2))
    return candidates[0] + 8 * (value < 0)


def quantize_slowly(values):
    power = math.floor(math.log2(max(abs(v) for v in values))) - 2
    return [nearest_code(v / 2.0**power) for v in values], power + 127


five = [7.0, 1.0, -0.3, 5.0, 3.5]
slow_codes, slow_byte = quantize_slowly(five)
print("scale byte", slow_byte, "values", [float(E2M1_VALUES[code]) for code in slow_codes])

# %% [markdown]
# For arrays: distances to all eight magnitudes, and the smallest wins. `argmin` takes the first of equals, so listing the
# even codes first settles the ties. The package does the same with comparisons. Fill the five numbers up to a group of
# 32 and compare.

# %%
group = np.array(five + [0.0] * 27, np.float32)
even_first = np.array([0, 2, 4, 6, 1, 3, 5, 7])
power = np.floor(np.log2(np.abs(group).max())) - 2
distance = np.abs(np.abs(group / 2**power)[:, None] - E2M1_VALUES[even_first])
fast_codes = even_first[distance.argmin(axis=1)] + 8 * (group < 0)
one = quantize(group)
assert slow_codes == fast_codes[:5].tolist() and (fast_codes == unpack(one.blocks)).all()
assert slow_byte == power + 127 == one.scales[0]

# %% [markdown] predict="largest_error"
# Divided by its scale, the largest number of a group lies between 4 and 8. Where in this range is the rounding error
# largest, and how large is it, as a share of the number itself?
#
# ANSWER: Just below 8: it becomes 6, which is 2 less, a quarter of it. In the middle between 4 and 6 the error is 1, a
# fifth of 5. So no value of a group is off by more than a quarter of the group's largest.

# %%
groups = rng.normal(size=(1500, 32)).astype(np.float32) * rng.uniform(0.1, 1, (1500, 1)).astype(np.float32)
rounded = quantize(groups).dequantize()
largest, error = np.abs(groups).max(axis=1), np.abs(rounded - groups).max(axis=1)
assert (error <= largest / 4).all()
drawing = figures.block_errors(largest, error)
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)

# %% [markdown]
# The figure is a saw, and each pair of teeth belongs to one scale; look at the stretch from 1 to 2, where the scale is
# a quarter. At 1 the largest number is hit exactly. Towards 1.25 it drifts into the gap between 4 and 6 quarters, and
# the first tooth rises. At 1.5 it is hit again, and the errors of the smaller numbers in the group are all that is left.
# Beyond 1.5 there is no code any more: the second tooth rises up to the dashed line, and then the next scale takes over.
#
# What do the weights look like before and after?

# %%
after = right_OI.ravel()
fig, ax = course.figure(7, 2.8)
edges = np.linspace(-0.07, 0.07, 281)
ax.hist(after, edges, color="#0072b2", label="after")
ax.hist(weight_OI.ravel(), edges, histtype="step", color="black", label="before")
ax.set(xlabel="weight", ylabel="how many", yscale="log")
ax.legend()
alt = "Histogram of 65,536 weights on a logarithmic axis: before rounding a smooth bell, afterwards a comb of about twenty separate spikes."
course.show(
    fig,
    alt=alt,
    summary=f"{weight_OI.size:,} weights take only {len(np.unique(after))} different values; {(after == 0).mean():.0%} are zero.",
)

# %% [markdown]
# The damage to a product is smaller than to a single weight, because errors of different signs cancel. Still, a tenth
# is a lot. gpt-oss can afford it for a simple reason: its last training was done *with* these rounded weights, so the
# network that you download has never known better ones.

# %%
off = np.linalg.norm(products["right"] - exact_O) / np.linalg.norm(exact_O)
print(f"error of the product: {off:.0%} of its size")
assert off < 0.2

# %% [markdown]
# One might fear that errors pile up when a model is loaded and saved again and again. They do not: every number that
# came out of MXFP4 goes back in without loss. The bytes may differ, because a group without large codes can be written
# with a smaller scale, but the values are the same.

# %%
again = quantize(right_OI)
assert (again.dequantize() == right_OI).all()

# %% [markdown] exercise="quantize_block" stars=3 minutes=20 goal="round"
# ### Quantize a block
#
# Write `quantize_block(values)` for 32 numbers: return the 32 codes (integers 0 to 15) and the scale byte, by the three
# steps of the standard. Round ties to the even code. A block of zeros has no logarithm: give it the scale byte 0.


# %% solution="quantize_block"
def quantize_block(values):
    ### BEGIN SOLUTION
    values = np.asarray(values, np.float64)
    if not values.any():
        return np.zeros(32, int), 0
    power = math.floor(math.log2(np.abs(values).max())) - 2
    even_first = np.array([0, 2, 4, 6, 1, 3, 5, 7])
    distance = np.abs(np.abs(values / 2.0**power)[:, None] - E2M1_VALUES[even_first])
    return even_first[distance.argmin(axis=1)] + 8 * (values < 0), power + 127
    ### END SOLUTION


# %% check="quantize_block"
lesson.check.quantize_block(quantize_block)

# %% [markdown]
# ## Is the recipe the best?
#
# With the scale given, the nearest code is the best choice. But the scale itself comes from a rule about the largest
# number alone. We try the next larger scale for every group, and ask where it would leave a smaller squared error.


# %%
def squared_error(groups, shift):
    powers = np.floor(np.log2(np.abs(groups).max(axis=1, keepdims=True))) - 2 + shift
    distance = np.abs(np.abs(groups / 2**powers)[..., None] - E2M1_VALUES[even_first])
    return ((distance.min(axis=-1) * 2**powers) ** 2).sum(axis=1)


standard = squared_error(groups, 0)
assert np.allclose(standard, ((rounded - groups) ** 2).sum(axis=1), rtol=1e-3)
better = squared_error(groups, 1) < standard
print(f"a scale twice as large is better for {better.mean():.0%} of the groups")

# %% [markdown] predict="when_better"
# For which groups does the larger scale win?
#
# ANSWER: For those whose largest number is cut off at 6. OpenAI's own kernels round the scale up so that nothing is
# ever cut off. The file format is the same; only the one who writes it must choose. This package follows the standard.

# %%
ratio = largest / 2.0 ** np.floor(np.log2(largest)) * 4
print("largest / scale, median where the larger scale wins:", course.sig3(np.median(ratio[better])))
assert ratio[better].min() > 6

# %% [markdown]
# ## A trained model's codes
#
# The checkpoint of the lesson's model, yours or the built-in one, stores its experts in these bytes. We read four
# experts of the first layer, straight from the file, and count their codes.

# %%
checkpoint = open_checkpoint(lesson.checkpoint or BUILT_IN)
some = (slice(0, 1), slice(0, 4))
stored = checkpoint.read("blocks.mlp.experts.gate_up_blocks", some)
stored_scales = checkpoint.read("blocks.mlp.experts.gate_up_scales", some)
course.show_shapes(blocks=stored, scales=stored_scales)
assert stored.dtype == np.uint8 and stored.shape[:-1] == stored_scales.shape

# %%
drawing = figures.code_points(E2M1_VALUES, np.bincount(unpack(stored).ravel(), minlength=16))
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)

# %%
drawing = figures.scale_histogram(np.bincount(stored_scales.ravel(), minlength=256))
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)
assert stored_scales.max() < 255  # 255 is the scale that means "not a number"

# %% [markdown]
# The scales stay within a few powers of two, out of 255 that the byte could name. Nearly all the information is in the
# codes.

# %% [markdown]
# ## What it saves
#
# Only the experts' matrices are packed; attention, router, embeddings and all biases stay in bfloat16, where their
# precision is needed and their size is not. By hand, for the 20b:

# %%
config = GPT_OSS_20B
by_loop = 0
for _layer in range(config.num_layers):
    for _expert in range(config.num_experts):
        by_loop += 2 * config.intermediate_size * config.hidden_size  # up: gate and value
        by_loop += config.hidden_size * config.intermediate_size  # down
packed = config.num_layers * config.num_experts * 3 * config.hidden_size * config.intermediate_size
count = roofline.parameters(config)
assert by_loop == packed == count.packed
print(f"{packed / count.total:.1%} of the parameters are packed")

# %%
size_by_hand = packed * 17 // 32 + (count.total - packed) * 2  # 17 bytes for 32 codes, 2 bytes for the rest
assert size_by_hand == roofline.checkpoint_bytes(config) == 13_761_264_768

# %% [markdown] predict="fits"
# A graphics card with 16 GB, one with 80 GB: which of the two models fits on which, packed and in bfloat16?
#
# ANSWER: Packed, the 20b needs 13.8 GB and fits on the small card, the 120b needs 65 GB and fits on the large one. In
# bfloat16 the 20b would need 42 GB and the 120b 234 GB: three large cards for the weights alone.

# %%
models = {"20b": GPT_OSS_20B, "120b": GPT_OSS_120B}
sizes = {}
for name, config in models.items():
    sizes[f"{name}, bfloat16"] = 2 * roofline.parameters(config).total / 1e9
    sizes[f"{name}, MXFP4"] = roofline.checkpoint_bytes(config) / 1e9
labels = [f"{name}: {size:.0f} GB" for name, size in sizes.items()]
fig, ax = course.figure(6.5, 2.6)
ax.barh(labels, list(sizes.values()), color="#0072b2")
for card in (16, 80):
    ax.axvline(card, color="black", ls="--", lw=1)
    ax.text(card, 4.1, f" {card} GB card", va="bottom")
ax.set(xlabel="GB of weights", xlim=(0, 250), ylim=(4.2, -0.6))
alt = "Four horizontal bars, gigabytes of weights of both models in bfloat16 and in MXFP4, with dashed lines at 16 and 80 GB; only the MXFP4 bars end left of their line."
course.show(
    fig,
    alt=alt,
    summary=f"20b: {sizes['20b, bfloat16']:.0f} GB become {sizes['20b, MXFP4']:.1f}; 120b: {sizes['120b, bfloat16']:.0f} become {sizes['120b, MXFP4']:.0f}.",
)

# %% [markdown] exercise="layer_bytes" stars=1 minutes=8 goal="memory"
# ### Weigh a layer
#
# Write `layer_bytes(hidden, width, experts)`: the bytes of one layer's experts as they are stored. `hidden` is D, `width`
# is F. Each expert has a matrix of 2F x D and one of D x F, both in MXFP4, and two biases, of 2F and of D numbers, in
# bfloat16. The result is a whole number.


# %% solution="layer_bytes"
def layer_bytes(hidden, width, experts):
    ### BEGIN SOLUTION
    packed = 3 * hidden * width // 32 * 17
    biases = 2 * (2 * width + hidden)
    return experts * (packed + biases)
    ### END SOLUTION


# %% check="layer_bytes"
lesson.check.layer_bytes(layer_bytes)

# %% [markdown]
# Memory is only half of the gain. Generating a token means reading the chosen experts, and a quarter of the bytes is
# read in a quarter of the time. That is why this package keeps the weights **packed** in memory too, and unpacks an
# expert only inside the computation that uses it.

# %%
on_device = dequantize(jnp.asarray(stored), jnp.asarray(stored_scales))
assert (np.asarray(on_device) == dequantize(stored, stored_scales)).all()

# %% [markdown]
# ## What you have now
#
# The format to the last bit, in both directions, and a test that catches the mistake which nothing else shows. With
# this every part of a layer is known, and lesson 09 puts them together.
