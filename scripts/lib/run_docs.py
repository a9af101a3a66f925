#!/usr/bin/env python3
"""run_docs.py PAGE: runs a page of documentation as a reader would, in the present folder, and compares what it prints.

Blocks of the page, by their info string:

    ```sh                 is run in one shell, block after block; it must end with 0
    ```sh exit=69         the same, and must end with that
    ```sh background      is run in a shell of its own until the page ends; the next ```text must appear within 30 s
    ```sh skip            is not run
    ```proto FILE         (or any language, and a name) is written to FILE
    ```text               what the block before prints: line for line, any spacing, `…` for anything

The ports 8001 to 8003 and 50051 are replaced by free ones, everywhere on the page. Exits with 1 at the first block that does
something else than the page says."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

PATIENCE = 30
# Longest time of one block: one installs packages.
BLOCK_TIMEOUT = 300
PORTS = ("8001", "8002", "8003", "50051")
FENCE = re.compile(r"^```(\S+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def free_ports(count):
    """The first of so many free ports in a row: `p2pctl dev` counts on from one."""
    for base in range(21001, 29001, 10):
        sockets = []
        try:
            for port in range(base, base + count):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
    sys.exit("no free ports")


def pattern(expected):
    """What the page shows, as a regular expression for the whole output."""
    lines = []
    for line in expected.strip().splitlines():
        if line.strip() == "…":
            lines.append(r"(?:.*\n)*?.*")
            continue
        words = [re.escape(word).replace("…", ".*") for word in line.split()]
        lines.append(r"[ \t]*" + r"[ \t]+".join(words) + r"[ \t]*")
    return re.compile(r"\s*" + r"\n".join(lines) + r"\s*")


class Page:
    def __init__(self, text):
        base = free_ports(len(PORTS))
        for offset, port in enumerate(PORTS):
            text = re.sub(rf"\b{port}\b", str(base + offset), text)
        # `p2pctl dev` counts from 8001, unless it is told.
        text = text.replace("p2pctl dev\n", f"p2pctl dev --base-port {base}\n")
        self.blocks = FENCE.findall(text)
        # Directory and variables of the reader's shell.
        self.state = os.path.abspath(".docs-shell")
        self.background = []

    def run(self):
        done = 0
        for number, (language, info, body) in enumerate(self.blocks):
            words = info.split()
            follows = self.blocks[number + 1] if number + 1 < len(self.blocks) else ("", "", "")
            expected = follows[2] if follows[0] == "text" else None
            if language == "sh" and "skip" not in words:
                if "background" in words:
                    self.start(body, expected)
                else:
                    wanted = next((int(word[5:]) for word in words if word.startswith("exit=")), 0)
                    self.execute(body, expected, wanted)
                done += 1
            elif language not in ("sh", "text") and words:
                with open(os.path.join(self.folder(), words[0]), "w", encoding="utf-8") as file:
                    file.write(body)
        print(f"{done} blocks did what the page says")

    def folder(self):
        if not os.path.exists(self.state):
            return "."
        with open(self.state, encoding="utf-8") as file:
            return re.search(r'^declare -x PWD="(.*)"$', file.read(), re.MULTILINE)[1]

    def enter(self):
        """What brings a shell to where the block before left it: folder and variables."""
        return f'. "{self.state}" && cd "$PWD"\n' if os.path.exists(self.state) else ""

    def execute(self, body, expected, wanted):
        leave = f"trap '__code=$?; export -p >\"{self.state}\"; exit $__code' EXIT\n"
        script = self.enter() + "set -e\n" + leave + body
        done = subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BLOCK_TIMEOUT)
        if done.returncode != wanted:
            self.fail(body, f"ended with {done.returncode} instead of {wanted}", done.stdout)
        if expected is not None and not pattern(expected).fullmatch(done.stdout):
            self.fail(body, "printed something else", done.stdout, expected)

    def start(self, body, expected):
        log = open(f"background-{len(self.background)}.log", "w+", encoding="utf-8")
        process = subprocess.Popen(["bash", "-c", self.enter() + "exec " + body.strip()], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self.background.append(process)
        deadline = time.monotonic() + PATIENCE
        while expected is not None:
            with open(log.name, encoding="utf-8") as file:
                printed = file.read()
            if re.search(pattern(expected).pattern, printed):
                return
            if time.monotonic() > deadline or process.poll() is not None:
                self.fail(body, "did not print this in time", printed, expected)
            time.sleep(0.1)

    def fail(self, body, why, printed, expected=None):
        text = f"--- the block\n{body}--- {why}\n{printed}"
        raise SystemExit(text + (f"--- instead of\n{expected}" if expected is not None else ""))

    def stop(self):
        for process in reversed(self.background):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        page = Page(file.read())
    try:
        page.run()
    finally:
        page.stop()


if __name__ == "__main__":
    main()
