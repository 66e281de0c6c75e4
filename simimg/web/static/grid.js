// A grid of any number of tiles in sections; only tiles near the visible area exist as elements.
//
// Tiles are buttons. One of them is in the tab order; the arrow keys, Home, End and the page keys move from it.

import { el } from "./dom.js";

const OVERSCAN = 1.0; // window heights above and below

export class Grid {
  // tile(item, place, count) creates a button; key(item) identifies it, and changes if the button has to be recreated.
  constructor({ label, tile, key, minWidth = 156, caption = 46, gap = 16, headingHeight = 58 }) {
    Object.assign(this, { tile, key, minWidth, caption, gap, headingHeight });
    this.node = el("div", { class: "grid", role: "group", "aria-label": label });
    this.sections = [];
    this.items = [];
    this.made = new Map();
    this.current = 0;
    this.node.addEventListener("keydown", (event) => this.#pressed(event));
    this.node.addEventListener("focusin", (event) => {
      const index = Number(event.target.dataset?.index);
      if (Number.isInteger(index)) this.#setCurrent(index);
    });
    new ResizeObserver(() => this.layout()).observe(this.node);
    addEventListener("scroll", () => this.#later(), { passive: true });
  }

  // sections: [{heading: element or null, items, minWidth, caption}], the last two only if they differ from the grid's
  set(sections) {
    const focused = this.node.contains(document.activeElement) ? this.items[this.current] : undefined;
    const focusedKey = focused === undefined ? null : String(this.key(focused)).split("|")[0];
    for (const { heading } of this.sections) heading?.remove();
    this.sections = sections.filter((section) => section.items.length || section.heading);
    this.items = this.sections.flatMap((section) => section.items);
    this.current = 0;
    this.layout();
    if (focusedKey !== null) {
      const place = this.items.findIndex((item) => String(this.key(item)).split("|")[0] === focusedKey);
      this.focus(Math.max(0, place), { scroll: false });
    }
  }

  layout() {
    const width = this.node.clientWidth;
    if (!width) return;
    let top = 0, first = 0;
    for (const section of this.sections) {
      const columns = Math.max(2, Math.floor((width + this.gap) / ((section.minWidth ?? this.minWidth) + this.gap)));
      const tileWidth = (width - this.gap * (columns - 1)) / columns;
      const rowHeight = Math.round(tileWidth + (section.caption ?? this.caption) + this.gap);
      Object.assign(section, { top, first, columns, tileWidth, rowHeight });
      if (section.heading) {
        section.heading.classList.add("grid-heading");
        section.heading.style.transform = `translateY(${top}px)`;
      }
      section.tilesTop = top + (section.heading ? this.headingHeight : 0);
      top = section.tilesTop + Math.ceil(section.items.length / columns) * rowHeight;
      first += section.items.length;
    }
    this.node.style.height = `${top}px`;
    this.draw();
  }

  draw() {
    const offset = this.node.getBoundingClientRect().top;
    const from = -offset - OVERSCAN * innerHeight, to = -offset + (1 + OVERSCAN) * innerHeight;
    const wanted = new Map();
    for (const section of this.sections) {
      const firstRow = Math.max(0, Math.floor((from - section.tilesTop) / section.rowHeight));
      const lastRow = Math.ceil((to - section.tilesTop) / section.rowHeight);
      const end = Math.min(section.items.length, lastRow * section.columns);
      for (let place = firstRow * section.columns; place < end; place++) wanted.set(section.first + place, [section, place]);
    }
    if (this.items.length && !wanted.has(this.current) && this.node.contains(document.activeElement)) {
      const section = this.#sectionOf(this.current); // the focused tile is kept when it scrolls out of view
      wanted.set(this.current, [section, this.current - section.first]);
    }
    const kept = new Set();
    for (const [index, [section, place]] of wanted) {
      const item = section.items[place], key = this.key(item);
      kept.add(key);
      let node = this.made.get(key);
      if (!node) {
        node = this.tile(item, index, this.items.length);
        this.made.set(key, node);
      }
      node.dataset.index = index;
      node.tabIndex = index === this.current ? 0 : -1;
      const left = (place % section.columns) * (section.tileWidth + this.gap);
      const top = section.tilesTop + Math.floor(place / section.columns) * section.rowHeight;
      node.style.width = `${section.tileWidth}px`;
      node.style.transform = `translate(${left}px, ${top}px)`;
    }
    for (const [key, node] of this.made) {
      if (kept.has(key)) continue;
      for (const image of node.querySelectorAll("img")) image.removeAttribute("src"); // cancels loading
      node.remove();
      this.made.delete(key);
    }
    this.#sort(wanted);
  }

  // Sorts the elements into reading order.
  #sort(wanted) {
    const indices = [...wanted.keys()].sort((a, b) => a - b), order = [];
    let at = 0;
    for (const { heading, first, items } of this.sections) {
      if (heading) order.push(heading);
      for (; at < indices.length && indices[at] < first + items.length; at++) order.push(this.made.get(this.key(this.items[indices[at]])));
    }
    const focused = document.activeElement;
    let next = this.node.firstChild;
    for (const node of order) {
      if (node === next) next = next.nextSibling;
      else this.node.insertBefore(node, next);
    }
    if (focused !== document.activeElement && this.node.contains(focused)) focused.focus({ preventScroll: true });
  }

  focus(index, { scroll = true } = {}) {
    if (!this.items.length) return;
    this.#setCurrent(Math.min(Math.max(index, 0), this.items.length - 1));
    if (scroll) this.#reveal(this.current);
    this.draw();
    this.made.get(this.key(this.items[this.current]))?.focus({ preventScroll: true });
  }

  // Makes a tile the one in the tab order, without moving the focus.
  setCurrent(index) { if (this.items.length) this.#setCurrent(index); }

  get currentItem() { return this.items[this.current]; }

  #later() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; if (this.node.isConnected) this.draw(); });
  }

  #sectionOf(index) {
    return this.sections.findLast((section) => section.first <= index && section.items.length);
  }

  #setCurrent(index) {
    const before = this.items[this.current];
    if (before !== undefined) this.made.get(this.key(before))?.setAttribute("tabindex", "-1");
    this.current = index;
    this.made.get(this.key(this.items[index]))?.setAttribute("tabindex", "0");
  }

  #reveal(index) {
    const section = this.#sectionOf(index);
    const top = section.tilesTop + Math.floor((index - section.first) / section.columns) * section.rowHeight;
    const offset = this.node.getBoundingClientRect().top + top;
    const headroom = 56 + 24 + (index === section.first && section.heading ? this.headingHeight : 0);
    if (offset < headroom) scrollBy(0, offset - headroom);
    else if (offset + section.rowHeight > innerHeight) scrollBy(0, offset + section.rowHeight - innerHeight + 12);
  }

  #pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (!this.items.length) return;
    const page = Math.max(1, Math.floor(innerHeight / this.#sectionOf(this.current).rowHeight) - 1);
    const target = {
      ArrowLeft: () => this.current - 1,
      ArrowRight: () => this.current + 1,
      ArrowUp: () => this.#vertical(-1),
      ArrowDown: () => this.#vertical(1),
      PageUp: () => this.#vertical(-page),
      PageDown: () => this.#vertical(page),
      Home: () => 0,
      End: () => this.items.length - 1,
    }[event.key];
    if (!target) return;
    event.preventDefault();
    this.focus(target());
  }

  // Returns the tile some rows up or down; past the end of a section, one at the same horizontal position in the next.
  #vertical(rows) {
    const section = this.#sectionOf(this.current), place = this.current - section.first;
    const wanted = place + rows * section.columns;
    if (wanted >= 0 && wanted < section.items.length) return section.first + wanted;
    const lastRow = Math.floor((section.items.length - 1) / section.columns);
    if (rows > 0 && Math.floor(place / section.columns) < lastRow) return section.first + section.items.length - 1;
    const filled = this.sections.filter((one) => one.items.length);
    const next = filled[filled.indexOf(section) + Math.sign(rows)];
    if (!next) return rows > 0 ? this.current : section.first + (place % section.columns);
    const column = Math.floor(((place % section.columns) / section.columns) * next.columns);
    const row = rows > 0 ? 0 : Math.floor((next.items.length - 1) / next.columns);
    return next.first + Math.min(row * next.columns + column, next.items.length - 1);
  }
}
