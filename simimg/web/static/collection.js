// The images of the index, by row.

import { bytes } from "./dom.js";

export class Collection {
  #lower = null;

  constructor(values) {
    Object.assign(this, values);
    this.size = values.path.length;
    this.isDated = values.modified.some((time) => time > 0);
  }

  // The paths in lower case, for filters.
  get lower() { return this.#lower ??= this.path.map((path) => path.toLowerCase()); }

  thumbnail(row) { return `/api/thumbnail/${row}?v=${this.generation}`; }
  full(row) { return `/api/full/${row}?v=${this.generation}`; }
  photo(row) { return { src: this.large(row), full: this.full(row), title: this.path[row], size: [this.width[row], this.height[row]], row }; }
  large(row) { return `/api/picture/${row}?v=${this.generation}`; }
  fileName(row) { return this.path[row].slice(this.path[row].lastIndexOf("/") + 1); }
  labelOf(row) { return this.labels[this.label[row]]; }

  // What the comparison shows of an image.
  side(row, label) {
    return { src: this.large(row), title: this.path[row], label, size: [this.width[row], this.height[row]] };
  }

  facts(row) {
    const size = `${this.width[row]} × ${this.height[row]}`;
    return this.num_bytes[row] ? `${size} · ${bytes(this.num_bytes[row])}` : size;
  }

  // Returns the rows whose path contains a text, of a class and a split; "" matches all.
  rows(text, label, split) {
    const wanted = text.trim().toLowerCase(), found = [];
    const ofLabel = label === "" ? -1 : this.labels.indexOf(label);
    const ofSplit = split === "" ? -1 : this.splits.indexOf(split);
    for (let row = 0; row < this.size; row++) {
      if (ofLabel >= 0 && this.label[row] !== ofLabel) continue;
      if (ofSplit >= 0 && this.split[row] !== ofSplit) continue;
      if (wanted && !this.lower[row].includes(wanted)) continue;
      found.push(row);
    }
    return found;
  }
}
