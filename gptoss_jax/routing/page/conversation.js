// The conversation: messages of tokens. One list box in which one token at a time can be reached with Tab (roving
// tabindex) and the arrow keys move; coloring changes styles only, the elements are built once.

class Conversation {
  // onPoint(t or null): the mouse is over a token. onPick(t): it was clicked or a key went there.
  constructor(host, data, { onPoint, onPick }) {
    this.data = data;
    this.host = host;
    this.options = [];
    for (const message of data.messages) host.append(this.message(message));
    this.current = null;
    this.hits = new Set();
    const at = (event) => {
      const option = event.target.closest?.("[role=option]");
      return option ? Number(option.dataset.t) : null;
    };
    host.addEventListener("pointerover", (event) => event.pointerType !== "touch" && onPoint(at(event)));
    host.addEventListener("pointerleave", () => onPoint(null));
    host.addEventListener("click", (event) => at(event) !== null && onPick(at(event)));
    host.addEventListener("focusin", (event) => {
      const t = at(event);
      if (t !== null && t !== this.current) onPick(t);
    });
  }

  message({ from, to, role, channel }) {
    const { data } = this;
    const name = [role, channel].filter(Boolean).map(visible).join(", ") || "text";
    const range = to - from > 1 ? `${from}–${to - 1}` : `${from}`;
    const body = el("div", { class: "message-body", role: "presentation" });
    for (let t = from; t < to; t++) {
      if (t > 0 && data.generated[t] && !data.generated[t - 1]) {
        body.append(el("span", { class: "seam", "aria-hidden": "true" }, "generated from here"));
      }
      const option = el("span", {
        id: "t" + t,
        role: "option",
        "data-t": t,
        tabindex: "-1",
        "aria-selected": "false",
      });
      option.textContent = visible(data.text[t]) || "∅";
      option.className = data.special[t] ? "token special" : "token";
      this.options.push(option);
      body.append(option, "\n".repeat(data.text[t].split("\n").length - 1));
    }
    const head = el(
      "div",
      { class: "message-head", "aria-hidden": "true" },
      el("span", { class: "role" }, visible(role) || (channel ? "" : "text")),
      channel ? el("span", { class: "channel" }, visible(channel)) : null,
      el("span", { class: "range" }, range),
    );
    const label = `${name}, ${plural(to - from, "token")}`;
    return el("div", { class: "message", role: "group", "aria-label": label }, head, body);
  }

  // The reader's place: the one token that Tab reaches.
  select(t, { focus }) {
    if (!this.options.length) return;
    const before = this.options[this.current];
    if (before) {
      before.tabIndex = -1;
      before.setAttribute("aria-selected", "false");
    }
    this.current = t;
    const option = this.options[t];
    option.tabIndex = 0;
    option.setAttribute("aria-selected", "true");
    if (focus) option.focus({ preventScroll: true });
    if (focus) this.reveal(t);
  }

  reveal(t) {
    this.options[t]?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // values: T numbers, NaN for blank; mask: tokens in view; print: t => text of the value.
  paint(values, domain, mask, print) {
    for (let t = 0; t < this.options.length; t++) {
      const option = this.options[t];
      const blank = !mask[t] || Number.isNaN(values[t]);
      option.classList.toggle("out", !mask[t]);
      option.classList.toggle("blank", blank);
      if (blank) {
        delete option.dataset.value;
      } else {
        const rgb = cividis(shareIn(domain, values[t]));
        option.style.setProperty("--heat", cssColor(rgb));
        option.style.setProperty("--heat-ink", inkOn(rgb));
        option.dataset.value = print(values[t]);
      }
    }
  }

  mark(hits) {
    for (const t of this.hits) this.options[t].classList.remove("hit");
    this.hits = new Set(hits.flatMap(([from, to]) => Array.from({ length: to - from }, (_, i) => from + i)));
    for (const t of this.hits) this.options[t].classList.add("hit");
  }

  // First token of the message `step` messages away.
  messageStart(t, step) {
    const { messages } = this.data;
    const at = messages.findIndex(({ from, to }) => from <= t && t < to);
    if (step < 0 && t > messages[at].from) return messages[at].from;
    return messages[Math.min(Math.max(at + step, 0), messages.length - 1)].from;
  }
}
