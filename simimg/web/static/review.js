// Review of copies, group by group: which image is kept, and which are removed. The plan is only written on request;
// decisions are stored at once, and what they settle is not shown again.

import * as api from "./api.js";
import { openCompare } from "./compare.js";
import { button, bytes, count, el, pathText, say, similarityText, toast } from "./dom.js";
import { keyOf, keys } from "./keys.js";
import { openPhoto } from "./photo.js";
import { mount } from "./search.js";

const FRAME_PX = 82; // of the strip
const IN_REFERENCE = "always kept, in a reference folder";
const DECIDED = "kept, as decided";
const ASKED = "kept, a question: it differs by more than size and compression";

export class ReviewView {
  constructor(collection) {
    this.collection = collection;
    this.data = null;
    this.choices = []; // per group: {keep: row, remove: Set of rows, seen}
    this.done = [];    // for undo: [group, previous choice, of a decision: {members, decisions} that restore it]
    this.at = 0;
    this.cursor = 0;
    this.dirty = false;
    this.edits = 0; // since the groups were loaded; tells whether there were any while the plan was being saved
    this.saving = false;
    this.deciding = false;
    this.node = el("div", { class: "view copies" });
    this.#register();
    addEventListener("resize", () => { if (this.strip?.isConnected) this.#drawStrip(); });
    addEventListener("beforeunload", (event) => { if (this.dirty) event.preventDefault(); });
  }

  async show() {
    document.title = `Copies · ${this.collection.name} · simimg`;
    scrollTo(0, 0);
    if (!this.data) await this.#load();
    else if (this.strip?.isConnected) this.#drawStrip();
  }

  hide() { clearTimeout(this.timer); this.timer = 0; if (this.data?.job.state === "running") this.data = null; }

  async #load() {
    this.#take(await api.json("api/review"));
  }

  #take(data) {
    const before = this.data;
    this.data = data;
    if (data.job.state === "running") {
      if (before?.job.state !== "running") this.#drawRunning();
      this.#progress();
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.#load().catch((error) => toast(error.message)), 400);
      return;
    }
    if (data.job.state === "failed") toast(data.job.error);
    if (data.plan.problem) toast(data.plan.problem);
    data.groups.sort((one, other) => hasQuestion(other) - hasQuestion(one)); // what a person has to judge comes first
    this.choices = data.groups.map((group) => ({ keep: group.keep, remove: new Set(group.remove), seen: false, reviewed: false, decided: "" }));
    this.done = [];
    this.at = this.cursor = this.edits = 0;
    this.dirty = data.groups.some((group) => group.remove.length) && !data.plan.version;
    if (data.groups.length) {
      this.#build();
      say(`${count(data.groups.length, "group")} of copies`);
    } else this.#drawStart();
  }

  #register() {
    const here = () => this.node.isConnected && this.#shown;
    const onButton = (event) => event.target.tagName === "BUTTON";
    keys("Copies", here, [
      [["ArrowLeft", "ArrowRight"], "Previous or next image", (event) => this.#move(event.key === "ArrowLeft" ? -1 : 1)],
      [["ArrowUp", "ArrowDown"], "Previous or next group", (event) => this.#go(this.at + (event.key === "ArrowUp" ? -1 : 1))],
      [["n", "p"], "Next or previous group", (event) => this.#go(this.at + (keyOf(event) === "n" ? 1 : -1))],
      [["k"], "Keep the image", () => this.#keep()],
      [["x", "Delete"], "Remove the image", () => this.#remove()],
      [["Enter"], "Keep it as the best image", (event) => (onButton(event) ? false : this.#best())],
      [["K"], "Keep all images of the group", () => this.#all(false)],
      [["X"], "Remove all but the best", () => this.#all(true)],
      [["d"], "For good: this image is not a copy of the others", () => { this.#different(); }],
      [["D"], "For good: these are not copies", () => { this.#settle("not copies"); }],
      [["b"], "For good: the best stays, the others may go", () => { this.#settle("this one"); }],
      [["B"], "For good: these are copies, and all stay", () => { this.#settle("keep all"); }],
      [["c"], "Compare it with the best", () => this.#compare()],
      [["f"], "Full size of the image", () => this.#full()],
      [["m"], "Find matches of the image", () => { location.hash = `#/row/${this.#row}`; }],
      [["u"], "Undo", () => { this.#undo(); }],
      [["s"], "Save the plan", () => { this.#save(); }],
    ]);
  }

  // Before the search

  #finder(text) {
    let { threshold } = this.data; // which the slider, in steps of 0.01, may not be able to show
    const slider = el("input", { type: "range", min: "0.5", max: "1", step: "0.01", value: String(threshold), id: "least",
      oninput: () => {
        threshold = Number(slider.value);
        output.textContent = similarityText(threshold);
      } });
    const output = el("output", { for: "least" }, similarityText(threshold));
    return el("div", { class: "finder" },
      el("div", { class: "threshold" }, el("label", { for: "least" }, "Minimum similarity"), output, slider),
      el("button", { type: "button", class: "button primary", onclick: () => this.#find(threshold) }, text));
  }

  #drawStart() {
    const nothing = this.data.searched, apart = this.data.num_left_out ? "Apart from what was decided, none" : "None";
    this.node.replaceChildren(el("section", { class: "start" },
      el("h1", {}, nothing ? (this.data.num_left_out ? "Nothing left to decide" : "No copies") : "Find copies in the collection"),
      el("p", {}, nothing ? `${apart} of ${count(this.collection.size, "image")} is a copy of another one at a similarity of ${similarityText(this.data.threshold)} or more.`
        : "Each image is compared with similar ones, and each pair is verified. Then you review the groups and choose which images to keep. This page moves no files: it writes a plan, which simimg apply carries out."),
      this.#finder(nothing ? "Search again" : "Find copies"), this.#remembered()));
  }

  async #find(threshold) {
    // What a search suggested, the next one suggests again; choices that were made by hand would be lost.
    if (this.dirty && this.edits && !confirm("Some choices are not saved. Search again and discard them?")) return;
    try {
      await api.send("api/review", "POST", { threshold });
    } catch (error) { toast(error.message); } // another search may be running: it is shown
    await this.#load();
  }

  #drawRunning() {
    this.bar = el("progress", { max: "1", value: 0, "aria-label": "Images compared" });
    this.barText = el("p", { class: "quiet" });
    this.soFar = el("h2", { hidden: true });
    this.previews = el("div", { class: "previews" });
    this.shownGroups = new Map();
    const cancel = el("button", { type: "button", class: "button", onclick: () => this.#cancel(cancel) }, "Cancel");
    this.node.replaceChildren(el("section", { class: "start running" }, el("h1", {}, "Comparing images"), this.bar,
      el("div", { class: "left" }, this.barText, cancel)), this.soFar, this.previews);
  }

  #progress() {
    const { done, total } = this.data.job;
    this.bar.max = Math.max(1, total);
    this.bar.value = done;
    const left = this.data.so_far.seconds_left;
    this.barText.textContent = `${done.toLocaleString("en")} of ${count(total, "image")}${left === null ? "" : ` · ${leftText(left)}`}`;
    this.#preview();
  }

  // The groups that were found so far; in the end some of them are joined, and some pairs turn out to show other things.
  #preview() {
    const { groups, num_groups: number } = this.data.so_far, { collection } = this, kept = new Set();
    this.soFar.hidden = !number;
    this.soFar.replaceChildren("Look like copies so far", el("span", { class: "number" }, number.toLocaleString("en")));
    for (const rows of groups) {
      kept.add(rows[0]);
      const known = this.shownGroups.get(rows[0]);
      if (known?.size === rows.length) continue;
      const node = el("a", { class: "preview", href: `#/row/${rows[0]}`, "aria-label": `${collection.path[rows[0]]}, ${count(rows.length, "image")}` },
        rows.slice(0, 2).map((row) => mount(collection, row)),
        el("span", { class: "caption" }, pathText(collection.fileName(rows[0])), el("b", {}, `×${rows.length}`)));
      if (known) known.node.replaceWith(node);
      else this.previews.append(node);
      this.shownGroups.set(rows[0], { node, size: rows.length });
    }
    for (const [row, { node }] of this.shownGroups) {
      if (kept.has(row)) continue;
      node.remove();
      this.shownGroups.delete(row);
    }
  }

  async #cancel(button) {
    button.disabled = true;
    try {
      await api.json("api/review", { method: "DELETE" });
    } catch (error) { toast(error.message); }
    await this.#load();
  }

  // What is remembered: decisions that leave groups out, and removed images that are back.
  #remembered() {
    const { num_left_out: settled, returned } = this.data;
    const leftOut = `What ${count(settled, "decision")} settled is left out; simimg decide --list lists what was decided.`;
    return [...(settled ? [leftOut] : []), ...returned].map((text) => el("p", { class: "quiet remembered" }, text));
  }

  // The groups

  #build() {
    this.strip = el("div", { class: "film strip", role: "group", "aria-label": "Groups" });
    this.title = el("h1", { tabindex: "-1" });
    this.note = el("p", { class: "quiet" });
    this.cards = el("div", { class: "cards", role: "group", "aria-label": "Images of this group" });
    this.sum = el("p", { class: "sum" });
    this.where = el("p", { class: "where quiet" });
    this.saveButton = el("button", { type: "button", class: "button primary", onclick: () => this.#save() }, "Save plan", el("kbd", {}, "S"));
    const searched = this.data.searched ? `Search again (these were found from ${similarityText(this.data.threshold)} on)` : "Search for copies";
    this.again = el("details", { class: "again" }, el("summary", {}, searched), this.#finder("Search"));
    this.node.replaceChildren(this.strip,
      el("header", { class: "group" }, el("div", {}, this.title, this.note),
        el("div", { class: "buttons" },
          button("Previous", "↑", () => this.#go(this.at - 1)), button("Next", "↓", () => this.#go(this.at + 1)),
          button("Keep all", "⇧K", () => this.#all(false)), button("Keep only the best", "⇧X", () => this.#all(true)),
          button("Not copies, for good", "⇧D", () => this.#settle("not copies")), button("All stay, for good", "⇧B", () => this.#settle("keep all")))),
      this.cards, ...this.#remembered(), this.again,
      el("footer", { class: "plan" }, el("div", {}, this.sum, this.where), this.saveButton));
    this.#draw();
  }

  #draw({ focus = false } = {}) {
    this.#drawStrip();
    const group = this.data.groups[this.at], choice = this.choices[this.at];
    choice.seen = true;
    this.title.textContent = `Group ${(this.at + 1).toLocaleString("en")} of ${this.data.groups.length.toLocaleString("en")}`;
    const removed = choice.remove.size, asked = group.members.filter((one) => isAsked(one, choice)).length;
    const fresh = group.members.filter((member) => !member.is_decided).length;
    this.note.textContent = `${count(group.members.length, "image")}, ${removed ? `${removed} to be removed` : "all kept"}`
      + (asked ? `, ${count(asked, "question")}: keep or remove what differs` : "")
      + (choice.decided ? ` · decided: ${choice.decided}; U undoes it` : fresh && fresh < group.members.length
        ? ` · shown again, because ${count(fresh, "image")} joined` : group.planned ? "" : " · not in the plan yet");
    this.cards.classList.toggle("few", group.members.length < 4);
    this.cards.replaceChildren(...group.members.map((member, place) => this.#card(member, place, choice)));
    this.#drawSum();
    if (focus) this.cards.children[this.cursor]?.focus({ preventScroll: false });
  }

  #drawStrip() {
    const frames = [], { groups } = this.data;
    const most = Math.max(3, Math.floor((this.strip.clientWidth - 26) / FRAME_PX));
    const first = Math.max(0, Math.min(this.at - Math.floor(most / 2), groups.length - most));
    for (let place = first; place < Math.min(first + most, groups.length); place++) {
      const choice = this.choices[place], asks = groups[place].members.some((member) => isAsked(member, choice));
      frames.push(el("button", { type: "button", tabindex: "-1", class: `${place === this.at ? "now" : ""}${choice.seen ? " seen" : ""}`,
        "aria-label": `Group ${place + 1}, ${groups[place].members.length} images${asks ? ", a question" : ""}${choice.reviewed ? ", reviewed" : ""}`, "aria-current": place === this.at ? "true" : null,
        onclick: () => this.#go(place) },
        mount(this.collection, choice.keep), el("span", { class: "edge" }, String(place + 1), el("b", {}, `${choice.reviewed ? "✓ " : asks ? "? " : ""}×${groups[place].members.length}`))));
    }
    this.strip.replaceChildren(el("div", { class: "frames" }, frames));
  }

  #card(member, place, choice) {
    const { collection } = this, { row } = member;
    const state = row === choice.keep ? "best" : choice.remove.has(row) ? "remove" : "keep";
    const text = { best: "the best image, kept", remove: "to be removed", keep: member.reference ? IN_REFERENCE : member.stays ? DECIDED : isAsked(member, choice) ? ASKED : "kept" }[state];
    const why = member.reference ? ", reference" : member.stays ? ", decided" : isAsked(member, choice) ? ", question" : "";
    const button = (text, run, pressed) => el("button", { type: "button", class: "button", "aria-pressed": pressed, tabindex: "-1",
      onclick: (event) => { event.stopPropagation(); this.cursor = place; run(); } }, text);
    return el("article", { class: `card ${state}${why === ", question" ? " asked" : ""}`, tabindex: place === this.cursor ? "0" : "-1", data: { row },
      "aria-label": `${collection.path[row]}, ${text}, ${member.reason}`,
      onfocus: () => this.#point(place), onclick: () => this.#point(place, true), ondblclick: () => this.#compare() },
      mount(collection, row),
      el("div", { class: "tag", title: why === ", question" ? ASKED : null }, { best: "Best", remove: "Remove", keep: "Keep" }[state], why),
      el("div", { class: "text" }, pathText(collection.path[row]),
        el("p", { class: "facts" }, collection.facts(row)),
        el("p", { class: "reason" }, place ? el("b", {}, member.similarity.toFixed(2)) : null, place ? " " : null, member.reason),
        member.remembered ? el("p", { class: "reason quiet remembered" }, member.remembered) : null),
      el("div", { class: "choice" },
        button("Best", () => this.#best(), state === "best"),
        button("Keep", () => this.#keep(), state === "keep"),
        member.reference || member.stays ? null : button("Remove", () => this.#remove(), state === "remove"),
        row === choice.keep ? null : button("Compare", () => this.#compare())));
  }

  #point(place, focus = false) {
    if (this.cursor !== place) {
      this.cards.children[this.cursor]?.setAttribute("tabindex", "-1");
      this.cursor = place;
      this.cards.children[place].setAttribute("tabindex", "0");
    }
    if (focus) this.cards.children[place].focus();
  }

  #drawSum() {
    let removals = 0, size = 0;
    const reviewed = this.choices.filter((choice) => choice.reviewed).length;
    for (const { remove } of this.choices) {
      for (const row of remove) { removals += 1; size += this.collection.num_bytes[row]; }
    }
    this.sum.replaceChildren(el("b", {}, count(removals, "file")), removals ? ` to be removed, ${bytes(size).replace(" ", "\u00a0")}` : " to be removed",
      el("span", { class: "reviewed" }, `reviewed ${reviewed.toLocaleString("en")} of ${this.choices.length.toLocaleString("en")}`), this.dirty ? el("span", { class: "unsaved" }, "not saved") : "");
    const { path, version, num_unknown: unknown, possible, problem } = this.data.plan;
    this.saveButton.disabled = !this.dirty || this.saving || !possible || Boolean(problem);
    if (problem) this.where.textContent = `${problem} It is left as it is, so nothing can be saved.`;
    else if (!possible) this.where.textContent = "The images of this index are not files of this machine, so none can be removed.";
    else if (version && !this.dirty) {
      const command = `simimg apply --plan=${/[^\w@%+=:,./-]/.test(path) ? `'${path.replaceAll("'", "'\\''")}'` : path} --dry_run`;
      const copy = el("button", { type: "button", class: "link", onclick: async () => {
        await navigator.clipboard.writeText(command);
        copy.textContent = "copied";
      } }, "copy");
      this.where.replaceChildren("Saved. ", el("code", {}, command), " shows what would be moved · ", copy);
    } else this.where.textContent = path + (unknown ? ` · ${count(unknown, "file")} of it not in the index; saving drops them` : "");
  }

  #go(place) {
    const next = Math.min(Math.max(place, 0), this.data.groups.length - 1);
    const forward = place > this.at, choice = this.choices[this.at];
    if (forward && !choice.reviewed) { // who goes on has looked at it
      choice.reviewed = true;
      if (next === this.at) this.#draw({ focus: true });
    }
    if (next === this.at) return;
    this.at = next;
    this.cursor = 0;
    this.#draw({ focus: true });
    say(`${this.title.textContent}, ${this.note.textContent}`);
  }

  #move(by) {
    const last = this.data.groups[this.at].members.length - 1;
    this.#point(Math.min(Math.max(this.cursor + by, 0), last), true);
  }

  get #shown() { return Boolean(this.data?.groups.length) && this.data.job.state !== "running"; }

  get #removable() { return removable(this.data.groups[this.at]); }

  get #row() { return this.data.groups[this.at].members[this.cursor].row; }

  #change(change, words) {
    const choice = this.choices[this.at];
    const before = copied(choice);
    change(choice);
    choice.reviewed = true;
    if (isSame(before, choice)) {
      this.#draw({ focus: true });
      return;
    }
    this.done.push([this.at, before]);
    this.#edited();
    this.#draw({ focus: true });
    say(words);
  }

  #edited() {
    this.edits += 1;
    this.dirty = true;
  }

  #keep() {
    const row = this.#row;
    this.#change((choice) => { choice.remove.delete(row); }, "kept");
  }

  #remove() {
    const { members } = this.data.groups[this.at], row = this.#row, rows = members.map((member) => member.row);
    if (members[this.cursor].reference) {
      toast(`This image is ${IN_REFERENCE}.`);
      return;
    }
    if (members[this.cursor].stays) {
      toast(`This image is ${DECIDED}. Decide again, or take it back with simimg decide --undo.`);
      return;
    }
    this.#change((choice) => {
      if (row === choice.keep) { // every group keeps an image
        choice.keep = rows.find((one) => one !== row && !choice.remove.has(one)) ?? rows.find((one) => one !== row);
        choice.remove.delete(choice.keep);
      }
      choice.remove.add(row);
    }, "to be removed");
  }

  #best() {
    const row = this.#row, removable = this.#removable;
    this.#change((choice) => {
      if (row === choice.keep) return;
      if (choice.remove.size && removable.includes(choice.keep)) choice.remove.add(choice.keep);
      choice.keep = row;
      choice.remove.delete(row);
    }, "the best image");
  }

  #all(remove) {
    const rows = this.#removable;
    this.#change((choice) => {
      choice.remove = new Set(remove ? rows.filter((row) => row !== choice.keep) : []);
    }, remove ? "all but the best to be removed" : "all kept");
  }

  async #undo() {
    const last = this.deciding ? null : this.done.pop();
    if (!last) return;
    const [at, before, decided] = last;
    if (decided && !await this.#store(at, decided.decisions)) {
      this.done.push(last);
      return;
    }
    if (decided) this.data.groups[at].members = decided.members;
    if (this.at !== at) this.cursor = 0;
    this.at = at;
    if (!isSame(before, this.choices[at])) this.#edited();
    this.choices[at] = before;
    this.#draw({ focus: true });
    say("undone");
  }

  // Decisions

  #settle(decision) {
    const { keep } = this.choices[this.at];
    const others = this.data.groups[this.at].members.map((member) => member.row).filter((row) => row !== keep);
    return this.#decide([{ decision, rows: [keep, ...others] }], decision, (choice, group) => {
      if (decision === "this one") choice.remove = new Set(removable(group).filter((row) => row !== keep));
    });
  }

  #different() {
    const row = this.#row;
    const others = this.data.groups[this.at].members.map((member) => member.row).filter((one) => one !== row);
    return this.#decide(others.map((other) => ({ decision: "not copies", rows: [row, other] })), "one is not a copy", (choice) => {
      if (row === choice.keep) [choice.keep] = others;
      choice.remove.delete(choice.keep);
    });
  }

  // Stores decisions about the group, and marks what follows from them.
  async #decide(decisions, words, change) {
    const { at } = this, group = this.data.groups[at], { members } = group, choice = this.choices[at], before = copied(choice);
    const stored = this.deciding ? null : await this.#store(at, decisions);
    if (!stored) return;
    const left = new Map(stored.members.map((member) => [member.row, member]));
    group.members = members.map((member) => ({ ...member, ...left.get(member.row) ?? { remembered: `decided: ${words}`, stays: true, is_decided: true } }));
    choice.decided = words;
    choice.reviewed = true;
    change(choice, group);
    for (const { row, stays } of group.members) if (stays) choice.remove.delete(row);
    this.done.push([at, before, { members, decisions: stored.undo }]);
    if (!isSame(before, choice)) this.#edited();
    this.#draw({ focus: true });
    say(`decided: ${words}`);
  }

  async #store(at, decisions) {
    const { keep } = this.choices[at], rows = this.data.groups[at].members.map((member) => member.row);
    this.deciding = true;
    try {
      return await api.send("api/decisions", "POST", { decisions, group: [keep, ...rows.filter((row) => row !== keep)] });
    } catch (error) {
      toast(error.message);
      return null;
    } finally { this.deciding = false; }
  }

  #compare() {
    const group = this.data.groups[this.at], { keep } = this.choices[this.at], { collection } = this;
    const others = group.members.filter((member) => member.row !== keep);
    openCompare({
      collection, start: Math.max(0, others.findIndex((member) => member.row === this.#row)), count: others.length,
      pair: (place) => ({
        query: collection.side(others[place].row, "this"), match: collection.side(keep, "best"), row: others[place].row,
        place: api.json(`api/pair?row=${others[place].row}&with=${keep}`),
        text: others[place].reason, similarity: others[place].similarity,
      }),
      closed: (place) => this.#point(group.members.indexOf(others[place]), true),
    });
  }

  #full() {
    const { members } = this.data.groups[this.at];
    openPhoto({ start: this.cursor, count: members.length, photo: (place) => this.collection.photo(members[place].row), closed: (place) => this.#point(place, true) });
  }

  async #save() {
    if (this.saveButton.disabled) return;
    const groups = this.choices.map(({ keep, remove }) => ({ keep, remove: [...remove] })); // all: they have questions, too
    const { data, edits } = this; // of what is saved
    this.saving = true;
    this.#drawSum();
    try {
      const saved = await api.send("api/plan", "PUT", { version: data.plan.version, groups });
      data.plan.version = saved.version;
      data.plan.num_unknown = 0;
      for (const group of data.groups) group.planned = true;
      if (this.data === data) this.dirty = this.edits !== edits;
      say(`The plan is saved, ${count(saved.num_removals, "file")} to be removed`);
    } catch (error) { toast(error.message); }
    this.saving = false;
    if (this.#shown) this.#draw();
  }
}

function leftText(seconds) {
  if (seconds < 50) return `about ${Math.max(5, Math.ceil(seconds / 5) * 5)} s left`;
  return seconds < 5400 ? `about ${count(Math.max(1, Math.round(seconds / 60)), "minute")} left` : `about ${count(Math.round(seconds / 3600), "hour")} left`;
}

function copied(choice) {
  return { ...choice, remove: new Set(choice.remove), seen: true };
}

function isSame(one, other) {
  return one.keep === other.keep && one.remove.size === other.remove.size && [...one.remove].every((row) => other.remove.has(row));
}

// Whether nobody has to remove it, but somebody should look at it.
function isAsked(member, choice) {
  return member.question && !member.reference && !member.stays && member.row !== choice.keep && !choice.remove.has(member.row);
}

// Whether an image of the group differs by more than size and compression, so that a person has to decide.
function hasQuestion(group) {
  return group.members.some((member) => member.question && !member.reference && !member.stays);
}

function removable(group) {
  return group.members.filter((member) => !member.reference && !member.stays).map((member) => member.row);
}
