"""The log of a training run: ``metrics.csv`` and its figure."""

import contextlib
import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

FILE, FIGURE = "metrics.csv", "metrics.png"
COLUMNS = (
    "step",
    "tokens_per_second",
    "text",
    "repeat",
    "dialog",
    "balance",
    "gradient",
    "least_load",
    "most_load",
    "rate",
)


class Log:
    """Appends means over some steps to ``metrics.csv``; lines after `step`, left by a killed run, are removed first."""

    def __init__(self, folder: Path, step: int):
        self.path = folder / FILE
        lines = []
        with contextlib.suppress(FileNotFoundError), self.path.open(newline="", encoding="utf-8") as file:
            lines = [row for row in csv.DictReader(file) if _whole(row) and int(row["step"]) <= step]
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(lines)
        os.replace(partial, self.path)

    def add(self, step: int, speed: float, measured: Sequence[Mapping[str, float]]) -> str:
        """Write one line; return it in short for a person."""
        means = {name: float(np.mean([part[name] for part in measured])) for name in COLUMNS[2:]}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            numbers = [f"{speed:.0f}", *(f"{value:.6g}" for value in means.values())]
            csv.writer(file).writerow([step, *numbers])
        load = f"load {means['least_load']:.2f}-{means['most_load']:.2f}"
        return (
            f"{speed:,.0f} tokens/s  text {means['text']:.3f}  repeat {means['repeat']:.3f}  "
            f"dialog {means['dialog']:.3f}  {load}"
        )


def _whole(row: Mapping[str, str | None]) -> bool:
    return all(row.get(name) for name in COLUMNS)


def read(folder: Path) -> dict[str, np.ndarray]:
    """Columns of ``metrics.csv``."""
    with (folder / FILE).open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if _whole(row)]
    return {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS}


def join(folders: Sequence[Path]) -> tuple[dict[str, np.ndarray], list[int]]:
    """Runs that went on from each other as one: columns whose steps count on, and the last step of each run."""
    parts = [read(folder) for folder in folders]
    ends: list[int] = []
    last = 0
    for part in parts:
        part["step"] = part["step"] + last
        last = int(max(part["step"], default=last))
        ends.append(last)
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}, ends


def draw(folder: Path) -> Path | None:
    """The figure of a run, in its folder. None while there is nothing to draw."""
    columns = read(folder)
    return plot(columns, folder / FIGURE) if len(columns["step"]) else None


def plot(columns: Mapping[str, np.ndarray], path: Path, ends: Sequence[int] = ()) -> Path:
    """Losses, load of the experts and learning rate over steps, with a line where a phase ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    FigureCanvasAgg(figure)
    loss, load, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 1))
    step = columns["step"]
    measured = lambda name: np.where(columns[name] > 0, columns[name], np.nan)  # 0: no such rows in the batch
    loss.plot(step, measured("text"), color="#0072B2", label="text")
    loss.plot(step, measured("dialog"), color="#D55E00", linestyle="--", label="assistant")
    loss.set(yscale="log", ylabel="loss (nats per token)")
    if columns["repeat"].any():
        loss.plot(step, measured("repeat"), color="#999999", linestyle=":", label="repeated passage")
    load.fill_between(step, columns["least_load"], columns["most_load"], color="#009E73", alpha=0.4)
    load.axhline(1, color="black", linewidth=0.8)
    load.set(ylabel="load of the least and\nthe most used expert", ylim=(0, None))
    load.annotate("even", (step[-1], 1), ha="right", va="bottom")
    rate.plot(step, columns["rate"], color="black")
    rate.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    loss.legend(frameon=False)
    for axes in (loss, load, rate):
        for end in ends[:-1]:
            axes.axvline(end, color="black", linewidth=0.5, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    partial = path.with_name(f"{path.stem}.partial.png")
    figure.savefig(partial, dpi=120)
    os.replace(partial, path)
    return path
