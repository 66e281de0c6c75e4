// Keyboard shortcuts: registered with a description, from which the list behind "?" is made.

import { el } from "./dom.js";

const NAMES = {
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", " ": "Space", Enter: "Enter",
  Delete: "Del",
};
const groups = new Map(); // title -> {active, keys: [{keys, what, run}]}

// `active()` is whether the shortcuts of the group apply; `run(event)` may return false to ignore the key.
export function keys(title, active, list) {
  groups.set(title, { active, list: list.map(([pressed, what, run]) => ({ pressed, what, run })) });
}

function isTyping({ target, key }) {
  if (target.isContentEditable || target.tagName === "SELECT" || target.tagName === "TEXTAREA") return true;
  if (target.tagName !== "INPUT") return false;
  if (target.type === "range") return /^(Arrow|Page|Home|End)/.test(key);
  return !["checkbox", "button", "radio"].includes(target.type);
}

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (isTyping(event) && event.key !== "Escape") return;
    if (document.querySelector("dialog[open]")) return; // it has keys of its own
    for (const { active, list } of [...groups.values()].reverse()) {
      if (!active()) continue;
      for (const { pressed, run } of list) {
        if (run && pressed.includes(event.key) && run(event) !== false) {
          event.preventDefault();
          return;
        }
      }
    }
  });
}

export function showKeys() {
  const sections = [...groups].map(([title, { list }]) => el("section", {},
    el("h2", {}, title),
    el("dl", {}, list.flatMap(({ pressed, what }) => [
      el("dt", {}, pressed.flatMap((key, place) => [place ? " " : "", el("kbd", {}, NAMES[key] ?? key)])),
      el("dd", {}, what),
    ]))));
  const close = el("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Close");
  const dialog = el("dialog", { class: "keys", "aria-label": "Keyboard shortcuts" },
    el("header", {}, el("h1", {}, "Keyboard shortcuts"), close), el("div", { class: "groups" }, sections));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => { if (event.key === "?") dialog.close(); });
  document.body.append(dialog);
  dialog.showModal();
}
