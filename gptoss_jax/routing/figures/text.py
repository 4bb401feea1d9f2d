"""Tokens as text, in HTML: a browser has fonts for every script, and words can be selected, searched and read aloud."""

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np

from gptoss_jax.routing.figures.drawing import FigureError, ink_on, many, near, need, spoken


@dataclasses.dataclass(frozen=True, eq=False)
class Markup:
    """A piece of HTML and the sentence that sums it up; a notebook shows either."""

    html: str
    summary: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict:
        return {"text/html": self.html, "text/plain": self.summary}


def visible(text: str) -> str:
    """A token made visible: line breaks, tabs and other controls as symbols, an empty token as ∅."""
    names = {"\n": "⏎", "\r": "␍", "\t": "⇥"}
    shown = "".join(names.get(c, c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text)
    return shown or "∅"


def _colors(value: float) -> str:
    ground = mpl.colormaps["cividis"](float(value))[:3]
    return f"background:#{''.join(f'{round(255 * c):02x}' for c in ground)};color:{ink_on(ground)}"


def token_text(
    texts: Sequence[str],
    value: np.ndarray,
    experts: np.ndarray,
    weights: np.ndarray | None = None,
    name: str = "weight",
    limits: tuple[float, float] | None = None,
) -> Markup:
    """The text with each token on a ground as bright as one number of it (definition 5).

    Every token can be reached with the keyboard and tells its number, experts and weights as title and label.

    Args:
      texts: T strings.
      value: [T], e.g. the weight of one expert, an entropy or a margin.
      experts: int [T, X], the choices in the layer shown.
      weights: [T, X], or None where they are unknown.
      name: of the number.
      limits: of the brightness; the range of `value` when None.
    """
    value, experts = need(value, "value", 1), need(experts, "experts", 2)
    T = len(value)
    if len(texts) != T or len(experts) != T or (weights is not None and np.shape(weights) != experts.shape):
        raise FigureError(f"texts ({len(texts)}), value ({T}) and experts ({len(experts)}) must have one entry a token")
    low, top = limits or (float(value.min()), float(value.max()))
    spans = []
    for t, text in enumerate(texts):
        shade = float(np.clip((value[t] - low) / (top - low), 0, 1)) if top > low else 0.5
        chosen = ", ".join(
            f"{e}" if weights is None else f"{e} ({weights[t, i]:.2f})" for i, e in enumerate(experts[t].tolist())
        )
        label = escape(f"token {t} {visible(text)}: {name} {near(float(value[t]))}; experts {chosen}", quote=True)
        spans.append(
            f'<span tabindex="0" role="listitem" title="{label}" aria-label="{label}" '
            f'style="{_colors(shade)};border-radius:2px;margin:0 1px">{escape(visible(text))}</span>'
            + ("<br>" if "\n" in text else "")
        )
    body = "".join(spans)
    t = int(value.argmax())
    highest = near(float(value[t]))
    summary = (
        f"Of {many(T, 'token')}, token {t} ({visible(texts[t])!r}) has the highest {spoken(name)}, {highest}, and the "
        f"mean is {near(float(value.mean()))}."
    )
    scale = (
        f'<div style="margin-bottom:4px"><span style="{_colors(0)};padding:0 6px">{near(low)}</span>'
        f'<span style="{_colors(0.5)};padding:0 6px">{escape(name)}</span>'
        f'<span style="{_colors(1)};padding:0 6px">{near(top)}</span></div>'
    )
    html = (
        f'<div style="font-family:monospace;line-height:1.7">{scale}'
        f'<div role="list" aria-label="{escape(summary, quote=True)}" '
        f'style="white-space:pre-wrap;overflow-wrap:anywhere">{body}</div></div>'
    )
    return Markup(html, summary)


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], summary: str) -> Markup:
    top = "".join(f'<th scope="col" style="text-align:left">{escape(h)}</th>' for h in heads)
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row" style="text-align:left">{cell}</th>'
            if not i
            else f'<td style="text-align:left">{cell}</td>'
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    title = f'<caption style="white-space:nowrap;text-align:left">{escape(caption)}</caption>'
    html = f"<table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return Markup(html, summary)


def top_token_table(
    texts: Sequence[str],
    ids: np.ndarray,
    score: np.ndarray,
    together: np.ndarray,
    count: np.ndarray,
    layer: int,
    expert: int,
    name: str = "share",
) -> Markup:
    """The tokens that stand out at one expert, best first (definition 18); every row with its counts."""
    n = len(ids)
    if not len(texts) == len(score) == len(together) == len(count) == n:
        raise FigureError(
            f"texts, ids, score, together and count differ in length: {len(texts)}, {n}, {len(score)}, ..."
        )
    rows = [
        (f"<code>{escape(visible(text))}</code>", str(int(i)), f"{s:.2f}", f"{int(k):,} of {int(c):,}")
        for text, i, s, k, c in zip(texts, ids, score, together, count, strict=True)
    ]
    what = f"layer {layer}, expert {expert}"
    summary = (
        f"At {what}, {visible(texts[0])!r} stands out most: {int(together[0]):,} of its {int(count[0]):,} occurrences."
        if n
        else f"At {what}, no token occurs often enough."
    )
    return _table(f"Tokens of {what}, by {name}", ("token", "id", name, "served here"), rows, summary)


def lens_table(texts: Sequence[Sequence[str]], probability: np.ndarray, positions: Sequence[str]) -> Markup:
    """The most likely token read off each layer, [L][T], with its probability [L, T] (definition 24)."""
    probability = need(probability, "probability", 2)
    L, T = probability.shape
    if len(texts) != L or any(len(row) != T for row in texts) or len(positions) != T:
        raise FigureError(f"texts and positions must fit probability, {L} layers by {T} positions")
    rows = [
        [str(layer)]
        + [
            f'<span style="{_colors(float(p))};padding:0 3px">{escape(visible(text))}</span> {p:.2f}'
            for text, p in zip(texts[layer], probability[layer], strict=True)
        ]
        for layer in range(L)
    ]
    changes = [
        next(layer for layer in range(L) if all(texts[x][t] == texts[-1][t] for x in range(layer, L))) for t in range(T)
    ]
    summary = f"The last word is settled from layer {int(np.median(changes))} on at half of {many(T, 'position')}."
    heads = ["layer", *(f"after {visible(text)}" for text in positions)]
    return _table("Most likely next token, layer by layer", heads, rows, summary)
