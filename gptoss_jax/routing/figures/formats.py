"""MXFP4 seen: its code points, how a tensor uses them and what rounding costs (definition 27)."""

import numpy as np

from gptoss_jax.routing.figures.drawing import (
    INK,
    SERIES,
    SOFT,
    Drawing,
    FigureError,
    finish,
    many,
    near,
    need,
    new_figure,
    plain_log,
    styled,
)


@styled
def code_points(values: np.ndarray, counts: np.ndarray | None = None) -> Drawing:
    """The 16 numbers of E2M1 on a line, [16] by code, above it how often a tensor uses each, [16]."""
    values = need(values, "values", 1)
    if len(values) != 16 or (counts is not None and len(counts) != 16):
        raise FigureError(
            f"E2M1 has 16 codes, not {len(values)} values and {len(values if counts is None else counts)} counts"
        )
    figure, axes = new_figure(7.2, 2.6 if counts is not None else 1.3)
    ax = axes[0, 0]
    if counts is not None:
        share = 100 * np.asarray(counts) / max(np.sum(counts), 1)
        # the two zeros share a place: side by side
        shift = np.where(values == 0, np.where(np.signbit(values), -0.09, 0.09), 0)
        ax.bar(values + shift, share, 0.16, color=SERIES[0])
        for code, (x, y) in enumerate(zip(values + shift, share, strict=True)):
            side = {0: "left", 8: "right"}.get(code, "center")
            ax.text(x, y, f"{y:.1f}", ha=side, va="bottom", fontsize=7)
        ax.set_ylabel("% of values")
        ax.margins(y=0.15)
    else:
        ax.plot(values, np.zeros(16), "|", ms=16, color=INK)
        ax.set_yticks([])
        ax.set_ylim(-1, 1)
    names: dict[float, list[int]] = {}
    for code, value in enumerate(values):
        names.setdefault(float(value), []).append(code)
    ticks = sorted(names)
    ax.set_xticks(ticks, [f"{x:g}\n{'/'.join(map(str, names[x]))}" for x in ticks], fontsize=7)
    ax.set_xlabel("value, below it its code")
    ax.set_title("The code points of E2M1" + ("" if counts is None else f", {many(int(np.sum(counts)), 'value')}"))
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if counts is None:
        summary = f"E2M1 has {len(ticks)} different numbers, from {ticks[0]:g} to {ticks[-1]:g}, denser near zero."
    else:
        zeros = share[values == 0].sum()
        ends = share[np.abs(values) == np.abs(values).max()].sum()
        n = many(int(np.sum(counts)), "value")
        summary = f"Of {n}, {near(zeros)} % are zero and {near(ends)} % use the largest code."
    return finish(figure, "The 16 code points of E2M1 on a number line.", summary)


@styled
def scale_histogram(counts: np.ndarray) -> Drawing:
    """How often each E8M0 scale byte occurs, [256]; drawn as powers of two, 2^(byte - 127)."""
    counts = need(counts, "counts", 1)
    if len(counts) != 256 or not counts.sum():
        raise FigureError(f"counts needs 256 entries, one a byte, and at least one scale; not {list(counts.shape)}")
    used = np.flatnonzero(counts)
    figure, axes = new_figure(6.0, 2.8)
    ax = axes[0, 0]
    window = np.arange(used[0], used[-1] + 1)
    ax.bar(window - 127, counts[window], 0.8, color=SERIES[0])
    ax.set_yscale("log")
    plain_log(ax.yaxis)
    ax.set_ylim(0.5)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("exponent of the scale: byte - 127")
    ax.set_ylabel("blocks")
    ax.set_title(f"Scales of {many(int(counts.sum()), 'block')}")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    most = int(counts.argmax())
    summary = (
        f"{many(int(counts.sum()), 'block')} use {many(len(used), 'scale')} from 2^{used[0] - 127} to "
        f"2^{used[-1] - 127}, most often 2^{most - 127} ({near(100 * counts[most] / counts.sum())} %)."
    )
    return finish(figure, "Histogram of E8M0 scales, logarithmic counts.", summary)


@styled
def block_errors(largest: np.ndarray, error: np.ndarray) -> Drawing:
    """Largest rounding error of each block against its largest value, both [blocks] (definition 27)."""
    largest, error = need(largest, "largest", 1), need(error, "error", 1)
    if len(largest) != len(error):
        raise FigureError(f"largest [{len(largest)}] and error [{len(error)}] differ")
    figure, axes = new_figure(5.2, 3.4)
    ax = axes[0, 0]
    ax.plot(largest, error, ".", ms=3, color=SERIES[0], alpha=0.5, gid="blocks")
    span = np.array([0, largest.max() or 1.0])
    ax.plot(span, span / 4, color=SOFT, ls="--", lw=1)
    ax.text(span[1], span[1] / 4, "a quarter ", ha="right", va="bottom", fontsize=8, color=SOFT)
    ax.set_xlabel("largest value of the block")
    ax.set_ylabel("largest error")
    ax.set_title(f"Rounding error of {many(len(error), 'block')}")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    relative = error[largest > 0] / largest[largest > 0]
    middle, worst = (near(100 * np.median(relative)), near(100 * relative.max())) if relative.size else ("0", "0")
    summary = (
        f"Over {many(len(error), 'block')}, the largest error is {middle} % of the block's largest value in the median "
        f"and {worst} % at worst."
    )
    return finish(figure, "Scatter plot, one dot a block: largest value against largest error.", summary)
