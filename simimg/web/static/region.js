// A part of an image that is drawn with the pointer, or moved by key, to search for it alone.

import { el } from "./dom.js";

const LEAST = 0.06; // of a side

// Lays a frame over the image of a window, which shows it whole (object-fit: contain). `chosen([left, top, right, bottom])`
// is called with shares of the image; returns a function that removes the frame.
export function drawRegion(frame, size, chosen, cancelled) {
  let box = [0.25, 0.25, 0.75, 0.75], from = null;
  const mark = el("i", { class: "region-mark" });
  const layer = el("div", { class: "region", tabindex: "0", role: "application",
    "aria-label": "Part to search for. Arrow keys move it, with Shift they change its size, Enter searches, Escape cancels." }, mark);

  function area() { // of the image in the window, in px
    const { width, height } = frame.getBoundingClientRect(), scale = Math.min(width / size[0], height / size[1]);
    const w = size[0] * scale, h = size[1] * scale;
    return { left: (width - w) / 2, top: (height - h) / 2, w, h };
  }

  function draw() {
    const { left, top, w, h } = area();
    Object.assign(mark.style, { left: `${left + box[0] * w}px`, top: `${top + box[1] * h}px`, width: `${(box[2] - box[0]) * w}px`, height: `${(box[3] - box[1]) * h}px` });
  }

  function point(event) {
    const { left, top } = frame.getBoundingClientRect(), inside = area(), within = (value) => Math.min(1, Math.max(0, value));
    return [within((event.clientX - left - inside.left) / inside.w), within((event.clientY - top - inside.top) / inside.h)];
  }

  function done() {
    layer.remove();
    chosen(box.map((value) => Math.round(value * 1e4) / 1e4));
  }

  function change(horizontal, vertical, resize) {
    let [left, top, right, bottom] = box;
    if (resize) {
      right = Math.min(1, Math.max(left + LEAST, right + horizontal));
      bottom = Math.min(1, Math.max(top + LEAST, bottom + vertical));
    } else {
      const dx = Math.min(1 - right, Math.max(-left, horizontal)), dy = Math.min(1 - bottom, Math.max(-top, vertical));
      [left, right, top, bottom] = [left + dx, right + dx, top + dy, bottom + dy];
    }
    box = [left, top, right, bottom];
    draw();
  }

  layer.addEventListener("pointerdown", (event) => {
    from = point(event);
    layer.setPointerCapture(event.pointerId);
    event.preventDefault();
    layer.focus();
  });
  layer.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = point(event);
    box = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
    draw();
  });
  layer.addEventListener("pointerup", () => {
    const drawn = from && box[2] - box[0] >= LEAST && box[3] - box[1] >= LEAST;
    from = null;
    if (drawn) done();
    else { box = [0.25, 0.25, 0.75, 0.75]; draw(); } // a click is no part
  });
  layer.addEventListener("keydown", (event) => {
    const step = 0.04, move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (move) change(...move, event.shiftKey);
    else if (event.key === "Enter") done();
    else if (event.key === "Escape") { layer.remove(); cancelled?.(); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  frame.append(layer);
  draw();
  layer.focus();
  return () => layer.remove();
}
