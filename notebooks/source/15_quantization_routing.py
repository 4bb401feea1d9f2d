# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: Quantization and numerics meet routing
#     minutes: 50
#     seconds: 20
#     needs: Lessons 06, 08 and 14.
#     modules: [routing, mxfp4, interventions, causes]
#     goals:
#       margin: Say which choices no small error can change, and predict from the margins how many others will.
#       rounding: Measure, layer by layer, which roundings change the experts that a model chooses.
#       depth: Tell the flips that a layer makes itself from those that it inherits.
#       harm: Say what a flip costs, and how much of a rounding's damage passes through flips.
# ---

# %% [markdown]
# Run the same text through the same model twice, once in float32 and once in bfloat16. The scores of the routers differ
# in the third digit. For most tokens that means nothing. For some it means another expert, and an expert is not a
# digit: part of a layer's work for that token is now done by somebody else. This lesson asks who is at risk, how
# many flip, and whether it matters.

# %%
import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc

import gptoss_jax as gj
from gptoss_jax import causes
from gptoss_jax.interventions import Intervention, replay
from gptoss_jax.mxfp4 import MXArray, quantize
from gptoss_jax.nano import samples
from gptoss_jax.router import choose
from gptoss_jax.routing import figures, metrics

# %% [markdown]
# ## How far may a score move?
#
# The margin of lesson 06 is the lowest chosen score minus the highest rejected one. Three tokens, five experts, two
# chosen:

# %%
logits_TE = np.array([[2.0, 1.5, 1.4, 0.2, -1.0], [1.0, 3.0, 0.5, 2.0, 0.1], [0.74, 0.84, 0.8, 0.79, 0.3]], np.float32)
slow = []
for scores in logits_TE:
    ranked = sorted(scores, reverse=True)
    slow.append(ranked[1] - ranked[2])
print("margins", course.sig3(slow))

# %% [markdown]
# Sorted all at once, and as the package computes it for every layer of a trace. A trace is a record of arrays, so we can
# write one by hand.

# %%
falling_TE = -np.sort(-logits_TE, axis=-1)
margin_T = falling_TE[:, 1] - falling_TE[:, 2]
routing = choose(jnp.asarray(logits_TE), 2)
toy = gj.Trace(
    tokens=np.arange(3),
    experts=np.asarray(routing.experts)[:, None],
    weights=np.asarray(routing.weights)[:, None],
    num_experts=5,
    router_logits=logits_TE[:, None],
)
assert np.allclose(slow, margin_T) and np.allclose(margin_T, metrics.margins(toy).of_set[:, 0])

# %% [markdown] predict="at_risk"
# A program computes every score with an error of at most 0.04. Which of the three tokens may get other experts?
#
# ANSWER: Only the third. The two scores must move towards each other by the whole margin, and both may move: together
# they cover 0.08. The first token's margin is 0.1 and the second's is 1, so these two are safe, whatever happens.

# %%
rng = np.random.default_rng(15)
noise = rng.uniform(-0.04, 0.04, (1000, 3, 5)).astype(np.float32)
moved = np.sort(choose(jnp.asarray(logits_TE + noise), 2).experts, axis=-1)
flipped_T = (moved != np.sort(routing.experts, axis=-1)).any(-1).mean(0)
print("tokens that flipped at least once in 1000 trials:", np.flatnonzero(flipped_T).tolist())
assert (flipped_T[:2] == 0).all() and flipped_T[2] > 0.1

# %% [markdown]
# When a token's *set* of experts differs between two runs, we call it a **routing flip**. The order within the set does
# not count: it changes no result.

# %% [markdown] exercise="certain" stars=1 minutes=8 goal="margin"
# ### Who is safe?
#
# Write `certain(logits_TE, count, error)`: bool `[T]`, true for the tokens whose set of `count` experts cannot change
# if every score moves by at most `error`, up or down. A token that could end in a tie is not safe.


# %% solution="certain"
def certain(logits_TE, count, error):
    ### BEGIN SOLUTION
    falling_TE = -np.sort(-np.asarray(logits_TE), axis=-1)
    return falling_TE[:, count - 1] - falling_TE[:, count] > 2 * error
    ### END SOLUTION


# %% check="certain"
lesson.check.certain(certain)

# %% [markdown]
# ## A chance instead of a guarantee
#
# Bounds are pessimistic. The error of a rounded sum is itself a sum of many small errors, so it looks like a normal
# distribution, with a standard deviation σ that is far below the worst case. Let every score move by its own normal
# error with σ = 0.05, many times, and count. First as a loop:

# %%
sigma, trials = 0.05, 2000
noise = sigma * rng.normal(size=(trials, 3, 5))
count_T = np.zeros(3)
for trial in noise:
    for t in range(3):
        ranked = sorted(range(5), key=lambda e: -(logits_TE[t, e] + trial[t, e]))
        count_T[t] += set(ranked[:2]) != set(routing.experts[t].tolist())
slow_T = count_T / trials

# %%
top_NTX = np.argsort(-(logits_TE + noise), axis=-1)[..., :2]
fast_T = (np.sort(top_NTX, axis=-1) != np.sort(routing.experts, axis=-1)).any(-1).mean(0)
told_T = 1 - (metrics.overlap(np.tile(routing.experts, (trials, 1, 1)), top_NTX, 5) == 1).mean(0)
assert (slow_T == fast_T).all() and np.allclose(fast_T, told_T)

# %% [markdown]
# Is there a formula? Take the nearest pair, the last chosen and the first rejected. Their *difference* has two errors,
# so its standard deviation is $\sqrt 2\, \sigma$, and they trade places if it falls below minus the margin $m$:
#
# $$P(\text{flip}) \ge \tfrac12 \operatorname{erfc}\frac{m}{2\sigma}.$$
#
# It is a lower bound: if these two trade places, the set is certainly another one. But other pairs may trade places too.

# %%
pair_T = np.asarray(erfc(margin_T / (2 * sigma)) / 2)
course.table(zip(margin_T, pair_T, slow_T, strict=True), header=("margin", "nearest pair", "counted"))
assert (pair_T <= slow_T + 0.02).all() and slow_T[2] > pair_T[2] + 0.05

# %% [markdown] predict="third"
# For two tokens the formula is right. Why do we count more flips than it says for the third?
#
# ANSWER: Its scores 0.84, 0.8, 0.79 and 0.74 lie close together. Expert 0 with 0.74 also gets in sometimes, and expert 1
# with 0.84 falls out. The margin knows the nearest pair alone.

# %% [markdown] exercise="flip_chance" stars=3 minutes=20 goal="margin"
# ### Predict flips from the margin
#
# Write `flip_chance(logits_TE, count, sigma)` and return two arrays `[T]` between which the chance of a flip lies: the
# lower bound above, and an upper one. For the upper bound, note that a set changes only if *some* chosen and *some*
# rejected expert trade places, and that the chance of "this or that" is at most the sum of the chances. No chance
# exceeds 1. `erfc` is imported.


# %% solution="flip_chance"
def flip_chance(logits_TE, count, sigma):
    ### BEGIN SOLUTION
    falling_TE = -np.sort(-np.asarray(logits_TE), axis=-1)
    gap_TXR = falling_TE[:, :count, None] - falling_TE[:, None, count:]
    chance_TXR = np.asarray(erfc(gap_TXR / (2 * sigma))) / 2
    return chance_TXR[:, -1, 0], np.minimum(chance_TXR.sum((1, 2)), 1)
    ### END SOLUTION


# %% check="flip_chance"
lesson.check.flip_chance(flip_chance)

# %% [markdown]
# When σ is far below the gaps between scores, the two bounds lie close together: only the nearest pair has a chance, and the
# margin tells all. When σ reaches the size of the gaps, the bounds part, and the whole list of scores matters. Keep this
# in mind for what follows: bfloat16 is of the first kind, four bits are of the second.
#
# ## Two runs of one text
#
# Now a model, the built-in one or your own checkpoint, and 128 tokens from each of several kinds of held-out text. All
# runs below share one compiled program (bfloat16 gets a second). It takes a number for each layer, token and expert, to be added to the score
# when choosing; zeros leave every choice to the router.

# %%
model, tokenizer = lesson.model(first_layers=4)
config = model.config
names = sorted(samples.read())[: 10 if lesson.builtin else 2]
pieces = samples.read()
documents = [np.array(tokenizer.encode_ordinary(pieces[name][0])[:128]) for name in names]
zeros = np.zeros((config.num_layers, 128, config.num_experts), np.float32)
free = [dataclasses.replace(Intervention.identity(config), selection_LE=zeros)] * len(documents)


# %%
def run(model, changes=free):
    return [gj.trace(model, tokens, change=change) for tokens, change in zip(documents, changes, strict=True)]


def divergence(base, changed):
    log_p, log_q = (z - z.max(-1, keepdims=True) for z in (base.astype(float), changed.astype(float)))
    log_p, log_q = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (log_p, log_q))
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


# %% [markdown]
# From every run we keep the routing of all texts, end to end, and for each position how far the answer is from that of
# the float32 run: the KL divergence of lesson 14.

# %%
base_runs = run(model)


def compare(model, changes=free):
    traces = run(model, changes)
    apart_T = np.concatenate([divergence(a.logits, b.logits) for a, b in zip(base_runs, traces, strict=True)])
    return metrics.join({"all": [dataclasses.replace(trace, logits=None) for trace in traces]})[0], apart_T


base, nothing_T = compare(model)
T, L, X = base.experts.shape
course.show_shapes(router_logits=base.router_logits, experts=base.experts, divergence=nothing_T)
assert not nothing_T.any()

# %% [markdown]
# The first perturbation is no rounding of weights at all. A copy of the model computes in bfloat16, with 8 significant
# bits: every sum, every product, and the scores. The scores move by a few thousandths of their size.

# %%
half = causes.with_weights(model, {})  # a copy that shares all weights
half.dtype = jnp.dtype("bfloat16")
in_half, _ = compare(half)
moved_TLE = np.abs(in_half.router_logits - base.router_logits)
assert 0 < np.median(moved_TLE) < 0.1 * np.median(np.abs(base.router_logits))

# %% [markdown]
# How much of the routing is left? Count the experts that a token chose in both runs: the **agreement**, known in the
# literature as *router saturation* where the two runs are two checkpoints of one training. It is 1 for equal sets, and
# two random sets would have X / E. As a loop, as an array and from the package:

# %%
pairs = zip(base.experts.reshape(-1, X).tolist(), in_half.experts.reshape(-1, X).tolist(), strict=True)
slow_TL = np.array([len(set(a) & set(b)) / X for a, b in pairs]).reshape(T, L)
fast_TL = (base.experts[..., :, None] == in_half.experts[..., None, :]).sum((-2, -1)) / X
each_TL = metrics.overlap(base, in_half)
assert (slow_TL == fast_TL).all() and (fast_TL == each_TL).all()
assert np.allclose(metrics.saturation(base, in_half).value, each_TL.mean(0))

# %% [markdown]
# The guarantee of the first section holds here as well, with each token's own largest error. But note what an error
# *is*: if all scores of a token move up together, nothing changes. So we take off what they have in common.


# %%
def errors(other):
    moved_TLE = other.router_logits.astype(float) - base.router_logits
    return moved_TLE - moved_TLE.mean(-1, keepdims=True)


margin_TL = metrics.margins(base).of_set
safe_TL = margin_TL > 2 * np.abs(errors(in_half)).max(-1) + 1e-4
assert (each_TL[safe_TL] == 1).all()
if lesson.builtin:
    assert safe_TL.mean() > 0.5 and (each_TL < 1).mean() < 0.1
    print("bfloat16: more than half of all choices are safe, and fewer than a tenth flip")

# %% [markdown]
# ## Rounded weights
#
# Then the weights. `causes.with_weights` copies the model and sends the arrays that we name through a function. Here are
# the candidates.
#
# *The experts, once more.* They are stored in MXFP4 already. We unpack them and quantize them again.

# %% [markdown] predict="again"
# How many sets change when the experts go through MXFP4 a second time?
#
# ANSWER: None. Every number that came out of MXFP4 goes back in without loss (lesson 08). The bytes may differ, the
# values do not, and equal values give equal scores, bit for bit.

# %%
some = slice(None) if lesson.builtin else slice(1)  # of a large checkpoint, one expert of each layer


def again(packed):
    blocks, scales = packed.blocks.copy(), packed.scales.copy()
    new = quantize(packed[:, some].dequantize())
    blocks[:, some], scales[:, some] = new.blocks, new.scales
    return MXArray(blocks, scales)


EXPERTS = ("blocks.mlp.experts.gate_up", "blocks.mlp.experts.down")
models = {"experts, again": causes.with_weights(model, dict.fromkeys(EXPERTS, again))}
same, apart_T = compare(models["experts, again"])
assert np.array_equal(same.router_logits, base.router_logits) and not apart_T.any()

# %% [markdown]
# No token moved, and no answer: even the logits are equal, bit for bit. That is worth saying aloud, because it is the
# first question people ask: for gpt-oss, MXFP4 is not an approximation of
# something better. The routing that belongs to these weights is the only one there is. To learn what four bits *would*
# do, we need weights that were not trained for them, or another rounding.
#
# *The experts, at a larger scale.* A group's scale is the quantizer's choice, and some programs take the next
# power of two so that nothing is cut off. We do that to every group: keep the format, double the scale, halve the codes.
# The magnitudes 0.5 and 1.5 have no half; they go to the even neighbor, 0 and 1 (which stand for 0 and 2).

# %%
HALVED = np.array([0, 0, 1, 2, 2, 3, 4, 5], np.uint8)  # code of each magnitude at twice the scale
nibble = np.concatenate([HALVED, HALVED | 8])
byte = np.arange(256)
of_byte = nibble[byte & 15] | (nibble[byte >> 4] << 4)


def larger_scale(packed):
    return MXArray(of_byte[packed.blocks], packed.scales + np.uint8(1))


every_code = MXArray(np.array([[[0x10, 0x32, 0x54, 0x76] * 4]], np.uint8), np.array([[127]], np.uint8))
before, after = (packed.dequantize()[0, :8] for packed in (every_code, larger_scale(every_code)))
print("stored ", course.sig3(before))
print("coarser", course.sig3(after))
assert (np.abs(after - before) <= 0.5).all()

# %% [markdown]
# *What was left alone.* gpt-oss keeps its attention, its routers and its embeddings in bfloat16. We put them through
# MXFP4, one kind at a time: the error that the experts would have had if nobody had trained with it.

# %%
rows = np.unique(np.concatenate(documents))  # of the embedding, only those that the texts use


def four_bits(weight):
    return quantize(np.asarray(weight, np.float32)).dequantize()


def four_bit_rows(weight):
    weight = weight.copy()
    weight[rows] = four_bits(weight[rows])
    return weight


DENSE = {
    "attention, 4 bits": dict.fromkeys(("blocks.attention.qkv.weight", "blocks.attention.out.weight"), four_bits),
    "router, 4 bits": {"blocks.mlp.router.weight": four_bits},
    "embedding, 4 bits": {"embedding.weight": four_bit_rows},
}

# %%
models["bfloat16"] = half
models["experts, larger scale"] = causes.with_weights(model, dict.fromkeys(EXPERTS, larger_scale))
models |= {name: causes.with_weights(model, changes) for name, changes in DENSE.items()}
own_runs = {name: compare(changed) for name, changed in models.items()}
others = {name: trace for name, (trace, _) in own_runs.items()}

# %% [markdown] predict="layer_zero"
# Which of these perturbations cannot change a single choice of layer 0? And which one changes the scores of *every*
# layer directly, without a detour through the residual stream?
#
# ANSWER: Rounded experts. The first router reads the embedding and the first attention, before any expert has run.
# Rounding the router acts on the scores of its own layer, in all layers.

# %%
curves = metrics.agreement_curves(base, others)
drawing = figures.layer_values(curves.value, "agreement with float32", T, curves.names, interval=curves.interval)
value = dict(zip(curves.names, curves.value, strict=True))
assert value["experts, larger scale"][0] == 1 and (value["experts, again"] == 1).all()
if lesson.builtin:
    assert value["router, 4 bits"].mean() < value["attention, 4 bits"].mean() < value["bfloat16"].mean()

# %%
alt = "Dot plot, layers downward, agreement across, one mark for each of six perturbations. Quantizing the experts again gives 1 in every layer, the larger scale gives 1 in layer 0."
course.show(
    drawing.figure,
    alt=alt,
    summary="Rounded experts leave layer 0 as it is; experts quantized again leave every layer.",
)

# %% [markdown]
# Every dot has a bar, which shows how far other tokens of the same texts would stray. Follow one mark downward and you see
# a perturbation on its way through the model; go along one layer and you see who disturbs it most. The order is no accident: rounding
# the router to four bits saves next to nothing, because it is tiny, and costs more agreement than rounding the attention,
# which is much larger. Leaving the routers alone was a good decision of those who quantized gpt-oss.
#
# Agreement is a mild measure, by the way. If one expert of four differs, it says 0.75, although the *set* is another
# one, and two random sets of four out of 32 still share an eighth. From here on we count flips.
#
# ## Margins tell which
#
# Agreement says how many. The margin says *who*. We sort all choices by their margin in the float32 run, cut them into
# five equal parts, and ask in each part and layer which share flipped.

# %%
flips = {name: metrics.flips_by_margin(base, other, bins=5) for name, other in others.items()}
edges, count = flips["bfloat16"].edges, flips["bfloat16"].count
rate = {name: np.nansum(found.rate * count, axis=0) / count.sum(0) for name, found in flips.items()}
assert all(found[0] >= found[-1] for found in rate.values())
if lesson.builtin:
    assert all(found[0] > 5 * found[-1] for name, found in rate.items() if name != "experts, again")

# %%
drawing = figures.flip_maps({name: found.rate for name, found in flips.items()}, edges, count)
alt = "Six heat maps, one for each perturbation: layers downward, five bins of the margin across, color and number the percentage of sets that flipped. The experts quantized again are zero everywhere; the others fall from left to right."
course.show(drawing.figure, alt=alt, summary="The fifth with the smallest margins flips most, whatever is rounded.")

# %% [markdown]
# This is the picture to keep. Each column is a promise about tokens whose margin you can read off *before* anybody
# rounds anything. On the left are those that live near a wall of lesson 06; they change experts at the first draft of
# wind. On the right are tokens that no rounding here can move. A claim such as "this expert serves this token" deserves
# its margin beside it.
#
# Can we predict the number, not only the order? Take the standard deviation of the scores' errors in each layer, move the
# float32 scores by normal errors of that size, and count flips. The rounded router suits the assumptions best, since each
# expert has its own row and its own errors.

# %%
other = others["router, 4 bits"]
sigma_L = errors(other).std((0, 2))
noise_TLE = sigma_L[:, None] * rng.normal(size=base.router_logits.shape)
simulated = np.sort(np.argsort(-(base.router_logits + noise_TLE), axis=-1)[..., :X], axis=-1)
shares = {
    "measured": (metrics.overlap(base, other) < 1).mean(0),
    "nearest pair": np.asarray(erfc(margin_TL / (2 * sigma_L)) / 2).mean(0),
    "simulated": (simulated != np.sort(base.experts, axis=-1)).any(-1).mean(0),
}

# %%
drawing = figures.layer_values(np.stack([*shares.values()]), "share of flips", T, list(shares))
alt = "Dot plot, layers downward, share of flips across, after rounding the routers: measured, the bound from the nearest pair, and simulated."
apart = np.abs(shares["simulated"] - shares["measured"]).max()
course.show(
    drawing.figure, alt=alt, summary=f"Simulated and measured shares differ by less than {np.ceil(10 * apart) / 10}."
)
if lesson.builtin:
    assert apart < 0.09
    assert shares["nearest pair"][0] < shares["measured"][0]

# %% [markdown]
# No weight was looked at for the simulation, only scores and one number a layer. The nearest pair alone falls short, as the
# third token of our toy did: errors of this size reach past the margin, to the second and third pair. It does less well for bfloat16: there
# most tokens have tiny errors and a few have large ones, namely those that flipped in a layer below. One σ for all
# fits neither.
#
# ## Down the layers
#
# A flip in layer 0 changes the residual stream, so all later routers read something else. Do flips breed flips? A plain
# comparison cannot tell, because rounding disturbs the later layers in any case. So we take the flips out. A **replay**
# runs the perturbed model and sends every token to the experts that it chose in the float32 run; the routers still compute
# their scores, and we see what they *would* have chosen. (In training a language model, one feeds it the true words
# instead of its own and calls that teacher forcing. This is teacher forcing for routing.)

# %%
held = [replay(config, trace.experts) for trace in base_runs]
held_runs = {name: compare(changed, held) for name, changed in models.items()}
assert all(np.array_equal(np.sort(other.experts), np.sort(base.experts)) for other, _ in held_runs.values())

# %% [markdown] predict="held"
# In which layer must the flips of the two experiments, free and replayed, be exactly the same? And can the replay have
# *more* flips in some layer?
#
# ANSWER: In layer 0, where nothing has been chosen before. More flips are possible for single tokens, since an inherited
# error can happen to cancel a layer's own, but on average an additional error makes additional flips.


# %%
def would_flip(other):
    wanted = np.argsort(-other.router_logits, axis=-1, kind="stable")[..., :X]
    return (np.sort(wanted, axis=-1) != np.sort(base.experts, axis=-1)).any(-1)


shown = ("bfloat16", "attention, 4 bits", "embedding, 4 bits")
own_sd = np.stack([errors(others[name]).std((0, 2)) for name in shown])
held_sd = np.stack([errors(held_runs[name][0]).std((0, 2)) for name in shown])
for name in models:
    own, replayed = would_flip(others[name]).mean(0), would_flip(held_runs[name][0]).mean(0)
    assert own[0] == replayed[0]
    if lesson.builtin and name in ("router, 4 bits", "embedding, 4 bits"):
        assert own[1:].mean() >= replayed[1:].mean()

# %%
fig, axes = course.figure(6.8, 2.6, ncols=3, sharex=True)
for ax, name, own, replayed in zip(axes, shown, own_sd, held_sd, strict=True):
    ax.plot(own, marker="o", label="own routing")
    ax.plot(replayed, marker="s", ls="--", label="replayed")
    ax.set(title=name, xlabel="layer", ylim=(0, None), xticks=range(L))
axes[0].set_ylabel("error of a score (σ)")
axes[0].legend()
alt = "Three panels, bfloat16, rounded attention and rounded embedding: standard deviation of the scores' errors by layer, with the model's own routing and with the routing replayed. Both start at the same point."
lower = int((held_sd[:, 1:].mean(1) < own_sd[:, 1:].mean(1)).sum())
course.show(fig, alt=alt, summary=f"In {lower} of 3 panels the replayed errors are the smaller ones.")
if lesson.builtin:
    assert lower >= 2 and own_sd[0, -1] > 1.5 * own_sd[0, 0]

# %% [markdown]
# Two things happen. Errors travel: even with the routing held, bfloat16 disturbs a later layer more than the first, because
# every layer adds its own rounding to the stream. And flips breed: the distance between the two lines is
# what earlier flips put on top. An error need not grow: that of the embedding enters at the bottom only, and it may fade
# as layers add what was not rounded.
#
# Whether the *number* of flips then rises with depth is another question. It depends on the margins, too, and these have
# a mind of their own in each layer. So report both. A rising curve of flips alone proves nothing about errors, nor a
# falling one about robustness.

# %% [markdown] exercise="first_flip" stars=2 minutes=10 goal="depth"
# ### Where did it begin?
#
# Write `first_flip(a_TLX, b_TLX)` for the experts of two runs, `[T, L, X]`: for each token the first layer in which its
# set differs, and L where it differs in none. Two sets in another order are equal.


# %% solution="first_flip"
def first_flip(a_TLX, b_TLX):
    ### BEGIN SOLUTION
    differs_TL = (np.sort(a_TLX, axis=-1) != np.sort(b_TLX, axis=-1)).any(-1)
    return np.where(differs_TL.any(1), differs_TL.argmax(1), differs_TL.shape[1])
    ### END SOLUTION


# %% check="first_flip"
lesson.check.first_flip(first_flip)

# %% [markdown]
# ## What does a flip cost?
#
# Routing is a means. What counts is the answer, so we go back to the divergence of lesson 14. First the bill for a single
# exchange, with nothing rounded: in one layer every token's *last* expert is replaced by the best of the rejected, exactly
# what a flip does; all other choices are held. For comparison the same with the *first* expert.


# %%
def exchanged(trace, layer, rank):
    experts = trace.experts.copy()
    ranked = np.argsort(-trace.router_logits[:, layer], axis=-1, kind="stable")
    experts[:, layer, rank] = ranked[:, X]
    return replay(config, experts)


cost = {}
for layer in range(L):
    for name, rank in (("last", X - 1), ("first", 0)):
        cost[name, layer] = compare(model, [exchanged(trace, layer, rank) for trace in base_runs])[1]
last_L, first_L = (np.array([cost[name, layer].mean() for layer in range(L)]) for name in ("last", "first"))
assert not lesson.builtin or (10 * last_L < first_L).all()

# %% [markdown] predict="near_equal"
# A flip exchanges two experts with nearly equal *scores*. Is the exchange cheaper where the margin is narrow?
#
# ANSWER: Hardly. Equal scores mean that the router is undecided, not that the two experts would say the same. What makes
# the exchange cheap is the weight: the last of four experts speaks softly, whoever it is.

# %% [markdown]
# The last layer is the place to check, as no later attention mixes the positions. We cut its tokens into halves: once by
# the margin, once by the weight of the last expert, and compare the mean cost in the two halves.

# %%
cost_T, weight_T = cost["last", L - 1], base.weights[:, -1, -1]
ratio = {}
for name, key_T in (("margin", margin_TL[:, -1]), ("weight", weight_T)):
    small_T = key_T < np.median(key_T)
    ratio[name] = cost_T[~small_T].mean() / cost_T[small_T].mean()
if lesson.builtin:
    assert 1 / 3 < ratio["margin"] < 3 < ratio["weight"]
    print("wide margin or narrow: costs within a factor of 3; heavy or light last expert: further apart")

# %% [markdown]
# The margin is an answer to *whether* a token flips, and none to *what it costs*. So nothing protects a token in principle. An undecided router whose last expert carries a fifth of the weight pays for a
# flip. It just happens rarely: most last experts carry little.
#
# Now the real bills. For each perturbation the mean divergence of the answer, with its own routing and with the float32
# routing replayed. What the replay saves went through flips.

# %%
paid = {name: (own_runs[name][1].mean(), held_runs[name][1].mean()) for name in models if name != "experts, again"}
share = {name: 1 - replayed / own for name, (own, replayed) in paid.items()}
if lesson.builtin:
    assert share["router, 4 bits"] > share["experts, larger scale"] + 0.1
    assert 2 * max(own for own, _ in paid.values()) < first_L.min()

# %%
fig, ax = course.figure(7, 3)
places = np.arange(len(paid))
for i, (label, marker) in enumerate((("own routing", "o"), ("replayed", "s"))):
    ax.plot([pair[i] for pair in paid.values()], places, marker, label=label)
ax.set(xscale="log", yticks=places, yticklabels=list(paid), xlabel="mean KL divergence from float32, nats")
for name, value in (("last", last_L.mean()), ("first", first_L.mean())):
    ax.axvline(value, color="black", ls=":", lw=1)
    ax.text(value, places[-1] + 0.7, f"one {name} expert\nexchanged", ha="center", va="bottom", fontsize=8)
ax.legend()
alt = "Dots on a logarithmic axis: mean divergence of the answers for five perturbations, with own and with replayed routing; dotted lines mark the cost of exchanging the last and the first expert in one layer."
cheaper = sum(own < first_L.min() for own, _ in paid.values())
course.show(fig, alt=alt, summary=f"{cheaper} of {len(paid)} cost less than one exchange of the first expert.")

# %% [markdown]
# Read the built-in model's figure from the right. Exchanging every token's *first* expert in a single layer does more harm than any rounding here does
# in all layers. Then look at the pairs of dots. For the rounded router most of the damage is flips, because nothing else was
# touched. Rounded experts do their damage themselves: those who speak are the right ones, and they speak less clearly.
# And bfloat16 sits far to the left: a small change, of which a good part is flips.
#
# ## What to report
#
# - Compare *sets* and give the margin of what differs. A test that demands equal experts of two programs fails at the
#   first near tie; one that demands equal experts *above a margin* finds the real mistakes. This package's own parity
#   tests do that.
# - Say where flips come from: replay the routing before you blame a layer.
# - Measure the answer. Agreement of 0.95 may be harmless or not; it depends on the weight of those exchanged.
# - For gpt-oss, "MXFP4 against full precision" is a question without an object, as far as its experts are concerned: there
#   are no other weights. What can be measured is another rounding, or another arithmetic, and one must say which.
#
# A good habit for your own experiments: before you compare two models, compare one model with itself, rounded once. What
# that changes is the noise floor, and no smaller difference between two models deserves a story.
#
# So much for a router that is given. The next lesson trains one from nothing, and watches the choices take shape.
