// The folders of the collection as a tree, with the number of images in each and below it.
//
// Only what was unfolded exists as elements, and of a folder with many folders the first `SHOWN`, until more are asked
// for. Keys are those of the ARIA pattern for trees: up, down, right to unfold or enter, left to fold or leave, Home,
// End, Enter or Space to choose, and letters to find a name.

import { el } from "./dom.js";

const SHOWN = 200;

export class FolderTree {
  // `chosen(path)` is called with the path of a folder, "" for all images.
  constructor(collection, chosen) {
    Object.assign(this, { collection, chosen, path: "" });
    this.node = el("ul", { class: "tree", role: "tree", "aria-label": "Folders" });
    this.node.addEventListener("keydown", (event) => this.#pressed(event));
    this.node.addEventListener("click", (event) => this.#clicked(event));
  }

  // Draws the tree when it is shown first, and moves the focus to the folder that is chosen.
  open() {
    if (!this.node.childElementCount) {
      this.folders = new WeakMap(); // element -> folder
      this.node.append(this.#item(this.collection.folders, 1));
      this.#unfold(this.node.firstChild);
    }
    const now = this.#items().find((item) => this.folders.get(item)?.path === this.path) ?? this.node.firstChild;
    this.#focus(now);
  }

  // Marks a folder as the one that is chosen.
  mark(path) {
    this.path = path;
    for (const item of this.#items()) item.setAttribute("aria-selected", this.folders.get(item)?.path === path);
  }

  #item(folder, level) {
    const has = folder.folders.size > 0;
    const item = el("li", { role: "treeitem", tabindex: "-1", "aria-level": level, "aria-selected": folder.path === this.path,
      "aria-expanded": has ? false : undefined, "aria-label": `${folder.name || "All images"}, ${folder.count.toLocaleString("en")}`, data: { path: folder.path } },
    el("span", { class: "row" }, el("i", { class: "turn", "aria-hidden": true }), el("span", { class: "name", title: folder.path || null }, folder.name || "All images"),
      el("span", { class: "number" }, folder.count.toLocaleString("en"))));
    this.folders.set(item, folder);
    return item;
  }

  #unfold(item) {
    const folder = this.folders.get(item);
    if (!folder?.folders.size) return;
    item.setAttribute("aria-expanded", true);
    if (item.lastChild.role === "group") { item.lastChild.hidden = false; return; }
    const group = el("ul", { role: "group" });
    item.append(group);
    this.#add(group, [...folder.folders.values()], Number(item.getAttribute("aria-level")) + 1);
  }

  // Adds the next folders, and an item that adds more.
  #add(group, folders, level) {
    const made = folders.slice(0, SHOWN).map((folder) => this.#item(folder, level)), rest = folders.slice(SHOWN);
    group.append(...made);
    if (!rest.length) return made[0];
    const more = el("li", { role: "treeitem", tabindex: "-1", "aria-level": level, class: "more" }, el("span", { class: "row" }, `${rest.length.toLocaleString("en")} more`));
    more.add = () => { more.remove(); this.#focus(this.#add(group, rest, level)); };
    group.append(more);
    return made[0];
  }

  #fold(item) {
    item.setAttribute("aria-expanded", false);
    item.querySelector(":scope > ul").hidden = true;
  }

  #items() { return [...this.node.querySelectorAll("li")].filter((item) => !item.closest("ul[hidden]")); }

  #focus(item) {
    for (const other of this.node.querySelectorAll("li[tabindex='0']")) other.tabIndex = -1;
    item.tabIndex = 0;
    item.focus({ preventScroll: true });
    const box = this.node.parentNode, row = item.firstChild.getBoundingClientRect(), around = box.getBoundingClientRect();
    box.scrollTop += Math.min(0, row.top - around.top - 6) + Math.max(0, row.bottom - around.bottom + 6); // not the page
  }

  #choose(item) {
    if (item.add) { item.add(); return; }
    this.mark(this.folders.get(item).path);
    this.chosen(this.path);
  }

  #clicked(event) {
    const item = event.target.closest("li");
    if (!item) return;
    if (event.target.classList.contains("turn") && item.hasAttribute("aria-expanded")) {
      if (item.getAttribute("aria-expanded") === "true") this.#fold(item);
      else this.#unfold(item);
      this.#focus(item);
    } else this.#choose(item);
  }

  #pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const item = event.target.closest("li"), items = this.#items(), at = items.indexOf(item);
    const isOpen = item.getAttribute("aria-expanded") === "true", go = (to) => { if (to) this.#focus(to); };
    const done = {
      ArrowDown: () => go(items[at + 1]), ArrowUp: () => go(items[at - 1]), Home: () => go(items[0]), End: () => go(items.at(-1)),
      ArrowRight: () => (isOpen ? go(items[at + 1]) : this.#unfold(item)),
      ArrowLeft: () => (isOpen ? this.#fold(item) : go(item.parentNode.closest("li"))),
      Enter: () => this.#choose(item), " ": () => this.#choose(item),
    }[event.key] ?? (/^[\p{L}\p{N}]$/u.test(event.key) ? () => {
      const starts = (one) => this.folders.get(one)?.name.toLowerCase().startsWith(event.key.toLowerCase());
      go([...items.slice(at + 1), ...items.slice(0, at + 1)].find(starts));
    } : null);
    if (!done) return;
    event.preventDefault();
    event.stopPropagation();
    done();
  }
}
