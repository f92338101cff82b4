"""How the page of the evaluation looks: light and dark by the reader's setting, light on paper."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --muted: #5c646f; --rule: #d5d9df;
  --band: #f5f6f8; --link: #0b5cad; --yes: #00694c; --no: #a63c00; --open: #5c646f; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e9ed; --muted: #9aa3af; --rule: #343a43;
  --band: #1c2026; --link: #7fb2ff; --yes: #4cc79b; --no: #ff9a5c; --open: #9aa3af; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, "Segoe UI", Helvetica, Arial,
  sans-serif; font-variant-numeric: tabular-nums; }
.sheet { display: grid; grid-template-columns: minmax(0, 16rem) minmax(0, 62rem); gap: 2.5rem; max-width: 84rem;
  margin: 0 auto; padding: 2rem 1.5rem 4rem; }
nav { position: sticky; top: 1.5rem; align-self: start; max-height: calc(100vh - 3rem); overflow: auto;
  font-size: 13px; line-height: 1.4; }
nav ol { list-style: none; margin: 0 0 1rem; padding: 0; } nav li { margin: 0.3rem 0; }
nav h2 { font-size: 12px; margin: 0 0 0.4rem; padding: 0; border: 0; color: var(--muted); font-weight: 600; }
a { color: var(--link); text-decoration: none; } a:hover, a:focus-visible { text-decoration: underline; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 0.5rem; letter-spacing: -0.01em; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.8rem 0 0.8rem; padding-top: 0.8rem;
  border-top: 1px solid var(--rule); scroll-margin-top: 0.5rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 0.5rem; } h4 { font-size: 0.95rem; margin: 1.4rem 0 0.4rem; }
p { max-width: 46rem; margin: 0.5rem 0; } ul { max-width: 46rem; padding-left: 1.2rem; } li { margin: 0.2rem 0; }
.lead { color: var(--muted); } .notes p, figcaption { font-size: 13.5px; color: var(--muted); }
.warning { border-left: 3px solid var(--no); padding: 0.4rem 0 0.4rem 0.9rem; max-width: 46rem; }
.reason { color: var(--muted); font-size: 13px; margin: 0.2rem 0 0.4rem; }
.why td { border-top: 0; max-width: none; padding: 0 0 0.2rem 1.2rem; }
.why .reason { max-width: 58rem; margin-top: 0; }
.tally { display: flex; flex-wrap: wrap; gap: 0.6rem 1.2rem; margin: 1rem 0; }
.badge { display: inline-block; white-space: nowrap; font-size: 12.5px; font-weight: 600; }
.badge.holds { color: var(--yes); } .badge.fails { color: var(--no); } .badge.open { color: var(--open); }
.table { overflow: auto; max-height: 85vh; margin: 0.8rem 0; border-bottom: 1px solid var(--rule); }
table { border-collapse: separate; border-spacing: 0; font-size: 13px; line-height: 1.4; }
th, td { padding: 0.32rem 0.8rem 0.32rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--rule);
  font-weight: 400; max-width: 26rem; background: var(--paper); }
thead th { position: sticky; top: 0; z-index: 2; border-top: 0; border-bottom: 1px solid var(--ink);
  font-weight: 600; vertical-align: bottom; }
tbody tr:first-child > * { border-top: 0; }
th[scope=row] { position: sticky; left: 0; z-index: 1; } thead th:first-child { left: 0; z-index: 3; }
.number { text-align: right; white-space: nowrap; }
thead th.number { white-space: normal; min-width: 4.5rem; }
code { font: 0.92em ui-monospace, Consolas, monospace; }
figure { margin: 1.6rem 0 2.4rem; } figure h3 { margin-top: 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 60rem; }
figcaption { margin-top: 0.6rem; max-width: 54rem; }
@media (max-width: 60rem) { .sheet { display: block; padding: 1rem; } nav { position: static; max-height: none; } }
@page { size: A4; margin: 15mm; }
@media print {
  :root { --paper: #ffffff; --ink: #000000; --muted: #444b54; --rule: #c3c8cf; --link: #000000; --yes: #00694c;
    --no: #a63c00; --open: #444b54; color-scheme: light; }
  body { font-size: 9.5pt; } .sheet { display: block; max-width: none; padding: 0; }
  nav { position: static; max-height: none; }
  nav ol { columns: 2; } .table { overflow: visible; max-height: none; }
  thead th, th[scope=row] { position: static; } thead { display: table-header-group; }
  table { font-size: 7.5pt; } th, td { padding: 0.15rem 0.4rem 0.15rem 0; }
  figure svg { max-height: 215mm; } figure, tr { break-inside: avoid; } h2, h3, h4 { break-after: avoid; }
}
"""
