"""The page of a fit in headless Chromium: nothing fails or is loaded, values show at pointer and keys, tables sort, it fits
phone, tablet and desktop, its colours follow the scheme, and paper has it light.

It is about a synthetic sweep of twelve depths after the published laws. Without Chromium it is skipped, which it says.
"""

import html
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

from support import BIN, check, environment, run, scratch

WIDTHS = [390, 820, 1440]
FIGURES = ["law_n", "held_out", "curves", "scales", "law_c", "residuals", "paper"]

# Chromium's windows are at least 500 px wide, so a copy of the page is in a frame. What a script there sees becomes the
# title of the page around it.
FRAME = """<!DOCTYPE html>
<meta name="color-scheme" content="light dark">
<title>nothing</title>
<style>body {{ margin: 0 }} iframe {{ border: 0; width: {width}px; height: 1200px }}</style>
<script>addEventListener("message", (event) => {{ document.title = event.data; }});</script>
<iframe src="{page}"></iframe>
"""
CATCH = "<script>window.faults = []; addEventListener('error', (e) => faults.push(e.message));</script>"
PROBE = """
<script>
const seen = {width: innerWidth, overflow: document.documentElement.scrollWidth - innerWidth, faults};
seen.requests = performance.getEntriesByType("resource").map((each) => each.name);
const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
seen.twice = ids.length - new Set(ids).size;
seen.dangling = [...document.querySelectorAll("use")].filter((use) => !document.querySelector(
  CSS.escape ? "#" + CSS.escape((use.getAttribute("xlink:href") ?? use.getAttribute("href")).slice(1)) : "x")).length;
const colour = (element, what) => getComputedStyle(element)[what];
const svgs = [...document.querySelectorAll("svg.plot")].filter((svg) => svg.getBoundingClientRect().width > 0);
seen.figures = svgs.map((svg) => svg.id);
seen.paper = colour(document.body, "backgroundColor");
seen.ink = colour(document.body, "color");
seen.drawing = colour(svgs[0].querySelector("path"), "fill");
seen.law = colour(svgs[0].querySelector(".mark path"), "stroke");
seen.outside = svgs.filter((svg) => svg.getBoundingClientRect().right > innerWidth + 1).length;

const tip = document.querySelector(".tip");
const moved = (svg, x, y, type) => svg.dispatchEvent(new PointerEvent(type, {clientX: x, clientY: y, bubbles: true}));
seen.tips = {};
for (const svg of svgs) {
  const mark = [...svg.querySelectorAll(".mark")].find((each) => each.dataset.at);
  const [x, y] = mark.dataset.at.split(" ").at(-1).split(",").map(Number);
  const box = svg.getBoundingClientRect(), by = box.width / svg.viewBox.baseVal.width;
  moved(svg, box.left + x * by, box.top + y * by, "pointermove");
  seen.tips[svg.id] = tip.hidden ? "" : tip.textContent;
  moved(svg, box.left, box.top, "pointerleave");
  if (!tip.hidden) faults.push(svg.id + " keeps its value after the pointer has left");
}
const key = (key) => svgs[0].dispatchEvent(new KeyboardEvent("keydown", {key}));
key("ArrowRight");
const first = tip.textContent;
key("ArrowRight");
seen.keys = [first, tip.textContent];
key("Escape");
seen.escaped = tip.hidden;

const runs = [...document.querySelectorAll("table")].find((table) => /peak lr/.test(table.tHead.textContent));
const column = (k) => [...runs.tBodies[0].rows].map((row) => row.cells[k].textContent);
const heads = [...runs.tHead.rows[0].cells], at = (name) => heads.findIndex((head) => head.textContent === name);
seen.orders = {};
for (const name of ["run", "N total", "FLOPs", "loss"]) {
  const head = heads[at(name)], orders = [];
  for (let press = 0; press < 3; ++press) {
    head.querySelector("button").click();
    orders.push([head.getAttribute("aria-sort"), column(at("run")), column(at("loss"))]);
  }
  seen.orders[name] = orders;
}
const law = document.querySelector("table"), alpha = [...law.tHead.rows[0].cells].findIndex((head) => head.textContent === "α");
law.tHead.rows[0].cells[alpha].querySelector("button").click();
seen.alphas = [...law.tBodies[0].rows].map((row) => Number.parseFloat(row.cells[alpha].textContent));
seen.sortable = document.querySelectorAll("table.sortable").length;
seen.unsortable = document.querySelectorAll("table.sortable th:not(:has(button))").length;
parent.postMessage(JSON.stringify(seen), "*");
</script>
"""


def chromium(page, *more):
    line = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--v=0",
            "--user-data-dir=profile", "--window-size=1440,1200", *more, page.resolve().as_uri()]
    done = subprocess.run(line, env=environment(), text=True, capture_output=True, timeout=120, check=False)
    check(done.returncode == 0, f"{' '.join(line)}\nended with {done.returncode}\n{done.stderr}")
    said = [entry for entry in done.stderr.splitlines() if "CONSOLE" in entry]
    check(not said, f"the console has {said}")
    return done.stdout


def probed(page, width, scheme):
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(width=width, page=page.name))
    dom = chromium(frame, "--dump-dom", f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}")
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL).group(1)
    check(title.startswith("{"), f"the probe did not end at {width} px: {title}")
    seen = json.loads(html.unescape(title))
    check(seen["width"] == width, f"the probe saw {seen['width']} px, not {width}")
    return seen


def luminance(colour):
    red, green, blue = map(float, re.findall(r"[\d.]+", colour)[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def check_view(seen, scheme):
    where = f"{seen['width']} px, {scheme}"
    check(not seen["faults"], f"{where}: {seen['faults']}")
    check(not seen["requests"], f"{where}: loads {seen['requests']}")
    check(seen["twice"] == 0 and seen["dangling"] == 0, f"{where}: {seen['twice']} ids twice, {seen['dangling']} dangling")
    check(seen["overflow"] <= 0, f"{where}: the page is {seen['overflow']} px wider than the window")
    check(seen["outside"] == 0, f"{where}: {seen['outside']} drawings reach outside the window")
    end = "-n" if seen["width"] < 700 else ""
    check(seen["figures"] == [f"f-{name}{end}" for name in FIGURES], f"{where}: shows {seen['figures']}")
    dark = scheme == "dark"
    for what in ("paper", "drawing"):
        check((luminance(seen[what]) < 0.2) == dark, f"{where}: {what} is {seen[what]}")
    check((luminance(seen["law"]) > 0.5) == dark, f"{where}: the law is drawn in {seen['law']}")
    check((luminance(seen["ink"]) > 0.8) == dark, f"{where}: text is {seen['ink']}")
    for name, text in seen["tips"].items():
        check(re.search(r"\n.*\d", text), f"{where}: {name} shows {text!r}")
    check(seen["keys"][0] != seen["keys"][1] and all(re.search(r"loss \d", text) for text in seen["keys"]),
          f"{where}: keys show {seen['keys']}")
    check(seen["escaped"], f"{where}: Escape leaves the value")


def check_orders(orders, points):
    """What each heading sorts by, from the CSV of the points."""
    before = [row["run"] for row in points]
    keys = {"run": lambda row: [int(part) for part in re.findall(r"\d+", row["run"])],
            "N total": lambda row: float(row["params_total"]), "FLOPs": lambda row: float(row["flops"]),
            "loss": lambda row: float(f"{float(row['loss_mean']):.4f}")}
    for name, key in keys.items():
        (up, rising, losses), (down, falling, _), (none, again, _) = orders[name]
        check((up, down, none) == ("ascending", "descending", None), f"{name}: aria-sort {up}, {down}, {none}")
        check(rising == [row["run"] for row in sorted(points, key=key)], f"{name}: rises as {rising}")
        check(falling == [row["run"] for row in sorted(points, key=key, reverse=True)], f"{name}: falls as {falling}")
        check(again == before, f"{name}: ends as {again}, not as it was")
        by_run = {row["run"]: f"{float(row['loss_mean']):.4f}" for row in points}
        check(losses == [by_run[each] for each in rising], f"{name}: cells have left their rows")


def main():
    if not shutil.which("chromium"):
        print("report page: SKIPPED, there is no chromium here (./launch/setup.sh --browser installs it)")
        return
    begin = time.monotonic()
    with scratch("report-page") as folder:
        subprocess.run([BIN.parent / "tests/write_sweep", "paper", "paper"], check=True)
        pathlib.Path("paper/sweep.yaml").write_text("name: paper  # <of the test>\n")
        run("var_fit", "paper", "--resamples", "100", env={"VARSCALE_PYTHON": sys.executable})
        first = pathlib.Path("paper/fit/report.html").read_bytes()
        run("var_fit", "paper", "--resamples", "100", env={"VARSCALE_PYTHON": sys.executable})
        page = pathlib.Path("paper/fit/report.html")
        check(page.read_bytes() == first, "a second fit writes another page")
        check(len(first) < 3_000_000, f"the page has {len(first)} bytes")
        text = first.decode()
        check("&lt;of the test&gt;" in text, "the sweep file is not on the page")
        external = re.findall(r"(?:src|href)=[\"'](?!data:|#)(?:[a-z]+:)?//[^\"']*", text)
        check(not external, f"the page names {external}")
        for link in re.findall(r'<a href="([^"]+)"', text):
            check((page.parent / link).is_file(), f"the page links to {link}, which is not there")

        copy = page.with_name("probe.html")
        copy.write_text(text.replace("<head>", "<head>" + CATCH, 1).replace("</body>", PROBE + "</body>"))
        for width, scheme in [(width, "light") for width in WIDTHS] + [(390, "dark"), (1440, "dark")]:
            seen = probed(copy, width, scheme)
            check_view(seen, scheme)
        import pandas
        points = pandas.read_csv("paper/fit/points.csv", dtype=str).to_dict("records")
        check(seen["sortable"] >= 5 and seen["unsortable"] == 0,
              f"{seen['sortable']} tables sort, and {seen['unsortable']} of their headings do not")
        check_orders(seen["orders"], points)
        check(len(set(seen["alphas"])) > 2 and seen["alphas"] == sorted(seen["alphas"]), f"α rises as {seen['alphas']}")
        chromium(page, "--print-to-pdf=page.pdf", "--blink-settings=preferredColorScheme=0")
        check((folder / "page.pdf").stat().st_size > 100_000, "it prints nothing")
    print(f"report page: {len(WIDTHS)} widths, light and dark, values, orders, print; {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
