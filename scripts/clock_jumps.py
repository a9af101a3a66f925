#!/usr/bin/env python3
"""Clocks that jump: nothing is forgotten, nobody else suffers, and all is well again once the clock is right.

Runs two coordinators and a worker, each with a wall clock of its own (libfaketime, `apt-get install faketime`; the monotonic
clock stays the real one, as it does when somebody sets a clock). Revokes a token for good and one for an hour, at each
coordinator. Then the clock of one node jumps, by an hour, a day, or beyond the life of its certificate, ahead and back, stays
there for a while and is put right, while the process runs; and the same with kill -9 and a new start under the wrong clock and
another one under the right clock. Each time:

- meanwhile the other two stay alive for each other, and answer;
- afterwards all three are alive for each other, each answers what is asked of it through each other, and each still lists all
  that is revoked, also what was revoked under a clock that was ahead;
- a start under a clock that lies before the node's certificate ends with a sentence that says so.

Exit code 1 with the jump and what was missing. Standard library only. About five minutes.
"""

import argparse
import glob
import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from nodes import ROOT, Cluster, Trouble, binaries, free_ports, main_with, wait_for  # noqa: E402

SETTINGS = {"rate_limit_enabled": False, "state_autosave_interval": "200ms", "log_level": "info", "gossip_interval_min": 1}
HOUR, DAY = 3600, 86_400
# More than a certificate of `certs generate` lives, and more than a day, from which on foreign epochs are refused.
BEYOND = 400 * DAY
# How long a clock stays wrong: longer than it takes to save, to tidy, to look at certificates, and to suspect.
WRONG = 12
PATIENCE = 60


class Clocks:
    """The wall clock of each node, in a file that libfaketime reads at each look."""

    def __init__(self, directory):
        found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
        if not found:
            raise Trouble("libfaketime is missing: apt-get install faketime")
        self.library, self.directory = found[0], directory

    def file(self, name):
        return os.path.join(self.directory, f"{name}.clock")

    def set(self, name, seconds):
        with open(self.file(name) + ".new", "w") as file:
            file.write(f"{seconds:+d}s\n")
        os.replace(file.name, self.file(name))

    def before(self, name):
        settings = {
            "LD_PRELOAD": self.library,
            "FAKETIME_TIMESTAMP_FILE": self.file(name),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        return ["env", *(f"{key}={value}" for key, value in settings.items())]


class Campaign:
    def __init__(self, cluster, clocks):
        self.cluster, self.clocks, self.nodes, self.revoked = cluster, clocks, {}, set()
        self.ports = dict(zip(["c1", "c2", "w1"], free_ports(3), strict=True))
        for name in self.ports:
            clocks.set(name, 0)
            self.start(name)

    def start(self, name):
        port, before = self.ports[name], self.clocks.before(name)
        self.nodes[name] = self.cluster.start(name, port=port, before=before)

    def kill(self, name):
        node = self.nodes[name]
        node.alive()
        node.forget_connection()
        os.kill(node.pid, signal.SIGKILL)
        node.child.wait()

    def end(self, name):
        """Of a node that was started under a wrong clock, and may have refused to run with it."""
        if self.nodes[name].child.poll() is None:
            return self.kill(name)
        with open(self.nodes[name].log, errors="replace") as log:
            last = log.readlines()[-1]
        if self.nodes[name].child.returncode != 1 or "check both clocks" not in last:
            raise Trouble(f"{name} has ended: {last}")

    def revoke(self, name, number):
        """One by its id, which is kept for 30 days, and one that would live for an hour."""
        at, jti = self.nodes[name].address, f"{name}-{number}"
        self.cluster.p2pctl("token", "revoke", "--jti", jti, at=at)
        token = self.cluster.p2pctl("token", "issue", "--subject", "somebody", "--scope", "*", "--ttl", "1h", at=at)
        shown = json.loads(self.cluster.p2pctl("token", "inspect", token, "-o", "json", at=at))
        self.cluster.p2pctl("token", "revoke", "--token", token, at=at)
        self.revoked |= {jti, shown["claims"]["jti"]}

    def missing(self, names):
        """What is not as it should be among these nodes; nothing if all is well."""
        for name in names:
            node = self.nodes[name]
            node.alive()
            try:
                states = node.states()
            except OSError as error:
                return f"{name} does not answer: {error}"
            for other in names:
                if states.get(other) != "alive":
                    return f"{name} sees {other} as {states.get(other)}"
        return None

    def lacking(self, names):
        """Who cannot be asked through whom, and who has forgotten what."""
        for name in names:
            listed = self.cluster.p2pctl("rpc", "call", "p2p.v1.AuthService/ListRevocations", at=self.nodes[name].address)
            lost = [jti for jti in self.revoked if f'"{jti}"' not in listed]
            if lost:
                return f"{name} has forgotten {lost}"
            for through in names:
                at = self.nodes[through].address
                try:
                    self.cluster.p2pctl("rpc", "call", "p2p.v1.SystemService/GetInfo", "--node", name, at=at)
                except Trouble as trouble:
                    return f"{name} through {through}: {trouble}"
        return None

    def jump(self, name, seconds, restart):
        """One jump and back."""
        days, hours = divmod(abs(seconds) // HOUR, 24)
        how_far = f"{days} days" if days else f"{hours} h"
        what = f"{name} {how_far} {'ahead' if seconds > 0 else 'back'}{', with a start under the wrong clock' if restart else ''}"
        others = [other for other in self.ports if other != name]
        print(what, end="", flush=True)
        begun = time.monotonic()
        if restart:
            self.kill(name)
        self.clocks.set(name, seconds)
        if restart:
            self.start(name)
        elif name == "c1" and 0 < seconds < BEYOND:
            self.cluster.p2pctl("token", "revoke", "--jti", f"{name}-{seconds}", at=self.nodes[name].address)
            self.revoked.add(f"{name}-{seconds}")
        while time.monotonic() - begun < WRONG:
            missing = self.missing(others)
            if missing:
                raise Trouble(f"while {what}: {missing}")
            time.sleep(0.2)
        if restart:
            self.end(name)
        self.clocks.set(name, 0)
        if restart:
            self.start(name)
        righted = time.monotonic()
        self.well(list(self.ports), f"after {what}")
        print(f": well again after {time.monotonic() - righted:.1f} s", flush=True)

    def well(self, names, when):
        last = "nothing"

        def look():
            nonlocal last
            last = self.missing(names) or self.lacking(names)
            return last is None

        try:
            wait_for(look, when, patience=PATIENCE, pause=0.3)
        except Trouble:
            raise Trouble(f"{when}: {last}") from None


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-build", action="store_true", help="use the release binaries as they are")
    parser.add_argument("--debug", action="store_true", help="use the debug binaries as they are")
    arguments = parser.parse_args()
    target = os.path.abspath(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")))
    folder = os.path.join(target, "debug") if arguments.debug else binaries(not arguments.no_build)
    with Cluster(folder, ["c1", "c2:coordinator", "w1"], SETTINGS) as cluster:
        campaign = Campaign(cluster, Clocks(cluster.directory))
        campaign.well(list(campaign.ports), "at the start")
        for number, name in enumerate(["c1", "c2"]):
            campaign.revoke(name, number)
        for name in ["c1", "w1"]:
            for seconds in [HOUR, -HOUR, DAY, -DAY, 40 * DAY, BEYOND, -BEYOND]:
                campaign.jump(name, seconds, restart=False)
            for seconds in [HOUR, -HOUR, -DAY]:
                campaign.jump(name, seconds, restart=True)
    return 0


if __name__ == "__main__":
    main_with(run)
