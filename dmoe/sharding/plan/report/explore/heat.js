// Canvases: the heat-map of tables by ranks, and bars of each rank's memory and time above one another, on the same axis.
const STOPS = [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]]; // viridis from light to dark
const COLOURS = ["#7f8790", "#4c8dd6", "#e0812f", "#3fa66b", "#c9534f"];
const gutter = () => (innerWidth < 640 ? 84 : 150);
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// 256 colours as the numbers of an image's pixels: opaque, blue, green, red.
const PALETTE = Uint32Array.from({ length: 256 }, (_, step) => {
  const at = (step / 255) * (STOPS.length - 1), low = Math.min(Math.floor(at), STOPS.length - 2);
  const [red, green, blue] = STOPS[low].map((value, index) => Math.round(value + (STOPS[low + 1][index] - value) * (at - low)));
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
});

function sized(canvas, height) {
  const ratio = devicePixelRatio || 1, width = canvas.parentElement.clientWidth;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.height = height + "px";
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = ink("--ink");
  return { pen, width, span: Math.max(width - gutter() - 8, 1) };
}

function clipped(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  const letters = [...text];
  while (letters.length > 1 && pen.measureText(letters.join("") + "…").width > width) letters.pop();
  return letters.join("") + "…";
}

// Numbers of ranks under a drawing, and the critical rank's dashed line over it.
function axis(pen, plan, span, top, bottom) {
  const step = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048].find((one) => (span / plan.ranks) * one >= 34) ?? 4096;
  pen.fillStyle = ink("--faint");
  pen.textAlign = "center";
  for (let rank = 0; rank < plan.ranks; rank += step) pen.fillText(rank, gutter() + ((rank + 0.5) * span) / plan.ranks, bottom + 12);
  const x = gutter() + ((plan.critical + 0.5) * span) / plan.ranks;
  pen.strokeStyle = ink("--ink");
  pen.setLineDash([3, 3]);
  pen.beginPath();
  pen.moveTo(x, top);
  pen.lineTo(x, bottom);
  pen.stroke();
  pen.setLineDash([]);
}

// The least and most of what a metric has in any plan, so that two heat-maps have one scale.
function range(metric) {
  let low = Infinity, high = 0;
  for (const plan of PLANS)
    for (const classes of plan.tables.cells)
      for (const one of classes) if (one[AT[metric]] > 0) (low = Math.min(low, one[AT[metric]])), (high = Math.max(high, one[AT[metric]]));
  return high ? (low < high ? [low, high] : [0, high]) : [0, 1];
}

class Heat {
  constructor(number, figure) {
    [this.number, this.plan, this.entries, this.cursor] = [number, PLANS[number], [], null];
    this.canvas = el("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "heat-map" });
    this.canvas.setAttribute("aria-label", `Tables by ranks${this.plan.label ? " of " + this.plan.label : ""}. Arrow keys move, Enter opens the table, R the rank.`);
    this.box = el("div", { className: "cursor" });
    this.said = el("output", {}, "Hover a cell, or focus the map and use the arrow keys; click opens its table, Shift and click its rank.");
    this.key = el("span", { className: "key" });
    this.size = el("span", { className: "faint" });
    figure.append(el("figcaption", {}, this.key, this.size), this.said, el("div", { className: "map" }, this.canvas, this.box));
    this.canvas.addEventListener("mousemove", (event) => this.point(this.under(event), false));
    this.canvas.addEventListener("mouseleave", () => (this.box.style.display = "none"));
    this.canvas.addEventListener("click", (event) => this.open(this.under(event), event.shiftKey));
    this.canvas.addEventListener("keydown", (event) => this.key_(event));
  }

  draw(entries, metric) {
    this.entries = entries.filter((entry) => entry.at[this.number] >= 0);
    [this.metric, this.box.style.display] = [metric, "none"];
    const count = this.entries.length;
    this.height = count <= 40 ? 14 : Math.max(Math.floor(480 / count), count > 8000 ? 1 : 2);
    const { pen, span } = sized(this.canvas, this.height * Math.max(count, 1) + 18);
    this.span = span;
    const [low, high] = range(metric), { log } = METRICS[metric];
    const share = (value) => (log ? (low > 0 ? Math.log(value / low) / Math.log(high / low) : 1) : value / high);
    const bins = Math.min(this.plan.ranks, Math.floor(span)), image = new ImageData(bins, Math.max(count, 1));
    const pixels = new Uint32Array(image.data.buffer);
    this.entries.forEach((entry, y) => {
      const row = rowOf(this.plan, entry.at[this.number], metric), most = new Float64Array(bins);
      // Where there are more ranks than pixels, a pixel shows the most of its ranks.
      for (let rank = 0; rank < row.length; rank++) {
        const x = Math.floor((rank * bins) / row.length);
        if (row[rank] > most[x]) most[x] = row[rank];
      }
      for (let x = 0; x < bins; x++) if (most[x] > 0) pixels[y * bins + x] = PALETTE[Math.round(255 * Math.min(Math.max(share(most[x]), 0), 1))];
    });
    const small = el("canvas", { width: bins, height: Math.max(count, 1) });
    small.getContext("2d").putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, gutter(), 0, span, this.height * count);
    pen.textAlign = "right";
    // Of low rows not each has room for its name.
    const apart = Math.ceil(13 / this.height);
    this.entries.forEach((entry, y) => y % apart || pen.fillText(clipped(pen, entry.name, gutter() - 10), gutter() - 6, y * this.height + 11));
    axis(pen, this.plan, span, 0, this.height * Math.max(count, 1));
    const scale = el("i", { className: "scale" });
    scale.style.background = `linear-gradient(to right, ${STOPS.map((stop) => `rgb(${stop})`).join(",")})`;
    const word = METRICS[metric].word, title = METRICS[metric].title;
    this.key.replaceChildren(`${this.plan.label ? this.plan.label + ": " : ""}${title}, ${word(log ? low : 0)}`, scale, word(high));
    this.size.textContent = `${whole(count)} tables by ${whole(this.plan.ranks)} ranks, dashed: critical rank ${this.plan.critical}`;
  }

  // [row, rank] under the mouse, or null.
  under(event) {
    const place = this.canvas.getBoundingClientRect(), y = Math.floor((event.clientY - place.top) / this.height);
    const rank = Math.floor(((event.clientX - place.left - gutter()) * this.plan.ranks) / this.span);
    return y >= 0 && y < this.entries.length && rank >= 0 && rank < this.plan.ranks ? [y, rank] : null;
  }

  point(at, aloud) {
    if (!at) return void (this.box.style.display = "none");
    const [y, rank] = (this.cursor = at), entry = this.entries[y], table = entry.at[this.number];
    const cell = cellOf(this.plan, table, rank), of = this.plan.tables;
    this.said.setAttribute("aria-live", aloud ? "polite" : "off");
    this.said.textContent =
      `${entry.name} on rank ${rank}: ${ms(cell[AT.time])}, ${bytes(cell[AT.memory])} of memory (${bytes(cell[AT.weights])} of weights), ` +
      `${bytes(cell[AT.sent])} sent a step. ${whole(of.rows[table])} x ${of.columns[table]}, ${this.plan.words[of.sharding[table]]}.`;
    const width = Math.max(this.span / this.plan.ranks, 3);
    Object.assign(this.box.style, { display: "block", left: `${gutter() + (rank * this.span) / this.plan.ranks}px`, top: `${y * this.height}px` });
    Object.assign(this.box.style, { width: `${width}px`, height: `${Math.max(this.height, 3)}px` });
    if (aloud) this.box.scrollIntoView({ block: "nearest" });
  }

  open(at, rank) {
    if (at) rank ? openRank(at[1], this.canvas) : openTable(this.entries[at[0]].name, this.canvas);
  }

  key_(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-20, 0], PageDown: [20, 0] };
    if (event.key === "Enter") this.open(this.cursor ?? (this.entries.length ? [0, 0] : null), event.shiftKey);
    else if (event.key.toLowerCase() === "r" && !event.ctrlKey && !event.metaKey) this.open(this.cursor, true);
    else if (moves[event.key] && this.entries.length) {
      const [y, rank] = this.cursor ?? [0, -moves[event.key][1]], [down, right] = moves[event.key];
      const into = (value, count) => Math.min(Math.max(value, 0), count - 1);
      this.point([into(y + (this.cursor ? down : 0), this.entries.length), into(rank + right, this.plan.ranks)], true);
    } else return;
    event.preventDefault();
  }
}

// Bars of every rank's memory or time, stacked; click opens a rank.
function bars(number, figure, title, parts, word, limits) {
  const plan = PLANS[number], canvas = el("canvas", { role: "img" }), most = Math.max(...(limits ?? [0]));
  const sums = Array.from({ length: plan.ranks }, (_, rank) => parts.reduce((sum, [, values]) => sum + values[rank], 0));
  const top = Math.max(most, sums.reduce((a, b) => Math.max(a, b), 0)) || 1;
  const name = `${plan.label ? plan.label + ": " : ""}${title}`;
  canvas.setAttribute("aria-label", `${name} of every rank, at most ${word(sums.reduce((a, b) => Math.max(a, b), 0))}; the list of ranks has the figures.`);
  const keys = parts.map(([part], index) => el("span", { className: "key" }, Object.assign(el("i"), { style: `background:${COLOURS[index + (limits ? 0 : 1)]}` }), part));
  const said = el("span", { className: "faint" });
  figure.append(el("figcaption", {}, name, ...keys, said), el("div", {}, canvas));
  const rankAt = (event) => Math.floor(((event.offsetX - gutter()) * plan.ranks) / (canvas.clientWidth - gutter() - 8));
  canvas.addEventListener("mousemove", (event) => {
    const rank = rankAt(event);
    said.textContent = rank >= 0 && rank < plan.ranks ? `rank ${rank}: ${parts.map(([part, values]) => `${part} ${word(values[rank])}`).join(", ")}` : "";
  });
  canvas.addEventListener("click", (event) => rankAt(event) >= 0 && rankAt(event) < plan.ranks && openRank(rankAt(event), canvas));
  return () => {
    const high = 110, { pen, span } = sized(canvas, high + 18), wide = span / plan.ranks;
    for (let rank = 0; rank < plan.ranks; rank++) {
      let base = high;
      parts.forEach(([, values], index) => {
        const tall = (values[rank] / top) * (high - 8);
        pen.fillStyle = COLOURS[index + (limits ? 0 : 1)];
        // Whole pixels: half ones would make stripes.
        const from = Math.floor(gutter() + rank * wide), to = Math.max(Math.floor(gutter() + (rank + 1) * wide) - (wide > 6 ? 1 : 0), from + 1);
        pen.fillRect(from, (base -= tall), to - from, tall);
      });
      pen.fillStyle = ink("--ink");
      if (limits) pen.fillRect(gutter() + rank * wide, high - (limits[rank] / top) * (high - 8), Math.max(wide, 1), 1.5);
    }
    pen.textAlign = "right";
    pen.fillText(word(top), gutter() - 6, 14);
    pen.fillText("0", gutter() - 6, high);
    axis(pen, plan, span, 0, high);
  };
}
