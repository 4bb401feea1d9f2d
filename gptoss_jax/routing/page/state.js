// What the reader has chosen. It lives in the address behind the "#", so that a link shows the same place again.

const DEFAULTS = {
  token: 0, // position
  layer: 0,
  expert: null, // {layer, id}
  metric: "top1",
  show: "all", // all | prompt | generated
  part: "", // "" | role:NAME | channel:NAME
  special: true, // count control tokens
  trace: 0, // 0 is A, 1 is B
  map: "experts", // experts: layer x expert | tokens: layer x token
  measure: "load", // of the expert map: load | mass
  query: "",
  numbers: false, // print the metric under each token
  theme: "auto", // auto | light | dark
};

function createState(data) {
  const state = { ...DEFAULTS };
  const listeners = [];
  let writing = "";

  const inside = (value, length, otherwise) =>
    Number.isInteger(value) && value >= 0 && value < length ? value : otherwise;
  const oneOf = (value, allowed, otherwise) => (allowed.includes(value) ? value : otherwise);
  const hasMargin = () => data.traces[state.trace].margin !== null;
  const hasWeights = () => data.traces[state.trace].hasWeights;

  // Nothing outside the trace can be chosen, wherever the value came from.
  function settle() {
    state.token = inside(state.token, data.T, 0);
    state.layer = inside(state.layer, data.L, 0);
    state.trace = inside(state.trace, data.traces.length, 0);
    const e = state.expert;
    if (e && (inside(e.layer, data.L, -1) < 0 || inside(e.id, data.E, -1) < 0)) state.expert = null;
    const usual = hasWeights() ? "top1" : "plain";
    state.metric = oneOf(state.metric, Object.keys(METRICS), usual);
    if (NEED_WEIGHTS.includes(state.metric) && !hasWeights()) state.metric = usual;
    if (state.metric === "expert" && !state.expert) state.metric = usual;
    if (state.metric === "margin" && !hasMargin()) state.metric = usual;
    if (state.metric === "agree" && data.traces.length < 2) state.metric = usual;
    state.show = oneOf(state.show, ["all", "prompt", "generated"], "all");
    const parts = [
      "",
      ...data.roles.map((name) => "role:" + name),
      ...data.channels.map((name) => "channel:" + name),
    ];
    state.part = oneOf(state.part, parts, "");
    state.map = oneOf(state.map, ["experts", "tokens"], "experts");
    state.measure = oneOf(state.measure, hasWeights() ? ["load", "mass"] : ["load"], "load");
    state.theme = oneOf(state.theme, ["auto", "light", "dark"], "auto");
  }

  function toHash() {
    const out = new URLSearchParams();
    for (const [name, initial] of Object.entries(DEFAULTS)) {
      const value = state[name];
      if (name === "expert") {
        if (value) out.set("expert", `${value.layer}.${value.id}`);
      } else if (value !== initial) out.set(name, typeof value === "boolean" ? Number(value) : value);
    }
    return out.toString();
  }

  function fromHash(hash) {
    const given = new URLSearchParams(hash.replace(/^#/, ""));
    Object.assign(state, DEFAULTS);
    for (const [name, initial] of Object.entries(DEFAULTS)) {
      const text = given.get(name);
      if (text === null) continue;
      const pair = /^(\d+)\.(\d+)$/.exec(text);
      if (name === "expert") state.expert = pair && { layer: Number(pair[1]), id: Number(pair[2]) };
      else if (typeof initial === "number") state[name] = /^\d+$/.test(text) ? Number(text) : initial;
      else if (typeof initial === "boolean") state[name] = text === "1";
      else state[name] = text;
    }
    settle();
  }

  function writeHash() {
    writing = toHash();
    if (writing === location.hash.slice(1)) return;
    try {
      history.replaceState(null, "", writing ? "#" + writing : location.pathname + location.search);
    } catch {
      location.hash = writing; // a sandboxed frame refuses replaceState
    }
  }

  // Applies `changes`; listeners get the names of all that is now different.
  function set(changes) {
    const before = { ...state };
    Object.assign(state, changes);
    settle();
    const changed = new Set(Object.keys(state).filter((name) => state[name] !== before[name]));
    if (!changed.size) return;
    writeHash();
    for (const listener of listeners) listener(changed);
  }

  function selectExpert(layer, id) {
    set({ expert: { layer, id }, layer, metric: "expert" });
  }

  fromHash(location.hash);
  addEventListener("hashchange", () => {
    if (location.hash.slice(1) === writing) return;
    fromHash(location.hash);
    for (const listener of listeners) listener(new Set(Object.keys(state)));
  });
  return { state, set, selectExpert, onChange: (listener) => listeners.push(listener) };
}
