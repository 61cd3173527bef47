"""How figures are laid out and saved, and what their marks show under a pointer.

    figure, axes = panels(2, height=4.0)                         # two columns, or one where the page is narrow
    point(axes[0], x, y, "d6-s0\\nloss 4.51", color=colour)       # like axes.plot(x, y, "o"), with a text of its own
    line(axes[0], xs, ys, "d6-s0", texts, color=colour)          # like axes.plot(xs, ys), with a text a vertex
    save(draw, rows, folder, "curves")                           # .png, .pdf, .svg and _narrow.svg

In an SVG file each such mark is a group of class "mark": data-at has the places of its vertices in units of the
viewBox and data-tip what they show. A line has its name as data-name, and in data-tip one line of text a vertex. A point
has its text as <title> too, which browsers show without any script.
"""

import io
import re
from contextlib import contextmanager
from xml.sax.saxutils import escape, quoteattr

import matplotlib.pyplot as plt
import numpy as np

WIDE, NARROW = 9.6, 4.4  # inches: two columns of panels; one, on a phone
VERTICES = 60  # of a line that show a text, at most
_narrow = False


@contextmanager
def _narrow_sheets():
    global _narrow
    _narrow = True
    try:
        yield
    finally:
        _narrow = False


def panels(count, height, columns=2, **options):
    """A figure of `count` panels of `height` inches, in up to `columns` columns, and its axes in reading order."""
    columns = 1 if _narrow else min(columns, count)
    lines = -(-count // columns)
    width = NARROW if _narrow else WIDE
    figure, grid = plt.subplots(lines, columns, figsize=(width, (0.85 if _narrow else 1.0) * height * lines),
                                squeeze=False, **options)
    figure.get_layout_engine().set(h_pad=0.09)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.set_visible(False)
    figure.marks = {}
    return figure, axes[:count]


def _mark(artist, axes, x, y, tips, name):
    marks = axes.figure.marks
    artist.set_gid(f"mark-{len(marks)}")
    marks[artist.get_gid()] = (axes, x, y, tips, name)


def point(axes, x, y, tip, marker="o", **style):
    artist, = axes.plot(x, y, marker, **style)
    _mark(artist, axes, [x], [y], [tip], None)
    return artist


def line(axes, x, y, name, tips, **style):
    """`tips`: a line of text a vertex; vertices that the axes cut off show nothing."""
    artist, = axes.plot(x, y, **style)
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), VERTICES)).round().astype(int))
    _mark(artist, axes, [x[i] for i in chosen], [y[i] for i in chosen], [tips[i] for i in chosen], name)
    return artist


def _places(figure, axes, x, y):
    """Where they lie in units of the viewBox; None for what the axes cut off."""
    width, height = 72 * figure.get_size_inches()
    box = axes.get_window_extent()
    result = []
    for px, py in axes.transData.transform(np.column_stack([x, y])):
        inside = box.x0 - 1 <= px <= box.x1 + 1 and box.y0 - 1 <= py <= box.y1 + 1
        result.append((px / figure.bbox.width * width, (1 - py / figure.bbox.height) * height) if inside else None)
    return result


def svg_text(figure, salt):
    plt.rcParams["svg.hashsalt"] = salt  # the same ids in every run
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    marks = getattr(figure, "marks", {})

    def describe(match):
        axes, x, y, tips, name = marks[match.group(1)]
        shown = [(place, tip) for place, tip in zip(_places(figure, axes, x, y), tips) if place]
        at = " ".join(f"{px:.1f},{py:.1f}" for (px, py), _ in shown)
        tip = quoteattr("\n".join(tip for _, tip in shown))
        of_line = f" data-name={quoteattr(name)}" if name else ""
        title = "" if name else f"<title>{escape(tips[0])}</title>"
        return f'<g id="{match.group(1)}" class="mark"{of_line} data-at="{at}" data-tip={tip}>{title}'

    text = re.sub(r'<g id="(mark-\d+)">', describe, buffer.getvalue())
    # A hundredth of a point is fine enough, and the page has all drawings in it.
    return re.sub(r'( d="[^"]*"| [xy]="[^"]*"|translate\([^)]*\))', _rounded, text)


def _rounded(match):
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number.group()):.2f}".rstrip("0").rstrip("."), match.group())


def _laid_out(figure):
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")  # else every file lays it out anew
    return figure


def save(draw, rows, folder, name):
    figure = _laid_out(draw(rows))
    for end, metadata in (("png", None), ("pdf", {"CreationDate": None})):
        figure.savefig(folder / f"{name}.{end}", dpi=170, metadata=metadata)
    (folder / f"{name}.svg").write_text(svg_text(figure, name), encoding="utf-8")
    plt.close(figure)
    with _narrow_sheets():
        figure = _laid_out(draw(rows))
    if figure.get_figwidth() == NARROW:
        (folder / f"{name}_narrow.svg").write_text(svg_text(figure, f"{name}_narrow"), encoding="utf-8")
    plt.close(figure)
