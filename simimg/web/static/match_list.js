// The matches of a query in an order, and as a table (CSV).

import { saveFile } from "./dom.js";

export const ORDERS = {
  similarity: ["Most similar first", null],
  name: ["By name", (collection, one, other) => collection.path[one.row].localeCompare(collection.path[other.row], undefined, { numeric: true })],
  date: ["Newest first", (collection, one, other) => collection.modified[other.row] - collection.modified[one.row]],
  pixels: ["Most pixels first", (collection, one, other) => pixels(collection, other.row) - pixels(collection, one.row)],
  bytes: ["Largest file first", (collection, one, other) => collection.num_bytes[other.row] - collection.num_bytes[one.row]],
};

function pixels(collection, row) { return collection.width[row] * collection.height[row]; }

export function inOrder(matches, order, collection) {
  const compare = ORDERS[order][1];
  return compare ? matches.toSorted((one, other) => compare(collection, one, other)) : matches;
}

// Quotes a cell if it needs it; a spreadsheet would run what begins like a formula.
function cell(value) {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function saveMatches(query, matches, collection) {
  const rows = [["query", "path", "similarity", "copy", "reason", "label", "split", "width", "height", "num_bytes"]];
  for (const { row, similarity, copy, reason } of matches) {
    rows.push([query, collection.path[row], similarity, copy, reason, collection.labelOf(row), collection.splits[collection.split[row]],
      collection.width[row], collection.height[row], collection.num_bytes[row]]);
  }
  const text = rows.map((row) => row.map(cell).join(",")).join("\n");
  saveFile(`${query.split("/").pop().replace(/\.[^.]*$/, "") || "matches"}-matches.csv`, "text/csv", `${text}\n`);
}
