"""The map of lesson 00: the parts of the model in the order of a token, with parameter counts of any configurations."""

from collections.abc import Mapping
from typing import Any

from gptoss_jax import roofline
from gptoss_jax.config import ModelConfig
from gptoss_jax.course.display import figure, sig3

INSIDE, OUTSIDE = "#cfe0f3", "#f3ead2"
BOXES = (  # part, lesson, what it does; from the bottom to the top
    ("tokens", "01, 02", "text becomes integers", None, OUTSIDE),
    ("embedding", "03", "integer → vector of size D", "embedding", OUTSIDE),
    ("attention", "04, 05", "reads earlier positions", "attention", INSIDE),
    ("router", "06", "scores all E experts", "router", INSIDE),
    ("experts", "07, 08", "the best X of E run", "experts", INSIDE),
    ("unembedding", "09", "vector → one logit per token", "unembedding", OUTSIDE),
)


def short(count: int) -> str:
    """A count as people say it: ``19.1 B``, ``637 M``, ``33.3 k``."""
    for unit, size in (("B", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
        if count >= size:
            return f"{sig3(count / size)} {unit}"
    return str(count)


def draw_map(models: Mapping[str, ModelConfig]) -> tuple[Any, str]:
    """Draw the way of a token with each part's parameter count in every model.

    Returns:
      (Matplotlib figure, alt text).
    """
    fig, ax = figure(8.0, 5.4)
    ax.set(xlim=(0, 10), ylim=(-1.1, len(BOXES) + 0.75))
    ax.axis("off")
    counts = {name: roofline.parameters(config) for name, config in models.items()}
    columns = [6.6 + 1.35 * i for i in range(len(models))]
    for x, name in zip(columns, models, strict=True):
        ax.text(x, len(BOXES) + 0.25, name, ha="center", weight="bold")
    ax.text(0.0, len(BOXES) + 0.25, "lesson", weight="bold")
    ax.add_patch(_rectangle((1.15, 1.82), 4.55, 3.08, "#ffffff", linestyle="--"))
    ax.text(5.8, 4.93, "× L layers", va="center", fontsize=9)
    for i, (part, lesson, about, field, color) in enumerate(BOXES):
        ax.add_patch(_rectangle((1.3, i), 4.25, 0.66, color))
        ax.text(1.45, i + 0.43, part, va="center", weight="bold", fontsize=10)
        ax.text(1.45, i + 0.18, about, va="center", fontsize=8)
        ax.text(0.0, i + 0.33, lesson, va="center", fontsize=9)
        for x, count in zip(columns, counts.values(), strict=True):
            if field:
                ax.text(x, i + 0.33, short(getattr(count, field)), ha="center", va="center", fontsize=10)
        if i + 1 < len(BOXES):
            ax.annotate("", (3.4, i + 1), (3.4, i + 0.66), arrowprops={"arrowstyle": "-|>", "color": "black"})
    totals = [("all", lambda c: roofline.parameters(c).total), ("one token reads", roofline.active_parameters)]
    for y, (label, measure) in zip((-0.45, -0.85), totals, strict=True):
        ax.text(5.55, y, label, ha="right", va="center", weight="bold")
        for x, config in zip(columns, models.values(), strict=True):
            ax.text(x, y, short(measure(config)), ha="center", va="center", weight="bold")
    return fig, _describe(models, counts)


def _rectangle(corner: tuple[float, float], width: float, height: float, color: str, **style: Any) -> Any:
    from matplotlib.patches import FancyBboxPatch

    shape = "round,pad=0,rounding_size=0.08"
    return FancyBboxPatch(corner, width, height, boxstyle=shape, facecolor=color, edgecolor="black", **style)


def _describe(models: Mapping[str, ModelConfig], counts: Mapping[str, roofline.Parameters]) -> str:
    totals = ", ".join(f"{name} {short(count.total)}" for name, count in counts.items())
    active = ", ".join(f"{name} {short(roofline.active_parameters(config))}" for name, config in models.items())
    experts = ", ".join(f"{name} {short(count.experts)}" for name, count in counts.items())
    return (
        "Diagram, bottom to top: tokens, embedding, then L layers of attention, router and experts, then unembedding; "
        f"beside each box its parameters. Experts: {experts}. All parameters: {totals}. One token reads: {active}."
    )
