// Findings of an audit: each with its reason and the images that show it, and what is decided about it.
//
// Decisions are stored at once and can be undone. They are about the selected findings, or else about the current one.
// What was decided stays in its place until the list is filtered anew, so that nothing moves under the cursor.

import * as api from "./api.js";
import { FindingPanel, kindName, verdict } from "./finding_panel.js";
import { button, count, el, pathText, say, toast } from "./dom.js";
import { Filters, imageColumns, saveTable } from "./filters.js";
import { Grid } from "./grid.js";
import { keyOf, keys } from "./keys.js";
import { openPhoto } from "./photo.js";
import { mount } from "./search.js";

const ORDERS = { score: "Surest first", name: "By name", date: "Newest first", size: "Most pixels first" };
const SHOWN = { open: "To decide", decided: "Decided", all: "All" };

export class AuditView {
  constructor(collection, store) {
    Object.assign(this, { collection, store });
    this.data = null;
    this.items = [];           // finding numbers that are listed, in their order
    this.at = -1;              // the current finding
    this.selected = new Set(); // of finding numbers
    this.kind = "";
    this.node = el("div", { class: "view audit" });
    store.addEventListener("change", () => { if (this.grid?.node.isConnected) this.#redraw(); });
    store.addEventListener("audit", () => { this.data = null; if (this.node.isConnected) this.show(); });
    this.#register();
  }

  async show() {
    document.title = `Audit · ${this.collection.name} · simimg`;
    scrollTo(0, 0);
    if (!this.data?.findings) await this.#load();
    else this.#list();
    this.store.watch(() => this.node.isConnected);
  }

  hide() { clearTimeout(this.timer); this.panel?.close(); }

  async #load() {
    const data = await api.json("api/findings"), { job } = data;
    this.data = data;
    if (job.state === "running") {
      this.#drawRunning();
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.#load().catch((error) => toast(error.message)), 400);
    } else if (!data.audited) {
      if (job.state === "failed") toast(job.error);
      this.#drawStart();
    } else {
      this.store.take(data.decisions);
      this.#build();
    }
  }

  async #start() {
    await api.send("api/findings", "POST", {});
    await this.#load();
  }

  #drawStart() {
    this.node.replaceChildren(el("section", { class: "start" },
      el("h1", {}, "Find wrong labels and bad images"),
      el("p", {}, "Labels are compared with the images by models that have not seen them. Outliers, copies under several labels or in several splits, blurred, dark and plain images and more are found as well. No file is changed: you decide about each finding."),
      el("div", {}, el("button", { type: "button", class: "button primary", onclick: () => this.#start() }, "Audit the collection"))));
  }

  #drawRunning() {
    const { done, total } = this.data.job, stage = { measuring: "Measuring images", judging: "Judging labels", comparing: "Comparing copies" }[this.data.stage];
    if (!this.bar?.isConnected) {
      this.bar = el("progress", { max: "1", value: 0, "aria-label": "Audit" });
      this.barText = el("p", { class: "quiet" });
      this.node.replaceChildren(el("section", { class: "start" }, el("h1", {}, "Auditing"), this.bar, this.barText));
    }
    this.bar.max = Math.max(1, total);
    this.bar.value = done;
    this.barText.textContent = stage ?? "";
  }

  #build() {
    const { collection, data } = this;
    this.total = data.findings.kind.length;
    this.selected.clear();
    this.at = -1;
    this.kinds = el("div", { class: "kinds", role: "group", "aria-label": "Kinds of findings" });
    const choice = (name, values, what) => el("select", { "aria-label": what, data: { choice: name }, onchange: () => this.#list() },
      Object.entries(values).map(([value, text]) => el("option", { value }, text)));
    this.shown = choice("shown", SHOWN, "What is listed");
    this.order = choice("order", ORDERS, "Order");
    this.filters = new Filters(collection, { changed: () => this.#list(), more: [this.shown, this.order], folded: true });
    this.filters.judged(data.agreement);
    this.counted = el("p", { class: "quiet counted" });
    this.selecting = el("button", { type: "button", class: "button", "aria-pressed": false, onclick: () => this.#toggleSelecting() }, "Select");
    this.grid = new Grid({ label: "Findings", tile: (number) => this.#tile(number), minWidth: 158, caption: 64, gap: 14,
      key: (number) => `${number}|${JSON.stringify(this.store.decided[number] ?? "")}|${this.selected.has(number)}` });
    this.grid.node.addEventListener("keydown", (event) => this.#extend(event), { capture: true });
    this.empty = el("p", { class: "quiet empty" });
    this.panel = new FindingPanel(this);
    this.sum = el("p", { class: "sum" });
    this.actions = el("div", { class: "buttons" });
    const again = el("button", { type: "button", class: "link", onclick: () => this.#start().catch((error) => toast(error.message)) }, "Audit again");
    const facts = [`${count(data.num_images, "image")} audited`, data.label_accuracy === null ? null : `${(100 * data.label_accuracy).toFixed(1)}% of the labels are confirmed`,
      data.refused.length ? `${count(data.refused.length, "file")} could not be read` : null].filter(Boolean).join(" · ");
    this.node.replaceChildren(
      el("header", { class: "audit-head" }, el("h1", {}, "Audit"), el("p", { class: "quiet" }, facts, " · ", again),
        data.notes.map((text) => el("p", { class: "quiet" }, text))),
      this.kinds, el("div", { class: "bar" }, this.filters.node, this.selecting, this.counted),
      this.columns = el("div", { class: "auditing" }, el("div", { class: "listed" }, this.empty, this.grid.node), this.panel.node),
      this.#next(),
      el("footer", { class: "plan" }, this.sum, this.actions));
    this.#list();
    say(count(this.total, "finding"));
  }

  // What to do with the decisions.
  #next() {
    const { lists, edit } = this.data.commands;
    const file = (name, text) => el("a", { href: `api/findings/${name}.csv`, download: `${name}.csv` }, text);
    return el("details", { class: "again" }, el("summary", {}, "Carry the decisions back into the dataset"),
      el("p", {}, "They are kept beside the index, and audit, decide and duplicates honor them. These commands write them as lists, and make the next version of the dataset:"),
      el("pre", { tabindex: "0", "aria-label": "Commands" }, el("code", {}, `${lists}\n${edit}`)),
      el("p", {}, "Or save the lists: ", file("delete", "images to delete"), ", ", file("relabel", "new labels"), "."));
  }

  #register() {
    const here = () => this.node.isConnected && Boolean(this.grid?.node.isConnected);
    const onOther = (event) => ["A", "SUMMARY"].includes(event.target.tagName) || (event.target.tagName === "BUTTON" && !this.grid.node.contains(event.target));
    keys("Audit", here, [
      [["1", "2", "3", "4", "5", "6", "7", "8", "9"], "Give it the class with this number", (event) => {
        this.#inTurn(() => {
          const name = this.panel.classes[Number(event.key) - 1];
          return name === undefined ? null : this.#decide("relabel", name);
        });
      }],
      [["e"], "Give it another class", () => this.panel.another()],
      [["k"], "Keep it: the label, or the image, is right", () => this.decide("right")],
      [["x", "Delete"], "Remove the image", () => this.decide("drop")],
      [["z"], "Take back what was decided about it", () => this.decide("undone")],
      [["u"], "Undo", () => { this.undo(); }],
      [["n", "p"], "Next or previous finding", (event) => this.#step(keyOf(event) === "n" ? 1 : -1)],
      [["ArrowDown", "ArrowRight"], "Go to the findings", (event) => (onOther(event) || this.grid.node.contains(event.target) ? false : this.#step(0))],
      [[" "], "Select, or not; Shift and arrows select several", (event) => (onOther(event) ? false : this.#toggle(this.at))],
      [["a"], "Select all that are listed", () => this.#selectAll()],
      [["s"], "Save the selected ones, or all that are listed, as CSV", () => this.save("csv")],
      [["c"], "Compare it with an image beside it", () => this.panel.compare(0)],
      [["f"], "Full size of the image", () => this.full()],
      [["m"], "Find matches of the image", () => { const row = this.pictureOf(this.at); if (!(row >= 0)) return false; location.hash = `#/row/${row}`; return true; }],
      [["Escape"], "Select none", () => { if (!this.selected.size) return this.panel.close(); this.#select([]); return true; }],
    ]);
  }

  focusFilter() { this.filters?.focus(); }

  // Shows the image of the current finding at full size; the arrow keys lead to those of the others that are listed.
  full() {
    const seen = this.items.filter((number) => this.pictureOf(number) >= 0), start = seen.indexOf(this.at);
    if (start < 0) return false;
    openPhoto({ start, count: seen.length, photo: (place) => this.collection.photo(this.pictureOf(seen[place])),
      closed: (place) => { if (this.node.isConnected) this.grid.focus(this.items.indexOf(seen[place])); } });
    return true;
  }

  rowOf(number) { return number < 0 ? -1 : this.data.findings.row[number]; }

  // The row whose picture stands for a finding: its image, or the first that shows it.
  pictureOf(number) {
    const { row, evidence } = this.data.findings;
    return row[number] >= 0 ? row[number] : evidence[number][0] ?? -1;
  }

  titleOf(number) {
    const { findings } = this.data, row = findings.row[number];
    return row >= 0 ? this.collection.path[row] : findings.label[number] || findings.split[number];
  }

  #passes(number) {
    const { shown, filters } = this, row = this.pictureOf(number), of = this.store.decided[number];
    if (shown.value === "open" ? of : shown.value === "decided" && !of) return false;
    return row < 0 ? !filters.active : filters.passes(row);
  }

  // Lists the findings anew: those that pass the filters, in their order.
  #list() {
    const { findings } = this.data, { collection } = this, passing = [], counts = new Map();
    for (let number = 0; number < this.total; number++) {
      if (!this.#passes(number)) continue;
      const kind = findings.kind[number];
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
      passing.push(number);
    }
    if (this.kind && !counts.has(this.kind)) counts.set(this.kind, 0);
    this.items = this.kind ? passing.filter((number) => findings.kind[number] === this.kind) : passing;
    const picture = (number) => this.pictureOf(number);
    const orders = {
      name: (one, other) => compared(this.titleOf(one), this.titleOf(other)),
      date: (one, other) => (collection.modified[picture(other)] ?? 0) - (collection.modified[picture(one)] ?? 0),
      size: (one, other) => area(collection, picture(other)) - area(collection, picture(one)),
    };
    if (orders[this.order.value]) this.items.sort(orders[this.order.value]);
    const kinds = [["", passing.length], ...Object.keys(this.data.kinds).filter((kind) => counts.has(kind)).map((kind) => [kind, counts.get(kind)])];
    this.kinds.replaceChildren(...kinds.map(([kind, number]) => el("button", { type: "button", "aria-pressed": kind === this.kind, title: this.data.kinds[kind] ?? null,
      data: { kind }, onclick: () => this.#setKind(kind) }, kind ? kindName(kind) : "All", " ", el("span", { class: "number" }, number.toLocaleString("en")))));
    const listed = new Set(this.items);
    for (const number of this.selected) if (!listed.has(number)) this.selected.delete(number);
    if (!listed.has(this.at)) this.at = this.items[0] ?? -1;
    this.#redraw();
  }

  #setKind(kind) {
    this.kind = kind;
    this.#list();
    this.kinds.querySelector(`[data-kind="${kind}"]`)?.focus();
  }

  #redraw() {
    const { findings } = this.data, byKind = !this.kind && this.order.value === "score", sections = [];
    for (const number of this.items) {
      const kind = byKind ? findings.kind[number] : "all";
      if (sections.at(-1)?.key !== kind) sections.push({ key: kind, heading: byKind ? this.#heading(kind) : null, items: [] });
      sections.at(-1).items.push(number);
    }
    const index = this.items.indexOf(this.at);
    this.grid.set(sections);
    for (const [key, node] of this.grid.made) node.classList.toggle("now", key.startsWith(`${this.at}|`));
    if (this.grid.node.contains(document.activeElement)) this.grid.focus(Math.max(0, index), { scroll: false });
    else this.grid.setCurrent(Math.max(0, index));
    this.empty.hidden = this.items.length > 0;
    this.empty.textContent = this.total ? this.shown.value === "open" && !this.filters.active ? "Everything is decided." : "No finding passes these filters." : "Nothing was found.";
    this.panel.draw();
    this.#drawSum();
  }

  #heading(kind) {
    const meaning = this.data.kinds[kind];
    return el("div", {}, el("h2", {}, kindName(kind)), el("p", { class: "quiet" }, meaning));
  }

  #drawSum() {
    const { store, selected } = this, decided = Object.keys(store.decided).length, { drop, relabel } = store.counts;
    this.counted.textContent = count(this.items.length, "finding");
    this.sum.replaceChildren(...(selected.size ? [el("b", {}, `${selected.size.toLocaleString("en")} selected`)]
      : [el("b", {}, `${decided.toLocaleString("en")} of ${this.total.toLocaleString("en")}`), " decided",
        el("span", { class: "quiet" }, ` · ${drop.toLocaleString("en")} to remove, ${relabel.toLocaleString("en")} with a new label`)]));
    this.actions.replaceChildren(...(selected.size ? [button("Keep", "K", () => this.decide("right")), button("Remove", "X", () => this.decide("drop")), button("None", "Esc", () => this.#select([]))] : []),
      button("Save CSV", "S", () => this.save("csv"), { disabled: !this.items.length }), button("JSON", "", () => this.save("json"), { disabled: !this.items.length }),
      button("Undo", "U", () => this.undo(), { disabled: !store.done.length }));
  }

  #tile(number) {
    const { collection, store, selected } = this, { findings } = this.data, row = this.pictureOf(number);
    const decided = store.decided[number], isSelected = selected.has(number), label = findings.label[number];
    const suggested = findings.kind[number] === "label" ? findings.suggestion[number] : "";
    return el("button", { type: "button", class: `tile finding${decided ? ` is-${decided.decision.replace(" ", "-")}` : ""}${isSelected ? " selected" : ""}${number === this.at ? " now" : ""}`,
      "aria-pressed": isSelected, onfocus: () => this.#point(number), onclick: (event) => this.#clicked(number, event) },
      row >= 0 ? mount(collection, row) : el("span", { class: "mount missing" }),
      decided ? el("span", { class: "tag" }, verdict(decided)) : null, " ",
      isSelected ? el("span", { class: "check-mark", "aria-hidden": true }, "✓") : null,
      el("span", { class: "caption" },
        el("span", { class: "what" }, el("b", {}, findings.score[number].toFixed(2)), " ", el("span", { class: "reason" }, suggested ? `${label} → ${suggested}` : label || findings.split[number] || kindName(findings.kind[number]))), " ",
        findings.row[number] >= 0 ? pathText(collection.fileName(findings.row[number])) : el("span", { class: "path" }, kindName(findings.kind[number])), " ",
        el("span", { class: "why" }, this.kind || this.order.value === "score" ? findings.reason[number] : kindName(findings.kind[number]))));
  }

  #clicked(number, event) {
    if (this.selecting.getAttribute("aria-pressed") === "true" || event.ctrlKey || event.metaKey) this.#toggle(number);
    else if (event.shiftKey && this.anchor !== undefined) {
      const [from, to] = [this.items.indexOf(this.anchor), this.items.indexOf(number)].sort((a, b) => a - b);
      this.#select([...this.selected, ...this.items.slice(Math.max(0, from), to + 1)]);
    } else {
      this.anchor = number;
      this.panel.open();
    }
  }

  #point(number) {
    if (this.at === number) return;
    const before = this.at;
    this.at = number;
    for (const [key, node] of this.grid.made) {
      if (key.startsWith(`${before}|`)) node.classList.remove("now");
      if (key.startsWith(`${number}|`)) node.classList.add("now");
    }
    this.panel.draw();
  }

  // Shift and an arrow key select the tile that is left and the one that is reached.
  #extend(event) {
    if (!event.shiftKey || !event.key.startsWith("Arrow")) return;
    const before = this.at;
    setTimeout(() => this.#select([...this.selected, before, this.at]));
  }

  #toggle(number) {
    if (number < 0) return false;
    const chosen = new Set(this.selected);
    if (!chosen.delete(number)) chosen.add(number);
    this.anchor = number;
    this.#select(chosen);
    return true;
  }

  #select(numbers) {
    this.selected = new Set(numbers);
    this.#redraw();
    say(this.selected.size ? `${this.selected.size} selected` : "none selected");
  }

  #selectAll() { this.#select(this.selected.size === this.items.length ? [] : this.items); }

  #toggleSelecting() {
    const on = this.selecting.getAttribute("aria-pressed") !== "true";
    this.selecting.setAttribute("aria-pressed", on);
    if (!on) this.#select([]);
  }

  // Moves by some findings in the list; by 0 to the current one.
  #step(by) {
    if (!this.items.length) return false;
    const index = Math.min(Math.max(this.items.indexOf(this.at) + by, 0), this.items.length - 1);
    this.grid.focus(index);
    return true;
  }

  // Decisions are made one after another, each about what is current then, however fast the keys come.
  decide(decision, label = "") { return this.#inTurn(() => this.#decide(decision, label)); }

  undo() { return this.#inTurn(() => this.#undo()); }

  #inTurn(work) {
    this.turn = (this.turn ?? Promise.resolve()).then(work);
    return this.turn;
  }

  async #decide(decision, label) {
    const targets = this.selected.size ? [...this.selected] : this.at >= 0 ? [this.at] : [];
    if (!targets.length) return;
    const fitting = decision === "undone" || decision === "right" ? targets : targets.filter((number) => this.rowOf(number) >= 0);
    const wanted = decision === "undone" ? fitting.filter((number) => this.store.decided[number]) : fitting;
    if (!wanted.length) {
      toast(decision === "undone" ? "Nothing is decided about it." : "This is about a class or a split: it can only be kept.");
      return;
    }
    const single = !this.selected.size, next = this.items[this.items.indexOf(this.at) + 1];
    if (!single) this.selected = new Set();
    try {
      if (!await this.store.decide(wanted.map((finding) => ({ finding, decision, label })))) return;
    } catch (error) {
      toast(error.message);
      return;
    }
    say(`${verdict({ decision, label })}${single ? `: ${this.titleOf(wanted[0])}` : `: ${count(wanted.length, "finding")}`}`);
    if (single && decision !== "undone" && next !== undefined && this.at === wanted[0]) this.#go(next);
    this.#redraw();
  }

  #go(number) {
    const inside = this.grid.node.contains(document.activeElement) || document.activeElement === document.body;
    if (inside) this.grid.focus(this.items.indexOf(number));
    else this.#point(number);
  }

  async #undo() {
    try {
      const restored = await this.store.undo();
      if (!restored) return;
      const number = restored.map((one) => one.finding).find((one) => this.items.includes(one));
      if (number !== undefined) this.#go(number);
      this.#redraw();
      say("undone");
    } catch (error) { toast(error.message); }
  }

  save(format) {
    const { findings } = this.data, numbers = this.items.filter((number) => !this.selected.size || this.selected.has(number));
    const of = new Map(); // row -> what is saved; an image with several findings is one row, as the commands want it
    for (const number of numbers) {
      const row = findings.row[number], decided = this.store.decided[number], known = of.get(row);
      if (row < 0) continue;
      if (known) {
        known.kind += `;${findings.kind[number]}`;
        known.reason += `; ${findings.reason[number]}`;
      } else {
        of.set(row, { ...imageColumns(this.collection, row), kind: findings.kind[number], score: findings.score[number],
          suggestion: decided?.label || findings.suggestion[number], reason: findings.reason[number], decided: decided?.decision ?? "" });
      }
    }
    const rows = [...of.values()];
    saveTable("findings", format, rows);
    say(`${count(rows.length, "row")} saved`);
  }
}

function compared(one, other) { return one.localeCompare(other, "en", { numeric: true }); }

function area(collection, row) { return row < 0 ? 0 : collection.width[row] * collection.height[row]; }
