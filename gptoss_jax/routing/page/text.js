// Text that came from a trace, made safe to look at. Nothing here or elsewhere turns text into markup:
// the page builds its elements with `el` and fills them with textContent only.

// A new element: el("td", {class: "n", title: "..."}, child, "text", ...). Properties, never HTML.
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

const byId = (id) => document.getElementById(id);

const CONTROL_NAMES = { "\n": "⏎", "\t": "⇥", "\r": "␍" };

// Characters that cannot be seen, or that reorder their neighbors, shown by name:
// controls, soft hyphen, zero-width and bidirectional marks, line and paragraph separators, lone surrogates.
const INVISIBLE = /[\p{Cc}\p{Cs}\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/gu;

function nameOf(character) {
  if (CONTROL_NAMES[character]) return CONTROL_NAMES[character];
  const code = character.charCodeAt(0);
  if (code < 32) return String.fromCharCode(0x2400 + code);
  if (code === 127) return "␡";
  return "⟨" + code.toString(16).toUpperCase().padStart(4, "0") + "⟩";
}

// On one line; the conversation obeys line feeds after showing them.
function visible(text) {
  const lonely = /^[\u200c\u200d\ufe00-\ufe0f]+$/; // joiners belong to scripts and emoji; alone they are invisible
  return text.replace(lonely.test(text) ? /./g : INVISIBLE, nameOf);
}

// Quoted, so that leading and trailing spaces can be seen.
function quoted(text) {
  return "“" + visible(text) + "”";
}

// Numbers: the same digits everywhere, a real minus sign nowhere (CSV and tests read them back).
const fixed = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
const count = (value) => value.toLocaleString("en-US");
const percent = (part, whole) => (whole ? ((100 * part) / whole).toFixed(1) + " %" : "–");
const plural = (value, noun) => count(value) + " " + noun + (value === 1 ? "" : "s");

// A name inside a sentence.
const inner = (name) => name[0].toLowerCase() + name.slice(1);

// RFC 4180 quoting.
function csvField(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

// Text in CSV travels as a JSON string: it comes back exactly, and as it begins with a quotation mark
// no spreadsheet takes it for a formula.
const csvText = (text) => csvField(JSON.stringify(text));
