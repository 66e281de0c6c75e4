// Shows an image at full size: zoomed by wheel, pinch, double click or key, and moved; with what is known of its file.

import * as api from "./api.js";
import { button, el, pathText, say, toast } from "./dom.js";
import { keyOf } from "./keys.js";

const MOST = 8, STEP = 1.4; // the largest zoom, and that of a key

// photo(place) returns {src, full, title, size: [width, height] or null, row or undefined}; `full` may be the same as src.
// `isQuery`: its matches are shown already.
export function openPhoto({ start = 0, count = 1, photo, isQuery = false, closed }) {
  let at = start, current = null, zoom = 1, x = 0, y = 0, whole = 1; // zoom: 1 is one pixel per pixel; x, y: of the center
  const image = el("img", { alt: "", draggable: "false" });
  const box = el("div", { class: "photo-box", tabindex: "0", role: "img" }, image);
  const title = el("p", { class: "what" }), details = el("dl", { class: "details" });
  const scale = el("output", { class: "scale", "aria-live": "polite" });
  const copy = button("Copy path", "Y", () => copyPath());
  const folder = button("Open folder", "G", () => openFolder(), { hidden: true });
  const find = button("Find matches", "M", () => findMatches());
  const sized = button("Whole image", "0", () => toggle());
  const steps = count > 1 ? [button("Previous", "←", () => go(-1)), button("Next", "→", () => go(1))] : [];
  const dialog = el("dialog", { class: "photo", "aria-label": "Image at full size" },
    el("header", {}, title, el("div", { class: "buttons" },
      button("−", null, () => zoomTo(zoom / STEP), { "aria-label": "Zoom out" }), scale,
      button("+", null, () => zoomTo(zoom * STEP), { "aria-label": "Zoom in" }),
      sized,
      button("Close", "Esc", () => dialog.close()))),
    box,
    el("footer", {}, details, el("div", { class: "buttons" }, steps, copy, folder, find)));

  function room() {
    const [width, height] = current.size ?? [image.naturalWidth || 1, image.naturalHeight || 1];
    return { width, height, w: box.clientWidth, h: box.clientHeight };
  }

  function fit() {
    const { width, height, w, h } = room();
    whole = Math.min(1, w / width, h / height);
    [zoom, x, y] = [whole, width / 2, height / 2];
    place();
  }

  function isWhole() { return zoom <= whole * 1.001; }

  // When there is another amount of room, also because a button has another text, the zoom stays.
  function resized() {
    if (isWhole()) { fit(); return; }
    const { width, height, w, h } = room();
    whole = Math.min(1, w / width, h / height);
    zoom = Math.max(zoom, whole);
    place();
  }

  // Goes from the whole image to its actual size, and back from any zoom.
  function toggle() {
    if (isWhole()) zoomTo(1);
    else fit();
  }

  // The point of the image under (left, top), or in the middle of the box, stays where it is.
  function zoomTo(wanted, left = box.clientWidth / 2, top = box.clientHeight / 2) {
    const { w, h } = room(), next = Math.min(MOST, Math.max(whole, wanted));
    const px = x + (left - w / 2) / zoom, py = y + (top - h / 2) / zoom;
    [x, y, zoom] = [px - (left - w / 2) / next, py - (top - h / 2) / next, next];
    place();
  }

  function place() {
    const { width, height, w, h } = room();
    const inside = (value, side, seen) => (seen >= side ? side / 2 : Math.min(side - seen / 2, Math.max(seen / 2, value)));
    x = inside(x, width, w / zoom);
    y = inside(y, height, h / zoom);
    image.style.width = `${width}px`;
    image.style.height = `${height}px`;
    image.style.transform = `translate(${w / 2 - x * zoom}px, ${h / 2 - y * zoom}px) scale(${zoom})`;
    image.classList.toggle("pixels", zoom >= 3);
    box.classList.toggle("moves", !isWhole());
    sized.firstChild.data = isWhole() ? "Actual size" : "Whole image";
    sized.disabled = whole === 1 && isWhole(); // they are the same
    scale.textContent = `${Math.round(zoom * 100)} %`;
  }

  async function show() {
    current = photo(at);
    const mine = current;
    image.src = mine.src;
    image.alt = mine.title;
    box.setAttribute("aria-label", mine.title);
    title.replaceChildren(pathText(mine.title), mine.size ? el("span", { class: "size" }, mine.size.join(" × ")) : "");
    details.replaceChildren();
    copy.hidden = folder.hidden = mine.row === undefined;
    find.hidden = isQuery || mine.row === undefined;
    fit();
    if (mine.full !== mine.src) sharpen(mine);
    if (mine.row === undefined) return;
    folder.hidden = true;
    const found = await api.json(`api/details/${mine.row}`).catch((error) => ({ error: error.message }));
    if (current !== mine) return;
    mine.file = found.file;
    folder.hidden = !found.can_open;
    copy.hidden = !found.file;
    const words = { taken: "Taken", camera: "Camera", lens: "Lens", exposure: "Exposure" };
    details.replaceChildren(...Object.entries(words).flatMap(([name, word]) => (found.details?.[name]
      ? [el("div", {}, el("dt", {}, word), el("dd", {}, found.details[name]))] : [])));
    if (found.error) details.replaceChildren(el("div", {}, el("dd", {}, found.error)));
    requestAnimationFrame(() => { if (isWhole()) fit(); });
  }

  // The reduced image is shown until the full one is there.
  function sharpen(mine) {
    const full = new Image();
    full.onload = () => { if (current === mine) { image.src = mine.full; dialog.dataset.full = "true"; } };
    delete dialog.dataset.full;
    full.src = mine.full;
  }

  function go(by) {
    if (at + by < 0 || at + by >= count) return;
    at += by;
    show();
  }

  function findMatches() {
    if (find.hidden) return;
    const { row } = current;
    dialog.close();
    location.hash = `#/row/${row}`;
  }

  async function copyPath() {
    if (!current.file) return;
    try {
      await navigator.clipboard.writeText(current.file);
      toast("The path was copied.");
    } catch { toast(current.file); } // the browser forbids it, but the path can be read
  }

  async function openFolder() {
    if (folder.hidden) return;
    try {
      await api.send(`api/open/${current.row}`, "POST", {});
      say("The folder was opened");
    } catch (error) { toast(error.message); }
  }

  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const pan = (dx, dy) => {
      if (isWhole()) { if (dx) go(Math.sign(dx)); return; }
      x += (dx * 80) / zoom;
      y += (dy * 80) / zoom;
      place();
    };
    const done = {
      "+": () => zoomTo(zoom * STEP), "=": () => zoomTo(zoom * STEP), "-": () => zoomTo(zoom / STEP), 0: toggle,
      ArrowLeft: () => pan(-1, 0), ArrowRight: () => pan(1, 0), ArrowUp: () => pan(0, -1), ArrowDown: () => pan(0, 1),
      PageUp: () => go(-1), PageDown: () => go(1), p: () => go(-1), n: () => go(1), y: copyPath, g: openFolder,
      m: findMatches, f: () => dialog.close(),
    }[keyOf(event)];
    if (!done) return;
    done();
    event.preventDefault();
    event.stopPropagation();
  });
  box.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { left, top } = box.getBoundingClientRect();
    zoomTo(zoom * Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0022)), event.clientX - left, event.clientY - top);
  }, { passive: false });
  box.addEventListener("dblclick", (event) => {
    const { left, top } = box.getBoundingClientRect();
    if (!isWhole()) fit();
    else zoomTo(Math.max(1, whole * 2), event.clientX - left, event.clientY - top);
  });
  const touches = new Map();
  box.addEventListener("pointerdown", (event) => {
    touches.set(event.pointerId, [event.clientX, event.clientY]);
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointermove", (event) => {
    const before = touches.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY], other = [...touches].find(([id]) => id !== event.pointerId)?.[1];
    touches.set(event.pointerId, now);
    if (other) {
      const { left, top } = box.getBoundingClientRect(), apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
      zoomTo((zoom * apart(now)) / apart(before), (now[0] + other[0]) / 2 - left, (now[1] + other[1]) / 2 - top);
    } else {
      x -= (now[0] - before[0]) / zoom;
      y -= (now[1] - before[1]) / zoom;
      place();
    }
  });
  for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, (event) => touches.delete(event.pointerId));
  image.addEventListener("load", () => { if (!current.size) fit(); });
  const observer = new ResizeObserver(() => { if (current) resized(); });
  dialog.addEventListener("close", () => {
    observer.disconnect();
    dialog.remove();
    closed?.(at);
  });
  document.body.append(dialog);
  dialog.showModal();
  show();
  observer.observe(box);
  box.focus();
}

export const PHOTO_KEYS = [
  [["+", "-"], "Zoom in or out", null],
  [["0"], "Whole image, or actual size", null],
  [["ArrowLeft", "ArrowRight"], "Previous or next image; when zoomed in, move", null],
  [["n", "p"], "Next or previous image", null],
  [["y"], "Copy the path", null],
  [["g"], "Open the folder", null],
  [["m"], "Find matches of the image", null],
  [["f", "Escape"], "Full size ends", null],
];
