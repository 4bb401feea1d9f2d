// The controls above the stage and the keys.

function fillSelect(select, options) {
  select.replaceChildren(...options.map(([value, text, disabled]) => el("option", { value, disabled }, text)));
}

function buildControls(data, { state, set }) {
  byId("layer-label").textContent = `Layer, 0–${data.L - 1}`;
  fillSelect(
    byId("layer"),
    Array.from({ length: data.L }, (_, l) => [l, l]),
  );
  const part = byId("part");
  const group = (kind, label, values) => {
    const names = [...new Set(values)].filter(Boolean).sort();
    const options = names.map((name) => el("option", { value: `${kind}:${name}` }, visible(name)));
    return names.length ? el("optgroup", { label }, ...options) : null;
  };
  part.append(el("option", { value: "" }, "All messages"));
  part.append(...[group("role", "Role", data.roles), group("channel", "Channel", data.channels)].filter(Boolean));
  part.disabled = part.options.length === 1;
  const hasBoth = data.generated.includes(0) && data.generated.includes(1);
  byId("show").disabled = !hasBoth && state.show === "all";
  byId("special").disabled = !data.special.includes(1);

  const choices = data.traces.map((trace, i) => {
    const name = trace.name + (trace.dtype ? ` · ${trace.dtype}` : "");
    return el("label", {}, el("input", { type: "radio", name: "trace", value: i }), " " + name);
  });
  byId("trace-choice").append(...choices);
  byId("trace-choice").hidden = data.traces.length < 2;
  byId("agreement-card").hidden = data.traces.length < 2;

  byId("layer").addEventListener("change", (event) => set({ layer: Number(event.target.value) }));
  byId("layer-down").addEventListener("click", () => set({ layer: Math.max(state.layer - 1, 0) }));
  byId("layer-up").addEventListener("click", () => set({ layer: Math.min(state.layer + 1, data.L - 1) }));
  for (const id of ["metric", "show", "part", "measure"]) {
    byId(id).addEventListener("change", (event) => set({ [id]: event.target.value }));
  }
  for (const id of ["special", "numbers"])
    byId(id).addEventListener("change", (event) => set({ [id]: event.target.checked }));
  byId("map-choice").addEventListener("change", (event) => set({ map: event.target.value }));
  byId("trace-choice").addEventListener("change", (event) => set({ trace: Number(event.target.value) }));
  byId("query").addEventListener("input", (event) => set({ query: event.target.value }));
  byId("theme").addEventListener("click", () => nextTheme(state, set));
  byId("help").addEventListener("click", () => byId("keys").showModal());
  const menu = byId("export");
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
    event.stopPropagation();
  });
  document.addEventListener("click", (event) => menu.contains(event.target) || (menu.open = false));
}

function nextTheme(state, set) {
  const order = ["auto", "light", "dark"];
  set({ theme: order[(order.indexOf(state.theme) + 1) % 3] });
}

// Which metrics this trace and this state allow, and why not the others.
function metricOptions(data, state) {
  const unknown = data.traces[state.trace].hasWeights ? "" : " (no weights in the trace)";
  const missing = {
    ...Object.fromEntries(NEED_WEIGHTS.map((key) => [key, unknown])),
    margin: data.traces[state.trace].margin ? "" : " (no router logits in the trace)",
    expert: state.expert ? "" : " (select one first)",
    agree: data.traces.length > 1 ? "" : " (needs two traces)",
  };
  const all = Object.entries(METRICS).map(([key, { name }]) => [
    key,
    name + (missing[key] || ""),
    Boolean(missing[key]),
  ]);
  return all.filter(([key]) => key !== "agree" || data.traces.length > 1);
}

function syncControls(data, state) {
  fillSelect(byId("metric"), metricOptions(data, state));
  for (const id of ["layer", "metric", "show", "part", "measure"]) byId(id).value = String(state[id]);
  for (const id of ["special", "numbers"]) byId(id).checked = state[id];
  if (byId("query").value !== state.query) byId("query").value = state.query;
  for (const box of document.querySelectorAll("input[name=map]")) box.checked = box.value === state.map;
  for (const box of document.querySelectorAll("input[name=trace]")) box.checked = Number(box.value) === state.trace;
  byId("layer-down").disabled = state.layer === 0;
  byId("layer-up").disabled = state.layer >= data.L - 1;
  byId("measure").hidden = state.map !== "experts";
  byId("measure").querySelector("[value=mass]").disabled = !data.traces[state.trace].hasWeights;
  byId("export-expert").disabled = !state.expert;
  byId("theme").textContent = `Theme: ${state.theme}`;
  document.documentElement.dataset.theme = state.theme;
  byId("tokens").classList.toggle("numbers", state.numbers);
}

// actions: {token(t), layer(l), message(step), rank(x), clear(), served(step), metric(), other()}
function bindKeys(data, { state, set }, actions) {
  byId("tokens").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !data.T) return;
    const last = data.T - 1;
    const moves = {
      ArrowRight: () => actions.token(Math.min(state.token + 1, last)),
      ArrowLeft: () => actions.token(Math.max(state.token - 1, 0)),
      Home: () => actions.token(0),
      End: () => actions.token(last),
      ArrowDown: () => actions.layer(Math.min(state.layer + 1, data.L - 1)),
      ArrowUp: () => actions.layer(Math.max(state.layer - 1, 0)),
      PageDown: () => actions.message(1),
      PageUp: () => actions.message(-1),
      Enter: () => actions.rank(0),
      " ": () => actions.rank(0),
    };
    const digit = /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : -1;
    if (digit >= 0 && digit < data.X) moves[event.key] = () => actions.rank(digit);
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
    if (event.target.closest("input:not([type=checkbox]):not([type=radio]), select, textarea")) return;
    if (event.key === "Escape") return actions.clear();
    if (!byId("single").checked) return;
    const single = {
      "/": () => byId("query").focus(),
      "?": () => byId("keys").showModal(),
      "[": () => actions.served(-1),
      "]": () => actions.served(1),
      m: actions.metric,
      x: actions.other,
      t: () => nextTheme(state, set),
    }[event.key];
    if (!single) return;
    event.preventDefault();
    single();
  });
}
