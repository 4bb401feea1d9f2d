// A grid of magnitudes on a canvas, for the mouse and for the keyboard.
// Cells are drawn as one small picture, a pixel each, and scaled up: 36 x 2,048 cells take a few milliseconds.

const AXIS = { left: 34, top: 4, bottom: 20, right: 10 };

class Heatmap {
  // onPick(row, column): a click or Enter. onPoint(row, column, how): the mouse or a key moved there; (null) left.
  constructor(host, { onPick, onPoint }) {
    this.host = host;
    this.canvas = el("canvas", { "aria-hidden": "true" });
    host.append(this.canvas);
    this.cursor = null;
    this.onPick = onPick;
    this.onPoint = onPoint;
    this.canvas.addEventListener("pointermove", (event) => this.pointed(event));
    this.canvas.addEventListener("pointerleave", () => onPoint(null));
    this.canvas.addEventListener("click", (event) => {
      const cell = this.cellAt(event);
      if (!cell) return;
      this.cursor = cell;
      onPick(cell.row, cell.column);
    });
    host.addEventListener("keydown", (event) => this.key(event));
    host.addEventListener("focus", () => this.draw());
    host.addEventListener("blur", () => this.draw());
    new ResizeObserver(() => this.spec && this.draw()).observe(host);
  }

  // spec: {rows, columns, values (Float64Array, NaN is blank), domain, rows' and columns' tick steps,
  //        cell: (width) => [w, h], marks: [{row, column, kind}], column: x of a vertical line or null}
  show(spec) {
    this.spec = spec;
    const inside = this.cursor && this.cursor.row < spec.rows && this.cursor.column < spec.columns;
    if (!inside) this.cursor = null;
    const picture = document.createElement("canvas");
    picture.width = Math.max(spec.columns, 1);
    picture.height = Math.max(spec.rows, 1);
    const context = picture.getContext("2d");
    const image = context.createImageData(picture.width, picture.height);
    for (let i = 0; i < spec.rows * spec.columns; i++) {
      if (Number.isNaN(spec.values[i])) continue; // stays transparent
      const rgb = cividis(shareIn(spec.domain, spec.values[i]));
      image.data.set([rgb[0], rgb[1], rgb[2], 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    this.picture = picture;
    this.draw();
  }

  moveTo(row, column) {
    this.cursor = { row, column };
  }

  size() {
    const [w, h] = this.spec.cell(this.host.clientWidth - AXIS.left - AXIS.right);
    return {
      w,
      h,
      width: AXIS.left + w * this.spec.columns + AXIS.right,
      height: AXIS.top + h * this.spec.rows + AXIS.bottom,
    };
  }

  draw() {
    const { width, height } = this.size();
    const scale = Math.min(window.devicePixelRatio || 1, 16000 / width); // browsers stop at about 16,000 pixels
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.width = width + "px";
    this.canvas.style.height = height + "px";
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    this.paint(context);
    if (this.cursor && document.activeElement === this.host)
      this.ring(context, this.cursor, themeColor("ink"), 2, 2);
  }

  // Also used for the exported picture.
  paint(context) {
    const { spec } = this;
    const { w, h } = this.size();
    const bottom = AXIS.top + h * spec.rows;
    context.imageSmoothingEnabled = false;
    context.fillStyle = themeColor("cell");
    context.fillRect(AXIS.left, AXIS.top, w * spec.columns, h * spec.rows);
    if (spec.columns && spec.rows)
      context.drawImage(this.picture, AXIS.left, AXIS.top, w * spec.columns, h * spec.rows);
    context.fillStyle = themeColor("panel");
    if (w >= 5)
      for (let c = 1; c < spec.columns; c++)
        context.fillRect(AXIS.left + c * w - 0.5, AXIS.top, w > 12 ? 1 : 0.5, bottom - AXIS.top);
    if (h >= 5)
      for (let r = 1; r < spec.rows; r++)
        context.fillRect(AXIS.left, AXIS.top + r * h - 0.5, w * spec.columns, h > 10 ? 1 : 0.5);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.fillStyle = themeColor("muted");
    context.textAlign = "right";
    const rowStep = [1, 2, 4, 6, 12].find((step) => step * h >= 12) || 12;
    for (let r = 0; r < spec.rows; r += rowStep) context.fillText(r, AXIS.left - 6, AXIS.top + (r + 0.5) * h);
    context.textAlign = "center";
    const columnStep = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512].find((step) => step * w >= 26) || 1024;
    for (let c = 0; c < spec.columns; c += columnStep) context.fillText(c, AXIS.left + (c + 0.5) * w, bottom + 10);
    for (const mark of spec.marks)
      this.ring(
        context,
        mark,
        themeColor(mark.kind === "picked" ? "accent" : "ink"),
        mark.kind === "picked" ? 2.5 : 1.5,
        mark.kind === "picked" ? 2.5 : 0.5,
      );
    if (spec.column != null) {
      context.strokeStyle = themeColor("accent");
      context.lineWidth = 1.5;
      context.strokeRect(AXIS.left + spec.column * w - 1, AXIS.top - 1, w + 2, bottom - AXIS.top + 2);
    }
  }

  // A frame in two tones, so that it stands out on every color of the ramp.
  ring(context, { row, column }, color, thickness, grow) {
    const { w, h } = this.size();
    const box = [AXIS.left + column * w - grow, AXIS.top + row * h - grow, w + 2 * grow, h + 2 * grow];
    context.lineWidth = thickness + 2;
    context.strokeStyle = themeColor("panel");
    context.strokeRect(...box);
    context.lineWidth = thickness;
    context.strokeStyle = color;
    context.strokeRect(...box);
  }

  cellAt(event) {
    const { w, h } = this.size();
    const column = Math.floor((event.offsetX - AXIS.left) / w);
    const row = Math.floor((event.offsetY - AXIS.top) / h);
    const inside = row >= 0 && row < this.spec.rows && column >= 0 && column < this.spec.columns;
    return inside ? { row, column } : null;
  }

  pointed(event) {
    const cell = this.cellAt(event);
    this.canvas.style.cursor = cell ? "crosshair" : "default";
    if (cell) this.onPoint(cell.row, cell.column, "mouse");
    else this.onPoint(null);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.spec.rows || !this.spec.columns) return;
    const { row, column } = this.cursor || { row: 0, column: 0 };
    const last = { row: this.spec.rows - 1, column: this.spec.columns - 1 };
    const moves = {
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      Home: [row, 0],
      End: [row, last.column],
      PageUp: [0, column],
      PageDown: [last.row, column],
    };
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.onPick(row, column);
      return;
    }
    if (!moves[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    const [r, c] = this.cursor ? moves[event.key] : [row, column];
    this.cursor = { row: Math.min(Math.max(r, 0), last.row), column: Math.min(Math.max(c, 0), last.column) };
    this.draw();
    this.reveal();
    this.onPoint(this.cursor.row, this.cursor.column, "key");
  }

  // Scrolls the cell into the host's view.
  reveal(cell = this.cursor) {
    const { w } = this.size();
    const x = AXIS.left + cell.column * w;
    if (x < this.host.scrollLeft + AXIS.left) this.host.scrollLeft = x - AXIS.left - 2 * w;
    else if (x + w > this.host.scrollLeft + this.host.clientWidth)
      this.host.scrollLeft = x + 3 * w - this.host.clientWidth;
  }
}
