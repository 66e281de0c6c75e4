// Decisions about findings and images: what is stored, kept up to date with other windows, and undone.

import * as api from "./api.js";

const POLL_MS = 2500;

export class DecisionStore extends EventTarget {
  constructor() {
    super();
    this.audit = "";   // the version of the audit whose findings are numbered
    this.version = ""; // of what is decided
    this.decided = {}; // finding -> {decision, label, date, own}
    this.images = {};  // row -> [decision, label] of images that are dropped or relabeled
    this.done = [];    // for undo: lists of decisions that restore what counted before
    this.busy = false;
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.#ask(); });
  }

  // Keeps asking what is decided, as long as `wanted()`; decisions of other windows and commands are shown as they come.
  watch(wanted) {
    clearInterval(this.timer);
    this.timer = setInterval(() => {
      if (!wanted()) clearInterval(this.timer);
      else if (!document.hidden) this.#ask();
    }, POLL_MS);
    return this.#ask();
  }

  async #ask() {
    if (this.busy) return;
    const values = await api.changed("api/findings/decisions", this.version).catch(() => null); // the next one may succeed
    if (values && !this.busy) this.take(values);
  }

  take(values) {
    const isNew = values.version !== this.version, isOther = values.audit !== this.audit && this.audit !== "";
    this.version = values.version;
    this.decided = values.decided;
    this.images = values.images;
    this.audit = values.audit;
    if (isOther) {
      this.done = [];
      this.dispatchEvent(new Event("audit"));
    } else if (isNew) this.dispatchEvent(new Event("change"));
  }

  // What the browser believes is decided, so that nothing is overwritten that it has not seen.
  #before({ finding, row }) {
    if (finding === undefined) return this.images[row] ?? null;
    const known = this.decided[finding];
    return known ? [known.decision, known.label] : null;
  }

  // list: [{finding or row, decision, label}]; returns whether it was stored.
  async decide(list) {
    const undo = await this.#send(list.map((one) => ({ ...one, before: this.#before(one) })));
    if (undo?.length) this.done.push(undo);
    return Boolean(undo);
  }

  // Returns the decisions that were restored, or null if there is nothing to undo.
  async undo() {
    const last = this.busy ? null : this.done.pop();
    if (!last) return null;
    try {
      await this.#send(last);
    } catch (error) {
      this.done.push(last);
      throw error;
    }
    return last;
  }

  async #send(decisions) {
    if (this.busy) return null;
    this.busy = true;
    try {
      const values = await api.send("api/findings/decisions", "POST", { version: this.audit, decisions });
      this.take(values);
      return values.undo;
    } finally {
      this.busy = false;
      this.#ask();
    }
  }

  get counts() {
    const counts = { drop: 0, relabel: 0 };
    for (const [decision] of Object.values(this.images)) counts[decision] += 1;
    return counts;
  }
}
