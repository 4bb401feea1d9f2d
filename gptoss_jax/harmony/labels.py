"""What each token of a stream is: whose message it belongs to, on which channel, and which part of it."""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from gptoss_jax.harmony import render
from gptoss_jax.harmony.header import guess_header
from gptoss_jax.harmony.messages import Message, Role
from gptoss_jax.harmony.repair import Repair

if TYPE_CHECKING:
    from gptoss_jax.harmony.encoding import Encoding

Part = Literal["special", "header", "content"]


@dataclasses.dataclass(frozen=True)
class TokenLabel:
    """One token's place in the conversation.

    Attributes:
      role: who speaks: ``system``, ``developer``, ``user``, ``assistant``, ``tool``; "" where nobody does.
      channel: ``analysis``, ``commentary``, ``final`` or another; "" for none.
      recipient: to whom; "" for all.
      part: "special" for the control tokens of the format, "header" for role, recipient, channel and content type,
        "content" for the rest.
      message: index among the parsed messages, -1 for tokens of none (left-out tokens, a header without a message).
    """

    role: str
    channel: str
    recipient: str
    part: Part
    message: int


def label_tokens(encoding: "Encoding", tokens: Iterable[int], role: Role | None = None) -> list[TokenLabel]:
    """Labels any ids, one label each; never fails.

    A prompt that ends in ``<|start|>assistant`` has those two tokens labeled with the role and no message.

    Args:
      role: who speaks first, if the tokens begin behind ``<|start|>role``.
    """
    parser = encoding.parse(tokens, role)
    mended = _label_well_formed(encoding, parser.mended_tokens, parser.mended_role, parser.messages)
    labels: list[TokenLabel] = []
    at = 0
    for repair in parser.repairs:
        unchanged = repair.position - len(labels)
        labels += mended[at : at + unchanged]
        at += unchanged
        if repair.removed:
            labels += _label_removed(encoding, repair, mended[at] if repair.inserted or at < len(mended) else None)
        at += len(repair.inserted)
    return labels + mended[at:]


def _label_well_formed(
    encoding: "Encoding", tokens: list[int], role: Role | None, messages: list[Message]
) -> list[TokenLabel]:
    control, stops = encoding.control, frozenset(encoding.stop_tokens())
    labels = []
    index, in_content = 0, False
    for token in tokens:
        m = messages[index]
        in_content = in_content and token not in stops
        marks = () if in_content else control.values()
        part: Part = "special" if token in marks else "content" if in_content else "header"
        labels.append(TokenLabel(m.author.role.value, m.channel or "", m.recipient or "", part, index))
        index += token in stops
        in_content = in_content or token == control[render.MESSAGE]
    return labels


def _label_removed(encoding: "Encoding", repair: Repair, place: TokenLabel | None) -> list[TokenLabel]:
    """Tokens that a repair took out keep the place they had, or have none if they were left out altogether."""
    special = set(encoding.control.values())
    header = repair.name in ("malformed_header", "missing_message_token")
    if repair.inserted[:1] == (encoding.control[render.MESSAGE],):
        header = False  # a token with the end of a header and the begin of the content in it
    if place is None or repair.name in ("unfinished_header", "empty_message", "stray_stop_token"):
        text = repair.text.removeprefix(render.START)
        guess, _ = guess_header(text, None, ended=False)
        who = guess.author.role.value if repair.name == "unfinished_header" and text else ""
        place = TokenLabel(who, guess.channel or "", guess.recipient or "", "header", -1)
        header = True
    parts: list[Part] = [
        "special" if t in special and header else "header" if header else "content" for t in repair.removed
    ]
    return [dataclasses.replace(place, part=part) for part in parts]
