#include "report.hpp"

namespace varscale::analysis {

const char* const kReportStyle = R"css(
:root { --ink: #1f2933; --muted: #5f6c7b; --line: #dfe4e9; --rule: #b8c1ca; --paper: #ffffff; --soft: #f5f7f9;
        --desk: #f5f7f9; --row: #eef4fa; --law: #20558a; --good: #2f6f4f; --bad: #a5382c; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #dfe5ea; --muted: #9aa7b4; --line: #2b333b; --rule: #46515c; --paper: #171b20; --soft: #20262d;
          --desk: #101317; --row: #1f2b38; --law: #7db1e3; --good: #6cbf94; --bad: #e58a7d; } }
* { box-sizing: border-box; }
html { background: var(--desk); -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1120px; padding: 48px 56px 72px; background: var(--paper); color: var(--ink);
       font: 16px/1.58 "Inter", "Source Sans 3", "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
header { border-bottom: 1px solid var(--line); padding-bottom: 26px; }
.kicker { color: var(--muted); font-size: 14px; letter-spacing: .02em; margin: 0 0 6px; }
h1 { font-size: 30px; line-height: 1.25; font-weight: 650; letter-spacing: -.01em; margin: 0 0 14px; }
h1 .math { white-space: nowrap; }
.lead { font-size: 17px; margin: 0; max-width: 78ch; }
h2 { font-size: 20px; font-weight: 650; margin: 46px 0 8px; }
p { max-width: 78ch; margin: 8px 0 14px; }
sup { line-height: 0; font-size: .72em; }
.lead .math { font-size: 1.06em; white-space: nowrap; }
.math { font-family: "STIX Two Text", "Source Serif 4", Georgia, "Liberation Serif", "DejaVu Serif", serif; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 14px; margin: 26px 0 18px; }
.tile { background: var(--soft); border-radius: 8px; padding: 15px 18px 13px; }
.tile .what { font-size: 13px; color: var(--muted); }
.tile .value { font-size: 25px; font-weight: 600; line-height: 1.35; font-variant-numeric: tabular-nums; }
.tile .range { font-size: 13px; color: var(--muted); font-variant-numeric: tabular-nums; }
figure { margin: 16px 0 6px; }
figure img { display: block; max-width: 100%; height: auto; }
figure svg.plot { display: block; width: 100%; height: auto; overflow: hidden; touch-action: pan-y pinch-zoom; }
figure svg.plot:focus-visible { outline: 2px solid var(--law); outline-offset: 4px; }
figure .narrow { display: none; }
.ring { fill: none; stroke: var(--ink); stroke-width: 1.5; pointer-events: none; }
.tip { position: fixed; z-index: 1; pointer-events: none; white-space: pre-line; width: max-content; max-width: min(62ch, 92vw); background: var(--ink);
       color: var(--paper); border-radius: 6px; padding: 6px 10px; font-size: 13px; line-height: 1.4; font-variant-numeric: tabular-nums; }
.tip::first-line { font-weight: 600; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 6px 24px; }
figcaption .files { white-space: nowrap; }
a { color: var(--law); text-decoration: none; }
a:hover { text-decoration: underline; }
figure img.pixels { image-rendering: auto; border-radius: 4px; }
figcaption { font-size: 14px; color: var(--muted); margin-top: 8px; max-width: 86ch; }
.scroll { overflow-x: auto; margin: 14px 0;  /* a shade where more of the table lies beyond the edge */
  background: linear-gradient(to right, var(--paper) 40%, transparent) left / 36px 100% no-repeat local,
              linear-gradient(to left, var(--paper) 40%, transparent) right / 36px 100% no-repeat local,
              linear-gradient(to right, var(--line), transparent) left / 14px 100% no-repeat scroll,
              linear-gradient(to left, var(--line), transparent) right / 14px 100% no-repeat scroll; }
table { border-collapse: separate; border-spacing: 0; font-size: 13.5px; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; color: var(--muted); border-bottom: 1px solid var(--rule); padding: 6px 7px;
     vertical-align: bottom; white-space: nowrap; }
td { text-align: right; vertical-align: top; padding: 5px 7px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.text, td.text { text-align: left; }
td.wrap { white-space: normal; min-width: 16ch; color: var(--muted); }
tr.headline td { background: var(--row); font-weight: 600; }
pre code { background: none; padding: 0; }
td code { background: none; padding: 0; font-size: 12.5px; }
td .range { color: var(--muted); font-weight: 400; }
.verdict { border-left: 3px solid var(--law); background: var(--soft); padding: 12px 18px; border-radius: 0 8px 8px 0;
           margin: 16px 0; max-width: 86ch; }
.verdict.good { border-color: var(--good); }
.verdict.bad { border-color: var(--bad); }
section { border-top: 3px double var(--rule); margin-top: 64px; padding-top: 28px; }
ul { padding-left: 20px; max-width: 84ch; }
li { margin: 5px 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 7px 20px; margin: 14px 0; max-width: 96ch; }
dt { font-weight: 600; }
dd { margin: 0; }
code { font: 13.5px/1.5 "JetBrains Mono", "DejaVu Sans Mono", Consolas, monospace; background: var(--soft);
       padding: 1px 5px; border-radius: 4px; overflow-wrap: anywhere; }
footer { margin-top: 52px; padding-top: 16px; border-top: 1px solid var(--line); font-size: 14px; color: var(--muted); }
th button { font: inherit; text-align: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button:hover { color: var(--ink); }
th button::after { content: "\00a0↕"; opacity: .35; }
th[aria-sort="ascending"] button::after { content: "\00a0↑"; opacity: 1; }
th[aria-sort="descending"] button::after { content: "\00a0↓"; opacity: 1; }
details { margin: 12px 0; }
summary { cursor: pointer; color: var(--law); }
pre { font: 13px/1.5 "JetBrains Mono", "DejaVu Sans Mono", Consolas, monospace; background: var(--soft); border-radius: 8px;
      padding: 14px 16px; overflow-x: auto; margin: 10px 0; }
@media screen and (max-width: 900px) { th { white-space: normal; } body { padding-left: 36px; padding-right: 36px; } }
@media screen and (max-width: 700px) { body { padding: 26px 18px 48px; } h1 { font-size: 23px; } h1 .math { white-space: normal; }
  .sortable th:first-child, .sortable td:first-child { position: sticky; left: 0; background: var(--paper); }
  .sortable tr.headline td:first-child { background: var(--row); } .lead { font-size: 16px; } h2 { margin-top: 38px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 10px; } .tile { padding: 11px 13px 10px; } .tile .value { font-size: 21px; }
  figure .wide { display: none; } figure .narrow { display: block; } figcaption .files { white-space: normal; }
  dl { grid-template-columns: 1fr; gap: 2px; } dd { margin-bottom: 8px; } }
@media print { @page { margin: 16mm 14mm; } html { background: #fff; } body { max-width: none; padding: 0; font-size: 10.5pt; }
  figure, tr, .verdict, .tile { break-inside: avoid; } h2, h3 { break-after: avoid; } thead { display: table-header-group; }
  .scroll { overflow: visible; background: none; } table { font-size: 8pt; } th, td { padding: 2px 4px; white-space: normal; } td code { font-size: inherit; } pre { white-space: pre-wrap; }
  figure .wide { display: block; } figure .narrow, .tip, .ring { display: none; } th button::after { content: ""; }
  figcaption .files { display: none; } }
)css";

}  // namespace varscale::analysis
