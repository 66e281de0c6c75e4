// Filters by class, split, folder, date and agreement of the label, and selections that are saved as files.

import { el, saveFile } from "./dom.js";
import { FolderTree } from "./folder_tree.js";
import { menu } from "./menu.js";

const AGREEING = 0.5;
const DAY_S = 86400;

export class Filters {
  // `changed()` is called when a filter was set. `more` are elements that come first. On a small window, those that are
  // `folded` are shown on request.
  constructor(collection, { changed, more = [], folded = false }) {
    Object.assign(this, { collection, changed, agreement: null });
    this.text = el("input", { type: "search", placeholder: "Filter by name", "aria-label": "Filter by name", "aria-keyshortcuts": "/", oninput: () => this.#set() });
    this.label = this.#select("class", "Any class", collection.labels);
    this.split = this.#select("split", "Any split", collection.splits);
    this.agrees = el("select", { "aria-label": "Only labels that", hidden: true, onchange: () => this.#set() },
      el("option", { value: "" }, "Any label"), el("option", { value: "fits" }, "Label fits"), el("option", { value: "doubtful" }, "Label doubtful"));
    this.path = "";
    const inner = [this.text, this.label, this.split, this.#folder(), this.agrees, this.#dates()];
    this.node = el("div", { class: "filters", role: "group", "aria-label": "Filters" }, more,
      folded ? el("details", { class: "folded", open: innerWidth > 720 }, el("summary", { class: "button" }, "Filters"), el("div", { class: "filters" }, inner)) : inner);
    this.#set(false);
  }

  #folder() {
    if (!this.collection.hasFolders) return null;
    const tree = new FolderTree(this.collection, (path) => {
      this.path = path;
      folders.label(path || "Any folder");
      folders.close();
      this.#set();
    });
    const folders = menu("Only this folder", "Any folder", tree.node, { class: "folders", opened: () => tree.open() });
    return folders;
  }

  #dates() {
    const { collection } = this;
    const date = (name) => el("input", { type: "date", "aria-label": `Changed ${name}`, onchange: () => { dates.label(this.#datesText()); this.#set(); } });
    this.from = date("from");
    this.to = date("until");
    if (!collection.isDated) return null;
    const clear = el("button", { type: "button", class: "link", onclick: () => { this.from.value = this.to.value = ""; dates.label("Any date"); dates.close(); this.#set(); } }, "Any date");
    const dates = menu("File changed", "Any date", [el("label", {}, el("span", {}, "Changed from"), this.from), el("label", {}, el("span", {}, "until"), this.to), clear], { class: "dates" });
    return dates;
  }

  #datesText() {
    const [from, to] = [this.from.value, this.to.value];
    return from && to ? `${from} – ${to}` : from ? `From ${from}` : to ? `Until ${to}` : "Any date";
  }

  #select(what, any, values) {
    const named = values.filter((value) => value !== "");
    return el("select", { "aria-label": `Only this ${what}`, hidden: named.length < 2, data: { filter: what }, onchange: () => this.#set() },
      el("option", { value: "" }, any), named.map((value) => el("option", { value }, value)));
  }

  focus() {
    const folded = this.text.closest("details");
    if (folded) folded.open = true;
    this.text.focus();
    this.text.select();
  }

  // agreement: the probability that the label of each row is right, or null where labels were not judged.
  judged(agreement) {
    this.agreement = agreement;
    this.agrees.hidden = !agreement;
  }

  #set(tell = true) {
    const day = (input, days) => (input.value ? new Date(`${input.value}T00:00`).getTime() / 1000 + days * DAY_S : null);
    this.values = {
      text: this.text.value.trim().toLowerCase(), folder: this.path && `${this.path}/`,
      label: this.label.value ? this.collection.labels.indexOf(this.label.value) : -1,
      split: this.split.value ? this.collection.splits.indexOf(this.split.value) : -1,
      agrees: this.agrees.value, from: day(this.from, 0), to: day(this.to, 1),
    };
    this.active = Object.values(this.values).some((value) => value !== "" && value !== -1 && value !== null);
    if (tell) this.changed();
  }

  // The filters that the server knows, as the parameters of a search.
  get asked() {
    const { collection, values, path } = this;
    return { ...(values.label >= 0 ? { label: collection.labels[values.label] } : {}), ...(values.split >= 0 ? { split: collection.splits[values.split] } : {}),
      ...(path ? { folder: path } : {}) };
  }

  // Whether an image passes. Rows without a label agree with nothing and are doubted by nothing.
  passes(row) {
    const { text, folder, label, split, agrees, from, to } = this.values, { collection } = this;
    if (label >= 0 && collection.label[row] !== label) return false;
    if (split >= 0 && collection.split[row] !== split) return false;
    if (folder && !collection.path[row].startsWith(folder)) return false;
    if (text && !collection.lower[row].includes(text)) return false;
    if (from !== null && collection.modified[row] < from) return false;
    if (to !== null && collection.modified[row] >= to) return false;
    if (!agrees) return true;
    const value = this.agreement?.[row] ?? null;
    return value !== null && (value >= AGREEING) === (agrees === "fits");
  }
}

// Saves rows, objects of the same keys, as a file of the user: CSV or JSON, with the columns in their order.
export function saveTable(name, format, rows) {
  const quoted = (value) => (/[",\n\r]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  const lines = [Object.keys(rows[0] ?? { path: "" }), ...rows.map((row) => Object.values(row))];
  const text = format === "json" ? `${JSON.stringify(rows, null, 1)}\n` : lines.map((line) => `${line.map(quoted).join(",")}\n`).join("");
  saveFile(`${name}.${format}`, format === "json" ? "application/json" : "text/csv", text);
}

// What a saved selection says about an image, in the columns that convert and edit read; without classes or splits, these
// columns are left out.
export function imageColumns(collection, row) {
  const { path, labels, label, splits, split, width, height } = collection, columns = { path: path[row] };
  if (labels.some(Boolean)) columns.label = labels[label[row]];
  if (splits.some(Boolean)) columns.split = splits[split[row]];
  return { ...columns, width: width[row], height: height[row] };
}
