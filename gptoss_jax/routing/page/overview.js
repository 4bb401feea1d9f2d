// The two overview maps and the color legends.

function legend(host, [low, high], text, unit) {
  const ramp = el("span", { class: "ramp" });
  ramp.style.background = `linear-gradient(to right, ${CIVIDIS.map(cssColor).join(", ")})`;
  host.replaceChildren(
    el("span", { class: "legend-name" }, text),
    el("span", {}, low),
    ramp,
    el("span", {}, high + (unit || "")),
  );
}

// What the layer x token map can show: metrics that exist in every layer.
const mapMetric = (state) => (["expert", "plain"].includes(state.metric) ? "top1" : state.metric);

// The map's content for the present state, as Heatmap.show wants it, and its words.
function overviewOf(data, trace, state, view, shownToken) {
  const { T, L, X, E } = data;
  const marks = [];
  const height = L > 24 ? 8 : L > 12 ? 12 : 18;
  if (state.map === "experts") {
    const values = new Float64Array(L * E);
    for (let i = 0; i < L * E; i++) {
      values[i] = view.n ? (E * (state.measure === "load" ? view.counts[i] / X : view.masses[i])) / view.n : 0;
    }
    let top = 0;
    for (const value of values) top = Math.max(top, value);
    for (let i = shownToken * L * X; T && i < (shownToken + 1) * L * X; i++) {
      marks.push({ row: Math.floor((i - shownToken * L * X) / X), column: trace.experts[i], kind: "token" });
    }
    if (state.expert) marks.push({ row: state.expert.layer, column: state.expert.id, kind: "picked" });
    let most = 0;
    for (let i = 1; i < L * E; i++) if (view.counts[i] > view.counts[most]) most = i;
    const idle = view.counts.reduce((sum, times) => sum + (times === 0 ? 1 : 0), 0);
    const what = state.measure === "load" ? "Load: share of the choices" : "Weight: share of the gate mass";
    return {
      rows: L,
      columns: E,
      values,
      domain: [0, top || 1],
      marks,
      column: null,
      cell: (width) => [Math.min(Math.max(width / E, 6), 30), height],
      name: state.measure === "load" ? "load, × uniform" : "weight, × uniform",
      ends: ["0", fixed(top, 1)],
      caption: view.n
        ? `${what}, in multiples of the uniform one; each row is a layer, each column an expert. ` +
          `Busiest: layer ${Math.floor(most / E)}, expert ${most % E}, ${count(view.counts[most])} of ` +
          `${plural(view.n, "token")}. ${count(idle)} of ${count(L * E)} experts idle. ` +
          "Frames: the experts of the token shown."
        : "No token is in view.",
    };
  }
  const metric = mapMetric(state);
  const at = { ...state, metric };
  const values = new Float64Array(L * T);
  for (let l = 0; l < L; l++) {
    for (let t = 0; t < T; t++) values[l * T + t] = view.mask[t] ? metricOf(data, trace, at, t, l) : NaN;
  }
  const domain = domainOf(data, trace, metric);
  return {
    rows: L,
    columns: T,
    values,
    domain,
    marks,
    column: T ? shownToken : null,
    cell: (width) => [Math.min(Math.max(width / Math.max(T, 1), 3), 30), height],
    name: inner(METRICS[metric].name),
    ends: domain.map((value) => fixed(value, 2)),
    caption:
      NEED_WEIGHTS.includes(metric) && !trace.hasWeights
        ? "This trace holds ids without weights, so the map is blank."
        : `${METRICS[metric].name} of every token in every layer: ${METRICS[metric].note}. ` +
          "Tokens out of view are blank.",
  };
}

function cellLine(data, trace, state, view, row, column) {
  if (state.map === "experts") {
    const i = row * data.E + column;
    const load = view.n ? (data.E * view.counts[i]) / (data.X * view.n) : 0;
    const mean = view.counts[i] ? view.masses[i] / view.counts[i] : NaN;
    return (
      `Layer ${row} · expert ${column}: served ${count(view.counts[i])} of ${plural(view.n, "token")} ` +
      `(${percent(view.counts[i], view.n)}), load ${fixed(load, 2)} × uniform, ` +
      `mean weight ${trace.hasWeights ? fixed(mean, 3) : "not recorded"}`
    );
  }
  const metric = mapMetric(state);
  const value = metricOf(data, trace, { ...state, metric }, column, row);
  const { name, digits } = METRICS[metric];
  return `Layer ${row} · token ${column} ${quoted(data.text[column])}: ${name} ${fixed(value, digits)}`;
}

const filterLine = (data, state, view) => {
  const parts = [
    state.show === "all" ? "" : state.show,
    state.part.replace(":", " "),
    state.special ? "" : "without control tokens",
  ];
  const filter = parts.filter(Boolean).join(", ");
  return `${count(view.n)} of ${plural(data.T, "token")} in view${filter ? " (" + visible(filter) + ")" : ""}`;
};
