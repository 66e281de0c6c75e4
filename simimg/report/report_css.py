"""The style sheet of a report's page, as text."""

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fafafa; --mount: #ececed; --line: #dcdcde; --ink: #1b1b1d; --grey: #66666b;
  --right: #1d5fc4; --wrong: #c94a0a; --deep: #fff; --code: #f0f0f1;
  --film: #1b1b1e; --film-ink: #f4f4f5; --film-grey: #a3a3a9; --edge: #f0b440; --hole: var(--paper);
  --sans: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #141416; --mount: #222225; --line: #343438; --ink: #ececee; --grey: #9d9da4;
    --right: #6ea4f4; --wrong: #ff8f55; --deep: #101012; --code: #1e1e21;
    --film: #26262a; --hole: var(--paper);
  }
}
* { box-sizing: border-box; margin: 0; }
body {
  background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans); padding: 0 clamp(18px, 4vw, 48px) 72px;
}
body > * { max-width: 1120px; margin-inline: auto; }
h1 {
  font-size: clamp(2rem, 5.2vw, 3.4rem); line-height: 1.06; letter-spacing: -0.028em; font-weight: 680;
  text-wrap: balance; overflow-wrap: anywhere;
}
h2 { font-size: 1.5rem; line-height: 1.2; letter-spacing: -0.015em; font-weight: 660; overflow-wrap: anywhere; }
h3 { font-size: 1rem; font-weight: 660; margin: 40px 0 12px; }
h3 + p { margin: -6px 0 14px; }
p { max-width: 66ch; }
.quiet { color: var(--grey); font-size: 0.93rem; }
.facts + .quiet { margin-top: 8px; }
img { display: block; }

header { padding: clamp(40px, 8vw, 88px) 0 36px; }
header .subtitle { font-size: 1.2rem; color: var(--grey); margin-top: 14px; }
.about { display: flex; flex-wrap: wrap; gap: 4px 28px; margin-top: 24px; font-size: 0.9rem; color: var(--grey); }
.about b { color: var(--ink); font-weight: 560; }
code, .about .path { font-family: var(--mono); font-size: 0.92em; }

.headline { display: grid; grid-template-columns: minmax(320px, 2.1fr) repeat(3, minmax(120px, 1fr)); gap: 28px 36px; }
.headline { border-top: 2px solid var(--ink); padding: 22px 0 44px; }
.headline p { font-size: 0.9rem; color: var(--grey); margin-top: 4px; }
.headline .number {
  font-size: 2.1rem; line-height: 1.1; letter-spacing: -0.02em; font-weight: 640; color: var(--ink); margin: 0;
  font-variant-numeric: tabular-nums;
}
.headline .first .number { font-size: clamp(4rem, 10vw, 6rem); line-height: 0.95; letter-spacing: -0.045em; }
.headline small { font-size: 0.5em; letter-spacing: 0; font-weight: 500; margin-left: 0.12em; color: var(--grey); }
.headline .first p:nth-child(2) { color: var(--ink); font-size: 1rem; margin-top: 10px; }
.headline .first .caption { font-size: 0.85rem; }
.headline .caption b { font-weight: 600; color: var(--ink); }
.headline > div:not(.first) { padding-top: 14px; }
.scale { position: relative; height: 26px; margin-top: 12px; }
.scale::before {
  content: ""; position: absolute; inset: 9px 0 auto; height: 8px; background: var(--mount); border-radius: 4px;
}
.scale i { position: absolute; display: block; }
.scale .interval { top: 9px; height: 8px; background: var(--right); opacity: 0.4; border-radius: 4px; min-width: 3px; }
.scale .value { top: 3px; width: 4px; height: 20px; margin-left: -2px; background: var(--right); border-radius: 2px; }
.scale .guess { top: 5px; width: 2px; height: 16px; background: var(--grey); }

.flow { list-style: none; padding: 0; display: grid; grid-template-columns: repeat(8, 1fr); gap: 6px 0; }
.flow { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.flow li {
  background: var(--film); color: var(--film-ink); padding: 20px 6px 22px 11px; font-size: 0.88rem; line-height: 1.35;
  position: relative; white-space: nowrap; overflow: hidden;
}
/* Eight holes a frame, so that they run on from frame to frame. */
.flow li::before, .flow li::after {
  content: ""; position: absolute; inset: 6px 0 auto; height: 5px;
  background: linear-gradient(90deg, transparent 28%, var(--hole) 28% 72%, transparent 72%) 0 0 / 12.5% 100%;
}
.flow li::after { inset: auto 0 6px; }
.flow li:first-child { border-radius: 5px 0 0 5px; }
.flow li:last-child { border-radius: 0 5px 5px 0; }
.flow b { display: block; font: 600 0.78rem/1.7 var(--mono); color: var(--edge); }
.flow small { display: block; color: var(--film-grey); font: 0.7rem/1.4 var(--mono); margin-top: 3px; }

section {
  display: grid; grid-template-columns: 150px minmax(0, 1fr); gap: 20px 44px; border-top: 1px solid var(--line);
  padding: 36px 0 0; margin-top: 52px;
}
section > header { padding: 0; }
section > header > div { position: sticky; top: 24px; }
section > header p { font-size: 0.9rem; color: var(--grey); margin-top: 6px; font-variant-numeric: tabular-nums; }
section > div > :first-child { margin-top: 0; }

.command { position: relative; background: var(--code); border: 1px solid var(--line); border-radius: 6px; }
.command pre {
  padding: 13px 76px 13px 16px; white-space: pre-wrap; overflow-wrap: anywhere; font: 0.85rem/1.6 var(--mono);
}
.command code span { display: inline-block; max-width: 100%; word-break: break-all; }
.command code { user-select: all; -webkit-user-select: all; font-size: 1em; }
.command button {
  position: absolute; top: 8px; right: 8px; font: 0.78rem var(--sans); color: var(--ink); background: var(--paper);
  border: 1px solid var(--line); border-radius: 4px; padding: 4px 9px; cursor: pointer;
}
.command button:hover { border-color: var(--grey); }
.command button:focus-visible { outline: 2px solid var(--right); outline-offset: 2px; }

.facts { display: flex; flex-wrap: wrap; gap: 10px 36px; margin: 22px 0 0; }
.facts dt { font-size: 0.85rem; color: var(--grey); }
.facts dd { font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }

.classes { display: grid; grid-template-columns: repeat(auto-fill, minmax(216px, 1fr)); gap: 24px; }
.classes h4 { font-size: 0.88rem; font-weight: 560; margin-bottom: 7px; overflow-wrap: anywhere; }
.prints { display: grid; grid-template-columns: repeat(4, 1fr); gap: 3px; }
.prints img { width: 100%; height: auto; aspect-ratio: 1; object-fit: cover; background: var(--mount); }

.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; }
th { text-align: left; font-weight: 560; color: var(--grey); padding: 0 18px 7px 0; white-space: nowrap; }
td { border-top: 1px solid var(--line); padding: 8px 18px 8px 0; vertical-align: top; overflow-wrap: anywhere; }
.refused { table-layout: fixed; }
.refused th:nth-child(1) { width: 42%; }
.refused th:nth-child(2) { width: 19%; }
td.num { font-variant-numeric: tabular-nums; white-space: nowrap; }
td code { overflow-wrap: anywhere; }
.machine th {
  width: 180px; border-top: 1px solid var(--line); padding: 8px 18px 8px 0; vertical-align: top; font-weight: 400;
}

.pair { display: flex; flex-wrap: wrap; gap: 0 52px; }
.pair > .scroll { flex: none; max-width: 100%; }
/* A hundred classes need the whole page, so the stage's name must not stay beside them. */
.pair > .wide { max-width: none; width: calc(100% + 194px); margin-left: -194px; }
section:has(.wide) > header > div { position: static; }
.confused { flex: 1 1 240px; min-width: min-content; max-width: 100%; }
.confused td { overflow-wrap: break-word; padding-right: 14px; }

.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 24px 36px; }
.curves h3 { margin-bottom: 4px; }
svg { display: block; font-family: var(--sans); overflow: visible; }
svg text { fill: var(--ink); font-variant-numeric: tabular-nums; }
.curve { width: 100%; height: auto; font-size: 13px; }
.curve .grid { stroke: var(--line); }
.curve .tick { fill: var(--grey); font-size: 12px; }
.curve polyline { fill: none; stroke-width: 2.5; stroke-linejoin: round; stroke-linecap: round; }
.curve polyline.train { stroke: var(--grey); stroke-width: 2; }
.curve polyline.validation { stroke: var(--wrong); }
.curve circle.validation, .curve text.validation { fill: var(--wrong); }
.curve polyline.test { stroke: var(--right); }
.curve circle.train, .curve text.train { fill: var(--grey); }
.curve circle.test, .curve text.test { fill: var(--right); }
.curve .label { font-weight: 600; }
.of0 { --hue: #1d5fc4; }
.of1 { --hue: #c94a0a; }
.of2 { --hue: #2e8b57; }
.of3 { --hue: #8a4fbf; }
.of4 { --hue: #b8860b; }
.of5 { --hue: #c2407a; }
.curve polyline.run { stroke: var(--hue); stroke-width: 1.6; stroke-opacity: 0.75; }
.curve circle.run, .curve text.run { fill: var(--hue); }
.runs td, .runs th { text-align: left; vertical-align: top; }
.runs .num { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.matrix .cells { fill: var(--mount); }
.matrix .base { fill: var(--paper); }
.matrix .gaps { stroke: var(--paper); fill: none; }
.matrix rect.right { fill: var(--right); }
.matrix rect.wrong { fill: var(--wrong); }
.matrix .name, .matrix .share { text-anchor: end; }
.matrix .of { fill: var(--grey); font-size: 0.86em; }
.matrix .count { text-anchor: middle; }
.matrix .count.deep { fill: var(--deep); }
.matrix { max-width: 100%; height: auto; min-width: 660px; }
.matrix.small { min-width: 0; }

.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 20px 14px; }
.mount { aspect-ratio: 1; background: var(--mount); display: grid; place-items: center; overflow: hidden; }
.mount img { width: 100%; height: 100%; object-fit: contain; }
.mount.empty {
  color: var(--grey); font-size: 0.8rem;
  background: linear-gradient(to top right, var(--mount) 49.7%, var(--line) 49.7% 50.3%, var(--mount) 50.3%);
}
figure { position: relative; min-width: 0; }
figcaption { font-size: 0.8rem; line-height: 1.4; margin-top: 7px; }
.path { display: flex; min-width: 0; white-space: pre; }
.path > :first-child { overflow: hidden; text-overflow: ellipsis; }
.path > * { unicode-bidi: isolate; }
.note { display: block; color: var(--grey); font-variant-numeric: tabular-nums; }
.search { display: grid; grid-template-columns: 160px minmax(0, 1fr); gap: 18px; padding: 14px 0; }
.query figure {
  background: var(--film); color: var(--film-ink); padding: 12px; border-radius: 5px; print-color-adjust: exact;
  -webkit-print-color-adjust: exact;
}
.query .note { color: var(--film-grey); }
.query .mount { background: #333338; }
.search .tiles { padding-top: 12px; grid-template-columns: repeat(6, minmax(0, 1fr)); }
.marked::before {
  content: ""; position: absolute; inset: -8px -8px auto; aspect-ratio: 1; border: 3px solid var(--right);
  border-radius: 255px 18px 225px 22px / 20px 225px 18px 255px; transform: rotate(-1deg); pointer-events: none;
  z-index: 1;
}
.found { color: var(--right); font-weight: 620; }

@media (max-width: 900px) {
  .headline { grid-template-columns: repeat(3, 1fr); }
  .headline .first { grid-column: 1 / -1; }
  .flow { grid-template-columns: repeat(4, 1fr); }
  section { grid-template-columns: minmax(0, 1fr); }
  section > header > div { position: static; }
  .pair > .wide { width: 100%; margin-left: 0; }
}
@media (max-width: 560px) {
  .headline { gap: 18px 20px; }
  .headline > div:not(.first) { padding-top: 0; }
  .headline > div:not(.first) .number { font-size: 1.5rem; }
  .headline p { font-size: 0.82rem; }
  .flow { grid-template-columns: repeat(2, 1fr); }
  .search { grid-template-columns: minmax(0, 1fr); padding: 18px 0; }
  .query { width: 60%; }
  .search .tiles { grid-template-columns: repeat(3, minmax(0, 1fr)); padding-top: 0; }
  .classes { grid-template-columns: minmax(0, 1fr); }
  .command pre { padding-right: 16px; padding-top: 40px; }
  .machine th { width: 92px; }
  .refused thead { display: none; }
  .refused td { display: block; border: 0; padding: 0; }
  .refused tr { display: block; border-top: 1px solid var(--line); padding: 9px 0; }
  .refused td:last-child { color: var(--grey); }
}
@media print {
  :root { --paper: #fff; }
  body { padding: 0; font-size: 12px; }
  .command button { display: none; }
  section { grid-template-columns: minmax(0, 1fr); margin-top: 28px; padding-top: 18px; }
  section > header > div { position: static; }
  .pair > .wide { width: 100%; margin-left: 0; }
  .matrix { min-width: 0; }
  figure, .search, svg, tr, .flow, .classes > div { break-inside: avoid; }
  h2, h3, section > header, section > header p { break-after: avoid; }
}
"""
