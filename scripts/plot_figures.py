#!/usr/bin/env python3
"""Draws the plots of ARCHITECTURE.md from the simulator's figures, as SVG; plain Python, no packages.

    scripts/simulate.sh figures >figures.txt
    scripts/plot_figures.py figures.txt            writes docs/images/gossip-*.svg and docs/images/gossip.csv

Lines that are not CSV, such as cargo's, are passed over.
"""

import csv
import math
import pathlib
import sys

IMAGES = pathlib.Path(__file__).resolve().parent.parent / "docs" / "images"
WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50

# Readable on white and on dark pages: the colours change with the reader's scheme.
STYLE = """
  svg { font: 13px system-ui, sans-serif; }
  .back { fill: #ffffff } .text { fill: #24292f } .faint { stroke: #d0d7de } .axis { stroke: #57606a }
  .a { stroke: #0969da } .b { stroke: #bc4c00 } .dot.a { fill: #0969da } .dot.b { fill: #bc4c00 }
  .name.a { fill: #0969da; stroke: none } .name.b { fill: #bc4c00; stroke: none }
  .line { fill: none; stroke-width: 2 } .line.a { stroke-width: 4 }
  @media (prefers-color-scheme: dark) {
    .back { fill: #0d1117 } .text { fill: #e6edf3 } .faint { stroke: #30363d } .axis { stroke: #8b949e }
    .a { stroke: #58a6ff } .b { stroke: #f0883e } .dot.a { fill: #58a6ff } .dot.b { fill: #f0883e }
    .name.a { fill: #58a6ff } .name.b { fill: #f0883e }
  }
"""

# File, title, unit, series: column, name, factor.
PLOTS = [
    ("propagation", "One change, from its owner to others", "ms",
     [("change_999_ms", "99.9 % of nodes", 1), ("change_all_ms", "all nodes", 1)]),
    ("traffic", "Messages that a node sends while nothing happens", "B/s",
     [("idle_bytes_per_node_s", "bytes per second", 1)]),
    ("detection", "A killed node, until all others show it as down", "s",
     [("silent_down_all_ms", "host is silent", 1e-3), ("killed_down_all_ms", "host refuses", 1e-3)]),
]


def read(paths):
    """The rows of all files, each size once."""
    rows = {}
    for path in paths:
        header = None
        for row in csv.reader(pathlib.Path(path).read_text().splitlines()):
            if row[:1] == ["nodes"]:
                header = row
            elif header and len(row) == len(header):
                # What was not measured is left empty.
                values = {column: float(text or "nan") for column, text in zip(header, row)}
                rows[values["nodes"]] = values
    if not rows:
        sys.exit("plot_figures.py: no figures found; feed it what scripts/simulate.sh figures prints")
    return [rows[size] for size in sorted(rows)]


def nice_step(top):
    """A step that divides the axis into four to eight parts."""
    power = 10 ** math.floor(math.log10(top / 4))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if top / (power * factor) <= 8)


def draw(title, unit, series, rows):
    """One plot: nodes on a logarithmic axis, values from zero."""
    first, last = (math.log(rows[index]["nodes"]) for index in (0, -1))
    values = {
        column: [(row["nodes"], row[column] * factor) for row in rows if not math.isnan(row[column])]
        for column, _, factor in series
    }
    top = max(value for points in values.values() for _, value in points) * 1.15
    step = nice_step(top)

    def x(nodes):
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log(nodes) - first) / ((last - first) or 1)

    def y(value):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        f' role="img" aria-label="{title}">',
        f"<style>{STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="text" x="{LEFT}" y="22" font-weight="600">{title}, {unit}</text>',
    ]
    for number in range(int(top / step) + 1):
        value = number * step
        out.append(f'<line class="faint" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        out.append(f'<text class="text" x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    base = HEIGHT - BOTTOM
    out.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    for row in rows:
        at = x(row["nodes"])
        out.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{base}" y2="{base + 5}"/>')
        out.append(f'<text class="text" x="{at:.1f}" y="{base + 20}" text-anchor="middle">{row["nodes"]:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text class="text" x="{middle:.0f}" y="{HEIGHT - 10}" text-anchor="middle">nodes (logarithmic)</text>')
    # Names beside the lines' ends, far enough apart to be read.
    ends = sorted((y(values[column][-1][1]), index) for index, (column, _, _) in enumerate(series))
    places, floor = {}, -math.inf
    for place, index in ends:
        places[index] = floor = max(place, floor + 18)
    for index, (column, name, _) in enumerate(series):
        shade = "ab"[index]
        points = [(x(nodes), y(value)) for nodes, value in values[column]]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        out.append(f'<polyline class="line {shade}" points="{path}"/>')
        out += [f'<circle class="dot {shade}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in points]
        out.append(f'<text class="name {shade}" x="{WIDTH - RIGHT + 12}" y="{places[index] + 4:.1f}">{name}</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    rows = read(sys.argv[1:])
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, title, unit, series in PLOTS:
        (IMAGES / f"gossip-{name}.svg").write_text(draw(title, unit, series, rows))
    with (IMAGES / "gossip.csv").open("w", newline="") as file:
        # What the machine was busy with decides the last two; they are no figures of the protocol.
        columns = [column for column in rows[0] if column not in ("wall_s", "peak_mib")]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        text = lambda value: "" if math.isnan(value) else f"{value:.10g}"
        writer.writerows([text(row[column]) for column in columns] for row in rows)


main()
