// What can be taken away: the map as a picture, tokens with their experts as CSV. Nothing leaves the machine.

function download(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The fewest digits that give the same float32 back.
function float32Text(value) {
  for (let digits = 1; digits < 9; digits++) {
    const text = String(Number(value.toPrecision(digits)));
    if (Math.fround(Number(text)) === value) return text;
  }
  return String(Number(value.toPrecision(9)));
}

// Role and channel names are plain words unless someone made them otherwise.
const csvName = (name) => (/^[A-Za-z_][\w .-]*$|^$/.test(name) ? name : csvText(name));

const COLUMNS = "position,token_id,text_json,role,channel,generated,special,trace,layer,rank,expert,weight";

// Tokens in view; `layers` to list; `keep(t, l, x)` chooses among the experts.
function toCsv(data, state, view, layers, keep = () => true) {
  const trace = data.traces[state.trace];
  const lines = [COLUMNS];
  for (let t = 0; t < data.T; t++) {
    if (!view.mask[t]) continue;
    const token = [
      t,
      data.ids[t],
      data.hasText ? csvText(data.text[t]) : "",
      csvName(data.roles[t]),
      csvName(data.channels[t]),
      data.generated[t],
      data.special[t],
      trace.name,
    ].join(",");
    for (const l of layers) {
      for (let x = 0; x < data.X; x++) {
        if (!keep(t, l, x)) continue;
        const i = (t * data.L + l) * data.X + x;
        const weight = trace.hasWeights ? float32Text(trace.weights[i]) : "";
        lines.push(`${token},${l},${x},${trace.experts[i]},${weight}`);
      }
    }
  }
  return new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv;charset=utf-8" });
}

function exportCsv(data, state, view, what) {
  const all = Array.from({ length: data.L }, (_, l) => l);
  if (what === "layer") download(toCsv(data, state, view, [state.layer]), `experts-layer-${state.layer}.csv`);
  if (what === "all") download(toCsv(data, state, view, all), "experts-all-layers.csv");
  if (what === "expert") {
    const { layer, id } = state.expert;
    const { experts } = data.traces[state.trace];
    const mine = (t, l, x) => experts[(t * data.L + l) * data.X + x] === id;
    download(toCsv(data, state, view, [layer], mine), `expert-layer-${layer}-id-${id}.csv`);
  }
}

// The map as it stands, with title, legend, filter and provenance, at twice the size of the screen's pixels.
function exportPng(data, state, view, heatmap, content) {
  const { width, height } = heatmap.size();
  const [wide, pad] = [Math.max(width + 40, 760), 20];
  const canvas = el("canvas");
  const scale = Math.min(2, 16000 / wide);
  canvas.width = wide * scale;
  canvas.height = (height + 128) * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.fillStyle = themeColor("panel");
  context.fillRect(0, 0, wide, height + 128);
  const write = (text, x, y, font, color) => {
    context.font = font + " system-ui, sans-serif";
    context.fillStyle = themeColor(color);
    context.textAlign = "left";
    context.textBaseline = "alphabetic";
    context.fillText(text, x, y);
  };
  write(visible(data.title), pad, 34, "600 18px", "ink");
  const subject = state.map === "experts" ? "Layer × expert" : "Layer × token";
  write(`${subject}: ${content.name}. ${filterLine(data, state, view)}.`, pad, 56, "13px", "muted");
  context.save();
  context.translate(pad - 4, 66);
  heatmap.paint(context);
  context.restore();
  const y = height + 86;
  CIVIDIS.forEach((rgb, i) => {
    context.fillStyle = cssColor(rgb);
    context.fillRect(pad + 30 + 5 * i, y, 5.5, 10);
  });
  write(content.ends[0], pad, y + 10, "12px", "muted");
  write(`${content.ends[1]}  ${content.name}`, pad + 30 + 5 * CIVIDIS.length + 8, y + 10, "12px", "muted");
  write(byId("provenance").textContent, pad, y + 32, "12px", "muted");
  canvas.toBlob((blob) => download(blob, `expert-map-${state.map}.png`), "image/png");
}
