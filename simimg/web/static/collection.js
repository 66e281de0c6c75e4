// The images of the index, by row.

import { bytes } from "./dom.js";

export class Collection {
  #lower = null;
  #folders = null;

  constructor(values) {
    Object.assign(this, values);
    this.size = values.path.length;
    this.isDated = values.modified.some((time) => time > 0);
    this.hasFolders = values.path.some((path) => path.includes("/"));
  }

  // The paths in lower case, for filters.
  get lower() { return this.#lower ??= this.path.map((path) => path.toLowerCase()); }

  // The folder of all images: {path, name, count, folders: Map of those in it, by name, in their order}.
  get folders() { return this.#folders ??= folderOf(this.path); }

  thumbnail(row) { return `api/thumbnail/${row}?v=${this.generation}`; }
  full(row) { return `api/full/${row}?v=${this.generation}`; }
  photo(row) { return { src: this.large(row), full: this.full(row), title: this.path[row], size: [this.width[row], this.height[row]], row }; }
  large(row) { return `api/picture/${row}?v=${this.generation}`; }
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
}

function folderOf(paths) {
  const root = { path: "", name: "", count: paths.length, folders: new Map() };
  for (const path of paths) {
    let folder = root;
    for (let start = 0, slash = path.indexOf("/"); slash >= 0; start = slash + 1, slash = path.indexOf("/", start)) {
      const name = path.slice(start, slash);
      let next = folder.folders.get(name);
      if (!next) folder.folders.set(name, next = { path: path.slice(0, slash), name, count: 0, folders: new Map() });
      next.count += 1;
      folder = next;
    }
  }
  const compared = new Intl.Collator("en", { numeric: true }).compare;
  const sort = (folder) => {
    folder.folders = new Map([...folder.folders].sort(([one], [other]) => compared(one, other)));
    folder.folders.forEach(sort);
  };
  sort(root);
  return root;
}
