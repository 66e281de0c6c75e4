// A field in which a class is chosen by its name; the classes of the collection are offered.

import { el } from "./dom.js";

let number = 0;

export class ClassChoice {
  // `chosen(name)` is called with a class of the collection, or a new one.
  constructor(collection, chosen) {
    const list = el("datalist", { id: `classes-${number += 1}` }, collection.labels.filter(Boolean).map((value) => el("option", { value })));
    this.input = el("input", { type: "text", class: "field", list: list.id, placeholder: "Another class", "aria-label": "Another class", maxlength: "200",
      autocomplete: "off", onkeydown: (event) => { if (event.key === "Enter") { event.preventDefault(); this.#take(chosen); } } });
    this.node = el("div", { class: "another" }, this.input, list,
      el("button", { type: "button", class: "button", onclick: () => this.#take(chosen) }, "Set"));
  }

  #take(chosen) {
    const name = this.input.value.trim();
    if (!name) { this.input.focus(); return; }
    this.input.value = "";
    this.input.blur();
    chosen(name);
  }

  focus() { this.input.focus(); }
}
