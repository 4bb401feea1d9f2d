"""Maps over layers and experts, and over tokens: definitions 1 to 4, 11, 19, 22 and 28."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LogNorm, Normalize

from gptoss_jax.routing.figures.drawing import (
    Drawing,
    FigureError,
    around_one,
    bar,
    cell_sizes,
    expert_axis,
    finish,
    heat,
    layer_axis,
    many,
    near,
    need,
    new_figure,
    number_axis,
    spoken,
    styled,
    write_values,
)


def _relative_map(share: np.ndarray, tokens: int, title: str, of: str) -> Drawing:
    share = need(share, "share", 2)
    L, E = share.shape
    ratio = share * E
    wide, high = cell_sizes(L, E)
    figure, axes = new_figure(wide + 2.4, high + 0.9)
    ax = axes[0, 0]
    image = heat(ax, ratio, around_one(ratio), "PuOr")
    if L * E <= 64:
        write_values(ax, image, [[f"{x:.2f}" if x else "×" for x in row] for row in ratio])
    layer_axis(ax, L, high)
    expert_axis(ax, range(E), wide)
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(L), [f"{row.argmax()}: ×{row.max():.1f}" for row in ratio], fontsize=6.5)
    right.set_ylabel("busiest expert", fontsize=8)
    right.tick_params(length=0)
    ax.set_title(f"{title}, {many(tokens, 'token')}")
    bar(figure, image, ax, "times an even share", ratios=True, extend="both")
    layer, e = np.unravel_index(ratio.argmax(), ratio.shape)
    dead = int((ratio == 0).sum())
    idle = f"{dead} of {L * E} experts served no token" if dead else "every expert served a token"
    summary = (
        f"Over {many(tokens, 'token')}, the busiest expert is {e} of layer {layer} with {near(ratio[layer, e])} times "
        f"an even share of its layer's {of}; {idle}."
    )
    what = f"Heatmap of {many(L, 'layer')} by {many(E, 'expert')}: each expert's share of the {of} over the even share."
    return finish(figure, what, summary)


@styled
def load_map(load: np.ndarray, tokens: int) -> Drawing:
    """Load [L, E] as multiples of the even share 1 / E, on a log2 scale around 1 (definition 1)."""
    return _relative_map(load, tokens, "Load", "choices")


@styled
def mass_map(mass: np.ndarray, tokens: int) -> Drawing:
    """Mass [L, E] as multiples of the even share 1 / E (definition 2)."""
    return _relative_map(mass, tokens, "Mass", "weight")


@styled
def part_maps(load: np.ndarray, names: Sequence[str], tokens: np.ndarray) -> Drawing:
    """The load of each part of a conversation, [P, L, E], on one scale (definition 28)."""
    load = need(load, "load", 3)
    P, L, E = load.shape
    if len(names) != P or len(tokens) != P:
        raise FigureError(f"names ({len(names)}) and tokens ({len(tokens)}) must have one entry for each of {P} parts")
    ratio = load * E
    wide = max(3.4, min(9.0, 0.5 * E))
    high = max(0.9, min(2.4, 0.19 * L))
    figure, axes = new_figure(wide + 1.2, (high + 0.35) * P + 0.5, P, 1, sharex=True)
    norm = around_one(ratio)
    for p in range(P):
        ax = axes[p, 0]
        image = heat(ax, ratio[p], norm, "PuOr")
        layer_axis(ax, L, high)
        ax.set_title(f"{names[p]}, {many(int(tokens[p]), 'token')}", fontsize=9)
    expert_axis(axes[-1, 0], range(E), wide)
    bar(figure, image, axes, "load, times an even share", ratios=True, extend="both")
    p, layer, e = np.unravel_index(ratio.argmax(), ratio.shape)
    summary = (
        f"Of {P} parts with {', '.join(f'{int(n):,}' for n in tokens)} tokens, the most uneven choice is in "
        f"{names[p]!r}, where expert {e} of layer {layer} has {near(ratio[p, layer, e])} times an even share."
    )
    return finish(figure, f"{P} heatmaps of load, {L} layers by {E} experts: {', '.join(names)}.", summary)


@styled
def token_layer_map(
    value: np.ndarray,
    expert: np.ndarray,
    name: str = "weight of the first choice",
    limits: tuple[float, float] | None = None,
) -> Drawing:
    """Tokens by layers (definition 3): the color is one number, the first choice is printed where there is room.

    Args:
      value: [T, L], e.g. the weight of the first choice, an entropy or a margin.
      expert: int [T, L], ids to print.
      name: of the number.
      limits: of the color scale; the range of `value` when None.
    """
    value, expert = need(value, "value", 2), need(expert, "expert", 2)
    if value.shape != expert.shape:
        raise FigureError(f"value {list(value.shape)} and expert {list(expert.shape)} differ")
    T, L = value.shape
    wide = max(2.6, min(9.0, 0.26 * T))
    high = max(1.3, min(6.6, 0.2 * L))
    figure, axes = new_figure(wide + 1.3, high + 0.9)
    ax = axes[0, 0]
    low, top = limits or (float(value.min()), float(value.max()))
    image = heat(ax, value.T, Normalize(low, top if top > low else low + 1))
    if T <= 40:
        write_values(ax, image, [[str(e) for e in row] for row in expert.T], 7 if expert.max() < 100 else 6)
    layer_axis(ax, L, high)
    number_axis(ax.xaxis, range(T), wide, 0.3)
    ax.set_xlabel("position")
    printed = "; printed: the first choice's id" if T <= 40 else ""
    ax.set_title(f"{name[0].upper()}{name[1:]}{printed}")
    bar(figure, image, ax, name)
    means = value.mean(0)
    lowest, highest = int(means.argmin()), int(means.argmax())
    summary = (
        f"Over {many(T, 'token')}, the mean {spoken(name)} is lowest in layer {lowest} ({near(means[lowest])}) and "
        f"highest in layer {highest} ({near(means[highest])})."
    )
    return finish(figure, f"Heatmap of {many(T, 'token')} by {many(L, 'layer')}: {name} of each.", summary)


@styled
def token_expert_map(weights: np.ndarray, layer: int) -> Drawing:
    """Tokens by experts of one layer, [T, E]: the weight of each choice, blank where not chosen (definition 4)."""
    weights = need(weights, "weights", 2)
    T, E = weights.shape
    wide = max(2.6, min(9.0, 0.3 * E))
    high = max(1.5, min(7.0, 0.19 * T))
    figure, axes = new_figure(wide + 1.3, high + 0.9)
    ax = axes[0, 0]
    shown = np.where(weights > 0, weights, np.nan)
    image = heat(ax, shown, Normalize(0, 1), absent="none", crosses=False)
    ax.grid(color="#ececec", lw=0.4, zorder=-1)
    ax.set_axisbelow(True)
    image.set_zorder(1)
    number_axis(ax.yaxis, range(T), high, 0.14)
    ax.set_ylabel("position")
    expert_axis(ax, range(E), wide)
    ax.set_title(f"Layer {layer}: which experts, with which weight")
    bar(figure, image, ax, "weight")
    total = np.nansum(shown, 0)
    e = int(total.argmax())
    summary = (
        f"In layer {layer}, {int((total > 0).sum())} of {E} experts serve the {many(T, 'token')}, and expert {e} "
        f"carries the most weight, {near(100 * total[e] / total.sum())} %."
    )
    return finish(
        figure, f"Grid of {many(T, 'token')} by {E} experts of layer {layer}; chosen cells show weight.", summary
    )


@styled
def coactivation_map(lift: np.ndarray, order: np.ndarray, layer: int, tokens: int) -> Drawing:
    """How often two experts meet over how often they would by chance, one layer (definition 11).

    Args:
      lift: [E, E]; NaN on the diagonal and where an expert is too rare.
      order: int [E], the ids in the order to draw.
      layer: for the title.
      tokens: behind it.
    """
    lift, order = need(lift, "lift", 2, finite=False), need(order, "order", 1)
    E = len(order)
    if lift.shape != (E, E):
        raise FigureError(f"lift {list(lift.shape)} and order [{E}] differ")
    shown = lift[np.ix_(order, order)]
    side = max(2.6, min(7.2, 0.4 * E))
    figure, axes = new_figure(side + 1.6, side + 0.8)
    ax = axes[0, 0]
    # a pair that never meets takes the darkest color; gray is for what is not known
    image = heat(ax, np.maximum(shown, 1e-9), around_one(shown), "PuOr")
    number_axis(ax.xaxis, order.tolist(), side, 0.24)
    number_axis(ax.yaxis, order.tolist(), side, 0.14)
    ax.tick_params(axis="x", rotation=90 if E > 8 else 0)
    ax.set_xlabel("expert")
    ax.set_ylabel("expert")
    ax.set_title(f"Layer {layer}: experts that meet, {many(tokens, 'token')}")
    bar(figure, image, ax, "meetings, times chance", ratios=True, extend="both")
    known = np.isfinite(shown)
    if known.any():
        a, b = np.unravel_index(np.nanargmax(shown), shown.shape)
        low, high = sorted((int(order[a]), int(order[b])))
        never = int((shown[known] == 0).sum()) // 2
        summary = (
            f"In layer {layer}, over {many(tokens, 'token')}, experts {low} and {high} meet {near(shown[a, b])} times "
            f"as often as chance; {many(never, 'pair')} of {int(known.sum()) // 2} never meet."
        )
    else:
        summary = f"In layer {layer} no two experts served enough of the {many(tokens, 'token')} to compare."
    return finish(figure, f"Heatmap of {E} by {E} experts of layer {layer}: meetings over chance.", summary)


@styled
def similarity_map(similarity: np.ndarray, order: np.ndarray, what: str) -> Drawing:
    """Cosines between experts, [E, E], from -1 to 1 (definition 19); `what` says of what."""
    similarity, order = need(similarity, "similarity", 2), need(order, "order", 1)
    E = len(order)
    if similarity.shape != (E, E):
        raise FigureError(f"similarity {list(similarity.shape)} and order [{E}] differ")
    shown = similarity[np.ix_(order, order)].copy()
    side = max(2.6, min(7.2, 0.4 * E))
    figure, axes = new_figure(side + 1.6, side + 0.8)
    ax = axes[0, 0]
    image = heat(ax, shown, Normalize(-1, 1), "PuOr")
    number_axis(ax.xaxis, order.tolist(), side, 0.24)
    number_axis(ax.yaxis, order.tolist(), side, 0.14)
    ax.tick_params(axis="x", rotation=90 if E > 8 else 0)
    ax.set_xlabel("expert")
    ax.set_ylabel("expert")
    ax.set_title(f"Similarity of {what}")
    bar(figure, image, ax, "cosine")
    apart = np.where(np.eye(E, dtype=bool), -np.inf, shown)
    a, b = np.unravel_index(apart.argmax(), apart.shape)
    low, high = sorted((int(order[a]), int(order[b])))
    summary = (
        f"The most similar {what} are those of experts {low} and {high}, cosine {near(apart[a, b])}."
        if E > 1
        else f"There is one expert, and its {what} resemble themselves."
    )
    return finish(figure, f"Heatmap of {E} by {E} experts: cosine similarity of {what}.", summary)


@styled
def ablation_map(effect: np.ndarray, name: str = "KL divergence, nats") -> Drawing:
    """What the loss of each expert does, [L, E], on a log scale; NaN where it was not tried (definition 22)."""
    effect = need(effect, "effect", 2, finite=False)
    L, E = effect.shape
    wide, high = cell_sizes(L, E)
    figure, axes = new_figure(wide + 1.4, high + 0.9)
    ax = axes[0, 0]
    positive = effect[np.isfinite(effect) & (effect > 0)]
    top = float(positive.max()) if positive.size else 1.0
    low = max(float(positive.min()), top * 1e-4) if positive.size else 0.1
    image = heat(ax, effect, LogNorm(min(low, top / 10), top))
    if L * E <= 64:
        write_values(ax, image, [[near(x) if x > 0 else "×" for x in row] for row in effect], 7)
    layer_axis(ax, L, high)
    expert_axis(ax, range(E), wide)
    ax.set_title("Without one expert")
    bar(figure, image, ax, name, extend="min")
    if positive.size:
        layer, e = np.unravel_index(np.nanargmax(effect), effect.shape)
        idle = int((~(effect > 0)).sum())
        summary = (
            f"The output misses expert {e} of layer {layer} most ({spoken(name)}: {near(top)}); {idle} of {L * E} "
            "experts leave no trace when they are gone."
        )
    else:
        summary = f"None of {L * E} experts leaves a trace when it is gone."
    return finish(figure, f"Heatmap of {L} layers by {E} experts: {name} after that expert is ablated.", summary)
