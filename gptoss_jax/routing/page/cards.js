// The token's card: its experts and weights in every layer. The table is built once and refilled, because it
// changes with every token that the mouse passes over. Only the current layer's cells are reached with Tab.

class TokenCard {
  // onExpert(layer, id): an expert's cell was chosen. onLayer(l): a layer's name was.
  constructor(body, place, data, { onExpert, onLayer }) {
    this.data = data;
    this.place = place;
    this.facts = el("p", { class: "token-facts" });
    this.cells = data.traces.map(() => []);
    const { L, X, traces } = data;
    const compare = traces.length > 1;
    this.agree = [];
    this.margins = traces.map(() => []);
    this.hasMargin = traces.some((trace) => trace.margin);
    const head = el("tr", {}, el("th", { scope: "col" }, "Layer"));
    if (compare) head.append(el("th", { scope: "col" }, "Both"), unseenHead("Trace"));
    for (let x = 0; x < X; x++) head.append(el("th", { scope: "col" }, ["1st", "2nd", "3rd"][x] || x + 1 + "th"));
    if (this.hasMargin) head.append(el("th", { scope: "col", class: "n" }, "Margin"));
    const rows = el("tbody");
    this.rows = [];
    for (let l = 0; l < L; l++) {
      this.rows.push([]);
      traces.forEach((trace, which) => {
        const row = el("tr", { class: which ? "second" : "" });
        if (which === 0) {
          const name = el("button", { type: "button", tabindex: "-1", onclick: () => onLayer(l) }, String(l));
          row.append(el("th", { scope: rowScope(compare), rowspan: compare ? 2 : null }, name));
        }
        if (compare && which === 0) {
          const agree = el("td", { rowspan: 2 });
          this.agree.push(agree);
          row.append(agree);
        }
        if (compare) row.append(el("th", { scope: "row", class: "which" }, trace.name));
        const cells = [];
        for (let x = 0; x < X; x++) {
          const id = el("b");
          const weight = el("span");
          const button = el("button", { type: "button", class: "chip", tabindex: "-1" }, id, " ", weight);
          button.addEventListener("click", () => onExpert(l, Number(button.dataset.expert)));
          cells.push({ button, id, weight });
          row.append(el("td", {}, button));
        }
        if (this.hasMargin) {
          const margin = el("td", { class: "n" });
          this.margins[which].push(margin);
          row.append(margin);
        }
        this.cells[which].push(cells);
        this.rows[l].push(row);
        rows.append(row);
      });
    }
    this.table = el(
      "table",
      { class: "experts" },
      el("caption", { class: "unseen" }, "Experts and weights by layer"),
      el("thead", {}, head),
      rows,
    );
    this.scroller = el(
      "div",
      { class: "scroller", tabindex: "0", role: "region", "aria-label": "Experts of the token, by layer" },
      this.table,
    );
    body.append(this.facts, this.scroller);
    if (!data.T) body.replaceChildren(el("p", { class: "empty" }, "The trace holds no tokens."));
  }

  show(t, state) {
    const { data } = this;
    if (!data.T) return;
    const { L, X } = data;
    this.place.textContent = `${t} of ${count(data.T)}`;
    const role = [data.roles[t], data.channels[t]].filter(Boolean).map(visible).join(" · ");
    const facts = [
      `id ${data.ids[t]}`,
      role,
      data.generated[t] ? "generated" : "prompt",
      data.special[t] ? "control token" : "",
    ];
    this.facts.replaceChildren(
      el("code", {}, data.hasText ? visible(data.text[t]) || "∅" : "#" + data.ids[t]),
      el("span", {}, facts.filter(Boolean).join(" · ")),
    );
    data.traces.forEach((trace, which) => {
      const other = data.traces[1 - which];
      for (let l = 0; l < L; l++) {
        const at = (t * L + l) * X;
        for (let x = 0; x < X; x++) {
          const { button, id, weight } = this.cells[which][l][x];
          const e = trace.experts[at + x];
          const w = trace.weights[at + x];
          button.dataset.expert = e;
          id.textContent = e;
          weight.textContent = fixed(w, 4);
          button.style.setProperty("--share", trace.hasWeights ? w : 0);
          const picked = state.expert && state.expert.layer === l && state.expert.id === e;
          button.classList.toggle("picked", Boolean(picked));
          if (other) {
            const only = !serves(data, other, t, l, e);
            button.classList.toggle("only", only);
            button.title = only ? `Only in ${trace.name}` : "";
          }
        }
        if (this.hasMargin) this.margins[which][l].textContent = marginText(marginOf(data, trace, t, l));
      }
    });
    this.agree.forEach((cell, l) => (cell.textContent = `${sharedExperts(data, t, l)}/${X}`));
  }

  // Marks the current layer and makes its cells the ones that Tab reaches.
  showLayer(layer, scroll) {
    if (!this.data.T) return;
    this.rows.forEach((pair, l) => {
      const here = l === layer;
      for (const row of pair) {
        row.classList.toggle("here", here);
        for (const button of row.querySelectorAll(".chip")) button.tabIndex = here ? 0 : -1;
      }
    });
    if (!scroll) return;
    const row = this.rows[layer][0];
    const view = this.scroller;
    const top = row.offsetTop - this.table.tHead.offsetHeight;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (row.offsetTop + 2 * row.offsetHeight > view.scrollTop + view.clientHeight) {
      view.scrollTop = row.offsetTop + 2 * row.offsetHeight - view.clientHeight;
    }
  }
}

const unseenHead = (text) => el("th", { scope: "col" }, el("span", { class: "unseen" }, text));
const rowScope = (compare) => (compare ? "rowgroup" : "row");

// One line on a token, for the status line and for screen readers.
function tokenLine(data, trace, state, t) {
  const at = (t * data.L + state.layer) * data.X;
  const experts = [];
  for (let x = 0; x < data.X; x++) {
    experts.push(trace.experts[at + x] + (trace.hasWeights ? " " + fixed(trace.weights[at + x], 4) : ""));
  }
  const where = [data.roles[t], data.channels[t]].filter(Boolean).map(visible).join(" · ");
  const value = metricOf(data, trace, state, t, state.layer);
  const shown =
    ["plain", "top1", "expert"].includes(state.metric) || Number.isNaN(value)
      ? ""
      : ` · ${METRICS[state.metric].name} ${fixed(value, METRICS[state.metric].digits)}`;
  const served = state.expert && serves(data, trace, t, state.expert.layer, state.expert.id);
  const chosen =
    state.metric !== "expert" || !state.expert
      ? ""
      : !served
        ? " · not served by the selected expert"
        : trace.hasWeights
          ? ` · selected expert ${fixed(weightOf(data, trace, t, state.expert.layer, state.expert.id), 4)}`
          : " · served by the selected expert, weight unknown";
  const who = `${quoted(data.text[t])} token ${t}${where ? " · " + where : ""}`;
  return `${who} · layer ${state.layer}: ${experts.join(", ")}${shown}${chosen}`;
}
