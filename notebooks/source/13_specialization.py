# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: "Seeing experts II: specialization, co-activation, flow"
#     minutes: 60
#     seconds: 20
#     needs: Lesson 12.
#     modules: [routing]
#     goals:
#       specialization: Measure what experts specialize in, against shuffled labels and shuffled documents.
#       tokens: Rank the tokens of an expert by pointwise mutual information.
#       pairs: Count co-activated pairs completely, and recognize a count that is not.
#       layers: Compare layers only through what tokens do in both.
# ---

# %% [markdown]
# Published pictures of experts disagree with each other, and not only because the models differ. Some count a third of
# the pairs, some compare numbers that have nothing in common, and many show noise without saying so. This lesson repairs
# three of these mistakes. Its method: test each measurement on routing whose truth is known before you believe it.

# %%
import numpy as np

import gptoss_jax as gj
from gptoss_jax.nano import samples
from gptoss_jax.routing import figures, metrics
from gptoss_jax.routing.planted import planted_trace

# %% [markdown]
# ## Two toys with a known truth
#
# The first toy is a *planted* trace. There are four domains, four layers, eight experts, three chosen. In each layer every
# domain has an expert of its own, its home, which nine in ten of its tokens choose first. Every expert also has a partner
# that is chosen second whenever it comes first. The third choice is drawn at random. The second toy has partners, but
# neither homes nor flow: its first choices are drawn at random too.

# %%
toy = planted_trace(strength=0.9)
noise = planted_trace(strength=0.0)
T, L, X = toy.trace.experts.shape
E, D = toy.trace.num_experts, toy.home.shape[1]
print("homes of the four domains in layer 0:", toy.home[0])
print("partners of the eight experts in layer 0:", toy.partner[0])
assert (toy.partner[0][toy.partner[0]] == np.arange(E)).all()

# %% [markdown]
# A metric has to find in the first what was put there. In the second it has to find nothing. Most metrics pass the first
# test; the second is the hard one.

# %% [markdown]
# ## Specialization
#
# The **specialization** of an expert in a domain is the share of the domain's tokens that it serves. If the domain does not
# matter, every expert serves X / E of the tokens of every domain.

# %% [markdown] predict="how_high"
# What share of its domain's tokens does a home serve in the first toy? More than the planted 0.9, or less?
#
# ANSWER: More. Nine in ten choose it first. Of the others, some draw it first by chance, some draw its partner first
# and so get it second, and some get it as a random third.

# %%
layer = 0
slow = np.zeros((D, E))
for t, chosen in enumerate(toy.trace.experts[:, layer]):
    slow[t % D, chosen] += 1  # the toy deals its tokens to the domains in turn
slow /= T / D

# %%
in_domain_DT = np.arange(D)[:, None] == np.arange(T) % D
chosen_TE = np.eye(E)[toy.trace.experts[:, layer]].sum(axis=1)
fast = in_domain_DT @ chosen_TE / in_domain_DT.sum(axis=1, keepdims=True)
special = metrics.domain_specialization(toy.trace, toy.labels, resamples=30)
assert np.allclose(slow, fast) and np.allclose(fast, special.value[layer])
assert np.allclose(special.value.sum(axis=-1), X)
print("at home:", course.sig3(fast[np.arange(D), toy.home[layer]]))

# %% [markdown]
# The picture has two halves. The lower one shows the same count after the labels were shuffled, thirty times, on
# average. A dot marks a cell that lies outside what 95 % of the shuffles gave.

# %%
drawing = figures.specialization_map(
    special.value[layer],
    special.names,
    np.full(D, T // D),
    X,
    layer,
    special.baseline[layer],
    special.baseline_range[:, layer],
)
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)

# %% [markdown]
# Two experts stand out in each row, not one: the home and its partner. The measure cannot tell the two apart, and it should
# not be blamed for that, since both serve nearly every token of the domain. It can only say who was there.

# %%
two = np.sort(np.argsort(-special.value[layer], axis=-1)[:, :2], axis=-1)
planted = np.sort(np.stack([toy.home[layer], toy.partner[layer][toy.home[layer]]], axis=-1), axis=-1)
assert (two == planted).all()
print("found in every domain: the home and its partner,", two.tolist())

# %% [markdown]
# Now the whole table as one number. **Mutual information** asks how much an expert tells about the domain of the token: 0
# if nothing, at most ln 4 = 1.39 nats with four domains. Estimated from counts it is never 0, because random unevenness
# looks like information. So it needs its shuffled baseline more than any other number here.

# %% [markdown] predict="of_noise"
# In the second toy the domain has no influence at all. What will the estimate be, compared to shuffled labels?
#
# ANSWER: The same, about. Its labels are as good as shuffled. Both are above 0, and roughly twice as far if you halve
# the number of tokens.

# %%
planted_L = metrics.domain_information(toy.trace, toy.labels, resamples=30)
nothing_L = metrics.domain_information(noise.trace, noise.labels, resamples=30)
few = np.arange(T) < 120
fewer_L = metrics.domain_information(noise.trace, noise.labels, mask=few, resamples=30)
rows = [
    (name, m.value.mean(), m.baseline.mean())
    for name, m in (("planted", planted_L), ("noise", nothing_L), ("noise, 120 tokens", fewer_L))
]
course.table(rows, header=("toy", "nats", "shuffled"))
assert (planted_L.value > 20 * planted_L.baseline).all() and (nothing_L.value < 3 * nothing_L.baseline).all()
assert (fewer_L.baseline > 3 * nothing_L.baseline).all()

# %% [markdown]
# ## A real model
#
# The method works, so let it loose: ten kinds of text, three passages of each, 128 tokens of each passage.

# %%
model, tokenizer = lesson.model(first_layers=4)
traces = {}
for kind, pieces in samples.read().items():
    ids = [tokenizer.encode_ordinary(piece)[:128] for piece in pieces[2:11:3]]
    traces[kind] = [gj.trace(model, each, tokenizer=tokenizer, logits=False) for each in ids]
real, labels, passage = metrics.join(traces)
assert len(real) == 3840 and len(set(passage)) == 30

# %% [markdown]
# One question decides what the baseline must be: what is drawn at random, tokens or passages? Tokens of one passage share
# names, topic and layout. If an expert likes a passage about whales, that says nothing yet about novels. So shuffle whole
# passages: every passage keeps its tokens together and gets the label of another one.

# %%
by_token = metrics.domain_information(real, labels, resamples=30)
by_passage = metrics.domain_information(real, labels, groups=passage, resamples=30)
assert np.allclose(by_token.value, by_passage.value)
if lesson.builtin:
    assert (by_passage.baseline > by_token.baseline).all()

# %%
deep = np.arange(real.num_layers)
fig, ax = course.figure(5.5, 2.4)
for name, m, up, color in (("tokens", by_token, -0.15, "#8fb3d9"), ("passages", by_passage, 0.15, "#9aa5b1")):
    ax.hlines(deep + up, *m.baseline_range, lw=7, color=color, label=f"shuffled {name}")
ax.plot(by_token.value, deep, "o", color="black", label="as it is")
ax.set(yticks=deep, ylabel="layer", xlabel="information on the kind of text, nats")
ax.invert_yaxis()
ax.legend(fontsize=8)
alt = "Layers down; for each a dot, the measured information, right of two bars, the central 95 % of shuffled tokens, near zero, and of shuffled passages, farther right."
ends = [m.baseline[-1] for m in (by_passage, by_token)]
summary = (
    f"Last layer: {by_token.value[-1]:.2f} nats; shuffled passages leave {ends[0]:.2f}, shuffled tokens {ends[1]:.2f}."
)
course.show(fig, alt=alt, summary=summary)

# %% [markdown]
# Shuffled passages leave much more than shuffled tokens. Whoever shuffles tokens claims the difference as
# specialization in a *kind* of text, though it is only a liking for single passages.

# %%
if lesson.builtin:
    assert (by_passage.excess[-2:] > 0.05).all()
print("shuffled passages leave more than twice what shuffled tokens leave:")
print((by_passage.baseline > 2 * by_token.baseline).tolist())

# %% [markdown]
# There is a second confounder. Kinds of text use different words, and lesson 12 showed that the router listens to the
# word. `conditional_information` compares only positions with the same token id: what the kind of text adds once the
# word is known.

# %%
given_word = metrics.conditional_information(real, labels, resamples=10)
left = given_word.excess / by_token.excess
assert (given_word.value <= np.log(10)).all() and (given_word.count < len(real)).all()
if lesson.builtin:
    assert (left < 0.9).all()
print("the word alone explains a part of it in every layer:", bool((left < 1).all()))

# %% [markdown]
# Now look at the experts of the last layer, with the dots in mind.

# %%
last = real.num_layers - 1
special = metrics.domain_specialization(real, labels, groups=passage, resamples=30)
drawing = figures.specialization_map(
    special.value[last],
    special.names,
    np.full(10, len(real) // 10),
    real.experts_per_token,
    last,
    baseline_range=special.baseline_range[:, last],
)
low, high = special.baseline_range[:, last]
dotted = ((special.value[last] < low) | (special.value[last] > high)).mean()
course.show(drawing.figure, alt=drawing.alt, summary=f"More than 10 % of the cells carry a dot: {bool(dotted > 0.1)}")

# %% [markdown]
# Count the dots before you believe one. Of 320 cells, chance alone puts a dot on 5 %, which is sixteen. Only because there
# are many more do we know that some of them mean something; which ones, a single dot does not tell.

# %% [markdown] exercise="shuffle_passages" stars=2 minutes=10 goal="specialization"
# ### Shuffle whole passages
#
# All tokens of a passage carry the same label. Write `shuffle_passages(labels_T, passage_T, order_P)`: the labels after the
# shuffle, `[T]`, in which the tokens of passage p carry the label that passage `order_P[p]` had before. Passages are
# numbered from 0.


# %% solution="shuffle_passages"
def shuffle_passages(labels_T, passage_T, order_P):
    ### BEGIN SOLUTION
    first_P = np.unique(passage_T, return_index=True)[1]
    return labels_T[first_P][order_P][passage_T]
    ### END SOLUTION


# %% check="shuffle_passages"
lesson.check.shuffle_passages(shuffle_passages)

# %% [markdown]
# ## The words of an expert
#
# Which tokens go to an expert more than to others? Sorting by count gives the commonest words at every expert. Sorting by
# the share of a word's occurrences favors experts with a high load. **Pointwise mutual information** compares with what
# both would give independently: with N tokens in all, n(x) of word x, n(e) at the expert and n(x, e) of both,
#
# $$\mathrm{pmi}(x, e) = \ln \frac{n(x, e)\, N}{n(x)\, n(e)}.$$
#
# It is 0 for independence and positive for attraction. Rare words have wild values, so words below a minimum count are left
# out of everything, of the sums too.

# %%
tokens, home = toy.trace.tokens, toy.home[0][0]
best = metrics.top_tokens(toy.trace, 0, home, by="pmi", n=6)
assert ((10 <= best.ids) & (best.ids < 20)).all()  # the toy gave the ids 10 .. 19 to domain 0
rows = zip(best.text, best.score, best.together.tolist(), best.count.tolist(), strict=True)
course.table(rows, header=("token", "pmi", "served here", "occurs"))

# %% [markdown] exercise="top_by_pmi" stars=2 minutes=15 goal="tokens"
# ### Rank by attraction
#
# Write `top_by_pmi(tokens_T, served_T, min_count, n)`. `served_T` is true where the expert was chosen. Return the ids of the
# n tokens with the highest pmi, best first, among those that occur at least `min_count` times. Tokens that the expert
# never served do not compete. There will be no ties.


# %% solution="top_by_pmi"
def top_by_pmi(tokens_T, served_T, min_count, n):
    ### BEGIN SOLUTION
    ids, row_T, count = np.unique(tokens_T, return_inverse=True, return_counts=True)
    together = np.bincount(row_T, weights=served_T, minlength=len(ids))
    kept = np.flatnonzero((count >= min_count) & (together > 0))
    often = count >= min_count
    pmi = np.log(together[kept] * count[often].sum() / (count[kept] * together[often].sum()))
    return ids[kept[np.argsort(-pmi)[:n]]]
    ### END SOLUTION


# %% check="top_by_pmi"
lesson.check.top_by_pmi(top_by_pmi)

# %% [markdown]
# For the real model the same table is one call. Take the busiest expert of the last layer:

# %% tags=["nbval-ignore-output"]
busy = int(metrics.load(real).value[last].argmax())
best = metrics.top_tokens(real, last, busy, by="pmi", n=8)
figures.top_token_table(best.text, best.ids, best.score, best.together, best.count, last, busy, "pmi, nats")

# %% [markdown]
# Before you name the expert after its words, look at the last column. An expert's best word is often one of a dozen that
# are served nearly as fully, and a name hides that.

# %% [markdown]
# ## Co-activation
#
# Two experts are chosen together whenever they serve the same token: **co-activation**. With k experts a token has
# k (k - 1) / 2 pairs. With `m[t, e] = 1` where token t chose e, the product of m with itself counts all of them at once.

# %%
slow = np.zeros((E, E), int)
for chosen in toy.trace.experts[:, 0]:
    for a in chosen:
        for b in chosen:
            slow[a, b] += 1
fast = chosen_TE.T @ chosen_TE
together = metrics.coactivation(toy.trace)
assert (slow == fast).all() and (fast == together.pairs[0]).all()

# %% [markdown]
# Divide row a by the tokens of a: the share of a's tokens that also went to b. Every token of a has X - 1 other experts,
# so without the diagonal a row sums to X - 1. This sum is a test that costs nothing.

# %%
row_sums = np.nansum(together.given[0], axis=1)
assert np.allclose(row_sums, X - 1)
print("rows sum to", course.sig3(row_sums))

# %% [markdown] predict="pairwise"
# A well-known script runs over the *neighbors* in the ranked list of a token: the first with the second, the second with
# the third, and so on. How many of the pairs does it see for k = 3, 4 and 8?
#
# ANSWER: k - 1 of k (k - 1) / 2: two of 3, three of 6, seven of 28. And those it sees are not a fair sample: experts
# that are always first and third together never meet.

# %% [markdown] exercise="pair_counts" stars=3 minutes=15 goal="pairs"
# ### Repair the pair count
#
# This is the faulty loop, for the ids of one layer:
#
# ```
# for chosen in experts_TX:
#     for a, b in zip(chosen, chosen[1:]):
#         pairs[a, b] += 1
# ```
#
# Write `pair_counts(experts_TX, num_experts)`: for all experts a and b the number of tokens that chose both, `[E, E]`,
# symmetric, with zeros on the diagonal.


# %% solution="pair_counts"
def pair_counts(experts_TX, num_experts):
    ### BEGIN SOLUTION
    chosen_TE = np.eye(num_experts, dtype=int)[experts_TX].sum(axis=1)
    pairs = chosen_TE.T @ chosen_TE
    np.fill_diagonal(pairs, 0)
    return pairs
    ### END SOLUTION


# %% check="pair_counts"
lesson.check.pair_counts(pair_counts)

# %% [markdown]
# Shares favor busy experts, so compare with chance again. *Lift* divides the number of meetings by that of independent
# experts of the same loads: 1 is chance. In the second toy, where every expert comes first equally often, the highest
# lift of each expert should be its partner.

# %%
lift = metrics.coactivation(noise.trace).lift
found = np.nanargmax(lift, axis=-1)
assert (found == noise.partner).all()
print(f"partners found: {(found == noise.partner).sum()} of {found.size}")

# %% [markdown]
# In the first toy this works less well, and it is worth knowing why. An expert that is nobody's home comes first only by
# accident. Nearly all of its tokens get it as the random third choice, and there is little partnership to be seen.

# %%
strongest = np.nanargmax(together.lift, axis=-1)
homes = np.zeros((L, E), bool)
np.put_along_axis(homes, toy.home, True, axis=1)
assert (strongest == toy.partner)[homes].all()
print(f"homes: all {homes.sum()} partners found; all experts: {(strongest == toy.partner).sum()} of {homes.size}")

# %% [markdown]
# The real model, in its middle. The order of the rows puts experts that share tokens side by side, so that groups
# show up as squares on the diagonal.

# %%
middle = real.num_layers // 2
pairs = metrics.coactivation(real, min_count=40)
order = metrics.neighbor_order(pairs.jaccard[middle])
drawing = figures.coactivation_map(pairs.lift[middle], order, middle, pairs.tokens)
most = np.nanmax(pairs.lift[middle])
course.show(drawing.figure, alt=drawing.alt, summary=f"The closest pair meets {most:.0f} times as often as chance.")

# %% [markdown]
# Do not take such a square for a circuit. Experts with a common domain meet often because their texts are the same, even
# if neither needs the other. Lesson 14 shows how to ask what one of them *does*.

# %% [markdown]
# ## From layer to layer
#
# One published measure of change between layers, "routing velocity", takes the Kullback-Leibler divergence between the
# loads of neighboring layers, expert by expert. Here it is:


# %%
def velocity(experts_TLX, num_experts):
    p, q = metrics.load(experts_TLX, num_experts).value[[1, 0]]
    return float((p * np.log(p / q)).sum())


ids_TLX = toy.trace.experts.astype(int)
print("velocity from layer 0 to 1:", course.sig3(velocity(ids_TLX, E)))

# %% [markdown] predict="velocity"
# What is wrong with it?
#
# ANSWER: It compares expert 3 of one layer with expert 3 of the next. The numbers of a layer's experts are arbitrary:
# swap two of them, with their rows of the router, and the model computes exactly the same.

# %% [markdown]
# This is a test that any measure of routing must pass: renumber the experts of *each layer on its own* and compute it
# again. A number must not move; a table may only have its rows and columns permuted.

# %% [markdown] exercise="renumbered" stars=3 minutes=15 goal="layers"
# ### Show that velocity means nothing
#
# Write `renumbered(experts_TLX, num_experts)`: the same routing, with nothing but the experts of layer 1 renumbered, such
# that `velocity` differs by more than a fifth of its value. The check brings routing of its own, with two layers, uneven
# loads and no expert unused.


# %% solution="renumbered"
def renumbered(experts_TLX, num_experts):
    ### BEGIN SOLUTION
    first, second = metrics.load(experts_TLX, num_experts).value[:2]
    ours, other = np.argsort(second), np.argsort(first)
    new_name = np.empty(num_experts, int)
    tried = []
    for target in (other, other[::-1]):  # busy onto busy, and busy onto idle
        new_name[ours] = target
        again = experts_TLX.copy()
        again[:, 1] = new_name[experts_TLX[:, 1]]
        tried.append(again)
    before = velocity(experts_TLX, num_experts)
    return max(tried, key=lambda ids: abs(velocity(ids, num_experts) - before))
    ### END SOLUTION


# %% check="renumbered"
lesson.check.renumbered(renumbered)

# %% [markdown]
# What may be compared is what the *same tokens* do in both layers. The joint distribution says how much weight passes
# through expert a of one layer and expert b of the next. Its mutual information, divided by the mean entropy of the two
# layers, is a number between 0 and 1 that no renumbering can move.

# %%
w_TE, next_TE = (metrics.layer_weights(toy.trace, layer) for layer in (0, 1))
slow = sum(np.outer(w, v) for w, v in zip(w_TE, next_TE, strict=True)) / T
fast = w_TE.T @ next_TE / T
flow = metrics.flow(toy.trace)
assert np.allclose(slow, fast) and np.allclose(fast, flow.joint[0])
assert np.allclose(flow.joint.sum(axis=2)[0], metrics.mass(toy.trace).value[0])

# %%
shuffle_E = np.random.default_rng(13).permutation(E)
ids_TLX[:, 1] = shuffle_E[ids_TLX[:, 1]]
renamed = metrics.flow(ids_TLX, E, weighted=False, resamples=0).shared.value
original = metrics.flow(toy.trace.experts, E, weighted=False, resamples=0).shared.value
assert np.allclose(renamed, original)
before, after = velocity(toy.trace.experts, E), velocity(ids_TLX, E)
print("velocity", course.sig3([before, after]), "shared information", course.sig3([original[0], renamed[0]]))

# %% [markdown]
# The planted flow: a domain's home leads to the same domain's home in the next layer. Of the weight of every home,
# the next home must get far more than an even share, 1 / E.

# %%
shares = flow.joint[0] / flow.joint[0].sum(axis=1, keepdims=True)
leads = shares[toy.home[0], toy.home[1]]
assert (leads > 2 / E).all()
print("share of a home's weight that goes on to the next home:", course.sig3(leads, 2))

# %%
fig, ax = course.figure(4.6, 3.4)
image = ax.imshow(shares, vmin=0)
ax.plot(toy.home[1], toy.home[0], "o", ms=11, mfc="none", mec="white", mew=2)
ax.set(xlabel="expert of layer 1", ylabel="expert of layer 0", xticks=range(E), yticks=range(E))
fig.colorbar(image, label="share of the row's weight")
alt = "Heat map, experts of layer 0 down, of layer 1 across: share of each row's weight that goes to each column. Four white rings mark the planted links from home to home, on bright cells."
course.show(fig, alt=alt, summary=f"The four ringed links carry {leads.min():.0%} to {leads.max():.0%} of their rows.")

# %% [markdown]
# For more experts than fit a table, `figures.flow_map` draws the strongest links as bands and folds the rest into one.

# %% [markdown]
# And the real model, beside the same count with the tokens of the next layer shuffled:

# %%
through = metrics.flow(real).shared
quiet = metrics.flow(noise.trace).shared
assert (quiet.value < 3 * quiet.baseline).all()  # nothing was planted there, and nothing is found
if lesson.builtin:
    assert (through.value > 3 * through.baseline).all()
print(
    "more than three times the shuffled value in every pair of layers:",
    bool((through.value > 3 * through.baseline).all()),
)

# %% [markdown]
# ## Who is always there?
#
# The opposite of specialization: is there a committee of experts that carries half of the weight whatever the text is about?
# For each domain take the fewest experts whose weight adds up to one half, and compare these sets by the Jaccard index:
# their intersection over their union.

# %%
committee = metrics.standing_committee(real, labels, groups=passage)
same = committee.jaccard
assert (committee.mass >= 0.5).all() and (committee.members.sum(axis=-1) == committee.size).all()
if lesson.builtin:
    assert (same.value < same.baseline).all()
print(
    "committees differ more between kinds of text than between shuffled passages:",
    bool((same.value < same.baseline).all()),
)

# %% [markdown]
# Here too the baseline decides. A Jaccard index of 0.5 sounds like little agreement; if shuffled passages give 0.6, it is
# the kinds of text that make the difference, and if they give 0.5, it is nothing at all.

# %% [markdown]
# ## What you have now
#
# Four measurements, each tried on routing with a planted truth and on noise; the sum X - 1 that unmasks a wrong
# pair count; and the renumbering test that unmasks a meaningless comparison. All of it is correlation. What an expert is
# *for* is the question of the next lesson.
