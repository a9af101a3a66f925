#!/usr/bin/env python3
"""check_verbs.py P2PCTL PAGE...: whether each command `p2pctl ...` of the pages, in code or between backticks, is a verb that
there is, with flags that it has: its --help must work and name them. What a page says is not there yet ("Status and what
comes next") is left out. Prints those that are not, and exits with 1 then."""

import re
import shlex
import subprocess
import sys

# Options before the verb that take a value.
GLOBAL = {"--endpoint", "--ca", "--cert", "--key", "--token", "--timeout", "-o"}


def commands(text):
    """What follows `p2pctl`, in fenced blocks and code spans."""
    text = text.split("## Status and what comes next")[0].replace("\\\n", " ")
    fenced = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks = [body for info, body in fenced if info.split(" ")[0] in ("", "sh", "console")]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if not line.lstrip().startswith("#")]
    # A span that begins otherwise may be a message that only speaks of p2pctl.
    spans = [span for span in re.findall(r"`([^`\n]+)`", prose) if span.startswith("p2pctl ")]
    for code in lines + spans:
        for command in re.findall(r"(?:^|[\s(/])p2pctl ((?:'[^']*'|[^'|;&>#])*)", code):
            yield command.split(" 2>")[0].strip()


def check(program, command, seen):
    """Why it is no command; nothing if it is one."""
    try:
        tokens = shlex.split(re.sub(r"…|\.\.\.", "", command).replace("[", " ").replace("]", " "))
    except ValueError:
        return None
    while tokens and tokens[0].startswith("-"):
        tokens = tokens[2 if tokens[0] in GLOBAL else 1 :]
    verb = []
    for token in tokens:
        if not re.fullmatch(r"[a-z]+(-[a-z]+)*", token):
            break
        verb.append(token)
    if not verb:
        return None
    key = tuple(verb)
    if key not in seen:
        done = subprocess.run([program, *verb, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
        seen[key] = done.stdout if done.returncode == 0 else None
    if seen[key] is None:
        return "is no verb"
    flags = {token.split("=")[0] for token in tokens if re.fullmatch(r"--[a-z][a-z-]*(=.*)?", token)}
    missing = sorted(flag for flag in flags if not re.search(rf"{flag}(?![a-z-])", seen[key]))
    return f"has no {', '.join(missing)}" if missing else None


def main():
    program, pages, seen, found, count = sys.argv[1], sys.argv[2:], {}, [], 0
    for page in pages:
        with open(page, encoding="utf-8") as file:
            for command in commands(file.read()):
                count += 1
                why = check(program, command, seen)
                if why is not None:
                    found.append(f"{page}: p2pctl {command}: {why}")
    if found:
        sys.exit("\n".join(found))
    print(f"{count} commands, {len(seen)} verbs: all are there")


if __name__ == "__main__":
    main()
