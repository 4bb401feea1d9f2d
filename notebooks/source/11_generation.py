# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: Generation
#     minutes: 60
#     seconds: 15
#     needs: Lessons 05 and 09; lesson 02 for the last section.
#     modules: [cache, sampling, decoding]
#     goals:
#       loop: Write the loop that generates text, and say what a KV cache saves and what it leaves unchanged.
#       ring: Keep a sliding window in a ring of slots, also when a chunk is longer than the ring.
#       temperature: Say what temperature does to probabilities, and what happens at its two ends.
#       nucleus: Restrict sampling by top-k and top-p, and say which tokens each of them keeps.
# ---

# %% [markdown]
# The model of lesson 09 returns one logit for each token of the vocabulary. It writes nothing. Writing is a loop around
# it: pick a token, append it, ask again. This lesson builds that loop twice, slowly and with a memory, proves that
# both say the same, and then looks at the one place where chance comes in.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import gptoss_jax as gj
from gptoss_jax.attention import attend, attention_mask
from gptoss_jax.cache import KVCache
from gptoss_jax.config import GPT_OSS_20B
from gptoss_jax.harmony import Conversation, Encoding, Message, Role
from gptoss_jax.model import run_recorded
from gptoss_jax.roofline import cache_bytes, checkpoint_bytes
from gptoss_jax.sampling import Sampling, keep_likely, sample

# %% [markdown]
# ## The loop
#
# We use the small random model of lesson 09: 4 layers, 320 tokens, a window of 16. What it writes means nothing, which
# keeps our eyes on the mechanism. Taking the most likely token every time is **greedy decoding**.

# %%
folder = course.data("golden")
model, _ = gj.load(folder, dtype="float32")
prompt = np.load(folder / "tokens.npy")[:20].tolist()
looped = list(prompt)
for _ in range(8):
    last_V = model(looped)[-1]
    looped.append(int(jnp.argmax(last_V)))

# %% [markdown]
# The same without a loop over time: one pass over the finished text has the logits of *every* position, because no
# position sees a later one. So a single pass can check all eight choices. And the package does it in one call. Before
# we compare tokens, we make sure that no choice was a close call: the best logit must lead by a clear margin.

# %%
logits_TV = model(looped)[len(prompt) - 1 : -1]
vectorized = jnp.argmax(logits_TV, axis=-1).tolist()
packaged = list(gj.generate(model, prompt, 8))
two_best = jax.lax.top_k(logits_TV, 2)[0]
assert (two_best[:, 0] - two_best[:, 1]).min() > 1e-3
assert looped[len(prompt) :] == vectorized == packaged

# %% [markdown] predict="positions"
# The prompt has 20 tokens and 8 were written. The slow loop reads the whole text again for each new token. How many
# positions did the model compute, and how many were really needed?
#
# ANSWER: 20 + 21 + ... + 27 = 188, and 27 were needed: the 20 of the prompt and seven of the new ones (the eighth is
# never read). For a prompt of 1000 and an answer of 1000 the slow loop computes 750 times too much.

# %%
slow = sum(range(len(prompt), len(prompt) + 8))
needed = len(prompt) + 7
print(f"positions computed: {slow}; needed: {needed}")
assert (slow, needed) == (188, 27)

# %% [markdown] exercise="greedy_loop" stars=1 minutes=8 goal="loop"
# ### Write the loop
#
# Write `greedy_loop(next_logits, prompt, count, stop_tokens)`. `next_logits(tokens)` takes a list of tokens and returns the
# logits of the token that follows. Return the list of new tokens, at most `count`. A token of `stop_tokens` is still
# returned, and then nothing follows. Leave `prompt` as it is.


# %% solution="greedy_loop"
def greedy_loop(next_logits, prompt, count, stop_tokens):
    ### BEGIN SOLUTION
    new = []
    while len(new) < count and not (new and new[-1] in stop_tokens):
        new.append(int(np.argmax(next_logits([*prompt, *new]))))
    return new
    ### END SOLUTION


# %% check="greedy_loop"
lesson.check.greedy_loop(greedy_loop)

# %% [markdown]
# ## What may be kept
#
# Which results of the earlier positions does a new token need? Only what attention reads: their keys and values. These
# depend on earlier tokens alone, so they never change once computed. Everything else about an old position (its query,
# its experts, its logits) has done its work.
#
# The **KV cache** is the store of these keys and values. Here are four positions of one head, with numbers that fit on the
# page. Each step appends one key and one value, then lets one query read all that is stored:

# %%
key_SH = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]], np.float32)
value_SH = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 1.0], [4.0, 1.0]], np.float32)
keys, values, looped_TH = [], [], []
for key, value in zip(key_SH, value_SH, strict=True):
    keys.append(key)
    values.append(value)
    weights = [np.exp(key @ k / np.sqrt(2)) for k in keys]  # the query equals the key here
    looped_TH.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
print(course.sig3(looped_TH))

# %% [markdown]
# All at once with a causal mask, as in lesson 05, and with the package's function. A sink of minus infinity has no
# share, so it drops out.

# %%
scores_TS = np.where(np.tri(4) > 0, key_SH @ key_SH.T / np.sqrt(2), -np.inf)
vectorized_TH = jax.nn.softmax(scores_TS, axis=-1) @ value_SH
place = jnp.arange(4)[None]
query = jnp.asarray(key_SH)[None, :, None, None]  # [B, T, K, G, H]
key, value = jnp.asarray(key_SH)[None, :, None], jnp.asarray(value_SH)[None, :, None]
packaged_TH = attend(query, key, value, jnp.full((1, 1), -jnp.inf), attention_mask(place, place, None))[0][0, :, 0, 0]
assert np.allclose(looped_TH, vectorized_TH, atol=1e-5)
assert np.allclose(vectorized_TH, packaged_TH, atol=1e-5)

# %% [markdown]
# ## Cached equals uncached
#
# Now the whole model. The function below feeds a text in chunks of any size; the cache travels from one chunk to the
# next. The first run takes one token at a time, which is **decode**, the second takes up to 24 at a time, which is
# **prefill**. Both must give the logits of the model without a cache. This is the assertion that every cache must pass.


# %%
def through_cache(tokens, size):
    cache, parts = KVCache.create(model.config, batch=1, max_len=64), []
    for start in range(0, len(tokens), size):
        chunk = tokens[start : start + size]
        output, logits = run_recorded(model, jnp.array([chunk]), jnp.array([len(chunk)]), cache)
        cache = output.cache
        parts.append(logits[0])
    return jnp.concatenate(parts)


# %%
text = np.load(folder / "tokens.npy")[:48].tolist()
whole_TV = model(text)
assert np.allclose(through_cache(text, 1), whole_TV, atol=1e-3)
assert np.allclose(through_cache(text, 24), whole_TV, atol=1e-3)
print("48 tokens, one by one and in chunks of 24: the logits of the uncached model")

# %% [markdown] predict="why_long"
# The text of this test has 48 tokens. Why would 16 have been a poor choice for this model?
#
# ANSWER: Its window is 16. Up to there a sliding layer forgets nothing, so a ring that forgets the wrong position would
# pass. Test lengths must go beyond every limit in the model: the window, and here also a chunk longer than the window.

# %% [markdown]
# ## The ring
#
# Half of the layers look back at W positions only. For them the cache needs W slots and no more: position p goes to
# slot p mod W, over the one that just left the window. This is a **ring cache**. Nothing is ever moved. Watch it with W = 4:

# %%
W = 4
slots, history = [-1] * W, []
for position in range(10):
    slots[position % W] = position
    history.append(list(slots))
course.table([(t, *row) for t, row in enumerate(history)], header=("after", *(f"slot {s}" for s in range(W))))

# %% [markdown] predict="oldest"
# After position 6 the slots hold 4, 5, 6, 3. They are out of order. Does attention mind?
#
# ANSWER: No. Softmax and sum do not depend on the order of the keys. Where a token stands is already in its key, which
# was rotated for its true position before it was stored (lesson 04). Only the mask must know which position a slot
# holds.

# %% [markdown]
# The mask needs the positions, and they need not be stored. With `length` tokens seen, the newest position is
# `length - 1`, and slot s holds the newest position that leaves the remainder s. In one line, with a negative number
# for an empty slot; then what the package's cache says when the same tokens are written to it:

# %%
last = np.arange(10)[:, None]
vectorized = last - (last - np.arange(W)) % W
config = gj.ModelConfig(**{**vars(model.config), "sliding_window": W})
cache, one = KVCache.create(config, batch=1, max_len=16), jnp.ones((1, 1, 1, 64))
packaged = []
for position in range(10):
    cache, _, _, positions = cache.extend_ring(0, one * position, one, jnp.array([1]))
    cache = cache.advance(jnp.array([1]))
    packaged.append(cache.ring_key[0, 0, :, 0, 0])
assert (np.maximum(vectorized, -1) == history).all()
assert (np.array(packaged)[W:] == history[W:]).all()
assert sorted(map(int, positions[0])) == [5, 6, 7, 8, 9]  # the old ring, then the new token

# %%
shown = np.where(np.array(history) < 0, np.nan, history)
fig, ax = course.figure(6, 2.6)
image = ax.imshow(shown.T, aspect="auto")
ax.set(xlabel="tokens seen, less one", ylabel="slot", xticks=range(10), yticks=range(W))
fig.colorbar(image, label="position held")
alt = "Heat map: ten steps across, four slots down; color is the position that a slot holds. Each step changes one slot, in turn; blank is empty."
changed = (np.diff(np.array(history), axis=0) != 0).sum(axis=1)
course.show(fig, alt=alt, summary=f"Every step writes {changed.max()} of {W} slots and moves none.")

# %% [markdown] predict="write_first"
# A chunk of 4 new tokens arrives at a full ring of 4 slots. Tempting: write all four, then let their queries read the
# ring. What goes wrong?
#
# ANSWER: The first of the four should see the three positions before it, but they have just been overwritten. So the
# package lets the chunk attend over the *old ring followed by the chunk*, W + C keys, and writes afterwards. The mask
# hides what lies outside each query's window.

# %% [markdown] exercise="ring_append" stars=3 minutes=15 goal="ring"
# ### Append a chunk to a ring
#
# Write `ring_append(ring_WH, length, chunk_CH)`: the ring after a chunk of C tokens has been stored. `length` tokens came
# before, so the first token of the chunk has position `length`. The chunk may be longer than the ring: then only its
# last W tokens can stay. Return a new NumPy array.


# %% solution="ring_append"
def ring_append(ring_WH, length, chunk_CH):
    ### BEGIN SOLUTION
    ring = np.array(ring_WH)
    window, count = len(ring), len(chunk_CH)
    for c in range(max(0, count - window), count):
        ring[(length + c) % window] = chunk_CH[c]
    return ring
    ### END SOLUTION


# %% check="ring_append"
lesson.check.ring_append(ring_append)

# %% [markdown]
# ## What the cache costs
#
# For gpt-oss-20b a position takes 2048 bytes in each layer that keeps it. The figure shows the cache of one sequence,
# with rings in the sliding layers and without, beside the weights. By hand first, then the package's formula:

# %%
context, row = 10_000, 2 * 8 * 64 * 2  # key and value, 8 heads, 64 numbers, 2 bytes
looped = sum(row * (min(context, 128) if i % 2 == 0 else context) for i in range(24))
vectorized = row * np.where(np.arange(24) % 2 == 0, 128, context).sum()
assert looped == vectorized == cache_bytes(GPT_OSS_20B, context)

# %%
contexts = 2 ** np.arange(4, 18)
with_ring, without = (
    np.array([cache_bytes(GPT_OSS_20B, int(n), ring=ring) for n in contexts]) / 2**30 for ring in (True, False)
)
weights = checkpoint_bytes(GPT_OSS_20B) / 2**30
fig, ax = course.figure(6.5, 3)
ax.plot(contexts, without, "o--", label="every layer keeps all")
ax.plot(contexts, with_ring, "s-", label="rings in sliding layers")
ax.axhline(weights, color="gray", linestyle=":", label="weights")
ax.set(xscale="log", yscale="log", xlabel="tokens in the cache", ylabel="GiB")
ax.legend()
alt = "Two rising lines on logarithmic axes: size of the cache against tokens, with rings and without; they part at 128 tokens. A dotted line at 12.8 GiB marks the weights, above both."
course.show(
    fig,
    alt=alt,
    summary=f"At 131,072 tokens: {with_ring[-1]:.1f} GiB with rings, {without[-1]:.1f} without; weights {weights:.1f}.",
)
assert 1.9 < without[-1] / with_ring[-1] < 2

# %% [markdown] predict="many_users"
# The weights are read by all users together, the cache is each user's own. From how many users with 8,192 tokens each
# do the caches of 20b outgrow its weights?
#
# ANSWER: One cache is 0.19 GiB, so 12.8 / 0.19 = 67 users. Without rings it would be 34. Serving many people is a
# question of cache, serving one is a question of weights: lesson 17.

# %%
users = checkpoint_bytes(GPT_OSS_20B) / cache_bytes(GPT_OSS_20B, 8192)
assert 66 < users < 68

# %% [markdown]
# ## From logits to a token
#
# Greedy decoding is safe and dull: it repeats itself, and it can never give two answers. **Sampling** draws the token
# from the model's probabilities instead. The **temperature** divides the logits before the softmax. Five tokens, by
# hand and vectorized:

# %%
logits_V = np.array([3.0, 2.0, 1.0, 0.0, -1.0], np.float32)
rows = []
for temperature in (0.5, 1.0, 2.0):
    weights = [np.exp(logit / temperature) for logit in logits_V]
    looped_V = [weight / sum(weights) for weight in weights]
    assert np.allclose(looped_V, jax.nn.softmax(logits_V / temperature), atol=1e-6)
    rows.append((temperature, *looped_V))
course.table(rows, header=("temperature", *(f"token {v}" for v in range(5))))

# %% [markdown]
# The package goes straight to a token: `sample` takes logits and a `Sampling`. To see its probabilities we must draw
# often: 4,000 rows with the same logits, then count. Each row and position has its own random number, so the rows
# differ although the seed is one.

# %%
crowd_BV = jnp.broadcast_to(logits_V, (4000, 5))
positions = jnp.zeros(4000, jnp.int32)
for temperature, *expected_V in rows:
    drawn = sample(crowd_BV, positions, Sampling.checked(temperature), num_tokens=5)
    share_V = np.bincount(drawn, minlength=5) / 4000
    assert np.abs(share_V - expected_V).max() < 0.03
print("4000 draws agree with the table within 0.03")

# %% [markdown] predict="ends"
# What is left of the model's opinion at a temperature close to 0, and at a very large one?
#
# ANSWER: Near 0 the differences of the logits grow without bound, and all probability goes to the largest: greedy
# decoding. At a large temperature all differences vanish and every token is as likely as any other. The order of the
# tokens never changes in between.

# %% [markdown] exercise="tempered" stars=1 minutes=8 goal="temperature"
# ### Both ends of the temperature
#
# Write `tempered(logits_V, temperature)`: the probabilities as a NumPy array. Temperature 0 is allowed and means
# greedy: probability 1 for the largest logit, the lowest id if several are equal. Logits may be as large as 1,000 and
# temperatures as small as 0.001, and no result may be infinite or NaN.


# %% solution="tempered"
def tempered(logits_V, temperature):
    ### BEGIN SOLUTION
    if temperature == 0:
        return np.eye(len(logits_V))[np.argmax(logits_V)]
    scaled = (logits_V - np.max(logits_V)) / temperature
    weights = np.exp(scaled)
    return weights / weights.sum()
    ### END SOLUTION


# %% check="tempered"
lesson.check.tempered(tempered)

# %% [markdown]
# ## Cutting off the tail
#
# The vocabulary of gpt-oss has 201,088 rows. Each unlikely token has almost no probability, but together they have
# some, and one bad token can derail a text. Two rules cut the tail off. **Top-k** keeps the k most likely tokens.
# **Top-p** keeps the fewest tokens that together hold at least probability p, so it keeps few where the model is sure
# and many where it is not. First top-k, in a loop, vectorized, and with the package:

# %%
looped = [i for i in range(5) if sum(other > logits_V[i] for other in logits_V) < 2]
vectorized = np.flatnonzero(logits_V >= np.sort(logits_V)[-2])
packaged = np.flatnonzero(np.isfinite(keep_likely(jnp.array([logits_V]), top_k=2, top_p=1.0)[0]))
assert looped == vectorized.tolist() == packaged.tolist() == [0, 1]

# %% [markdown] predict="sure"
# One model is sure (probabilities 0.97, 0.01, 0.01, 0.01), another is not (0.25 each). How many tokens does top-p with
# p = 0.9 keep for each, and how many does top-k with k = 3?
#
# ANSWER: Top-p keeps 1 and 4. Top-k keeps 3 in both cases: two bad ones where the model is sure, one good one too few
# where it is not.

# %%
sure_BV = jnp.log(jnp.array([[0.97, 0.01, 0.01, 0.01], [0.28, 0.26, 0.24, 0.22]]))
kept_B = np.isfinite(keep_likely(sure_BV, top_k=0, top_p=0.9)).sum(axis=1)
print("top-p keeps", kept_B, "tokens; top-k keeps", np.isfinite(keep_likely(sure_BV[1:], 3, 1.0)).sum())
assert kept_B.tolist() == [1, 4]

# %% [markdown] exercise="top_p_mask" stars=2 minutes=12 goal="nucleus"
# ### Top-p
#
# Write `top_p_mask(probs_V, p)`: a boolean array, True for the tokens to keep. Keep the fewest tokens whose
# probabilities sum to at least p, the most likely first. The entries of the result belong to the token ids, in the
# order of `probs_V`. No two probabilities are equal.


# %% solution="top_p_mask"
def top_p_mask(probs_V, p):
    ### BEGIN SOLUTION
    keep, total = np.zeros(len(probs_V), bool), 0.0
    for token in np.argsort(-probs_V):
        keep[token] = True
        total += probs_V[token]
        if total >= p:
            break
    return keep
    ### END SOLUTION


# %% check="top_p_mask"
lesson.check.top_p_mask(top_p_mask)

# %% [markdown]
# Now a trained model: the built-in one, or your own checkpoint. It continues two texts. One breaks off in the middle of a
# sentence, where much is possible. The other is a question in the Harmony format (lesson 02), up to the place where the
# assistant begins, where the format leaves no choice.

# %%
real, tokenizer = lesson.model(first_layers=None if lesson.builtin else 4)
encoding = Encoding(tokenizer)
question = Conversation([Message.from_role_and_content(Role.USER, "Sort: 5 3 9")])
asked = encoding.render_conversation_for_completion(question, Role.ASSISTANT)
starts = [tokenizer.encode_ordinary("In the beginning God created the heaven and"), asked]
probs_2V = jnp.stack([jax.nn.softmax(real(start)[-1]) for start in starts])
kept_2V = jnp.isfinite(keep_likely(jnp.log(probs_2V), top_k=0, top_p=0.9))
assert (jnp.where(kept_2V, probs_2V, 0).sum(axis=1) >= 0.899).all()
if lesson.builtin:
    assert kept_2V[1].sum() < kept_2V[0].sum()

# %% [markdown]
# The bars show the eight likeliest next tokens of each. Those that top-p 0.9 keeps stand in full color, the others pale.

# %% tags=["nbval-ignore-output"]
fig, axes = course.figure(8, 3, ncols=2, sharey=True)
for ax, title, probs_V, kept_V in zip(axes, ("open sentence", "Harmony header"), probs_2V, kept_2V, strict=True):
    likely = jnp.argsort(-probs_V)[:8]
    for i, token in enumerate(likely):
        ax.bar(i, probs_V[token], color="#00417d", alpha=1.0 if kept_V[token] else 0.3)
    ax.set(title=f"{title}: keeps {int(kept_V.sum())}", xticks=range(8))
    ax.set_xticklabels([tokenizer.token_text(int(t)).strip() or "space" for t in likely], rotation=45, ha="right")
axes[0].set(ylabel="probability")
alt = "Two bar charts: probabilities of the eight likeliest next tokens in an open sentence and at a Harmony header, where one token has nearly all; pale bars are dropped by top-p."
counts = kept_2V.sum(axis=1)
course.show(fig, alt=alt, summary=f"Top-p 0.9 keeps {counts[0]} tokens in the sentence and {counts[1]} at the header.")

# %% [markdown]
# ## Chance that can be repeated
#
# A token depends on the seed, its row and its position, and on nothing else: not on how many tokens were asked for,
# and not on what else is computed. The same seed gives the same text, another seed another one.

# %%
settings = {"temperature": 1.0, "top_p": 0.9}
first, again, other = (list(gj.generate(model, prompt, 12, seed=s, **settings)) for s in (0, 0, 1))
assert first == again and first != other
assert list(gj.generate(model, prompt, 6, seed=0, **settings)) == first[:6]

# %% [markdown]
# ## When to stop
#
# A model never stops by itself; it can only write a token that *means* stop, a **stop token**, and the loop must watch
# for it. In Harmony (lesson 02) two tokens end the model's turn: `<|return|>` after the answer, and `<|call|>` after a tool
# call. `<|end|>` does not: it only closes one message, and after the reasoning the answer follows.

# %%
stop = encoding.stop_tokens_for_assistant_actions()
names = sorted(tokenizer.token_text(token) for token in stop)
print(names)
assert names == ["<|call|>", "<|return|>"]

# %% [markdown]
# The same question as above, and the model's continuation. The built-in model is tiny: its answer shows the form, not
# knowledge.

# %% tags=["nbval-ignore-output"]
answer = list(gj.generate(real, asked, 48, stop_tokens=stop))
print(tokenizer.decode(answer))
assert len(answer) <= 48 and not set(answer[:-1]) & set(stop)

# %% [markdown] predict="forgotten_stop"
# What does a program show that stops at `<|end|>` as well? And one that stops at nothing?
#
# ANSWER: The first ends after the reasoning and never shows an answer. The second goes on after `<|return|>`: the model
# invents the user's next question and answers that, until the room is used up.

# %% [markdown]
# ## What to remember
#
# - Keys and values of earlier positions never change, so they are kept. The logits stay the same.
# - A sliding layer needs a ring of W slots. A chunk reads the old ring and itself, and is written afterwards.
# - Temperature changes how sure the model is, never the order. Top-p adapts to how sure it is.
# - Test a cache beyond its window, and with chunks longer than it.
