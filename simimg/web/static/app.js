// The page: chooses the view by the hash of the address, receives dropped and pasted images, sets the theme.

import * as api from "./api.js";
import { AuditView } from "./audit.js";
import { Collection } from "./collection.js";
import { COMPARE_KEYS } from "./compare.js";
import { DecisionStore } from "./decisions.js";
import { el, toast } from "./dom.js";
import { keys, listen, showKeys } from "./keys.js";
import { menu } from "./menu.js";
import { MapView } from "./map.js";
import { PHOTO_KEYS } from "./photo.js";
import { ReviewView } from "./review.js";
import { SearchView } from "./search.js";

// The cookie has the token from now on, so the address need not show it.
if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname + location.hash);

const main = document.getElementById("main"), chooser = document.getElementById("file");
let views = null, shown = null;

function route() {
  const [first = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const name = ["copies", "map", "audit"].includes(first) ? first : "search";
  const view = views[name];
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close(); // they are of the view that is left
  if (shown !== view) {
    shown?.hide?.();
    main.replaceChildren(view.node);
    shown = view;
  }
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  view.show(name === "search" ? [first, ...rest] : rest);
}

function isShown({ address }) { return decodeURI(location.pathname) === address; }

// Another index is shown in the same view.
function addressOf({ address }) {
  const view = document.querySelector("nav a[aria-current]")?.hash ?? "";
  return encodeURI(address) + (view === "#/" ? "" : view);
}

function indexMenu(indexes) {
  const now = indexes.find(isShown);
  const list = el("ul", { class: "indexes" }, indexes.map((index) => {
    const link = el("a", { href: addressOf(index), "aria-current": index === now ? "true" : null },
      el("span", { class: "name" }, index.name), el("span", { class: "number" }, index.num_images.toLocaleString("en")));
    link.addEventListener("click", () => { link.href = addressOf(index); });
    return el("li", {}, link);
  }));
  document.getElementById("collection").classList.add("several");
  return menu("Index", now?.name ?? "", list);
}

function turnView(by) {
  const links = [...document.querySelectorAll("nav a")], now = links.findIndex((link) => link.hasAttribute("aria-current"));
  location.hash = links[(now + by + links.length) % links.length].hash;
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme; // "" is that of the system
  try { localStorage.setItem("theme", theme); } catch { /* storage is disabled */ }
  document.dispatchEvent(new Event("themechange"));
}

function toggleTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const now = document.documentElement.dataset.theme || system, next = now === "dark" ? "light" : "dark";
  setTheme(next === system ? "" : next);
}

// The images among some files; without any, the first file, which the server will not take.
function imageFiles(transfer) {
  const files = [...(transfer?.files ?? [])];
  const images = files.filter((file) => file.type.startsWith("image/") || /\.(hei[cf]|tiff?|jp2|dng)$/i.test(file.name));
  return images.length ? images : files.slice(0, 1);
}

function receiveImages() {
  const veil = document.getElementById("dropping");
  let depth = 0;
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => { if (hasFiles(event)) { depth += 1; veil.hidden = false; } });
  addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); veil.hidden = depth === 0; });
  addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    depth = 0;
    veil.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    const files = imageFiles(event.dataTransfer);
    if (files.length) views.search.take(files);
  });
  addEventListener("paste", (event) => {
    const files = imageFiles(event.clipboardData);
    if (!files.length) return;
    event.preventDefault();
    views.search.take(files);
  });
  chooser.addEventListener("change", () => {
    if (chooser.files.length) views.search.take([...chooser.files]);
    chooser.value = "";
  });
}

async function start() {
  try { setTheme(localStorage.getItem("theme") ?? ""); } catch { /* storage is disabled */ }
  document.getElementById("theme").addEventListener("click", toggleTheme);
  document.getElementById("help").addEventListener("click", showKeys);
  let collection, indexes;
  try {
    [collection, indexes] = await Promise.all([api.json("api/collection").then((values) => new Collection(values)), api.json("/api/indexes")]);
  } catch (error) {
    main.append(el("p", { class: "quiet empty" }, error.message));
    return;
  }
  const size = el("span", { class: "count" }, `${collection.size.toLocaleString("en")} images`);
  document.getElementById("collection").append(indexes.length > 1 ? indexMenu(indexes) : el("span", {}, collection.name), size);
  if (indexes.length > 1) {
    keys("Several indexes", () => true, [[["j", "J"], "Next or previous index", (event) => {
      location.assign(addressOf(indexes.at((indexes.findIndex(isShown) + (event.shiftKey ? -1 : 1)) % indexes.length)));
    }]]);
  }
  keys("Everywhere", () => true, [
    [["?"], "Show these shortcuts", showKeys],
    [["v", "V"], "Next or previous view", (event) => turnView(event.shiftKey ? -1 : 1)],
    [["/"], "Filter by name", () => {
      const view = shown.focusFilter ? shown : views.search;
      if (view !== shown) location.hash = "#/";
      view.focusFilter();
    }],
    [["o"], "Choose images to search for", () => chooser.click()],
    ...(collection.has_text ? [[["q"], "Describe an image to search for", () => {
      if (shown !== views.search) location.hash = "#/";
      return views.search.focusText();
    }]] : []),
    [["t"], "Light or dark theme", toggleTheme],
    [["Escape"], "Leave an input field", (event) => { if (event.target === document.body) return false; event.target.blur?.(); return true; }],
  ]);
  const store = new DecisionStore();
  views = { search: new SearchView(collection), copies: new ReviewView(collection), map: new MapView(collection, store),
    audit: new AuditView(collection, store) };
  keys("Compare", () => false, COMPARE_KEYS);
  keys("Full size", () => false, PHOTO_KEYS);
  listen();
  receiveImages();
  addEventListener("hashchange", route);
  addEventListener("unhandledrejection", (event) => toast(event.reason?.message ?? "Something went wrong."));
  route();
}

start();
