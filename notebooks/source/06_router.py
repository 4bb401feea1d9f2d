# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: The router
#     minutes: 45
#     seconds: 12
#     needs: Lessons 00 and 03.
#     modules: [router, routing]
#     goals:
#       route: Compute by hand which experts serve a token, and with what weight.
#       order: Say what changes, and what does not, when softmax and top-k trade places.
#       bias: Show what becomes of the choices when the router's bias gets lost.
#       margin: Tell a clear choice from a narrow one, and find the nearest point at which a choice changes.
# ---

# %% [markdown]
# A layer of gpt-oss-20b holds 32 experts and runs four of them for a token. Something small must decide which four,
# before any of them has run. That something is the router: one matrix, one bias, one top-k and one softmax. It has
# fewer than a thousandth of the layer's parameters, and all of the routing that later lessons draw comes from it.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import gptoss_jax as gj
from gptoss_jax.norms import linear
from gptoss_jax.router import choose
from gptoss_jax.routing import figures, metrics

# %% [markdown]
# ## Scores, a choice, weights
#
# The **router** gives every expert a score: the product of the token's vector with the expert's row of a matrix, plus
# the expert's own bias. Here is a model small enough for the page. Vectors have two numbers, there are four experts,
# and two are chosen.

# %%
x_D = jnp.array([2.0, 1.0])
router_ED = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [0.5, 0.5]])
bias_E = jnp.array([-1.0, 0.5, 0.0, 0.5])

# %% [markdown] predict="by_hand"
# Work out the four scores. Which two experts are chosen, and which of the two gets more weight?
#
# ANSWER: The scores are 2 - 1 = 1, 1 + 0.5 = 1.5, -2 + 1 = -1 and 1.5 + 0.5 = 2. The two highest belong to experts 3
# and 1. Expert 3 has the higher score and so the higher weight.

# %% [markdown]
# First with plain loops: add up the scores, take the best two one after the other, then turn their scores into
# *weights*, exponentials that are divided by their sum.

# %%
scores = [sum(w * x for w, x in zip(row, x_D, strict=True)) + b for row, b in zip(router_ED, bias_E, strict=True)]
ranked = sorted(range(4), key=lambda e: -scores[e])
slow_experts = ranked[:2]
powers = [np.exp(scores[e]) for e in slow_experts]
slow_weights = [power / sum(powers) for power in powers]
print("scores", course.sig3(scores), "experts", slow_experts, "weights", course.sig3(slow_weights))

# %% [markdown]
# Then for arrays. `jax.lax.top_k` returns the highest entries together with their places.

# %%
logits_E = jnp.einsum("ed,d->e", router_ED, x_D) + bias_E
chosen_X, experts_X = jax.lax.top_k(logits_E, 2)
weights_X = jax.nn.softmax(chosen_X)

# %% [markdown]
# And the package: `choose` takes the logits of any number of tokens and returns a `Routing` with the logits, the
# experts and the weights. Three ways, one answer.

# %%
routing = choose(linear(x_D, router_ED, bias_E), 2)
assert slow_experts == experts_X.tolist() == routing.experts.tolist()
assert np.allclose(slow_weights, weights_X) and np.allclose(weights_X, routing.weights)
assert np.isclose(routing.weights.sum(), 1)

# %% [markdown]
# The whole result is called the token's **routing**. Note what is *not* there: no noise, no limit on how many tokens an
# expert may take, no expert that always runs. Other mixtures of experts have these. gpt-oss does without.

# %% [markdown] exercise="route" stars=2 minutes=10 goal="route"
# ### Write the router
#
# Write `route(x_TD, router_ED, bias_E, count)` for many tokens at once. Return two arrays: the ids of the chosen
# experts, `[T, count]`, highest score first, and their weights, `[T, count]`.


# %% solution="route"
def route(x_TD, router_ED, bias_E, count):
    ### BEGIN SOLUTION
    logits_TE = jnp.einsum("td,ed->te", x_TD, router_ED) + bias_E
    chosen_TX, experts_TX = jax.lax.top_k(logits_TE, count)
    return experts_TX, jax.nn.softmax(chosen_TX, axis=-1)
    ### END SOLUTION


# %% check="route"
lesson.check.route(route)

# %% [markdown]
# ## The map of choices
#
# With two numbers in a vector, all possible tokens lie in a plane, and we can ask the router about every point of it.
# Besides the choice we compute its **margin**: the lowest chosen score minus the highest one that was left out. For our
# token that is 1.5 - 1 = 0.5.

# %%
axis = np.linspace(-3, 3, 241)
plane = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1))
logits = linear(plane, router_ED, bias_E)
falling = -jnp.sort(-logits, axis=-1)
margin = falling[..., 1] - falling[..., 2]
sets = jnp.sort(choose(logits, 2).experts, axis=-1)

# %% [markdown] predict="borders"
# Some points choose experts {1, 3}, others {0, 3}. What shape can the border between two such regions have, and what is
# the margin there?
#
# ANSWER: A border lies where two scores are equal. Both are linear in the vector, so it is a straight line, and the
# margin on it is zero. In a model with 2880 dimensions it is a flat wall in the same way.

# %%
fig, ax = course.figure(6, 4)
image = ax.imshow(margin, origin="lower", extent=(-3, 3, -3, 3))
code = sets[..., 0] * 4 + sets[..., 1]
for value in np.unique(code):
    inside = np.asarray(code == value)
    ax.contour(axis, axis, inside, levels=[0.5], colors="white", linewidths=1)
    place = np.asarray(plane)[inside].mean(0)
    name = f"{{{value // 4},{value % 4}}}"
    ax.text(*place, name, ha="center", va="center", bbox={"fc": "white", "ec": "none", "alpha": 0.8})
ax.plot(*x_D, "o", ms=9, mfc="white", mec="black")
ax.set(xlabel="first number of the vector", ylabel="second number")
fig.colorbar(image, label="margin")
alt = "The plane of vectors, color is the margin, cut by straight lines into regions labeled with the chosen pair of experts; the margin falls to zero on the lines. A dot marks the token, inside region 1, 3."
found = len(np.unique(code))
course.show(fig, alt=alt, summary=f"{found} of 6 possible pairs occur; straight walls of margin zero part them.")

# %% [markdown]
# A token near a wall is one that a small change sends to another expert. Keep this picture in mind: every claim about
# numerics, quantization and stability of routing in lesson 15 is a claim about how many tokens live near walls.

# %% [markdown]
# ## Ties
#
# Exactly on a wall two scores are equal, and somebody must win. `jax.lax.top_k` gives the place to the lower number,
# and so do this package and its traces.

# %%
tie = choose(jnp.array([1.0, 2.0, 2.0, 2.0]), 2)
print("experts", tie.experts, "weights", tie.weights)
assert tie.experts.tolist() == [1, 2]

# %% [markdown] predict="how_many_ties"
# Real scores are never exactly equal, or are they? OpenAI's implementation computes them in bfloat16, which keeps 8
# bits of a number. Out of 4000 tokens with random scores for 32 experts, how many have a tie between the fourth and the
# fifth?
#
# ANSWER: About one in fifty. Between 1 and 2, bfloat16 has only 128 different numbers, and the fourth and the fifth
# score of 32 often lie closer together than one of its steps. So ties are no theory, and a comparison of two programs
# must treat them as what they are: both answers are right.

# %%
rng = np.random.default_rng(6)
exact_TE = rng.normal(size=(4000, 32)).astype(np.float32)
rounded_TE = jnp.asarray(exact_TE).astype(jnp.bfloat16).astype(jnp.float32)


def margins_of(logits_TE, count=4):
    falling_TE = -jnp.sort(-logits_TE, axis=-1)
    return falling_TE[:, count - 1] - falling_TE[:, count]


ties = {"float32": int((margins_of(exact_TE) == 0).sum()), "bfloat16": int((margins_of(rounded_TE) == 0).sum())}
print(ties)
assert ties["float32"] == 0 and 40 < ties["bfloat16"] < 160

# %% [markdown]
# ## Softmax first, or top-k first
#
# Many descriptions of mixtures of experts do it the other way around: softmax over *all* scores, then keep the highest.
# Published analyses of gpt-oss have done so too, and drew wrong weights. What exactly goes wrong?

# %% [markdown] predict="which_differs"
# Does the other order choose other experts, give other weights, or both?
#
# ANSWER: Other weights only. Exponentials keep the order and the division is the same for all, so the highest
# probabilities belong to the highest scores. But the kept weights no longer sum to 1: what the rejected experts
# received is lost.

# %%
everyone = [np.exp(score) for score in scores]
slow_first = [everyone[e] / sum(everyone) for e in slow_experts]
kept_X, first_X = jax.lax.top_k(jax.nn.softmax(logits_E), 2)
assert first_X.tolist() == slow_experts and np.allclose(kept_X, slow_first)
print("softmax first:", course.sig3(kept_X), "sum", course.sig3(kept_X.sum()))
print("top-k first:  ", course.sig3(routing.weights), "sum", course.sig3(routing.weights.sum()))

# %% [markdown]
# The two lists are proportional: both are exponentials of the same scores, once divided by the sum over the chosen,
# once by the sum over all. The factor between them is the probability that the chosen experts hold together.

# %%
ratio_X = kept_X / routing.weights
assert np.allclose(ratio_X, kept_X.sum())

# %% [markdown]
# How large is that factor? It depends on how many experts compete. We take random scores for up to 128 experts, four
# of them chosen, and average over 2000 tokens.

# %%
counts = [4, 8, 16, 32, 64, 128]
scores_TE = rng.normal(size=(2000, 128)).astype(np.float32)
kept = [jax.lax.top_k(jax.nn.softmax(scores_TE[:, :E]), 4)[0].sum(-1).mean() for E in counts]
assert np.isclose(kept[0], 1) and (np.diff(kept) < 0).all()

# %%
fig, ax = course.figure(6, 2.6)
ax.plot(counts, kept, marker="o")
ax.set(xscale="log", xticks=counts, xticklabels=counts, ylim=(0, 1.05), xlabel="experts", ylabel="kept share")
ax.minorticks_off()
alt = "Falling line: number of experts on a logarithmic axis against the mean share of the softmax that the best four keep; from 1 with four experts to below 0.2 with 128."
course.show(
    fig,
    alt=alt,
    summary=f"Softmax first would keep {kept[3]:.2f} of the weight with 32 experts, {kept[5]:.2f} with 128.",
)

# %% [markdown]
# So a port with the wrong order adds less than half of what the experts of each layer should add. It does not crash, and its text
# may still look fine. Only numbers tell.

# %% [markdown] exercise="repair" stars=2 minutes=10 goal="order"
# ### Repair the weights
#
# A tool recorded `probabilities_TE`, the softmax over *all* experts, and threw the scores away. Write
# `repair(probabilities_TE, count)`: the experts and the weights that gpt-oss used, both `[T, count]`, highest first.


# %% solution="repair"
def repair(probabilities_TE, count):
    ### BEGIN SOLUTION
    kept_TX, experts_TX = jax.lax.top_k(jnp.asarray(probabilities_TE), count)
    return experts_TX, kept_TX / kept_TX.sum(axis=-1, keepdims=True)
    ### END SOLUTION


# %% check="repair"
lesson.check.repair(repair)

# %% [markdown]
# ## Losing the bias
#
# The second classic mistake: the router of gpt-oss has a bias, most other routers have none, and some tools rebuild it
# as a plain matrix. On our page-sized model the loss of the bias changes the choice itself:

# %%
without = choose(linear(x_D, router_ED), 2)
print("with bias:", routing.experts, "without:", without.experts)
assert set(without.experts.tolist()) != set(routing.experts.tolist())

# %% [markdown]
# How bad it is depends on the size of the bias beside the spread of the scores. We draw one random bias for 32 experts,
# scale it up from zero, and count the tokens that keep their four experts.


# %%
def same_set(logits_TE, others_TE, count=4):
    chosen, others = (jnp.sort(choose(z, count).experts, axis=-1) for z in (logits_TE, others_TE))
    return (chosen == others).all(axis=-1)


direction_E = rng.normal(size=32).astype(np.float32)
sizes = np.linspace(0, 1, 11, dtype=np.float32)
agreement = [float(same_set(exact_TE + size * direction_E, exact_TE).mean()) for size in sizes]
assert agreement[0] == 1 and agreement[5] < 0.5

# %%
fig, ax = course.figure(6, 2.6)
ax.plot(sizes, agreement, marker="o")
ax.set(xlabel="size of the bias / spread of the scores", ylabel="same four experts", ylim=(0, 1.05))
alt = "Falling curve: size of the bias relative to the spread of the scores against the share of tokens that keep their set of four experts when the bias is dropped."
course.show(
    fig,
    alt=alt,
    summary=f"A bias half as large as the scores, dropped: {agreement[5]:.0%} of the tokens keep their set.",
)

# %% [markdown]
# The small checkpoint that comes with the lessons has OpenAI's own router scores stored beside it. There the check is
# exact: recompute them with the bias, and they agree; leave it out, and they do not.

# %%
folder = course.data("golden")
reference_TE = np.load(folder / "router_logits_f32.npy")[0]
golden, _ = gj.load(folder, dtype="float32")
ours_TE = gj.trace(golden, np.load(folder / "tokens.npy")).router_logits[:, 0]
bias_of_layer = golden.blocks.mlp.router.bias[0]
assert np.allclose(ours_TE, reference_TE, atol=1e-4)
print(f"{same_set(ours_TE - bias_of_layer, reference_TE).mean():.0%} of the sets survive without the bias")

# %% [markdown] exercise="force_bias" stars=2 minutes=10 goal="bias"
# ### How much bias does it take?
#
# A bias can also be used on purpose: training methods raise it for experts that are chosen too rarely. Write
# `force_bias(logits_TE, e, count)`: the smallest number, not below zero, which added to the scores of expert `e` puts it
# among the `count` chosen for *every* token. A tie with the last place counts as chosen.


# %% solution="force_bias"
def force_bias(logits_TE, e, count):
    ### BEGIN SOLUTION
    others = np.delete(np.asarray(logits_TE), e, axis=1)
    last_place_T = -np.sort(-others, axis=1)[:, count - 1]
    return max(0.0, float((last_place_T - logits_TE[:, e]).max()))
    ### END SOLUTION


# %% check="force_bias"
lesson.check.force_bias(force_bias)

# %% [markdown]
# ## A real text
#
# Now the lesson's model, the built-in one or your own checkpoint. `gj.trace` runs it over a text and records the
# routing of every token in every layer.

# %%
model, tokenizer = lesson.model(first_layers=4)
text = "The fox ran over the bridge. def add(a, b): return a + b"
trace = gj.trace(model, tokenizer.encode_ordinary(text), tokenizer=tokenizer)
T, L, X = trace.experts.shape
assert trace.router_logits.shape == (T, L, trace.num_experts)
print([piece for piece in trace.token_text[:8]], "...")

# %% [markdown]
# The grid of one layer has a row for each token and a column for each expert; a colored cell is a choice, its color the
# weight. Every row has four cells, and their weights sum to 1.

# %%
layer = 1
grid_TE = metrics.layer_weights(trace, layer)
drawing = figures.token_expert_map(grid_TE, layer)
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)
assert ((grid_TE > 0).sum(axis=1) == X).all() and np.allclose(grid_TE.sum(axis=1), 1)

# %% [markdown] predict="grid"
# Read the grid: are there columns that nearly every token uses, and columns that stay empty? What may you conclude from
# an empty column?
#
# ANSWER: From a text this short, nothing. With four of 32 experts a token, an expert that serves its fair share is
# missed by all of twenty tokens about seven times in a hundred. Lesson 12 counts over thousands of tokens and puts
# chance beside every number.

# %% [markdown]
# ## How sure is the router?
#
# A token may give one expert nearly everything, or share evenly among four. **Entropy** puts a number on it: minus the
# sum of each weight times its logarithm. It is 0 when one expert has all the weight, and ln 4 = 1.39 when four have the
# same; divided by ln 4 it runs from 0 to 1.

# %%
slow = [-sum(w * np.log(w) for w in weights) / np.log(X) for weights in trace.weights[:, layer]]
fast_T = -(trace.weights[:, layer] * np.log(trace.weights[:, layer])).sum(axis=-1) / np.log(X)
packaged_TL = metrics.gate_entropy(trace).value
assert np.allclose(slow, fast_T) and np.allclose(fast_T, packaged_TL[:, layer], atol=1e-6)

# %% [markdown]
# The entropy of the four weights says nothing about the experts that were left out. Two other numbers do: the entropy
# of the softmax over *all* experts, and the margin. They can disagree. A router may split its weight evenly among four
# experts and still be certain that no fifth belongs there.

# %%
entropy_TL = metrics.router_entropy(trace).value
margin_TL = metrics.margins(trace).of_set
assert (entropy_TL >= 0).all() and (entropy_TL <= 1).all() and (margin_TL >= 0).all()
drawing = figures.layer_spread(margin_TL, "margin, logits", log=True)
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)

# %% [markdown]
# What is a margin good for? It is a guarantee. If every score moves by less than half the margin, the lowest chosen
# one sinks by less than half, the best of the others rises by less than half, and they cannot meet. We try it on every
# token and layer, with random changes just below the bound.

# %%
noise = rng.uniform(-1, 1, trace.router_logits.shape) * 0.49 * margin_TL[..., None]
moved = trace.router_logits.astype(np.float64) + noise
assert (np.sort(np.argsort(-moved, axis=-1, kind="stable")[..., :X], axis=-1) == np.sort(trace.experts, axis=-1)).all()
print(f"{T * L} choices, none changed")

# %% [markdown]
# ## The nearest wall
#
# The margin is a distance between scores. How far must the *vector* move before the choice changes? Take a chosen expert
# a and a rejected expert b. Their scores are equal on a wall, and the shortest way to it is along the difference of
# their two rows. With the difference $d = r_a - r_b$ and the gap $g = z_a - z_b > 0$, the step is
#
# $$x' = x - \frac{g}{\lVert d \rVert^2}\, d, \qquad \text{of length } \frac{g}{\lVert d \rVert}.$$
#
# For our token, a = 1 and b = 0, the gap is 0.5 and the difference of the rows is (-1, 1).

# %%
difference_D = router_ED[1] - router_ED[0]
gap = logits_E[1] - logits_E[0]
there_D = x_D - gap / (difference_D @ difference_D) * difference_D
scores_there = linear(there_D, router_ED, bias_E)
print("moved to", course.sig3(there_D), "scores", course.sig3(scores_there))
assert np.isclose(scores_there[0], scores_there[1])

# %% [markdown] predict="which_wall"
# There are as many walls as pairs of a chosen and a rejected expert. Is the nearest wall always that of the last chosen
# and the first rejected expert?
#
# ANSWER: No. The length of the step is the gap divided by the length of the difference of the rows. A wider gap between
# two experts with very different rows can be closed by a shorter step than a narrow gap between two that are nearly
# parallel.

# %% [markdown] exercise="nearest_tie" stars=3 minutes=20 goal="margin"
# ### Onto the nearest wall
#
# Write `nearest_tie(x_D, router_ED, bias_E, count)`: the point nearest to `x_D` at which the choice of `count` experts
# is about to change, so that its margin is zero. Mind the question above.


# %% solution="nearest_tie"
def nearest_tie(x_D, router_ED, bias_E, count):
    ### BEGIN SOLUTION
    x_D, router_ED = np.asarray(x_D), np.asarray(router_ED)
    logits_E = router_ED @ x_D + np.asarray(bias_E)
    order = np.argsort(-logits_E)
    steps = []
    for a in order[:count]:
        for b in order[count:]:
            difference_D = router_ED[a] - router_ED[b]
            steps.append((logits_E[a] - logits_E[b]) / (difference_D @ difference_D) * difference_D)
    return x_D - min(steps, key=np.linalg.norm)
    ### END SOLUTION


# %% check="nearest_tie"
lesson.check.nearest_tie(nearest_tie)

# %% [markdown]
# ## What you have now
#
# A router in three lines, the two mistakes that ports make with it, and three numbers that say how a choice was made:
# weight, entropy and margin. The next lesson runs the experts that were chosen.
