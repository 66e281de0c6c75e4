// A button that opens a small panel below it; Escape, a click elsewhere and `close()` close it.

import { el } from "./dom.js";

// Returns a <details>; its `label(text)` sets the text of the button.
export function menu(name, text, panel, props = {}) {
  const shown = el("span", { class: "menu-text" }, text);
  const summary = el("summary", { class: "button", "aria-label": `${name}: ${text}` }, shown);
  const node = el("details", { ...props, class: `menu ${props.class ?? ""}` }, summary, el("div", { class: "menu-panel" }, panel));
  node.close = (refocus = true) => { if (node.open) { node.open = false; if (refocus) summary.focus(); } };
  node.label = (now) => { shown.textContent = now; summary.setAttribute("aria-label", `${name}: ${now}`); };
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !node.open) return;
    event.preventDefault();
    event.stopPropagation();
    node.close();
  });
  node.addEventListener("focusout", (event) => { if (event.relatedTarget && !node.contains(event.relatedTarget)) node.open = false; });
  document.addEventListener("pointerdown", (event) => { if (!node.contains(event.target)) node.open = false; });
  return node;
}
