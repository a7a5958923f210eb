"""How the report looks: light or dark as the reader's system is, on a desk or on a phone."""

LIGHT = """
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --card: #ffffff; --text: #1f2328; --soft: #656d76; --line: #e3e5e8;
  --good: #2f6f4f; --good-back: #e4f1ea; --warn: #8a5a00; --warn-back: #fbf0d9;
  --committed: #4c8d76; --quarantined: #c98a2b; --open: #c9ced6;
  --starting: #d5d9df; --model_load: #a9bfd8; --ended: #d08a4a; --idle: #c9ced6;
}
"""

TIMELINE = """
.timeline { display: block; overflow: visible; margin: 4px 0 8px; }
.timeline text { font-size: 12px; fill: var(--text); }
.timeline text { stroke: var(--page); stroke-width: 4px; paint-order: stroke; }
.timeline text.tick { fill: var(--soft); font-variant-numeric: tabular-nums; }
.timeline line.tick { stroke: var(--line); }
.timeline line.pause { stroke: var(--soft); stroke-dasharray: 3 4; }
.timeline rect.committed { fill: var(--committed); stroke: var(--page); stroke-width: 1; }
.timeline rect.ended { fill: var(--ended); stroke: var(--page); stroke-width: 1; }
.timeline rect.starting { fill: var(--starting); }
.timeline rect.model_load { fill: var(--model_load); }
.timeline rect.idle { fill: var(--idle); }
"""

CURVES = """
.curves { display: block; overflow: visible; margin: 12px 0; }
.curves text.tick { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.curves line.tick { stroke: var(--line); }
.curves polyline { stroke-width: 1.5; stroke-linejoin: round; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
.curves .c0 { stroke: #3f7cac; fill: #3f7cac; }
.key.c0 { background: #3f7cac; }
.curves .c1 { stroke: #c5703a; fill: #c5703a; }
.key.c1 { background: #c5703a; }
.curves .c2 { stroke: #5b8c5a; fill: #5b8c5a; }
.key.c2 { background: #5b8c5a; }
.curves .c3 { stroke: #a05195; fill: #a05195; }
.key.c3 { background: #a05195; }
.curves .c4 { stroke: #b8973a; fill: #b8973a; }
.key.c4 { background: #b8973a; }
.curves .c5 { stroke: #4c9c9c; fill: #4c9c9c; }
.key.c5 { background: #4c9c9c; }
.curves .c6 { stroke: #b0566b; fill: #b0566b; }
.key.c6 { background: #b0566b; }
.curves .c7 { stroke: #7a7f87; fill: #7a7f87; }
.key.c7 { background: #7a7f87; }
.curves polyline[points] { fill: none; }
"""

CSS = (
    LIGHT
    + """
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1b1f23; --text: #dfe3e8; --soft: #949da7; --line: #30363d;
    --good: #8fd3b0; --good-back: #1d3329; --warn: #e8bf73; --warn-back: #382c14;
    --committed: #4f9c81; --quarantined: #c08a35; --open: #444c56;
    --starting: #4a525c; --model_load: #4f6a8a; --ended: #c17b3a; --idle: #444c56;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; line-height: 1.25; font-weight: 600; margin: 4px 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 18px; font-weight: 600; margin: 0 0 4px; }
h3 { font-size: 15px; font-weight: 600; margin: 24px 0 8px; overflow-wrap: anywhere; }
h3 small { font-weight: 400; color: var(--soft); font-size: 13px; margin-left: 8px; }
section { margin-top: 48px; }
p { margin: 0 0 8px; }
.eyebrow { color: var(--soft); font-size: 13px; margin: 0; }
.where { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; margin: 0; }
.note { color: var(--soft); font-size: 13.5px; max-width: 80ch; margin-bottom: 12px; }
.verdict { margin: 20px 0 16px; max-width: 80ch; }
.badge { display: inline-block; padding: 1px 9px; border-radius: 10px; font-size: 13px; font-weight: 600; }
.badge { margin-right: 8px; color: var(--warn); background: var(--warn-back); }
.badge.good { color: var(--good); background: var(--good-back); }
.bar { display: flex; height: 8px; border-radius: 4px; overflow: hidden; background: var(--open); margin: 0 0 20px; }
.bar i { display: block; }
.bar .committed { background: var(--committed); }
.bar .quarantined { background: var(--quarantined); }
.figures { display: flex; flex-wrap: wrap; gap: 18px 46px; margin: 0; }
.figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.figures dt { color: var(--soft); font-size: 13px; }
.figures dd { margin: 0; font-size: 21px; font-weight: 500; font-variant-numeric: tabular-nums; line-height: 1.3; }
.figures dd { white-space: nowrap; }
.shots { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 18px 14px; margin: 0; }
.shots { padding: 0; list-style: none; }
.shots img, .no-picture { display: block; width: 100%; border-radius: 4px; background: var(--line); }
.shots img { aspect-ratio: 16 / 9; object-fit: cover; }
.no-picture { aspect-ratio: 16 / 9; }
.time { font-size: 13px; font-variant-numeric: tabular-nums; margin-top: 5px; }
.label { font-size: 13px; color: var(--soft); line-height: 1.4; overflow-wrap: anywhere; }
.label { display: flex; justify-content: space-between; gap: 8px; }
.label b { font-weight: 400; white-space: nowrap; font-variant-numeric: tabular-nums; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 18px 20px; margin: 0; }
.pairs { padding: 0; list-style: none; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; }
.pair img { width: 100%; display: block; border-radius: 4px; aspect-ratio: 16 / 9; object-fit: cover; }
.scroll { overflow-x: auto; margin: 0 0 12px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { text-align: left; font-weight: 500; color: var(--soft); vertical-align: bottom; line-height: 1.3; }
th, td { padding: 6px 16px 6px 0; border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
td { vertical-align: top; overflow-wrap: break-word; }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.num { white-space: normal; }
td.mono, code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
td.mono, code { font-size: 12.5px; }
td.mono { padding-top: 7px; }
td.mono, td.whole, th.mono { white-space: nowrap; }
td.wide { min-width: 170px; overflow-wrap: anywhere; }
th.platform { width: 24%; }
dl { margin: 0; }
section > dl { display: grid; grid-template-columns: minmax(110px, max-content) 1fr; gap: 5px 24px; font-size: 13.5px; }
section > dl dt { color: var(--soft); }
section > dl dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
"""
    + TIMELINE
    + CURVES
    + """
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--soft); }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-right: 6px; }
.swatch { vertical-align: -1px; }
.swatch.committed { background: var(--committed); }
.swatch.ended { background: var(--ended); }
.swatch.starting { background: var(--starting); }
.swatch.model_load { background: var(--model_load); }
.swatch.idle { background: var(--idle); height: 2px; vertical-align: 4px; }
details { font-size: 13.5px; margin-bottom: 6px; }
summary { cursor: pointer; }
pre { overflow-x: auto; font-size: 12px; padding: 10px 12px; background: var(--card); border: 1px solid var(--line); }
footer { margin-top: 56px; color: var(--soft); font-size: 13px; border-top: 1px solid var(--line); padding-top: 16px; }
@media (max-width: 640px) {
  td.wide { min-width: 220px; }
  main { padding: 24px 16px 48px; }
  h1 { font-size: 23px; }
  .figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(104px, 1fr)); gap: 16px 12px; }
  .figures dd { font-size: 18px; }
  .shots { grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); }
  .pairs { grid-template-columns: 1fr; }
  section > dl { grid-template-columns: 1fr; gap: 0; }
  section > dl dd { margin-bottom: 10px; }
}
@media print { main { max-width: none; } }
"""
)
