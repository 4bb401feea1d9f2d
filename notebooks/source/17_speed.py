# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: Speed
#     minutes: 50
#     seconds: 6
#     needs: Lessons 08 and 11.
#     modules: [roofline]
#     goals:
#       bytes: Count the bytes that a generated token reads, and say which weights they belong to.
#       roofline: Bound the speed of a machine from two numbers, and say which of the two limits it.
#       packing: Say why four bits make a model faster and not only smaller, and why the gain is less than fourfold.
#       honest: Read a benchmark, and turn it into a share of what the machine could do.
# ---

# %% [markdown]
# How fast can gpt-oss write on your machine? You can answer before you run it, with a pencil. This lesson counts what
# one token costs, compares that with what machines offer, and ends with how to read other people's benchmarks. No cell
# measures time: the times that appear were recorded once, and each says where.

# %%
import jax
import numpy as np

from gptoss_jax import roofline
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B

# %% [markdown]
# ## The shopping list of a token
#
# To generate one token, the processor must fetch every weight that takes part from memory, once. Caches in the
# processor are far too small to keep gigabytes until the next token. So count the bytes of the weights that one token of
# gpt-oss-20b needs: attention and unembedding in bfloat16 (2 bytes), and in each of 24 layers four experts in MXFP4.

# %%
D, F, L = 2880, 2880, 24
attention = 2 * L * (5120 * D + 5120 + D * 4096 + D + 64)  # qkv, output, sinks
other = 2 * (L * (32 * D + 32) + (2 * L + 1) * D + D)  # routers, norms, one row of the embedding
unembedding = 2 * 201_088 * D
experts = 0
for _layer in range(L):
    for _chosen in range(4):
        experts += 3 * D * F * 17 // 32 + 2 * (2 * F + D)  # 17 bytes for 32 weights; biases in bfloat16
looped = attention + other + unembedding + experts

# %% [markdown] predict="largest_part"
# The experts are 91 % of the model. Which part do you expect to be read most: attention, experts, or the unembedding
# (one matrix, 201,088 by 2880)?
#
# ANSWER: They are nearly equal, a third each: 1.27, 1.27 and 1.16 GB. Of the experts only an eighth is read, and that in
# 4 bits. Attention and unembedding are read in full, in 16 bits. Six percent of the parameters make two thirds of the bytes.

# %%
parts = {"attention": attention, "experts": experts, "unembedding": unembedding, "other": other}
course.table([(name, n / 1e9, f"{n / looped:.0%}") for name, n in parts.items()], header=("part", "GB", "share"))
assert abs(attention - experts) < 0.01 * looped

# %% [markdown]
# The same with arrays, from the counts of lesson 00, and with the package's function. It also adds the cache, which is
# empty at context 0.

# %%
count = roofline.parameters(GPT_OSS_20B)
numbers = np.array([count.attention, count.norms, count.router, count.unembedding, D])
packed = count.packed * 4 // 32
biases = (count.experts - count.packed) * 4 // 32
vectorized = int(2 * numbers.sum() + packed * 17 // 32 + 2 * biases)
assert looped == vectorized == roofline.decode_bytes(GPT_OSS_20B, 0)
print(f"{looped / 1e9:.2f} GB a token")

# %% [markdown] exercise="token_bytes" stars=2 minutes=10 goal="bytes"
# ### Bytes per token
#
# Write `token_bytes(dense, expert, layers, chosen, bits)`: bytes read for one token. `dense` parameters outside the experts
# are stored in bfloat16 and read once. In each of `layers` layers, `chosen` experts of `expert` parameters each are read, and
# their parameters take `bits` bits. Ignore biases and the cache.


# %% solution="token_bytes"
def token_bytes(dense, expert, layers, chosen, bits):
    ### BEGIN SOLUTION
    return 2 * dense + layers * chosen * expert * bits / 8
    ### END SOLUTION


# %% check="token_bytes"
lesson.check.token_bytes(token_bytes)

# %% [markdown]
# ## Two speeds of a machine
#
# A machine moves bytes and it multiplies. The **bandwidth** is how many bytes come from memory in a second; the
# arithmetic rate is how many additions and multiplications (**FLOPs**) it does. Each multiplied weight costs two FLOPs. The
# larger of the two times is a bound that no program can beat: the **roofline**.
#
# The makers' figures for three machines, in GB/s and TFLOP/s. The first is a laptop with good memory; the others are
# an H100 and an H200 with dense bfloat16 arithmetic.

# %%
machines = {"laptop": (60, 1), "H100": (3350, 989), "H200": (4800, 989)}
rows = []
for name, (gigabytes, teraflops) in machines.items():
    moving = roofline.decode_bytes(GPT_OSS_20B, 0) / (gigabytes * 1e9)
    computing = roofline.decode_flops(GPT_OSS_20B, 0) / (teraflops * 1e12)
    rows.append((name, 1e3 * moving, 1e3 * computing, 1 / max(moving, computing)))
course.table(rows, header=("machine", "ms moving", "ms computing", "tokens/s, at most"))

# %%
rates = np.array(list(machines.values())) * [1e9, 1e12]
need = np.array([roofline.decode_bytes(GPT_OSS_20B, 0), roofline.decode_flops(GPT_OSS_20B, 0)])
vectorized = 1 / (need / rates).max(axis=1)
packaged = [1 / roofline.seconds_per_token(GPT_OSS_20B, 0, bytes_per_second=b, flops_per_second=f) for b, f in rates]
assert np.allclose([row[-1] for row in rows], vectorized) and np.allclose(vectorized, packaged)

# %% [markdown] predict="idle"
# On the H100, what share of the time is the arithmetic busy while it generates for one reader?
#
# ANSWER: 0.7 %. Moving takes 1.1 ms, computing less than 0.01 ms. A processor with ten times the arithmetic would not
# write any faster; one with twice the bandwidth would write at twice the speed. Generation for one reader is a matter of
# memory.

# %%
busy = rows[1][2] / rows[1][1]
print(f"arithmetic busy on the H100: {busy:.1%}")
assert busy < 0.01

# %% [markdown] exercise="speed_bound" stars=2 minutes=10 goal="roofline"
# ### The roofline
#
# Write `speed_bound(nbytes, flops, bytes_per_second, flops_per_second)` for a token that moves `nbytes` and computes
# `flops`. Return a pair: the most tokens per second, and `"memory"` or `"arithmetic"`, whichever limits. Moving and
# computing happen at the same time.


# %% solution="speed_bound"
def speed_bound(nbytes, flops, bytes_per_second, flops_per_second):
    ### BEGIN SOLUTION
    moving, computing = nbytes / bytes_per_second, flops / flops_per_second
    return 1 / max(moving, computing), "memory" if moving > computing else "arithmetic"
    ### END SOLUTION


# %% check="speed_bound"
lesson.check.speed_bound(speed_bound)

# %% [markdown]
# ## Why four bits
#
# Packing was introduced to make the model fit. The table shows what it does to speed: the bytes of a token with the
# experts in MXFP4, and with the same experts unpacked to bfloat16 in memory.

# %%
rows = []
for name, config in (("20b", GPT_OSS_20B), ("120b", GPT_OSS_120B)):
    packed = roofline.decode_bytes(config, 0)
    weights = roofline.parameters(config).packed * config.experts_per_token // config.num_experts
    unpacked = packed + weights * 2 - weights * 17 // 32
    rows.append((name, packed / 1e9, unpacked / 1e9, unpacked / packed))
course.table(rows, header=("model", "GB packed", "GB in bfloat16", "ratio"))
assert all(1.9 < row[-1] < 2.1 for row in rows)

# %% [markdown] predict="only_two"
# The experts became 3.8 times smaller (16 bits to 4.25). Why is the model only twice as fast, and how fast could it be
# if the experts took no bits at all?
#
# ANSWER: Attention and unembedding stay as they are, and they are 2.4 GB. Without any expert bytes 20b would read
# 2.4 instead of 3.7 GB: another factor of 1.5 at most. What is not made smaller limits the gain: this is *Amdahl's law*.

# %%
fig, ax = course.figure(6.5, 2.4)
dense = looped - experts
ax.barh([0, 1], [dense / 1e9] * 2, color="#00417d", label="attention, unembedding, other")
ax.barh([0, 1], [experts / 1e9, rows[0][2] - dense / 1e9], left=dense / 1e9, color="#d9a441", label="experts")
ax.set(yticks=[0, 1], yticklabels=["packed", "bfloat16"], xlabel="GB read for a token of 20b", ylim=(2.1, -0.6))
ax.legend(loc="lower right", ncols=2)
alt = "Two stacked bars: gigabytes a token reads with packed and with bfloat16 experts. The part outside the experts is the same in both."
course.show(fig, alt=alt, summary=f"{dense / 1e9:.1f} of {looped / 1e9:.1f} GB lie outside of the experts.")

# %% [markdown]
# There is a condition: the codes must travel *packed* all the way into the processor and be expanded there, in registers.
# A program that expands them in memory first reads the codes, writes bfloat16, and reads that again: slower than
# storing bfloat16 in the first place. It would be small on disk, and nothing else.

# %%
through_memory = (17 / 32 + 2 + 2) / 2
print(f"expanding in memory moves {through_memory:.1f} times the bytes of plain bfloat16")
assert through_memory > 2

# %% [markdown]
# ## Many readers at once
#
# If memory is the limit, read a weight once and use it for many sequences. For attention this works perfectly. Experts
# are different: each sequence chooses its own four, so a larger **batch** touches more of them. With E experts, X chosen,
# and independent choices, each further sequence touches a share X/E of those that are still untouched. Step by step, as a
# formula, and by drawing at random:

# %%
E, X, B = 32, 4, 16
looped = 0.0
for _sequence in range(B):
    looped += (E - looped) * X / E
vectorized = E * (1 - (1 - X / E) ** B)
chosen = jax.lax.top_k(jax.random.uniform(jax.random.key(0), (2000, B, E)), X)[1]
drawn = np.mean([len(np.unique(batch)) for batch in np.asarray(chosen)])
print(f"{B} sequences touch {vectorized:.1f} of {E} experts in a layer")
assert np.isclose(looped, vectorized) and abs(drawn - vectorized) < 0.2

# %% [markdown]
# The package's count contains the same formula. The difference between a batch of 16 and one of 1 must be what the
# additional experts weigh, and 15 more rows of the embedding:

# %%
one_expert = 3 * D * F * 17 // 32 + 2 * (2 * F + D)
by_hand = L * (vectorized - X) * one_expert + (B - 1) * 2 * D
packaged = roofline.decode_bytes(GPT_OSS_20B, 0, batch=B) - roofline.decode_bytes(GPT_OSS_20B, 0)
assert np.isclose(by_hand, packaged, rtol=1e-6)

# %% [markdown] predict="batch_gain"
# Sixteen sequences touch 28 of 32 experts, seven times as many as one. Is a batch of 16 still worth it?
#
# ANSWER: Yes. Experts cost seven times as much for sixteen times the tokens, and attention and unembedding cost the same
# as for one. In all 3 times the bytes for 16 times the tokens. Beyond that the experts are all read anyway, and each
# further sequence is nearly free, until the arithmetic becomes the limit.

# %%
batches = 2 ** np.arange(13)
speed_MB = np.array(
    [
        [
            b / roofline.seconds_per_token(GPT_OSS_20B, 1024, batch=int(b), bytes_per_second=m, flops_per_second=f)
            for b in batches
        ]
        for m, f in rates
    ]
)
assert (np.diff(speed_MB, axis=1) > -1e-6).all()

# %%
fig, ax = course.figure(6.5, 3)
for name, speeds, mark in zip(machines, speed_MB, "os^", strict=True):
    ax.plot(batches, speeds, marker=mark, label=name)
ax.set(xscale="log", yscale="log", xlabel="sequences at once", ylabel="tokens/s together, at most")
ax.legend()
alt = "Three rising lines on logarithmic axes: bound on tokens per second of 20b against batch size for a laptop, an H100 and an H200. The laptop's line is flat from some tens of sequences on."
gain = speed_MB[:, 4] / speed_MB[:, 0]
course.show(fig, alt=alt, summary=f"On the H100 16 sequences together write {gain[1]:.1f} times as fast as one alone.")

# %% [markdown]
# The laptop's line ends in a plateau: there the arithmetic is the limit. On the two others it bends late and slowly. They
# have far more arithmetic for each byte, and every sequence brings its own cache, which is read for it alone.

# %% [markdown]
# ## What a long context costs
#
# The cache is read in full for every token. Full layers read all of it, sliding layers 128 positions.

# %%
rows = []
for context in (0, 4096, 32_768, 131_072):
    cache = sum(2048 * (min(context, 128) if i % 2 == 0 else context) for i in range(24))
    assert cache == roofline.cache_bytes(GPT_OSS_20B, context)
    total = roofline.decode_bytes(GPT_OSS_20B, context)
    rows.append((f"{context:,}", cache / 1e9, total / 1e9, f"{cache / total:.0%}"))
course.table(rows, header=("tokens before", "GB of cache", "GB in all", "share of the cache"))

# %% [markdown] predict="prompt"
# A prompt of 1,000 tokens is read in one go. Is that limited by memory or by arithmetic?
#
# ANSWER: On a laptop by arithmetic. The weights are fetched once for a thousand tokens, so the bytes hardly count, and
# 1,000 tokens times 7 GFLOP are 7 seconds at 1 TFLOP/s. This is why benchmarks give two numbers: the time to the first
# token, and the rate after it. They measure different parts of the machine.

# %% [markdown]
# ## Reading a benchmark
#
# These are the times at which twelve tokens of the built-in model appeared, in seconds after the request. They were
# recorded once, on two busy processor cores, and nothing had been compiled before.

# %%
stamps = [28.371, 58.346, 58.369, 58.385, 58.411, 58.433, 58.449, 58.457, 58.468, 58.485, 58.489, 58.507]
naive = len(stamps) / stamps[-1]
gaps = np.diff(stamps)
print(f"{naive:.2f} tokens/s over all; gaps in ms:", *(f"{1000 * gap:.0f}" for gap in gaps))

# %% [markdown] predict="what_happened"
# The first token took 28 s, the second 30 s, and after that each took about 16 ms. What happened, and what is the speed of
# this model?
#
# ANSWER: Two programs were compiled: one that reads prompts, one that decodes. Both are kept, so a second request would
# not wait. The speed is about 60 tokens/s: from the second token on, or better from the median of the gaps. The naive
# quotient, 0.2 tokens/s, describes the compiler. It is wrong by a factor of 300.

# %%
settled = 1 / np.median(gaps[1:])
print(f"{settled:.0f} tokens/s once compiled; the naive quotient is {settled / naive:.0f} times lower")
assert settled / naive > 100

# %% [markdown]
# Even the right rate says little alone. Is 60 tokens/s good? Divide by the bound. A token of this model reads
# 1.7 MB, so 60 of them move 0.1 GB/s, on a machine that can do a hundred times as much. So these tokens do not wait
# for memory: a model this small spends its time on starting many tiny operations. The share tells you where to look,
# and it is comparable between machines.

# %%
moved = settled * 1.724e6
print(f"{moved / 1e9:.1f} GB/s")
assert moved < 1e9

# %% [markdown] exercise="bandwidth_share" stars=2 minutes=12 goal="honest"
# ### From a log to a share
#
# Write `bandwidth_share(stamps, nbytes, bytes_per_second)`. `stamps` are the seconds at which the tokens appeared; the first
# one includes reading the prompt and compiling, and all later ones are regular. Each token moves `nbytes`. Return the
# share of the bandwidth `bytes_per_second` that was used while decoding, after the first token: 1 means that the bound was
# reached.


# %% solution="bandwidth_share"
def bandwidth_share(stamps, nbytes, bytes_per_second):
    ### BEGIN SOLUTION
    seconds = (stamps[-1] - stamps[0]) / (len(stamps) - 1)
    return nbytes / seconds / bytes_per_second
    ### END SOLUTION


# %% check="bandwidth_share"
lesson.check.bandwidth_share(bandwidth_share)

# %% [markdown]
# ## Which program is faster?
#
# A last recorded table: four ways to run an expert layer (16 experts, 4 chosen, hidden 512, width 1024, float32), in
# milliseconds on two shared cores, each measured once. For one token, and for 64 tokens.

# %%
recorded = {"gather chosen": (6.6, 748), "ragged_dot": (43, 158), "all experts": (32, 96), "scan experts": (6.3, 45)}
course.table([(name, *ms) for name, ms in recorded.items()], header=("way", "1 token", "64 tokens"))
best = [min(recorded, key=lambda name: recorded[name][i]) for i in (0, 1)]
assert best == ["scan experts", "scan experts"]

# %% [markdown] predict="trust"
# Does this table show that scanning beats gathering for one token (6.3 against 6.6 ms)? And that it does for 64?
#
# ANSWER: The first no: each was measured once on shared cores, and 5 % is less than what repeated runs scatter. The
# second yes: a factor of 16 is no accident, and there is a reason for it. Gathering copies four experts for *each* token, 256
# copies where there are 16 experts.

# %%
copies, present = 64 * 4, 16
assert copies / present == 16 and round(748 / 45) == 17
print(f"{copies} expert copies gathered for 64 tokens; {present} experts exist")

# %% [markdown]
# ## Questions for any benchmark
#
# - Was compiling left out, and the prompt timed apart from the tokens after it?
# - Did the clock wait for the result? JAX returns before the work is done; `block_until_ready` waits.
# - How many sequences at once, and how many tokens were in the cache?
# - Was it measured more than once, and how far apart were the runs?
# - What is the bound, and which share of it was reached? Was the result still *right*?
#
# A number without these is an anecdote.
