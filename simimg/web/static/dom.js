// Creates elements without HTML strings, so that a file name can never become markup.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("aria-") && typeof value === "boolean") { node.setAttribute(name, value); continue; }
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "value" || name === "checked" || name === "disabled") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function button(text, key, run, props = {}) {
  return el("button", { type: "button", class: "button", onclick: run, ...props }, text, key ? el("kbd", {}, key) : null);
}

// Saves a text as a file of the user.
export function saveFile(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// A path that the browser shortens in the middle if there is no room for it.
export function pathText(path, className = "path") {
  const slash = path.lastIndexOf("/") + 1;
  const folder = slash ? el("span", { class: "folder" }, path.slice(0, slash)) : null;
  return el("span", { class: className, title: path }, folder, el("span", { class: "file" }, path.slice(slash)));
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

// As precise as the server sends it, so that what is shown is what is compared: 0.9 as "0.90", 0.8734 as it is.
export function similarityText(value) {
  return value.toFixed(4).replace(/0{1,2}$/, "");
}

export function bytes(number) {
  if (number < 1000) return `${number} B`;
  if (number < 1e6) return `${Math.round(number / 1e3)} KB`;
  if (number < 1e9) return `${(number / 1e6).toFixed(number < 1e7 ? 1 : 0)} MB`;
  return `${(number / 1e9).toFixed(1)} GB`;
}

export function say(text) {
  document.getElementById("live").textContent = text;
}

let toastTimer = 0;
export function toast(text) {
  const node = document.getElementById("toast");
  node.textContent = text;
  node.hidden = false;
  if (node.matches(":popover-open")) node.hidePopover();
  node.showPopover(); // above any dialog
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { node.hidden = true; node.hidePopover(); }, 7000);
}
