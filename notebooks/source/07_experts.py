# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: The experts
#     minutes: 60
#     seconds: 12
#     needs: Lesson 06.
#     modules: [experts, roofline]
#     goals:
#       activation: Compute the clamped SwiGLU by hand and say which of its limits matter.
#       expert: Write one expert whose gate and up rows are interleaved.
#       dispatch: Bring tokens to their experts in three ways, and prove that they give the same result.
#       cost: Count what each way multiplies and reads, and say which one suits one token and which suits a thousand.
# ---

# %% [markdown]
# Nine tenths of gpt-oss are experts. Each is a small network of two matrices with an unusual function between them.
# This lesson computes that function, then one expert, then thirty-two of them for many tokens at once, which is a
# question of bookkeeping more than of mathematics.

# %%
import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from gptoss_jax import roofline
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B, TINY
from gptoss_jax.experts import ExpertWeights, expert, moe, swiglu
from gptoss_jax.mxfp4 import quantize
from gptoss_jax.router import choose

# %% [markdown]
# ## The activation
#
# An **expert** first multiplies its input by a matrix with 2F rows. Half of the results are called **gate**, the other
# half *up*. They meet in pairs, and each pair becomes one number:
#
# $$\mathrm{gate} \cdot \sigma(1.702 \cdot \mathrm{gate}) \cdot (\mathrm{up} + 1), \qquad \sigma(z) = \frac{1}{1 + e^{-z}}.$$
#
# This is a variant of **SwiGLU**. Before it is computed both inputs are cut off, a **clamp**: the gate at 7 from above
# only, up at -7 and at 7. Here it is for one pair, in plain Python:


# %%
def swiglu_slowly(gate, up):
    gate = min(gate, 7.0)
    up = max(-7.0, min(up, 7.0))
    return gate / (1 + math.exp(-1.702 * gate)) * (up + 1)


# %% [markdown] predict="pairs"
# Take the pairs (gate, up) = (1, 0), (0.5, -1), (8, -9) and (100, 100). Which of them gives zero, and what is the
# largest value that the function can ever have?
#
# ANSWER: (0.5, -1) gives zero, because up + 1 is zero. So an up value of 0 passes the gate unchanged, and -1 closes
# it. The largest value belongs to any pair beyond both limits: 7 times nearly 1 times 8, a little below 56.

# %%
pairs = [(1.0, 0.0), (1.0, 1.0), (-1.0, 2.0), (0.5, -1.0), (8.0, -9.0), (100.0, 100.0)]
slow = [swiglu_slowly(gate, up) for gate, up in pairs]
course.table([(*pair, value) for pair, value in zip(pairs, slow, strict=True)], header=("gate", "up", "result"))

# %% [markdown]
# The 2F numbers of gpt-oss come *interleaved*: gate, up, gate, up, and so on. So entries 0, 2, 4, ... are gates. For
# arrays that is a slice with step two, and the package's `swiglu` takes the interleaved row as it is.

# %%
row = np.array(pairs).reshape(-1)
gate, up = np.minimum(row[0::2], 7), np.clip(row[1::2], -7, 7)
fast = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
packaged = swiglu(jnp.asarray(row))
assert np.allclose(slow, fast) and np.allclose(fast, packaged, rtol=1e-5)

# %% [markdown] predict="halves"
# Many other models store the two halves one after the other: first all gates, then all up values. What happens if a
# port reads the file of gpt-oss that way?
#
# ANSWER: Nothing visible. All shapes fit, no number is infinite, the results have the usual size. They are just wrong:
# half of the gates are used as up values and the reverse.

# %% [markdown]
# Why interleave at all? Because the two numbers of a pair are needed together. Whoever holds a slice of the rows, a
# graphics processor with its share of the model or one tile of a matrix product, holds complete pairs and can apply the
# activation on the spot. The price is this trap, and nearly every port of gpt-oss has stood in front of it.

# %%
half = len(row) // 2
misread = [swiglu_slowly(g, u) for g, u in zip(row[:half], row[half:], strict=True)]
print("interleaved:", course.sig3(slow))
print("as halves:  ", course.sig3(misread))
assert not np.allclose(misread, slow)

# %% [markdown]
# The shape of the function is easiest to see as a curve: the gate along the axis, one curve for each value of up.

# %%
gates = np.linspace(-6, 12, 181)
fig, ax = course.figure(6.5, 3.4)
curves = {value: swiglu(jnp.stack([gates, np.full_like(gates, value)], -1).reshape(-1)) for value in (-3, -1, 0, 1, 3)}
for value, curve in curves.items():
    ax.plot(gates, curve, color="black", lw=1.2)
    ax.text(12.1, curve[-1], f"up = {value}", va="center")
ax.axvline(7, color="gray", ls="--", lw=1)
ax.set(xlabel="gate", ylabel="result", xlim=(-6, 14.5))
alt = "Five curves over the gate from -6 to 12, one for each up value -3, -1, 0, 1, 3: all near zero for negative gates, straight lines of slope up + 1 for positive ones, constant from gate 7 on; the curve of up = -1 is zero everywhere."
top = float(curves[3].max())
course.show(fig, alt=alt, summary=f"Beyond gate 7 every curve is flat; with up = 3 it ends at {top:.1f}.")

# %% [markdown]
# To the left all curves lie near zero: a negative gate closes. To the right they are lines whose slope is up + 1. The
# clamp keeps single huge values from escaping, which matters where numbers have few bits.
#
# Why is the gate not clamped from below? Look at the figure: at -6 the result is already almost zero. A limit at -7
# would change nothing that anyone could notice. Some mistakes are harmless, others are not, and the next exercise
# makes you find out which.

# %%
sigmoid = lambda z: 1 / (1 + np.exp(-z))
ports = {
    "a": lambda g, u: min(g, 7) * sigmoid(1.702 * min(g, 7)) * (min(u, 7) + 1),
    "b": lambda g, u: min(g, 7) * sigmoid(1.702 * min(g, 7)) * np.clip(u + 1, -7, 7),
    "c": lambda g, u: np.clip(g, -7, 7) * sigmoid(1.702 * np.clip(g, -7, 7)) * (np.clip(u, -7, 7) + 1),
    "d": lambda g, u: min(g, 7) * sigmoid(1.702 * g) * (np.clip(u, -7, 7) + 1),
}
assert all(np.isclose(port(2.0, 3.0), swiglu_slowly(2.0, 3.0)) for port in ports.values())

# %% [markdown] exercise="clamp_hunt" stars=1 minutes=10 goal="activation"
# ### Hunt the clamp
#
# Four ports differ from the definition above, and a test with ordinary numbers passes them all, as you see. Give for
# each port a pair (gate, up), both between -50 and 50, on which it is wrong by more than 0.1, or `None` if there is no
# such pair. `witness` is a dictionary with the keys "a" to "d".

# %% solution="clamp_hunt"
### BEGIN SOLUTION
witness = {"a": (1.0, -20.0), "b": (1.0, 20.0), "c": None, "d": None}
### END SOLUTION

# %% check="clamp_hunt"
lesson.check.clamp_hunt(witness)

# %% [markdown]
# ## One expert
#
# Around the activation stand two matrices. The first maps the D numbers of a token to 2F, the second maps F back to D;
# both have a bias. In gpt-oss D and F are both 2880. We take 32 for both, eight experts, and random weights, packed
# into 4 bits as in the real model. How packing works is lesson 08; here `dequantize` gives ordinary numbers back.

# %%
D, F, E, X = 32, 32, 8, 2
config = dataclasses.replace(TINY, hidden_size=D, intermediate_size=F, num_experts=E, experts_per_token=X)
rng = np.random.default_rng(7)
random = lambda *shape: jnp.asarray(rng.normal(size=shape, scale=0.3).astype(np.float32))
weights = ExpertWeights(quantize(random(E, 2 * F, D)), random(E, 2 * F), quantize(random(E, D, F)), random(E, D))
x_TD = random(6, D) * 3
course.show_shapes(gate_up=weights.gate_up.dequantize(), down=weights.down.dequantize(), x_TD=x_TD)

# %% [markdown]
# The expert for one token, as loops: 2F sums, F activations, D sums.


# %%
def expert_slowly(x, one):
    apply = lambda matrix, bias, v: [sum(row * v) + b for row, b in zip(np.asarray(matrix), bias, strict=True)]
    hidden = apply(one.gate_up.dequantize(), one.gate_up_bias, x)
    active = [swiglu_slowly(hidden[2 * f], hidden[2 * f + 1]) for f in range(F)]
    return apply(one.down.dequantize(), one.down_bias, np.array(active))


slow_D = expert_slowly(np.asarray(x_TD[0]), weights[3])
print(course.sig3(slow_D[:4]), "...")

# %% [markdown]
# Four numbers of 32 are enough to compare by eye. Note where the nonlinearity sits: between the two matrices, on F
# numbers, each of which depends on exactly one pair of rows. Without it the two matrices would collapse into one, and
# an expert could do no more than a single matrix product.
#
# For all tokens at once each loop over rows becomes a product with a matrix. The package's `expert` does the same with
# the packed weights.

# %%
one = weights[3]
hidden_TI = jnp.einsum("td,id->ti", x_TD, one.gate_up.dequantize()) + one.gate_up_bias
fast_TD = jnp.einsum("tf,df->td", swiglu(hidden_TI), one.down.dequantize()) + one.down_bias
packaged_TD = expert(x_TD, one, config)
assert np.allclose(slow_D, fast_TD[0], atol=1e-4) and np.allclose(fast_TD, packaged_TD, atol=1e-4)

# %% [markdown] exercise="expert_output" stars=2 minutes=12 goal="expert"
# ### Write an expert
#
# Write `expert_output(x_TD, gate_up, gate_up_bias, down, down_bias)` for ordinary, unpacked arrays: `gate_up` is
# `[2F, D]` with gate and up rows interleaved, `down` is `[D, F]`. Write the activation yourself, from its definition.


# %% solution="expert_output"
def expert_output(x_TD, gate_up, gate_up_bias, down, down_bias):
    ### BEGIN SOLUTION
    hidden = x_TD @ gate_up.T + gate_up_bias
    gate, up = np.minimum(hidden[:, 0::2], 7), np.clip(hidden[:, 1::2], -7, 7)
    active = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
    return active @ down.T + down_bias
    ### END SOLUTION


# %% check="expert_output"
lesson.check.expert_output(expert_output)

# %% [markdown]
# ## Bringing tokens to experts
#
# Every token has its own two experts, and the result for a token is the sum of its experts' outputs, each times its
# weight. The weight multiplies the complete output, the second bias included: an expert with a small weight adds a
# small share of its bias too. **Dispatch** is the name for getting each token to its experts and the outputs back.

# %%
routing = choose(random(6, E) * 3, X)
weights_TX = np.asarray(routing.weights)
print("experts of the six tokens:", routing.experts.tolist())

# %% [markdown]
# *First way: dense.* Run every expert on every token and multiply by the weight, which is zero for those not chosen.
# This is the definition, written as two loops.

# %%
dense_TD = np.zeros((6, D), np.float32)
for e in range(E):
    everyone_TD = expert(x_TD, weights[e], config)
    weight_T = (weights_TX * (np.asarray(routing.experts) == e)).sum(axis=1)
    dense_TD += weight_T[:, None] * np.asarray(everyone_TD)
assert np.allclose(dense_TD, moe(x_TD, routing, weights, config, dispatch="dense"), atol=1e-4)

# %% [markdown]
# *Second way: gather.* Go through the (token, expert) pairs one by one and run only that expert on only that token. Nothing is computed in
# vain, and the weights of an expert that nobody chose are never touched.

# %%
gathered_TD = np.zeros((6, D), np.float32)
for t in range(6):
    for rank in range(X):
        y_D = expert(x_TD[t], weights[int(routing.experts[t, rank])], config)
        gathered_TD[t] += weights_TX[t, rank] * np.asarray(y_D)
assert np.allclose(gathered_TD, dense_TD, atol=1e-4)
assert np.allclose(gathered_TD, moe(x_TD, routing, weights, config, dispatch="gather"), atol=1e-4)

# %% [markdown] predict="same_numbers"
# Dense multiplies 6 x 8 = 48 times by an expert, gather 12 times. Which of the two would you use for one token, and
# which for 2000?
#
# ANSWER: For one token gather: four experts of 32 are read, the rest of the memory is left alone. For 2000 tokens
# neither. Dense computes eight times too much, and gather reads and unpacks the same expert's weights hundreds of
# times, once for each token that chose it.

# %% [markdown]
# *Third way: grouped.* Sort the pairs by expert. Then all tokens of an expert are neighbors, and each expert is visited
# once, with exactly the tokens that chose it. `scan` is the package's name for it.

# %%
flat = np.asarray(routing.experts).reshape(-1)
order = np.argsort(flat, kind="stable")
course.table(
    [(int(e), str([int(i) // X for i in order if flat[i] == e])) for e in np.unique(flat)],
    header=("expert", "its tokens"),
)

# %% [markdown]
# The position of a pair says everything: pair i belongs to token i // X. In the figure each row is a pair. On the left
# they stand in the order of the tokens, on the right sorted by expert: what was scattered becomes a staircase, and each
# step is one matrix product.

# %%
many = choose(random(40, E) * 3, X)
ids = np.asarray(many.experts).reshape(-1)
fig, axes = course.figure(7, 3.6, ncols=2, sharey=True)
for ax, rows, title in zip(axes, (ids, np.sort(ids)), ("in the order of the tokens", "sorted by expert"), strict=True):
    ax.imshow(rows[:, None] == np.arange(E), aspect="auto", cmap="cividis")
    ax.set(title=title, xlabel="expert", xticks=range(E))
axes[0].set_ylabel("pair (40 tokens, 2 experts each)")
sizes = np.bincount(ids, minlength=E)
alt = "Two grids, 80 pairs down, 8 experts across, one bright cell a row. Left the cells are scattered, right they form a staircase."
course.show(
    fig,
    alt=alt,
    summary=f"{len(ids)} pairs become {np.count_nonzero(sizes)} groups of {sizes.min()} to {sizes.max()} tokens.",
)

# %% [markdown]
# Experts are not equally popular, so the groups differ in size, and a compiled program wants fixed shapes. Some
# systems give every expert room for a fixed number of tokens and drop those that do not fit, so that a token's result
# depends on who else is in the batch. gpt-oss drops nobody. The package works through each group in tiles of a fixed
# number of tokens, as many tiles as the group needs.
#
# All three ways give the same numbers, up to rounding, because a sum does not care about the order of its terms:

# %%
answers = [moe(x_TD, routing, weights, config, dispatch=way) for way in ("dense", "gather", "scan")]
assert all(np.allclose(answer, dense_TD, atol=1e-4) for answer in answers)
print("dense, gather and scan agree with the loops")

# %% [markdown] exercise="grouped" stars=3 minutes=20 goal="dispatch"
# ### Visit every expert once
#
# Write `grouped(x_TD, experts_TX, weights_TX, serve)`. `serve(e, x_ND)` runs expert `e` on N tokens and returns
# `[N, D]`. Return the weighted sums `[T, D]`. Call `serve` once for each expert that was chosen, with only the tokens
# that chose it. All arrays are NumPy's.


# %% solution="grouped"
def grouped(x_TD, experts_TX, weights_TX, serve):
    ### BEGIN SOLUTION
    y_TD = np.zeros_like(x_TD)
    for e in np.unique(experts_TX):
        tokens, ranks = np.nonzero(experts_TX == e)
        y_TD[tokens] += weights_TX[tokens, ranks][:, None] * serve(e, x_TD[tokens])
    return y_TD
    ### END SOLUTION


# %% check="grouped"
lesson.check.grouped(grouped)

# %% [markdown]
# ## What each way costs
#
# Now the real sizes. To run an expert on a token, each of its weights is multiplied once and added once: two
# **FLOPs**, floating-point operations, for a weight. Bytes are another matter: weights must be read from memory, but a
# weight that was read once can serve any number of tokens. So the three ways must be compared twice: once by what
# they multiply, once by what they read.


# %%
def expert_flops(config):
    return 2 * 3 * config.hidden_size * config.intermediate_size


for name, size in (("20b", GPT_OSS_20B), ("120b", GPT_OSS_120B)):
    wasted = size.num_experts // size.experts_per_token
    print(f"{name}: {course.sig3(expert_flops(size) / 1e6)} million FLOPs; dense does {wasted} times the work")
assert GPT_OSS_120B.num_experts // GPT_OSS_120B.experts_per_token == 32

# %% [markdown]
# A token passes 24 layers with four experts each, so the experts of the 20b cost it 24 x 4 x 49.8 million, or 4.8
# billion operations. A processor that does a hundred billion a second needs 48 milliseconds for that. Dense would need
# eight times as long for the same result.
#
# How many bytes are read? Gather reads an expert for each pair. Grouped reads each *touched* expert once. If every
# token chose four of 32 at random, T tokens would touch $E\,(1 - (1 - X/E)^T)$ of them. We count it in a simulation
# and compare.

# %%
tokens = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256])
E20, X20 = GPT_OSS_20B.num_experts, GPT_OSS_20B.experts_per_token
draws = np.argsort(rng.random((100, tokens[-1], E20)), axis=-1)[..., :X20]
counted = [np.mean([len(np.unique(draw[:T])) for draw in draws]) for T in tokens]
touched = E20 * (1 - (1 - X20 / E20) ** tokens)
assert np.allclose(counted, touched, rtol=0.03)

# %% [markdown]
# `roofline.decode_bytes` uses the same formula for a batch of sequences. From one sequence to eight, only the experts
# and one row of the embedding each are added:

# %%
D20, F20 = GPT_OSS_20B.hidden_size, GPT_OSS_20B.intermediate_size
packed_bytes = 3 * D20 * F20 * 4.25 / 8 + 2 * (2 * F20 + D20)  # matrices in 4.25 bits, biases in two bytes
more = roofline.decode_bytes(GPT_OSS_20B, 0, batch=8) - roofline.decode_bytes(GPT_OSS_20B, 0, batch=1)
by_hand = GPT_OSS_20B.num_layers * packed_bytes * (touched[3] - touched[0]) + 7 * 2 * D20
assert np.isclose(more, by_hand)
print("one packed expert:", course.sig3(packed_bytes / 1e6), "MB")

# %% [markdown] predict="crossing"
# Sketch the bytes that each way reads in one layer, for one token, eight, and 256. Where does grouped begin to pay, and
# what does dense cost for one token?
#
# ANSWER: For one token gather and grouped read the same four experts; dense reads 32, eight times as much. With eight
# tokens there are 32 pairs but only about 21 different experts. With 256 tokens gather reads 1024 experts, grouped and
# dense 32.

# %%
megabytes = packed_bytes / 1e6 * np.array([np.full(len(tokens), E20), tokens * X20, touched])
fig, ax = course.figure(6.5, 3)
for name, line, mark in zip(("dense", "gather", "grouped"), megabytes, "sod", strict=True):
    ax.plot(tokens, line, marker=mark, label=name)
ax.set(xscale="log", yscale="log", xticks=tokens, xticklabels=tokens, xlabel="tokens", ylabel="MB read in a layer")
ax.minorticks_off()
ax.legend()
alt = "Three lines on logarithmic axes, tokens against megabytes of weights read in one layer: dense constant, gather rising in proportion, grouped starting with gather and ending with dense."
course.show(
    fig,
    alt=alt,
    summary=f"One token reads {megabytes[2, 0]:.0f} MB in a layer; 256 tokens read {megabytes[2, 8] / 256:.1f} MB each when grouped, {megabytes[1, 8] / 256:.0f} when gathered.",
)

# %% [markdown] exercise="bytes_read" stars=1 minutes=6 goal="cost"
# ### Count the bytes
#
# Write `bytes_read(experts_TX, num_experts, expert_bytes)` for one layer and a given routing: three numbers, the bytes of
# weights that dense, gather and grouped read, in this order.


# %% solution="bytes_read"
def bytes_read(experts_TX, num_experts, expert_bytes):
    ### BEGIN SOLUTION
    counts = num_experts, experts_TX.size, len(np.unique(experts_TX))
    return [count * expert_bytes for count in counts]
    ### END SOLUTION


# %% check="bytes_read"
lesson.check.bytes_read(bytes_read)

# %% [markdown]
# The figure explains how the model is served. While it writes, one token at a time, each step reads four experts a
# layer, and the memory sets the pace: 24 layers of 53 MB are 1.3 GB for every token, which a memory of 50 GB a second
# delivers at most 40 times a second. While it reads your prompt, hundreds of tokens share every expert that is read,
# and the arithmetic does. The package chooses by the number of tokens: `dispatch="auto"`.

# %%
automatic = moe(x_TD, routing, weights, config)
assert np.allclose(automatic, dense_TD, atol=1e-4)

# %% [markdown]
# ## What you have now
#
# An expert, its activation to the last limit, and three ways to run many of them. What remains of the layer is how its
# weights are stored: four bits each, in lesson 08.
