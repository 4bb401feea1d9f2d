"""A figure with words: the `Drawing` that every function here returns, and the few ways in which all of them draw.

Identity (expert, layer, position) is a place on an axis and a printed number; color is magnitude alone, cividis for
amounts and purple-orange around a middle, both readable with any color vision. Grounds are opaque, so that a figure
reads the same in a dark notebook.
"""

import base64
import dataclasses
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, NullFormatter

DPI = 110
INK, SOFT, ABSENT = "#1a1a1a", "#595959", "#c9c9c9"
# Okabe and Ito 2008, without the yellow that white swallows; a marker and a printed name go with each
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = "os^DvPX"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.6,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "image.cmap": "cividis",
    "text.parse_math": False,
}

styled = mpl.rc_context(STYLE)  # decorates every function that draws


class FigureError(ValueError):
    """An array that cannot be drawn, with its name and shape."""


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """A matplotlib figure with its description.

    In a notebook it displays itself as ``image/png`` with the description as ``alt``, and as its summary where
    there are no pictures. The bytes depend on the arrays and on matplotlib's version only.

    Attributes:
      figure: the figure, outside of pyplot: nothing to close.
      alt: what is drawn and the summary, for those who do not see it.
      summary: one sentence with the numbers that stand out, taken from what is drawn.
    """

    figure: Figure
    alt: str
    summary: str

    def png(self) -> bytes:
        """The picture without any metadata."""
        buffer = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()

    def save(self, path: str | Path) -> Path:
        """Write the PNG; it appears complete or not at all."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_bytes(self.png())
        os.replace(partial, path)
        return path

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        data = {"image/png": base64.b64encode(self.png()).decode(), "text/plain": self.summary}
        return data, {"image/png": {"alt": self.alt}}


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of that many inches and its axes, always [rows, columns]."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def finish(figure: Figure, what: str, summary: str) -> Drawing:
    """Lay the figure out, once for all renderings, and put the words together."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return Drawing(figure, f"{what} {summary}", summary)


def need(array: Any, name: str, axes: int | tuple[int, ...], finite: bool = True) -> np.ndarray:
    """The array, or a `FigureError` that names it: wrong number of axes, nothing in it, or not finite."""
    array = np.asarray(array)
    if array.ndim not in ((axes,) if isinstance(axes, int) else axes):
        raise FigureError(f"{name} needs {axes} axes, not {list(array.shape)}")
    if not array.size:
        raise FigureError(f"{name} is empty, {list(array.shape)}: nothing to draw")
    if finite and not np.isfinite(array.astype(float)).all():
        raise FigureError(f"{name} holds {int((~np.isfinite(array.astype(float))).sum())} values that are not finite")
    return array


def around_one(array: np.ndarray, most: float = 8.0) -> LogNorm:
    """Colors for ratios: 1 is the middle, twice as far from it as half; at least 2-fold, at most `most`-fold."""
    positive = array[np.isfinite(array) & (array > 0)]
    reach = max([2.0, *(positive.max(initial=1), 1 / positive.min(initial=1))])
    reach = min(2.0 ** math.ceil(math.log2(reach) - 1e-9), most)
    return LogNorm(1 / reach, reach)


def heat(
    ax: Axes,
    array: np.ndarray,
    norm: Normalize | None = None,
    cmap: str = "cividis",
    absent: str = ABSENT,
    crosses: bool = True,
) -> AxesImage:
    """Draw a matrix; what cannot be colored (NaN, 0 on a log scale) is gray and crossed."""
    colors = mpl.colormaps[cmap].with_extremes(bad=absent)
    image = ax.imshow(array, cmap=colors, norm=norm, aspect="auto", interpolation="nearest")
    missing = ~np.isfinite(array) | ((array <= 0) if isinstance(norm, LogNorm) else False)
    y, x = np.nonzero(missing)
    if len(x) and crosses:
        height, width = array.shape
        size = 0.35 * min(ax.bbox.width * 0.72 / width, ax.bbox.height * 0.72 / height)
        ax.scatter(x, y, marker="x", s=max(min(size, 5), 1.2) ** 2, linewidths=0.5, color=SOFT)
    return image


def ink_on(ground: Sequence[float]) -> str:
    """Black or white, whichever has the higher contrast on an RGB ground: at least 4.5 to 1 (WCAG 2.1, 1.4.3)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in ground]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def write_values(ax: Axes, image: AxesImage, texts: Sequence[Sequence[str]], size: float = 8) -> None:
    """Print a text into each cell, dark on light colors and light on dark ones."""
    array = np.ma.filled(np.ma.asarray(image.get_array()).astype(float), np.nan)
    for (y, x), value in np.ndenumerate(array):
        ground = list(image.to_rgba(value)[:3]) if np.isfinite(value) else [0.8, 0.8, 0.8]
        ax.text(x, y, texts[y][x], ha="center", va="center", fontsize=size, color=ink_on(ground))


def number_axis(axis: Any, labels: Sequence, inches: float, room: float) -> None:
    """Tick every id, or every 2nd, 4th, 8th ... so that each has `room` inches."""
    n = len(labels)
    step = 1
    while n / step * room > inches and step < n:
        step *= 2
    axis.set_ticks(range(0, n, step), [str(label) for label in labels[::step]])


def layer_axis(ax: Axes, L: int, inches: float) -> None:
    """Layers downward, in the order in which a token meets them."""
    number_axis(ax.yaxis, range(L), inches, 0.14)
    ax.set_ylabel("layer")


def expert_axis(ax: Axes, ids: Sequence, inches: float) -> None:
    """Experts by id."""
    number_axis(ax.xaxis, ids, inches, 0.24)
    ax.set_xlabel("expert")


def bar(figure: Figure, image: AxesImage, ax: Any, label: str, ratios: bool = False, **options: Any) -> None:
    """The color bar; of a ratio, ticked at powers of two."""
    shrink = min(1.0, 3.4 / figure.get_figheight())
    bar = figure.colorbar(image, ax=ax, pad=0.015, fraction=0.04, aspect=26 * shrink, shrink=shrink, **options)
    bar.set_label(label)
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    if isinstance(image.norm, LogNorm) and not ratios:
        plain_log(bar.ax.yaxis)
    if ratios:
        top = round(math.log2(np.max(image.norm.vmax or 2)))
        marks = [2.0**i for i in range(-top, top + 1)]
        bar.set_ticks(marks, labels=[f"×{m:g}" if m >= 1 else f"×1/{1 / m:g}" for m in marks])
        bar.minorticks_off()


def plain_log(axis: Any) -> None:
    """Powers of ten in digits, none of them in mathematical type: names may hold a dollar sign."""
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def near(x: float) -> str:
    """Two significant digits: enough to say, too few to differ between machines."""
    if not math.isfinite(x):
        return "none" if math.isnan(x) else "infinite"
    if x and abs(x) < 1e-3:
        return f"{x:.1e}"
    digits = max(0, 1 - math.floor(math.log10(abs(x)))) if x else 0
    return f"{round(x, 1 - math.floor(math.log10(abs(x)))) if x else 0:.{min(digits, 4)}f}"


def spoken(name: str) -> str:
    """A name without its unit: ``margin, logits`` is a margin in a sentence."""
    return name.split(",")[0]


def many(n: int, one: str) -> str:
    """``1 token``, ``4,096 tokens``."""
    return f"{n:,} {one}" if n == 1 else f"{n:,} {one}s"


def cell_sizes(rows: int, columns: int, widest: float = 7.6) -> tuple[float, float]:
    """Inches of a map of that many cells: roomy when small, 36 x 128 still legible."""
    return max(2.6, min(widest, 0.62 * columns)), max(1.3, min(6.6, max(0.19, min(0.42, 3 / rows)) * rows))
