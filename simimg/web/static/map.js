// A map of the collection: a point for each image, near similar images; thumbnails are shown where there is room.

import * as api from "./api.js";
import { ClassChoice } from "./class_choice.js";
import { button, count, el, say, toast } from "./dom.js";
import { Filters, imageColumns, saveTable } from "./filters.js";
import { keys } from "./keys.js";
import { openPhoto } from "./photo.js";

const LOADING = 8, KEPT = 1500, TILE_PX = 96;
const AROUND = [-1, 0, 1].flatMap((dx) => [-1, 0, 1].map((dy) => [dx, dy])); // a cell and its neighbors

export class MapView {
  constructor(collection, store) {
    Object.assign(this, { collection, store });
    this.canvas = el("canvas", { tabindex: "0", role: "application", "aria-roledescription": "map",
      "aria-label": `Map of ${count(collection.size, "image")}. Arrow keys move the map, plus and minus zoom, Enter finds matches of the image in the center, F shows it at full size, Space selects it.` });
    this.selected = new Set(); // of rows
    this.outline = null;       // points of a lasso that is being drawn
    this.lasso = el("button", { type: "button", class: "button", "aria-pressed": false, onclick: () => this.#setLasso(!this.isLasso) }, "Lasso", el("kbd", {}, "L"));
    this.filters = new Filters(collection, { changed: () => { this.#passing(); this.#later(); } });
    this.filterBox = el("details", { class: "map-filters" }, el("summary", {}, "Filters"), this.filters.node);
    this.choice = new ClassChoice(collection, (name) => this.#decide("relabel", name));
    this.chosen = el("div", { class: "chosen", role: "group", "aria-label": "Selection", hidden: true });
    store.addEventListener("change", () => this.#drawChosen());
    this.tip = el("div", { class: "tip", hidden: true });
    this.status = el("div", { class: "laying" }, el("p", {}, "Computing the map…"), el("progress", { max: "1" }));
    this.legend = el("div", { class: "legend", role: "group", "aria-label": "Classes" });
    const zoom = (text, name, run) => el("button", { type: "button", class: "icon", "aria-label": name, onclick: run }, text);
    this.pictures = el("input", { type: "checkbox", checked: true, onchange: () => this.#later() });
    this.tools = el("div", { class: "map-tools" },
      this.lasso, el("label", { class: "check" }, this.pictures, "Images"),
      zoom("+", "Zoom in", () => this.#zoomBy(1.6)), zoom("−", "Zoom out", () => this.#zoomBy(1 / 1.6)),
      zoom("⤢", "Whole map", () => this.#fit()));
    this.node = el("div", { class: "view map" }, this.canvas, this.legend, this.filterBox, this.tools, this.chosen, this.tip, this.status);
    this.images = new Map();  // row -> ImageBitmap, or null while it loads
    this.wanted = [];
    this.loading = 0;
    this.scale = 1;           // width of the map in windows
    this.center = [0.5, 0.5];
    this.only = -1;
    this.pointers = new Map();
    this.#listen();
    this.#register();
  }

  async show() {
    document.title = `Map · ${this.collection.name} · simimg`;
    scrollTo(0, 0);
    this.shown = true;
    this.#resize();
    await this.store.watch(() => this.node.isConnected);
    if (!this.audit || this.audit !== this.store.audit) { // while there is none, it is asked again
      const { agreement, version } = await api.json("api/findings");
      this.filters.judged(agreement ?? null);
      this.audit = version;
    }
    if (!this.x) await this.#load();
  }

  hide() { this.shown = false; clearTimeout(this.timer); }

  async #load() {
    const values = await api.json("api/map");
    if (values.state === "failed") { toast(values.error); return; }
    if (!values.x) {
      const bar = this.status.lastChild;
      bar.max = values.total || 1;
      bar.value = values.done;
      this.timer = setTimeout(() => this.#load().catch((error) => toast(error.message)), 300);
      return;
    }
    this.x = Float32Array.from(values.x);
    this.y = Float32Array.from(values.y);
    this.status.hidden = true;
    // Thumbnails are placed in a pseudorandom order, not by folder.
    this.order = Array.from(this.x.keys()).sort((a, b) => ((a * 2654435761) >>> 0) - ((b * 2654435761) >>> 0));
    this.#color();
    this.#drawLegend();
    this.#later();
    say("The map is ready");
  }

  #color() {
    const dark = getComputedStyle(this.node).colorScheme.includes("dark") && !document.documentElement.dataset.theme
      ? matchMedia("(prefers-color-scheme: dark)").matches : document.documentElement.dataset.theme === "dark";
    const { labels } = this.collection, named = labels.filter((label) => label !== "").length;
    this.colors = labels.map((label, place) => (label === "" || named < 2 ? (dark ? "#9d9da4" : "#66666b")
      : `oklch(${dark ? 0.74 : 0.58} ${place % 2 ? 0.17 : 0.13} ${(place * 137.508 + 250) % 360})`));
    const style = getComputedStyle(document.body);
    this.paper = style.backgroundColor;
    this.ink = style.color;
  }

  #drawLegend() {
    const { labels } = this.collection;
    if (labels.filter((label) => label !== "").length < 2) return;
    this.legend.replaceChildren(...labels.map((label, place) => {
      const dot = el("i", {});
      dot.style.background = this.colors[place];
      return el("button", { type: "button", "aria-pressed": this.only === place, onclick: () => {
        this.only = this.only === place ? -1 : place;
        this.#drawLegend();
        this.#later();
      } }, dot, el("span", {}, label || "no class"));
    }));
  }

  #register() {
    const onButton = (event) => ["BUTTON", "A"].includes(event.target.tagName);
    const pan = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    keys("Map", () => this.node.isConnected, [
      [Object.keys(pan), "Move the map", (event) => this.#pan(...pan[event.key].map((step) => -step * 80), true)],
      [["+", "="], "Zoom in", () => this.#zoomBy(1.6)],
      [["-"], "Zoom out", () => this.#zoomBy(1 / 1.6)],
      [["0"], "Whole map", () => this.#fit()],
      [["l"], "Lasso: draw around images to select them", () => this.#setLasso(!this.isLasso)],
      [[" "], "Select the image in the center, or not", (event) => {
        if (onButton(event)) return false;
        const row = this.#centered;
        if (row >= 0) this.#select(this.selected.has(row) ? [...this.selected].filter((one) => one !== row) : [...this.selected, row]);
        return true;
      }],
      [["a"], "Select all images in sight that pass the filters", () => this.#select([...this.selected, ...this.#inside(() => true)])],
      [["x", "Delete"], "Remove the selected images", () => this.#decide("drop")],
      [["e"], "Give the selected images a class", () => { if (!this.selected.size) return false; this.choice.focus(); return true; }],
      [["s"], "Save the selected images as CSV", () => this.#save("csv")],
      [["u"], "Undo a decision", () => { this.#undo(); }],
      [["Escape"], "Select none", () => { this.#setLasso(false); this.#select([]); }],
      [["h"], "Hide or show the images", () => { this.pictures.checked = !this.pictures.checked; this.#later(); }],
      [["f"], "Full size of the image in the center", () => this.#full()],
      [["m", "Enter"], "Find matches of the image in the center", (event) => {
        if (event.key === "Enter" && onButton(event)) return false;
        this.#open(this.#centered);
        return true;
      }],
    ]);
  }

  #listen() {
    new ResizeObserver(() => this.#resize()).observe(this.node);
    document.addEventListener("themechange", () => { if (this.x) { this.#color(); this.#drawLegend(); this.#later(); } });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("themechange")));
    const { canvas, pointers } = this;
    const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.03 : 0.0016) * (event.ctrlKey ? 5 : 1)), ...at(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      try { canvas.setPointerCapture(event.pointerId); } catch { /* the pointer is gone already */ }
      pointers.set(event.pointerId, at(event));
      this.moved = 0;
      this.outline = this.isLasso && pointers.size === 1 ? [at(event)] : null;
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = at(event), before = pointers.get(event.pointerId);
      if (!before) { this.#hover(...now); return; }
      const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      if (others.length) {
        this.outline = null;
        const [other] = others, length = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
        this.#zoomBy(length(now, other) / length(before, other), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
        this.moved = 99;
      } else {
        this.moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
        if (this.outline) { this.outline.push(now); this.#later(); }
        else if (this.moved > 4) this.#pan(now[0] - before[0], now[1] - before[1]);
      }
      pointers.set(event.pointerId, now);
    });
    const up = (event) => {
      const was = pointers.delete(event.pointerId), { outline } = this;
      this.outline = null;
      if (was && outline?.length > 2 && event.type === "pointerup") {
        const rows = this.#inside((x, y) => isWithin(x, y, outline));
        this.#select(event.shiftKey ? [...this.selected, ...rows] : rows);
      } else if (was && event.type === "pointerup" && this.moved <= 4) this.#open(this.#nearest(...at(event), 30));
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
  }

  #resize() {
    if (!this.shown) return;
    const { clientWidth, clientHeight } = this.node;
    this.width = clientWidth;
    this.height = clientHeight;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.#draw();
  }

  get #size() { return this.scale * Math.min(this.width, this.height); }

  #place(row) {
    const size = this.#size;
    return [(this.x[row] - this.center[0]) * size + this.width / 2, (this.y[row] - this.center[1]) * size + this.height / 2];
  }

  #pan(dx, dy, announce = false) {
    this.center = [this.center[0] - dx / this.#size, this.center[1] - dy / this.#size].map((value) => Math.min(1, Math.max(0, value)));
    this.tip.hidden = true;
    this.#later();
    if (announce && this.x) {
      const row = this.#centered;
      if (row >= 0) say(`${this.collection.path[row]} is in the center`);
    }
  }

  #zoomBy(factor, x = this.width / 2, y = this.height / 2) {
    const before = this.#size;
    this.scale = Math.min(60, Math.max(0.8, this.scale * factor));
    const after = this.#size, dx = x - this.width / 2, dy = y - this.height / 2;
    this.center = [this.center[0] + dx / before - dx / after, this.center[1] + dy / before - dy / after];
    this.tip.hidden = true;
    this.#later();
  }

  #fit() { this.scale = 1; this.center = [0.5, 0.5]; this.#later(); }

  #nearest(x, y, within) {
    if (!this.x) return -1;
    let best = -1, least = within * within;
    for (let row = 0; row < this.x.length; row++) {
      if (!this.#passes(row)) continue;
      const [px, py] = this.#place(row), far = (px - x) ** 2 + (py - y) ** 2;
      if (far < least) [best, least] = [row, far];
    }
    return best;
  }

  get #centered() { return this.#nearest(this.width / 2, this.height / 2, Infinity); }

  focusFilter() { this.filters.focus(); }

  #full() {
    const row = this.#centered;
    if (row >= 0) openPhoto({ photo: () => this.collection.photo(row), closed: () => this.canvas.focus() });
  }

  #open(row) { if (row >= 0) location.hash = `#/row/${row}`; }

  #hover(x, y) {
    const row = this.#nearest(x, y, 26);
    this.canvas.style.cursor = this.isLasso ? "" : row >= 0 ? "pointer" : "grab";
    if (row < 0) { this.tip.hidden = true; this.tip.dataset.row = ""; return; }
    if (this.tip.dataset.row !== String(row)) {
      this.tip.dataset.row = row;
      this.tip.replaceChildren(el("img", { src: this.collection.thumbnail(row), alt: "" }),
        el("p", {}, this.collection.fileName(row)), el("p", { class: "quiet" }, this.collection.labelOf(row)));
    }
    const [px, py] = this.#place(row);
    this.tip.hidden = false;
    this.tip.style.transform = `translate(${Math.min(px + 16, this.width - 200)}px, ${Math.min(Math.max(8, py - 60), this.height - 240)}px)`;
  }

  #later() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.#draw(); });
  }

  #draw() {
    if (!this.x || !this.width || !this.shown) return;
    const context = this.canvas.getContext("2d"), ratio = devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const { label } = this.collection, radius = Math.min(5, 1.9 + Math.log2(Math.max(1, this.scale)) * 0.6);
    const visible = [];
    for (const row of this.order) {
      const [x, y] = this.#place(row);
      if (x < -60 || y < -60 || x > this.width + 60 || y > this.height + 60) continue;
      visible.push([row, x, y]);
    }
    for (const [row, x, y] of visible) {
      const faint = !this.#passes(row);
      context.globalAlpha = faint ? 0.12 : 0.85;
      context.fillStyle = this.colors[label[row]];
      context.beginPath();
      context.arc(x, y, radius, 0, 6.2832);
      context.fill();
    }
    context.globalAlpha = 1;
    this.#drawSelection(context, visible, radius);
    if (this.pictures.checked) this.#drawPictures(context, visible);
    this.#drawOutline(context);
  }

  #drawSelection(context, visible, radius) {
    for (const [row, x, y] of visible) {
      if (!this.selected.has(row)) continue;
      context.beginPath();
      context.arc(x, y, radius + 2, 0, 6.2832);
      context.fillStyle = "#f0b440";
      context.strokeStyle = "#1b1b1e";
      context.lineWidth = 1;
      context.fill();
      context.stroke();
    }
  }

  #drawOutline(context) {
    if (!this.outline) return;
    context.beginPath();
    for (const [x, y] of this.outline) context.lineTo(x, y);
    context.closePath();
    context.fillStyle = "#f0b44026";
    context.strokeStyle = this.ink;
    context.lineWidth = 1.5;
    context.fill();
    context.setLineDash([6, 4]);
    context.stroke();
    context.setLineDash([]);
  }

  #passes(row) {
    return (this.only < 0 || this.collection.label[row] === this.only) && (!this.passing || this.passing[row] === 1);
  }

  #passing() {
    const { filters, collection } = this;
    this.passing = filters.active ? Uint8Array.from({ length: collection.size }, (_, row) => (filters.passes(row) ? 1 : 0)) : null;
    const number = this.passing ? this.passing.reduce((sum, one) => sum + one, 0) : collection.size;
    this.filterBox.firstChild.textContent = filters.active ? `Filters: ${count(number, "image")}` : "Filters";
    say(count(number, "image"));
  }

  // The rows in sight, which pass the filters, whose place is inside.
  #inside(isIn) {
    const found = [];
    if (!this.x) return found;
    for (let row = 0; row < this.x.length; row++) {
      if (!this.#passes(row)) continue;
      const [x, y] = this.#place(row);
      if (x >= 0 && y >= 0 && x <= this.width && y <= this.height && isIn(x, y)) found.push(row);
    }
    return found;
  }

  #setLasso(on) {
    this.isLasso = on;
    this.lasso.setAttribute("aria-pressed", on);
    this.canvas.classList.toggle("lasso", on);
    this.canvas.style.cursor = "";
  }

  #select(rows) {
    this.selected = new Set(rows);
    this.#drawChosen();
    this.#later();
    say(this.selected.size ? `${count(this.selected.size, "image")} selected` : "none selected");
  }

  #drawChosen() {
    const { selected, store } = this, known = [...selected].filter((row) => store.images[row]).length;
    this.chosen.hidden = !selected.size;
    if (this.chosen.contains(this.choice.node) && this.chosen.contains(document.activeElement) && selected.size) {
      this.chosen.firstChild.textContent = chosenText(selected.size, known); // the focus stays where it is
      return;
    }
    this.chosen.replaceChildren(el("span", { class: "number" }, chosenText(selected.size, known)),
      button("Remove", "X", () => this.#decide("drop")), this.choice.node,
      button("Undo", "U", () => this.#undo()), button("Save CSV", "S", () => this.#save("csv")), button("JSON", "", () => this.#save("json")),
      button("None", "Esc", () => this.#select([])));
  }

  async #decide(decision, label = "") {
    if (!this.selected.size) return;
    try {
      if (!await this.store.decide([...this.selected].map((row) => ({ row, decision, label })))) return;
      toast(`${count(this.selected.size, "image")}: ${decision === "drop" ? "to be removed" : `new label ${label}`}. U undoes it.`);
    } catch (error) { toast(error.message); }
    this.canvas.focus();
  }

  async #undo() {
    try {
      if (await this.store.undo()) toast("Undone.");
    } catch (error) { toast(error.message); }
  }

  #save(format) {
    const rows = [...this.selected].sort((one, other) => one - other);
    if (!rows.length) return;
    saveTable("selection", format, rows.map((row) => imageColumns(this.collection, row)));
    say(`${count(rows.length, "row")} saved`);
  }

  // Draws a thumbnail per cell of the window, larger when zoomed in.
  #drawPictures(context, visible) {
    // Few images are shown larger than many.
    const room = 0.95 * Math.min(this.width, this.height) / Math.sqrt(Math.max(1, this.x.length));
    const least = Math.min(64, Math.max(30, room));
    const side = Math.round(Math.min(TILE_PX, least + 22 * Math.log2(Math.max(1, this.scale)))), cell = side + 6;
    const placed = new Map(), missing = []; // "x,y" of a cell -> position of its thumbnail
    // Cells are fixed on the map, so that panning does not exchange the thumbnails.
    const left = this.width / 2 - this.center[0] * this.#size, top = this.height / 2 - this.center[1] * this.#size;
    for (const [row, x, y] of visible) {
      if (!this.#passes(row)) continue;
      const cx = Math.floor((x - left) / cell), cy = Math.floor((y - top) / cell);
      const covers = (other) => other && Math.abs(other[0] - x) < cell && Math.abs(other[1] - y) < cell;
      if (AROUND.some(([dx, dy]) => covers(placed.get(`${cx + dx},${cy + dy}`)))) continue;
      placed.set(`${cx},${cy}`, [x, y]);
      const image = this.images.get(row);
      if (!image) { if (image === undefined) missing.push(row); continue; }
      const fit = side / Math.max(image.width, image.height), w = image.width * fit, h = image.height * fit;
      const edge = this.selected.has(row) ? 3.5 : 1.5;
      context.fillStyle = this.selected.has(row) ? "#f0b440" : this.colors[this.collection.label[row]];
      context.fillRect(x - w / 2 - edge, y - h / 2 - edge, w + 2 * edge, h + 2 * edge);
      context.drawImage(image, x - w / 2, y - h / 2, w, h);
    }
    this.wanted = missing;
    this.#fetch();
  }

  #fetch() {
    while (this.loading < LOADING && this.wanted.length) {
      const row = this.wanted.shift();
      if (this.images.has(row)) continue;
      this.images.set(row, null);
      this.loading += 1;
      this.#image(row).then((image) => {
        this.images.set(row, image);
        if (this.images.size > KEPT) {
          const oldest = this.images.keys().next().value;
          this.images.get(oldest)?.close?.();
          this.images.delete(oldest);
        }
        this.#later();
      }, () => { /* missing: it stays a point */ }).finally(() => { this.loading -= 1; this.#fetch(); });
    }
  }

  async #image(row) {
    const response = await fetch(this.collection.thumbnail(row));
    if (!response.ok) throw new Error(String(response.status));
    const { width, height } = this.collection, longer = Math.max(width[row], height[row]);
    const side = TILE_PX * Math.min(2, devicePixelRatio || 1);
    return createImageBitmap(await response.blob(), {
      resizeWidth: Math.max(1, Math.round((width[row] / longer) * side)),
      resizeHeight: Math.max(1, Math.round((height[row] / longer) * side)), resizeQuality: "medium",
    });
  }
}

function chosenText(number, known) {
  return `${number.toLocaleString("en")} selected${known ? `, ${known.toLocaleString("en")} decided` : ""}`;
}

// Whether a point is inside a polygon, by the even-odd rule.
function isWithin(x, y, outline) {
  let inside = false;
  for (let here = 0, before = outline.length - 1; here < outline.length; before = here++) {
    const [ax, ay] = outline[here], [bx, by] = outline[before];
    if ((ay > y) !== (by > y) && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}
