#!/usr/bin/env python3
"""What gossip does with many real nodes: processes that speak TLS over loopback, all on this machine.

For each number of nodes (--nodes, several allowed) it starts one coordinator and as many workers as are missing, all
at once, and prints:

- join: until each node sees all of them alive, counted from the first start and from the last;
- connections, memory, CPU time and handshakes that it took;
- idle: after a rest, what a node sends in a window: gossip frames by its metrics, and bytes on loopback with TLS, TCP
  and IP (the interface's counter, divided by the nodes: each packet counts once, for its sender);
- leave: SIGTERM to a worker until each other node sees it left: one change of a record on its way to all;
- rejoin: its new start until each other node sees it alive, and until it sees all of them;
- kill: SIGKILL to a worker until each other node sees it down.

When a node saw something is read from its log afterwards, so that asking does not load what is measured. Rate limits
are off. Run it with nothing else on loopback, best in a network of its own:

    unshare -n sh -c 'ip link set lo up; scripts/measure_gossip.py --no-build --nodes 16 128'

Standard library only. About 2 minutes for 16 nodes, 3 for 128.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from members import MemberLog, count  # noqa: E402
from nodes import Cluster, Trouble, binaries, main_with  # noqa: E402

# Pause between two looks at the logs. The times in them are exact.
PAUSE = 0.25
# Ports below those that the system gives to outgoing connections, of which there will be many.
FIRST_PORT = 10_000
# Room that must be there for each node, and for each connection: memory of both ends, in bytes.
NODE_ROOM, CONNECTION_ROOM = 32 << 20, 160 << 10
# IP and TCP headers of a packet on loopback, with timestamps.
HEADERS = 52
# Pause between one change and the next.
CALM = 2
# How long a node that was started again is waited for until it sees all others.
NEWCOMER_PATIENCE = 20


def check_room(nodes):
    """Refuses numbers of nodes that this machine cannot hold."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if files != resource.RLIM_INFINITY and files < 3 * nodes + 100:
        raise Trouble(f"{nodes} nodes are too many here: a process may open {files} files, and needs {3 * nodes + 100}")
    with open("/proc/meminfo") as memory:
        available = next(int(line.split()[1]) * 1024 for line in memory if line.startswith("MemAvailable:"))
    needed = nodes * NODE_ROOM + nodes * nodes * CONNECTION_ROOM
    if available < needed:
        raise Trouble(f"{nodes} nodes are too many here: {available >> 20} MiB are free, {needed >> 20} MiB needed")


def loopback():
    """Bytes and packets that have gone over loopback."""
    with open("/proc/net/dev") as devices:
        fields = next(line for line in devices if line.strip().startswith("lo:")).split(":")[1].split()
    return int(fields[8]), int(fields[9])


def established():
    """Ends of established TCP connections (proc_net_tcp.txt: state 01)."""
    with open("/proc/net/tcp") as sockets:
        return sum(line.split()[3] == "01" for line in sockets)


def scrape(nodes):
    """The metrics of each node, and when they were taken."""
    taken = []
    for node in nodes:
        taken.append((node.metrics(), time.time()))
        node.forget_connection()
    return taken


def total(taken, name):
    """The sum of a metric over all nodes and label values."""
    return sum(value for samples, _ in taken for sample, value in samples.items() if sample.split("{")[0] == name)


def by_label(taken, name, part=""):
    """The sum over all nodes of each sample of `name` that is not 0."""
    sums = {}
    for samples, _ in taken:
        for sample, value in samples.items():
            if sample.startswith(name + "{") and part in sample and value:
                sums[sample] = sums.get(sample, 0) + value
    return sums


def growth(before, after):
    return {name: value - before.get(name, 0) for name, value in after.items() if value > before.get(name, 0)}


def spread(values):
    values = sorted(values)
    return {"min": values[0], "median": statistics.median(values), "max": values[-1]}


class Measurement:
    """One number of nodes."""

    def __init__(self, arguments, cluster, names):
        self.arguments, self.cluster, self.names = arguments, cluster, names
        self.ports = {name: FIRST_PORT + number for number, name in enumerate(names)}
        self.random = random.Random(arguments.seed)
        self.logs, self.retired, self.result = {}, [], {"nodes": len(names)}

    def nodes(self):
        return [log.node for log in self.logs.values()]

    def start(self, name):
        node = self.cluster.start(name, port=self.ports[name])
        self.logs[name] = MemberLog(node)

    def wait(self, logs, members, state, what, patience=None):
        """When each of `logs` showed `members` in `state`."""
        patience = patience or self.arguments.patience
        end = time.time() + patience
        while True:
            for log in logs:
                log.read()
            times = [log.seen(members, state) for log in logs]
            if None not in times:
                return times
            if time.time() > end:
                raise Trouble(f"not within {patience:.0f} s: {what} at {times.count(None)} of {len(times)} nodes")
            time.sleep(PAUSE)

    def run(self):
        self.join()
        self.idle()
        tries = self.arguments.tries
        victims = [self.random.sample(self.names[1:], tries) for _ in range(2)]
        for names, key, how, state in ((victims[0], "leave", signal.SIGTERM, "left"), (victims[1], "kill", signal.SIGKILL, "down")):
            for name in names:
                self.lose(name, key, how, state)
        self.result["counters"] = self.troubles(scrape(self.nodes()))

    def troubles(self, taken):
        """What should not have happened, or not often."""
        logs = [*self.logs.values(), *self.retired]
        counters = {"suspicions": count(logs, "suspect"), "downs": count(logs, "down")}
        for name in ("dropped_frames", "identity_renewals", "identity_conflicts"):
            counters[name] = total(taken, f"p2p_gossip_{name}_total")
        for name in ("p2p_gossip_refused_total", "p2p_connections_refused_total"):
            counters.update(by_label(taken, name))
        return counters

    def join(self):
        first = time.time()
        for name in self.names:
            self.start(name)
        last = time.time()
        try:
            whole = self.wait(self.logs.values(), self.names, "alive", "all members alive")
        except Trouble:
            seen = [list(log.states.values()).count("alive") for log in self.logs.values()]
            logs, cpu = self.logs.values(), spread([node.cpu_seconds() for node in self.nodes()])
            storm = {state: count(logs, state) for state in ("suspect", "down")}
            self.result["unfinished"] = {"alive_seen": spread(seen), "cpu_seconds": cpu, **storm}
            raise
        cpu = [node.cpu_seconds() for node in self.nodes()]
        ends, taken = established(), scrape(self.nodes())
        alive = [samples['p2p_members{state="alive"}'] for samples, _ in taken]
        per_node = lambda name: spread([samples[name] for samples, _ in taken])  # noqa: E731
        self.result["join"] = {
            "spawning": last - first,
            "from_first": spread([at - first for at in whole]),
            "from_last": spread([at - last for at in whole]),
            "agree_by_metric": sum(each == len(self.names) for each in alive),
            "cpu_seconds": spread(cpu),
            "rss_mib": spread([node.rss_bytes() / 2**20 for node in self.nodes()]),
            "tcp_connections": ends / 2,
            "dialled": per_node("p2p_peer_connections"),
            "links": per_node("p2p_gossip_links"),
            "dials": by_label(taken, "p2p_peer_dials_total"),
            "sent_bytes": per_node('p2p_gossip_bytes_total{direction="sent"}'),
            "frames": by_label(taken, "p2p_gossip_frames_total", '"sent"'),
            **self.troubles(taken),
        }

    def idle(self):
        time.sleep(self.arguments.rest)
        window = self.arguments.window
        before = scrape(self.nodes())
        time.sleep(1)
        cpu, wire, began = [node.cpu_seconds() for node in self.nodes()], loopback(), time.monotonic()
        time.sleep(window)
        took = time.monotonic() - began
        busy = [(node.cpu_seconds() - start) / took for node, start in zip(self.nodes(), cpu)]
        bytes_sent, packets = (now - then for now, then in zip(loopback(), wire))
        ends, after = established(), scrape(self.nodes())
        sent = 'p2p_gossip_bytes_total{direction="sent"}'
        rates = [(now[sent] - then[sent]) / (at - since) for (then, since), (now, at) in zip(before, after)]
        per_second = lambda name, part="": {  # noqa: E731
            label: grown / (took + 1) / len(self.names)
            for label, grown in growth(by_label(before, name, part), by_label(after, name, part)).items()
        }
        self.result["idle"] = {
            "frame_bytes_per_second": spread(rates),
            "wire_bytes_per_second": bytes_sent / took / len(self.names),
            "packets_per_second": packets / took / len(self.names),
            "frames_per_second": per_second("p2p_gossip_frames_total", '"sent"'),
            "dials_per_second": per_second("p2p_peer_dials_total"),
            "cpu_percent": spread([each * 100 for each in busy]),
            "rss_mib": spread([node.rss_bytes() / 2**20 for node in self.nodes()]),
            "tcp_connections": ends / 2,
            **self.troubles(after),
        }

    def lose(self, name, key, how, state):
        """Ends a worker and starts it again: seconds until those that saw it alive saw it so."""
        time.sleep(CALM)
        for log in self.logs.values():
            log.read()
        self.retired.append(self.logs.pop(name))
        gone = self.retired[-1].node
        others = [log for log in self.logs.values() if log.states.get(name) == "alive"]
        began = time.time()
        os.kill(gone.pid, how)
        lost = self.wait(others, [name], state, f"{name} {state}")
        gone.child.wait(timeout=self.arguments.patience)
        again = time.time()
        self.start(name)
        back = self.wait(others, [name], "alive", f"{name} alive again")
        self.result.setdefault(key, []).append(spread([at - began for at in lost]))
        self.result.setdefault("rejoin", []).append(spread([at - again for at in back]))
        try:
            whole = self.wait([self.logs[name]], self.names, "alive", "all alive", NEWCOMER_PATIENCE)[0] - again
        except Trouble:
            whole = None
        self.result.setdefault("newcomer", []).append(whole)


def rows(result):
    """Lines of the table: what, and how much."""
    join, idle = result.get("join"), result.get("idle")
    three = lambda values, form: " / ".join(f"{values[key]:{form}}" for key in ("min", "median", "max"))  # noqa: E731
    if join:
        yield "join, from the first start: first / median / last node", three(join["from_first"], ".2f") + " s"
        yield "join, from the last start", three(join["from_last"], ".2f") + " s"
        yield "nodes that agree by their metrics", f"{join['agree_by_metric']}"
        yield "CPU of a node until then", three(join["cpu_seconds"], ".2f") + " s"
        yield "resident memory then", three(join["rss_mib"], ".1f") + " MiB"
        yield "TCP connections in all then", f"{join['tcp_connections']:.0f}"
        yield "gossip streams of a node then", three(join["links"], ".0f")
        dials = sum(join["dials"].values())
        yield "dials (TLS handshakes) in all, failed", f"{dials:.0f}, {dials - join['dials'].get(OK, 0):.0f}"
        yield "frames sent by a node", three(join["sent_bytes"], ".0f") + " B"
        yield "suspicions, downs, dropped frames", f"{join['suspicions']}, {join['downs']}, {join['dropped_frames']:.0f}"
    if idle:
        yield "idle: gossip frames of a node", three(idle["frame_bytes_per_second"], ".0f") + " B/s"
        headers = idle["packets_per_second"] * HEADERS
        wire = idle["wire_bytes_per_second"]
        yield "idle: on the wire (TLS, TCP and IP)", f"{wire:.0f} B/s, of which {headers:.0f} headers"
        yield "idle: packets of a node", f"{idle['packets_per_second']:.1f} /s"
        yield "idle: dials of a node", f"{sum(idle['dials_per_second'].values()):.2f} /s"
        yield "idle: share of a core", three(idle["cpu_percent"], ".2f") + " %"
        yield "idle: resident memory", three(idle["rss_mib"], ".1f") + " MiB"
        yield "idle: TCP connections in all", f"{idle['tcp_connections']:.0f}"
    for key, words in (("leave", "SIGTERM until left"), ("rejoin", "start until alive"), ("kill", "SIGKILL until down")):
        if key in result:
            middle = {which: statistics.median(each[which] for each in result[key]) for which in ("min", "median", "max")}
            worst = max(each["max"] for each in result[key])
            yield f"{words}: first / median / last node", f"{three(middle, '.2f')} s, worst try {worst:.2f} s"
    if "newcomer" in result:
        whole = [each for each in result["newcomer"] if each is not None]
        late = len(result["newcomer"]) - len(whole)
        times = f"{statistics.median(whole):.2f} s, worst {max(whole):.2f} s, " if whole else ""
        yield "start until it sees all: median", f"{times}not within {NEWCOMER_PATIENCE} s: {late} of {late + len(whole)}"
    for key, value in result.get("counters", result.get("unfinished", {})).items():
        yield f"  {key}", json.dumps(value)
    if "trouble" in result:
        yield "stopped", result["trouble"]


OK = 'p2p_peer_dials_total{result="ok"}'


def report(arguments, result):
    print(f"\n{result['nodes']} nodes")
    for what, figure in rows(result):
        print(f"  {what:58} {figure}", flush=True)
    if arguments.json:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with open(arguments.json, "a") as out:
            print(json.dumps({"at": at, **result}), file=out)


def measure(arguments, folder, number):
    check_room(number)
    names = [f"node-{each:03}" for each in range(number)]
    settings = {"rate_limit_enabled": False, "log_format": "json", "log_level": arguments.log_level}
    with Cluster(folder, names, settings) as cluster:
        measurement = Measurement(arguments, cluster, names)
        try:
            measurement.run()
        except (Trouble, OSError, subprocess.TimeoutExpired) as trouble:
            measurement.result["trouble"] = str(trouble)
        finally:
            # What was measured is told however the script ends.
            report(arguments, measurement.result)
            if arguments.logs:
                keep = os.path.join(arguments.logs, str(number))
                os.makedirs(keep, exist_ok=True)
                for process in cluster.processes:
                    shutil.copy(process.log, keep)


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[16], help="numbers of nodes (default 16)")
    parser.add_argument("--tries", type=int, default=5, help="tries of each change, 0 for none (default 5)")
    parser.add_argument("--rest", type=float, default=15, help="seconds between join and the idle window (default 15)")
    parser.add_argument("--window", type=float, default=30, help="seconds of the idle window (default 30)")
    parser.add_argument("--patience", type=float, default=120, help="seconds that a change may take (default 120)")
    parser.add_argument("--seed", type=int, default=1, help="chooses the workers that are ended (default 1)")
    parser.add_argument("--log-level", default="info", help="of the nodes; at least info (default info)")
    parser.add_argument("--logs", help="folder to copy the nodes' logs to")
    parser.add_argument("--json", help="file to append the results to, a line of JSON for each number of nodes")
    parser.add_argument("--no-build", action="store_true", help="use the release binaries as they are")
    arguments = parser.parse_args()
    if min(arguments.nodes) <= arguments.tries:
        parser.error("more nodes than tries are needed")

    folder = binaries(not arguments.no_build, "--bins")
    for number in arguments.nodes:
        measure(arguments, folder, number)


if __name__ == "__main__":
    main_with(run)
