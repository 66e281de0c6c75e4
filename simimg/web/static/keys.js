// Keyboard shortcuts: registered with a description, from which the list behind "?" is made.
//
// A letter, a digit or a sign means the same in every view and dialog, and its descriptions begin with the same word; with
// Shift, it is about the whole group. Arrow keys, Enter, Space and Escape belong to what has the focus.

import { el } from "./dom.js";

const NAMES = {
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", " ": "Space", Enter: "Enter",
  Delete: "Del",
};

// The name of a key as it is registered: a letter is capital only with Shift, whatever Caps Lock says.
export function keyOf(event) {
  if (event.key.length > 1) return event.key;
  return event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase();
}

function keyName(key) {
  if (/^[A-Z]$/.test(key)) return `⇧${key}`;
  return NAMES[key] ?? key.toUpperCase();
}

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
    if (document.querySelector("dialog[open]")) return; // it has keys of its own
    if (isTyping(event)) {
      if (event.key !== "Escape") return;
      event.target.blur(); // Escape leaves the field, and nothing else
      event.preventDefault();
      return;
    }
    const key = keyOf(event);
    for (const { active, list } of [...groups.values()].reverse()) {
      if (!active()) continue;
      for (const { pressed, run } of list) {
        if (run && pressed.includes(key) && run(event) !== false) {
          event.preventDefault();
          return;
        }
      }
    }
  });
}

// Many keys, as those of the classes, are a range.
function shownKeys(pressed) { return pressed.length > 4 ? [`${pressed[0]} – ${pressed.at(-1)}`] : pressed; }

export function showKeys() {
  const sections = [...groups].map(([title, { list }]) => el("section", {},
    el("h2", {}, title),
    el("dl", {}, list.flatMap(({ pressed, what }) => [
      el("dt", {}, shownKeys(pressed).flatMap((key, place) => [place ? " " : "", el("kbd", {}, keyName(key))])),
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
