#include "report.hpp"

namespace varscale::analysis {

// Without it the page has all but two comforts: values of a drawing's marks at pointer, finger and arrow keys (marks as
// sheet.py writes them), and tables of class sortable that sort by the heading that is pressed: up, down, as they were.
const char* const kReportScript = R"js(
(() => {
"use strict";
const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);

for (const svg of document.querySelectorAll("svg.plot")) {
  const points = [], vertices = [];
  for (const mark of svg.querySelectorAll(".mark")) {
    const {name, tip: words, at} = mark.dataset;
    mark.querySelector("title")?.remove();
    const texts = name ? words.split("\n").map((each) => name + "\n" + each) : [words];
    at.split(" ").filter(Boolean).forEach((place, i) => {
      const [x, y] = place.split(",").map(Number);
      (name ? vertices : points).push({x, y, text: texts[i], mark});
    });
  }
  const places = points.concat(vertices);
  if (places.length === 0) continue;
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  ring.setAttribute("class", "ring");
  svg.append(ring);
  let shown = -1;
  const hide = () => { tip.hidden = true; ring.removeAttribute("r"); shown = -1; };
  const scale = () => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  const show = (i) => {
    const {x, y, text} = places[shown = i], box = svg.getBoundingClientRect(), by = scale();
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.setAttribute("r", 6);
    if (tip.textContent !== text) tip.textContent = text;
    tip.hidden = false;
    const left = box.left + x * by - tip.offsetWidth / 2, above = box.top + y * by - tip.offsetHeight - 14;
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = Math.max(8, Math.min(left, room)) + "px";
    tip.style.top = (above < 8 ? box.top + y * by + 14 : above) + "px";
  };
  const nearest = (event) => {  // a point before the lines below it
    const box = svg.getBoundingClientRect(), by = scale();
    const to = (event.clientX - box.left) / by, down = (event.clientY - box.top) / by;
    let best = -1, least = 26 / by;
    places.forEach(({x, y}, i) => {
      const away = Math.hypot(x - to, y - down) + (i < points.length ? 0 : 8 / by);
      if (away < least) [best, least] = [i, away];
    });
    if (best < 0) hide(); else show(best);
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") hide(); });
  svg.addEventListener("blur", hide);
  addEventListener("scroll", () => { if (shown >= 0) hide(); }, {passive: true});
  svg.tabIndex = 0;
  svg.addEventListener("keydown", ({key}) => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[key], count = places.length;
    if (step) show(shown < 0 ? (step > 0 ? 0 : count - 1) : (shown + step + count) % count);
    else if (key === "Escape") hide();
  });
}

// 0.201 of "0.201 [0.198 – 0.207]"; NaN where it begins otherwise.
const leading = (text) => Number.parseFloat(text.replace("−", "-").replaceAll(",", ""));

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], before = [...body.rows], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = {ascending: "descending", descending: ""}[head.getAttribute("aria-sort")] ?? "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const compare = (a, b) => leading(a) - leading(b) || a.localeCompare(b, "en", {numeric: true});
      const rows = [...before];
      if (order) rows.sort((a, b) => (order === "ascending" ? 1 : -1) * compare(key(a), key(b)));
      body.append(...rows);
    });
  });
}
})();
)js";

}  // namespace varscale::analysis
