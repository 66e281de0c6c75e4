// Shows two images on top of each other with a movable divider; the query is aligned with the match as verified.

import { button, el, pathText } from "./dom.js";
import { keyOf } from "./keys.js";
import { openPhoto } from "./photo.js";

const ROOM = 0.004; // of a side, around a place that differs

// pair(place) returns {query, match, place: six numbers or null or a promise of them, differs: boxes, text, similarity, row};
// the image of the row is shown at full size, and its matches are found.
export function openCompare({ collection, start, count, pair, closed }) {
  let at = start, aligned = true, marked = true, current = null;
  const under = el("img", { alt: "" }), over = el("img", { alt: "" });
  const cut = el("div", { class: "cut" }, over), line = el("i", { class: "line", "aria-hidden": "true" });
  const slider = el("input", { type: "range", min: "0", max: "100", value: "50", step: "1",
    "aria-label": "Share of the query that is shown, from the left", oninput: () => slide() });
  const names = el("div", { class: "names", "aria-hidden": "true" }, el("span", {}, ""), el("span", {}, ""));
  const marks = svg("svg", { class: "marks", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
  const stage = el("div", { class: "stage" }, under, cut, marks, line, names, slider);
  const box = el("div", { class: "box" }, stage);
  const what = el("p", { class: "what", role: "status" }), left = el("p", { class: "about" }), right = el("p", { class: "about" });
  const alignedButton = button("Aligned", "I", () => align());
  const marksButton = button("Outlines", "H", () => mark());
  const findButton = el("button", { type: "button", class: "button amber", onclick: () => find() }, "Find matches", el("kbd", {}, "M"));
  const fullButton = button("Full size", "F", () => full());
  const step = (by, name, text) => el("button", { type: "button", class: "button", "aria-label": name, onclick: () => go(by) }, text);
  const dialog = el("dialog", { class: "compare", "aria-label": "Compare" },
    el("header", {}, what, button("Close", "Esc", () => dialog.close())),
    box,
    el("footer", {}, el("div", { class: "abouts" }, left, right),
      el("div", { class: "buttons" }, step(-1, "Previous", "↑"), step(1, "Next", "↓"), alignedButton, marksButton, fullButton, findButton)));

  function slide() {
    stage.style.setProperty("--cut", `${slider.value}%`);
    names.classList.toggle("left", slider.value < 12);
    names.classList.toggle("right", slider.value > 88);
  }

  function fit() {
    if (!current?.match.size) return;
    const [width, height] = current.match.size, room = box.getBoundingClientRect();
    const scale = Math.min(room.width / width, room.height / height);
    const w = Math.max(1, Math.round(width * scale)), h = Math.max(1, Math.round(height * scale));
    stage.style.width = `${w}px`;
    stage.style.height = `${h}px`;
    const laid = aligned && Array.isArray(current.laid);
    over.classList.toggle("laid", laid);
    if (laid) {
      const [a, b, c, d, e, f] = current.laid;
      over.style.transform = `matrix(${a}, ${(d * h) / w}, ${(b * w) / h}, ${e}, ${c * w}, ${f * h})`;
    } else over.style.transform = "";
    const boxes = laid ? current.differs ?? [] : [];
    marks.replaceChildren(...(marked ? ["rim", "mark"] : []).map((kind) => svg("path", { class: kind, d: boxes.map((one) => outline(one, current.laid)).join("") })));
    marksButton.hidden = !boxes.length;
    marksButton.setAttribute("aria-pressed", marked);
    alignedButton.hidden = !Array.isArray(current.laid);
    alignedButton.setAttribute("aria-pressed", laid);
  }

  async function show() {
    current = pair(at);
    const mine = current;
    under.src = current.match.src;
    over.src = current.query.src;
    under.alt = `${current.match.label}: ${current.match.title}`;
    over.alt = `${current.query.label}: ${current.query.title}`;
    names.children[0].textContent = current.query.label;
    names.children[1].textContent = current.match.label;
    for (const [node, one] of [[left, current.query], [right, current.match]]) {
      node.replaceChildren(el("span", {}, `${one.label} `), pathText(one.title), one.size ? el("span", { class: "size" }, one.size.join(" × ")) : "");
    }
    describe(current.similarity, current.text);
    current.laid = current.place instanceof Promise ? null : current.place;
    fit();
    if (current.place instanceof Promise) {
      const found = await current.place.catch(() => null);
      if (current !== mine) return;
      current.laid = found?.place ?? null;
      current.differs = found?.differs ?? [];
      if (found?.similarity) describe(found.similarity, found.reason);
      fit();
    }
  }

  function describe(similarity, text) {
    what.replaceChildren(similarity === null ? "" : el("b", {}, similarity.toFixed(2)), " ", text ?? "");
  }

  function go(by) {
    const next = at + by;
    if (next < 0 || next >= count) return;
    at = next;
    show();
  }

  function align() { aligned = !aligned; fit(); }

  function mark() { marked = !marked; fit(); }

  function full() { openPhoto({ photo: () => collection.photo(current.row) }); }

  function find() {
    const { row } = current;
    dialog.close();
    location.hash = `#/row/${row}`;
  }

  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = event.target.tagName === "BUTTON";
    const done = {
      ArrowUp: () => go(-1), ArrowDown: () => go(1), PageUp: () => go(-1), PageDown: () => go(1), p: () => go(-1), n: () => go(1),
      i: align, h: mark, f: full, m: find,
      ArrowLeft: () => { slider.value = Number(slider.value) - 4; slide(); },
      ArrowRight: () => { slider.value = Number(slider.value) + 4; slide(); },
      " ": () => {
        if (onButton) return false;
        const now = Number(slider.value);
        slider.value = now === 0 ? 100 : 0;
        slide();
        return true;
      },
      Enter: () => { if (onButton) return false; find(); return true; },
    }[keyOf(event)];
    if (done && done() !== false) {
      event.preventDefault();
      event.stopPropagation();
    }
  });
  const observer = new ResizeObserver(fit);
  dialog.addEventListener("close", () => {
    observer.disconnect();
    dialog.remove();
    closed?.(at);
  });
  document.body.append(dialog);
  dialog.showModal();
  observer.observe(box);
  slide();
  show();
  slider.focus();
}

// The outline of a box of the query, with some room, as a path in the unit square of the match; it may be turned.
function outline([left, top, right, bottom], [a, b, c, d, e, f]) {
  const corners = [[left - ROOM, top - ROOM], [right + ROOM, top - ROOM], [right + ROOM, bottom + ROOM], [left - ROOM, bottom + ROOM]];
  return `M${corners.map(([x, y]) => `${a * x + b * y + c} ${d * x + e * y + f}`).join("L")}Z`;
}

function svg(tag, props) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  return node;
}

export const COMPARE_KEYS = [
  [["ArrowLeft", "ArrowRight"], "Move the divider", null],
  [[" "], "Show one image or the other", null],
  [["ArrowUp", "ArrowDown"], "Previous or next image", null],
  [["n", "p"], "Next or previous image", null],
  [["i"], "Aligned, or as they are", null],
  [["h"], "Hide or show the outlines of what differs", null],
  [["f"], "Full size of the image", null],
  [["m", "Enter"], "Find matches of the image", null],
  [["Escape"], "Close", null],
];
