"""One number or a spread for each layer: definitions 6 to 10, 13 to 17, 20 and 21."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from gptoss_jax.routing.figures.drawing import (
    INK,
    MARKERS,
    SERIES,
    SOFT,
    Drawing,
    FigureError,
    bar,
    expert_axis,
    finish,
    heat,
    layer_axis,
    many,
    near,
    need,
    new_figure,
    plain_log,
    spoken,
    styled,
    write_values,
)


def _height(L: int) -> float:
    return max(1.6, min(6.0, 0.19 * L + 0.4))


@styled
def layer_values(
    value: np.ndarray,
    name: str,
    count: int | Sequence[int],
    series: Sequence[str] = (),
    baseline: np.ndarray | None = None,
    baseline_range: np.ndarray | None = None,
    interval: np.ndarray | None = None,
    baseline_name: str = "shuffled labels",
    unit: str = "token",
) -> Drawing:
    """One number a layer, or several series of them, next to what chance gives (definitions 10, 13 - 17, 20, 21).

    Args:
      value: [L] or [P, L], P up to 7.
      name: of the number.
      count: how many `unit` stand behind each number; one, or [L].
      series: P names.
      baseline: [L], what chance gives.
      baseline_range: [2, L], central 95 % of chance.
      interval: [2, L] or [2, P, L], 95 % interval of `value`.
      baseline_name: what chance is here.
      unit: what `count` counts.
    """
    value = np.atleast_2d(need(value, "value", (1, 2)))
    P, L = value.shape
    if len(series) not in (P, 0) or (P > 1 and not series) or len(SERIES) < P:
        raise FigureError(f"series names {len(series)} of {P} rows; give one a row, at most {len(SERIES)}")
    bounds = None if interval is None else np.asarray(interval).reshape(2, P, L)
    high = _height(L)
    figure, axes = new_figure(6.2, high + 1.2)
    ax = axes[0, 0]
    y = np.arange(L)
    if baseline_range is not None:
        ax.hlines(y, *np.asarray(baseline_range), color="#c4c4c4", lw=7, label=f"95 % of {baseline_name}")
    if baseline is not None:
        ax.plot(baseline, y, "|", color=SOFT, ms=9, mew=1.4, label=baseline_name, gid="baseline")
    for p in range(P):
        at = y + (p - (P - 1) / 2) * 0.16
        if bounds is not None:
            ax.hlines(at, bounds[0, p], bounds[1, p], color=SERIES[p], lw=1.6)
        label = series[p] if series else name
        ax.plot(value[p], at, MARKERS[p], color=SERIES[p], ms=4.5, label=label, gid="value")
    layer_axis(ax, L, high)
    ax.set_ylim(L - 0.5, -0.5)
    ax.grid(axis="x", color="#e4e4e4", lw=0.6)
    ax.set_xlabel(name)
    counts = sorted(set(np.ravel(count).tolist()))
    behind = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    n = many(counts[0], unit) if len(counts) == 1 else f"{behind} {unit}s"
    ax.set_title(f"{name[0].upper()}{name[1:]} by layer, {n}")
    if P > 1 or baseline is not None or baseline_range is not None:
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    flat = int(value.argmax())
    p, layer = divmod(flat, L)
    whose = f" of {series[p]}" if series else ""
    summary = f"With {n}, {spoken(name)}{whose} is highest in layer {layer}: {near(value[p, layer])}"
    if baseline is not None:
        summary += f", against {near(np.asarray(baseline)[layer])} with {baseline_name}"
    if baseline_range is not None:
        floor = np.asarray(baseline_range)
        lower = value if bounds is None else bounds[0]
        upper = value if bounds is None else bounds[1]
        outside = int(((lower > floor[1]) | (upper < floor[0])).sum())
        summary += f"; {outside} of {P * L} lie outside the 95 % of chance"
    return finish(figure, f"Dot plot of {name} over {many(L, 'layer')}.", summary + ".")


@styled
def layer_spread(value: np.ndarray, name: str, limits: tuple[float, float] | None = None, log: bool = False) -> Drawing:
    """How a number spreads over the tokens, layer by layer, as box plots (definitions 6, 7, 8).

    Args:
      value: [T, L], e.g. entropies or margins.
      name: of the number.
      limits: of its axis.
      log: logarithmic axis; values of 0 are left out.
    """
    value = need(value, "value", 2)
    T, L = value.shape
    high = _height(L)
    figure, axes = new_figure(6.2, high + 0.9)
    ax = axes[0, 0]
    columns = [column[column > 0] if log else column for column in value.T]
    boxes = ax.boxplot(
        columns,
        positions=range(L),
        orientation="horizontal",
        whis=(5, 95),
        widths=0.6,
        showfliers=False,
        patch_artist=True,
        medianprops={"color": INK, "lw": 1.4},
        boxprops={"facecolor": "#a9c4dd", "edgecolor": SOFT, "lw": 0.6},
        whiskerprops={"color": SOFT, "lw": 0.8},
        capprops={"color": SOFT, "lw": 0.8},
        manage_ticks=False,
    )
    if log:
        ax.set_xscale("log")
        plain_log(ax.xaxis)
    layer_axis(ax, L, high)
    ax.set_ylim(L - 0.5, -0.5)
    if limits:
        ax.set_xlim(*limits)
    ax.grid(axis="x", color="#e4e4e4", lw=0.6)
    ax.set_xlabel(f"{name} (box: middle half of tokens, whiskers: 5 % to 95 %)")
    ax.set_title(f"{name[0].upper()}{name[1:]}, {many(T, 'token')}")
    medians = np.array([line.get_xdata()[0] for line in boxes["medians"]], float)
    low, top = int(np.nanargmin(medians)), int(np.nanargmax(medians))
    summary = (
        f"Over {many(T, 'token')}, the median {spoken(name)} is lowest in layer {low} ({near(medians[low])}) and "
        f"highest in layer {top} ({near(medians[top])})."
    )
    return finish(figure, f"Box plots of {name} over {many(L, 'layer')}.", summary)


@styled
def balance_panels(
    effective: np.ndarray,
    gini: np.ndarray,
    variation: np.ndarray,
    violation: np.ndarray,
    dead: np.ndarray,
    num_experts: int,
    experts_per_token: int,
    tokens: int,
) -> Drawing:
    """Five measures of evenness side by side, each [L]; dashed: an even load (definition 9)."""
    fields = {
        "effective experts": (need(effective, "effective", 1), num_experts),
        "Gini coefficient": (need(gini, "gini", 1), 0),
        "coefficient of variation": (need(variation, "variation", 1), 0),
        "overload of the busiest": (need(violation, "violation", 1), 0),
        "experts without a token": (need(dead, "dead", 1), 0),
    }
    L = len(effective)
    high = _height(L)
    figure, axes = new_figure(9.2, high + 0.9, 1, 5, sharey=True)
    for ax, (name, (value, even)) in zip(axes[0], fields.items(), strict=True):
        ax.axvline(even, color=SOFT, ls="--", lw=1)
        ax.hlines(range(L), even, value, color="#a9c4dd", lw=2)
        ax.plot(value, range(L), "o", color=SERIES[0], ms=4, gid=name)
        ax.set_xlabel(name, fontsize=8)
        ax.grid(axis="x", color="#e4e4e4", lw=0.6)
        ax.margins(x=0.12)
    layer_axis(axes[0, 0], L, high)
    axes[0, 0].set_ylim(L - 0.5, -0.5)
    figure.suptitle(
        f"Evenness of {num_experts} experts, {experts_per_token} per token, {many(tokens, 'token')} (dashed: even)",
        x=0.01, ha="left", fontsize=10, fontweight="bold",
    )  # fmt: skip
    low = int(np.argmin(effective))
    summary = (
        f"Over {many(tokens, 'token')}, layer {low} is the least even: its load is worth {near(effective[low])} of "
        f"{num_experts} experts, and {many(int(np.sum(dead)), 'expert')} in all layers served no token."
    )
    return finish(figure, f"Five dot plots over {many(L, 'layer')}: {', '.join(fields)}.", summary)


@styled
def flip_maps(rates: Mapping[str, np.ndarray], edges: np.ndarray, count: np.ndarray) -> Drawing:
    """Share of tokens whose set changed, by layer and margin, for each perturbation (definitions 8, 15, 16).

    Args:
      rates: name -> [L, B], NaN where a bin is empty.
      edges: [B + 1], bounds of the margins.
      count: int [L, B], tokens.
    """
    if not rates:
        raise FigureError("rates is empty: nothing to draw")
    arrays = [need(rate, f"rates[{name!r}]", 2, finite=False) for name, rate in rates.items()]
    L, B = arrays[0].shape
    high = max(1.3, min(6.0, 0.22 * L))
    wide = max(2.2, min(4.0, 0.42 * B))
    figure, axes = new_figure(min(wide * len(rates) + 1.4, 11), high + 1.0, 1, len(rates), sharey=True)
    top = max(float(np.nanmax(a)) if np.isfinite(a).any() else 0.0 for a in arrays)
    norm = Normalize(0, max(top, 1e-3))
    for ax, (name, rate) in zip(axes[0], zip(rates, arrays, strict=True), strict=True):
        image = heat(ax, rate, norm)
        if L * B <= 64:
            write_values(ax, image, [[f"{100 * x:.0f}" if np.isfinite(x) else "×" for x in row] for row in rate], 7)
        step = 1 if B <= 4 else 2
        ax.set_xticks(np.arange(0, B + 1, step) - 0.5, [near(x) for x in edges[::step]], fontsize=7)
        ax.set_xlabel("margin, logits")
        ax.set_title(name, fontsize=9)
    layer_axis(axes[0, 0], L, high)
    figure.suptitle("Sets that changed, % of tokens", x=0.01, ha="left", fontsize=10, fontweight="bold")
    bar(figure, image, axes, "share that changed", format=lambda x, _: f"{100 * x:g} %")
    parts = []
    for name, rate in zip(rates, arrays, strict=True):
        first, last = (np.nansum(rate[:, b] * count[:, b]) / max(count[:, b].sum(), 1) for b in (0, -1))
        parts.append(f"{name} changes {near(100 * first)} % of the sets with the smallest margins and "
                     f"{near(100 * last)} % of those with the largest")  # fmt: skip
    summary = f"Over {many(int(count.sum()), 'choice')}, {'; '.join(parts)}."
    return finish(figure, f"Heatmaps of {L} layers by {B} bins of margin: share of sets that changed.", summary)


@styled
def committee_map(members: np.ndarray, mass: np.ndarray, threshold: float) -> Drawing:
    """In how many domains each expert sits on the committee, [L, D, E] -> layers by experts (definition 21).

    Args:
      members: bool [L, D, E].
      mass: [L, D], the weight that the members carry.
      threshold: the share that they had to reach.
    """
    members, mass = need(members, "members", 3), need(mass, "mass", 2)
    L, D, E = members.shape
    domains = members.sum(1)
    wide = max(2.6, min(7.6, 0.5 * E))
    high = max(1.3, min(6.6, 0.19 * L))
    figure, axes = new_figure(wide + 1.6, high + 0.9)
    ax: Axes = axes[0, 0]
    image = heat(ax, domains, Normalize(0, D))
    if L * E <= 64:
        write_values(ax, image, [[str(int(x)) for x in row] for row in domains])
    layer_axis(ax, L, high)
    expert_axis(ax, range(E), wide)
    ax.set_title(f"Domains (of {D}) in which an expert is needed for {100 * threshold:g} % of the weight", fontsize=9)
    bar(figure, image, ax, "domains")
    standing = (domains == D).sum(1)
    layer = int(standing.argmax())
    summary = (
        f"With {100 * threshold:g} % of the weight of each of {D} domains, committees have {members.sum(-1).min()} to "
        f"{members.sum(-1).max()} experts; layer {layer} has the most standing members, {standing[layer]}."
    )
    return finish(
        figure, f"Heatmap of {L} layers by {E} experts: in how many of {D} domains each is a member.", summary
    )
