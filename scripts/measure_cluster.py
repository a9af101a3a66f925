#!/usr/bin/env python3
"""How fast a cluster of real processes on loopback notices things, and what it costs while nothing happens.

Starts 16 nodes and prints, with the targets in brackets:

- of an idle node: resident memory and share of a core (30 s during which nobody asks it anything), gossip bytes a second;
- join: from the start of one more process until all others see it alive;
- leave: from SIGTERM until all others see it left;
- kill: from SIGKILL until all others see it down;
- revoke: from `p2pctl token revoke` being asked until every node refuses the token;

the last four three times each, as median and worst. The rate limits are off in these nodes' configurations: this script
asks all of them for /cluster/nodes many times a second with one admin certificate, far above the 200 a minute of class
`default`. Standard library only; takes about two minutes after the build.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from nodes import Cluster, Trouble, binaries, main_with, wait_for  # noqa: E402

# Pause between rounds of questions; with the time that 16 answers take it is the resolution of what is printed.
PAUSE = 0.02
IDLE_SETTLE, IDLE_WINDOW = 10, 30


def until_all_say(nodes, name, state, began, patience=60):
    """Seconds from `began` until each node shows `name` in `state`: when the first did, and the last."""
    pending, times = list(nodes), []
    while pending:
        for node in list(pending):
            node.alive()
            seen = node.states().get(name)
            if seen == state:
                times.append(time.monotonic() - began)
                pending.remove(node)
        if time.monotonic() - began > patience:
            missing = ", ".join(node.name for node in pending)
            raise Trouble(f"{name} is not {state} after {patience} s at: {missing}")
        time.sleep(PAUSE)
    return min(times), max(times)


def measure_idle(nodes):
    """Figures of each idle node."""
    time.sleep(IDLE_SETTLE)
    gossip = lambda node, way: node.metric("p2p_gossip_bytes_total", f'{{direction="{way}"}}')  # noqa: E731
    before = [(gossip(node, "sent"), gossip(node, "received"), time.monotonic()) for node in nodes]
    for node in nodes:
        node.forget_connection()
    time.sleep(1)
    cpu, began = [node.cpu_seconds() for node in nodes], time.monotonic()
    time.sleep(IDLE_WINDOW)
    took = time.monotonic() - began
    shares = [(node.cpu_seconds() - start) / took for node, start in zip(nodes, cpu)]
    memory = [node.rss_bytes() for node in nodes]
    sent, received = [], []
    for node, (sent_before, received_before, at) in zip(nodes, before):
        seconds = time.monotonic() - at
        sent.append((gossip(node, "sent") - sent_before) / seconds)
        received.append((gossip(node, "received") - received_before) / seconds)
    return {"rss_mib": [each / 2**20 for each in memory], "cpu_percent": [each * 100 for each in shares],
            "sent_bytes_per_second": sent, "received_bytes_per_second": received}  # fmt: skip


def measure_changes(cluster, others, name):
    """One node joins, leaves, joins again and is killed."""
    times = {}
    for join, end, how, state in (("join", "leave", signal.SIGTERM, "left"), ("rejoin", "kill", signal.SIGKILL, "down")):
        began = time.monotonic()
        node = cluster.start(name)
        times[join] = until_all_say(others, name, "alive", began)
        time.sleep(2)
        began = time.monotonic()
        os.kill(node.pid, how)
        times[end] = until_all_say(others, name, state, began)
        node.child.wait()
    return times


def measure_revocation(cluster, nodes):
    """A token that every node takes is revoked: seconds until p2pctl was answered, and until the last node refuses it."""
    scope = "p2p.v1.ClusterService/ListNodes"
    token = cluster.p2pctl("token", "issue", "--subject", "measured", "--scope", scope)
    status = lambda node: node.get("/cluster/nodes", token)[0]  # noqa: E731
    for node in nodes:
        wait_for(lambda: status(node) == 200, f"{node.name} takes the token")
    token_file = os.path.join(cluster.directory, "token")
    with open(token_file, "w") as out:
        out.write(token)
    began = time.monotonic()
    cluster.p2pctl("token", "revoke", "--token", f"@{token_file}")
    answered = time.monotonic() - began
    pending, last = list(nodes), answered
    while pending:
        for node in list(pending):
            if status(node) == 401:
                pending.remove(node)
                last = time.monotonic() - began
        if last - began > 60:
            raise Trouble("the revocation does not arrive")
    return answered, last


def report(idle, changes, revocations):
    show = lambda values, form: f"median {statistics.median(values):{form}}, most {max(values):{form}}"  # noqa: E731
    print("\nIdle node")
    print(f"  resident memory    {show(idle['rss_mib'], '.1f')} MiB            [< 20 MB]")
    print(f"  share of a core    {show(idle['cpu_percent'], '.2f')} %            [< 1 %]")
    print(f"  gossip sent        {show(idle['sent_bytes_per_second'], '.0f')} B/s (encoded frames, without TLS and TCP)")
    print(f"  gossip received    {show(idle['received_bytes_per_second'], '.0f')} B/s")
    print("\nUntil all others see it, in seconds")
    rows = (("join", "a new node alive", "< 2"), ("rejoin", "one that had left alive", "< 2"),
            ("leave", "a SIGTERM'd one left", "< 2"), ("kill", "a SIGKILL'd one down", "< 10"))  # fmt: skip
    for key, words, target in rows:
        last = [each[key][1] for each in changes]
        first = statistics.median(each[key][0] for each in changes)
        tries = " ".join(f"{each:.2f}" for each in last)
        print(f"  {words:24} {show(last, '.2f')}   (first to see it {first:.2f}; tries {tries})   [{target}]")


    answered, last = zip(*revocations)
    print(f"  {'a revoked token refused':24} {show(last, '.2f')}   (p2pctl answered after {statistics.median(answered):.2f})   [< 1]")


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=16, help="nodes of the cluster (default 16)")
    parser.add_argument("--tries", type=int, default=3, help="tries of each change (default 3)")
    parser.add_argument("--out", help="file to append the results to, as a line of JSON")
    parser.add_argument("--no-build", action="store_true", help="use the release binaries as they are")
    arguments = parser.parse_args()

    folder = binaries(not arguments.no_build, "--bins")
    names = [f"node-{number}" for number in range(1, arguments.nodes + 1)]
    joiners = [f"joiner-{number}" for number in range(1, arguments.tries + 1)]
    with Cluster(folder, names + joiners, {"rate_limit_enabled": False}) as cluster:
        began = time.monotonic()
        nodes = [cluster.start(name) for name in names]
        for node in nodes:
            wait_for(node.ready, f"{node.name} is ready")
        everybody = dict.fromkeys(names, "alive")
        for node in nodes:
            wait_for(lambda: node.states() == everybody, f"{node.name} sees all", patience=60)
        together = time.monotonic() - began
        print(f"{len(nodes)} nodes started at once all see each other after {together:.2f} s", flush=True)
        idle = measure_idle(nodes)
        changes = [measure_changes(cluster, nodes, name) for name in joiners]
        revocations = [measure_revocation(cluster, nodes) for _ in range(arguments.tries)]
        report(idle, changes, revocations)
    if arguments.out:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with open(arguments.out, "a") as out:
            print(json.dumps({"at": at, "nodes": len(nodes), "together": together, "idle": idle, "changes": changes, "revocations": revocations}), file=out)


if __name__ == "__main__":
    main_with(run)
