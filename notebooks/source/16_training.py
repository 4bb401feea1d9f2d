# ---
# jupyter:
#   kernelspec: {display_name: Python 3 (ipykernel), language: python, name: python3}
#   lesson:
#     title: Training a tiny mixture of experts
#     minutes: 60
#     seconds: 15
#     needs: Lessons 06, 07 and 13.
#     modules: [nano, routing]
#     goals:
#       floor: Say how low the loss of a model can get, for a language whose entropy is known.
#       balance: Compute the balance loss, and say to which experts its gradient speaks.
#       collapse: Make a mixture of experts collapse on purpose, and recognize it in the loads.
#       appear: Follow specialization and router saturation over the checkpoints of a training run.
# ---

# %% [markdown]
# So far experts were given. Here they come into being: a gpt-oss of 59 thousand parameters learns three small languages,
# from random weights, three times, in seconds. The languages are ours, so we know exactly how well they can be learned.
# The code of the steps is the code that trained the built-in model.

# %%
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gptoss_jax import mxfp4
from gptoss_jax.config import ModelConfig
from gptoss_jax.course.languages import Languages
from gptoss_jax.nano import network, optimizer
from gptoss_jax.nano.batches import Batch
from gptoss_jax.nano.plan import Plan
from gptoss_jax.router import choose
from gptoss_jax.routing import metrics

# %% [markdown]
# ## Three languages
#
# A language here is a **Markov chain**: what may follow depends on the last word alone. Words 0 to 7 belong to all
# three languages, and each has four private words besides. Its 12 words stand in a circle, in an order of its own.
# The next word is found 1 step further with probability 0.7, 3 steps with 0.2, and 7 steps with 0.1.
#
# Here is a text in language 0, one word after the other:

# %%
languages = Languages.draw(seed=16)
V, chances = languages.vocab_size, np.array([0.7, 0.2, 0.1])
rng = np.random.default_rng(16)
circle, text = languages.circles[0].tolist(), [0]
for _ in range(11):
    hop = rng.choice([1, 3, 7], p=chances)
    text.append(circle[(circle.index(text[-1]) + hop) % 12])
print("circle", circle, "text", text)

# %% [markdown] predict="which_language"
# In which places of this text can you tell the language from the word alone? And from the word together with the one
# before?
#
# ANSWER: From the word alone only where it is private, 8 to 11 for language 0. From a pair nearly everywhere: the
# circles differ, so what is the likely next word in one language is rare or impossible in the other two. A model must
# learn both: the tables, and which of them holds at the moment.

# %% [markdown]
# `languages.sample` does the same for many rows at once; each row draws its language and speaks nothing else. We count
# what follows what. The count must agree with `languages.rule`, the table of the chain: a row for each word, with
# the probabilities of all next words.

# %%
language, many = languages.sample(rng, 3000, 33)
before, after = many[:, :-1], many[:, 1:]
counts = np.zeros((3, V, V))
np.add.at(counts, (language[:, None], before, after), 1)
counted = counts / np.maximum(counts.sum(-1, keepdims=True), 1)
assert np.abs(counted - languages.rule).max() < 0.05

# %%
fig, axes = course.figure(7.5, 2.8, ncols=3, sharey=True)
for d, ax in enumerate(axes):
    image = ax.imshow(counted[d], vmin=0, vmax=0.7)
    ax.set(xlabel="next word", ylabel="word", title=f"language {d}")
    ax.label_outer()
fig.colorbar(image, ax=axes, label="probability")
alt = "Three heat maps, word down, next word across: each used row has one bright and two darker cells, in other places for each language."
course.show(fig, alt=alt, summary="Three cells in each row; after a shared word, other ones in every language.")

# %% [markdown]
# ## The floor
#
# A model is trained by its **cross-entropy**: minus the logarithm of the probability that it gave to the token that
# came. No model can get below the **entropy rate** of the language, the uncertainty that is left when the rule is
# known.

# %% [markdown] predict="floor"
# What is the entropy rate of our languages, in nats? And what does a model reach that knows the 20 words and nothing
# else?
#
# ANSWER: In every row the same three probabilities, so the rate is their entropy: -(0.7 ln 0.7 + 0.2 ln 0.2 + 0.1 ln
# 0.1), about 0.80. Knowing nothing gives ln 20, about 3.0. All that can be learned lies between these two.

# %%
slow = 0.0
for chance in (0.7, 0.2, 0.1):
    slow -= chance * np.log(chance)
rate = -(chances * np.log(chances)).sum()
surprise = -np.log(languages.rule[language[:, None], before, after])
assert np.isclose(slow, rate) and abs(surprise.mean() - rate) < 0.01
print("entropy rate", course.sig3(rate), "knowing nothing", course.sig3(np.log(V)))

# %% [markdown]
# The assertion holds the definition against the text: the mean surprise of someone who knows language and rule is the
# entropy rate. But a model does not know the language of a row. It must find out by reading. After a private word
# that is certain; a row that begins with shared words leaves it open for a while. An ideal reader keeps a probability
# for each language and mixes the three rules. We let it read the text on which our models will be tested.

# %%
T = 32
test_language, test = languages.sample(np.random.default_rng(99), 96, T + 1)
ideal = languages.ideal_losses(test).mean(0)
floor = ideal.mean()
assert ideal[0] > 1.1 * rate and abs(ideal[16:].mean() - rate) < 0.05
print("ideal reader", course.sig3(floor), "and in the second half of a row", course.sig3(ideal[16:].mean()))

# %% [markdown]
# So there are two floors. In the second half of a row the language is known, and the ideal reader stands on the
# entropy rate. Over the whole row it pays a little more, for the first words. No model can beat it, except by luck on
# a particular text, and a model that comes close has learned all there is.

# %% [markdown] exercise="entropy_rate" stars=2 minutes=15 goal="floor"
# ### The entropy rate of any chain
#
# Our circles visit all words equally often. Other chains do not, and a row then counts as often as its word occurs.
# Write `entropy_rate(chain)` for a square table whose rows sum to 1: the entropy rate in nats. Some entries are zero;
# such a word never follows. In the long run, the shares of the words no longer change when the chain takes one more
# step.


# %% solution="entropy_rate"
def entropy_rate(chain):
    ### BEGIN SOLUTION
    shares = np.full(len(chain), 1 / len(chain))
    for _ in range(5000):
        shares = shares @ chain
    logs = np.log(np.where(chain > 0, chain, 1))
    return -(shares[:, None] * chain * logs).sum()
    ### END SOLUTION


# %% check="entropy_rate"
lesson.check.entropy_rate(entropy_rate)

# %% [markdown]
# ## The balance loss
#
# Nothing in the cross-entropy asks for *all* experts to be used. So training adds a second term, the **balance loss**
# of the Switch Transformer (Fedus et al. 2021). Per layer, with E experts:
#
# $$E \sum_e f_e\, P_e,$$
#
# where f is the load, each expert's share of the choices, and P the mean probability that the router gives it,
# softmax over *all* experts. Four experts, two of them chosen, three tokens:

# %%
logits_TE = np.array([[2.0, 1.0, 0.0, 0.0], [2.0, 0.0, 1.0, 0.0], [1.0, 2.0, 0.0, -1.0]], np.float32)
f, P = np.zeros(4), np.zeros(4)
for z in logits_TE:
    for e in sorted(range(4), key=lambda e: -z[e])[:2]:
        f[e] += 1 / 6  # three tokens with two choices each
    for e in range(4):
        P[e] += np.exp(z[e]) / np.exp(z).sum() / 3
slow = 4 * sum(f[e] * P[e] for e in range(4))
print("f", course.sig3(f), "P", course.sig3(P), "loss", course.sig3(slow))


# %% [markdown]
# The same for arrays, as a function of the logits, and with `network.shares`, from which training takes f and P.


# %%
def balance_of(logits_TE):
    f_E = jax.nn.one_hot(choose(logits_TE, 2).experts, 4).mean((0, 1))
    return 4 * jnp.sum(f_E * jax.nn.softmax(logits_TE).mean(0))


shares = jax.jit(lambda logits_TE: network.shares(choose(logits_TE, 2), jnp.ones(len(logits_TE), bool)))
load_E, mean_E = shares(logits_TE)
assert np.isclose(slow, balance_of(logits_TE)) and np.isclose(slow, 4 * load_E @ mean_E)
assert np.allclose(load_E, f) and np.allclose(mean_E, P)

# %% [markdown] predict="worst_case"
# What is the balance loss when every expert gets an even load? And when all tokens choose the same two of eight
# experts, with a probability of one half each?
#
# ANSWER: With f = 1/E the sum is (1/E) times the sum of P, which is 1: the loss is 1, whatever P is. In the other
# case f and P are 1/2 for two experts and 0 for the others: 8 (1/4 + 1/4) = 4, the number of experts divided by the
# number chosen.

# %%
same_two = np.tile(np.float32([50, 50, 0, 0, 0, 0, 0, 0]), (5, 1))
f_E, P_E = shares(same_two)
assert np.isclose(8 * f_E @ P_E, 4)

# %% [markdown]
# Counting cannot be differentiated: a small change of the logits changes no choice, and f stays. The gradient goes
# through P alone. There each expert's logit is pushed down or up, as its load lies above or below the average that
# the token sees. Compare with what the chosen weights pass back. In gpt-oss their softmax covers the chosen experts
# only.

# %%
through_balance_TE = jax.jit(jax.grad(balance_of))(logits_TE)
through_weights_TE = jax.jit(jax.grad(lambda z: choose(z, 2).weights[:, 0].sum()))(logits_TE)
assert (through_balance_TE[:, 0] > 0).all() and (through_balance_TE[:, 3] < 0).all()
assert (through_weights_TE[:, 3] == 0).all() and (through_weights_TE[:, 0] != 0).all()
print("to the idle expert 3:", course.sig3(through_balance_TE[:, 3]), "and", course.sig3(through_weights_TE[:, 3]))

# %% [markdown]
# A step goes *against* the gradient, so the balance loss raises the idle expert for every token. The weights tell it
# nothing, exactly zero: an expert that nobody chooses gets no message from the cross-entropy. It cannot improve, and
# nobody will find out if it could. This is why imbalance feeds itself (Shazeer et al. 2017).

# %% [markdown] exercise="balance_loss" stars=3 minutes=20 goal="balance"
# ### Write the balance loss
#
# Write `balance_loss(logits_TE, experts_TX, real_T)`. Where `real_T` is false the token is padding: the ids of its
# experts are E, one more than the last expert, and it counts for nothing, neither in f nor in P. Use `jnp`: the check
# also takes the gradient with respect to the logits.


# %% solution="balance_loss"
def balance_loss(logits_TE, experts_TX, real_T):
    ### BEGIN SOLUTION
    E, n = logits_TE.shape[1], real_T.sum()
    f_E = jnp.sum(experts_TX[..., None] == jnp.arange(E), axis=(0, 1)) / (n * experts_TX.shape[1])
    P_E = jnp.sum(jax.nn.softmax(logits_TE, axis=-1) * real_T[:, None], axis=0) / n
    return E * jnp.sum(f_E * P_E)
    ### END SOLUTION


# %% check="balance_loss"
lesson.check.balance_loss(balance_loss)

# %% [markdown]
# ## A tiny gpt-oss
#
# Two layers, the first with a sliding window, sinks, rotary embedding, the clamped activation: every mechanism is
# that of the large model. Only the numbers are small: vectors of 32, eight experts, two of them chosen.

# %%
tiny = ModelConfig(
    num_layers=2, hidden_size=32, intermediate_size=32, head_dim=16, num_attention_heads=2, num_key_value_heads=1,
    num_experts=8, experts_per_token=2, vocab_size=V, sliding_window=8, max_context=T, rope_original_context=T,
    rope_factor=1.0,
)  # fmt: skip
L, E, X = tiny.num_layers, tiny.num_experts, tiny.experts_per_token
count = sum(value.size for value in network.init(tiny, 0).values())
print(f"{count:,} parameters")

# %% [markdown]
# A `Plan` holds the numbers of a run, and `optimizer.make_step` makes one step of it: the two losses, their gradient,
# and Adam, an update in which every weight moves at a pace of its own. The rate rises over 20 steps, stays level, and
# falls over the second half of the run, so that the weights come to rest. The load f in the balance loss is that of
# the batch before; `memory` would blend in older ones, as training on small batches needs.
#
# A batch has 24 rows of 32 words. The text of all 240 steps is drawn in advance, and each row is used once, so
# nothing can be learned by heart.


# %%
class TinyPlan(Plan):
    config = tiny


S, B = 240, 24
plan = TinyPlan(rows=B, length=T, text_share=1.0, rate=1e-2, warmup=20, steps=S, fall=S // 2, memory=0.0)
_, tokens = languages.sample(np.random.default_rng(1), S * B, T + 1)
each = lambda value, *shape: np.broadcast_to(np.asarray(value), (S, *shape))
batches = Batch(
    tokens=tokens.reshape(S, B, T + 1),
    weights=each(np.float32(1), B, T),
    segments=each(np.int32(0), B, T),
    wanted=each(np.arange(B * T, dtype=np.int32), B * T),
)

# %% [markdown]
# One program runs ten steps and is compiled once. The weight of the balance loss is one of its *arguments*, so runs
# with and without the loss share it. After every ten steps we keep the weights: a **checkpoint**.


# %%
@jax.jit
def ten_steps(balance, state, batches):
    step = optimizer.make_step(dataclasses.replace(plan, balance=balance))

    def one(state, batch):
        state, measured = step(state, batch)
        return state, (measured["text"], state.load)

    return jax.lax.scan(one, state, batches)


def train(params, balance):
    state, log, kept = optimizer.begin(plan, params), [], {0: params}
    for i in range(0, S, 10):
        state, lines = ten_steps(balance, state, Batch(*(array[i : i + 10] for array in batches)))
        log.append(lines)
        kept[i + 10] = state.params
    loss_S, load_SLE = (np.concatenate(parts) for parts in zip(*log, strict=True))
    return state, kept, loss_S, load_SLE


# %% [markdown]
# ## Collapse on purpose
#
# **Collapse** means that a few experts serve everything. To see it at once we start badly: the router's bias favors
# experts 0 and 1 by 8. Nothing else is wrong with this model. It is trained without the balance loss, and again with
# it.

# %%
bias, start = "blocks.mlp.router.bias", network.init(tiny, seed=0)
bad_bias = np.where(np.arange(E) < 2, np.float32(8), np.float32(0))
bad_start = start | {bias: np.tile(bad_bias, (L, 1))}
collapsed, _, collapsed_loss, collapsed_load = train(bad_start, 0.0)
healed, _, healed_loss, healed_load = train(bad_start, 0.1)

# %% [markdown] predict="will_it_heal"
# Nothing holds the bias fixed: it is trained like any other weight. Will the run without the balance loss find its
# way back, if the other six experts would be of use?
#
# ANSWER: No. The six experts are never chosen, so neither they nor their rows of the router get a gradient. Nor does
# the bias of the favorites get one that would help: their two weights depend on the difference between the favorites
# alone. Another expert gets a turn only if the two drift so far apart that the lower one falls below it.

# %%
idle_mean = collapsed.mean[network.GATE_UP][:, 2:]
router_mean = collapsed.mean["blocks.mlp.router.weight"][:, 2:]
assert (idle_mean == 0).all() and (router_mean == 0).all()
assert (healed.mean[network.GATE_UP] != 0).any((2, 3)).all()
served = (collapsed_load > 0).any(axis=0).sum(axis=-1)
print("experts that ever served a token, by layer:", served.tolist())

# %% [markdown]
# Adam keeps a running mean of every gradient. For the six it is not small, it is *zero*, after 240 steps. With the
# balance loss all eight are at work. Here are the loads of the last layer, in units of the even share 1 / E. Two
# experts that share everything have four times that.

# %%
fig, axes = course.figure(7.5, 3, ncols=2, sharey=True)
for ax, load, name in zip(axes, (collapsed_load, healed_load), ("without", "with"), strict=True):
    image = ax.imshow(load[:, -1].T * E, aspect="auto", vmin=0, vmax=4, interpolation="nearest")
    ax.set(title=f"{name} balance loss", xlabel="step", ylabel="expert", yticks=range(E))
    ax.label_outer()
fig.colorbar(image, ax=axes, label="load x E")
late_load = healed_load[-40:].mean(0) * E
assert (late_load > 0.25).all() and (late_load < 3).all()
alt = "Two heat maps of the last layer's load, step across, expert down. Without the balance loss two rows stay bright and six empty; with it all eight reach a middle color."
course.show(fig, alt=alt, summary="With the balance loss every expert ends above a quarter of its even share: True")

# %% [markdown]
# With the loss, too, nothing moves at first. The gradient of an idle expert is proportional to its probability, and
# that is tiny as long as the bias stands. Once it has shrunk, the rest goes quickly.
#
# Is such a start cheating? It shortens the story. From an even start, in so few steps, this model keeps its experts
# alive without any balance loss: try `train(start, 0.0)`. Over many thousands of steps and dozens of layers, small
# advantages add up, and then there is no way back, for the reason seen above. The balance loss is an insurance.

# %% [markdown] exercise="death_steps" stars=2 minutes=15 goal="collapse"
# ### When did they die?
#
# In a long run somebody has to notice a collapse. Write `death_steps(load_SE, least)` for the loads of one layer over
# S steps: for each expert the first step from which its load stays below `least` times the even share *until the
# end*. An expert that is alive at the end gets S. One that was idle for a while and came back is alive.


# %% solution="death_steps"
def death_steps(load_SE, least):
    ### BEGIN SOLUTION
    S, E = load_SE.shape
    alive_SE = load_SE >= least / E
    since_last_E = np.argmax(alive_SE[::-1], axis=0)
    return np.where(alive_SE.any(axis=0), np.where(alive_SE[-1], S, S - since_last_E), 0)
    ### END SOLUTION


# %% check="death_steps"
lesson.check.death_steps(death_steps)

# %% [markdown]
# ## The loss does not tell
#
# A third run starts with an even router, and trains with the balance loss. Then all three are tested on the same
# text, and compared with the ideal reader.


# %%
@jax.jit
def read(params):
    out = network.forward(params, test[:, :-1], jnp.zeros((96, T), jnp.int32), tiny)
    return network.cross_entropy(out.logits, test[:, 1:]).mean(), out.experts.transpose(1, 0, 2), out.load


even, kept, even_loss, _ = train(start, 0.1)
final = {"collapsed": collapsed, "healed": healed, "even start": even}
losses = {name: float(read(state.params)[0]) for name, state in final.items()}

# %% [markdown] predict="cost_of_collapse"
# The collapsed model has lost three quarters of its experts. Where does its loss end: far above the others, or close?
#
# ANSWER: Close. Two experts are enough for languages as small as these. The loss does not show what is missing, the
# loads do. In a larger model collapse costs what the idle experts could have learned, and a loss curve alone never
# says how much that would have been.

# %%
assert all(floor - 0.03 < loss < floor + 0.1 for loss in losses.values())
print("nobody is more than 0.1 nats above the ideal reader:", all(loss < floor + 0.1 for loss in losses.values()))

# %%
fig, ax = course.figure(7, 3)
curves = (collapsed_loss, "--"), (healed_loss, ":"), (even_loss, "-")
for (loss, style), name in zip(curves, final, strict=True):
    ax.plot(np.arange(2, S, 5), loss.reshape(-1, 5).mean(1), style, label=name)
ax.axhline(floor, color="black", lw=0.8, label="ideal reader")
ax.set(xlabel="step", ylabel="cross-entropy, nats", ylim=(0.6, 3.2))
ax.legend()
alt = "Training loss over 240 steps, three runs: from 3 nats steeply down within 50 steps, then level just above the thin line of the ideal reader."
course.show(fig, alt=alt, summary=f"All three runs end near the ideal reader's {floor:.2f} nats.")

# %% [markdown]
# ## Specialization appears
#
# Now read the checkpoints of the third run, from random weights on. Do experts come to prefer a language? Be careful,
# as in lesson 13: a private word gives its language away, and a router that looks at words alone would pass for a
# specialist. So count only the eight *shared* words, which all languages use equally often. There a preference can
# come only from the context.

# %%
steps = [0, 10, 20, 40, 80, 160, 240]
experts_of = {step: np.asarray(read(kept[step])[1]) for step in steps}
labels = np.repeat(test_language, T)
shared_T = test[:, :-1].ravel() < languages.shared
about = dict(num_experts=E, mask=shared_T)

# %% [markdown]
# By loops and by the package, for the last checkpoint: the share of a language's shared words that each expert
# serves.

# %%
ids_TX = experts_of[240][:, -1]
slow = np.zeros((3, E))
for t in np.flatnonzero(shared_T):
    slow[labels[t], ids_TX[t]] += 1 / (shared_T & (labels == labels[t])).sum()
share = {step: metrics.domain_specialization(experts_of[step], labels, resamples=0, **about) for step in (0, 240)}
table = {step: one.value[-1][np.argsort(one.names)] for step, one in share.items()}
assert np.allclose(slow, table[240])

# %%
fig, axes = course.figure(7.5, 2.4, ncols=2, sharey=True)
for ax, step in zip(axes, table, strict=True):
    image = ax.imshow(table[step], vmin=0, vmax=0.8)
    ax.set(title=f"step {step}", xlabel="expert", ylabel="language", xticks=range(E), yticks=range(3))
    ax.label_outer()
fig.colorbar(image, ax=axes, label="share of shared words")
assert np.ptp(table[0], axis=0).max() < 0.3 < np.ptp(table[240], axis=0).max()
alt = "Two heat maps, language down, expert across: the three rows look much alike at step 0; at step 240 some columns have a bright and a dark cell."
course.show(
    fig, alt=alt, summary="Largest gap between languages at one expert: below 0.3 at first, above it at the end"
)

# %% [markdown]
# One number for each checkpoint: the mutual information between expert and language, with its shuffled baseline.
# Labels are shuffled by rows, because all tokens of a row share one language.

# %%
about |= dict(groups=np.repeat(np.arange(96), T), resamples=20)
info = [metrics.domain_information(experts_of[step], labels, **about) for step in steps]
value, chance = (np.array([getattr(one, name) for one in info]) for name in ("value", "baseline"))
assert value[0, -1] < 0.06 and (value[-3:, -1] > 10 * chance[-3:, -1]).all()


# %%
def over_steps(value_SL, label, line, name):
    fig, ax = course.figure(6.5, 2.8)
    for layer, style in enumerate(("--", "-")):
        ax.plot(steps, value_SL[:, layer], style, marker="o", label=f"layer {layer}")
    ax.plot(steps, line, ":", color="black", label=name)
    ax.set(xlabel="step", ylabel=label, ylim=(0, None))
    ax.legend()
    return fig


fig = over_steps(value, "I(expert; language), nats", chance[:, -1], "shuffled")
alt = "Mutual information over the steps, one line a layer: near the dotted shuffled line at the start, far above it later."
course.show(fig, alt=alt, summary="At the end more than ten times the shuffled value in the last layer: True")

# %% [markdown]
# Nobody told the model that there are three languages. Experts divide the work by language because what follows a
# shared word depends on it, and the router can read it from the context that attention has collected.
#
# Three cautions. The value is far below its maximum, ln 3 or 1.1 nats: experts *lean* towards a language, they do not
# belong to it. The curve need not rise to the end; the model finds other ways to divide the work, and the loss is the
# same for them. And the balance loss has permitted all of this, because it counts the load over a whole batch with
# all three languages in it. A loss that asked for even loads within every *row* would forbid an expert to specialize
# in a language.

# %% [markdown]
# ## Router saturation
#
# When is routing decided? **Router saturation** compares a checkpoint with the last one: the share of a token's
# experts that are the same, averaged over tokens (OLMoE, Muennighoff et al. 2024). Two random choices share X / E of
# them.

# %%
slow = np.mean([len({*a} & {*b}) / X for a, b in zip(experts_of[80][:, -1], ids_TX, strict=True)])
saturation = lambda step: metrics.saturation(experts_of[step], experts_of[240], num_experts=E, resamples=0)
curve = np.array([saturation(step).value for step in steps])
assert np.isclose(slow, curve[steps.index(80), -1]) and (curve[-1] == 1).all()
assert (curve[0] < 0.75).all() and (curve[-2] > 2 / 3).all() and (curve[-2] > curve[0] + 0.1).all()

# %%
fig = over_steps(curve, "same experts as at the end", [X / E] * len(steps), "random choices")
alt = "Router saturation over the steps, one line a layer: about one half at step 0, then rising to 1; a dotted line at 0.25 marks random choices."
course.show(fig, alt=alt, summary="At step 160 of 240 more than two thirds of the choices are the final ones: True")

# %% [markdown] predict="start_above_chance"
# At step 0 all weights are random, and yet the curve does not start at 0.25. Why?
#
# ANSWER: The final router *grew out of* the random one: it kept some of its preferences, above all in the first
# layer, where the word decides. Compare with another seed instead, and you get about chance. So a high saturation
# says that routing has stopped moving, and not that it has become good.

# %% [markdown]
# ## Training through four bits
#
# gpt-oss's experts were trained further with weights rounded to MXFP4. Rounding is a staircase: its slope is zero,
# and no gradient gets through. The **straight-through** trick rounds on the way forward and pretends on the way back
# that nothing happened. `network.fake_quantize` does that.

# %%
w = np.random.default_rng(4).normal(size=32).astype(np.float32)
pull = np.linspace(-1, 1, 32, dtype=np.float32)
stairs = jax.jit(lambda w: mxfp4.quantize(w).dequantize(jnp.float32))
trained = jax.jit(network.fake_quantize)
assert (stairs(w + 1e-6 * pull) == stairs(w)).all() and (trained(w) == stairs(w)).all()
gradient = jax.jit(jax.grad(lambda w: (pull * trained(w)).sum()))(w)
assert (gradient == pull).all()
print("slope of the stairs: 0; the gradient that training sees is the full pull:", bool((gradient == pull).all()))

# %% [markdown]
# Both versions of the weights exist side by side. The forward pass sees the rounded ones, so the loss is the loss of
# the model that will be stored. The pull goes to the exact ones in float32. There small pulls add up, until a weight
# crosses a step of the stairs and its rounded value jumps. The gradient is that of the ramp which the stairs follow,
# not that of the stairs.
#
# Our model was trained without rounding. How much does it lose if its experts are packed now?

# %%
packed_loss = float(read(jax.jit(network.quantized)(even.params))[0])
assert abs(packed_loss - losses["even start"]) < 0.1
print("packing the experts changes the loss by less than 0.1 nats: True")

# %% [markdown]
# Little, for a model that has experts to spare. `Plan(quantize=True)` would train it through the rounding, as the
# last part of the built-in model's training did. Whether it pays is a question for a measurement on text that was held
# back.

# %% [markdown]
# ## What you have now
#
# A language with a known floor, and a model that comes within a few hundredths of it. A balance loss, and the reason
# for its form: it alone speaks to experts that nobody chose. A collapse that the loss does not show and the loads do.
# And routing metrics, tried where one can watch what they measure come into being.
