// The collection, and the matches of an image from it, of a part of one, of dropped, pasted or chosen ones, or of a text.

import * as api from "./api.js";
import { openCompare } from "./compare.js";
import { button, count, el, pathText, say, similarityText, toast } from "./dom.js";
import { Filters } from "./filters.js";
import { Grid } from "./grid.js";
import { keyOf, keys } from "./keys.js";
import { ORDERS, inOrder, saveMatches } from "./match_list.js";
import { openPhoto } from "./photo.js";
import { drawRegion } from "./region.js";

const K = 200;

export class SearchView {
  constructor(collection) {
    this.collection = collection;
    this.query = null; // {row}, {name, title, width, height} or {text}
    this.by = "copy";
    this.thresholds = { copy: collection.thresholds.copy ?? 0.5, kind: collection.thresholds.kind ?? 0.5 };
    this.matches = [];
    this.order = "similarity";
    this.taken = []; // images that were dropped, pasted or chosen together: {file, title, name, width, height, url}
    this.#build();
    this.#register();
  }

  // parts: [] for the collection, ["row", n], ["query", name] or ["text", text]
  show(parts) {
    const [kind, name] = parts;
    const row = kind === "row" ? Number(name) : NaN;
    if (Number.isInteger(row) && row >= 0 && row < this.collection.size) {
      if (this.query?.row !== row) this.#ask({ row, title: this.collection.path[row] });
    } else if (kind === "query" && name) {
      if (this.query?.name !== name) this.#ask({ name, title: this.#takenAs(name)?.title ?? "an image" });
    } else if (kind === "text" && name && this.collection.has_text) {
      if (this.query?.text !== name) this.#ask({ text: name, title: name });
    } else {
      this.#showCollection();
    }
  }

  focusText() {
    if (!this.collection.has_text) return false;
    if (this.query && this.query.text === undefined) location.hash = "#/";
    requestAnimationFrame(() => { this.words.focus(); this.words.select(); });
    return true;
  }

  // Searches for the first of some files; the others are a click away.
  async take(files) {
    for (const { url } of this.taken) if (url) URL.revokeObjectURL(url);
    this.taken = files.map((file) => ({ file, title: file.name || "pasted image", url: files.length > 1 ? URL.createObjectURL(file) : "" }));
    await this.#choose(this.taken[0]);
  }

  // Searches for one of the images that were taken; the server keeps the last few of them.
  async #choose(image) {
    try {
      say(`Loading ${image.title}`);
      const { query: name, width, height } = await api.upload(image.file);
      Object.assign(image, { name, width, height });
      if (location.hash === `#/query/${name}`) this.show(["query", name]);
      else location.hash = `#/query/${name}`;
    } catch (error) {
      toast(error.message);
    }
  }

  #takenAs(name) { return this.taken.find((image) => image.name === name) ?? (this.part?.name === name ? this.part : undefined); }

  #step(by) {
    const at = this.taken.findIndex((image) => image.name === this.query?.name);
    const next = this.taken[at + by];
    if (at >= 0 && next) this.#choose(next);
  }

  // Asks for a part of the query, and searches for it alone.
  #drawPart() {
    const { query } = this;
    if (!query?.size || this.partButton.getAttribute("aria-pressed") === "true") { this.#endPart(); return; }
    this.partButton.setAttribute("aria-pressed", "true");
    this.removeRegion = drawRegion(this.picture.parentElement, query.size, async (box) => {
      this.#endPart();
      try {
        const asked = query.row === undefined ? { query: query.name, box } : { row: query.row, box };
        const { query: name, width, height } = await api.send("api/part", "POST", asked);
        this.part = { name, title: `part of ${query.title.split("/").pop()}`, width, height };
        location.hash = `#/query/${name}`;
      } catch (error) { toast(error.message); }
    }, () => this.#endPart());
  }

  #endPart() {
    this.removeRegion?.();
    this.removeRegion = null;
    this.partButton.setAttribute("aria-pressed", "false");
  }

  focusFilter() {
    if (this.query) location.hash = "#/";
    requestAnimationFrame(() => this.filters.focus());
  }

  #build() {
    const { collection } = this;
    this.drop = el("section", { class: "film drop", "aria-label": "Search for an image" },
      el("div", {}, el("h1", {}, el("span", { class: "by-mouse" }, "Drop images to find their matches"), el("span", { class: "by-touch" }, "Choose images to find their matches")),
        el("p", {}, el("span", { class: "by-mouse" }, "Or paste one, or choose some. "), "They stay on this machine.")),
      el("button", { type: "button", class: "button amber", onclick: () => document.getElementById("file").click() },
        "Choose images", el("kbd", {}, "O")));
    this.form = collection.has_text ? this.#describe() : "";
    this.filters = new Filters(collection, { changed: () => this.#filtered() });
    this.counted = el("p", { class: "quiet counted" });
    this.bar = el("div", { class: "bar" }, this.filters.node, this.counted);

    this.modes = el("div", { class: "switch", role: "radiogroup", "aria-label": "Kind of match" },
      [["copy", "Copies"], ["kind", "Similar images"]].map(([by, text]) => el("button", {
        type: "button", role: "radio", data: { by }, onclick: () => this.#setBy(by), onkeydown: (event) => this.#turned(event),
      }, text)));
    this.slider = el("input", { type: "range", min: "0", max: "1", step: "0.01", id: "threshold",
      oninput: () => this.#setThreshold(Number(this.slider.value)) });
    this.output = el("output", { for: "threshold" });
    this.sliderText = el("p", { class: "quiet hint" });
    this.only = el("input", { type: "checkbox", id: "only", onchange: () => this.#draw() });
    this.picture = el("img", { alt: "" });
    this.sort = el("select", { "aria-label": "Order of the matches", onchange: () => { this.order = this.sort.value; this.#draw(); } },
      Object.entries(ORDERS).filter(([order]) => order !== "date" || collection.isDated).map(([order, [text]]) => el("option", { value: order }, text)));
    this.saveButton = el("button", { type: "button", class: "button", title: "The matches that are shown, as a table", onclick: () => this.#save() }, "Save CSV", el("kbd", {}, "S"));
    this.partButton = el("button", { type: "button", class: "button", "aria-pressed": "false", onclick: () => this.#drawPart() }, "Search a part", el("kbd", {}, "R"));
    this.fullButton = button("Full size", "F", () => this.#full());
    this.others = el("div", { class: "others", role: "group", "aria-label": "Images to search for", hidden: true });
    this.title = el("p", { class: "title" });
    this.facts = el("p", { class: "facts" });
    this.status = el("p", { class: "status" });
    this.side = el("aside", { class: "side", "aria-label": "The query" },
      el("figure", { class: "film query" }, this.window = el("div", { class: "window" }, this.picture),
        this.caption = el("figcaption", {}, this.title, this.facts),
        this.tools = el("p", { class: "photo-tools" }, this.fullButton, this.partButton)),
      this.others,
      el("div", { class: "controls" },
        this.ofImage = el("div", { class: "controls" },
          this.modes,
          el("div", { class: "threshold" },
            el("label", { for: "threshold" }, "Minimum similarity"), this.output, this.slider, this.sliderText),
          el("label", { class: "check", for: "only" }, this.only, "Hide matches below this")),
        this.actions = el("p", { class: "actions" },
          el("button", { type: "button", class: "button", onclick: () => { location.hash = "#/"; } },
            "All images", el("kbd", {}, "Esc")))));

    this.all = new Grid({ label: "The collection", tile: (row) => this.#pictureTile(row), key: (row) => row, caption: 30 });
    this.found = new Grid({
      label: "Matches", tile: (match, index) => this.#matchTile(match, index), minWidth: 160, caption: 46, gap: 18,
      key: (match) => `${match.row}|${match.similarity}|${match.reason ?? ""}|${this.#isSure(match)}`,
    });
    this.empty = el("p", { class: "quiet empty" });
    this.collectionNode = el("div", { class: "all" }, this.drop, this.bar, this.all.node);
    this.queryNode = el("div", { class: "matching" }, this.side,
      el("div", { class: "results" }, el("h1", { class: "visually-hidden" }, "Matches"), el("div", { class: "results-bar" }, this.status, this.sort, this.saveButton), this.empty, this.found.node));
    this.node = el("div", { class: "view search" }, this.collectionNode, this.queryNode);
  }

  // The field for a description of what is searched for.
  #describe() {
    this.words = el("input", { type: "search", maxlength: "300", placeholder: "Or describe one, such as red sailing boat", "aria-label": "Describe an image", "aria-keyshortcuts": "Q" });
    return el("form", { class: "describe", onsubmit: (event) => {
      event.preventDefault();
      const text = this.words.value.trim();
      if (text) location.hash = `#/text/${encodeURIComponent(text)}`;
      else this.words.focus();
    } }, this.words, el("button", { type: "submit", class: "button" }, "Search", el("kbd", {}, "↵")));
  }

  #register() {
    keys("Collection", () => this.node.isConnected && !this.query, [
      [["ArrowDown", "ArrowRight"], "Go to the images", () => { this.all.focus(this.all.current); }],
      [["m", "Enter"], "Find matches of the image", (event) => event.key !== "Enter" && this.#find()],
      [["f"], "Full size of the image", () => this.#full()],
    ]);
    keys("Matches", () => this.node.isConnected && this.query, [
      [["ArrowDown", "ArrowRight"], "Go to the matches", () => { this.found.focus(this.found.current); }],
      [["c", "Enter"], "Compare it with the query, or show what fits a description", (event) => {
        if (event.key === "Enter" || !this.found.items.length) return false;
        this.#compare(this.found.currentItem);
        return true;
      }],
      [["m"], "Find matches of the match", () => this.#find()],
      [["f"], "Full size of the match, or of the query", () => this.#full()],
      [["r"], "Search for a part of the query", () => this.#drawPart()],
      [["n", "p"], "Next or previous of the images to search for", (event) => this.#step(keyOf(event) === "n" ? 1 : -1)],
      [["s"], "Save the matches as CSV", () => this.#save()],
      [["w"], "Copies, or similar images", () => (this.query.text === undefined ? this.#setBy(this.by === "copy" ? "kind" : "copy") : false)],
      [["[", "]"], "Lower or raise the minimum similarity", (event) => {
        if (this.query.text !== undefined) return false;
        this.#setThreshold(this.thresholds[this.by] + (event.key === "]" ? 0.05 : -0.05));
        return true;
      }],
      [["Escape"], "Back to all images", () => { location.hash = "#/"; }],
    ]);
  }

  #showCollection() {
    const before = this.query?.row;
    this.abort?.abort();
    this.query = null;
    this.queryNode.hidden = true;
    this.collectionNode.hidden = false;
    this.bar.prepend(this.filters.node);
    this.drop.append(this.form);
    document.title = `${this.collection.name} · simimg`;
    this.#drawCollection();
    this.all.layout();
    if (before !== undefined) {
      const place = this.all.items.indexOf(before);
      if (place >= 0) this.all.focus(place);
    } else scrollTo(0, 0);
  }

  #drawCollection() {
    const rows = [];
    for (let row = 0; row < this.collection.size; row++) if (this.filters.passes(row)) rows.push(row);
    this.counted.textContent = rows.length === this.collection.size ? "" : count(rows.length, "image");
    this.all.set([{ heading: null, items: rows }]);
  }

  #filtered() {
    if (this.query) this.#search();
    else {
      this.#drawCollection();
      say(count(this.all.items.length, "image"));
    }
  }

  #setBy(by) {
    if (this.by === by) return;
    this.by = by;
    this.matches = []; // their similarities are of the other kind
    this.#search();
  }

  #turned(event) {
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    this.#setBy(this.by === "copy" ? "kind" : "copy");
    this.modes.querySelector("[aria-checked=true]").focus();
  }

  #setThreshold(value) {
    this.thresholds[this.by] = Math.min(1, Math.max(0, Math.round(value * 100) / 100));
    this.#draw();
  }

  #isSure(match) {
    return this.query.text === undefined && match.similarity >= this.thresholds[this.by];
  }

  // A verified copy that is less similar than the user wants.
  #isProbable(match) { return this.by === "copy" && match.copy && !this.#isSure(match); }

  #ask(query) {
    this.#endPart();
    this.query = query;
    this.collectionNode.hidden = true;
    this.queryNode.hidden = false;
    this.actions.before(this.filters.node);
    scrollTo(0, 0);
    const { collection } = this, isText = query.text !== undefined;
    this.window.hidden = this.tools.hidden = this.ofImage.hidden = isText;
    this.title.hidden = isText;
    if (isText) {
      this.facts.textContent = "";
      this.caption.after(this.form); // where it can be changed
      this.words.value = query.text;
    } else if (query.row !== undefined) {
      this.picture.src = collection.thumbnail(query.row);
      this.facts.textContent = collection.facts(query.row);
      query.large = collection.large(query.row);
      query.full = collection.full(query.row);
      query.size = [collection.width[query.row], collection.height[query.row]];
    } else {
      query.large = query.full = `api/query/${query.name}`;
      this.picture.src = query.large;
      const taken = this.#takenAs(query.name);
      query.size = taken ? [taken.width, taken.height] : null;
      this.facts.textContent = query.size ? query.size.join(" × ") : "";
    }
    this.picture.alt = query.title;
    this.partButton.disabled = !query.size;
    this.#drawOthers();
    this.title.replaceChildren(pathText(query.title));
    document.title = `${isText ? query.text : query.title.split("/").pop()} · simimg`;
    this.matches = [];
    this.#search();
  }

  async #search() {
    this.abort?.abort();
    const abort = this.abort = new AbortController(), { query } = this;
    const asked = new URLSearchParams({ by: this.by, k: K });
    for (const name of ["row", "text"]) if (query[name] !== undefined) asked.set(name, query[name]);
    if (query.name) asked.set("query", query.name);
    for (const [name, value] of Object.entries(this.filters.asked)) asked.set(name, value);
    this.final = false;
    this.steps = 0;
    this.node.setAttribute("aria-busy", "true");
    this.#draw();
    try {
      await api.lines(`api/search?${asked}`, abort.signal, (line) => {
        if (abort.signal.aborted) return;
        if (line.matches) this.matches = line.matches;
        this.steps += 1;
        this.final = line.final;
        this.ms = line.ms;
        this.#draw();
      });
    } catch (error) {
      if (error.name === "AbortError") return;
      this.final = true;
      toast(error.message);
      if (query.row === undefined) location.hash = "#/";
    }
    if (abort.signal.aborted) return;
    this.node.removeAttribute("aria-busy");
    if (query.text !== undefined) { say(count(this.matches.length, "image")); return; }
    const sure = this.matches.filter((match) => this.#isSure(match));
    const probable = this.matches.filter((match) => this.#isProbable(match));
    say(sure.length ? `${this.#sureText(sure.length)}, the first ${this.collection.fileName(sure[0].row)}, ${sure[0].reason ?? ""}`
      : probable.length ? `No copies at ${similarityText(this.thresholds.copy)} or more, ${count(probable.length, "probable copy", "probable copies")} below`
        : `${this.#sureText(0)}, ${count(this.matches.length, this.by === "copy" ? "similar image" : "image")}`);
  }

  #sureText(number) {
    return this.by === "copy" ? (number ? count(number, "copy", "copies") : "No copies")
      : (number ? count(number, "similar image") : "No similar images");
  }

  #draw() {
    const value = this.thresholds[this.by], calibrated = this.collection.thresholds[this.by];
    for (const button of this.modes.children) {
      const on = button.dataset.by === this.by;
      button.setAttribute("aria-checked", on);
      button.tabIndex = on ? 0 : -1;
    }
    this.slider.value = value;
    this.output.textContent = similarityText(value);
    this.sliderText.textContent = this.by === "kind" ? "The cosine of the embeddings."
      : calibrated !== undefined ? `At ${similarityText(calibrated)} and above, 99 of 100 matches were right.`
        : "0.50 and above: verified copy";
    const sure = this.matches.filter((match) => this.#isSure(match));
    const isText = this.query.text !== undefined;
    const below = this.only.checked && !isText ? [] : this.matches.filter((match) => !this.#isSure(match));
    const probable = below.filter((match) => this.#isProbable(match)), rest = below.filter((match) => !this.#isProbable(match));
    this.sort.value = this.order;
    this.saveButton.disabled = !this.final || !sure.length && !below.length;
    const verifying = !this.final && this.by === "copy" && !isText;
    this.status.classList.toggle("working", !this.final);
    this.status.textContent = !this.matches.length && !this.final ? "Searching…"
      : verifying ? "Verifying the nearest images…"
        : `Searched ${count(this.collection.size, "image")} in ${(this.ms / 1000).toFixed(1)} s`;
    const heading = (title, number, note) => el("div", {}, el("h2", {}, title, number === null ? null : el("span", { class: "number" }, number)),
      note ? el("p", { class: "quiet" }, note) : null);
    const sections = [];
    const large = { minWidth: 230, caption: innerWidth < 520 ? 112 : 84 }, ordered = (list) => inOrder(list, this.order, this.collection);
    if (sure.length) sections.push({ heading: heading(this.by === "copy" ? "Copies" : "Similar images", sure.length), items: ordered(sure),
      ...(this.by === "copy" ? large : {}) });
    if (probable.length) sections.push({ items: ordered(probable), ...large,
      heading: heading("Probably copies", probable.length, `Below your minimum similarity of ${similarityText(value)}.`) });
    if (rest.length) {
      sections.push({ items: ordered(rest),
        heading: isText ? heading("Best matches", null, "Cosines of a text and images: compare them only with each other.")
          : heading(this.by === "copy" ? "Similar, not copies" : "Less similar", null,
            this.by === "copy" && this.final && !sure.length && !probable.length ? "None of them is a copy." : "") });
    }
    this.empty.hidden = sections.length > 0 || !this.final;
    this.empty.textContent = this.matches.length ? "No match reaches this similarity." : "There are no images to compare with.";
    this.found.set(sections);
  }

  #pictureTile(row) {
    const { collection } = this;
    return el("button", { type: "button", class: "tile", "aria-label": collection.path[row],
      onclick: () => { location.hash = `#/row/${row}`; } },
      mount(collection, row), el("span", { class: "caption" }, pathText(collection.fileName(row))));
  }

  #matchTile(match, index) {
    const { collection } = this, sure = this.#isSure(match), verified = match.copy;
    const isText = this.query.text !== undefined, reason = reasonOf(match);
    const similarity = isText ? match.similarity.toFixed(3) : match.similarity.toFixed(2);
    const name = [collection.path[match.row], `similarity ${similarity}`, reason, verified ? "copy" : isText ? "" : "similar"];
    return el("button", { type: "button", class: `tile match${verified ? " verified" : ""}${sure ? " sure" : ""}`,
      "aria-label": name.filter(Boolean).join(", "),
      onclick: () => this.#compare(match) },
      mount(collection, match.row),
      el("span", { class: "caption" }, pathText(collection.path[match.row]), " ", // in the order of the name, see views.css
        el("span", { class: "what" }, el("span", { class: "unseen" }, "similarity "), el("b", {}, similarity), " ",
          reason && !sure && !match.copy ? el("span", { class: "unseen" }, "not a copy: ") : null,
          reason ? el("span", { class: "reason", title: reason }, sure ? reason : match.reason) : null)));
  }

  #drawOthers() {
    const many = this.taken.length > 1 && this.taken.some((image) => image.name && image.name === this.query.name);
    this.others.hidden = !many;
    this.others.replaceChildren(...(many ? this.taken.map((image) => el("button", { type: "button", title: image.title,
      "aria-label": image.title, "aria-current": image.name === this.query.name ? "true" : null, onclick: () => this.#choose(image) },
    el("img", { src: image.url, alt: "" }))) : []));
  }

  #save() {
    if (this.saveButton.disabled) return;
    saveMatches(this.query.title, this.found.items, this.collection);
    say(`${count(this.found.items.length, "match", "matches")} saved`);
  }

  #find() {
    const grid = this.query ? this.found : this.all, item = grid.currentItem;
    if (item === undefined || !grid.node.contains(document.activeElement)) return false;
    location.hash = `#/row/${this.query ? item.row : item}`;
    return true;
  }

  // Shows the image in focus at full size, or the query; the arrow keys lead to those beside it.
  #full() {
    const { collection, query } = this, grid = query ? this.found : this.all;
    if (query && !grid.node.contains(document.activeElement)) {
      if (query.text !== undefined) return;
      openPhoto({ isQuery: true, photo: () => ({ src: query.large, full: query.full, title: query.title, size: query.size, row: query.row }), closed: () => this.fullButton.focus() });
      return;
    }
    if (!grid.items.length) return;
    const items = grid.items, rowOf = (item) => (query ? item.row : item);
    openPhoto({ start: grid.current, count: items.length, photo: (place) => collection.photo(rowOf(items[place])), closed: (place) => { if (grid.node.checkVisibility()) grid.focus(place); } });
  }

  #compare(match) {
    const list = this.found.items, { collection, query } = this;
    if (query.text !== undefined) { this.found.focus(list.findIndex((one) => one.row === match.row)); this.#full(); return; }
    openCompare({
      collection, start: list.findIndex((one) => one.row === match.row), count: list.length,
      pair: (place) => {
        const one = list[place];
        return {
          query: { src: query.large, title: query.title, size: query.size, label: "query" },
          match: collection.side(one.row, "match"),
          place: one.place, differs: one.differs, text: reasonOf(one) ?? "similar, not a copy", similarity: Number(one.similarity.toFixed(2)), row: one.row,
        };
      },
      closed: (place) => this.found.focus(place),
    });
  }
}

// What was done to a copy, or why another match that shows the same picture is none; null for all others.
function reasonOf(match) {
  return match.reason && (match.copy ? match.reason : `not a copy: ${match.reason}`);
}

export function mount(collection, row) {
  const frame = el("span", { class: "mount" });
  const image = el("img", { src: collection.thumbnail(row), alt: "", decoding: "async", draggable: "false",
    onload: () => image.classList.add("there"),
    onerror: () => { if (image.hasAttribute("src")) frame.classList.add("missing"); } });
  frame.append(image);
  return frame;
}
