#include "report.hpp"

namespace varscale::analysis {

const char* const kReportStyle = R"css(
:root { --ink: #1f2933; --muted: #5f6c7b; --line: #dfe4e9; --paper: #ffffff; --soft: #f5f7f9; --law: #20558a;
        --good: #2f6f4f; --bad: #a5382c; }
* { box-sizing: border-box; }
html { background: var(--soft); }
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
.math { font-family: "STIX Two Text", "Source Serif 4", Georgia, "Liberation Serif", "DejaVu Serif", serif; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; margin: 26px 0 18px; }
.tile { background: var(--soft); border-radius: 8px; padding: 15px 18px 13px; }
.tile .what { font-size: 13px; color: var(--muted); }
.tile .value { font-size: 25px; font-weight: 600; line-height: 1.35; font-variant-numeric: tabular-nums; }
.tile .range { font-size: 13px; color: var(--muted); font-variant-numeric: tabular-nums; }
figure { margin: 16px 0 6px; }
figure img { display: block; max-width: 100%; height: auto; }
figure img.plot { width: 100%; }
figure img.pixels { image-rendering: auto; border-radius: 4px; }
figcaption { font-size: 14px; color: var(--muted); margin-top: 8px; max-width: 86ch; }
.scroll { overflow-x: auto; margin: 14px 0; }
table { border-collapse: collapse; font-size: 13.5px; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; color: var(--muted); border-bottom: 1px solid #b8c1ca; padding: 6px 7px;
     vertical-align: bottom; white-space: nowrap; }
td { text-align: right; padding: 5px 7px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.text, td.text { text-align: left; }
td.wrap { white-space: normal; min-width: 16ch; color: var(--muted); }
tr.headline td { background: #eef4fa; font-weight: 600; }
td code { background: none; padding: 0; font-size: 12.5px; }
td .range { color: var(--muted); font-weight: 400; }
.verdict { border-left: 3px solid var(--law); background: var(--soft); padding: 12px 18px; border-radius: 0 8px 8px 0;
           margin: 16px 0; max-width: 86ch; }
.verdict.good { border-color: var(--good); }
.verdict.bad { border-color: var(--bad); }
ul { padding-left: 20px; max-width: 84ch; }
li { margin: 5px 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 7px 20px; margin: 14px 0; max-width: 96ch; }
dt { font-weight: 600; }
dd { margin: 0; }
code { font: 13.5px/1.5 "JetBrains Mono", "DejaVu Sans Mono", Consolas, monospace; background: var(--soft);
       padding: 1px 5px; border-radius: 4px; overflow-wrap: anywhere; }
footer { margin-top: 52px; padding-top: 16px; border-top: 1px solid var(--line); font-size: 14px; color: var(--muted); }
@media (max-width: 700px) { body { padding: 26px 18px 48px; } h1 { font-size: 24px; } h1 .math { white-space: normal; }
  dl { grid-template-columns: 1fr; gap: 2px; } dd { margin-bottom: 8px; } }
@media print { html { background: #fff; } body { max-width: none; padding: 0; } figure, tr, .verdict { break-inside: avoid; } }
)css";

}  // namespace varscale::analysis
