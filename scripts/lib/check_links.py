#!/usr/bin/env python3
"""check_links.py PAGE...: whether each link of a page to a file, or to a heading of one, leads somewhere; also pages that are
named in plain text, as in docs/tokens.md. Prints those that do not, and exits with 1 then."""

import os
import re
import sys


def headings(path):
    """The anchors that GitHub gives to the headings of a page."""
    with open(path, encoding="utf-8") as file:
        text = re.sub(r"^```.*?^```$", "", file.read(), flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.strip().lower()).replace(" ", "-") for line in lines}


def findings(page):
    with open(page, encoding="utf-8") as file:
        text = re.sub(r"^```.*?^```$", "", file.read(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(page), name)) if name else page
        if not os.path.exists(path):
            yield f"{page}: there is no {target}"
        elif anchor and anchor not in headings(path):
            yield f"{page}: {path} has no heading for #{anchor}"
    for name in re.findall(r"(?<![\w/(.\[])(?:docs|deploy|scripts|config)/[\w./-]*\w\.(?:md|sh|py|ya?ml)\b", text):
        if not os.path.exists(name):
            yield f"{page}: there is no {name}"


def main():
    found = [finding for page in sys.argv[1:] for finding in findings(page)]
    if found:
        sys.exit("\n".join(found))
    print(f"{len(sys.argv) - 1} pages link to what there is")


if __name__ == "__main__":
    main()
