// The expert's card: whom it served among the tokens in view, for which tokens most, and beside which experts;
// and the card of agreement when two traces are compared.

const LISTED = 8;

class ExpertCard {
  constructor(data, { onExpert, onToken, onStep, onClear }) {
    this.data = data;
    this.body = byId("expert-body");
    this.title = byId("expert-title");
    this.layer = byId("expert-layer");
    this.id = byId("expert-id");
    this.layer.max = data.L - 1;
    this.id.max = data.E - 1;
    this.on = { onExpert, onToken, onStep };
    const read = () => {
      const [layer, id] = [Number(this.layer.value), Number(this.id.value)];
      const fits = (value, box, length) =>
        box.value !== "" && Number.isInteger(value) && value >= 0 && value < length;
      if (fits(layer, this.layer, data.L) && fits(id, this.id, data.E)) onExpert(layer, id);
    };
    this.layer.addEventListener("change", read);
    this.id.addEventListener("change", read);
    byId("expert-clear").addEventListener("click", onClear);
  }

  show(state, trace, view) {
    const { expert } = state;
    byId("expert-clear").hidden = !expert;
    this.layer.value = expert ? expert.layer : state.layer;
    this.id.value = expert ? expert.id : "";
    this.title.textContent = expert ? `Layer ${expert.layer} · Expert ${expert.id}` : "Expert";
    if (expert) this.report(expertReport(this.data, trace, view.mask, expert.layer, expert.id), expert, trace);
    else this.busiest(state.layer, view);
  }

  report(report, { layer }, { hasWeights }) {
    const { data } = this;
    this.served = report.served;
    const fact = (name, value, note) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, value, note ? el("small", {}, note) : null));
    const facts = el(
      "dl",
      { class: "facts" },
      fact(
        "Served",
        count(report.served.length),
        ` of ${count(report.n)}, ${percent(report.served.length, report.n)}`,
      ),
      fact("Load", fixed(report.load, 2), " × uniform"),
      fact("Mean weight", fixed(report.mean, 3), hasWeights ? " when chosen" : " not recorded"),
      fact("Rank by load", String(report.rank), ` of ${data.E}`),
    );
    if (!report.served.length) {
      this.body.replaceChildren(facts, el("p", { class: "empty" }, "It served none of the tokens in view."));
      return;
    }
    const step = el(
      "div",
      { class: "joined steps" },
      el(
        "button",
        { type: "button", id: "served-previous", onclick: () => this.on.onStep(-1) },
        "‹ Previous served",
      ),
      el("button", { type: "button", id: "served-next", onclick: () => this.on.onStep(1) }, "Next served ›"),
    );
    const tokens = table(
      "Top tokens",
      "top-tokens",
      ["Token", "Served", "of", "Mean weight"],
      report.tokens.slice(0, LISTED),
      (entry) => [
        el(
          "button",
          {
            type: "button",
            class: "plain",
            title: `Go to position ${entry.t}`,
            onclick: () => this.on.onToken(entry.t),
          },
          el("code", {}, visible(data.text[entry.t]) || "∅"),
        ),
        entry.times,
        entry.of,
        fixed(entry.mean, 3),
      ],
    );
    const partners = table(
      "Partners",
      "partners",
      ["Expert", "Together", "Share", "Lift"],
      report.partners.slice(0, LISTED),
      (entry) => [
        el(
          "button",
          { type: "button", class: "plain", onclick: () => this.on.onExpert(layer, entry.id) },
          el("b", {}, String(entry.id)),
        ),
        entry.times,
        fixed(entry.share, 3),
        fixed(entry.lift, 2),
      ],
    );
    const chance = data.E > 1 ? fixed((data.X - 1) / (data.E - 1), 3) : "–";
    this.body.replaceChildren(
      facts,
      step,
      tokens,
      partners,
      el(
        "p",
        { class: "caption" },
        `Share: of this expert’s tokens, also served by the partner (${chance} if sets were random). ` +
          "Lift: 1 if independent.",
      ),
    );
  }

  busiest(layer, view) {
    const { E, X } = this.data;
    const experts = Array.from({ length: E }, (_, id) => ({ id, times: view.counts[layer * E + id] }));
    const idle = experts.filter((entry) => entry.times === 0).length;
    experts.sort((a, b) => b.times - a.times || a.id - b.id);
    const rows = experts.filter((entry) => entry.times > 0).slice(0, LISTED);
    this.body.replaceChildren(
      el(
        "p",
        { class: "empty" },
        "Pick an expert on the map, in the token’s table, or by number, to light up every token it served.",
      ),
      rows.length
        ? table(`Busiest in layer ${layer}`, "busiest", ["Expert", "Served", "of", "Load ×"], rows, (entry) => [
            el(
              "button",
              { type: "button", class: "plain", onclick: () => this.on.onExpert(layer, entry.id) },
              el("b", {}, String(entry.id)),
            ),
            entry.times,
            view.n,
            fixed((E * entry.times) / (X * view.n), 2),
          ])
        : "",
      el(
        "p",
        { class: "caption" },
        view.n ? `${idle} of ${E} experts of layer ${layer} served no token in view.` : "No token is in view.",
      ),
    );
  }
}

function table(caption, id, columns, entries, cells) {
  const head = el("tr", {}, ...columns.map((name, i) => el("th", { scope: "col", class: i ? "n" : "" }, name)));
  const rows = entries.map((entry) =>
    el(
      "tr",
      {},
      ...cells(entry).map((cell, i) =>
        el(i ? "td" : "th", i ? { class: "n" } : { scope: "row" }, typeof cell === "number" ? count(cell) : cell),
      ),
    ),
  );
  return el(
    "table",
    { class: "list", id },
    el("caption", {}, caption),
    el("thead", {}, head),
    el("tbody", {}, ...rows),
  );
}

// Per layer: how far the two traces agree. Length shows it, the numbers say it.
function showAgreement(data, state, view, onLayer) {
  const layers = agreementByLayer(data, view.mask);
  const mean = layers.reduce((sum, entry) => sum + entry.mean, 0) / layers.length;
  const body = table("By layer", "agreement", ["Layer", "Mean", "Equal sets", "of"], layers, (entry) => [
    el("button", { type: "button", class: "plain", onclick: () => onLayer(entry.layer) }, String(entry.layer)),
    el("span", { class: "bar" }, fixed(entry.mean, 4)),
    entry.equal,
    entry.n,
  ]);
  body.querySelectorAll(".bar").forEach((bar, l) => bar.style.setProperty("--share", layers[l].mean || 0));
  body.querySelectorAll("tbody tr").forEach((row, l) => row.classList.toggle("here", l === state.layer));
  const [a, b] = data.traces;
  const name = (trace) => [trace.model || "unnamed", trace.dtype].filter(Boolean).join(", ");
  byId("agreement-body").replaceChildren(
    el("p", { class: "token-facts" }, el("span", {}, `A: ${name(a)}. B: ${name(b)}.`)),
    a.checkpoint !== b.checkpoint || a.model !== b.model
      ? el(
          "p",
          { class: "caption" },
          "A and B are different checkpoints: expert numbers mean the same only if one was derived from the other.",
        )
      : "",
    el(
      "p",
      { class: "caption" },
      `Mean share of experts chosen by both: ${fixed(mean, 4)} over ${plural(data.L, "layer")}; ` +
        `${fixed(data.X / data.E, 4)} if both were random.`,
    ),
    body,
  );
}
