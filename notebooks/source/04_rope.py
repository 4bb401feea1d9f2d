# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: RoPE and YaRN
#     minutes: 45
#     seconds: 10
#     needs: Lesson 00, and what sine and cosine are.
#     modules: [rope]
#     goals:
#       turn: Rotate queries and keys by hand, in the layout that gpt-oss uses.
#       relative: Show that a score depends on the distance of two positions and on nothing else.
#       yarn: Derive YaRN's frequencies from the number of turns, and say why its bounds are not rounded.
#       concentration: Say what the factor 0.1 ln s + 1 does, and to which numbers.
# ---

# %% [markdown]
# In attention, a position compares its *query*, a vector that says what it looks for, with the *keys* of other
# positions, vectors that say what they offer. The **score** of a pair is the dot product of query and key. Lesson 05
# builds on it; today needs only that product, and one observation: it does not know where anything stands. *Dog bites
# man* and *man bites dog* have the same queries and the same keys.
#
# Position must therefore enter the vectors. gpt-oss turns them, like the hands of a clock.

# %%
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from gptoss_jax.config import GPT_OSS_20B, TINY
from gptoss_jax.rope import concentration, inverse_frequencies, rotary_table, rotate, yarn_bounds

# %% [markdown]
# ## One pair of numbers
#
# Take vectors of two numbers: arrows in a plane. At position p turn the arrow by p times a fixed angle. Let it be 30
# degrees, one hour of a clock.


# %%
HOUR = math.radians(30)


def turn_slowly(arrow, position, angle=HOUR):
    a, b = arrow
    cos, sin = math.cos(position * angle), math.sin(position * angle)
    return a * cos - b * sin, b * cos + a * sin


for position in (0, 1, 3, 6):
    print(position, course.sig3(np.round(turn_slowly((1.0, 0.0), position), 6)))
assert np.allclose(turn_slowly((1.0, 0.0), 12), (1, 0))  # a full turn

# %% [markdown] predict="clock"
# Query and key are both the arrow (1, 0). The query stands at position 5, the key at position 3. What is the score? What
# is it for positions 105 and 103?
#
# ANSWER: 0.5 in both cases. The dot product of two arrows of length 1 is the cosine of the angle between them, and that
# angle is 2 times 30 degrees wherever the pair stands. Positions have entered, but only their *distance* can be seen.

# %%
for i, j in [(5, 3), (105, 103), (5, 2), (5, 5)]:
    score = np.dot(turn_slowly((1.0, 0.0), i), turn_slowly((1.0, 0.0), j))
    assert np.isclose(score, math.cos(math.radians(30) * (i - j)))
    print(i, j, course.sig3(round(score, 6)))

# %% [markdown]
# This is **rotary position embedding**, rope for short (Su et al. 2021). It has no weights to learn. It is applied to
# queries and keys, never to the values that attention hands on, and again in every layer, because each layer makes its
# queries and keys anew.

# %% [markdown]
# ## Many pairs, many speeds
#
# A clock with one hand cannot tell 5 from 17. Clocks therefore have hands of different speeds, and so do heads: the 64
# numbers of a head are 32 pairs, and pair i turns by
#
# $$f_i = 150000^{-i/32}$$
#
# radians for each step of the position. Pair 0 turns by one radian, 57 degrees. The last turns by less than a
# hundred-thousandth of that. A smaller head, with three pairs, to see on the page:

# %%
half = 3
frequency_i = [150_000 ** (-i / half) for i in range(half)]
print(course.sig3(frequency_i))

# %% [markdown]
# Which numbers form a pair? Here a port goes wrong easily. The paper pairs *neighbors*: (0, 1), (2, 3), (4, 5). gpt-oss
# pairs the two *halves* of the head: (0, 3), (1, 4), (2, 5), so number i goes with number i + H/2. The loop:


# %%
def rotate_slowly(x_H, position):
    x_H, out = list(x_H), [0.0] * 2 * half
    for i in range(half):
        angle = position * frequency_i[i]
        out[i], out[i + half] = turn_slowly((x_H[i], x_H[i + half]), 1, angle)
    return out


x_TH = np.arange(1.0, 13).reshape(2, 6)  # two positions
looped_TH = np.array([rotate_slowly(row, position=p) for p, row in enumerate(x_TH)])
print(course.sig3(looped_TH[1]))

# %% [markdown]
# Without the loop: an arrow (a, b) is the complex number a + bi, and turning is multiplication by a number of length 1.
# The package works with a table of cosines and sines, made once for all heads and layers.

# %%
arrows_Ti = x_TH[:, :half] + 1j * x_TH[:, half:]
turned_Ti = arrows_Ti * np.exp(1j * np.arange(2)[:, None] * np.array(frequency_i))
vectorized_TH = np.concatenate([turned_Ti.real, turned_Ti.imag], axis=1)
plain = dataclasses.replace(TINY, head_dim=6, rope_factor=1.0)  # no YaRN yet
cos_Ti, sin_Ti = rotary_table(jnp.arange(2), plain)
packaged_TH = rotate(jnp.asarray(x_TH)[:, None], cos_Ti, sin_Ti)[:, 0]  # one head
assert np.allclose(looped_TH, vectorized_TH) and np.allclose(vectorized_TH, packaged_TH, atol=1e-5)

# %% [markdown] predict="wrong_pairs"
# A port that pairs neighbors instead of halves turns every vector by the right angles, only in other planes. Its scores
# still depend on distance alone. Is it an equally good model?
#
# ANSWER: It would be, if it had been *trained* so. The learned weights have put what belongs together into numbers i and
# i + 32. With the other pairing a slow pair's partner turns fast, and the model reads noise. At position 0 all is
# right, since nothing turns there; the farther into the text, the worse.

# %% [markdown]
# A wheel for each of three speeds shows what a head of gpt-oss has to tell positions apart. Every dot is one of the
# positions 0 to 40, the later the brighter.

# %%
frequencies = inverse_frequencies(dataclasses.replace(GPT_OSS_20B, rope_factor=1.0))
circle = np.linspace(0, 2 * np.pi, 100)
fig, axes = course.figure(7, 2.6, ncols=3)
for ax, i in zip(axes, (0, 8, 14), strict=True):
    angle = np.arange(41) * frequencies[i]
    ax.plot(*np.cos([circle, circle - np.pi / 2]), color="lightgray", linewidth=0.5, zorder=0)
    ax.scatter(np.cos(angle), np.sin(angle), c=np.arange(41), s=12)
    ax.set(title=f"pair {i}", aspect="equal", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), xticks=[], yticks=[])
alt = "Three circles with 41 dots, the positions 0 to 40. Pair 0: dots all around. Pair 8: a third of a circle. Pair 14: a short arc near the start."
turns = 40 * frequencies[[0, 8, 14]] / (2 * np.pi)
course.show(
    fig,
    alt=alt,
    summary=f"In 40 positions the three pairs make {turns[0]:.1f}, {turns[1]:.2f} and {turns[2]:.3f} turns.",
)

# %% [markdown]
# Fast pairs tell neighbors apart but repeat; slow pairs never repeat but hardly move. Together they work like the
# digits of a number.

# %% [markdown] exercise="rotate" stars=2 minutes=12 goal="turn"
# ### Rotate a head
#
# Write `turn(x_TH, angle_Ti)`: `x_TH` holds a vector of H numbers for each position, `angle_Ti` the angle of each of
# its H/2 pairs. Pairs are (i, i + H/2). Return the turned vectors, in the same layout.


# %% solution="rotate"
def turn(x_TH, angle_Ti):
    ### BEGIN SOLUTION
    first, second = jnp.split(x_TH, 2, axis=-1)
    cos, sin = jnp.cos(angle_Ti), jnp.sin(angle_Ti)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    ### END SOLUTION


# %% check="rotate"
lesson.check.rotate(turn)

# %% [markdown]
# ## Only the distance counts
#
# With 32 pairs the score is a sum of 32 such cosines. Take a random query and a random key, put the query at each of 64
# positions and the key too, and write all scores into a table. If only distance matters, every diagonal of the
# table is constant.

# %%
query_H, key_H = jax.random.normal(jax.random.key(1), (2, 64))
cos, sin = rotary_table(jnp.arange(64), GPT_OSS_20B)
everywhere = lambda x_H: rotate(jnp.tile(x_H, (64, 1))[:, None], cos, sin)[:, 0]
scores_TS = np.asarray(everywhere(query_H) @ everywhere(key_H).T)
for distance in range(-63, 64):
    diagonal = np.diagonal(scores_TS, distance)
    assert np.allclose(diagonal, diagonal[0], atol=1e-3)

# %%
fig, ax = course.figure(4.4, 3.4)
limit = np.abs(scores_TS).max()
image = ax.imshow(scores_TS, cmap="PuOr", vmin=-limit, vmax=limit)
ax.set(xlabel="position of the key", ylabel="position of the query")
fig.colorbar(image, label="score")
alt = "Heat map, 64 query positions down, 64 key positions across; color is the score. Stripes run parallel to the diagonal: along each the color is constant."
course.show(fig, alt=alt, summary="Each of the 127 diagonals is constant: the score knows the distance, not the place.")

# %% [markdown]
# Nothing *forces* a score to shrink with distance; what a head does with the distance, it learns. A key that equals the
# query scores highest at distance 0, though, because there all cosines are 1.

# %% [markdown] predict="angles"
# Angles are computed in float32. At position 100,000 pair 0 has turned by 100,000 radians. Neighboring float32 numbers
# are 1/128 apart there. Is the cosine then right to six digits, to two, or not at all?
#
# ANSWER: To about two digits: the angle itself is off by up to 1/256. The trained model saw the same rounding, so an
# implementation that computes angles in float64 is *more exact and less faithful*. In bfloat16 neighbors would be 512
# radians apart, and nothing would be left.

# %%
far = 131_071 * inverse_frequencies(GPT_OSS_20B)[:8]
narrow = np.float32(131_071) * np.float32(inverse_frequencies(GPT_OSS_20B)[:8])
off = np.abs(np.cos(narrow.astype(np.float64)) - np.cos(far)).max()
print(f"cosines off by at most {off:.3f} at position 131071")
assert 1e-5 < off < 1 / 128

# %% [markdown]
# ## How often does a pair turn?
#
# A pair's **wavelength** is the number of positions for a full turn, 2 pi / f. gpt-oss was first trained on texts of up
# to 4096 tokens. What matters for the rest of this lesson is how many turns a pair made in that span.

# %%
length_i = 2 * np.pi / frequencies
turns_i = 4096 / length_i
course.table([(i, length_i[i], turns_i[i]) for i in (0, 8, 9, 17, 18, 31)], header=("pair", "wavelength", "turns"))

# %% [markdown] predict="never"
# How many of the 32 pairs never completed a single turn in training? What happens to such a pair when the text gets
# longer than 4096 tokens?
#
# ANSWER: 14, pairs 18 to 31. Beyond position 4096 they take angles that no weight has ever seen. The fast pairs have
# seen all angles hundreds of times and do not care.

# %%
assert (turns_i < 1).sum() == 14 and turns_i[18] < 1 < turns_i[17]

# %% [markdown]
# ## YaRN
#
# The published models read 131,072 tokens, s = 32 times the original 4096. The simple cure is **interpolation**: divide
# every frequency by 32, and position 131,072 has the angles that 4096 had. But then pair 0 turns 32 times more
# slowly too, and neighboring words, which it used to tell apart by a radian, are nearly on top of each other.
#
# **YaRN** (Peng et al. 2023) treats pairs by the turns they made in training:
#
# - more than 32 turns: the pair knows all angles; keep its frequency;
# - less than 1 turn: divide it by 32, so that no unseen angle occurs;
# - in between: a mixture, by a straight ramp over the *number* of the pair.
#
# Where are 32 turns and 1 turn? Solve 4096 f / (2 pi) = turns for i, with f = 150000^(-i/32):


# %%
def pair_that_turns(turns):
    return 32 * math.log(4096 / (turns * 2 * math.pi)) / math.log(150_000)


low, high = pair_that_turns(32), pair_that_turns(1)
print(f"{low:.4f} {high:.4f}")
assert (low, high) == yarn_bounds(GPT_OSS_20B)

# %% [markdown]
# The mixture pair by pair in a loop; all at once; and the package's:

# %%
looped_i = []
for i in range(32):
    share = min(max((i - low) / (high - low), 0), 1)  # 0 keeps, 1 interpolates
    looped_i.append(share * frequencies[i] / 32 + (1 - share) * frequencies[i])
ramp_i = np.clip((np.arange(32) - low) / (high - low), 0, 1)
vectorized_i = frequencies * (1 - ramp_i * 31 / 32)
packaged_i = inverse_frequencies(GPT_OSS_20B)
assert np.allclose(looped_i, vectorized_i, rtol=1e-12) and np.allclose(vectorized_i, packaged_i, rtol=1e-12)

# %%
fig, (left, right) = course.figure(7, 2.8, ncols=2)
left.plot(ramp_i, marker=".")
left.set(xlabel="pair", ylabel="share that is interpolated")
right.semilogy(length_i, linestyle=":", label="before")
right.semilogy(2 * np.pi / packaged_i, label="with YaRN")
right.semilogy(32 * length_i, linestyle="--", label="all divided by 32")
right.axhline(131_072, color="gray", linewidth=0.8)
right.set(xlabel="pair", ylabel="positions for a full turn")
right.legend()
alt = "Left: the ramp, 0 up to pair 8, rising to 1 at pair 18. Right, logarithmic: wavelengths before, with YaRN and with all frequencies divided; YaRN follows the first for small pairs and the last for large ones."
course.show(
    fig,
    alt=alt,
    summary=f"{int((ramp_i == 0).sum())} pairs keep their speed, {int((ramp_i == 1).sum())} are slowed 32 times, {int(((ramp_i > 0) & (ramp_i < 1)).sum())} are mixed.",
)

# %% [markdown]
# The gray line is the full context. With YaRN the pairs that had not closed their circle in 4096 positions do not close
# it in 131,072 either.

# %% [markdown] predict="rounded"
# Some libraries round the bounds 8.09 and 17.40 outwards, to 8 and 18, unless the configuration says `truncate: false`.
# gpt-oss says so. How much can a tenth of a pair matter?
#
# ANSWER: The frequency of pair 12 changes by 3 %, that of pair 17 by more than half. After one position that is nothing.
# But angles accumulate: ten thousand positions into the text, such a pair points somewhere else entirely.

# %%
rounded_i = frequencies * (1 - np.clip((np.arange(32) - 8) / 10, 0, 1) * 31 / 32)
drift_i = np.abs(rounded_i - packaged_i)
worst = int(np.argmax(drift_i))
print(f"pair {worst}: half a turn wrong after {math.pi / drift_i[worst]:.0f} positions")
assert drift_i[12] > 0.03 * packaged_i[12] and drift_i[17] > 0.5 * packaged_i[17]
assert np.allclose(drift_i[:9], 0) and np.allclose(drift_i[18:], 0, atol=1e-12)

# %% [markdown]
# Such a port passes every test on a short prompt. Lesson 09 shows another fault with this property; the remedy is the
# same: test far from position 0, against numbers computed by someone else.

# %% [markdown] exercise="yarn" stars=3 minutes=20 goal="yarn"
# ### YaRN's frequencies
#
# Write `yarn(half, base, factor, context, fast, slow)`: the `half` frequencies in radians per position. `context` is the
# original context; pairs with more than `fast` turns in it are kept, those with fewer than `slow` are divided by
# `factor`. For gpt-oss the arguments are (32, 150000, 32, 4096, 32, 1), and your result is compared with the table of
# OpenAI's implementation, among others.


# %% solution="yarn"
def yarn(half, base, factor, context, fast, slow):
    ### BEGIN SOLUTION
    i = np.arange(half)
    plain = base ** (-i / half)
    low, high = (half * np.log(context / (2 * np.pi * turns)) / np.log(base) for turns in (fast, slow))
    ramp = np.clip((i - low) / (high - low), 0, 1)
    return plain / factor * ramp + plain * (1 - ramp)
    ### END SOLUTION


# %% check="yarn"
lesson.check.yarn(yarn)

# %% [markdown]
# ## Concentration
#
# One problem of long texts is left. Attention turns the scores into shares that add up to 1, by dividing exponentials by
# their sum (a softmax, lesson 05). Over 131,072 scores the shares spread over far more candidates than over 4096, and
# attention blurs. YaRN sharpens it again: all cosines and sines are multiplied by the
# **concentration** 0.1 ln s + 1.

# %%
by_hand = 0.1 * math.log(32) + 1
print(f"{by_hand:.5f}, squared {by_hand**2:.4f}")
assert by_hand == concentration(GPT_OSS_20B)

# %% [markdown] predict="at_zero"
# At position 0 nothing is turned. Does `rotate` return the query unchanged there? By what factor do scores grow?
#
# ANSWER: No: at angle 0 the cosine is 1, times the concentration 1.347. Queries and keys both grow by it, so scores grow
# by its square, 1.813, at every position and in short texts as well. Values are not touched.

# %%
assert np.allclose(everywhere(query_H)[0], by_hand * query_H, rtol=1e-5)
assert np.isclose(scores_TS[0, 0], by_hand**2 * (query_H @ key_H), rtol=1e-4)
lengths_T = jnp.linalg.norm(everywhere(query_H), axis=1) / jnp.linalg.norm(query_H)
print("length of the query, turned / unturned:", course.sig3([lengths_T[0], lengths_T[63]]))

# %% [markdown]
# What that does to a softmax: one key scores 4, the others 0. How much of the probability does it get among ever more
# keys?

# %%
others = np.array([10, 100, 1000, 4096, 131_072])
share = lambda score: np.exp(score) / (np.exp(score) + others)
course.table(
    [(str(n), a, b) for n, a, b in zip(others, share(4), share(4 * by_hand**2), strict=True)],
    header=("others", "score 4", "x 1.813"),
)
assert (share(4 * by_hand**2) > share(4)).all()

# %% [markdown] exercise="length" stars=1 minutes=6 goal="concentration"
# ### How long is a turned query?
#
# A rotation alone keeps lengths. Write `turned_length(x_H, position, factor)`: the length (the root of the sum of
# squares) of a query *after* rotary embedding with YaRN's context factor `factor`, which is larger than 1. One of the three
# arguments does not matter.


# %% solution="length"
def turned_length(x_H, position, factor):
    ### BEGIN SOLUTION
    return np.linalg.norm(x_H) * (0.1 * np.log(factor) + 1)
    ### END SOLUTION


# %% check="length"
lesson.check.length(turned_length)

# %% [markdown]
# ## What you have now
#
# `rotate` with a table of angles: 32 hands of different speed, the slow ones slowed further so that 131,072 positions fit
# into the angles known from 4096, and everything sharpened by 1.35. Lesson 05 takes the turned queries and keys and lets
# positions read from one another.
