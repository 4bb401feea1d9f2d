"""The explorer: one recorded trace, or two, as a single HTML file that opens anywhere.

`explorer(trace).save("explorer.html")` writes a page that needs no network, no server and no kernel. The page's own
code lives in `page/` (HTML, CSS and JavaScript, read from there and put inline); this module only packs the numbers.

What the page is given, and how exactly:
  * expert ids, exact: uint8 (uint16 above 256 experts), [T, L, X];
  * weights, exact: the float32 bytes, stored plane by plane (all first bytes, then all second bytes, ...), because
    the planes of the exponent compress well and those of the mantissa do not. A trace of ids alone (`has_weights` is
    False) gets none: its stand-ins are nobody's measurement, and the page shows the weights as unknown;
  * the margin between the last chosen and the first rejected router logit, where the trace has router logits:
    thousandths as int16, so that three decimals are shown as they are in the trace;
  * token ids, text, roles, channels: JSON in which every character outside ASCII and every ``<``, ``>``, ``&`` is
    written as an escape, so that no token can end the script element it travels in.
Arrays are deflated, then base64. A content-security policy with the hash of the page's one script lets nothing else
run and nothing be loaded.
"""

import base64
import dataclasses
import functools
import hashlib
import html
import json
import os
import re
import tempfile
import zlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from gptoss_jax.routing.metrics import margins
from gptoss_jax.tracing import Trace, TraceError

PAGE_FORMAT = "gptoss-jax explorer"
PAGE_VERSION = 1

STYLES = ("theme.css", "layout.css", "tokens.css", "tables.css", "parts.css")
# In the order in which they are read: a module uses what stands before it.
SCRIPTS = (
    "text.js",
    "data.js",
    "measures.js",
    "color.js",
    "state.js",
    "heatmap.js",
    "conversation.js",
    "cards.js",
    "expert.js",
    "overview.js",
    "exports.js",
    "controls.js",
    "main.js",
)

MARGIN_UNIT = 1000  # thousandths of a logit
MARGIN_MAX = 32766  # larger margins are shown as "at least 32.766"
MARGIN_MISSING = -32768


@dataclasses.dataclass(frozen=True)
class Explorer:
    """The finished page. Displayed in a notebook it appears in a frame; `save` writes the file.

    Attributes:
      html: the whole document.
      title: its title.
      summary: one line on what it shows.
    """

    html: str
    title: str
    summary: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the page (UTF-8) beside its final name, then renames it; returns the path."""
        path = Path(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"the folder {str(path.parent)!r} does not exist; create it first")
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(self.html)
            os.chmod(temporary, 0o644)  # mkstemp makes it private; a page is there to be shared
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        return path

    def link(self, path: str | os.PathLike[str]) -> "ExplorerLink":
        """Saves the page and returns a link to it: what a lesson shows, since the page would outgrow the notebook."""
        return ExplorerLink(str(self.save(path).as_posix()), self.title, self.summary)

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="{html.escape(self.title)}" sandbox="allow-scripts allow-downloads allow-popups" '
            f'style="width:100%;height:860px;border:1px solid #8886;border-radius:8px" '
            f'srcdoc="{html.escape(self.html)}"></iframe>'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"Explorer({self.summary}, {len(self.html) / 1e6:.2f} MB; .save(path) writes the page)"


@dataclasses.dataclass(frozen=True)
class ExplorerLink:
    """A link to a saved explorer, a few hundred bytes in a notebook."""

    href: str
    title: str
    summary: str

    def _repr_html_(self) -> str:
        return (
            f'<p><a href="{html.escape(self.href)}" target="_blank" rel="noopener">{html.escape(self.title)}</a>'
            f"<br>{html.escape(self.summary)}. Opens in a browser, works without a network.</p>"
        )

    def __repr__(self) -> str:
        return f"{self.title}: {self.href} ({self.summary})"


def explorer(trace: Trace, other: Trace | None = None, title: str | None = None) -> Explorer:
    """Builds the page for `trace`; with `other`, the same tokens traced a second time, it compares the two.

    Args:
      trace: what to show: experts and weights [T, L, X], text, roles and channels where the trace has them.
      other: a trace of the same token ids through a model of the same shape (another dtype, requantized, another
        checkpoint), called B on the page. Agreement is the share of a token's X experts that both chose.
      title: the page's title; by default the model's name.
    Raises:
      TypeError: an argument that is not a Trace.
      TraceError: no layers or no experts per token, or two traces that cannot be laid over each other.
    """
    for name, value in (("trace", trace), ("other", other)):
        if not isinstance(value, Trace) and not (name == "other" and value is None):
            raise TypeError(f"{name} must be a Trace, not {type(value).__name__}; read a file with Trace.load(path)")
    T, L, X = trace.experts.shape
    if L == 0 or X == 0:
        raise TraceError(f"experts {[T, L, X]} hold nothing to show: a trace needs a layer and an expert per token")
    if other is not None:
        _require_comparable(trace, other)
    model = _clean(trace.model) or "unnamed model"
    title = _clean(title) if title else f"Experts of {model}" + (" compared" if other is not None else "")
    summary = f"{T} token{'s' * (T != 1)}, {L} layer{'s' * (L != 1)}, {X} of {trace.num_experts} experts per token"
    payload = {
        "format": PAGE_FORMAT,
        "version": PAGE_VERSION,
        "title": title,
        "shape": {"tokens": T, "layers": L, "chosen": X, "experts": trace.num_experts},
        "ids": trace.tokens.tolist(),
        "text": list(trace.token_text),
        "roles": _coded(trace.roles),
        "channels": _coded(trace.channels),
        "generated": _bits(trace.generated),
        "special": _bits(trace.special),
        "traces": [_packed(one) for one in (trace, other) if one is not None],
    }
    return Explorer(_document(title, payload), title, summary + (", two traces" if other is not None else ""))


def _require_comparable(a: Trace, b: Trace) -> None:
    """Two traces can be laid over each other if shapes and token ids are equal; otherwise says what differs first."""
    advice = "compare two recordings of the same tokens through models of the same shape"
    for name, mine, theirs in (
        ("layers", a.num_layers, b.num_layers),
        ("experts", a.num_experts, b.num_experts),
        ("experts per token", a.experts_per_token, b.experts_per_token),
        ("tokens", len(a), len(b)),
    ):
        if mine != theirs:
            models = f"{a.model or 'the first model'!r} and {b.model or 'the second model'!r}"
            raise TraceError(f"the traces of {models} have {mine} and {theirs} {name}; {advice}")
    differs = np.flatnonzero(a.tokens != b.tokens)
    if len(differs):
        t = int(differs[0])
        raise TraceError(
            f"the traces hold different tokens: ids {a.tokens[t]} and {b.tokens[t]} at position {t}; {advice}"
        )


def _packed(trace: Trace) -> dict[str, Any]:
    """One trace's numbers: deflated little-endian arrays in base64, and where they come from."""
    ids = trace.experts.astype("u1" if trace.num_experts <= 256 else "<u2")
    weights = np.ascontiguousarray(trace.weights, dtype="<f4")
    margin = _margin(trace)
    return {
        "model": _clean(trace.model),
        "dtype": _clean(trace.dtype),
        "checkpoint": _clean(trace.checkpoint_hash),
        "recorder": _clean(trace.package_version),
        "id_bytes": ids.dtype.itemsize,
        "experts": _deflated(ids.tobytes()),
        "weights": _deflated(weights.view(np.uint8).reshape(-1, 4).T.tobytes()) if trace.has_weights else None,
        "margin": None if margin is None else _deflated(margin.tobytes()),
    }


def _margin(trace: Trace) -> np.ndarray | None:
    """int16 [T, L]: how far each set of experts is from changing, in thousandths of a logit; None if unknown."""
    if trace.router_logits is None or trace.experts_per_token >= trace.num_experts or len(trace) == 0:
        return None
    thousandths = np.rint(margins(trace).of_set.astype(np.float64) * MARGIN_UNIT)
    stored = np.full(thousandths.shape, MARGIN_MISSING, "<i2")
    known = ~np.isnan(thousandths)
    stored[known] = np.clip(thousandths[known], -MARGIN_MAX, MARGIN_MAX)
    return stored


def _deflated(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")


def _coded(values: Sequence[str]) -> dict[str, list[Any]] | None:
    """T strings as a short list of names and T indices into it; None if the trace has none."""
    if not len(values):
        return None
    names = list(dict.fromkeys(values))
    index = {name: i for i, name in enumerate(names)}
    return {"names": names, "index": [index[value] for value in values]}


def _bits(flags: np.ndarray | None) -> str:
    return "" if flags is None else "".join("1" if flag else "0" for flag in flags)


def _clean(text: str) -> str:
    """Text that can be written as UTF-8: lone surrogates become ``?``, control characters go."""
    return re.sub(r"[\x00-\x1f\x7f]", "", text.encode("utf-8", "replace").decode("utf-8"))


@functools.cache
def _page_file(name: str) -> str:
    return (files("gptoss_jax.routing") / "page" / name).read_text(encoding="utf-8")


def _hash(code: str) -> str:
    """The content-security policy's name for an inline script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode("ascii") + "'"


def _document(title: str, payload: dict[str, Any]) -> str:
    style = "\n".join(_page_file(name) for name in STYLES)
    script = '"use strict";\n(() => {\n' + "\n".join(_page_file(name) for name in SCRIPTS) + "\n})();"
    data = json.dumps(payload, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    parts = {
        "TITLE": html.escape(title),
        "STYLE": style,
        "STYLE_HASH": _hash(style),
        "SCRIPT": script,
        "SCRIPT_HASH": _hash(script),
        "DATA": data,
    }
    # One pass, so that nothing inside a part is taken for a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _page_file("page.html"))
