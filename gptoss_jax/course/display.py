"""Outputs that read well and are equal on every processor: numbers, shapes, tables, figures with alt text.

IPython and Matplotlib are imported when something is drawn, so that the numbers work without them.
"""

import io
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEEP_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # all that a picture needs; text, time and pHYs go
FIGURE_STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "image.cmap": "cividis",  # lightness rises monotonically and survives every color blindness
    "svg.hashsalt": "gptoss",
    "font.family": "DejaVu Sans",  # ships with Matplotlib: the same picture everywhere
}


def sig3(value: Any, digits: int = 3) -> str:
    """`value` with `digits` significant digits: a number, or an array as nested lists.

    Rounding errors of another processor sit in the seventh digit of float32, so what this prints is the same
    everywhere unless a value lies on a rounding boundary.

    >>> sig3(0.123456), sig3([1.0, 20914757184])
    ('0.123', '[1, 2.09e+10]')
    """
    array = np.asarray(value)
    if array.ndim:
        return "[" + ", ".join(sig3(item, digits) for item in array) + "]"
    if array.dtype.kind in "iu" and abs(int(array)) < 10**digits:
        return str(int(array))
    if array.dtype.kind not in "iuf":  # bool, text; ml_dtypes' bfloat16 is kind V
        if array.dtype.kind != "V":
            return str(array.item())
        array = array.astype(np.float32)
    text = f"{float(array):.{digits}g}"
    return "0" if text == "-0" else text


def show_shapes(**arrays: Any) -> None:
    """Print name, dtype and shape of each array, one a line.

    >>> show_shapes(x_TD=np.zeros((5, 8), np.float32))
    x_TD  float32  [5, 8]
    """
    width = max(map(len, arrays))
    kind = max(len(str(array.dtype)) for array in arrays.values())
    for name, array in arrays.items():
        print(f"{name:<{width}}  {array.dtype!s:<{kind}}  {list(array.shape)}")


def table(rows: Iterable[Sequence[Any]], header: Sequence[str]) -> None:
    """Print rows under a header in aligned columns: text to the left, numbers (three digits) to the right.

    >>> table([("embedding", 579133440)], header=("part", "parameters"))
    part       parameters
    embedding    5.79e+08
    """
    rows = [tuple(row) for row in rows]
    number = [all(isinstance(row[i], int | float | np.number) for row in rows) for i in range(len(header))]
    cells = [[sig3(c) if number[i] else str(c) for i, c in enumerate(row)] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    for line in [list(header), *cells]:
        padded = (c.rjust(w) if right else c.ljust(w) for c, w, right in zip(line, widths, number, strict=True))
        print("  ".join(padded).rstrip())


def figure(width: float = 7.0, height: float = 3.2, **subplots: Any) -> tuple[Any, Any]:
    """A Matplotlib figure and its axes in the course's style; never shown twice, because pyplot does not own it.

    Args:
      width, height: inches.
      subplots: passed on to `Figure.subplots`, such as ``ncols=2``.
    """
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(FIGURE_STYLE)  # also for what the caller draws into the axes afterwards
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(**subplots)


def strip_png(png: bytes) -> bytes:
    """The same picture without its metadata (software, dates), so that equal pictures are equal bytes."""
    if not png.startswith(PNG_SIGNATURE):
        raise ValueError(f"not a PNG: starts with {png[:8]!r}")
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at < len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        if kind in KEEP_CHUNKS:
            kept.append(png[at : at + size + 12])
        at += size + 12
    return b"".join(kept)


def png_of(fig: Any) -> bytes:
    """PNG bytes of a Matplotlib figure: fixed resolution and style, no metadata."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(FIGURE_STYLE):
        fig.savefig(buffer, format="png", metadata={"Software": None})
    return strip_png(buffer.getvalue())


def show(fig: Any, *, alt: str, summary: str = "") -> None:
    """Display a figure with alternative text, and print the sentence that says what it shows.

    Args:
      fig: a Matplotlib figure, or PNG bytes.
      alt: what a reader who cannot see it needs to know: what is drawn, along which axes.
      summary: one line with the finding and its number; printed under the figure, compared by the tests.
    """
    if not alt.strip():
        raise ValueError("a figure needs alt text: say what is drawn, along which axes")
    from IPython.display import display

    png = fig if isinstance(fig, bytes) else png_of(fig)
    metadata = {"image/png": {"alt": alt}}
    display({"image/png": png, "text/plain": f"Figure: {alt}"}, raw=True, metadata=metadata)
    if not isinstance(fig, bytes):
        import matplotlib.pyplot as plt

        plt.close(fig)  # pyplot would draw it a second time at the end of the cell
    if summary:
        print(summary)
