"""Right and wrong answers to the exercises of lesson 02."""

from gptoss_jax.harmony import Role

SHOWN = ("final", "commentary")


def _render(order=("to", "on"), call=None, none=False, blank=" "):
    def render(role, content, channel=None, recipient=None):
        parts = {
            "to": f"{blank}to={recipient}" if recipient is not None or none else "",
            "on": f"<|channel|>{channel}" if channel is not None or none else "",
        }
        calls = role == "assistant" and recipient is not None if call is None else call(role, recipient)
        return (
            f"<|start|>{role}{parts[order[0]]}{parts[order[1]]}<|message|>{content}{'<|call|>' if calls else '<|end|>'}"
        )

    return render


def _pick(keep, text=True):
    return lambda messages: [m.text if text else m for m in messages if keep(m)]


def _mine(m):
    return m.author.role is Role.ASSISTANT


def _read(stops=("end", "call", "return"), keep=False, only_first=False, shared=False, drop_channel=False):
    def read(ids, control):
        ends = {control[f"<|{name}|>"] for name in stops}
        out, header, content, inside = [], [], [], False
        for token in ids:
            if not inside and token == control["<|start|>"]:
                if shared:
                    header.clear(), content.clear()
                else:
                    header, content = [], []
                if keep:
                    header.append(token)
            elif not inside and token == control["<|message|>"]:
                inside = True
            elif inside and token in ends:
                out.append((header, content))
                inside = False
                if only_first:
                    break
            elif not (drop_channel and token == control["<|channel|>"]):
                (content if inside else header).append(token)
        return out

    return read


ANSWERS = {
    "render_message": {
        "right": [_render()],
        "wrong": {
            "channel-first": _render(("on", "to")),
            "always-end": _render(call=lambda role, recipient: False),
            "everyone-calls": _render(call=lambda role, recipient: recipient is not None),
            "prints-none": _render(none=True),
            "no-blank": _render(blank=""),
            "returns-nothing": lambda *a: None,
        },
        "blind": [("wrong-values", lambda role, *a: role), ("raises", lambda role: role)],
    },
    "for_the_user": {
        "right": [_pick(lambda m: _mine(m) and m.recipient is None and m.channel in SHOWN)],
        "wrong": {
            "shows-thoughts": _pick(lambda m: _mine(m) and not m.recipient),
            "shows-calls": _pick(lambda m: _mine(m) and m.channel in SHOWN),
            "shows-others": _pick(lambda m: not m.recipient and m.channel in SHOWN),
            "hides-preambles": _pick(lambda m: m.channel == "final"),
            "returns-messages": _pick(lambda m: _mine(m) and not m.recipient and m.channel in SHOWN, text=False),
            "returns-nothing": lambda messages: None,
        },
        "blind": [("wrong-values", lambda messages: []), ("wrong-type", lambda messages: "answer")],
    },
    "read_stream": {
        "right": [_read()],
        "wrong": {
            "only-end": _read(stops=("end",)),
            "keeps-control": _read(keep=True),
            "one-message": _read(only_first=True),
            "shared-lists": _read(shared=True),
            "loses-channel": _read(drop_channel=True),
            "not-pairs": lambda ids, control: list(ids) or [0],
        },
        "blind": [("only-end", lambda ids, control: []), ("raises", lambda ids: [])],
    },
}
