// A button that opens a small panel below it; Escape, a click elsewhere and `close()` close it.

import { el } from "./dom.js";

// Returns a <details>; its `label(text)` sets the text of the button. `opened()` is called when it was opened.
export function menu(name, text, panel, { opened = () => {}, ...props } = {}) {
  const shown = el("span", { class: "menu-text" }, text);
  const summary = el("summary", { class: "button", "aria-label": `${name}: ${text}` }, shown);
  const box = el("div", { class: "menu-panel" }, panel);
  const node = el("details", { ...props, class: `menu ${props.class ?? ""}` }, summary, box);
  node.addEventListener("toggle", () => { if (node.open) { opened(); place(node, box); } });
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

// Moves a panel into the window: to the left if it is too wide, and above the button if there is more room.
function place(node, box) {
  const button = node.getBoundingClientRect(), top = document.querySelector(".top").offsetHeight, margin = 12;
  const below = innerHeight - button.bottom - margin, above = button.top - top - margin, isAbove = below < 200 && above > below && !node.closest(".top");
  box.classList.toggle("above", isAbove);
  box.style.maxHeight = `${Math.max(120, Math.min(440, (isAbove ? above : below) - 6))}px`;
  box.style.left = "0";
  const { left, right } = box.getBoundingClientRect(), width = document.documentElement.clientWidth;
  box.style.left = `${Math.max(margin - left, Math.min(0, width - margin - right))}px`;
}
