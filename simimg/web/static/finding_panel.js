// The current finding of an audit: its image, why it was found, the images beside it, and what can be decided.

import * as api from "./api.js";
import { ClassChoice } from "./class_choice.js";
import { openCompare } from "./compare.js";
import { el, pathText } from "./dom.js";
import { mount } from "./search.js";

const NUM_CLASSES = 9, NUM_PICTURES = 6;

export class FindingPanel {
  constructor(view) {
    this.view = view;
    this.classes = []; // in the order of their keys
    this.body = el("div", { class: "panel-body" });
    this.choice = new ClassChoice(view.collection, (name) => view.decide("relabel", name));
    this.choice.node.hidden = true;
    this.node = el("aside", { class: "panel", "aria-label": "The finding" },
      el("button", { type: "button", class: "icon close", "aria-label": "Close", onclick: () => this.close() }, "✕"), this.body, this.choice.node);
    // As high as there is room for between the list's upper edge and the bar at the bottom.
    addEventListener("scroll", () => { this.frame ??= requestAnimationFrame(() => { this.frame = null; this.#fit(); }); }, { passive: true });
    addEventListener("resize", () => this.#fit());
  }

  #fit() {
    if (!this.node.isConnected) return;
    const top = Math.max(76, this.node.parentNode.getBoundingClientRect().top);
    this.node.style.setProperty("--room", `${Math.max(200, Math.round(innerHeight - top - 76))}px`);
  }

  // On a small window, the panel lies over the list.
  open() { this.node.classList.add("open"); document.documentElement.classList.add("panel-open"); }

  close() {
    const was = this.node.classList.contains("open");
    this.node.classList.remove("open");
    document.documentElement.classList.remove("panel-open");
    return was;
  }

  another() { this.open(); this.choice.focus(); }

  draw() {
    const { view } = this, number = view.at, { collection, store } = view;
    this.node.hidden = number < 0;
    if (number < 0) { this.classes = []; this.choice.node.hidden = true; return; }
    const of = view.data.findings, row = of.row[number], decided = store.decided[number], many = view.selected.size;
    const label = of.label[number], isLabel = of.kind[number].startsWith("label");
    this.classes = row < 0 ? [] : this.#classes(number);
    this.choice.node.hidden = row < 0;
    const button = (text, key, decision, pressed) => el("button", { type: "button", class: "button", "aria-pressed": pressed, onclick: () => view.decide(decision) }, text, el("kbd", {}, key));
    const own = (word) => decided?.decision === word;
    const picture = view.pictureOf(number);
    this.body.replaceChildren(
      row >= 0 ? el("div", { class: of.evidence[number].length ? "beside" : "" },
        el("button", { type: "button", class: "shown", "aria-label": `Full size of ${collection.path[row]}`, onclick: () => view.full() }, mount(collection, picture)), this.#evidence(number)) : "",
      el("div", { class: "told" },
        el("p", { class: "kind" }, el("b", {}, of.score[number].toFixed(2)), " ", kindName(of.kind[number])),
        row >= 0 ? pathText(collection.path[row]) : el("h2", {}, view.titleOf(number)),
        row >= 0 ? el("p", { class: "facts" }, [label && `labeled ${label}`, of.split[number], collection.facts(row)].filter(Boolean).join(" · ")) : "",
        el("p", { class: "reason" }, sentence(of.reason[number])),
        decided ? el("p", { class: "decided" }, el("b", {}, verdict(decided)), decided.date ? ` · decided on ${decided.date}` : "", decided.own ? "" : " · about the image") : "",
        many ? el("p", { class: "quiet" }, many === 1 ? "A decision is about the one that is selected." : `A decision is about all ${many} that are selected.`) : ""),
      el("div", { class: "buttons", role: "group", "aria-label": "Decide" },
        button(isLabel ? "Label is right" : "Keep", "K", "right", own("right")),
        row >= 0 ? button("Remove", "X", "drop", own("drop")) : "",
        decided ? button("Take back", "Z", "undone") : ""),
      this.classes.length ? el("div", { class: "classes", role: "group", "aria-label": "Give it another class" },
        this.classes.map((name, place) => el("button", { type: "button", class: "button", "aria-pressed": own("relabel") && decided.label === name,
          onclick: () => view.decide("relabel", name) }, el("kbd", {}, place + 1), el("span", {}, name)))) : "",
      row < 0 ? this.#evidence(number) : "");
    this.#fit();
  }

  #classes(number) {
    const { likely, label, suggestion, kind } = this.view.data.findings, { labels } = this.view.collection;
    const first = kind[number] === "label" ? [suggestion[number]] : [];
    return [...new Set([...first, ...likely[number], ...labels.filter(Boolean)])].filter((name) => name !== label[number]).slice(0, NUM_CLASSES);
  }

  #evidence(number) {
    const { view } = this, { collection } = view, rows = view.data.findings.evidence[number], kind = view.data.findings.kind[number];
    if (!rows.length) return "";
    const text = { label: "Nearest images of the suggested class", label_conflict: "Its copy", leak: "Its copy" }[kind] ?? "Images that show it";
    return el("div", { class: "evidence", role: "group", "aria-label": text, title: text },
      el("div", { class: "pictures" }, rows.slice(0, NUM_PICTURES).map((row, place) => el("button", { type: "button", "aria-label": `Compare with ${collection.path[row]}, ${collection.labelOf(row) || "no class"}`,
        onclick: () => this.compare(place) }, mount(collection, row), el("span", { class: "caption" }, collection.labelOf(row) || collection.fileName(row))))));
  }

  compare(start) {
    const { view } = this, { collection } = view, number = view.at, row = number < 0 ? -1 : view.data.findings.row[number];
    if (number < 0) return false;
    const rows = view.data.findings.evidence[number];
    if (row < 0) {
      if (rows[start] !== undefined) location.hash = `#/row/${rows[start]}`;
      return true;
    }
    if (!rows.length) return false;
    openCompare({
      collection, start, count: rows.length,
      pair: (place) => ({
        query: collection.side(row, collection.labelOf(row) || "this"), match: collection.side(rows[place], collection.labelOf(rows[place]) || "other"), row: rows[place],
        place: api.json(`api/pair?row=${row}&with=${rows[place]}`), similarity: null, text: view.data.findings.reason[number],
      }),
    });
    return true;
  }
}

export function kindName(kind) {
  const text = kind.replaceAll("_", " ");
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

export function verdict({ decision, label }) {
  return { right: "Kept", drop: "Remove", relabel: `→ ${label}`, undone: "Taken back", "not copies": "Not copies" }[decision] ?? decision;
}

function sentence(text) { return text && `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`; }
