"""What experts and attention do to the output: definitions 22 to 26."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import CenteredNorm, LogNorm, Normalize

from gptoss_jax.routing.figures.drawing import (
    SERIES,
    Drawing,
    FigureError,
    bar,
    finish,
    heat,
    layer_axis,
    many,
    near,
    need,
    new_figure,
    number_axis,
    plain_log,
    spoken,
    styled,
    write_values,
)


@styled
def load_against_effect(
    load: np.ndarray, effect: np.ndarray, name: str = "KL divergence, nats", against: str = "load"
) -> Drawing:
    """Is the busiest expert the one that matters? A dot an expert; both [L, E], NaN effects left out (22, 23)."""
    load, effect = need(load, "load", 2), need(effect, "effect", 2, finite=False)
    if load.shape != effect.shape:
        raise FigureError(f"load {list(load.shape)} and effect {list(effect.shape)} differ")
    _, E = load.shape
    figure, axes = new_figure(5.6, 3.8)
    ax = axes[0, 0]
    tried = np.isfinite(effect)
    if not tried.any():
        raise FigureError("effect holds no finite value: nothing to draw")
    x, y = (load * E)[tried], effect[tried]
    ax.scatter(x, y, s=14, color=SERIES[0], alpha=0.6, lw=0, gid="experts")
    if (y > 0).any():
        least = float(y[y > 0].min())
        ax.set_yscale("symlog", linthresh=least, linscale=0.4)
        ax.set_ylim(min(0.0, float(y.min())), 2.5 * float(y.max()))
        plain_log(ax.yaxis)
        ax.yaxis.set_major_formatter(lambda y, _: f"{y:g}" if y == 0 or y >= least else "")
    ids = np.argwhere(tried)
    busiest, strongest = int(x.argmax()), int(y.argmax())
    for i, word in {busiest: "busiest", strongest: "strongest"}.items():
        layer, e = ids[i]
        word = "busiest and strongest" if busiest == strongest else word
        right = x[i] > x.max() * 0.6
        ax.annotate(
            f"{word}: expert {e}, layer {layer}", (x[i], y[i]), (-6 if right else 6, 5), textcoords="offset points",
            fontsize=8, ha="right" if right else "left",
        )  # fmt: skip
        ax.plot(x[i], y[i], "o", ms=7, mfc="none", mec="black", mew=1)
    ax.margins(x=0.06)
    ax.grid(color="#e9e9e9", lw=0.6)
    ax.set_xlabel(f"{against}, times an even share")
    ax.set_ylabel(name)
    ax.set_title(f"{against[0].upper()}{against[1:]} against effect, {many(int(tried.sum()), 'expert')}")
    (lb, eb), (ls, es) = ids[busiest], ids[strongest]
    first = f"The busiest expert ({eb} of layer {lb}, {near(x[busiest])} times an even share)"
    summary = (
        f"{first} is also the one with the largest effect, {near(y[busiest])}."
        if busiest == strongest
        else f"{first} has effect {near(y[busiest])}; the strongest, {near(y[strongest])}, is {es} of layer {ls}."
    )
    return finish(figure, f"Scatter plot, one dot an expert: {against} against {name}.", summary)


@styled
def attribution_map(value: np.ndarray, experts: np.ndarray, target: str) -> Drawing:
    """What each chosen expert adds to one logit, [L, X], with the ids [L, X] printed (definition 23)."""
    value, experts = need(value, "value", 2), need(experts, "experts", 2)
    if value.shape != experts.shape:
        raise FigureError(f"value {list(value.shape)} and experts {list(experts.shape)} differ")
    L, X = value.shape
    high = max(1.3, min(7.0, 0.2 * L))
    figure, axes = new_figure(max(3.0, 0.75 * X) + 1.6, high + 0.9)
    ax = axes[0, 0]
    image = heat(ax, value, CenteredNorm(0, float(np.abs(value).max()) or 1.0), "PuOr")
    write_values(
        ax,
        image,
        [[f"{e}: {x:+.2f}" for e, x in zip(*rows, strict=True)] for rows in zip(experts, value, strict=True)],
        6.5,
    )
    layer_axis(ax, L, high)
    ax.set_xticks(range(X), [str(x + 1) for x in range(X)])
    ax.set_xlabel("rank of the choice")
    ax.set_title(f"Expert: part of the logit of {target}", fontsize=9)
    bar(figure, image, ax, "logit")
    layer, x = np.unravel_index(value.argmax(), value.shape)
    down = np.unravel_index(value.argmin(), value.shape)
    summary = (
        f"Expert {experts[layer, x]} of layer {layer} adds most to the logit of {target} ({value[layer, x]:+.2f}), "
        f"expert {experts[down]} of layer {down[0]} takes most away ({value[down]:+.2f})."
        if value.min() < 0
        else f"Expert {experts[layer, x]} of layer {layer} adds most to the logit of {target} ({value[layer, x]:+.2f})."
    )
    return finish(figure, f"Heatmap of {L} layers by {X} choices: contribution to the logit of {target}.", summary)


@styled
def logit_lens_map(probability: np.ndarray, rank: np.ndarray) -> Drawing:
    """How early the answer is there: probability [L, T] of the final token read off each layer (definition 24).

    `rank` [L, T], 0 for the most likely token, is printed where there is room.
    """
    probability, rank = need(probability, "probability", 2), need(rank, "rank", 2)
    if probability.shape != rank.shape:
        raise FigureError(f"probability {list(probability.shape)} and rank {list(rank.shape)} differ")
    L, T = probability.shape
    wide, high = max(2.6, min(9.0, 0.3 * T)), max(1.3, min(6.6, 0.2 * L))
    figure, axes = new_figure(wide + 1.3, high + 0.9)
    ax = axes[0, 0]
    image = heat(ax, probability, Normalize(0, 1))
    if T <= 30:
        write_values(ax, image, [[str(r) if r < 1000 else "" for r in row] for row in rank], 6.5)
    layer_axis(ax, L, high)
    number_axis(ax.xaxis, range(T), wide, 0.3)
    ax.set_xlabel("position")
    ax.set_title("Logit lens" + (", printed: rank of the final token" if T <= 30 else ""))
    bar(figure, image, ax, "probability of the final token")
    settled = (rank == 0).mean(1)
    layer = int(np.argmax(settled >= 0.5)) if (settled >= 0.5).any() else L - 1
    share = near(100 * settled[layer])
    summary = f"Read off layer {layer}, the final token already leads at {share} % of {many(T, 'position')}."
    return finish(figure, f"Heatmap of {L} layers by {T} positions: probability of the final token.", summary)


@styled
def attention_map(weights: np.ndarray, sink: np.ndarray, title: str) -> Drawing:
    """One head's attention [T, S] and, in a column of its own, what the sink takes, [T] (definition 25)."""
    weights, sink = need(weights, "weights", 2), need(sink, "sink", 1)
    T, S = weights.shape
    if len(sink) != T:
        raise FigureError(f"sink has {len(sink)} entries for {T} queries")
    side = max(2.4, min(6.0, 0.22 * S))
    figure, axes = new_figure(side + 2.2, max(2.0, min(6.0, 0.22 * T)) + 0.9, 1, 2, width_ratios=[1, max(8, S / 4)])
    norm = Normalize(0, float(max(weights.max(), sink.max(), 1e-6)))
    heat(axes[0, 0], sink[:, None], norm)
    axes[0, 0].set_xticks([0], ["sink"])
    number_axis(axes[0, 0].yaxis, range(T), side, 0.16)
    axes[0, 0].set_ylabel("query position")
    image = heat(axes[0, 1], np.where(weights > 0, weights, np.nan), norm, absent="white", crosses=False)
    number_axis(axes[0, 1].xaxis, range(S), side, 0.3)
    axes[0, 1].set_yticks([])
    axes[0, 1].set_xlabel("key position (white: masked)")
    axes[0, 1].set_title(title)
    bar(figure, image, axes[0, 1], "share of attention")
    q = int(sink.argmax())
    summary = (
        f"Over {many(T, 'position')}, the sink takes {near(100 * sink.mean())} % of the attention on "
        f"average and most at position {q}, {near(100 * sink[q])} %."
    )
    return finish(figure, f"Attention map, {T} queries by {S} keys, and the sink's column: {title}.", summary)


@styled
def head_map(
    value: np.ndarray, name: str, sliding: Sequence[bool] | None = None, limits: tuple[float, float] | None = None,
    log: bool = False,
) -> Drawing:  # fmt: skip
    """A number for each head, [L, N]: sink mass, attention distance or entropy (definitions 25 and 26).

    Args:
      value: [L, N].
      name: of the number.
      sliding: bool [L], layers with a sliding window; their labels carry a ``w``.
      limits: of the colors.
      log: logarithmic colors.
    """
    value = need(value, "value", 2)
    L, N = value.shape
    wide, high = max(2.4, min(8.0, 0.5 * N)), max(1.3, min(6.6, 0.2 * L))
    figure, axes = new_figure(wide + 1.5, high + 0.9)
    ax = axes[0, 0]
    low, top = limits or (float(value.min()), float(value.max()))
    if log:
        positive = value[value > 0]
        low = float(positive.min()) if positive.size else 0.1
        norm: Normalize = LogNorm(low, max(top, low * 1.001))
    else:
        norm = Normalize(low, top if top > low else low + 1)
    image = heat(ax, value, norm)
    if L * N <= 64:
        write_values(ax, image, [[near(x) for x in row] for row in value], 7)
    layer_axis(ax, L, high)
    if sliding is not None:
        ax.set_yticks(range(L), [f"{layer} w" if windowed else f"{layer}" for layer, windowed in enumerate(sliding)])
        ax.set_ylabel("layer (w: sliding window)")
        ax.tick_params(axis="y", labelsize=6.5 if L > 24 else 8)
    number_axis(ax.xaxis, range(N), wide, 0.24)
    ax.set_xlabel("head")
    ax.set_title(f"{name[0].upper()}{name[1:]}")
    bar(figure, image, ax, name)
    layer, head = np.unravel_index(value.argmax(), value.shape)
    largest, average = near(value[layer, head]), near(value.mean())
    summary = f"The {spoken(name)} is largest in head {head} of layer {layer}, {largest}, and {average} on average"
    if sliding is not None and any(sliding) and not all(sliding):
        windowed = np.asarray(sliding, bool)
        summary += f" ({near(value[windowed].mean())} in sliding layers, {near(value[~windowed].mean())} in the others)"
    return finish(figure, f"Heatmap of {L} layers by {N} heads: {name}.", summary + ".")
