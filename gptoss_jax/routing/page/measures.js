// Every number the page shows, from the arrays alone. Masked sums run over the tokens in view (mask[t] = 1).
// Letters: t token, l layer, e expert, x rank among the chosen; T, L, E, X their counts.

const METRICS = {
  top1: { name: "Top-1 weight", digits: 4, note: "weight of the first of the chosen experts" },
  entropy: {
    name: "Entropy of the chosen",
    digits: 3,
    note: "0: one expert has it all; 1: all chosen weigh the same",
  },
  margin: { name: "Margin of the choice", digits: 3, note: "last chosen minus first rejected router logit" },
  expert: { name: "Selected expert’s weight", digits: 4, note: "tokens it served; the others stay blank" },
  agree: { name: "Agreement of A and B", digits: 2, note: "share of the experts chosen by both" },
  plain: { name: "None (text only)", digits: 0, note: "" },
};

const NEED_WEIGHTS = ["top1", "entropy"]; // metrics that a trace of ids alone does not have

function maskOf(data, state) {
  const [kind, name] = state.part ? state.part.split(/:(.*)/s) : ["", ""];
  const labels = kind === "channel" ? data.channels : data.roles;
  const mask = new Uint8Array(data.T);
  let n = 0;
  for (let t = 0; t < data.T; t++) {
    const keep =
      (state.show === "all" || (state.show === "generated") === Boolean(data.generated[t])) &&
      (!kind || labels[t] === name) &&
      (state.special || !data.special[t]);
    mask[t] = keep ? 1 : 0;
    n += mask[t];
  }
  return { mask, n };
}

// How often each expert was chosen and with how much weight: counts and masses [L * E]; NaN where weights are unknown.
function loadOf(data, trace, mask) {
  const { T, L, X, E } = data;
  const counts = new Int32Array(L * E);
  const masses = new Float64Array(L * E);
  for (let t = 0; t < T; t++) {
    if (!mask[t]) continue;
    for (let l = 0, i = t * L * X; l < L; l++) {
      for (let x = 0; x < X; x++, i++) {
        counts[l * E + trace.experts[i]]++;
        masses[l * E + trace.experts[i]] += trace.weights[i];
      }
    }
  }
  return { counts, masses };
}

// Whether expert e is among the chosen of token t in layer l.
function serves(data, trace, t, l, e) {
  const at = (t * data.L + l) * data.X;
  for (let x = 0; x < data.X; x++) if (trace.experts[at + x] === e) return true;
  return false;
}

// Weight of expert e for token t in layer l; NaN where it was not chosen or the trace holds no weights.
function weightOf(data, trace, t, l, e) {
  const at = (t * data.L + l) * data.X;
  for (let x = 0; x < data.X; x++) if (trace.experts[at + x] === e) return trace.weights[at + x];
  return NaN;
}

// How many of the X experts of token t in layer l both traces chose.
function sharedExperts(data, t, l) {
  const [a, b] = data.traces;
  const at = (t * data.L + l) * data.X;
  let shared = 0;
  for (let x = 0; x < data.X; x++) {
    for (let y = 0; y < data.X; y++) if (a.experts[at + x] === b.experts[at + y]) shared++;
  }
  return shared;
}

function entropyOf(data, trace, t, l) {
  if (!trace.hasWeights) return NaN;
  const at = (t * data.L + l) * data.X;
  let sum = 0;
  for (let x = 0; x < data.X; x++) {
    const w = trace.weights[at + x];
    if (w > 0) sum -= w * Math.log(w);
  }
  return data.X > 1 ? sum / Math.log(data.X) : 0;
}

function marginOf(data, trace, t, l) {
  const stored = trace.margin ? trace.margin[t * data.L + l] : MARGIN_MISSING;
  return stored === MARGIN_MISSING ? NaN : stored / MARGIN_UNIT;
}

const marginText = (value) => (value >= MARGIN_MAX / MARGIN_UNIT ? "≥ " : "") + fixed(value, 3);

// The chosen metric for one token; `expert` counts in its own layer, the others in layer l. Without weights a token
// that the selected expert served has the value 1.
function metricOf(data, trace, state, t, l) {
  switch (state.metric) {
    case "top1":
      return trace.weights[(t * data.L + l) * data.X];
    case "entropy":
      return entropyOf(data, trace, t, l);
    case "margin":
      return marginOf(data, trace, t, l);
    case "agree":
      return sharedExperts(data, t, l) / data.X;
    case "expert":
      if (!state.expert || !serves(data, trace, t, state.expert.layer, state.expert.id)) return NaN;
      return trace.hasWeights ? weightOf(data, trace, t, state.expert.layer, state.expert.id) : 1;
    default:
      return NaN;
  }
}

// Fixed ends where a metric has them, so that colors of different layers compare.
function domainOf(data, trace, metric) {
  if (metric === "top1") return [1 / data.X, 1];
  if (metric !== "margin" || !trace.margin) return [0, 1];
  const sorted = trace.margin.filter((value) => value !== MARGIN_MISSING).sort();
  return [0, Math.max(sorted.length ? sorted[Math.floor(0.99 * (sorted.length - 1))] / MARGIN_UNIT : 1, 0.001)];
}

// What one expert did for the tokens in view: who it served, for whom most, and beside whom.
function expertReport(data, trace, mask, l, e) {
  const { T, L, X, E, ids } = data;
  const served = [];
  const together = new Int32Array(E);
  const alone = new Int32Array(E);
  const seen = new Map();
  const byToken = new Map();
  let mass = 0;
  let n = 0;
  for (let t = 0; t < T; t++) {
    if (!mask[t]) continue;
    n++;
    seen.set(ids[t], (seen.get(ids[t]) || 0) + 1);
    const w = weightOf(data, trace, t, l, e);
    const at = (t * L + l) * X;
    for (let x = 0; x < X; x++) alone[trace.experts[at + x]]++;
    if (!serves(data, trace, t, l, e)) continue;
    served.push({ t, w });
    mass += w;
    for (let x = 0; x < X; x++) together[trace.experts[at + x]]++;
    const entry = byToken.get(ids[t]) || { id: ids[t], t, times: 0, mass: 0 };
    entry.times++;
    entry.mass += w;
    byToken.set(ids[t], entry);
  }
  const tokens = [...byToken.values()]
    .map((entry) => ({ ...entry, of: seen.get(entry.id), mean: entry.mass / entry.times }))
    .sort((a, b) => b.times - a.times || b.mean - a.mean || a.id - b.id);
  const partners = [];
  for (let other = 0; other < E; other++) {
    if (other === e || !together[other]) continue;
    const lift = (together[other] * n) / (served.length * alone[other]);
    partners.push({ id: other, times: together[other], share: together[other] / served.length, lift });
  }
  partners.sort((a, b) => b.times - a.times || b.lift - a.lift || a.id - b.id);
  return {
    n,
    served,
    tokens,
    partners,
    load: n ? (E * served.length) / (X * n) : 0, // times the uniform share
    mean: served.length ? mass / served.length : NaN,
    rank: 1 + alone.reduce((above, times) => above + (times > served.length ? 1 : 0), 0),
  };
}

// Per layer: mean agreement of the two traces and the share of tokens whose sets are equal.
function agreementByLayer(data, mask) {
  const layers = [];
  for (let l = 0; l < data.L; l++) {
    let shared = 0;
    let equal = 0;
    let n = 0;
    for (let t = 0; t < data.T; t++) {
      if (!mask[t]) continue;
      const both = sharedExperts(data, t, l);
      shared += both;
      equal += both === data.X ? 1 : 0;
      n++;
    }
    layers.push({ layer: l, mean: n ? shared / (n * data.X) : NaN, equal, n });
  }
  return layers;
}

// Where `query` stands: "#id" a token id, "@position" a position, anything else text, across token borders.
// Returns ranges [from, to) of tokens in order.
function findTokens(data, query) {
  const special = /^([#@])(\d+)$/.exec(query);
  if (special) {
    const number = Number(special[2]);
    if (special[1] === "@") return number < data.T ? [[number, number + 1]] : [];
    return data.ids.flatMap((id, t) => (id === number ? [[t, t + 1]] : []));
  }
  if (!query) return [];
  const needle = query.toLowerCase();
  const parts = data.text.map((text) => text.toLowerCase());
  const ends = [];
  let length = 0;
  for (const part of parts) ends.push((length += part.length));
  const all = parts.join("");
  const hits = [];
  let t = 0;
  for (let at = all.indexOf(needle); at >= 0; at = all.indexOf(needle, at + needle.length)) {
    while (ends[t] <= at) t++;
    let to = t;
    while (ends[to] < at + needle.length) to++;
    hits.push([t, to + 1]);
  }
  return hits;
}
