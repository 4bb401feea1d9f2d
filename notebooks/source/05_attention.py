# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: "Attention: groups, windows and sinks"
#     minutes: 60
#     seconds: 15
#     needs: Lessons 00 and 04.
#     modules: [attention, roofline]
#     goals:
#       mix: Compute attention by hand, from scores through a softmax to a mixture of values.
#       window: Build the mask of a sliding window without an off-by-one error.
#       groups: Say which query heads share which keys, and count the bytes of a cache.
#       sinks: Explain what an attention sink is, compute it in two ways, and read it as a gate.
#       read: Read an attention map with its sink column.
# ---

# %% [markdown]
# Up to here every position has been on its own. **Attention** is the one place in the model where a position reads from
# others, and in gpt-oss it has three features that the textbook version lacks: heads in groups, a sliding window in every
# other layer, and sinks. We start from the textbook and add them one at a time.

# %%
import jax
import jax.numpy as jnp
import numpy as np

from gptoss_jax.attention import attend, attention_mask, softmax_with_sink
from gptoss_jax.config import GPT_OSS_20B
from gptoss_jax.model import Record, run_recorded
from gptoss_jax.roofline import cache_bytes

# %% [markdown]
# ## One query, three keys
#
# From its normalized stream vector every position makes three vectors by linear maps: a **query** (what am I looking
# for?), a **key** (what can I be found by?) and a **value** (what do I hand over?). Lesson 04 has turned queries and
# keys by their positions.
#
# Here is one query with two numbers, and three positions to read from. The first key points the same way as the query,
# the second sideways, the third the opposite way.

# %%
query_H = np.array([2.0, 0.0])
key_SH = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
value_SH = np.array([[10.0, 0.0], [0.0, 10.0], [5.0, 5.0]])
H = 2

# %% [markdown]
# Three steps, in plain loops. Each score is a dot product divided by the root of H. A **softmax** turns scores into
# positive numbers that add up to 1: exponentials, divided by their sum. With these *probabilities* as weights, the
# values are added.

# %%
scores = [sum(query_H[h] * key[h] for h in range(H)) / H**0.5 for key in key_SH]
exponentials = [np.exp(score) for score in scores]
looped_S = np.array([e / sum(exponentials) for e in exponentials])
looped_H = sum(p * value for p, value in zip(looped_S, value_SH, strict=True))
print("scores", course.sig3(scores), "probabilities", course.sig3(looped_S), "mixture", course.sig3(looped_H))

# %% [markdown]
# The same in one line; and through the package, whose function handles batches, heads and sinks at once, so that we give
# it axes of length 1 and a sink of minus infinity, which is none.

# %%
vectorized_H = jax.nn.softmax(key_SH @ query_H / np.sqrt(H)) @ value_SH


def attend_simply(query_TH, key_SH, value_SH, mask_TS):
    one = lambda x: jnp.asarray(x, jnp.float32)[None, :, None]  # a batch of 1, one key/value head
    no_sink = jnp.full((1, 1), -jnp.inf)
    mixed, probs = attend(one(query_TH)[..., None, :], one(key_SH), one(value_SH), no_sink, mask_TS[None])
    return mixed[0, :, 0, 0], probs[0, 0, 0]


packaged_TH, probs_TS = attend_simply(query_H[None], key_SH, value_SH, jnp.ones((1, 3), bool))
assert np.allclose(looped_H, vectorized_H) and np.allclose(vectorized_H, packaged_TH[0])
assert np.allclose(looped_S, probs_TS[0])

# %% [markdown]
# Read the result as a *soft lookup*. A dictionary returns the one value whose key equals the query. Attention returns a
# mixture of all values, and the better a key fits, the more its value counts: 77 % of the first, 19 % of the second, 5 %
# of the third. The mixture lies near (10, 0) because the first key points where the query points. And because
# nothing is chosen outright, everything can be trained.

# %% [markdown] predict="root"
# Why divide by the root of H? Suppose queries and keys are random with entries of size 1, and a head has 64 numbers as
# in gpt-oss. How large are undivided scores, typically?
#
# ANSWER: About 8: 64 products of size 1 and random sign add up to the root of 64. Divided by 8 they have size 1 again,
# whatever the size of a head. Undivided, the softmax would give nearly everything to a single key before training has
# taught it which.

# %%
rng = np.random.default_rng(0)
rows = []
for size in (4, 64, 1024):
    scores_TS = rng.normal(size=(200, size)) @ rng.normal(size=(100, size)).T
    largest = [jax.nn.softmax(s, axis=1).max(1).mean() for s in (scores_TS, scores_TS / np.sqrt(size))]
    rows.append((str(size), scores_TS.std(), *map(float, largest)))
course.table(rows, header=("H", "score", "largest of 100 probabilities", "with root"))
assert all(row[3] < 0.12 for row in rows)

# %% [markdown]
# ## No reading ahead
#
# A model that predicts the next token must not see it. Position i may read from positions up to i, its own included. The
# **mask** says which pairs are allowed, and the scores of all others are set to minus infinity. This one, which hides
# the future, is called a **causal mask**.

# %%
T = 4
looped_TS = np.array([[j <= i for j in range(T)] for i in range(T)])
place_T = jnp.arange(T)
vectorized_TS = place_T[:, None] >= place_T[None, :]
packaged_TS = attention_mask(place_T[None], place_T[None], window=None)[0]
assert (looped_TS == vectorized_TS).all() and (vectorized_TS == packaged_TS).all()
print(looped_TS.astype(int))

# %% [markdown] predict="zero_score"
# Why minus infinity? What would a hidden position get if its score were set to 0 instead?
#
# ANSWER: A score of 0 is an ordinary score: its exponential is 1, so the hidden position would get a share, and more than
# visible ones whose scores are negative. Only exp(-infinity) is 0.

# %%
scores_S = jnp.array([-1.0, -2.0, 0.0])  # the last is to be hidden
hidden_S = jax.nn.softmax(scores_S.at[2].set(-jnp.inf))
print("score 0:", course.sig3(jax.nn.softmax(scores_S)), " minus infinity:", course.sig3(hidden_S))
assert hidden_S[2] == 0

# %% [markdown]
# ## The window
#
# In even layers a position sees only a **sliding window**: 128 keys, *its own included*. So query i sees keys j with
# 0 <= i - j <= 127. Whether the window counts the query's own position is the question that ports get wrong.

# %% [markdown] predict="edge"
# With a window of 3, which keys does query 5 see? And query 1?
#
# ANSWER: Query 5 sees 3, 4 and 5. Query 1 sees 0 and 1: the text has not begun earlier. Row i has min(i + 1, 3) keys.

# %%
T, window = 6, 3
looped_TS = np.array([[i - window < j <= i for j in range(T)] for i in range(T)])
distance_TS = jnp.arange(T)[:, None] - jnp.arange(T)[None, :]
vectorized_TS = (distance_TS >= 0) & (distance_TS < window)
packaged_TS = attention_mask(jnp.arange(T)[None], jnp.arange(T)[None], window)[0]
assert (looped_TS == vectorized_TS).all() and (vectorized_TS == packaged_TS).all()
print(looped_TS.astype(int), looped_TS.sum(axis=1))

# %%
place_T = jnp.arange(16)[None]
masks = [attention_mask(place_T, place_T, window)[0] for window in (None, 4)]
fig, axes = course.figure(6.4, 3, ncols=2)
for ax, mask, title in zip(axes, masks, ("full", "window of 4"), strict=True):
    ax.imshow(mask, vmin=0, vmax=1)
    ax.set(title=title, xlabel="key", ylabel="query", xticks=(0, 5, 10, 15), yticks=(0, 5, 10, 15))
alt = "Two masks, 16 queries down, 16 keys across, visible pairs bright. Full: the lower triangle. Window of 4: a band of width 4 below the diagonal."
seen = [int(mask.sum()) for mask in masks]
course.show(fig, alt=alt, summary=f"The window leaves {seen[1]} of {seen[0]} pairs, and never more than 4 in a row.")

# %% [markdown]
# Why would one want it? Work and memory. A layer with a full view compares every position with all earlier ones; a
# sliding layer does 128 comparisons however long the text is. And far information is not lost. The next
# layer, a full one, sees everything, and even two sliding layers reach farther than one:

# %%
step_TS = np.asarray(masks[1], int)
reach_TS = step_TS @ step_TS > 0  # via some position in between
print(
    "query 15 reaches back to key", int(reach_TS[15].argmax()), "in two layers, to", int(step_TS[15].argmax()), "in one"
)
assert reach_TS[15].argmax() == 15 - 2 * (4 - 1)

# %% [markdown] exercise="window_mask" stars=2 minutes=10 goal="window"
# ### The mask, by positions
#
# Write `window_mask(query_positions, key_positions, window)`: a boolean table, queries down, keys across. A query sees
# the `window` last positions, its own included, and nothing later. Positions are given as arrays, because with a cache
# the keys do not begin at 0 and need not even be in order: slot 0 of a cache may hold position 260.


# %% solution="window_mask"
def window_mask(query_positions, key_positions, window):
    ### BEGIN SOLUTION
    distance_TS = query_positions[:, None] - key_positions[None, :]
    return (distance_TS >= 0) & (distance_TS < window)
    ### END SOLUTION


# %% check="window_mask"
lesson.check.window_mask(window_mask)

# %% [markdown]
# ## Many heads, few keys
#
# One softmax can look for one thing. So each layer of gpt-oss runs 64 **attention heads** side by side, each with 64
# numbers for its own queries; their mixtures are put next to each other, 4096 numbers, and one linear map brings them
# back to the 2880 of the stream.
#
# But there are only 8 sets of keys and values. In **grouped-query attention** (Ainslie et al. 2023) the 64 query heads
# form 8 groups of G = 8, and each group shares one key/value head. Query heads 0 to 7 use key/value head 0, heads 8 to 15
# use head 1, and so on.

# %% [markdown] predict="share"
# Which key/value head does query head 13 use: 13 // 8 = 1, or 13 % 8 = 5?
#
# ANSWER: 1. Heads of one group are neighbors. A port that takes the remainder has all shapes right, raises no error and
# is wrong in 56 of 64 heads.

# %%
N, K = GPT_OSS_20B.num_attention_heads, GPT_OSS_20B.num_key_value_heads
by_quotient = [head // (N // K) for head in range(N)]
by_remainder = [head % K for head in range(N)]
print(sum(a != b for a, b in zip(by_quotient, by_remainder, strict=True)), "of", N, "heads differ")
assert by_quotient[13] == 1

# %% [markdown]
# Small enough for a loop: 4 query heads, 2 key/value heads, so G = 2, and 5 positions. Each query head runs the textbook
# attention from above with the keys and values of its group.

# %%
T, K, G, H = 5, 2, 2, 4
keys = jax.random.split(jax.random.key(1), 3)
query_TNH = jax.random.normal(keys[0], (T, K * G, H))
key_SKH, value_SKH = (jax.random.normal(k, (T, K, H)) for k in keys[1:])
mask_TS = jnp.tril(jnp.ones((T, T), bool))
looped_TNH = np.zeros((T, K * G, H))
for head in range(K * G):
    shared = head // G
    mixed_TH, _ = attend_simply(query_TNH[:, head], key_SKH[:, shared], value_SKH[:, shared], mask_TS)
    looped_TNH[:, head] = mixed_TH

# %% [markdown]
# Vectorized, one may copy each key/value head G times and forget the groups. The package splits the axis of the query
# heads into [K, G] instead and copies nothing: a letter that two operands share, K, is matched; G stands in one alone.

# %%
copied_SNH, values_SNH = (jnp.repeat(x, G, axis=1) for x in (key_SKH, value_SKH))
scores_NTS = jnp.einsum("tnh,snh->nts", query_TNH, copied_SNH) / jnp.sqrt(H)
probs_NTS = jax.nn.softmax(jnp.where(mask_TS, scores_NTS, -jnp.inf))
vectorized_TNH = jnp.einsum("nts,snh->tnh", probs_NTS, values_SNH)
grouped, _ = attend(
    query_TNH.reshape(1, T, K, G, H), key_SKH[None], value_SKH[None], jnp.full((K, G), -jnp.inf), mask_TS[None]
)
assert np.allclose(looped_TNH, vectorized_TNH, atol=1e-5)
assert np.allclose(vectorized_TNH, grouped.reshape(T, K * G, H), atol=1e-5)

# %% [markdown]
# ## What the cache costs
#
# The gain is memory. A model that writes keeps the keys and values of all earlier positions, so that it need not compute
# them again: the **KV cache** of lesson 11. For each position and layer that is 8 heads x 64 numbers x 2 (key and value)
# x 2 bytes = 2048 bytes. Without groups it would be 64 heads, eight times as much. And sliding layers keep only 128
# positions.

# %%
contexts = 2 ** np.arange(4, 18)
row = 2 * 64 * 2  # key and value, 64 numbers, bfloat16
everything = 24 * contexts * 64 * row
grouped = 24 * contexts * 8 * row
both = np.array([cache_bytes(GPT_OSS_20B, int(context)) for context in contexts])
assert grouped[-1] == cache_bytes(GPT_OSS_20B, 131_072, ring=False) == everything[-1] / 8

# %%
fig, ax = course.figure(6, 2.8)
for count, style, label in [
    (everything, ":", "64 heads, full"),
    (grouped, "--", "8 heads, full"),
    (both, "-", "gpt-oss-20b"),
]:
    ax.loglog(contexts, count / 2**30, style, label=label)
ax.axvline(128, color="gray", linewidth=0.8)
ax.set(xlabel="tokens in the cache", ylabel="GiB")
ax.legend()
alt = "Three lines on logarithmic axes: size of the cache against tokens. 8 heads lie a factor 8 below 64 heads; gpt-oss-20b follows them up to 128 tokens, a gray line, and lies a factor 2 lower at the right end."
sizes = [x[-1] / 2**30 for x in (everything, grouped, both)]
course.show(
    fig,
    alt=alt,
    summary=f"131,072 tokens: {sizes[0]:.0f} GiB; with groups {sizes[1]:.0f}; with the window too {sizes[2]:.2f}.",
)

# %% [markdown] exercise="cache_size" stars=1 minutes=8 goal="groups"
# ### Count the cache
#
# Write `cache_size(context, full, sliding, window, kv_heads, head_dim)`: bytes of the cache in bfloat16 after `context`
# tokens, for a model with so many `full` and `sliding` layers. A sliding layer keeps at most `window` positions.


# %% solution="cache_size"
def cache_size(context, full, sliding, window, kv_heads, head_dim):
    ### BEGIN SOLUTION
    positions = full * context + sliding * min(context, window)
    return 2 * 2 * kv_heads * head_dim * positions
    ### END SOLUTION


# %% check="cache_size"
lesson.check.cache_size(cache_size)

# %% [markdown]
# ## A head with nothing to say
#
# Now the feature that is easiest to overlook. The probabilities of a softmax add up to 1, *always*. Imagine a head that
# looks for an opening bracket. At most positions there is none. All scores are low, but the softmax only knows
# differences: it hands out its 100 % to the least unsuitable keys, and the head writes noise into the stream.

# %% [markdown] predict="shift"
# The scores (2, 1, 0) say "good match". Lower all three by 10, so that they say "no match at all". What happens to the
# probabilities?
#
# ANSWER: Nothing. The factor exp(-10) stands in every exponential and in their sum, and cancels. A plain softmax cannot
# see whether its best key is good, only that it is the best.

# %%
scores_S = jnp.array([2.0, 1.0, 0.0])
print(course.sig3(jax.nn.softmax(scores_S)), course.sig3(jax.nn.softmax(scores_S - 10)))
assert np.allclose(jax.nn.softmax(scores_S), jax.nn.softmax(scores_S - 10), atol=1e-6)

# %% [markdown]
# Models trained without a remedy invent one: heads with nothing to say put their probability on the *first token* of the
# text, and give it a value near zero (Xiao et al. 2023 found this and called it an attention sink). The token
# becomes a dump. That wastes a token, and in a sliding layer the first token soon drops out of view.
#
# gpt-oss builds the remedy in. Each head of each layer has one learned number, its **attention sink**. It joins the
# softmax as one more score, belongs to no position and has no value. What it receives is dropped. That is all: 64
# numbers a layer, 1536 among the 20.9 billion of gpt-oss-20b, trained like every other weight.

# %% [markdown]
# ### The numbers, in two ways
#
# Take scores 1 and 2 and a sink of 0.5. *First way*: append the sink as an extra column, softmax over all three, throw
# the column away. *Second way*: leave the scores alone and add exp(sink) to the denominator.

# %%
scores, sink = [1.0, 2.0], 0.5
three = [np.exp(s) for s in [*scores, sink]]
column = [e / sum(three) for e in three][:-1]
denominator = [np.exp(s) / (np.exp(1.0) + np.exp(2.0) + np.exp(sink)) for s in scores]
packaged = softmax_with_sink(jnp.array(scores), jnp.array(sink))
assert np.allclose(column, denominator) and np.allclose(denominator, packaged)
assert np.allclose(packaged, [0.231224, 0.628532], atol=1e-6)  # openai/gpt-oss gives these
print(course.sig3(packaged), "sum", course.sig3(packaged.sum()))

# %% [markdown]
# The two probabilities add up to 0.86. The other 14 % went to the sink, that is, nowhere: this is the **sink mass**. Two
# details matter to a port. The sink is *not* divided by the root of H, and it is never masked.

# %% [markdown] exercise="sink_softmax" stars=2 minutes=12 goal="sinks"
# ### Softmax with a sink
#
# Write `sink_softmax(scores_TS, sink)` for one head: each row is a query, `sink` is one number for all rows. Return the
# probabilities of the S keys. Choose either way, but it must work for scores of 1000, for which `exp` overflows, and for
# a row in which every score is minus infinity, where all probabilities are 0.


# %% solution="sink_softmax"
def sink_softmax(scores_TS, sink):
    ### BEGIN SOLUTION
    column_T1 = jnp.full((scores_TS.shape[0], 1), sink)
    return jax.nn.softmax(jnp.concatenate([scores_TS, column_T1], axis=1), axis=1)[:, :-1]
    ### END SOLUTION


# %% check="sink_softmax"
lesson.check.sink_softmax(sink_softmax)

# %% [markdown]
# ### The sink is a gate
#
# Compare with the plain softmax: the two probabilities still have the same *ratio*. Both have only been multiplied by the
# same number, 1 minus the sink mass. So a head with a sink returns what it would return without one, times a factor
# between 0 and 1: a volume knob. What sets the volume?

# %%
plain = jax.nn.softmax(jnp.array(scores))
volume = packaged / plain
print(course.sig3(volume))
assert np.allclose(volume, packaged.sum())

# %% [markdown]
# Write A for the sum of the exponentials of the scores. The volume is A / (A + exp(sink)), which is a *sigmoid*:
#
# $$\mathrm{volume} = \frac{1}{1 + e^{\,\mathrm{sink} - \log A}}$$
#
# The logarithm of A, called *logsumexp*, is a soft maximum of the scores. If the best score lies well above the sink, the
# knob is open; if all lie below, it closes. The sink is the *threshold* at which a match becomes worth reporting.

# %%
log_sum = jax.nn.logsumexp(jnp.array(scores))
assert np.allclose(jax.nn.sigmoid(log_sum - sink), volume)
shifted = [softmax_with_sink(scores_S - down, jnp.array(0.0)).sum() for down in (0, 3, 10)]
print("sum of probabilities as all scores fall:", course.sig3(shifted))
assert shifted[0] > 0.9 and shifted[2] < 0.001

# %% [markdown]
# This is the bracket head's way to say *no match*: lower all scores by 10, and where a plain softmax did not notice,
# the head falls silent. Absolute scores have a meaning again.
#
# It helps to say what a sink is *not*:
#
# - not a token: it takes no position, no place in the cache, and it cannot be read from, since it has no value;
# - not a bias of the scores: the same number added to all scores would cancel, as you saw;
# - not a constant share: the number is fixed after training, but what it receives depends on the competition. Against a
#   score of 8 a sink of 0.5 gets nearly nothing, against a score of -8 nearly everything.

# %%
best = jnp.linspace(-6, 10, 100)
fig, ax = course.figure(6, 2.8)
for sink, style in [(0.0, ":"), (2.0, "--"), (4.0, "-")]:
    ax.plot(best, softmax_with_sink(best[:, None], jnp.full(100, sink)).sum(-1), style, label=f"sink {sink:.0f}")
ax.axhline(1, color="gray", linewidth=0.8)
ax.set(xlabel="score of the only key", ylabel="its probability")
ax.legend()
alt = "Three S-shaped curves: probability of a single key against its score, for sinks 0, 2 and 4. Each passes one half where the score equals the sink. A gray line at 1 is the plain softmax."
half = softmax_with_sink(jnp.array([4.0]), jnp.array(4.0))
course.show(
    fig, alt=alt, summary=f"A key whose score equals the sink gets {half[0]:.2f}; a plain softmax would give it 1."
)

# %% [markdown] predict="first_position"
# Position 0 sees one key, its own. How much of the value of position 0 does a plain softmax take? And with a sink?
#
# ANSWER: Plain: all of it, whatever the score; a softmax over one number is 1. With a sink: the sigmoid of score minus
# sink, anything between 0 and 1. It is the gray line against the curves in the figure.

# %% [markdown] exercise="sink_mass" stars=2 minutes=8 goal="sinks"
# ### How much goes nowhere?
#
# Write `sink_mass(scores_S, sink)` for one query: the share that the sink receives. Do it from the gate, in one
# number, without computing any probability of a key. Scores may be as large as 1000.


# %% solution="sink_mass"
def sink_mass(scores_S, sink):
    ### BEGIN SOLUTION
    return jax.nn.sigmoid(sink - jax.nn.logsumexp(scores_S))
    ### END SOLUTION


# %% check="sink_mass"
lesson.check.sink_mass(sink_mass)

# %% [markdown]
# ## Everything at once
#
# Groups, a window of 3, and a sink for each query head, in one loop over heads and queries, against one call. The sinks
# of a group's heads differ: they belong to *query* heads.

# %%
sink_N = jnp.array([-1.0, 0.0, 1.0, 2.0])
looped_TNH = np.zeros((T, 4, H))
for head in range(4):
    for t in range(T):
        seen = slice(max(0, t - 2), t + 1)
        scores = key_SKH[seen, head // G] @ query_TNH[t, head] / jnp.sqrt(H)
        probs = softmax_with_sink(scores, sink_N[head])
        looped_TNH[t, head] = probs @ value_SKH[seen, head // G]

# %%
visible_TS = attention_mask(jnp.arange(T)[None], jnp.arange(T)[None], 3)[0]
column_NT1 = jnp.broadcast_to(sink_N[:, None, None], (4, T, 1))
with_column = jnp.concatenate([jnp.where(visible_TS, scores_NTS, -jnp.inf), column_NT1], axis=-1)
vectorized_TNH = jnp.einsum("nts,snh->tnh", jax.nn.softmax(with_column)[..., :-1], values_SNH)
packaged, probs = attend(
    query_TNH.reshape(1, T, K, G, H), key_SKH[None], value_SKH[None], sink_N.reshape(K, G), visible_TS[None]
)
assert np.allclose(looped_TNH, vectorized_TNH, atol=1e-5)
assert np.allclose(vectorized_TNH, packaged.reshape(T, 4, H), atol=1e-5)

# %% [markdown]
# Whatever you do to it, two things must hold: probabilities and sink mass add up to 1, and nothing outside the
# window gets anything.

# %%
mass = jax.nn.sigmoid(sink_N[:, None] - jax.nn.logsumexp(jnp.where(visible_TS, scores_NTS, -jnp.inf), axis=-1))
assert np.allclose(probs.reshape(4, T, T).sum(-1) + mass, 1, atol=1e-5)
assert (probs.reshape(4, T, T)[:, ~visible_TS] == 0).all()

# %% [markdown]
# ## In a trained model
#
# `Record(attention=True)` returns the probabilities of every head. What is missing from 1 in each row is the sink's.

# %%
model, tokenizer = lesson.model(first_layers=None if lesson.builtin else 4)
tokens = tokenizer.encode_ordinary("Tom had a red ball. Anna had a blue ball. Tom gave his red ball")
count = len(tokens)
seen, _ = run_recorded(model, jnp.array([tokens]), jnp.array([count]), record=Record(attention=True))
probs_LNTS = np.asarray(seen.attention[:, 0]).reshape(model.config.num_layers, -1, count, count)
mass_LNT = 1 - probs_LNTS.sum(axis=-1)
assert mass_LNT.min() > -1e-5 and mass_LNT.max() < 1 + 1e-5
assert not np.triu(probs_LNTS, 1).any()  # no head reads ahead

# %% [markdown]
# An **attention map** has queries down and keys across. We put the sink's column first, so that every row adds up to 1.
# Read it row by row: what does *this* token look at, and how much of its attention goes nowhere?

# %%
layer, head = 1, 0
table_TS = np.concatenate([mass_LNT[layer, head][:, None], probs_LNTS[layer, head]], axis=1)
assert np.allclose(table_TS.sum(axis=1), 1, atol=1e-5)
words = [tokenizer.decode([token]) for token in tokens]
fig, ax = course.figure(6.4, 5)
image = ax.imshow(table_TS, vmin=0)
ax.set(xticks=range(count + 1), yticks=range(count), yticklabels=words, ylabel="query", xlabel="sink, then keys")
ax.set_xticklabels(["SINK", *words], rotation=90)
ax.axvline(0.5, color="white", linewidth=2)
fig.colorbar(image, label="share of attention")
alt = "Attention map of one head: tokens down as queries; across, the sink's column and then the tokens as keys. All is zero right of the diagonal; the sink's column is bright in the first row."
first, mean = table_TS[0, 0], table_TS[:, 0].mean()
course.show(
    fig,
    alt=alt,
    summary=f"Layer {layer}, head {head}: the sink takes {first:.2f} of the first token, {mean:.2f} on average.",
)

# %% [markdown]
# The first token has nobody but itself to look at, and with a plain softmax would have to. Further down, look for the
# rows that are bright in one place: such a head has found what it was looking for. What does *his* look at? And which
# rows are bright in the sink's column only? There the head passed.
#
# Now the sink's average for all heads of all layers:

# %%
mean_LN = mass_LNT.mean(axis=-1)
fig, ax = course.figure(5, 2.4)
image = ax.imshow(mean_LN, vmin=0, aspect="auto")
ax.set(xlabel="head", ylabel="layer", xticks=range(mean_LN.shape[1]), yticks=range(len(mean_LN)))
fig.colorbar(image, label="mean sink mass")
alt = "Heat map, layers down, heads across: mean sink mass on one short text."
course.show(
    fig,
    alt=alt,
    summary=f"Heads let between {mean_LN.min():.2f} and {mean_LN.max():.2f} of their attention go nowhere.",
)
if lesson.builtin:
    assert mean_LN.max() > 2 * mean_LN.min()

# %% [markdown]
# So heads differ: some nearly always speak, others are silent much of the time. One text of two dozen tokens is no statistics,
# and the built-in model is tiny. Try texts of your own above, and with `GPTOSS_CHECKPOINT` the real heads.
#
# Two warnings for the use of such maps. A bright cell says that a value was *read*, not that it mattered; lesson 14
# tests what matters. And a tool that divides each row by its sum before drawing hides the sink, and shows a silent head as
# a busy one.

# %% [markdown]
# ## What you have now
#
# A position reads from the others through 64 heads, whose keys are shared by eights; half of the layers look back 128
# positions only; and every head has a threshold below which it keeps quiet. What attention has gathered, the experts
# now work on: lesson 06 picks them.
