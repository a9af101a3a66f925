"""What scripts/measure_dataplane.py measures, and what it makes of it; why and how is told there."""

import json
import os
import statistics
import subprocess
import time

import rivals
from nodes import Trouble, free_ports, program, wait_for
from tables import Table

# Kind of load → the driver's subcommand, connections, and calls or messages in flight on each.
LOADS = {"8x32": ("load", 8, 32), "1x1": ("load", 1, 1), "stream": ("stream", 8, 32)}
IDLE_SETTLE, IDLE_WINDOW = 5, 20
# Systems that have streams, and those between a caller and a provider.
STREAMING = ("bare", "local", "hop", "nginx", "haproxy")
BETWEEN = ("hop", "nginx", "haproxy")
NAMES = {"bare": "bare tonic", "local": "node, local", "token": "node, local, token", "hop": "node, hop"}


class Bench:
    """The systems under test and the load."""

    def __init__(self, arguments, cluster, folder):
        self.arguments, self.cluster = arguments, cluster
        cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
        # What is measured has the last core for itself, all else the others.
        self.tested, self.others = (cores[-1], ",".join(cores[:-1])) if len(cores) > 1 else (None, None)
        self.greeter = program(folder, "examples", "greeter")
        self.driver = program(folder, "examples", "bench")
        # Name → (address to call, processes by role with the measured one first).
        self.systems, self.versions, self.token = {}, {}, None

    def start_hop(self):
        entry = self.cluster.start("entry", cores=self.tested)
        provider = self.cluster.start("provider", self.greeter, self.others)
        for node in (entry, provider):
            wait_for(node.ready, f"{node.name} is ready")
        # The limits are on: 200 questions a minute.
        knows = lambda: "demo.v1.Greeter" in entry.get("/cluster/nodes")[1]  # noqa: E731
        wait_for(knows, "the entry node knows the greeter", pause=0.3)
        entry.forget_connection()
        self.systems["hop"] = (entry.address, {"entry": entry, "provider": provider})
        return provider

    def start(self):
        listen = f"127.0.0.1:{free_ports(1)[0]}"
        bare = [self.driver, "bare", "--listen", listen, *self.cluster.tls_arguments("bare")]
        bare = self.cluster.run("bare", bare, self.tested)
        local = self.cluster.start("local", self.greeter, self.tested, joins=False)
        wait_for(local.ready, "local is ready")
        local.forget_connection()
        self.token = self.cluster.p2pctl(
            "token", "issue", "--subject", "bench", "--scope", "demo.v1.Greeter/*", at=local.address
        )
        self.systems = {"bare": (listen, {"bare": bare}), "local": (local.address, {"local": local})}
        self.systems["token"] = self.systems["local"]
        provider = self.start_hop()
        found, self.versions = rivals.start(self.cluster, provider.address, self.tested)
        for name, (address, process) in found.items():
            behind = {"provider": provider}
            if name == "nats":
                answers = [self.driver, "nats", "respond", "--address", address, *self.cluster.tls_arguments("admin")]
                behind = {"provider": self.cluster.run("responder", answers, self.others)}
            self.systems[name] = (address, {name: process, **behind})

    def drive(self, system, *part, watched, patience):
        """Runs a part of the driver against a system: what it printed."""
        address, processes = self.systems[system]
        command = [] if self.others is None else ["taskset", "-c", self.others]
        command += [self.driver, *part, "--address", address, *self.cluster.tls_arguments("admin")]
        for process in processes.values():
            process.alive()
        for name in watched:
            command += ["--watch", f"{name}={processes[name].pid}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
        if done.returncode != 0:
            raise Trouble(f"{' '.join(part[:2])} on {system} failed: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def all(self):
        """Every measurement, one after the other."""
        if self.arguments.idle:
            yield self.idle()
            for system in STREAMING:
                if system in self.systems and system != "hop":
                    yield self.connections(system)
        if self.arguments.mebibytes:
            yield from (self.bulk(system) for system in BETWEEN if system in self.systems)
        loads = self.arguments.load or list(LOADS)
        plan = [(system, load) for load in loads for system in self.systems if load != "stream" or system in STREAMING]
        for number in range(self.arguments.rounds):
            for system, load in plan if number % 2 == 0 else reversed(plan):
                yield {"round": number, **self.calls(system, load)}
        yield self.verification()

    def idle(self):
        """The entry node, which nobody has asked anything but whether it is there."""
        node = self.systems["hop"][1]["entry"]
        time.sleep(IDLE_SETTLE)
        cpu, began = node.cpu_seconds(), time.monotonic()
        time.sleep(IDLE_WINDOW)
        share = (node.cpu_seconds() - cpu) / (time.monotonic() - began)
        return {"kind": "idle", "rss_bytes": node.rss_bytes(), "cpu_share": share}

    def connections(self, system):
        part = ("idle", "--connections", str(self.arguments.idle))
        measured = next(iter(self.systems[system][1]))
        found = self.drive(system, *part, watched=[measured], patience=60 + self.arguments.idle / 20)
        return {"kind": "connections", "system": system, **found}

    def bulk(self, system):
        processes = self.systems[system][1]
        part = ("bulk", "--mebibytes", str(self.arguments.mebibytes), "--patience", "170")
        return {"kind": "bulk", "system": system, **self.drive(system, *part, watched=processes, patience=180)}

    def calls(self, system, load):
        part, connections, in_flight = LOADS[load]
        part = ["nats", "load"] if system == "nats" else [part]
        part += ["--connections", str(connections), "--in-flight", str(in_flight)]
        part += ["--warmup", str(self.arguments.warmup), "--seconds", str(self.arguments.seconds)]
        if system == "token":
            part += ["--token", self.token]
        processes = self.systems[system][1]
        patience = self.arguments.warmup + self.arguments.seconds + 30
        found = self.drive(system, *part, watched=processes, patience=patience)
        cpu = found["cpu_seconds_per_100k"]
        measured = next(iter(processes))
        mine = {"cpu": cpu[measured], "provider": cpu.get("provider", 0), "client": cpu["load"]}
        rss = processes[measured].rss_bytes() / 2**20
        return {"kind": "calls", "system": system, "load": load, **found, **mine, "rss_mib": rss}

    def verification(self):
        command = [] if self.tested is None else ["taskset", "-c", self.tested]
        done = subprocess.run([*command, self.driver, "token"], capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise Trouble(f"the verification of tokens failed: {done.stderr.strip()}")
        return {"kind": "verification", **json.loads(done.stdout)}


class Results:
    """What was found, and tables of it."""

    def __init__(self):
        self.calls, self.once = {}, {}

    def add(self, result):
        """Keeps a result; a line about it."""
        kind, system = result["kind"], result.get("system")
        if kind == "calls":
            self.calls.setdefault((system, result["load"]), {})[result["round"]] = result
            return f"round {result['round']} {system:8} {result['load']:7} {result['calls_per_second']:9.0f}/s"
        self.once[kind, system] = result
        if kind == "bulk":
            grown = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in result["growth_bytes"].items())
            return f"bulk {system}: {result['megabytes_per_second']:.0f} MB/s each way, grown by {grown}"
        if kind == "connections":
            return f"{result['connections']} idle connections, {system}: {result['bytes_each'] / 1e3:.1f} KB each"
        if kind == "idle":
            return f"idle node: {result['rss_bytes'] / 1e6:.1f} MB, {result['cpu_share'] * 100:.2f} % of a core"
        return f"token verified in {result['first_ns'] / 1e3:.1f} us, again in {result['cached_ns'] / 1e3:.2f} us"

    def median(self, system, load, key):
        values = [run[key] for run in self.calls.get((system, load), {}).values() if run[key] is not None]
        return statistics.median(values) if values else None

    def ratio(self, this, that, load, key):
        """Within each round, then the median: what moves slowly on the machine cancels out."""
        ours, theirs = self.calls.get((this, load), {}), self.calls.get((that, load), {})
        ratios = [ours[number][key] / theirs[number][key] for number in ours if theirs.get(number, {}).get(key)]
        return statistics.median(ratios) if ratios else None

    def tables(self, markdown):
        parts = [self.call_table(), self.once_table(), self.target_table()]
        return "\n" + "\n\n".join(part.text(markdown) for part in parts if part.rows)

    def call_table(self):
        table = Table("", "load", "calls/s (min-max)", "p50 us", "p99 us", "CPU s/100k", "provider's", "client's", "RSS MiB")
        for load in LOADS:
            for system, _ in filter(lambda key: key[1] == load, self.calls):
                rates = [run["calls_per_second"] for run in self.calls[system, load].values()]
                rate = f"{statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"
                found = [self.median(system, load, key) for key in ("p50_us", "p99_us", "cpu", "provider", "client", "rss_mib")]
                digits = (0, 0, 3, 3, 3, 1)
                table.row(NAMES.get(system, system), load, rate, *map(shown, found, digits))
        return table

    def once_table(self):
        table = Table("once", "", "found")
        for (kind, system), found in self.once.items():
            if kind == "connections":
                table.row("idle connection", NAMES.get(system, system), f"{found['bytes_each'] / 1e3:.1f} KB")
            elif kind == "bulk":
                grown = ", ".join(f"{name} +{size / 1e6:.1f} MB" for name, size in found["growth_bytes"].items())
                sent = f"{found['bytes_each_way'] / 2**30:.2g} GiB each way, one stream"
                table.row(sent, NAMES.get(system, system), f"{found['megabytes_per_second']:.0f} MB/s; {grown}")
        return table

    def target_table(self):
        table = Table("what", "found", "target", "")
        idle = self.once.get(("idle", None), {})
        token = self.once.get(("verification", None), {})
        connection = self.once.get(("connections", "local"), {})
        growth = self.once.get(("bulk", "hop"), {}).get("growth_bytes", {})
        of = lambda found, key, unit: found[key] / unit if key in found else None  # noqa: E731
        for what, found, relation, target, unit in [
            ("local echo / bare tonic, calls/s", self.ratio("local", "bare", "8x32", "calls_per_second"), ">=", 0.93, ""),
            ("local echo / bare tonic, CPU per call", self.ratio("local", "bare", "8x32", "cpu"), "<=", 1.08, ""),
            ("the same with a cached token", self.ratio("token", "bare", "8x32", "cpu"), "<=", 1.15, ""),
            ("hop / haproxy, CPU per call", self.ratio("hop", "haproxy", "8x32", "cpu"), "<=", 0.67, ""),
            ("hop / nginx, CPU per call", self.ratio("hop", "nginx", "8x32", "cpu"), "<=", 0.4, ""),
            ("hop / NATS, calls/s", self.ratio("hop", "nats", "8x32", "calls_per_second"), ">=", 1, ""),
            ("hop / NATS, CPU per call", self.ratio("hop", "nats", "8x32", "cpu"), None, None, ""),
            ("hop / nginx, p50 of a lone call", self.ratio("hop", "nginx", "1x1", "p50_us"), "<=", 1, ""),
            ("streamed messages, hop / direct", self.ratio("hop", "local", "stream", "calls_per_second"), ">=", 0.5, ""),
            *((f"growth of {name}, bulk through a hop", size / 1e6, "<=", 10, " MB") for name, size in growth.items()),
            ("idle node, resident", of(idle, "rss_bytes", 1e6), "<=", 20, " MB"),
            ("idle node, share of a core", of(idle, "cpu_share", 0.01), "<=", 1, " %"),
            ("idle client connection", of(connection, "bytes_each", 1e3), "<=", 40, " KB"),
            ("token verified first / bare library", of(token, "first_to_bare", 1), "<=", 1.5, ""),
            ("token verified again", of(token, "cached_ns", 1e3), "<=", 1, " us"),
        ]:
            if found is None:
                continue
            if relation is None:
                table.row(what, f"{found:.2f}{unit}", "none", "")
                continue
            met = found >= target if relation == ">=" else found <= target
            table.row(what, f"{found:.2f}{unit}", f"{relation} {target}{unit}", "met" if met else "missed")
        return table


def shown(value, digits):
    return "" if value is None else f"{value:,.{digits}f}"
