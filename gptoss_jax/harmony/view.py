"""Transcripts for people: any token sequence with its messages, control tokens and repairs, in HTML or the terminal.

Colors follow the reader's theme (text and background are inherited); every color is doubled by a word.
"""

import html
import unicodedata
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from gptoss_jax.harmony.encoding import Encoding
from gptoss_jax.harmony.labels import TokenLabel
from gptoss_jax.harmony.messages import Role
from gptoss_jax.harmony.repair import Repair

if TYPE_CHECKING:
    from rich.console import Group

# One mid-tone of the Okabe-Ito palette per role, legible as a border on white and on dark gray.
_COLORS = {
    "system": "#888888",
    "developer": "#CC79A7",
    "user": "#0072B2",
    "assistant": "#009E73",
    "tool": "#D55E00",
    "": "#888888",
}
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Transcript:
    """What a token sequence says, message by message. A notebook shows it as HTML, `rich` and `print` as text.

    >>> encoding = Encoding(Tokenizer.o200k_harmony())
    >>> Transcript(encoding, tokens)

    Args:
      encoding: the Harmony encoding.
      tokens: any ids; what is malformed is mended and the repairs are listed below.
      role: who speaks first, if the tokens begin behind ``<|start|>role``.
      unfold: show reasoning (the `analysis` channel) unfolded.
    """

    def __init__(
        self, encoding: Encoding, tokens: Iterable[int], role: Role | None = None, *, unfold: bool = False
    ) -> None:
        self.tokens: list[int] = tokens.tolist() if hasattr(tokens, "tolist") else list(tokens)
        self.labels = encoding.label_tokens(self.tokens, role)
        self.repairs: list[Repair] = encoding.parse(self.tokens, role).repairs
        self._encoding = encoding
        self._unfold = unfold

    def __repr__(self) -> str:
        messages = len({label.message for label in self.labels} - {-1})
        return f"Transcript({messages} messages, {len(self.tokens)} tokens, {len(self.repairs)} repairs)"

    def _blocks(self) -> list[tuple[TokenLabel, list[tuple[str, str]]]]:
        """For each message its label and its stretches of (part, text)."""
        tokenizer = self._encoding.tokenizer
        marked = zip(self.tokens, self.labels, strict=True)
        blocks = []
        for _, pairs in groupby(marked, key=lambda pair: (pair[1].message, pair[1].role, pair[1].channel)):
            block = list(pairs)
            stretches = []
            for part, stretch in groupby(block, key=lambda pair: pair[1].part):
                ids = [token for token, _ in stretch]
                if part == "special":
                    stretches += [(part, tokenizer.token_text(token)) for token in ids]
                else:
                    known = [tokenizer.token_bytes(i) if i in tokenizer else "\ufffd".encode() for i in ids]
                    stretches.append((part, b"".join(known).decode("utf-8", "replace")))
            blocks.append((block[0][1], stretches))
        return blocks

    def _repr_html_(self) -> str:
        blocks = "".join(self._html_block(label, stretches) for label, stretches in self._blocks())
        repairs = "".join(f"<li>{html.escape(visible(str(repair)))}</li>" for repair in self.repairs)
        notes = f'<p style="margin:.5em 0 0"><b>&#9888; Repaired:</b></p><ul>{repairs}</ul>' if repairs else ""
        return f'<div role="list" aria-label="Harmony transcript" style="max-width:60em">{blocks}{notes}</div>'

    def _html_block(self, label: TokenLabel, stretches: list[tuple[str, str]]) -> str:
        color = _COLORS.get(label.role, _COLORS[""])
        title = html.escape(visible(_title(label)))
        code = "font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere;color:inherit;background:none"
        chip = f"{code};border:1px solid currentColor;border-radius:3px;padding:0 2px;opacity:.75"
        spans = []
        for part, text in stretches:
            safe = html.escape(visible(text))
            style = {"special": chip, "header": f"{code};font-weight:bold"}.get(part, code)
            spans.append(f'<span title="{part}" style="{style}">{safe}</span>')
        body = f'<div style="margin:.2em 0 0">{"".join(spans)}</div>'
        head = f'<b>{title}</b> <span style="opacity:.75">{self._count(label)}</span>'
        if label.channel == "analysis" and not self._unfold:
            inner = f"<details><summary>{head}</summary>{body}</details>"
        else:
            inner = f"<div>{head}</div>{body}"
        box = f"border-left:4px solid {color};padding:.2em .6em;margin:.4em 0"
        return f'<div role="listitem" aria-label="{title}" style="{box}">{inner}</div>'

    def _count(self, label: TokenLabel) -> str:
        count = sum(other.message == label.message for other in self.labels)
        return f"{count} token{'' if count == 1 else 's'}"

    def __rich__(self) -> "Group":
        from rich.console import Group
        from rich.text import Text

        lines = []
        for label, stretches in self._blocks():
            color = _COLORS.get(label.role, _COLORS[""])
            text = Text(f"▌ {visible(_title(label))}  ", style=f"bold {color}")
            text.append(f"{self._count(label)}\n", style="not bold dim")
            if label.channel == "analysis" and not self._unfold:
                words = " ".join(visible("".join(t for part, t in stretches if part == "content")).split())
                text.append(f"  (folded) {words[:70]}{'…' if len(words) > 70 else ''}", style="not bold italic")
            else:
                for part, stretch in stretches:
                    style = {"special": "not bold reverse", "header": f"bold {color}"}.get(part, "not bold default")
                    text.append(visible(stretch), style=style)
            lines.append(text)
        if self.repairs:
            lines.append(Text("⚠ Repaired:", style="bold"))
            lines += [Text(f"  {visible(str(repair))}") for repair in self.repairs]
        return Group(*lines)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=100, no_color=True, highlight=False)
        with console.capture() as capture:
            console.print(self.__rich__())
        return capture.get().rstrip("\n")


def _title(label: TokenLabel) -> str:
    to = f" → {label.recipient}" if label.recipient else ""
    channel = f" · {label.channel}" if label.channel else ""
    return f"{label.role or 'outside of messages'}{to}{channel}"


def visible(text: str) -> str:
    r"""Text in which nothing can hide or act: control and direction characters become ``\x1b``, ``\u202e``."""

    def shown(letter: str) -> str:
        acts = letter in _BIDI or (unicodedata.category(letter) == "Cc" and letter not in "\n\t")
        return letter.encode("unicode_escape").decode() if acts else letter

    return "".join(map(shown, text))
