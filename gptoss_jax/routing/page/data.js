// Reads what explorer.py packed: JSON for text, deflated little-endian arrays for numbers.

const PAGE_FORMAT = "gptoss-jax explorer";
const PAGE_VERSION = 1;
const MARGIN_UNIT = 1000;
const MARGIN_MAX = 32766;
const MARGIN_MISSING = -32768;

async function inflate(base64) {
  const text = atob(base64);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// float32 values whose bytes were stored plane by plane.
function joinPlanes(planes) {
  const n = planes.length / 4;
  const bytes = new Uint8Array(4 * n);
  for (let i = 0; i < n; i++) {
    for (let plane = 0; plane < 4; plane++) bytes[4 * i + plane] = planes[plane * n + i];
  }
  return new Float32Array(bytes.buffer);
}

async function readTrace(packed, name) {
  const [ids, planes, margin] = await Promise.all([
    inflate(packed.experts),
    packed.weights === null ? null : inflate(packed.weights),
    packed.margin === null ? null : inflate(packed.margin),
  ]);
  return {
    name,
    model: packed.model,
    dtype: packed.dtype,
    checkpoint: packed.checkpoint,
    recorder: packed.recorder,
    experts: packed.id_bytes === 1 ? ids : new Uint16Array(ids.buffer), // [T, L, X], highest weight first
    hasWeights: planes !== null,
    weights: planes ? joinPlanes(planes) : new Float32Array(ids.length / packed.id_bytes).fill(NaN), // [T, L, X]
    margin: margin && new Int16Array(margin.buffer), // [T, L] thousandths, or null
  };
}

const bitsToFlags = (bits, length) => Uint8Array.from({ length }, (_, t) => (bits[t] === "1" ? 1 : 0));
const named = (coded, length) => (coded ? coded.index.map((i) => coded.names[i]) : new Array(length).fill(""));

// A message is what the reader of a transcript would call one: from <|start|> to the next <|start|>, or, without
// control tokens, a run of tokens of one role and channel on one side of the prompt's end.
function splitMessages(data) {
  const starts = data.special.some((flag, t) => flag && data.text[t] === "<|start|>");
  const messages = [];
  for (let t = 0; t < data.T; t++) {
    const fresh = starts
      ? data.special[t] && data.text[t] === "<|start|>"
      : t > 0 &&
        (data.roles[t] !== data.roles[t - 1] ||
          data.channels[t] !== data.channels[t - 1] ||
          data.generated[t] !== data.generated[t - 1]);
    if (t === 0 || fresh) messages.push({ from: t, to: t });
    messages[messages.length - 1].to = t + 1;
  }
  for (const message of messages) {
    message.role = mostCommon(data.roles.slice(message.from, message.to));
    message.channel = mostCommon(data.channels.slice(message.from, message.to));
  }
  return messages;
}

function mostCommon(values) {
  const tally = new Map();
  for (const value of values) if (value) tally.set(value, (tally.get(value) || 0) + 1);
  return [...tally].sort((a, b) => b[1] - a[1])[0]?.[0] ?? "";
}

async function readData(json) {
  const raw = JSON.parse(json);
  if (raw.format !== PAGE_FORMAT || raw.version !== PAGE_VERSION) {
    throw new Error(
      `the data in this page is “${raw.format}” version ${raw.version}; its code reads “${PAGE_FORMAT}” ` +
        `version ${PAGE_VERSION}. Write the page again with the gptoss-jax that recorded the trace.`,
    );
  }
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser cannot inflate data (DecompressionStream); use one from 2023 or later.");
  }
  const T = raw.shape.tokens;
  const data = {
    title: raw.title,
    T,
    L: raw.shape.layers,
    X: raw.shape.chosen,
    E: raw.shape.experts,
    ids: raw.ids,
    text: raw.text.length ? raw.text : raw.ids.map((id) => "#" + id),
    hasText: raw.text.length > 0,
    roles: named(raw.roles, T),
    channels: named(raw.channels, T),
    generated: bitsToFlags(raw.generated, T),
    special: bitsToFlags(raw.special, T),
    traces: await Promise.all(raw.traces.map((trace, i) => readTrace(trace, "AB"[i]))),
  };
  data.messages = splitMessages(data);
  return data;
}
