"""Tables for people: aligned, or as Markdown."""

import re

# What stands to the right: a number with its unit or its range.
FIGURE = re.compile(r"([\d.,]+( [^ ]{1,3}| \([\d.,-]+\))?)?")


class Table:
    """Rows of text under a heading."""

    def __init__(self, *heading):
        self.heading, self.rows = heading, []

    def row(self, *cells):
        self.rows.append([str(cell) for cell in cells])

    def text(self, markdown):
        if markdown:
            lines = [self.heading, ["---"] * len(self.heading), *self.rows]
            return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)
        lines = [self.heading, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.heading))]
        right = [all(FIGURE.fullmatch(row[column]) for row in self.rows) for column in range(len(widths))]
        place = lambda cell, width, right: cell.rjust(width) if right else cell.ljust(width)  # noqa: E731
        return "\n".join("  ".join(map(place, line, widths, right)).rstrip() for line in lines)
