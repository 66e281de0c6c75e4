"""What a conversion's report has beyond the style of all reports, as text."""

__all__ = ["STYLE"]

STYLE = """
.bar { display: flex; height: 8px; background: var(--mount); border-radius: 4px; overflow: hidden; }
.bar i { min-width: 1px; }
.split0 { background: var(--right); }
.split1 { background: color-mix(in srgb, var(--right) 48%, var(--mount)); }
.split2 { background: var(--grey); }
.split3 { background: color-mix(in srgb, var(--grey) 48%, var(--mount)); }
.bar .refused, .legend .refused { background: var(--wrong); }
.bar, .legend i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.warn { color: var(--wrong); font-weight: 600; }

.headline .share { grid-column: 1 / -1; padding: 0; }
.headline .bar { height: 12px; border-radius: 6px; }
.headline .legend {
  display: flex; flex-wrap: wrap; gap: 2px 24px; margin-top: 10px; max-width: none; font-variant-numeric: tabular-nums;
}
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 7px; }

.strips { display: grid; gap: 10px; }
.strips.pairs { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px 14px; }
.strip {
  position: relative; background: var(--film); padding: 13px 12px 21px; border-radius: 3px; min-width: 0;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; break-inside: avoid;
}
.strip::before, .strip::after {
  content: ""; position: absolute; inset: 4px 0 auto; height: 5px;
  background: linear-gradient(90deg, transparent 4px, var(--hole) 4px 11px, transparent 11px) 0 0 / 15px 100%;
}
.strip::after { inset: auto 0 4px; }
.frames, .roll { display: grid; grid-template-columns: repeat(8, minmax(0, 1fr)); gap: 5px; }
.pairs .frames { grid-template-columns: repeat(4, minmax(0, 1fr)); }
.strip img { width: 100%; height: auto; aspect-ratio: 1; background: #333338; }
.edge, .roll figcaption {
  color: var(--edge); font: 600 0.72rem/1.7 var(--mono); white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
  max-width: none; margin: 0 0 2px;
}
.roll { padding-bottom: 12px; }
.roll figcaption { font-size: 0.66rem; margin: 2px 0 0; }

.counts td { padding: 5px 0 5px 22px; vertical-align: middle; }
.counts td:first-child { padding-left: 0; width: 100%; }
.counts th.num { text-align: right; padding: 0 0 7px 22px; }
.counts td.num { text-align: right; }
.num.none { color: color-mix(in srgb, var(--grey) 60%, transparent); }
.counts .class { display: flex; align-items: center; gap: 4px 18px; }
.counts .name { flex: 0 0 16em; display: flex; gap: 0.9em; line-height: 1.35; }
.counts .name > :last-child { min-width: 0; overflow-wrap: anywhere; }
.counts .label { flex: none; text-align: right; color: var(--grey); font-variant-numeric: tabular-nums; }
.counts .bar { flex: 1 1 80px; min-width: 60px; }
.counts .rest td { color: var(--grey); }
.counts .rest .name, .counts .all .name { flex: 1; }
.counts .all td { border-top: 2px solid var(--ink); font-weight: 640; }
.ranked .area { fill: var(--right); opacity: 0.85; }
.scroll + .scroll { margin-top: 26px; }
.named { padding: 0; list-style: none; font-size: 0.92rem; columns: 2 300px; column-gap: 36px; }
.named li { padding: 3px 0; break-inside: avoid; overflow-wrap: anywhere; color: var(--grey); }
.named b { font-weight: 560; color: var(--ink); margin-right: 4px; }

.originals { display: grid; grid-template-columns: minmax(0, 446px) minmax(260px, 1fr); gap: 0 44px; }
.sizes { max-width: 100%; height: auto; }
.sizes .cells { fill: var(--mount); }
.sizes .right { fill: var(--right); }
.sizes .square { stroke: var(--line); fill: none; stroke-width: 1.5; }
.sizes .grid { stroke: var(--grey); fill: none; }
.sizes .tick { fill: var(--grey); }
.sizes path.stored { stroke: var(--wrong); fill: none; stroke-dasharray: 3 4; }
.sizes text.stored { fill: var(--wrong); font-weight: 600; }
.shape-counts th { font-weight: 400; color: var(--ink); padding: 6px 14px 6px 0; vertical-align: middle; }
.shape-counts td { border: 0; padding: 6px 0 6px 12px; vertical-align: middle; }
.shape-counts td:nth-child(2) { width: 60%; padding-left: 0; }
.shape-counts td.num { text-align: right; }
.shape {
  display: inline-grid; place-items: center; width: 22px; height: 22px; margin-right: 10px; vertical-align: middle;
}
.shape i { border: 1.5px solid var(--grey); border-radius: 1px; }

.reason { margin-top: 40px; }
.reason:first-child { margin-top: 0; }
.reason h3 { margin-top: 0; }
.reason h3 code { color: var(--grey); font-weight: 400; font-size: 0.82em; margin-left: 6px; }
.reason .quiet code { white-space: nowrap; }
.many { font-variant-numeric: tabular-nums; color: var(--wrong); margin-left: 4px; font-weight: 560; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr)); gap: 16px 28px; }
.cards figure { display: grid; grid-template-columns: 116px minmax(0, 1fr); gap: 16px; align-items: start; }
.cards figcaption { margin: 0; }
.cards .path { font-weight: 560; margin-bottom: 3px; }
.files { table-layout: fixed; }
.files td:last-child { color: var(--grey); }
.begins { position: relative; }
.begins pre {
  position: absolute; inset: 10px 4px auto 9px; max-height: 5.74rem; overflow: hidden;
  font: 0.66rem/1.45 var(--mono); color: var(--grey);
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.note { overflow-wrap: anywhere; }

.groups { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 26px 28px; }
.group { break-inside: avoid; border-top: 1px solid var(--line); padding-top: 12px; }
.group > p { font-size: 0.85rem; line-height: 1.45; color: var(--grey); overflow-wrap: anywhere; }
.group > .tiles { margin-bottom: 8px; }
.group b { color: var(--ink); font-weight: 600; }
.group.of2 { grid-column: span 2; }
.group.of3 { grid-column: span 3; }
.group:is(.of4, .of5, .of6) { grid-column: 1 / -1; }
.group .tiles { grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 12px; }
.group.of2 .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.group.of3 .tiles { grid-template-columns: repeat(3, minmax(0, 1fr)); }
.all-groups { margin-top: 26px; }
.further { display: grid; place-items: center; aspect-ratio: 1; color: var(--grey); font-size: 0.88rem; }
.command + .quiet { margin-top: 10px; }
.values { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 14px 28px; }
.values > :only-child { grid-column: 1 / -1; }
.values dt { font-size: 0.85rem; color: var(--grey); }
.values dd { font: 0.85rem/1.5 var(--mono); overflow-wrap: anywhere; }

@media (max-width: 900px) {
  .originals { grid-template-columns: minmax(0, 1fr); }
}
@media (max-width: 560px) {
  .strips.pairs { grid-template-columns: minmax(0, 1fr); }
  .frames, .roll { grid-template-columns: repeat(4, minmax(0, 1fr)); }
  .groups { grid-template-columns: minmax(0, 1fr); }
  .group:is(.of2, .of3) { grid-column: auto; }
  .group .tiles, .group.of2 .tiles { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .counts .class { flex-wrap: wrap; }
  .counts .name { flex: 1 0 100%; }
  .counts .bar { flex: 1 0 100%; }
  .counts td, .counts th.num { padding-left: 12px; }
  .files, .files tbody, .files tr, .files td { display: block; }
  .files td { border: 0; padding: 0; }
  .files tr { border-top: 1px solid var(--line); padding: 9px 0; }
}
@media print {
  .originals { grid-template-columns: 300px minmax(0, 1fr); }
  .strips.pairs { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .reason, .originals > div { break-inside: avoid; }
  .facts, h3 + p { break-after: avoid; }
}
"""
