# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: "Causal tests: ablation and attribution"
#     minutes: 60
#     seconds: 20
#     needs: Lessons 06, 09 and 12.
#     modules: [interventions, causes]
#     goals:
#       ablate: Take an expert away in three ways and say which question each of them asks.
#       effect: Measure what an expert does to the answer, and show that this is not how busy it is.
#       attribute: Split a logit into the parts that experts and attention added directly.
#       doubt: Name what an ablation and an attribution leave out, and which of the two to trust for what.
# ---

# %% [markdown]
# The lessons before this one watched the experts: who is busy, for which tokens, beside whom. Watching shows
# correlation. An expert that serves every third token may add next to nothing to the answer, and one that hardly ever
# speaks may decide it. To find out, change the model and see what happens.

# %%
import dataclasses

import jax.numpy as jnp
import numpy as np

import gptoss_jax as gj
from gptoss_jax import causes
from gptoss_jax.interventions import ablate, force, intervene, replace_router
from gptoss_jax.nano import samples
from gptoss_jax.router import choose
from gptoss_jax.routing import figures
from gptoss_jax.routing.planted import planted_trace

# %% [markdown]
# ## Three ways to take an expert away
#
# An **ablation** removes a part and runs the model again. For an expert there are three ways, and they ask different
# questions:
#
# - `renormalize` drops it and scales the other chosen experts up, so that the weights again sum to 1: *what if the
#   others had to share its work?*
# - `zero` drops it and leaves the rest alone: *what exactly did it add?*
# - `mask` bars it from the choice, so that the next expert moves up: *what if it had never been there?*
#
# One token, five experts, three chosen, and expert 1 has to go. First by hand:

# %%
logits_E = np.array([2.0, 1.5, 1.0, 0.0, -1.0])
powers = np.exp(logits_E[:3])
zero = powers * [1, 0, 1] / powers.sum()
renormalize = powers * [1, 0, 1] / powers[[0, 2]].sum()
moved_up = np.exp(logits_E[[0, 2, 3]])
mask = moved_up / moved_up.sum()
course.table([("zero", *zero), ("renormalize", *renormalize)], header=("way", "expert 0", "expert 1", "expert 2"))

# %% [markdown] predict="mask"
# Under `mask`, which three experts serve the token, and is expert 0's weight higher or lower than under `renormalize`?
#
# ANSWER: Experts 0, 2 and 3. Expert 3 takes its share of the sum, so the weight of expert 0 is lower: 0.665 instead of
# 0.731.

# %%
course.table([("mask", *mask)], header=("way", "expert 0", "expert 2", "expert 3"))
assert mask[0] < renormalize[0] and zero.sum() < 1

# %% [markdown]
# In the package a change of the routing is a *value*: `ablate` builds it, `intervene` applies it to one layer, and the
# model takes it as an argument. No hook is installed that someone could forget to remove. We borrow a configuration
# with five experts to compare.

# %%
five = dataclasses.replace(gj.config.TINY, num_experts=5, experts_per_token=3)
routing = choose(jnp.asarray(logits_E), 3)
changed = {how: intervene(routing, ablate(five, 0, 1, how).layer(0)) for how in ("renormalize", "zero", "mask")}
assert np.allclose(changed["zero"].weights, zero)
assert np.allclose(changed["renormalize"].weights, renormalize)
assert changed["mask"].experts.tolist() == [0, 2, 3] and np.allclose(changed["mask"].weights, mask)

# %% [markdown] exercise="without" stars=3 minutes=15 goal="ablate"
# ### Three ways
#
# Write `without(logits_TE, count, expert, how)` for many tokens: the weight of every expert for every token, `[T, E]`,
# zero where an expert does not serve. `how` is one of the three words above. Tokens that `expert` does not serve keep
# their weights. Take NumPy or JAX; `choose(logits_TE, count)` from lesson 06 is at hand.


# %% solution="without"
def without(logits_TE, count, expert, how):
    ### BEGIN SOLUTION
    gone_E = np.arange(logits_TE.shape[1]) == expert
    if how == "mask":
        logits_TE = np.where(gone_E, -np.inf, logits_TE)
    routing = choose(jnp.asarray(logits_TE), count)
    weights_TE = np.zeros(logits_TE.shape)
    np.put_along_axis(weights_TE, np.asarray(routing.experts), np.asarray(routing.weights), axis=1)
    weights_TE = weights_TE * ~gone_E
    return weights_TE / weights_TE.sum(1, keepdims=True) if how == "renormalize" else weights_TE
    ### END SOLUTION


# %% check="without"
lesson.check.without(without)

# %% [markdown]
# ## How much does the answer change?
#
# Three measures, from fine to coarse:
#
# - the **KL divergence** of the next token's distribution, `sum p (ln p - ln q)`, with p from the whole model and q from
#   the changed one: zero if nothing changed, in nats;
# - the change of one token's *logit*, usually the token that really comes next;
# - a *flip*: another token is now the most likely one.
#
# A vocabulary of three words, as a loop and at once:

# %%
before_V, after_V = np.array([2.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0])
p, q = (np.exp(z) / np.exp(z).sum() for z in (before_V, after_V))
slow = sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True))


def divergence(base, changed):
    log_p, log_q = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (base, changed))
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


print("p", course.sig3(p), "q", course.sig3(q), "divergence", course.sig3(slow))
assert np.isclose(slow, divergence(before_V, after_V)) and divergence(before_V, before_V) == 0

# %% [markdown]
# ## A toy whose truth is known
#
# Before we measure a real model, we test the method where we know the answer. `planted_trace` deals 600 tokens to four
# domains; each domain has a favorite expert, which brings a partner. To this routing we add outputs: every expert pushes
# one word of a vocabulary of its own. All push weakly, except for one expert that few tokens visit.

# %%
toy = planted_trace(num_tokens=600, num_layers=1, strength=0.8)
T, E = 600, toy.trace.num_experts
weights_TE = np.zeros((T, E))
np.put_along_axis(weights_TE, toy.trace.experts[:, 0], toy.trace.weights[:, 0], axis=1)
served_E = (weights_TE > 0).sum(0)
favored = {*toy.home[0].tolist(), *toy.partner[0, toy.home[0]].tolist()}
print("tokens served:", served_E.tolist(), "of", T)

# %%
quiet = int(np.argmin(served_E))
push_E = np.full(E, 0.3)
push_E[quiet] = 12.0
output_EV = np.diag(push_E)  # expert e pushes word e
base_TV = weights_TE @ output_EV
print("strong expert:", quiet, "busiest expert:", int(np.argmax(served_E)))
assert quiet not in favored and served_E.max() > 2 * served_E[quiet]

# %% [markdown] exercise="effects" stars=2 minutes=12 goal="effect"
# ### The most loaded is not the most important
#
# Write `effects(weights_TE, output_EV)` for such a layer, whose logits are `weights_TE @ output_EV`: for each expert,
# the divergence of the answer when the expert is removed by `zero`, averaged over *all* tokens, `[E]`. The function
# `divergence(base, changed)` above is yours to use.


# %% solution="effects"
def effects(weights_TE, output_EV):
    ### BEGIN SOLUTION
    base_TV = weights_TE @ output_EV
    parts = [weights_TE[:, e, None] * output_EV[e] for e in range(len(output_EV))]
    return np.array([divergence(base_TV, base_TV - part_TV).mean() for part_TV in parts])
    ### END SOLUTION


# %% check="effects"
lesson.check.effects(effects)

# %% [markdown]
# The package draws the comparison: one dot for each expert, load across, effect upwards. We compute the effect of the
# toy's experts in a line of NumPy, so that the figure does not wait for your answer.

# %%
left_ETV = base_TV - weights_TE.T[:, :, None] * output_EV[:, None]
effect_E = divergence(base_TV, left_ETV).mean(1)
drawing = figures.load_against_effect(served_E[None] / served_E.sum(), effect_E[None])
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)
assert effect_E.argmax() == quiet != served_E.argmax()
assert effect_E[quiet] > 10 * effect_E[served_E.argmax()]

# %% [markdown]
# The method finds what was planted: the least used expert matters most, and the load says nothing of it. A method that
# fails this test would have no business in a real model.

# %% [markdown]
# ## One expert of a real model
#
# Now the lesson's model, the built-in one or your own checkpoint, on held-out text of a novel.

# %%
model, tokenizer = lesson.model(first_layers=2)
config = model.config
pieces = samples.read()
tokens = np.array(tokenizer.encode_ordinary(pieces["english-novels"][0])[:128])
base = gj.trace(model, tokens)
print(tokenizer.decode(tokens[:40].tolist()))
assert base.logits.shape == (128, config.vocab_size)

# %% [markdown]
# We pick the expert of layer 0 that enters last, remove it, and compare position by position.

# %%
first_E = [np.flatnonzero((base.experts[:, 0] == e).any(-1)) for e in range(config.num_experts)]
late = max((e for e in range(config.num_experts) if len(first_E[e])), key=lambda e: first_E[e][0])
first = int(first_E[late][0])
ablated = gj.trace(model, tokens, change=ablate(config, 0, late, "zero"))
apart_T = divergence(base.logits.astype(float), ablated.logits.astype(float))

# %% [markdown] predict="first"
# The expert serves its first token at position `first`. At which positions can the answer differ: only where the expert
# serves, or elsewhere too?
#
# ANSWER: Nowhere before `first`, because no position sees a later one. From there on anywhere: later layers read the
# changed vector through attention, also at positions that the expert never served.

# %%
fig, ax = course.figure(7, 2.4)
ax.plot(apart_T)
ax.plot(first_E[late], np.zeros(len(first_E[late])), "|", color="black", ms=12)
ax.set(xlabel="position", ylabel="KL divergence, nats")
alt = "Line: divergence at each of 128 positions after one expert of layer 0 is removed; ticks mark the positions that it serves. It is flat at zero before the first tick."
touched = int((apart_T > 1e-6).sum())
course.show(fig, alt=alt, summary=f"Nothing changes before position {first}; {touched} positions change in all.")
assert np.allclose(base.logits[:first], ablated.logits[:first], atol=1e-4) and apart_T[first] > 0

# %% [markdown]
# Look at the shape of the curve before taking its mean. The expert serves a good number of positions, and at most of them
# nobody would miss it; a few high peaks carry nearly the whole effect. Such an effect is real, and yet a mean over
# positions says little about a typical one. Other texts will have their peaks elsewhere.
#
# ## All of them: a sweep
#
# One program can remove any expert, because the change is an array and not code. `causes.ablation_sweep` loops over all
# experts inside a single compiled computation, with the unchanged model as its first turn. An expert that serves no token
# of the text needs no run: its effect is exactly zero.

# %%
layers = tuple(range(config.num_layers)) if lesson.builtin else (0,)
swept = causes.ablation_sweep(model, tokens, layers, "zero")
course.show_shapes(divergence=swept.divergence, served=swept.served)
assert np.allclose(swept.divergence[0, late], apart_T, atol=1e-5)  # by hand = one turn of the sweep
assert not swept.divergence[~swept.reached].any()  # exactly zero where nothing can arrive

# %%
mean = swept.mean()
drawing = figures.ablation_map(mean["divergence"])
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)

# %% [markdown]
# The color scale is logarithmic: between the strongest experts and the weakest lie several powers of ten. A cross marks
# an expert that no token of this text visits. Zero here means "not needed for these 128 tokens", never "not needed".

# %% [markdown] predict="compare"
# In which layers would you expect load and effect to agree best: the first or the last?
#
# ANSWER: The last. There an expert can only speak to the positions that it serves, so who serves more says more. What an
# early expert adds is read, amplified or ignored by all layers above, and one rare token can matter to many.

# %% [markdown]
# Compare the order of the experts by load with the order by effect: a correlation of ranks of 1 means that the busier expert always matters more, 0 that load tells nothing. Beside it
# stand the busiest expert and the strongest one.


# %%
def rank_correlation(a, b):
    return np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1]


def compare(mean):
    for served, effect in zip(mean["served"], mean["divergence"], strict=True):
        busy, strong = int(served.argmax()), int(effect.argmax())
        yield busy, served[busy], effect[busy], strong, served[strong], effect[strong], rank_correlation(served, effect)


header = ("layer", "busiest", "served", "effect", "strongest", "served", "effect", "ranks")
rows = [(layer, *row) for layer, row in zip(layers, compare(mean), strict=True)]
course.table(rows, header=header)
assert all(row[6] >= row[3] for row in rows)  # the strongest is at least as strong as the busiest

# %%
drawing = figures.load_against_effect(mean["served"] / mean["served"].sum(1, keepdims=True), mean["divergence"])
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)
same = sum(row[1] == row[4] for row in rows)
print(f"the busiest expert is also the strongest in {same} of {len(rows)} layers")
if lesson.builtin:
    assert same < len(rows) and rows[-1][7] > rows[0][7]

# %% [markdown]
# So load is a hint and no more. Where the two agree, it is worth saying so: nothing forces them apart.
#
# ## Which text?
#
# An effect belongs to a model *and a text*. The same sweep on Python code:

# %%
code_tokens = np.array(tokenizer.encode_ordinary(pieces["python-code"][0])[:128])
on_code = causes.ablation_sweep(model, code_tokens, layers, "zero").mean()
pairs = zip(mean["divergence"], on_code["divergence"], strict=True)
rows = [(layer, a.argmax(), b.argmax(), rank_correlation(a, b)) for layer, (a, b) in zip(layers, pairs, strict=True)]
course.table(rows, header=("layer", "strongest, novel", "strongest, code", "rank correlation"))
if lesson.builtin:
    assert min(row[3] for row in rows) < 0.9

# %% [markdown]
# Whoever removes experts to make a model smaller, after measuring on one kind of text, may be removing another kind of
# text.
#
# How sure is such a number? The positions are a sample. Draw them again with replacement, many times, and look at the
# spread: a *bootstrap interval*, as in lesson 13, here for the strongest expert of the first layer. Neighboring
# positions are not independent, so we draw runs of eight.

# %%
strongest = int(mean["divergence"][0].argmax())
runs = swept.divergence[0, strongest].reshape(-1, 8).mean(1)
drawn = np.random.default_rng(0).choice(runs, (2000, len(runs))).mean(1)
low, high = np.quantile(drawn, [0.025, 0.975])
print(f"effect {course.sig3(runs.mean())}, 95 % interval {course.sig3(low)} to {course.sig3(high)}")
assert low < runs.mean() < high

# %% [markdown]
# ## Does it matter *which* expert?
#
# A harsher test: keep all experts and spoil the choice. `replace_router` hands a layer another router. We take the
# layer's own rows in shuffled order: the same scores, given to the wrong experts.


# %%
def loss(trace):
    log_p = trace.logits[:-1].astype(float)
    log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
    return -log_p[np.arange(len(log_p)), trace.tokens[1:]].mean()


router = model.blocks.mlp.router
order = np.random.default_rng(0).permutation(config.num_experts)
rows = []
for layer in range(config.num_layers):
    change = replace_router(config, router, layer, router.weight[layer][order], router.bias[layer][order])
    rows.append((layer, loss(base), loss(gj.trace(model, tokens, change=change))))
course.table(rows, header=("layer", "loss", "loss, wrong experts"))
if lesson.builtin:
    assert np.mean([row[2] - row[1] for row in rows]) > 0.05

# %% [markdown]
# If the experts were interchangeable, the loss would stay. It grows, so the routing carries information. The opposite
# experiment, `force`, makes every token choose an expert:

# %%
forced = gj.trace(model, tokens, change=force(config, 0, late))
assert (forced.experts[:, 0] == late).any(-1).all()
print(f"loss {course.sig3(loss(base))}, with one expert forced on every token {course.sig3(loss(forced))}")

# %% [markdown]
# ## Attribution: the logit as a sum
#
# Ablation needs a run for each expert. There is a cheaper question. The residual stream is a *sum*: the embedding, what
# every attention added, what every expert added. The final norm divides it by its size, and the unembedding takes a
# product with the row of one token. Hold that size at its actual value, *frozen*, and the logit is a sum too: one term
# for each part. This is **direct logit attribution**.

# %%
parts_PD = np.array([[1.0, 2.0], [0.5, -1.0], [1.5, 1.0]])  # three parts of a stream with two numbers
scale_D, row_D, eps = np.array([1.0, 2.0]), np.array([0.5, 1.0]), 1e-5
final_D = parts_PD.sum(0)
size = np.sqrt((final_D**2).mean() + eps)
logit = (final_D / size * scale_D) @ row_D
terms = [sum(x / size * s * w for x, s, w in zip(part, scale_D, row_D, strict=True)) for part in parts_PD]
print("terms", course.sig3(terms), "sum", course.sig3(sum(terms)), "logit", course.sig3(logit))
assert np.isclose(sum(terms), logit)

# %% [markdown] exercise="direct" stars=2 minutes=10 goal="attribute"
# ### Direct parts
#
# Write `direct(parts_PD, scale_D, row_D, eps)`: the term of each part, `[P]`, without loops. The final stream is the
# sum of all parts.


# %% solution="direct"
def direct(parts_PD, scale_D, row_D, eps):
    ### BEGIN SOLUTION
    final_D = parts_PD.sum(0)
    size = np.sqrt((final_D**2).mean() + eps)
    return (parts_PD / size) @ (scale_D * row_D)
    ### END SOLUTION


# %% check="direct"
lesson.check.direct(direct)

# %% [markdown]
# For a whole model `causes.contributions` computes the parts of every position. They add up to the logit of the token
# that comes next:

# %%
parts = causes.contributions(model, tokens)
course.show_shapes(experts=parts.experts, attention=parts.attention, embedding=parts.embedding)
total_T = parts.embedding + parts.attention.sum(-1) + parts.experts.sum((-2, -1))
assert np.allclose(total_T, parts.logit, atol=1e-2 * np.abs(parts.logit).max())
assert np.allclose(parts.logit[:-1], base.logits[np.arange(127), tokens[1:]], atol=1e-3)

# %%
best = int(np.argmax(parts.logit[:-1]))
target = repr(tokenizer.decode([int(parts.targets[best])]))
drawing = figures.attribution_map(parts.experts[best], parts.chosen[best], target)
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)

# %% [markdown]
# The same call returns each expert's *share*, the length of its weighted output over the length of the sum. Shares of a
# layer add up to more than 1, since outputs point in different directions and partly cancel.

# %%
print("mean share by rank of the choice:", course.sig3(parts.share.mean((0, 1))))
assert (parts.share.sum(-1) > 0.999).all()

# %% [markdown] predict="direct_total"
# Attribution says that an expert added 0.8 to a logit. You remove the expert by `zero`. Must the logit fall by 0.8?
#
# ANSWER: No. Later layers see another stream and answer differently, and the norm's size changes too. The term counts
# the direct path alone; the ablation counts all paths.

# %% [markdown]
# We can hold the two against each other, for every pair of a token and an expert that served it: the change which the
# direct path predicts, and the one that ablation measures.

# %%
rows = []
for r, layer in enumerate(layers):
    predicted_TE = np.zeros((128, config.num_experts))
    np.put_along_axis(predicted_TE, parts.chosen[:, layer], -parts.experts[:, layer], axis=1)
    served_ET = swept.served[r]
    fit = np.corrcoef(predicted_TE.T[served_ET], swept.logit_change[r][served_ET])[0, 1]
    rows.append((layer, served_ET.sum(), fit))
course.table(rows, header=("layer", "pairs", "correlation of direct and measured"))
if lesson.builtin:
    assert all(0.2 < row[2] < 0.99 for row in rows)

# %% [markdown]
# Related, and nowhere the same. The last layer is instructive: no layer comes after it, and still the two differ,
# because the norm rescales the whole stream when a part of it goes. Below it, other layers answer as well. So direct
# terms find candidates; the ablation decides.
#
# ## When is the answer there?
#
# The *logit lens* of lesson 09 reads the stream after every layer as if the model ended there. With it we can see how
# early the final token takes the lead, and whether an ablation delays it.

# %%
lens = causes.logit_lens(model, tokens)
drawing = figures.logit_lens_map(lens.probability[1:, :30], lens.rank[1:, :30])
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)
assert np.array_equal(lens.top[-1], base.logits.argmax(-1))  # the last row is the model's own answer

# %%
without_one = causes.logit_lens(model, tokens, lens.targets, change=ablate(config, 0, strongest, "zero"))
leads = np.stack([(lens.rank == 0).mean(1), (without_one.rank == 0).mean(1)], 1)
course.table([(i, *row) for i, row in enumerate(leads)], header=("layers read", "leads", "leads, one expert less"))
assert leads[-1, 0] == 1 and leads[-1, 1] <= 1

# %% [markdown]
# ## What to trust
#
# - **Ablation** answers the causal question, for one change, one model and one text. But a model without an expert is a
#   model that was never trained: part of the effect is the surprise of the layers above. `mask` and `renormalize`
#   surprise them less than `zero`; report which one you used.
# - Experts can stand in for each other. Two that do the same work look useless one by one, and removing both may be a
#   disaster. A sweep over single experts does not see it.
# - Attribution is exact as arithmetic and silent about indirect paths. Use it to find candidates for an ablation.
# - Always say how many tokens stand behind a number, and compare with the load before you call an expert important.
#
# The next lesson turns to a change that nobody intends: rounding the weights to four bits, and what it does to the
# choices.
