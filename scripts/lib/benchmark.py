"""What scripts/benchmark.sh runs; what it measures and how is told there."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

from nodes import Cluster, Trouble, binaries, free_ports, main_with, program, wait_for

# Connections, and calls in flight on each: a busy node, and one caller alone.
SHAPES = {"8x32": (8, 32), "1x1": (1, 1)}


class Bench:
    """The systems under test and the load."""

    def __init__(self, arguments, cluster, folder):
        self.arguments, self.cluster = arguments, cluster
        cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
        # What is measured has the last core for itself, all else the others.
        self.tested, self.others = (cores[-1], ",".join(cores[:-1])) if len(cores) > 1 else (None, None)
        self.greeter = program(folder, "examples", "greeter")
        self.driver = program(folder, "examples", "bench")
        self.systems = {}

    def start(self):
        """Fills `systems`: name → (address to call, processes by role with the measured one first)."""
        listen = f"127.0.0.1:{free_ports(1)[0]}"
        bare = [self.driver, "bare", "--listen", listen, *self.cluster.tls_arguments("bare")]
        bare = self.cluster.run("bare", bare, self.tested)
        local = self.cluster.start("local", self.greeter, self.tested, joins=False)
        entry = self.cluster.start("entry", cores=self.tested)
        provider = self.cluster.start("provider", self.greeter, self.others)
        for node in (local, entry, provider):
            wait_for(node.ready, f"{node.name} is ready")
        # The limits are on: 200 questions a minute.
        knows = lambda: "demo.v1.Greeter" in entry.get("/cluster/nodes")[1]  # noqa: E731
        wait_for(knows, "the entry node knows the greeter", pause=0.3)
        self.systems = {
            "bare": (listen, {"bare": bare}),
            "local": (local.address, {"local": local}),
            "hop": (entry.address, {"entry": entry, "provider": provider}),
        }

    def measure(self, system, shape):
        """One run of the load driver."""
        address, processes = self.systems[system]
        connections, in_flight = SHAPES[shape]
        command = [] if self.others is None else ["taskset", "-c", self.others]
        command += [self.driver, "load", "--address", address, *self.cluster.tls_arguments("admin")]
        command += ["--connections", str(connections), "--in-flight", str(in_flight)]
        command += ["--warmup", str(self.arguments.warmup), "--seconds", str(self.arguments.seconds)]
        for name, process in processes.items():
            process.alive()
            command += ["--watch", f"{name}={process.pid}"]
        patience = self.arguments.warmup + self.arguments.seconds + 30
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
        if done.returncode != 0:
            raise Trouble(f"the load on {system} failed: {done.stderr}")
        run = {"system": system, "shape": shape, **json.loads(done.stdout)}
        cpu = run["cpu_seconds_per_100k"]
        run["cpu"] = cpu[next(iter(processes))]
        run["rss_mib"] = next(iter(processes.values())).rss_bytes() / 2**20
        return run


def median(runs, system, shape, key):
    return statistics.median(run[key] for run in runs if (run["system"], run["shape"]) == (system, shape))


def spread(runs, system, shape, key):
    values = [run[key] for run in runs if (run["system"], run["shape"]) == (system, shape)]
    return f"{min(values):.0f}-{max(values):.0f}"


def summary(runs, shapes):
    """Medians, and the ratios that the targets are about."""
    medians, ratios = {}, {}
    for shape in shapes:
        for system in ("bare", "local", "hop"):
            keys = ("calls_per_second", "p50_us", "p99_us", "cpu", "rss_mib")
            medians[f"{system} {shape}"] = {key: round(median(runs, system, shape, key), 3) for key in keys}
        for this, that in (("local", "bare"), ("hop", "local")):
            for key in ("calls_per_second", "cpu", "p50_us"):
                # Within each round, then the median: what moves slowly on the machine cancels out.
                rounds = {run["round"] for run in runs}
                by_round = []
                for number in rounds:
                    of_round = [run for run in runs if run["round"] == number]
                    by_round.append(median(of_round, this, shape, key) / median(of_round, that, shape, key))
                ratios[f"{this}/{that} {shape} {key}"] = round(statistics.median(by_round), 3)
    return {"medians": medians, "ratios": ratios}


def show(runs, shapes):
    names = {"bare": "bare tonic", "local": "local", "hop": "one hop"}
    print(f"\n{'':12}{'load':>6}{'calls/s':>10}{'(min-max)':>18}{'p50 us':>9}{'p99 us':>9}", end="")
    print(f"{'CPU s/100k':>12}{'provider':>10}{'client':>8}{'RSS MiB':>9}")
    for shape in shapes:
        for system, name in names.items():
            of = lambda key: median(runs, system, shape, key)  # noqa: E731
            for run in runs:
                run["provider"] = run["cpu_seconds_per_100k"].get("provider", 0)
                run["client"] = run["cpu_seconds_per_100k"]["load"]
            rates = spread(runs, system, shape, "calls_per_second")
            print(f"{name:12}{shape:>6}{of('calls_per_second'):>10.0f}{rates:>18}", end="")
            print(f"{of('p50_us'):>9.0f}{of('p99_us'):>9.0f}{of('cpu'):>12.3f}", end="")
            print(f"{of('provider'):>10.3f}{of('client'):>8.3f}{of('rss_mib'):>9.1f}")
    print("\nRatios (median over rounds of the ratio within a round):")
    ratios = summary(runs, shapes)["ratios"]
    for shape in shapes:
        for pair, words in (("local/bare", "local echo / bare tonic"), ("hop/local", "one hop / direct")):
            calls, cpu, p50 = (ratios[f"{pair} {shape} {key}"] for key in ("calls_per_second", "cpu", "p50_us"))
            print(f"  {shape:5} {words:24} calls/s {calls:.2f}   CPU per call {cpu:.2f}   p50 {p50:.2f}")


def run():
    parser = argparse.ArgumentParser(prog="scripts/benchmark.sh", description="Local and one-hop calls against bare tonic.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; every other one in reverse order (default 3)")
    parser.add_argument("--seconds", type=float, default=3, help="measured time of each run (default 3)")
    parser.add_argument("--warmup", type=float, default=1, help="time before it (default 1)")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="only this load; default: both")
    parser.add_argument("--out", help="file to append results to (default benchmark.jsonl beside the target's release folder)")
    parser.add_argument("--no-build", action="store_true", help="use the release binaries as they are")
    arguments = parser.parse_args()
    shapes = arguments.shape or list(SHAPES)

    folder = binaries(not arguments.no_build, "--bins", "--example", "greeter", "--example", "bench")
    arguments.out = arguments.out or os.path.join(os.path.dirname(folder), "benchmark.jsonl")
    runs = []
    with Cluster(folder, ["entry", "provider", "local", "bare"], {"log_level": "info"}) as cluster:
        bench = Bench(arguments, cluster, folder)
        bench.start()
        where = {
            "kind": "machine",
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": " ".join(["scripts/benchmark.sh", *sys.argv[1:]]),
            "kernel": platform.release(),
            "cores": len(os.sched_getaffinity(0)),
            "pinned": bench.tested is not None,
        }
        print(f"{where['at']}: {where['cores']} cores, Linux, loopback, ", end="")
        print("measured system alone on one core" if where["pinned"] else "one core for everything: ratios only")
        with open(arguments.out, "a") as out:
            print(json.dumps(where), file=out)
            for number in range(arguments.rounds):
                plan = [(system, shape) for shape in shapes for system in bench.systems]
                for system, shape in plan if number % 2 == 0 else reversed(plan):
                    result = {"kind": "run", "round": number, **bench.measure(system, shape)}
                    runs.append(result)
                    print(json.dumps(result), file=out, flush=True)
                    print(f"  round {number} {system:6} {shape:5} {result['calls_per_second']:8.0f} calls/s", flush=True)
            print(json.dumps({"kind": "summary", **summary(runs, shapes)}), file=out)
    show(runs, shapes)
    print(f"\nEach run is a line of {arguments.out}.")


if __name__ == "__main__":
    main_with(run)
