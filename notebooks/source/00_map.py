# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: Map and set-up
#     minutes: 20
#     seconds: 5
#     needs: Python, NumPy, and what a matrix product is.
#     modules: [config, roofline]
#     goals:
#       map: Name the parts of gpt-oss in the order in which a token passes them.
#       shapes: Read a shape such as `x_TD` and predict the shape of a result.
#       jax: Replace a Python loop by `jax.vmap` and know what stays the same.
#       count: Say where the 20.9 billion parameters sit and how few of them a token touches.
# ---

# %% [markdown]
# This course takes OpenAI's open-weight models gpt-oss-20b and gpt-oss-120b apart until every number in them can be
# followed. This first lesson checks that your machine is ready, draws the map, and introduces the little of JAX that
# the others use.
#
# Run the cells from top to bottom with Shift+Enter. The one above is the first of every lesson: it says which
# model will be used, and if something is wrong with your set-up it says what to do.

# %%
import jax
import jax.numpy as jnp
import numpy as np

from gptoss_jax import roofline
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B, TINY

# %% [markdown]
# ## The way of a token
#
# A language model reads **tokens** (integers that stand for pieces of text) and returns, for every position, one
# **logit** for each token of its vocabulary: the larger the logit, the more likely that token comes next.
#
# In between lies the **residual stream**: one vector for each position, to which every part of the model adds
# something. gpt-oss has 24 or 36 layers, and each layer adds twice:
#
# 1. **attention** lets a position read from earlier positions;
# 2. a **mixture of experts** works on each position alone. A small **router** scores all experts, the four best are
#    run, and their results are added, weighted by the router.
#
# So most of the model sleeps while a token passes. Everything that this course shows about experts begins here.

# %% [markdown] predict="heads"
# A vector of the residual stream has 2880 numbers and the model has 64 attention heads. How many numbers does one
# head work with?
#
# ANSWER: 64, although 2880 / 64 = 45. In gpt-oss the size of a head is chosen freely: the queries of a position are
# 64 x 64 = 4096 numbers, more than the 2880 that they are computed from. Code that derives the size of a head from
# 2880 / 64 is a classic mistake in ports of this model.

# %%
config = GPT_OSS_20B
print(config.num_layers, "layers,", config.num_experts, "experts,", config.experts_per_token, "chosen")
print(config.num_attention_heads, "heads of size", config.head_dim)
assert config.num_attention_heads * config.head_dim == 4096

# %% [markdown]
# Every even layer looks back at only 128 positions (a **sliding window**), every odd one at all of them.

# %%
print([kind.split("_")[0] for kind in config.layer_types[:4]], "...")
assert config.layer_types.count("sliding_attention") == 12

# %% [markdown]
# ## The letters in the shapes
#
# Arrays carry their shape in their name: `x_TD` has one row for each **T**oken position and one column for each of
# the **D** hidden numbers. The same letters stand in every docstring and every einsum of the package, and the
# notation page lists all fourteen. The ones you need today: T position, D hidden size, E expert, X chosen expert,
# V vocabulary, L layer.

# %%
T, D, V = 5, 8, 11
x_TD = jnp.ones((T, D))
unembedding_VD = jnp.ones((V, D))
logits_TV = jnp.einsum("td,vd->tv", x_TD, unembedding_VD)
course.show_shapes(x_TD=x_TD, unembedding_VD=unembedding_VD, logits_TV=logits_TV)

# %% [markdown]
# `einsum` multiplies entries whose letters agree and sums over the letters that the result does not have: here D. The
# names say before running it that the result must be `[T, V]`.

# %%
assert logits_TV.shape == (T, V)
assert logits_TV[0, 0] == D  # eight ones, added up

# %% [markdown] exercise="predict_shapes" stars=1 minutes=4 goal="shapes"
# ### Predict the shapes
#
# The router multiplies `x_TD` by a matrix `router_ED`, which gives `scores_TE`; then the best X experts of each
# position are kept in `chosen_TX`. Take 7 positions, hidden size 2880, 32 experts, 4 chosen. Fill in the three shapes
# as tuples, without running any array code: `router_ED`, `scores_TE`, `chosen_TX`, in this order.

# %% solution="predict_shapes"
### BEGIN SOLUTION
shapes = [(32, 2880), (7, 32), (7, 4)]
### END SOLUTION

# %% check="predict_shapes"
lesson.check.predict_shapes(shapes)

# %% [markdown]
# ## JAX in ten minutes
#
# JAX is NumPy with three additions, and this is all of it that the course needs.
#
# **Arrays never change.** `x[0] = 1` is an error; `x.at[0].set(1)` gives a changed copy.

# %%
x = jnp.arange(4.0)
y = x.at[0].set(10.0)
print(x, y)
assert x[0] == 0

# %% [markdown]
# **`jax.jit` compiles** a function for the shapes it is called with. The first call takes longer; after that it is
# fast. The function must compute only from its arguments, with no side effects: a `print` inside runs while JAX is
# compiling, and never again.


# %%
@jax.jit
def energy(x_D):
    print("compiling for", x_D.shape)
    return jnp.sum(x_D * x_D)


print(energy(jnp.ones(3)), energy(2 * jnp.ones(3)), energy(jnp.ones(5)))

# %% [markdown] predict="compiled"
# `energy` was called three times. Why does "compiling" appear twice?
#
# ANSWER: Once for each new shape: `[3]` and `[5]`. The second call has the shape of the first and reuses its compiled
# program. A loop over growing sequences would compile at every step, which is why the package pads lengths.

# %% [markdown]
# **`jax.vmap` removes a loop.** Write the function for one row; `vmap` gives the function for all rows. First the
# loop, with numbers you can check in your head:


# %%
def length(x_D):
    return jnp.sqrt(jnp.sum(x_D * x_D))


rows_TD = jnp.array([[3.0, 4.0], [6.0, 8.0], [0.0, 1.0]])
looped_T = jnp.array([length(row) for row in rows_TD])
print(looped_T)

# %% [markdown]
# Then without it. The result is the same, and NumPy agrees:

# %%
mapped_T = jax.vmap(length)(rows_TD)
direct_T = np.linalg.norm(np.asarray(rows_TD), axis=1)
assert np.allclose(looped_T, mapped_T) and np.allclose(mapped_T, direct_T)
print(mapped_T)

# %% [markdown]
# **Random numbers come from a key** that you pass along. The same key gives the same numbers on every machine; new
# numbers need a new key.

# %%
key_a, key_b = jax.random.split(jax.random.key(0))
first, again, other = (jax.random.uniform(k, (3,)) for k in (key_a, key_a, key_b))
assert (first == again).all() and (first != other).all()
print(course.sig3(first), course.sig3(other))

# %% [markdown] exercise="rowwise" stars=1 minutes=6 goal="jax"
# ### From a loop to vmap
#
# `share(x_D)` divides the numbers of one row by their sum. Write `shares(x_TD)`, which does it for every row of a
# matrix, with `jax.vmap` and without a loop.


# %% solution="rowwise"
def share(x_D):
    return x_D / jnp.sum(x_D)


def shares(x_TD):
    ### BEGIN SOLUTION
    return jax.vmap(share)(x_TD)
    ### END SOLUTION


# %% check="rowwise"
lesson.check.rowwise(shares)

# %% [markdown]
# ## Where the parameters are
#
# `roofline.parameters` counts them from the configuration alone. The published totals are 20.9 and 116.8 billion.

# %%
count = roofline.parameters(GPT_OSS_20B)
parts = ("embedding", "attention", "router", "experts", "unembedding")
course.table([(part, getattr(count, part) / 1e9) for part in parts], header=("part", "billions"))

# %%
large = roofline.parameters(GPT_OSS_120B)
print(course.sig3(count.total / 1e9), course.sig3(large.total / 1e9))
assert round(count.total / 1e9, 1) == 20.9
assert round(large.total / 1e9, 1) == 116.8

# %% [markdown]
# The same number by hand, for one part: each layer has 32 experts, each expert a matrix up (2 x 2880 rows of 2880),
# a matrix down (2880 x 2880) and their biases.

# %%
by_hand = 0
for _layer in range(24):
    for _expert in range(32):
        by_hand += 2 * 2880 * 2880 + 2 * 2880  # up: gate and value
        by_hand += 2880 * 2880 + 2880  # down
assert by_hand == count.experts

# %% [markdown] predict="active"
# 91 % of gpt-oss-20b are experts and 4 of 32 are used for a token. What share of all parameters does a token touch?
# Guess before you run the next cell.
#
# ANSWER: About 17 %: an eighth of the experts (11 % of the model), plus attention and the unembedding, which every
# token passes in full. For the 120b it is 4.4 %, because four experts out of 128 are used.

# %%
for name, config in [("20b", GPT_OSS_20B), ("120b", GPT_OSS_120B)]:
    active, total = roofline.active_parameters(config), roofline.parameters(config).total
    print(f"{name}: {course.sig3(active / 1e9)} of {course.sig3(total / 1e9)} billion, {active / total:.1%}")

# %% [markdown]
# ## The map
#
# The figure below is drawn from three configurations: the tiny one that tests use, and the two published ones. Follow
# an arrow from the bottom to the top: that is one token on its way, and each box is one module of the package and one
# lesson of this course.

# %%
from gptoss_jax.course.architecture import draw_map

models = {"tiny": TINY, "20b": GPT_OSS_20B, "120b": GPT_OSS_120B}
fig, alt = draw_map(models)
course.show(fig, alt=alt, summary="In all three the experts hold most parameters, and a token runs 4 of them a layer.")

# %% [markdown]
# ## How to read the figures
#
# Most figures of this course are grids: layers downwards, experts across, and color for a *magnitude* such as the
# share of tokens that an expert served (its **load**). An expert is found by its position, never by its color: no
# palette has 32 colors that everyone can tell apart. Under each figure stands a sentence with the number it shows.
#
# As an example, suppose that a router without any preference picks 4 of 32 experts for each of 200 tokens.

# %%
T, L, E, X = 200, 6, 32, 4
scores_LTE = jax.random.uniform(key_a, (L, T, E))
chosen_LTX = np.asarray(jax.lax.top_k(scores_LTE, X)[1])
load_LE = np.stack([np.bincount(layer.ravel(), minlength=E) for layer in chosen_LTX]) / (T * X)
assert np.allclose(load_LE.sum(axis=1), 1)

# %%
fig, ax = course.figure(7, 2.4)
image = ax.imshow(load_LE * E, vmin=0, aspect="auto")
ax.set(xlabel="expert", ylabel="layer")
fig.colorbar(image, label="load, 1 = fair share")
alt = "Heat map, 6 layers down, 32 experts across; color is the load. It is noise: no row or column stands out."
course.show(
    fig, alt=alt, summary=f"Chance alone: loads from {load_LE.min() * E:.2f} to {load_LE.max() * E:.2f} of a fair share"
)

# %% [markdown] predict="noise"
# The router above has no preference at all, yet some experts look busier than others. What should you do before you
# believe a pattern in such a figure?
#
# ANSWER: Compare it with what chance gives for the same number of tokens. With 200 tokens the loads scatter by about
# a fifth around the fair share. Lessons 12 and 13 put such a baseline beside every claim.

# %% [markdown] exercise="count_experts" stars=2 minutes=8 goal="count"
# ### Count an expert layer
#
# Write `expert_parameters(hidden, width, experts)`: how many parameters the experts of *one layer* have, biases
# included. `hidden` is D, `width` is F: the matrix up maps D to 2F, the matrix down maps F to D.


# %% solution="count_experts"
def expert_parameters(hidden, width, experts):
    ### BEGIN SOLUTION
    up = 2 * width * hidden + 2 * width
    down = hidden * width + hidden
    return experts * (up + down)
    ### END SOLUTION


# %% check="count_experts"
lesson.check.count_experts(expert_parameters)

# %% [markdown]
# ## What next
#
# - **01 and 02** turn text into tokens and conversations into the Harmony format.
# - **03 to 08** build one layer: embedding and norm, positions, attention, router, experts, 4-bit weights.
# - **09 to 11** put the model together, load it and let it write.
# - **12 to 15** look at the experts at work, and at what removing one does.
# - **16 and 17** train a small mixture of experts and make it fast.
