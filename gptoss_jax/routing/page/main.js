// Puts the parts together: reads the data, draws, and redraws what a change touches.

function start(data) {
  const store = createState(data);
  const { state, set, selectExpert } = store;
  const traceNow = () => data.traces[state.trace];
  let view = {}; // mask and sums of the tokens in view
  let content = null; // what the map shows
  let pointed = null; // the token under the mouse
  let hits = [];
  let hit = -1;

  const say = (text) => (byId("live").textContent = text);
  const shown = () => pointed ?? state.token;
  const statusToken = () =>
    (byId("status").textContent = data.T
      ? tokenLine(data, traceNow(), state, shown())
      : "The trace holds no tokens.");

  const conversation = new Conversation(byId("tokens"), data, {
    onPoint: (t) => point(t),
    onPick: (t) => goTo(t, { focus: true }),
  });
  const tokenCard = new TokenCard(byId("token-body"), byId("token-place"), data, {
    onExpert: selectExpert,
    onLayer: (layer) => set({ layer }),
  });
  const expertCard = new ExpertCard(data, {
    onExpert: selectExpert,
    onToken: (t) => goTo(t, { focus: true }),
    onStep: (step) => stepServed(step),
    onClear: () => clearExpert(),
  });
  const heatmap = new Heatmap(byId("map"), {
    onPick: (row, column) =>
      state.map === "experts" ? selectExpert(row, column) : goTo(column, { layer: row, reveal: true }),
    onPoint: (row, column, how) => {
      if (row === null) return statusToken();
      const line = cellLine(data, traceNow(), state, view, row, column);
      byId("status").textContent = line;
      if (how === "key") say(line);
    },
  });

  // ---- drawing
  let waiting = false;
  function drawShown() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      tokenCard.show(shown(), state);
      drawMap();
      statusToken();
    });
  }

  function drawMap() {
    content = overviewOf(data, traceNow(), state, view, shown());
    heatmap.show(content);
    byId("map-summary").textContent = content.caption;
    legend(byId("map-legend"), content.ends, content.name, state.map === "experts" ? " ×" : "");
  }

  function paintTokens() {
    const trace = traceNow();
    const { digits, name } = METRICS[state.metric];
    const values = Float64Array.from({ length: data.T }, (_, t) => metricOf(data, trace, state, t, state.layer));
    const domain = domainOf(data, trace, state.metric);
    const exact =
      state.metric === "agree"
        ? (value) => `${Math.round(value * data.X)}/${data.X}`
        : state.metric === "expert" && !trace.hasWeights
          ? () => "served"
          : (value) => fixed(value, digits);
    conversation.paint(values, domain, view.mask, exact);
    byId("tokens").classList.toggle("served", state.metric === "expert");
    byId("token-legend").hidden = state.metric === "plain";
    const where =
      state.metric === "expert" && state.expert
        ? `${trace.hasWeights ? "weight of" : "served by"} layer ${state.expert.layer} · expert ${state.expert.id}`
        : `${inner(name)}, layer ${state.layer}`;
    legend(
      byId("token-legend"),
      domain.map((value) => fixed(value, 2)),
      where,
    );
  }

  function render(changed) {
    const any = (...names) => names.some((name) => changed.has(name));
    syncControls(data, state);
    if (any("show", "part", "special", "trace")) {
      view = maskOf(data, state);
      Object.assign(view, loadOf(data, traceNow(), view.mask));
      byId("in-view").textContent = filterLine(data, state, view);
    }
    if (any("token")) conversation.select(state.token, { focus: false });
    if (any("show", "part", "special", "trace", "metric", "layer", "expert")) paintTokens();
    if (any("show", "part", "special", "trace", "layer", "expert")) expertCard.show(state, traceNow(), view);
    if (data.traces.length > 1 && any("show", "part", "special", "layer"))
      showAgreement(data, state, view, (layer) => set({ layer }));
    if (any("layer")) tokenCard.showLayer(state.layer, true);
    if (any("query")) find();
    if (any("theme")) drawMap();
    drawShown();
  }

  // ---- moving
  function point(t) {
    if (t === pointed) return;
    pointed = t;
    drawShown();
  }

  function goTo(t, { focus = false, reveal = false, layer = state.layer } = {}) {
    pointed = null;
    set({ token: t, layer });
    conversation.select(t, { focus });
    if (reveal) conversation.reveal(t);
    drawShown();
    say(tokenLine(data, traceNow(), state, t));
  }

  function stepServed(step) {
    if (!state.expert) return;
    const served = expertReport(data, traceNow(), view.mask, state.expert.layer, state.expert.id).served.map(
      ({ t }) => t,
    );
    const next = step > 0 ? served.find((t) => t > state.token) : served.findLast((t) => t < state.token);
    if (next === undefined) say(step > 0 ? "No later token served." : "No earlier token served.");
    else goTo(next, { focus: document.activeElement?.getAttribute("role") === "option", reveal: true });
  }

  function clearExpert() {
    if (!state.expert) return;
    set({ expert: null, metric: state.metric === "expert" ? "top1" : state.metric });
    say("No expert selected.");
  }

  function find() {
    hits = findTokens(data, state.query);
    hit = -1;
    conversation.mark(hits);
    showFound();
  }

  function showFound() {
    const text = !state.query
      ? ""
      : !hits.length
        ? "no match"
        : hit < 0
          ? plural(hits.length, "match").replace("matchs", "matches")
          : `${hit + 1} of ${count(hits.length)}`;
    byId("found").textContent = text;
    byId("find-previous").disabled = byId("find-next").disabled = !hits.length;
  }

  function stepFound(step) {
    if (!hits.length) return;
    const from = hit < 0 ? (step > 0 ? -1 : 0) : hit;
    hit = (from + step + hits.length) % hits.length;
    goTo(hits[hit][0], { reveal: true });
    showFound();
  }

  // ---- events
  buildControls(data, store);
  bindKeys(data, store, {
    token: (t) => goTo(t, { focus: true }),
    layer: (layer) => goTo(state.token, { focus: true, layer }),
    message: (step) => goTo(conversation.messageStart(state.token, step), { focus: true }),
    rank: (x) => {
      selectExpert(state.layer, traceNow().experts[(state.token * data.L + state.layer) * data.X + x]);
      say(byId("expert-title").textContent + ", " + byId("expert-body").querySelector("dl").textContent);
    },
    clear: clearExpert,
    served: stepServed,
    metric: () => {
      const allowed = metricOptions(data, state)
        .filter(([, , disabled]) => !disabled)
        .map(([key]) => key);
      set({ metric: allowed[(allowed.indexOf(state.metric) + 1) % allowed.length] });
      say("Color: " + METRICS[state.metric].name);
    },
    other: () => data.traces.length > 1 && set({ trace: 1 - state.trace }),
  });
  byId("query").addEventListener("keydown", (event) => {
    if (event.key === "Enter") stepFound(event.shiftKey ? -1 : 1);
    if (event.key === "Escape" && data.T) conversation.select(state.token, { focus: true });
  });
  byId("find-previous").addEventListener("click", () => stepFound(-1));
  byId("find-next").addEventListener("click", () => stepFound(1));
  byId("export-png").addEventListener("click", () => exportPng(data, state, view, heatmap, content));
  for (const what of ["layer", "all", "expert"]) {
    byId("export-" + what).addEventListener("click", () => exportCsv(data, state, view, what));
  }
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the part behind "#" keeps the reader's place
    if (data.T) conversation.select(state.token, { focus: true });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
  store.onChange(render);

  const { model, dtype, recorder } = data.traces[0];
  const about = [
    model,
    dtype,
    plural(data.T, "token"),
    plural(data.L, "layer"),
    `${data.X} of ${data.E} experts per token`,
    recorder && "recorded by " + (/^\d/.test(recorder) ? "gptoss-jax " : "") + recorder,
    ...data.traces.map((trace) => {
      if (trace.hasWeights) return "";
      return (data.traces.length > 1 ? `weights of ${trace.name}` : "weights") + " not recorded";
    }),
  ];
  byId("provenance").textContent = about.filter(Boolean).join(" · ");
  render(new Set(Object.keys(state)));
  if (state.token) conversation.reveal(state.token);
}

readData(byId("data").textContent)
  .then(start)
  .catch((error) => {
    byId("notice").hidden = false;
    byId("notice").textContent = "The trace cannot be shown: " + error.message;
    console.error(error);
  })
  .finally(() => {
    document.documentElement.dataset.ready = "";
    performance.mark("ready");
  });
