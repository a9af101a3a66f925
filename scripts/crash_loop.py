#!/usr/bin/env python3
"""kill -9, again and again, under load: nothing that was acknowledged is lost, and every file reads.

Runs a coordinator and a worker. Callers revoke tokens and read the node's state all the while, and at a random moment the
coordinator is killed with SIGKILL, sometimes the worker too; now and then while it still starts. Each start is timed until
/readyz says 200, and then every revocation that was ever acknowledged must be listed. State is saved every 50 ms, so that
saves are cut as well as appends. After 100 rounds the worker must know every revocation, too, and a fresh cluster begins, so
that all revocations fit into one answer.

Exit code 1 if a revocation was lost, a file could not be read, or a start took longer than --limit. Standard library only.
With debug binaries a round takes about 0.7 s.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from nodes import ROOT, Cluster, Trouble, binaries, free_ports, main_with, wait_for  # noqa: E402

SETTINGS = {"rate_limit_enabled": False, "state_autosave_interval": "50ms", "log_level": "warn"}
FRESH = 100
# So that those of 100 rounds fit into one answer (10,000).
REVOCATIONS_MAX = 90
REVOKERS, READERS = 6, 2
# What no log may say: of damage, defects, and revocations that are not what they were.
TROUBLE = ("damaged", "panicked", "passed over", "was set back", "revocations refused")


class Load:
    """Callers of one life of a node."""

    def __init__(self, cluster, port, numbers):
        self.cluster, self.port, self.numbers = cluster, port, numbers
        self.acknowledged, self.reads, self.stop = [], 0, False
        self.lock = threading.Lock()
        works = [self.revoke] * REVOKERS + [self.read] * READERS
        self.threads = [threading.Thread(target=self.until_the_end, args=(work,), daemon=True) for work in works]
        for thread in self.threads:
            thread.start()

    def until_the_end(self, work):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=self.cluster.tls)
        try:
            while not self.stop and work(connection):
                pass
        except (OSError, http.client.HTTPException, ValueError):
            pass  # The node is gone, as it should be.
        connection.close()

    def revoke(self, connection):
        with self.lock:
            if not self.numbers:
                return False
            jti = self.numbers.pop()
        if "result" in rpc(connection, "p2p.v1.AuthService/RevokeToken", {"jti": jti}):
            with self.lock:
                self.acknowledged.append(jti)
        return True

    def read(self, connection):
        if "result" in rpc(connection, "p2p.v1.SystemService/GetInfo", {}):
            with self.lock:
                self.reads += 1
        return True

    def end(self):
        self.stop = True
        for thread in self.threads:
            thread.join()


def rpc(connection, method, parameters):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})
    connection.request("POST", "/rpc", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    return json.loads(text)


def listed(cluster, node):
    """The names of all that the node says is revoked."""
    connection = http.client.HTTPSConnection("127.0.0.1", node.port, timeout=20, context=cluster.tls)
    answer = rpc(connection, "p2p.v1.AuthService/ListRevocations", {})
    connection.close()
    if "result" not in answer or answer["result"].get("truncated"):
        raise Trouble(f"{node.name}: no whole list of revocations: {str(answer)[:300]}")
    return {row["name"] for row in answer["result"].get("revocations", [])}


def kill(node):
    node.alive()
    node.forget_connection()
    os.kill(node.pid, signal.SIGKILL)
    node.child.wait()


def damaged(cluster, name):
    """What of a node's files was set aside, and what its log says of damage."""
    directory = os.path.join(cluster.directory, name)
    found = [file for file in os.listdir(directory) if ".corrupt-" in file]
    with open(os.path.join(cluster.directory, f"{name}.log"), errors="replace") as log:
        found += [line.strip() for line in log if any(word in line for word in TROUBLE)]
    return found


class Campaign:
    def __init__(self, folder, limit):
        self.folder, self.limit = folder, limit
        self.starts, self.acknowledged, self.reads, self.killed, self.early = [], 0, 0, 0, 0

    def start(self, cluster, name, port):
        begun = time.monotonic()
        node = cluster.start(name, port=port)
        wait_for(node.ready, f"{name} serves again", pause=0.005)
        took = time.monotonic() - begun
        self.starts.append(took)
        if took > self.limit:
            raise Trouble(f"{name} served only after {took:.2f} s (--limit {self.limit} s)")
        return node

    def run(self, rounds, first):
        """Some rounds with one cluster."""
        with Cluster(self.folder, ["c1", "w1"], SETTINGS) as cluster:
            ports = dict(zip(["c1", "w1"], free_ports(2), strict=True))
            nodes = {name: self.start(cluster, name, port) for name, port in ports.items()}
            acknowledged = set()
            for number in range(first, first + rounds):
                fresh = [f"r{number}-{each}" for each in range(REVOCATIONS_MAX)]
                load = Load(cluster, ports["c1"], fresh)
                time.sleep(random.uniform(0.005, 0.25))
                victims = ["c1"] if random.random() < 0.75 else ["c1", "w1"]
                for name in victims:
                    kill(nodes[name])
                load.end()
                acknowledged.update(load.acknowledged)
                self.acknowledged += len(load.acknowledged)
                self.reads += load.reads
                self.killed += len(victims)
                if random.random() < 0.2:
                    # Once more, before it serves or just when it does.
                    again = cluster.start("c1", port=ports["c1"])
                    time.sleep(random.uniform(0.0, 0.3))
                    kill(again)
                    self.early += 1
                for name in victims:
                    nodes[name] = self.start(cluster, name, ports[name])
                lost = acknowledged - listed(cluster, nodes["c1"])
                trouble = [f"{name}: {what}" for name in nodes for what in damaged(cluster, name)]
                if lost or trouble:
                    kept = tempfile.mkdtemp(prefix="p2p-crash-")
                    shutil.copytree(cluster.directory, kept, dirs_exist_ok=True)
                    raise Trouble(f"round {number}: lost {sorted(lost)[:5]} ({len(lost)}), damage {trouble[:5]}; states and logs are kept in {kept}")
                if (number + 1) % 25 == 0:
                    print(f"{number + 1} rounds, {self.acknowledged} revocations acknowledged, none lost", flush=True)
            wait_for(lambda: acknowledged <= listed(cluster, nodes["w1"]), "the worker knows all that is revoked", pause=0.2)


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS", 1000)), help="default 1000, or $ROUNDS")
    parser.add_argument("--limit", type=float, default=20, help="seconds that a start may take at most (default 20)")
    parser.add_argument("--seed", type=int, help="for the moments, which stay what the machine makes of them")
    parser.add_argument("--no-build", action="store_true", help="use the release binaries as they are")
    parser.add_argument("--debug", action="store_true", help="use the debug binaries as they are")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    target = os.path.abspath(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")))
    folder = os.path.join(target, "debug") if arguments.debug else binaries(not arguments.no_build)

    campaign, begun = Campaign(folder, arguments.limit), time.monotonic()
    for first in range(0, arguments.rounds, FRESH):
        campaign.run(min(FRESH, arguments.rounds - first), first)
    starts = sorted(campaign.starts)
    print(f"\n{arguments.rounds} rounds in {time.monotonic() - begun:.0f} s: {campaign.killed} nodes killed under load,")
    print(f"  {campaign.early} more while they started")
    print(f"  acknowledged    {campaign.acknowledged} revocations, beside {campaign.reads} calls")
    print("  lost            0   [0]")
    print("  unreadable      0 files   [0]")
    late = sum(1 for start in starts if start > 1)
    print(f"  serving again   median {statistics.median(starts):.3f} s, p99 {starts[int(len(starts) * 0.99)]:.3f} s,")
    print(f"                  longest {starts[-1]:.3f} s, {late} of {len(starts)} above 1 s   [all < 1 s]")
    return 0


if __name__ == "__main__":
    main_with(run)
