"""Domains and flow: definitions 12, 13 and 20, each next to what shuffled labels give."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Curve

from gptoss_jax.routing.figures.drawing import (
    INK,
    SOFT,
    Drawing,
    FigureError,
    around_one,
    bar,
    expert_axis,
    finish,
    heat,
    many,
    near,
    need,
    new_figure,
    number_axis,
    styled,
    write_values,
)


@styled
def specialization_map(
    value: np.ndarray,
    names: Sequence[str],
    tokens: np.ndarray,
    experts_per_token: int,
    layer: int,
    baseline: np.ndarray | None = None,
    baseline_range: np.ndarray | None = None,
) -> Drawing:
    """Share of a domain's tokens that each expert of one layer serves, over X / E; below it the baseline (12).

    Args:
      value: [D, E].
      names: D domains.
      tokens: int [D], behind each row.
      experts_per_token: X.
      layer: for the title.
      baseline: [D, E], with shuffled labels.
      baseline_range: [2, D, E], central 95 % of the shuffles: cells outside carry a dot.
    """
    value = need(value, "value", 2)
    D, E = value.shape
    if len(names) != D or len(tokens) != D:
        raise FigureError(
            f"names ({len(names)}) and tokens ({len(tokens)}) must have one entry for each of {D} domains"
        )
    even = experts_per_token / E
    panels = [("as it is", value)] + ([] if baseline is None else [("shuffled labels", np.asarray(baseline))])
    wide = max(3.0, min(8.0, 0.5 * E))
    high = max(0.8, 0.24 * D)
    figure, axes = new_figure(wide + 2.6, (high + 0.3) * len(panels) + 0.8, len(panels), 1, sharex=True)
    norm = around_one(value / even)
    for ax, (title, array) in zip(axes[:, 0], panels, strict=True):
        image = heat(ax, array / even, norm, "PuOr")
        ax.set_yticks(range(D), [f"{name} ({int(n):,})" for name, n in zip(names, tokens, strict=True)])
        ax.set_title(title, fontsize=9)
    beyond = None
    if baseline_range is not None:
        low, top = np.asarray(baseline_range)
        beyond = (value < low) | (value > top)
        y, x = np.nonzero(beyond)
        size = min(3.0, 0.3 * 72 * wide / E)
        axes[0, 0].scatter(x, y, s=size**2, facecolor="white", edgecolor="black", linewidths=0.5)
        axes[0, 0].set_title("as it is (dot: outside the 95 % of shuffled labels)", fontsize=9)
    expert_axis(axes[-1, 0], range(E), wide)
    figure.suptitle(
        f"Layer {layer}: who serves which domain (tokens in brackets)",
        x=0.01,
        ha="left",
        fontsize=10,
        fontweight="bold",
    )
    bar(figure, image, axes, "times an even share", ratios=True, extend="both")
    d, e = map(int, np.unravel_index(value.argmax(), value.shape))
    summary = (
        f"In layer {layer}, expert {e} serves {near(100 * value[d, e])} % of the {int(tokens[d]):,} tokens of "
        f"{names[d]!r}, where an even share is {near(100 * even)} %"
    )
    if beyond is not None:
        summary += f"; {int(beyond.sum())} of {D * E} shares lie outside the 95 % of shuffled labels"
    return finish(figure, f"Heatmap of {D} domains by {E} experts, with its shuffled baseline.", summary + ".")


@styled
def divergence_map(value: np.ndarray, names: Sequence[str], layer: int, baseline: np.ndarray | None = None) -> Drawing:
    """Jensen-Shannon divergence between the loads of domains, one layer, [D, D], next to its baseline (13)."""
    value = need(value, "value", 2)
    D = len(names)
    if value.shape != (D, D):
        raise FigureError(f"value {list(value.shape)} does not fit {D} names")
    panels = [("as it is", value)] + ([] if baseline is None else [("shuffled labels", np.asarray(baseline))])
    side = max(2.2, min(4.2, 0.44 * D))
    figure, axes = new_figure(side * len(panels) + 2.2, side + 1.1, 1, len(panels), sharey=True)
    norm = Normalize(0, max(float(value.max()), 1e-6))
    for ax, (title, array) in zip(axes[0], panels, strict=True):
        image = heat(ax, array, norm)
        if D <= 12:
            write_values(ax, image, [[near(1000 * x) for x in row] for row in array], 6 if D > 8 else 7)
        ax.set_xticks(range(D), names, rotation=90 if D > 4 else 0)
        ax.set_yticks(range(D), names)
        ax.set_title(title, fontsize=9)
    figure.suptitle(
        f"Layer {layer}: distance between domains, thousandths of a nat",
        x=0.01,
        ha="left",
        fontsize=10,
        fontweight="bold",
    )
    bar(figure, image, axes, "Jensen-Shannon divergence, nats")
    a, b = map(int, np.unravel_index(np.triu(value, 1).argmax(), value.shape))
    summary = f"In layer {layer}, {names[a]!r} and {names[b]!r} are farthest apart, {near(value[a, b])} nats"
    if baseline is not None:
        summary += f" where shuffled labels give {near(np.asarray(baseline)[a, b])}"
    return finish(figure, f"Heatmap of {D} by {D} domains: Jensen-Shannon divergence of loads.", summary + ".")


@styled
def flow_map(
    joint: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    folded: np.ndarray,
    layer: int,
    tokens: int,
) -> Drawing:
    """Weight that passes from the experts of one layer to those of the next (definition 20).

    On the left the strongest experts as bands, the rest as "other"; on the right the whole joint distribution.

    Args:
      joint: [E, E], sums to 1.
      rows, columns: ids of the experts that `folded` keeps, in layers `layer` and `layer` + 1.
      folded: [r + 1, c + 1], last row and column "other".
      layer: the first of the two.
      tokens: behind it.
    """
    joint, folded = need(joint, "joint", 2), need(folded, "folded", 2)
    if folded.shape != (len(rows) + 1, len(columns) + 1):
        raise FigureError(f"folded {list(folded.shape)} does not fit {len(rows)} and {len(columns)} ids")
    E = len(joint)
    figure, axes = new_figure(9.6, 4.4, 1, 2, width_ratios=[1, 1])
    _bands(axes[0, 0], folded, [*map(str, rows), "other"], [*map(str, columns), "other"], layer)
    axes[0, 0].set_title(f"Layer {layer} to {layer + 1}, {many(tokens, 'token')}")
    apart = np.outer(joint.sum(1), joint.sum(0))
    ratio = np.divide(np.maximum(joint, 1e-12), apart, out=np.full(joint.shape, np.nan), where=apart > 0)
    image = heat(axes[0, 1], ratio, around_one(ratio), "PuOr")
    expert_axis(axes[0, 1], range(E), 3.6)
    axes[0, 1].set_xlabel(f"expert of layer {layer + 1}")
    number_axis(axes[0, 1].yaxis, range(E), 3.6, 0.14)
    axes[0, 1].set_ylabel(f"expert of layer {layer}")
    axes[0, 1].set_title("Every pair, over independence")
    bar(figure, image, axes[0, 1], "times what two independent layers give", ratios=True, extend="both")
    inner = folded[:-1, :-1]
    a, b = np.unravel_index(inner.argmax(), inner.shape)
    summary = (
        f"From layer {layer} to {layer + 1}, over {many(tokens, 'token')}, most weight passes from expert {rows[a]} to "
        f"expert {columns[b]}, {near(100 * inner[a, b])} %, {near(inner[a, b] / folded[a].sum())} of what expert "
        f"{rows[a]} carries."
    )
    return finish(figure, f"Flow diagram and heatmap, experts of layer {layer} to those of layer {layer + 1}.", summary)


def _bands(ax: Axes, folded: np.ndarray, left: list[str], right: list[str], layer: int) -> None:
    gap = 0.012
    r, c = folded.shape
    scale = 1 - gap * max(r, c)
    sizes = [folded.sum(1) * scale, folded.sum(0) * scale]
    starts = [np.concatenate([[0], np.cumsum(s + gap)[:-1]]) for s in sizes]
    for x, names, size, start in ((0.0, left, sizes[0], starts[0]), (1.0, right, sizes[1], starts[1])):
        for name, extent, y in zip(names, size, start, strict=True):
            if not extent:
                continue
            ax.add_patch(Rectangle((x - 0.02, y), 0.04, extent, facecolor=SOFT, lw=0))
            ax.text(
                x + (0.035 if x else -0.035), y + extent / 2, name, ha="left" if x else "right", va="center", fontsize=7
            )
    used = [start.copy() for start in starts]
    strongest = folded[:-1, :-1].max() if folded[:-1, :-1].size else 0
    for a in range(r):
        for b in range(c):
            h = folded[a, b] * scale
            y0, y1 = used[0][a], used[1][b]
            used[0][a] += h
            used[1][b] += h
            points = [
                (0.02, y0),
                (0.5, y0),
                (0.5, y1),
                (0.98, y1),
                (0.98, y1 + h),
                (0.5, y1 + h),
                (0.5, y0 + h),
                (0.02, y0 + h),
            ]
            codes = [Curve.MOVETO, *[Curve.CURVE4] * 3, Curve.LINETO, *[Curve.CURVE4] * 3]
            rest = a == r - 1 or b == c - 1
            # darker is more, as everywhere; what belongs to "other" stays pale
            shade = 0.12 if rest else 0.15 + 0.65 * folded[a, b] / strongest if strongest else 0.15
            ax.add_patch(PathPatch(Curve(points, codes), facecolor=INK if not rest else SOFT, alpha=shade, lw=0))
    ax.set_xlim(-0.16, 1.16)
    ax.set_ylim(1.0, -0.01)
    ax.set_xticks([0, 1], [f"layer {layer}", f"layer {layer + 1}"])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
