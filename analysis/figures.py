"""Draws the figures of a fit from the CSV files that var_fit wrote beside them.

    .deps/venv/bin/python analysis/figures.py results/quickstart/fit

Every <name>.csv that is there gives <name>.png, <name>.pdf, <name>.svg and, in one column, <name>_narrow.svg: curves,
law_n, law_c, law_d, frontier, residuals, held_out, scales, scores, paper; of two sweeps, compare. Nothing but its own CSV goes into
a figure.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatterMathtext, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from sheet import line, panels, point, save

INK, MUTED, GRID = "#1f2933", "#66727f", "#e4e8ec"
LAW, POWER, GIVEN, ACCENT = "#20558a", "#b0703a", "#5f7f3a", "#c0392b"
E_STYLES = {"free": ("-", LAW, "E free"), "0": ((0, (5, 3)), POWER, "E = 0"), "given": ((0, (1, 1.5)), GIVEN, "E given")}
DEPTH_COLOURS = LinearSegmentedColormap.from_list("depth", ["#8fc1c9", "#3f8fb0", "#27588f", "#2b2f66"])
TITLES = {"loss_mean": "loss, all tokens", "loss_tail": "loss, last scale",
          "err_mean": "error rate, all tokens", "err_tail": "error rate, last scale"}
UNITS = {"loss_mean": "nats per token", "loss_tail": "nats per token", "err_mean": "1 − top-1 accuracy",
         "err_tail": "1 − top-1 accuracy"}
NAMES = {"loss": "loss", "err": "error rate"}
POINT = dict(ms=5.5, mec="white", mew=0.8, zorder=5)

plt.rcParams.update({
    "font.size": 9.5, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.edgecolor": "#9aa5b1", "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED,
    "ytick.color": MUTED, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": GRID, "grid.linewidth": 0.8, "axes.axisbelow": True, "legend.frameon": False,
    "legend.fontsize": 8.5, "figure.constrained_layout.use": True, "svg.fonttype": "path",
})


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def column(rows, name):
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


def depth_colours(rows):
    depths = sorted({int(row["depth"]) for row in rows if row["depth"]})
    places = np.linspace(0, 1, len(depths)) if len(depths) > 1 else [0.6]
    return {depth: DEPTH_COLOURS(place) for depth, place in zip(depths, places)}


def log_x(axes, label):
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(10, numticks=12))
    axes.xaxis.set_major_formatter(LogFormatterMathtext())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(label)


def number(value):
    """12,345; 4.67 × 10¹³ where digits would be unreadable."""
    value = float(value)
    if 0 < abs(value) < 1e-3 or abs(value) >= 1e7:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa} × 10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def fixed(value):
    """A loss or an error rate."""
    return f"{float(value):.4f}"


def by(rows, *names):
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def curves(rows):
    colours = depth_colours(rows)
    figure, (left, right) = panels(2, 4.0, sharey=True)
    early = []
    for (run,), group in by(rows, "run").items():
        role, colour = group[0]["role"], colours[int(group[0]["depth"])]
        loss, images = column(group, "loss_mean"), column(group, "images")
        early.append(np.interp(0.12 * images[-1], images, loss))
        style = {"main": dict(lw=1.7), "data": dict(lw=1.2, ls=(0, (4, 2)), alpha=0.85)}.get(
            role, dict(lw=0.9, ls=":", alpha=0.6))
        for axes, x in ((left, images), (right, column(group, "flops"))):
            shown = x > 0
            places = [row for row in group if float(row["images"]) > 0]
            line(axes, x[shown], loss[shown], run,
                 [f"{number(r['images'])} images · {number(r['flops'])} FLOPs · loss {fixed(r['loss_mean'])}" for r in places],
                 color=colour, **style)
            axes.plot(x[-1], loss[-1], "o", ms=4, color=colour)
    log_x(left, "training images seen")
    log_x(right, "training FLOPs C")
    left.set_ylabel("validation loss, nats per token")
    left.set_title("against images")
    right.set_title("against compute")
    finals = column(rows, "loss_mean")
    span = max(early) - finals.min()
    top = max(early) + 0.1 * span
    left.set_ylim(finals.min() - 0.06 * span, top)
    for axes, name in ((left, "images"), (right, "flops")):
        shown = [float(row[name]) for row in rows if float(row[name]) > 0 and float(row["loss_mean"]) < top]
        axes.set_xlim(min(shown) / 1.6, max(shown) * 1.6)
    handles = [Line2D([], [], color=colours[d], lw=2, label=f"d{d}") for d in colours]
    if any(row["role"] == "data" for row in rows):
        handles.append(Line2D([], [], color=MUTED, lw=1.2, ls=(0, (4, 2)), label="other budgets"))
    right.legend(handles=handles, loc="upper right", ncols=1 if len(handles) < 8 else 2)
    return figure


def law_tip(row, symbol):
    band = f" [{fixed(row['low'])} – {fixed(row['high'])}]" if row["low"] else ""
    return f"{symbol} {number(row['x'])} · {fixed(row['y'])}{band}"


def draw_law(axes, rows, colours, legend, symbol):
    handles = []
    points = [row for row in rows if row["kind"] == "point"]
    for (e_rule,), group in by([row for row in rows if row["kind"] == "law"], "E_rule").items():
        style, colour, label = E_STYLES[e_rule]
        x, low, high = column(group, "x"), column(group, "low"), column(group, "high")
        line(axes, x, column(group, "y"), f"law, {label}", [law_tip(row, symbol) for row in group],
             color=colour, ls=style, lw=1.6 if e_rule == "free" else 1.2)
        handles.append(Line2D([], [], color=colour, ls=style, label=label))
        if e_rule == "free" and np.isfinite(low).all():
            axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
            handles.append(Patch(color=colour, alpha=0.2, lw=0, label="90 % band, E free"))
    for row in points:
        point(axes, float(row["x"]), float(row["y"]),
              f"{row['run']}\n{symbol} {number(row['x'])} · {TITLES[row['metric']].split(',')[0]} {fixed(row['y'])}",
              color=colours[int(row["depth"])], **POINT)
    y = column(points, "y")
    pad = 0.18 * (y.max() - y.min() or 0.01)
    axes.set_ylim(y.min() - 1.6 * pad, y.max() + 1.6 * pad)
    draw_bounds(axes, [row for row in rows if row["kind"] == "bound"])
    if legend:
        axes.legend(handles=handles, loc="upper right")


def draw_bounds(axes, rows):
    """Upper bounds as lines; those above the panel as words at its lower left, where no law is."""
    beyond = []
    for row in rows:
        if float(row["y"]) < axes.get_ylim()[1]:
            axes.axhline(float(row["y"]), color=MUTED, lw=1, ls=(0, (2, 2)))
            axes.annotate(row["run"], (1, float(row["y"])), xycoords=("axes fraction", "data"), xytext=(-4, 3),
                          textcoords="offset points", ha="right", fontsize=8, color=MUTED)
        else:
            beyond.append(f"{row['run']} {float(row['y']):.2f}")
    if beyond:
        axes.annotate("above: " + "\n".join(beyond), (0, 0), xycoords="axes fraction", xytext=(6, 6), textcoords="offset points",
                      fontsize=8, color=MUTED, va="bottom")


def label_depths(axes, rows, colours):
    seen = {}
    for row in rows:
        if row["kind"] in ("point", "fitted", "seen"):
            seen.setdefault(int(row["depth"]), []).append((float(row["x"]), float(row["y"])))
    # From the largest down, those that would lie on one another are left out.
    span = np.ptp(np.log10([float(row["x"]) for row in rows if row["x"]])) or 1
    kept = []
    for depth in sorted(seen, reverse=True):
        place = np.log10(seen[depth][0][0])
        if all(abs(place - other) > 0.07 * span for other in kept):
            kept.append(place)
        else:
            del seen[depth]
    for depth, places in seen.items():
        x, y = places[0][0], min(place[1] for place in places)
        axes.annotate(f"d{depth}", (x, y), xytext=(-3, -7), textcoords="offset points", fontsize=8,
                      ha="right", va="top", color=colours[depth])


def law_by_metric(rows, metrics, x_label, symbol):
    colours = depth_colours(rows)
    figure, grid = panels(len(metrics), 3.7)
    for axes, metric in zip(grid, metrics):
        chosen = [row for row in rows if row["metric"] == metric]
        draw_law(axes, chosen, colours, axes is grid[0], symbol)
        label_depths(axes, chosen, colours)
        log_x(axes, x_label)
        axes.set_ylabel(UNITS[metric])
        axes.set_title(TITLES[metric])
    return figure


def law_n(rows):
    return law_by_metric(rows, ["loss_mean", "loss_tail", "err_mean", "err_tail"], "parameters N (total)", "N")


def law_c(rows):
    return law_by_metric(rows, ["loss_mean", "loss_tail"], "training FLOPs C at the end of the run", "C")


def law_d(rows):
    rules = sorted({row["x_rule"] for row in rows})
    shown = [(rule, metric) for rule in rules for metric in ("loss_mean", "loss_tail")]
    figure, grid = panels(len(shown), 3.7)
    for axes, (rule, metric) in zip(grid, shown):
        chosen = [row for row in rows if row["metric"] == metric and row["x_rule"] == rule]
        draw_law(axes, chosen, depth_colours(chosen), axes is grid[0], "D")
        log_x(axes, "training images seen D")
        axes.set_ylabel(UNITS[metric])
        axes.set_title(f"{TITLES[metric]}, {rule.split(', ')[-1]}")
    return figure


def residuals(rows):
    colours = depth_colours(rows)
    forms = by([row for row in rows if row["metric"] == "loss_mean"], "E_rule")
    figure, grid = panels(len(forms), 3.2, columns=3, sharey=True)
    for axes, ((e_rule,), group) in zip(grid, forms.items()):
        noise = column(group, "noise_sd")[0]
        axes.axhline(0, color=MUTED, lw=0.8)
        if np.isfinite(noise):
            axes.axhspan(-1e3 * noise, 1e3 * noise, color=LAW, alpha=0.10, lw=0, label="± noise of one run")
        for row in group:
            point(axes, float(row["x"]), 1e3 * float(row["residual"]),
                  f"{row['run']}\nobserved − law {1e3 * float(row['residual']):+.2f} millinats",
                  color=colours[int(row["depth"])], **POINT)
        log_x(axes, "parameters N (total)")
        axes.set_title(E_STYLES[e_rule][2])
        axes.margins(x=0.12, y=0.2)
    grid[0].set_ylabel("observed − law, millinats")
    if np.isfinite(column(rows, "noise_sd")[0]):
        grid[0].legend(loc="best")
    return figure


def held_out(rows):
    colours = depth_colours(rows)
    metrics = [metric for metric in ("loss_mean", "loss_tail") if any(row["metric"] == metric for row in rows)]
    figure, grid = panels(len(metrics), 3.8)
    for axes, metric in zip(grid, metrics):
        chosen = [row for row in rows if row["metric"] == metric]
        kinds = by(chosen, "kind")
        law = kinds[("law",)]
        axes.plot(column(law, "x"), column(law, "y"), color=LAW, lw=1.5, label="fit on the smaller depths")
        for row in kinds[("fitted",)]:
            point(axes, float(row["x"]), float(row["y"]), f"d{row['depth']}, fitted\nN {number(row['x'])} · loss {fixed(row['y'])}",
                  color=colours[int(row["depth"])], **POINT)
        predicted = kinds[("predicted",)]
        x, y = column(predicted, "x"), column(predicted, "y")
        low, high = column(predicted, "low"), column(predicted, "high")
        error = np.maximum(np.vstack([y - low, high - y]), 0) if np.isfinite(low).all() else None
        axes.errorbar(x, y, error, fmt="_", ms=12, mew=1.8, capsize=4, lw=1.4, color=ACCENT,
                      zorder=4, label="predicted, 90 %" if error is not None else "predicted")
        seen = kinds[("seen",)]
        for row in seen:
            point(axes, float(row["x"]), float(row["y"]), f"d{row['depth']}, seen\nN {number(row['x'])} · loss {fixed(row['y'])}",
                  ms=7, mfc="white", mec=INK, mew=1.5, zorder=6, label="seen" if row is seen[0] else None)
        for row in predicted:
            point(axes, float(row["x"]), float(row["y"]), f"d{row['depth']}, predicted\n{law_tip(row, 'N')}",
                  ms=9, alpha=0, zorder=3)
        label_depths(axes, chosen, colours)
        values = np.concatenate([column(kinds[("fitted",)], "y"), column(seen, "y"), y,
                                 low[np.isfinite(low)], high[np.isfinite(high)]])
        pad = 0.12 * (values.max() - values.min())
        axes.set_ylim(values.min() - pad, values.max() + pad)
        log_x(axes, "parameters N (total)")
        axes.set_ylabel(UNITS[metric])
        axes.set_title(TITLES[metric])
    grid[0].legend(loc="upper right")
    return figure


def scales(rows):
    """By token map: the value itself, and how far the larger depths are below the smallest."""
    colours = depth_colours(rows)
    smallest = min(colours)
    sides = {int(row["scale"]): row["side"] or str(int(row["scale"]) + 1) for row in rows}
    of_sides = all(row["side"] for row in rows)
    shown = [(value, relative) for value in ("loss", "err") for relative in (False, True)]
    figure, grid = panels(4, 3.4)
    for axes, (value, relative) in zip(grid, shown):
        means = {}  # by depth and scale, over seeds
        for (depth, scale), group in by(rows, "depth", "scale").items():
            means.setdefault(int(depth), {})[int(scale)] = column(group, value).mean()
        for depth, by_scale in means.items():
            if relative and depth == smallest:
                continue
            places = sorted(by_scale)
            y = [by_scale[k] - (means[smallest].get(k, np.nan) if relative else 0) for k in places]
            sign = "+" if relative else ""
            line(axes, places, y, f"d{depth}" + (f" less d{smallest}" if relative else ""),
                 [f"map {sides[k]}{f' × {sides[k]}' if of_sides else ''} · {NAMES[value]} {v:{sign}.4f}" for k, v in zip(places, y)],
                 color=colours[depth], marker="o", ms=4, lw=1.4)
        if relative:
            axes.axhline(0, color=MUTED, lw=0.8)
        axes.set_xticks(sorted(sides), [sides[k] for k in sorted(sides)])
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("side of the token map" if of_sides else "token map, coarse to fine")
        axes.set_ylabel(UNITS[f"{value}_mean"])
        axes.set_title(f"{NAMES[value]}, less that of d{smallest}" if relative else f"{NAMES[value]} of each map")
    grid[0].legend(handles=[Line2D([], [], color=colours[d], lw=2, label=f"d{d}") for d in colours], loc="best",
                   ncols=1 if len(colours) < 6 else 2)
    return figure


def scores(rows):
    colours = depth_colours(rows)
    figures = [("frechet", rows[0]["name"])]
    if rows[0]["inception_score"]:
        figures.append(("inception_score", "IS"))
    figure, grid = panels(len(figures), 3.8)
    for axes, (name, label) in zip(grid, figures):
        for row in rows:
            filled = row["column"] == "protocol"
            point(axes, float(row["flops"]), float(row[name]),
                  f"{row['run']}\nguidance {row['cfg']} · C {number(row['flops'])} · {label} {number(row[name])}",
                  marker="o" if filled else "D", ms=6, mfc=colours[int(row["depth"])] if filled else "white",
                  mec=colours[int(row["depth"])], mew=1.4)
        log_x(axes, "training FLOPs C at the end of the run")
        axes.set_ylabel(label)
        axes.set_title(f"{label} of samples")
        axes.margins(x=0.12, y=0.12)
    handles = [Line2D([], [], color=MUTED, marker="o", ls="", label=f"guidance {rows[0]['cfg']}")]
    if any(row["column"] == "best" for row in rows):
        handles.append(Line2D([], [], color=MUTED, marker="D", mfc="white", ls="", label="best guidance of the grid"))
    handles += [Line2D([], [], color=colours[d], lw=2, label=f"d{d}") for d in colours]
    grid[0].legend(handles=handles, loc="best")
    return figure


def paper(rows):
    shown = [("N", ("loss_mean", "loss_tail")), ("C", ("loss_mean", "loss_tail")),
             ("N", ("err_mean", "err_tail")), ("C", ("err_mean", "err_tail"))]
    figure, grid = panels(4, 3.7)
    for axes, (size, metrics) in zip(grid, shown):
        for metric, colour in zip(metrics, (LAW, POWER)):
            kinds = by([row for row in rows if row["size"] == size and row["metric"] == metric], "kind", "E_rule")
            rule = next((rule for rule in ("given", "free", "0") if ("point", rule) in kinds), None)
            if rule is not None:
                points, law = kinds[("point", rule)], kinds[("law", rule)]
                axes.plot(column(law, "x"), column(law, "y"), color=colour, lw=1.6)
                for row in points:
                    point(axes, float(row["x"]), float(row["y"]), f"{row['run']}\n{TITLES[metric]} · {size} {number(row['x'])} · {fixed(row['y'])}",
                          color=colour, label=TITLES[metric] if row is points[0] else None, **POINT)
            published = kinds[("paper", "")]
            x, y, inside = column(published, "x"), column(published, "y"), column(published, "published_range") == 1
            axes.plot(x, y, color=colour, lw=1.0, ls=(0, (5, 2.5)), alpha=0.35)
            said = [f"{size} {number(row['x'])} · {fixed(row['y'])}" for row in published if row["published_range"] == "1"]
            line(axes, x[inside], y[inside], f"the paper, {TITLES[metric]}", said, color=colour, lw=1.4, ls=(0, (5, 2.5)))
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 3, 5, 7), numticks=20))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xscale("log")
        axes.set_xlabel("parameters N, billions" if size == "N" else "training compute C, PFLOP")
        axes.set_ylabel("loss − E, nats per token" if metrics[0] == "loss_mean" else UNITS["err_mean"])
    handles, _ = grid[0].get_legend_handles_labels()
    handles.append(Line2D([], [], color=MUTED, lw=1.4, ls=(0, (5, 2.5)), label="the paper's law"))
    grid[1].legend(handles=handles, loc="best")
    return figure


def compare(rows):
    laws = sorted({row["law"] for row in rows}, reverse=True)
    sweeps = list(dict.fromkeys(row["sweep"] for row in rows))
    figure, grid = plt.subplots(1, len(laws), figsize=(4.8 * len(laws), 3.8), squeeze=False)
    for axes, law in zip(grid.flat, laws):
        for sweep, colour in zip(sweeps, (LAW, POWER)):
            kinds = by([row for row in rows if row["law"] == law and row["sweep"] == sweep], "kind")
            own, shared, points = kinds[("own",)], kinds[("shared",)], kinds[("point",)]
            x, low, high = column(own, "x"), column(own, "low"), column(own, "high")
            axes.plot(x, column(own, "y"), color=colour, lw=1.6, label=sweep)
            if np.isfinite(low).all():
                axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
            axes.plot(column(shared, "x"), column(shared, "y"), color=colour, lw=1.1, ls=(0, (4, 2)))
            axes.plot(column(points, "x"), column(points, "y"), "o", ms=5.5, mec="white", mew=0.8, color=colour, zorder=5)
        y = column([row for row in rows if row["law"] == law and row["kind"] == "point"], "y")
        pad = 0.2 * (y.max() - y.min() or 0.01)
        axes.set_ylim(y.min() - pad, y.max() + pad)
        log_x(axes, "parameters N (total)" if law == "L(N)" else "training FLOPs C at the end of the run")
        axes.set_title(law)
    handles, _ = grid.flat[0].get_legend_handles_labels()
    handles.append(Line2D([], [], color=MUTED, lw=1.1, ls=(0, (4, 2)), label="one exponent for both"))
    grid.flat[0].legend(handles=handles, loc="upper right")
    return figure


def frontier_lines(axes, kinds, value):
    """The frontier by each way, as `value` (N, D or loss) against C."""
    law = kinds[("law",)]
    def tip(row):
        return f"C {number(row['C'])} · N {number(row['N'])} · D {number(row['D'])} · loss {fixed(row['loss'])}"

    if law:
        line(axes, column(law, "C"), column(law, value), "from L(N, D)", [tip(row) for row in law], color=LAW, lw=1.8, zorder=6)
        if value == "N" and law[0]["N_low"]:
            axes.fill_between(column(law, "C"), column(law, "N_low"), column(law, "N_high"), color=LAW, alpha=0.13, lw=0)
    for kind, colour in (("envelope_line", GIVEN), ("isoflop_line", ACCENT)):
        straight = kinds[(kind,)]
        if straight and value != "loss":
            axes.plot(column(straight, "C"), column(straight, value), color=colour, lw=1.3, ls=(0, (5, 2)), zorder=5)
    envelope, vertices = kinds[("envelope",)], kinds[("vertex",)]
    if value == "loss":
        axes.plot(column(envelope, "C"), column(envelope, value), color=GIVEN, lw=2.6, alpha=0.75, zorder=4)
    else:
        axes.plot(column(envelope, "C"), column(envelope, value), ".", ms=3, color=GIVEN, alpha=0.6, zorder=4)
        crossings = kinds[("crossing",)]
        axes.plot(column(crossings, "C"), column(crossings, value), "o", ms=5.5, mfc="white", mec=GIVEN, mew=1.5, zorder=6)
    for row in vertices:
        point(axes, float(row["C"]), float(row[value]), f"isoFLOP vertex\n{tip(row)}", "D", ms=6, mfc="white", mec=ACCENT, mew=1.5,
              zorder=7)


def frontier_legend(axes, kinds):
    handles = []
    if kinds[("law",)]:
        handles.append(Line2D([], [], color=LAW, lw=1.8, label="from L(N, D)"))
    if kinds[("envelope",)]:
        handles.append(Line2D([], [], color=GIVEN, marker="o", ms=5.5, mfc="white", mew=1.5, lw=1.3, ls=(0, (5, 2)),
                              label="envelope of the ends, crossings"))
    if kinds[("vertex",)]:
        handles.append(Line2D([], [], color=ACCENT, marker="D", mfc="white", mew=1.5, lw=1.3, ls=(0, (5, 2)),
                              label="isoFLOP vertices"))
    axes.legend(handles=handles, loc="upper left")


def frontier_families(axes, kinds, colours):
    for (family,), group in by(kinds[("isoflop",)], "family").items():
        parabola = [row for row in kinds[("parabola",)] if row["family"] == family]
        axes.plot(column(parabola, "N"), column(parabola, "loss"), color=MUTED, lw=1.2)
        for row in group:
            point(axes, float(row["N"]), float(row["loss"]), f"{row['run']}\nN {number(row['N'])} · loss {fixed(row['loss'])}", ms=5,
                  mec="white", mew=0.8, color=colours[int(row["depth"])], zorder=5)
        last = max(group, key=lambda row: float(row["N"]))
        exponent = int(np.floor(np.log10(float(family))))
        axes.annotate(rf"${float(family) / 10 ** exponent:.3g}\times10^{{{exponent}}}$",
                      (float(last["N"]), float(last["loss"])), xytext=(6, 0), textcoords="offset points", fontsize=8,
                      color=MUTED, va="center")
    vertices = kinds[("vertex",)]
    axes.plot(column(vertices, "N"), column(vertices, "loss"), "D", ms=6, mfc="white", mec=ACCENT, mew=1.5, zorder=7)
    log_x(axes, "parameters N (total)")
    axes.set_ylabel("validation loss, nats per token")
    axes.set_title("families of equal compute")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 2.2)


def frontier(rows):
    colours = depth_colours(rows)
    kinds = by(rows, "kind")
    families = bool(kinds[("isoflop",)])
    figure, grid = panels(4 if families else 2, 4.0)
    left, right = grid[:2]
    ends = kinds[("end",)]
    for (run,), curve in by(kinds[("curve",)], "run").items():
        left.plot(column(curve, "C"), column(curve, "loss"), color=colours[int(curve[0]["depth"])], lw=0.7, alpha=0.5)
    for row in ends:
        point(left, float(row["C"]), float(row["loss"]), f"{row['run']}\nC {number(row['C'])} · loss {fixed(row['loss'])}", ms=4.5,
              mec="white", mew=0.6, color=colours[int(row["depth"])], zorder=5)
    frontier_lines(left, kinds, "loss")
    log_x(left, "training FLOPs C")
    loss, compute = column(ends, "loss"), column(ends, "C")
    pad = 0.06 * (loss.max() - loss.min())
    left.set_ylim(loss.min() - 2 * pad, loss.max() + 3 * pad)
    left.set_xlim(compute.min() / 2.5, compute.max() * 1.6)
    left.set_ylabel("validation loss, nats per token")
    left.set_title("loss")
    left.legend(handles=[Line2D([], [], color=colours[d], lw=2, label=f"d{d}") for d in colours], loc="upper right",
                ncols=1 if len(colours) < 8 else 2)
    shown = [(right, "N", "best size", "parameters N*")]
    if families:
        frontier_families(grid[2], kinds, colours)
        shown.append((grid[3], "D", "best data", "training tokens D*"))
    for axes, value, title, label in shown:
        for row in ends:
            axes.plot(float(row["C"]), float(row[value]), "o", ms=3.5, color=colours[int(row["depth"])], alpha=0.35, mew=0)
        frontier_lines(axes, kinds, value)
        log_x(axes, "training FLOPs C")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, numticks=12))
        axes.set_ylabel(label)
        axes.set_title(title)
    frontier_legend(right, kinds)
    return figure


FIGURES = [curves, law_n, law_c, law_d, frontier, residuals, held_out, scales, scores, paper, compare]


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: figures.py FOLDER, where var_fit left its CSV files")
    folder = Path(sys.argv[1])
    for draw in FIGURES:
        path = folder / f"{draw.__name__}.csv"
        if path.exists():
            save(draw, read(path), folder, draw.__name__)


if __name__ == "__main__":
    main()
