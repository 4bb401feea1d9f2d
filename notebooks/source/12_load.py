# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: "Seeing experts I: load, text, entropy"
#     minutes: 45
#     seconds: 20
#     needs: Lessons 02 and 06.
#     modules: [tracing, routing]
#     goals:
#       load: Count from a trace how much work each expert gets, and draw it.
#       dead: Tell an expert that is dead from one that a short text happened to miss.
#       text: Read routing token by token, with the right number behind the color.
#       baseline: Put a baseline beside a difference between two parts of a conversation.
# ---

# %% [markdown]
# Which expert does what? Pictures that answer this are easy to make and easy to misread. A bright cell may be a habit
# of the model, or the five tokens that happened to be in the text. This lesson draws the routing of a real model in
# four ways, and puts chance beside each of them.

# %%
import tempfile
from pathlib import Path

import numpy as np

import gptoss_jax as gj
from gptoss_jax.harmony import Conversation, Encoding, Message, Role
from gptoss_jax.nano import samples
from gptoss_jax.nano.rendering import KEEP_ANALYSIS
from gptoss_jax.routing import figures, metrics
from gptoss_jax.routing.explorer import explorer
from gptoss_jax.tracing import trace_generation

# %% [markdown]
# ## Record first, ask later
#
# A **trace** is the record of a forward pass: for every token and layer the chosen experts, their weights and the
# router's scores. Record once, and every question of this lesson is a question to arrays. The model is not needed again.
#
# The texts are the package's samples: ten kinds, from Chinese poetry to C code, none of them used in training the
# built-in model. From each kind we take 160 tokens of two passages.

# %%
model, tokenizer = lesson.model(first_layers=4)
texts = samples.read()
traces = {}
for kind, pieces in texts.items():
    ids = [tokenizer.encode_ordinary(piece)[:160] for piece in pieces[2:8:3]]
    traces[kind] = [gj.trace(model, each, tokenizer=tokenizer, logits=False) for each in ids]

# %% [markdown]
# `join` lays the traces end to end. It also returns the label of each token and the number of the passage that the
# token came from, which lesson 13 needs.

# %%
whole, labels, passage = metrics.join(traces)
T, L, X = whole.experts.shape
E = whole.num_experts
course.show_shapes(experts=whole.experts, weights=whole.weights, router_logits=whole.router_logits)
assert len(labels) == len(passage) == T == 3200 and len(set(labels)) == 10

# %% [markdown]
# Two things are easy to get wrong while recording. Some tools forget the prompt: they hook the model while it writes, and
# what it reads is lost. Others keep the ids and rebuild the weights by a softmax over all experts (lesson 06). Here
# every token is kept, and the weights are those that the model used.

# %%
assert np.allclose(whole.weights.sum(axis=-1), 1, atol=1e-5)
assert (np.diff(whole.weights, axis=-1) <= 0).all()  # the highest weight first

# %% [markdown]
# ## Load
#
# The **load** of an expert is the share of a layer's choices that it received. Choices, not tokens: every token makes X
# of them. Here are four tokens in one layer of four experts, two chosen.

# %%
small_TLX = np.array([[[0, 1]], [[1, 3]], [[1, 0]], [[3, 1]]])

# %% [markdown] predict="by_hand"
# What is the load of each of the four experts?
#
# ANSWER: There are eight choices. Expert 0 has two of them, expert 1 four, expert 2 none and expert 3 two: 0.25, 0.5, 0
# and 0.25. Expert 1 serves every token, and yet its load is one half. No load can exceed 1 / X.

# %%
slow = [0.0] * 4
for token in small_TLX[:, 0]:
    for e in token:
        slow[e] += 1 / 8
fast = np.bincount(small_TLX[:, 0].ravel(), minlength=4) / small_TLX[:, 0].size
packaged = metrics.load(small_TLX, num_experts=4)
assert np.allclose(slow, fast) and np.allclose(fast, packaged.value[0])
print("load", course.sig3(packaged.value[0]), "tokens served", packaged.count[0].tolist())

# %% [markdown]
# The package returns more than the number: the count of tokens behind each entry, and a **baseline**, what the metric
# would be where there is nothing to find. Here that is an even share, 1 / E. A result that comes without its count and
# its baseline is not finished.

# %%
load = metrics.load(whole)
assert np.allclose(load.value.sum(axis=1), 1) and (load.count.sum(axis=1) == X * T).all()
drawing = figures.load_map(load.value, T)
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)

# %% [markdown]
# How to read it: white is an even share, one color means more and the other less, on a scale on which twice as much and
# half as much look equally strong. Look along a row. Never look down a column: expert 3 of one layer and
# expert 3 of the next have nothing in common but the number.

# %%
spread_L = load.value.max(axis=1) * E
if lesson.builtin:
    assert spread_L[-1] > 1.5 * spread_L[0]
print("the busiest expert of some layer gets more than twice an even share:", bool((spread_L > 2).any()))

# %% [markdown] exercise="load_of" stars=2 minutes=8 goal="load"
# ### Load from a trace
#
# Write `load_of(experts_TLX, num_experts)`: the load of every expert in every layer, `[L, E]`. Keep the layers apart, and
# give experts that nobody chose their zero.


# %% solution="load_of"
def load_of(experts_TLX, num_experts):
    ### BEGIN SOLUTION
    T, L, X = experts_TLX.shape
    rows = [np.bincount(experts_TLX[:, layer].ravel(), minlength=num_experts) for layer in range(L)]
    return np.stack(rows) / (T * X)
    ### END SOLUTION


# %% check="load_of"
lesson.check.load_of(load_of)

# %% [markdown]
# Load counts a choice as one, whether its weight was 0.9 or 0.1. **Mass** adds up the weights instead. The two differ
# where an expert is called often for small shares; they are equal if all weights are 1 / X.

# %%
mass = metrics.mass(whole)
even = metrics.layer_weights(whole, 0)
assert np.allclose(mass.value.sum(axis=1), 1) and np.allclose(even.mean(axis=0), mass.value[0])
apart = np.abs(mass.value - load.value).sum(axis=1) / 2
if lesson.builtin:
    assert (apart < 0.5).all()

# %% [markdown]
# ## Dead, or only unlucky?
#
# One number for a whole row: the number of **effective experts**, the exponential of the load's entropy (lesson 06). If n
# experts share all work evenly and the others do nothing, it is n. It says at how many equally busy experts the layer
# would be just as even.

# %%
for share in ([0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0], [0.5, 0.25, 0, 0.25]):
    p = np.array([x for x in share if x > 0])
    print(share, "->", course.sig3(np.exp(-(p * np.log(p)).sum())))
assert np.isclose(metrics.balance(small_TLX, num_experts=4).effective[0], 2**1.5)

# %% [markdown]
# An expert that no token of a sample chooses is called a **dead expert**. The word promises too much. A router that
# treats all 32 experts alike, four a token, misses a given one with probability 1 - 4/32 at each token, so in T tokens
# with probability (1 - 4/32) to the power T.

# %% [markdown] predict="how_many_dead"
# A prompt has 20 tokens. How many of 32 experts look dead in each layer if the routing is pure chance?
#
# ANSWER: 32 times 0.875 to the power 20, which is 2.2. And it is another two in every prompt. Whoever draws one chat and
# circles the unused experts has drawn this number.

# %%
rng = np.random.default_rng(12)
chance_TLX = rng.random((T, L, E)).argsort(axis=-1)[..., :X]
lengths = [10, 20, 40, 80, 160, 640, 3200]
order = rng.permutation(T)
unused = lambda ids_TLX: [metrics.balance(ids_TLX[order[:n]], num_experts=E).dead.mean() for n in lengths]
by_chance, by_model = unused(chance_TLX), unused(whole.experts)
expected = E * (1 - X / E) ** np.array(lengths)
assert np.abs(expected - by_chance).max() < 3

# %%
fig, ax = course.figure(6, 2.8)
ax.plot(lengths, by_model, marker="o", label="the model")
ax.plot(lengths, by_chance, marker="s", ls="--", label="random choices")
ax.plot(lengths, expected, color="black", lw=1, ls=":", label="formula")
ax.set(xscale="log", xticks=lengths, xticklabels=lengths, xlabel="tokens", ylabel="unused experts a layer")
ax.minorticks_off()
ax.legend()
alt = "Falling lines: number of tokens, logarithmic, against the mean number of experts of a layer that none of them chose, for the model, for random choices and for the formula."
course.show(fig, alt=alt, summary=f"By chance {expected[1]:.1f} of {E} experts miss 20 tokens, and none misses 640.")

# %% [markdown]
# The distance between the two lines is the finding; the height of the upper one is not. And it depends on the texts:
# ten kinds of text wake up more experts than one kind does.

# %%
one_kind = [metrics.balance(metrics.join({k: t})[0]).effective[-1] for k, t in traces.items()]
together = metrics.balance(whole)
print(
    f"last layer, one kind of text: {np.mean(one_kind):.0f} effective experts, all kinds: {together.effective[-1]:.0f}"
)
if lesson.builtin:
    assert np.mean(one_kind) < together.effective[-1]

# %% [markdown]
# If an expert is unused in thousands of tokens of many kinds, chance is no longer an explanation, and you can ask for the
# cause. The router's scores tell it: how far was the expert from being chosen at its best token? If a little, the texts
# may be to blame. If by far, its row or its bias keeps it out.

# %% [markdown] exercise="wake" stars=2 minutes=10 goal="dead"
# ### Explain a dead expert
#
# Expert `dead` is chosen by no token. Write `wake(logits_TE, count, dead)`: the amount that must be added to its bias so
# that its score reaches, for at least one token, the lowest of the `count` chosen scores.


# %% solution="wake"
def wake(logits_TE, count, dead):
    ### BEGIN SOLUTION
    last_T = -np.sort(-logits_TE, axis=1)[:, count - 1]
    return (last_T - logits_TE[:, dead]).min()
    ### END SOLUTION


# %% check="wake"
lesson.check.wake(wake)

# %% [markdown]
# ## The text itself
#
# Averages hide the tokens. So color the text: the ground of each token shows one number of it. Which number? Not the
# expert's id, because a color scale says that 7 lies between 6 and 8, and ids have no order. We show the weight of the
# first choice, between 1 / X for four equal shares and 1.

# %%
passage_one = traces["python-code"][0]
top = metrics.first_choice(passage_one)
assert (top.weight > 1 / X).all() and (top.expert == passage_one.experts[..., 0]).all()

# %% [markdown]
# Move the mouse over a token, or reach it with the Tab key, to read its experts and their weights.

# %% tags=["nbval-ignore-output"]
last = L - 1
figures.token_text(
    passage_one.token_text[:48],
    top.weight[:48, last],
    passage_one.experts[:48, last],
    passage_one.weights[:48, last],
    name=f"weight of the first choice, layer {last}",
    limits=(1 / X, 1),
)

# %% [markdown] exercise="weight_of" stars=1 minutes=5 goal="text"
# ### The number behind the color
#
# Another useful coloring follows a single expert through the text. Write `weight_of(experts_TX, weights_TX, expert)`: the
# weight that each token gave to this expert, `[T]`, and 0 where it was not chosen.


# %% solution="weight_of"
def weight_of(experts_TX, weights_TX, expert):
    ### BEGIN SOLUTION
    return np.where(experts_TX == expert, weights_TX, 0).sum(axis=1)
    ### END SOLUTION


# %% check="weight_of"
lesson.check.weight_of(weight_of)

# %% [markdown]
# All layers at once: tokens across, layers down, the same number as color, the first choice printed where there
# is room.

# %%
window = slice(0, 32)
drawing = figures.token_layer_map(top.weight[window], top.expert[window], limits=(1 / X, 1))
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)

# %% [markdown] predict="same_word"
# Take two places with the same token id. In the first layer, will they have the same first choice? And in the last?
#
# ANSWER: In the first layer nearly always: little more than the embedding has reached the router, and that is the same.
# Deeper, what stands before the token counts too, and the choices may part.


# %%
def same_choice(layer):
    agreed, pairs = 0, 0
    for word in np.unique(whole.tokens):
        chosen = whole.experts[whole.tokens == word, layer, 0]
        n = len(chosen)
        agreed += sum(k * (k - 1) for k in np.bincount(chosen))
        pairs += n * (n - 1)
    return agreed / pairs


shares = [same_choice(layer) for layer in range(L)]
print(f"same id, same first choice: {shares[0]:.0%} in the first layer; by chance {1 / E:.0%}")
if lesson.builtin:
    assert shares[0] > 0.3

# %% [markdown]
# Keep this in mind whenever somebody shows you "the punctuation expert". Part of every such finding is just that: the
# token id. Lesson 13 takes it off.

# %% [markdown]
# ## Entropy
#
# How sure is the router? Lesson 06 had two answers. The entropy of the weights asks how evenly the chosen experts
# share. The entropy of the softmax over *all* experts asks how clearly they were preferred to the others. Both are
# divided by their maximum, and so lie between 0 and 1.

# %%
by_hand = -(whole.weights * np.log(whole.weights)).sum(axis=-1) / np.log(X)
gate_TL = metrics.gate_entropy(whole).value
router_TL = metrics.router_entropy(whole).value
assert np.allclose(by_hand, gate_TL, atol=1e-5)
assert (router_TL > 0).all() and (router_TL < 1).all()

# %%
drawing = figures.layer_spread(gate_TL, "entropy of the weights", limits=(0, 1))
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)

# %% [markdown]
# A box holds the middle half of the tokens. If you report one number per layer, say which one: a mean of 0.7 can be all
# tokens at 0.7, or a mixture of the sure and the unsure.

# %%
if lesson.builtin:
    assert gate_TL[:, -1].mean() < gate_TL[:, 0].mean() and router_TL[:, -1].mean() < router_TL[:, 0].mean()
quarters = np.quantile(gate_TL, [0.25, 0.75], axis=0)
course.table(
    [(layer, *quarters[:, layer]) for layer in range(L)], header=("layer", "a quarter below", "a quarter above")
)

# %% [markdown]
# ## Prompt and answer, channel by channel
#
# A conversation in Harmony (lesson 02) has parts: what the user wrote, what the model thinks in the analysis channel,
# what it answers in the final one. Do they use different experts? First the record. `trace_generation` keeps the routing
# while the model writes, with the prompt in front.

# %%
encoding = Encoding(tokenizer)
ask = Message.from_role_and_content(Role.USER, "Sort: 5 3 9 1 7")
asked = encoding.render_conversation_for_completion(Conversation([ask]), Role.ASSISTANT)
written = trace_generation(model, asked, 16, tokenizer=tokenizer)
assert (written.generated == (np.arange(len(written)) >= len(asked))).all()

# %% [markdown] predict="replay"
# Now feed the finished token sequence through the model in one pass. Will the routing be the same as it was when the
# tokens were written one by one?
#
# ANSWER: Yes, up to rounding at narrow margins. A layer sees the same keys and values whether they come from the cache
# or from the same pass. If a tool shows you that prompt and generation "route differently" for equal tokens, suspect the
# tool.

# %%
replayed = gj.trace(model, written.tokens, tokenizer=tokenizer, prompt_length=len(asked))
same = metrics.overlap(written, replayed)
assert same.mean() > 0.99 and (replayed.generated == written.generated).all()

# %% [markdown]
# So a conversation may as well be written down and replayed. This one is short and fixed, which keeps the numbers below
# the same on every machine.

# %%
say = Message.from_role_and_content
thought = "The user wants the numbers in order. 1 is the smallest, then 3, 5, 7, and 9 is the largest."
answer = "In order the numbers are 1, 3, 5, 7 and 9. The smallest is 1 and the largest is 9."
turn = [say(Role.ASSISTANT, thought).with_channel("analysis"), say(Role.ASSISTANT, answer).with_channel("final")]
tokens = encoding.render_conversation(Conversation([ask, *turn]), KEEP_ANALYSIS)
talk = gj.trace(model, tokens, tokenizer=tokenizer, prompt_length=len(asked))
parts = metrics.by_part(talk, "role and channel", resamples=20)
course.table(list(zip(parts.names, parts.tokens.tolist(), strict=True)), header=("part", "tokens"))

# %%
weighted = np.einsum("ple,p->le", parts.load, parts.tokens) / parts.tokens.sum()
assert np.allclose(weighted, metrics.load(talk).value)  # the parts add up to the whole
drawing = figures.part_maps(parts.load, parts.names, parts.tokens)
course.show(drawing.figure, alt=drawing.alt, summary=drawing.summary)

# %% [markdown]
# The maps differ. Of course they do: they are counts of a few dozen tokens. The question is whether they differ *more
# than two random parts* of the same conversation would. As a distance between two loads we take half the sum of the
# absolute differences, 0 for equal and 1 for disjoint ones.


# %%
def distance(experts_TX, part_T):
    loads = [np.bincount(experts_TX[part].ravel(), minlength=E) / experts_TX[part].size for part in (part_T, ~part_T)]
    return np.abs(loads[0] - loads[1]).sum() / 2


answered = metrics.token_mask(talk, channels="final")
found = distance(talk.experts[:, last], answered)
shuffled = [distance(talk.experts[:, last], rng.permutation(answered)) for _ in range(200)]
assert 0 < np.mean(shuffled) < 1
print("the parts differ more than shuffled ones do on average:", bool(found > np.mean(shuffled)))

# %% [markdown]
# Shuffling the marks keeps everything, the experts, their loads, the sizes of the parts, except the one thing in question:
# which token belongs to which part. What is left is the baseline. Only what stands above it, and above its spread, is a
# finding.

# %%
fig, ax = course.figure(6, 2.4)
ax.hist(shuffled, bins=20, color="#9aa5b1")
ax.axvline(found, color="black", lw=2)
ax.set(xlabel="distance between the loads", ylabel="shuffles", xlim=(0, 1))
beyond = np.mean(np.array(shuffled) >= found)
alt = "Histogram of the distance between the loads of two shuffled parts, with a vertical line where the true distance lies."
course.show(
    fig,
    alt=alt,
    summary=f"Chance alone gives {np.mean(shuffled):.1f}; {beyond:.0%} of the shuffles reach the true distance.",
)

# %% [markdown] exercise="baseline" stars=2 minutes=12 goal="baseline"
# ### Write the baseline
#
# Write `baseline(experts_TX, part_T, orders_ST, num_experts)`. `part_T` marks the tokens of one part, and each row of
# `orders_ST` is an order in which to lay the marks anew. Return the mean, over these orders, of the distance between the
# loads of the marked tokens and of the others.


# %% solution="baseline"
def baseline(experts_TX, part_T, orders_ST, num_experts):
    ### BEGIN SOLUTION
    total = 0.0
    for order_T in orders_ST:
        marked_T = part_T[order_T]
        inside, outside = (np.bincount(experts_TX[m].ravel(), minlength=num_experts) for m in (marked_T, ~marked_T))
        total += np.abs(inside / inside.sum() - outside / outside.sum()).sum() / 2
    return total / len(orders_ST)
    ### END SOLUTION


# %% check="baseline"
lesson.check.baseline(baseline)

# %% [markdown]
# ## Explore
#
# All of these views, linked with each other, are one page: the explorer. It is a single file, needs no network, and would
# outgrow the notebook, so it is written to a folder and linked.

# %%
folder = Path(tempfile.mkdtemp())
link = explorer(talk, title="One conversation").link(folder / "explorer.html")
assert (folder / "explorer.html").stat().st_size > 50_000
print(f"{link.title}: {link.summary}")

# %% [markdown]
# Type `link` in a new cell to see where it lies, or write the page beside your notebook with
# `explorer(talk).save("explorer.html")` and open it in a browser. Then: pick a layer and an expert, and find
# the tokens that it serves; press the question mark for the keys; choose another color and see the margin in place of
# the weight. Ask it the questions of this lesson about a text of your own.
#
# ## What you have now
#
# Load, mass and entropy, each with its count and its baseline, and the habit to ask what chance would have drawn. The
# next lesson asks who serves whom, who works together, and what passes from layer to layer.
