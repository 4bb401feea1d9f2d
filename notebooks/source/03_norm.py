# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: Embedding, norm and the residual stream
#     minutes: 30
#     seconds: 10
#     needs: Lesson 00.
#     modules: [norms]
#     goals:
#       embed: Say what an embedding is and why looking a row up equals a matrix product.
#       norm: Compute RMSNorm by hand, and say what its epsilon and its scale are for.
#       precision: Show what bfloat16 does to a long sum, and name the steps that must stay in float32.
#       stream: Read the residual stream as a sum of what every layer added, and say where the norms sit.
# ---

# %% [markdown]
# Three pieces of gpt-oss are so simple that one lesson holds them all: the table that turns a token into a vector, the
# norm that keeps vectors at a usable length, and the stream to which every layer adds. Simple is not the same as
# harmless. Two of the three have a way to go wrong that no error message will ever report.

# %%
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptoss_jax.config import GPT_OSS_20B
from gptoss_jax.model import Record, run_recorded
from gptoss_jax.norms import Embedding, linear, rms_norm

# %% [markdown]
# ## A token becomes a vector
#
# An **embedding** is a table with one row for each token of the vocabulary. The row *is* what the model knows about
# the token before it has seen any context. Here is one for a vocabulary of five tokens and vectors of three numbers:

# %%
table_VD = jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 2.0], [0.5, 0.5, 0.5], [3.0, 0.0, 4.0], [-1.0, 2.0, -1.0]])
tokens = jnp.array([3, 1, 3])
looped_TD = jnp.stack([table_VD[token] for token in tokens])
print(looped_TD)

# %% [markdown]
# Textbooks write the same thing as a matrix product: each token is a row of zeros with a single one, a *one-hot*
# vector, and the product with the table picks the row. Same result, and the package agrees:

# %%
one_hot_TV = jnp.eye(5)[tokens]
product_TD = jnp.einsum("tv,vd->td", one_hot_TV, table_VD)
embedding = Embedding(5, 3, dtype=jnp.float32, rngs=nnx.Rngs(0))
embedding.weight[...] = table_VD
packaged_TD = embedding(tokens, jnp.float32)
assert (looped_TD == product_TD).all() and (product_TD == packaged_TD).all()

# %% [markdown] predict="lookup_cost"
# gpt-oss has 201,088 tokens and vectors of 2880 numbers, stored in two bytes each. How many bytes of the table does
# one token read when the row is looked up? How many would the one-hot product read?
#
# ANSWER: Looking up reads one row: 2880 x 2 = 5760 bytes. The product would read the whole table, 1.16 GB, to multiply
# nearly all of it by zero. The formula with one-hot vectors explains the gradient and the interface; the lookup is what
# runs.

# %%
V, D = GPT_OSS_20B.vocab_size, GPT_OSS_20B.hidden_size
print(f"one row: {2 * D} bytes; the table: {2 * V * D / 1e9:.2f} GB, {V * D / 1e6:.0f} million parameters")
assert V * D == 579_133_440

# %% [markdown]
# At the other end of the model stands a second table of the same size, the unembedding of lesson 09. In many models
# the two are one table used twice. In gpt-oss they are different weights, and a port that ties them together
# writes nonsense.

# %% [markdown]
# ## Vectors of any length
#
# Rows of the table have different lengths, and every layer will add something. A matrix product passes such
# differences on: a vector ten times as long gives results ten times as large, and after some layers the numbers
# explode or vanish. So each layer first brings its input to a standard size. **RMSNorm** divides a vector by its *root
# mean square*, the square root of the average of its squared entries.
#
# Follow it for the vector (3, 4, 0, 0). The squares are 9, 16, 0, 0; their mean is 6.25; the root of that is 2.5.


# %%
def rms_slowly(x):
    total = 0.0
    for number in x:
        total += number * number
    return (total / len(x)) ** 0.5


x_D = [3.0, 4.0, 0.0, 0.0]
print(rms_slowly(x_D), [number / rms_slowly(x_D) for number in x_D])

# %% [markdown]
# Two more ingredients make the norm of gpt-oss. Each of the D entries is multiplied by a learned number, its *scale*.
# And a small number **epsilon**, 0.00001, is added to the mean square before the root is taken:
#
# $$\mathrm{RMSNorm}(x)_d = s_d \, \frac{x_d}{\sqrt{\frac{1}{D}\sum_{i} x_i^2 + \epsilon}}$$

# %%
x_TD = jnp.array([x_D, [30.0, 40.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
scale_D = jnp.array([1.0, 1.0, 2.0, 0.5])
divisor = lambda row: (rms_slowly(row) ** 2 + 1e-5) ** 0.5
looped_TD = jnp.array([[scale_D[d] * row[d] / divisor(row) for d in range(4)] for row in x_TD])
vectorized_TD = scale_D * x_TD / jnp.sqrt(jnp.mean(x_TD**2, axis=-1, keepdims=True) + 1e-5)
packaged_TD = rms_norm(x_TD, scale_D, 1e-5)
assert np.allclose(looped_TD, vectorized_TD) and np.allclose(vectorized_TD, packaged_TD)

# %% [markdown] predict="direction"
# The second row is ten times the first. How do their normalized rows compare? And the third row holds four equal
# numbers: the older LayerNorm, which subtracts the mean first, would turn it into zeros. What does RMSNorm make of it?
#
# ANSWER: The first two come out equal: the norm keeps the direction and forgets the length. The third row has a root
# mean square of 1 and passes unchanged, so only the scale is seen. RMSNorm never subtracts the mean, which saves work
# and, in the experiments of its authors (Zhang and Sennrich 2019), loses nothing.

# %%
print(course.sig3(packaged_TD))
assert np.allclose(packaged_TD[0], packaged_TD[1], rtol=1e-5)
assert np.allclose(packaged_TD[2], scale_D, rtol=1e-4)

# %% [markdown] exercise="rms_norm" stars=1 minutes=6 goal="norm"
# ### Write RMSNorm
#
# Write `normalize(x_TD, scale_D, eps)`: RMSNorm for every row of a matrix, with `jnp` or `np`, without a loop. The
# last axis is the one to average over.


# %% solution="rms_norm"
def normalize(x_TD, scale_D, eps):
    ### BEGIN SOLUTION
    mean_square = jnp.mean(x_TD**2, axis=-1, keepdims=True)
    return scale_D * x_TD / jnp.sqrt(mean_square + eps)
    ### END SOLUTION


# %% check="rms_norm"
lesson.check.rms_norm(normalize)

# %% [markdown]
# ## What epsilon is for
#
# For vectors of ordinary size epsilon changes the fifth digit. It matters when the vector is nearly zero. We
# feed vectors of one direction and of lengths from tiny to large, and look at the length that comes out.

# %%
lengths = np.logspace(-6, 3, 60, dtype=np.float32)
direction_D = jnp.array([1.0, -1.0, 1.0, -1.0])  # its root mean square is 1
out = np.array([rms_slowly(rms_norm(length * direction_D, jnp.ones(4))) for length in lengths])
assert np.allclose(out, lengths / np.sqrt(lengths**2 + 1e-5), rtol=1e-4)

# %%
fig, ax = course.figure(6, 2.6)
ax.loglog(lengths, out)
ax.axvline(1e-5**0.5, linestyle=":", color="gray")
ax.set(xlabel="root mean square of the input", ylabel="of the output")
alt = "Line on two logarithmic axes: size of the output against size of the input. It rises in proportion up to 0.003, a dotted line, and is flat at 1 from there."
half = float(np.interp(0.5, out, lengths))
course.show(fig, alt=alt, summary=f"Above 0.01 every input leaves with size 1; at {half:.4f} with half of that.")

# %% [markdown]
# So epsilon is a threshold: the square root of 0.00001 is 0.003, and vectors much shorter than that are treated as
# *nothing there* instead of being blown up to full size. Vectors that carry something are longer. But padding, zeroed
# inputs and removed parts can be that short, and without epsilon one of them is enough to fill the model with NaN.

# %% [markdown] exercise="breaking" stars=1 minutes=6 goal="norm"
# ### Break it
#
# `without_epsilon` below is RMSNorm with epsilon left out, in float32. Find four finite numbers, *none of them zero*,
# for which it returns something that is not finite, while RMSNorm with epsilon is fine. The smallest positive float32
# that keeps its full precision is about 1e-38.


# %% solution="breaking"
def without_epsilon(x_D):
    x_D = np.float32(x_D)
    with np.errstate(all="ignore"):
        return x_D / np.sqrt(np.mean(x_D * x_D))


### BEGIN SOLUTION
breaking_D = [1e-30, 2e-30, -1e-30, 1e-30]
### END SOLUTION

# %% check="breaking"
lesson.check.breaking(breaking_D)

# %% [markdown]
# ## Sums must be long-sighted
#
# Weights and activations of gpt-oss are **bfloat16**: 16 bits, with the range of float32 and only 8 bits of precision.
# Around 1, neighbors are 1/128 apart; around 256 they are 2 apart. For a single number that is enough. For a sum it
# is not.

# %% [markdown] predict="stall"
# Add 2880 ones, one after the other, keeping the running total in bfloat16. What is the result?
#
# ANSWER: 256. There the next number is 258, so 256 + 1 lies half way, is rounded back to 256, and the sum has stalled
# for good. The other 2624 ones leave no trace.

# %%
total = jnp.bfloat16(0)
for one in np.ones(2880, jnp.bfloat16):
    total = total + one
print("2880 ones add up to", int(total))
assert total == 256

# %% [markdown]
# This is exactly the sum inside the norm: 2880 squares. With a total of 256 instead of 2880 the root mean square would
# come out as 0.3 instead of 1, and every activation more than three times too large. Therefore `rms_norm` widens to
# float32 first, whatever it is given:

# %%
ones_D = jnp.ones(2880, jnp.bfloat16)
stalled_D = ones_D / jnp.sqrt(total.astype(jnp.float32) / 2880)
right_D = rms_norm(ones_D, jnp.ones(2880))
print(course.sig3(stalled_D[0]), "instead of", course.sig3(right_D[0]), right_D.dtype)
assert right_D.dtype == jnp.bfloat16 and np.allclose(np.float32(right_D), 1)

# %% [markdown]
# A finer point is *when* to go back to bfloat16. Llama casts first and multiplies by the scale afterwards, which rounds
# twice. OpenAI's code multiplies in float32 and rounds once. Let us measure three ways against float64, on random
# vectors: everything in bfloat16; cast, then scale; scale, then cast.

# %%
rng = np.random.default_rng(0)
x_TD = rng.normal(size=(16, 2880)).astype(jnp.bfloat16)
scale_D = rng.uniform(0.5, 2, 2880).astype(jnp.bfloat16)
wide_TD, scale64_D = x_TD.astype(np.float64), scale_D.astype(np.float64)
exact_TD = scale64_D * wide_TD / np.sqrt((wide_TD**2).mean(1, keepdims=True) + 1e-5)
total_T = np.zeros(16, jnp.bfloat16)
for column_T in x_TD.T:
    total_T = total_T + column_T * column_T

# %%
unit_TD = np.asarray(rms_norm(jnp.asarray(x_TD), jnp.ones(2880)))
ways = {
    "bfloat16 throughout": x_TD / np.sqrt(total_T / jnp.bfloat16(2880))[:, None] * scale_D,
    "cast, then scale": unit_TD * scale_D,
    "scale, then cast": np.asarray(rms_norm(jnp.asarray(x_TD), jnp.asarray(scale_D))),
}
relative = lambda got: np.sqrt(np.mean((got.astype(np.float64) / exact_TD - 1) ** 2))
error = {name: relative(got) for name, got in ways.items()}
assert error["bfloat16 throughout"] > 0.2 and 1.1 < error["cast, then scale"] / error["scale, then cast"] < 2

# %%
fig, ax = course.figure(6, 1.8)
ax.barh(list(error), list(error.values()))
ax.set(xscale="log", xlim=(1e-3, 1), xlabel="relative error, root mean square")
alt = "Three bars on a logarithmic axis, the error of RMSNorm: bfloat16 throughout is above 0.3, the other two near 0.002."
worst, ratio = error["bfloat16 throughout"], error["cast, then scale"] / error["scale, then cast"]
course.show(
    fig,
    alt=alt,
    summary=f"Summed in bfloat16 it is off by {worst:.0%}; rounding twice instead of once costs a factor {ratio:.1f}.",
)

# %% [markdown]
# The last two are both *correct to bfloat16*, and yet not equal. Compare two implementations of a model, and
# differences of this kind come first. The rule of this package: sums, norms, angles and softmaxes in float32, results
# in the dtype of the activations.

# %% [markdown] exercise="fold" stars=2 minutes=8 goal="norm"
# ### Fold the scale away
#
# After each norm comes a linear map. Its input has just been multiplied by `scale_D`, entry by entry. The scale can
# therefore be moved into the matrix: write `fold(weight_OD, scale_D)`, which returns the matrix for which
# `rms_norm(x, ones) @ folded.T` equals `rms_norm(x, scale) @ weight.T`. Matrices are stored as [output, input].


# %% solution="fold"
def fold(weight_OD, scale_D):
    ### BEGIN SOLUTION
    return weight_OD * scale_D[None, :]
    ### END SOLUTION


# %% check="fold"
lesson.check.fold(fold)

# %% [markdown]
# Whoever interprets the rows of such a matrix should do this first; otherwise the scale hides in the norm and the rows
# are not what the layer really compares with.

# %% [markdown]
# ## The stream
#
# The residual stream begins as the embedding. Each half of a layer, attention or experts, reads the stream through its
# own norm and *adds* its result. Here is the whole idea with two numbers a vector and three toy layers, each of which
# is a linear map of the normalized stream:

# %%
weights_LDD = jnp.array([[[0.0, -1.0], [1.0, 0.0]], [[0.5, 0.0], [0.0, 0.5]], [[0.0, 1.0], [-1.0, 0.0]]])
stream_D, added = jnp.array([3.0, 4.0]), []
for weight_DD in weights_LDD:
    added.append(linear(rms_norm(stream_D, jnp.ones(2)), weight_DD))
    stream_D = stream_D + added[-1]
course.table([(layer, *np.asarray(a, float)) for layer, a in enumerate(added)], header=("layer", "adds", "and"))

# %% [markdown]
# The norm stands on the branch, never on the stream itself. Nothing rescales what has been written, so the final stream
# is the embedding plus a plain sum, and one may ask of each term what it contributed. Lessons 09 and 14 live on this.

# %%
assert np.allclose(stream_D, jnp.array([3.0, 4.0]) + sum(added))
print("final stream:", course.sig3(stream_D))

# %% [markdown] predict="growth"
# Suppose each layer adds a vector of root mean square 1 in a *random* direction, to an embedding of root mean
# square 1. How large is the stream after 24 layers of two additions: 49, 7 or 1?
#
# ANSWER: About 7. Random directions in many dimensions are nearly perpendicular, so squares add up: the square root of
# 1 + 48. Only additions that all point the same way would give 49.

# %%
steps_LD = rng.normal(size=(49, 2880))
random_L = np.sqrt(np.mean(np.cumsum(steps_LD, axis=0) ** 2, axis=1))
print(f"after 48 additions: {random_L[-1]:.1f}")
assert np.allclose(random_L, np.sqrt(np.arange(1, 50)), rtol=0.1)

# %% [markdown]
# Now a model. `Record(residual=True)` asks for the stream before the first layer and after each. The differences are
# what the layers added, and the sum must close:

# %%
model, tokenizer = lesson.model(first_layers=None if lesson.builtin else 4)
tokens = tokenizer.encode_ordinary("Once upon a time there was a small town by the sea.")
padded_BT, counts_B = jnp.array([tokens]), jnp.array([len(tokens)])
output, _ = run_recorded(model, padded_BT, counts_B, record=Record(residual=True))
residual_LTD = np.asarray(output.residual[:, 0], np.float32)
added_LTD = np.diff(residual_LTD, axis=0)
assert np.allclose(residual_LTD[0] + added_LTD.sum(0), residual_LTD[-1], atol=1e-5 * abs(residual_LTD).max())
course.show_shapes(residual_LTD=residual_LTD, added_LTD=added_LTD)

# %%
size = lambda x_LTD: np.sqrt(np.mean(x_LTD**2, axis=(1, 2)))
stream_L, step_L = size(residual_LTD), size(added_LTD)
apart_L = np.sqrt(stream_L[0] ** 2 + np.cumsum(step_L**2))  # if every addition were perpendicular to the stream
assert stream_L[-1] > stream_L[0]

# %%
L = len(step_L)
fig, ax = course.figure(6, 2.8)
ax.plot(range(L + 1), stream_L, marker="o", label="stream")
ax.plot(range(1, L + 1), apart_L, linestyle="--", label="if additions were perpendicular")
ax.plot(range(1, L + 1), step_L, marker="s", linestyle=":", label="what the layer added")
ax.set(xlabel="after layer (0: embedding)", ylabel="root mean square", xticks=range(0, L + 1, max(1, L // 8)))
ax.legend()
alt = "Three lines over the layers: size of the residual stream, of what each layer added, and of the stream if additions were perpendicular."
course.show(
    fig, alt=alt, summary=f"From embedding to last layer the stream grows {stream_L[-1] / stream_L[0]:.1f} times."
)

# %% [markdown]
# Where the solid line runs above the dashed one, layers add in the direction that the stream already has; below it,
# they take back. And since a norm looks only at the direction, a late layer must add more to turn a longer stream by the
# same angle.

# %% [markdown]
# ## What you have now
#
# A token is a row, a norm makes its size harmless, and a stream collects what the layers add. So far every position is
# on its own and does not even know where it stands. Lesson 04 tells it where, lesson 05 lets it look around.
