"""The one style sheet of reports: system fonts, light and dark, colours that colour-blind readers can tell apart."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --rule: #d8dee4; --paper: #ffffff; --panel: #f6f8fa;
  --c0: #4d5560; --c1: #0a6ebd; --c2: #c2410c; --c3: #0f8a5f; --c4: #9b3fb5; --c5: #a16207; --warn: #b42318;
  --front: #b9d8f3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa4af; --rule: #363d46; --paper: #0f1318; --panel: #171c22;
    --c0: #a9b3be; --c1: #58a6ff; --c2: #ff8c5a; --c3: #4cc38a; --c4: #d69bf0; --c5: #e3b341; --warn: #ff8f85;
    --front: #2b5075; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
h1, h2 { overflow-wrap: anywhere; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 8px; }
h2 { font-size: 20px; margin: 40px 0 8px; padding-top: 20px; border-top: 1px solid var(--rule); }
section:first-of-type h2 { border-top: 0; margin-top: 12px; padding-top: 0; }
h3 { font-size: 15px; margin: 24px 0 6px; }
p { margin: 8px 0; max-width: 75ch; }
.facts, figcaption { color: var(--soft); font-size: 13px; max-width: none; }
.warn { color: var(--warn); font-weight: 600; }
figure { margin: 20px 0; }
.picture { max-width: 100%; image-rendering: pixelated; border-radius: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 22px; list-style: none; margin: 0 0 8px;
  padding: 0; font-size: 13.5px; }
.legend li { display: flex; align-items: center; gap: 8px; }
.legend span { display: inline-flex; }
.curve { width: 100%; height: auto; display: block; overflow: visible; }
.frontier { fill: none; stroke: var(--front); stroke-width: 8; stroke-linejoin: round; opacity: .75; }
.curve text { fill: var(--soft); font-size: 12.5px; }
.curve .label { fill: var(--ink); font-size: 13px; }
.frame { fill: none; stroke: var(--rule); }
.grid { stroke: var(--rule); stroke-width: 1; opacity: .7; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; opacity: .85; }
.bar { fill: none; stroke: currentColor; stroke-width: 1.5; opacity: .6; }
.mark { fill: currentColor; stroke: var(--paper); stroke-width: 1; }
.mark.hollow { fill: var(--paper); stroke: currentColor; stroke-width: 2; }
.band { fill: currentColor; opacity: .1; }
.level { stroke: currentColor; stroke-width: 1.5; stroke-dasharray: 5 4; }
.hit { fill: transparent; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; min-width: 60%; }
th, td { padding: 5px 16px 5px 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; }
th.text, td.text, td.wide { text-align: left; }
.transcript { background: var(--panel); border-radius: 8px; padding: 12px 18px; margin: 14px 0; }
.transcript dt { color: var(--soft); font-size: 13px; margin-top: 6px; }
.transcript dd { margin: 0 0 6px; white-space: pre-wrap; overflow-wrap: anywhere; }
.tabs > input { position: absolute; opacity: 0; }
.tabs > label { display: inline-block; padding: 3px 12px; margin: 0 6px 10px 0; border: 1px solid var(--rule);
  border-radius: 14px; font-size: 13px; color: var(--soft); cursor: pointer; }
.tabs > input:checked + label { color: var(--ink); border-color: var(--ink); }
.tabs > input:focus-visible + label { outline: 2px solid var(--c1); outline-offset: 2px; }
.tabs > .panel { display: none; }
.tabs > input:nth-of-type(1):checked ~ .panel:nth-of-type(1) { display: block; }
.tabs > input:nth-of-type(2):checked ~ .panel:nth-of-type(2) { display: block; }
.tabs > input:nth-of-type(3):checked ~ .panel:nth-of-type(3) { display: block; }
.tabs > input:nth-of-type(4):checked ~ .panel:nth-of-type(4) { display: block; }
pre, .notes { background: var(--panel); border-radius: 8px; padding: 10px 14px; font-size: 13px; margin: 10px 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
pre { font-family: ui-monospace, "SF Mono", Menlo, "Liberation Mono", monospace; }
.notes { list-style: none; max-height: 22em; overflow: auto; }
.find { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin: 10px 0; }
.find[hidden] { display: none; }
.find input, .find select { font: inherit; font-size: 14px; color: var(--ink); background: var(--paper);
  border: 1px solid var(--rule); border-radius: 6px; padding: 5px 9px; }
.find input { flex: 1 1 220px; min-width: 0; }
.item { border-bottom: 1px solid var(--rule); }
.item[hidden] { display: none; }
.item > summary { display: grid; grid-template-columns: minmax(60px, 110px) 1fr auto; gap: 12px; padding: 6px 2px;
  cursor: pointer; font-size: 13.5px; align-items: center; }
.item > summary > span:first-child::before { content: "▸ "; color: var(--soft); }
.item[open] > summary > span:first-child::before { content: "▾ "; }
.item > summary > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.item > summary > .marks { overflow: visible; letter-spacing: .3em; font: 16px ui-monospace, monospace; }
.marks .c0, .marks .c1, .marks .c2, .marks .c3, .marks .c4, .marks .c5 { font-weight: 700; }
.item > div { padding: 4px 2px 16px; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }
td.wide { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 12em; max-width: 34em; }
td.right { color: var(--c3); } td.wrong { color: var(--warn); }
@media (max-width: 600px) {
  main { padding: 20px 14px 48px; } h1 { font-size: 22px; }
  .item > summary { grid-template-columns: 1fr auto; } .item > summary > .asked { grid-column: 1 / -1; order: 3; }
  figure { overflow-x: auto; } .curve { min-width: 560px; }
}
"""
