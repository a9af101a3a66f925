#!/usr/bin/env python3
"""What limits cost, and what one client notices of another that takes more than its share.

Starts three nodes, of which one provides demo.v1.Greeter, on the last core; the load has the others.

- limiter: local echo at a node whose clients have a rate limit that they do not reach, and at one without limits, by turns;
- flood: a guest calls at a fixed rate, within its limit, alone and while another client floods: 16 connections with 64
  calls in flight each, at four times what its limit allows, and as many as it can. Latencies are measured from when calls
  were due. Meanwhile each node must see the others alive, always.

Loopback only; nothing stays behind; about a minute and a half after the build. Standard library only. Exit code 1 if a
member was lost, or a call of the guest failed; that latencies miss their target is only said.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from nodes import ROOT, Cluster, Trouble, binaries, main_with, program, wait_for  # noqa: E402
from tables import Table  # noqa: E402

# More than any client reaches.
FAR = 4_000_000_000
# The first seconds, in which connections are opened, are no measure of what is normal.
WARMUP = 1.0


class Bench:
    def __init__(self, folder, cluster, arguments):
        self.folder, self.cluster, self.arguments = folder, cluster, arguments
        cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
        self.tested, self.others = (cores[-1], ",".join(cores[:-1])) if len(cores) > 1 else (None, None)

    def command(self, part, node, *more):
        pinned = [] if self.others is None else ["taskset", "-c", self.others]
        driver = program(self.folder, "examples", "bench")
        return [*pinned, driver, part, "--address", node.address, *self.cluster.tls_arguments("admin"), *map(str, more)]

    def drive(self, part, node, *more):
        done = subprocess.run(self.command(part, node, *more), capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise Trouble(f"{part} on {node.name} failed: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def node(self, name, **settings):
        before = self.cluster.settings
        self.cluster.settings = {**before, **settings}
        node = self.cluster.start(name, program(self.folder, "examples", "greeter"), self.tested, joins="alone" not in name)
        self.cluster.settings = before
        wait_for(node.ready, f"{name} is ready")
        node.forget_connection()
        return node


def limiter(bench):
    """Echo with limits and without, by turns: calls a second and CPU, and their ratios round by round."""
    limits = {"rate_limit_grpc_requests": FAR, "rate_limit_grpc_burst": 1_000_000}
    nodes = {"on": bench.node("alone-on", **limits), "off": bench.node("alone-off", rate_limit_enabled=False)}
    found = {name: [] for name in nodes}
    for number in range(bench.arguments.rounds):
        for name in nodes if number % 2 == 0 else reversed(nodes):
            watch = f"{name}={nodes[name].pid}"
            found[name].append(bench.drive("load", nodes[name], "--seconds", 3, "--watch", watch))
    for node in nodes.values():
        node.stop()
    table = Table("limits", "calls/s", "CPU s/100k")
    for name, runs in found.items():
        rate = statistics.median(run["calls_per_second"] for run in runs)
        cpu = statistics.median(run["cpu_seconds_per_100k"][name] for run in runs)
        table.row(name, f"{rate:,.0f}", f"{cpu:.3f}")
    pairs = list(zip(found["on"], found["off"], strict=True))
    rate = statistics.median(on["calls_per_second"] / off["calls_per_second"] for on, off in pairs)
    cpu = statistics.median(on["cpu_seconds_per_100k"]["on"] / off["cpu_seconds_per_100k"]["off"] for on, off in pairs)
    print(table.text(bench.arguments.markdown))
    print(f"on / off, median of {len(pairs)} rounds: {rate:.3f} in calls/s [>= 0.97], {cpu:.3f} in CPU\n", flush=True)


class Watch(threading.Thread):
    """Looks all the time whether every node sees all others alive."""

    def __init__(self, nodes):
        super().__init__(daemon=True)
        self.nodes, self.lost, self.over, self.looks = nodes, [], False, 0

    def run(self):
        while not self.over:
            for node in self.nodes:
                try:
                    states = node.states()
                except (OSError, Trouble) as error:
                    self.lost.append(f"{node.name} does not tell: {error}")
                    continue
                self.looks += 1
                self.lost += [f"{node.name} sees {name} as {state}" for name, state in states.items() if state != "alive"]
            time.sleep(0.2)


def flood(bench):
    """The guest's latencies; whether all was well."""
    limit = bench.arguments.limit
    rule = [{"clients": ["flooder", "guest"], "requests": limit * 60, "burst": max(limit // 10, 1)}]
    busy = bench.node("busy", rate_limit_overrides=rule, rate_limit_default_requests=FAR, rate_limit_health_requests=FAR)
    nodes = [busy, *(bench.node(name, rate_limit_default_requests=FAR) for name in ("other-1", "other-2"))]
    alive = lambda node: sum(state == "alive" for state in node.states().values()) == len(nodes)  # noqa: E731
    wait_for(lambda: all(alive(node) for node in nodes), "all see all")
    issue = ("token", "issue", "--scope", "demo.v1.Greeter/*", "--subject")
    guest, flooder = (bench.cluster.p2pctl(*issue, who, at=busy.address) for who in ("guest", "flooder"))
    watch = Watch(nodes)
    watch.start()

    seconds = bench.arguments.seconds
    calls = ["--rate", bench.arguments.rate, "--seconds", seconds, "--every", seconds, "--connections", 1, "--token", guest]
    table = Table("flood", "answered/s", "refused/s", "guest's p50 ms", "p99 ms", "most ms", "failed", "p99 / alone")
    failed, alone = 0, None
    for what, rate in [("none", 0), ("none", 0), ("4 times its limit", 4 * limit), ("as many as it can", None)]:
        load = None
        if rate != 0:
            most = [] if rate is None else ["--rate", rate]
            parts = bench.command("flood", busy, "--token", flooder, "--seconds", seconds + 2 * WARMUP, *most)
            load = subprocess.Popen(parts, stdout=subprocess.PIPE, text=True)
            time.sleep(WARMUP)
        row = bench.drive("pace", busy, *calls)["rows"][0]
        flooded = json.loads(load.communicate(timeout=60)[0]) if load else {"answered_per_second": 0, "refused_per_second": 0}
        if rate == 0:
            # The first time warms up.
            alone = row["p99_ms"]
        ratio = "" if rate == 0 else f"{row['p99_ms'] / alone:.1f}"
        failed += row["failed"]
        table.row(what, f"{flooded['answered_per_second']:,.0f}", f"{flooded['refused_per_second']:,.0f}",
                  f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{row['most_ms']:.1f}", row["failed"], ratio)  # fmt: skip
    watch.over = True
    watch.join(10)
    print(table.text(bench.arguments.markdown))
    print(f"guest: {bench.arguments.rate} calls a second over one connection; limit of each client: {limit} a second; p99 / alone [<= 2]")
    print(f"members seen as anything but alive: {len(watch.lost)} of {watch.looks} looks at three nodes [0]")
    for each in watch.lost[:5]:
        print(f"  {each}")
    return failed == 0 and not watch.lost


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the limiter's comparison (default 5; 0: leave out)")
    parser.add_argument("--limit", type=int, default=2000, help="calls a second that each client may make (default 2000)")
    parser.add_argument("--rate", type=int, default=500, help="calls a second of the guest (default 500)")
    parser.add_argument("--seconds", type=float, default=8, help="seconds of each flood (default 8)")
    parser.add_argument("--markdown", action="store_true", help="print tables for docs/benchmarks.md")
    parser.add_argument("--no-build", action="store_true", help="use the release binaries as they are")
    parser.add_argument("--debug", action="store_true", help="use the debug binaries as they are: to try the script, not to measure")
    arguments = parser.parse_args()
    target = os.path.abspath(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")))
    folder = (
        os.path.join(target, "debug")
        if arguments.debug
        else binaries(not arguments.no_build, "--bins", "--example", "greeter", "--example", "bench")
    )
    print(f"load average {os.getloadavg()[0]:.1f} at the start, {len(os.sched_getaffinity(0))} cores\n")
    names = ["busy", "other-1", "other-2", "alone-on:coordinator", "alone-off:coordinator"]
    with Cluster(folder, names, {"log_level": "info"}) as cluster:
        bench = Bench(folder, cluster, arguments)
        if arguments.rounds:
            limiter(bench)
        return 0 if flood(bench) else 1


if __name__ == "__main__":
    main_with(run)
