#!/usr/bin/env python3
"""Revocations that are acknowledged once they are on disk, and a start with many of them.

By turns, several times: 64 callers revoke tokens at a coordinator, and 64 threads have a bare loop write and fsync (one
fsync for all who wait), both on the disk of --directory. Then a coordinator with 100,000 revocations and 10,000 known
members is started again and again, and timed until /readyz says 200. Prints each target beside what was found. Standard
library only; takes about a minute after the build.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from nodes import ROOT, Cluster, Trouble, binaries, free_ports, main_with, program, wait_for  # noqa: E402

SETTINGS = {"rate_limit_enabled": False, "calls_per_client_max": 4096, "log_level": "error"}


def bench(folder, *arguments):
    command = [program(folder, "examples", "bench"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise Trouble(f"bench {arguments[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else None


def throughput(folder, arguments, directory):
    """Acknowledgements a second of the node and of the bare loop, by rounds."""
    rounds = []
    load = ["--callers", arguments.callers, "--seconds", arguments.seconds]
    for _ in range(arguments.rounds):
        with Cluster(folder, ["c"], {**SETTINGS, "state_directory": tempfile.mkdtemp(dir=directory)}) as cluster:
            node = cluster.start("c")
            wait_for(node.ready, "the coordinator is ready")
            revoked = bench(folder, "revoke", "--address", node.address, *cluster.tls_arguments("admin"), *load)
        rounds.append((revoked, bench(folder, "fsync", "--directory", directory, *load)))
    return rounds


def member(number):
    return {"node_id": f"m{number}", "epoch": 1, "address": f"127.{number >> 16}.{number >> 8 & 255}.{number & 255}:9"}


def starts(folder, arguments, directory):
    """Seconds from the start of the process until it is ready."""
    home = os.path.join(directory, "many")
    bench(folder, "revocations", "--count", arguments.revocations, "--keep", home)
    state, took = os.path.join(home, "state"), []
    with open(os.path.join(state, "gossip_state.json"), "w") as file:
        members = [member(number) for number in range(1, arguments.members + 1)]
        json.dump({"version": 1, "node_id": "c", "epoch": 1, "members": members}, file)
    for _ in range(arguments.rounds):
        with Cluster(folder, ["c"], SETTINGS) as cluster:
            certificates = os.path.join(home, "certs")
            cluster.certificates = certificates
            cluster.tls.load_verify_locations(cluster.certificate("ca"))
            cluster.tls.load_cert_chain(cluster.certificate("admin"), cluster.key("admin"))
            cluster.settings["state_directory"] = state
            port, begun = free_ports(1)[0], time.monotonic()
            node = cluster.start("c", port=port)
            wait_for(node.ready, "the coordinator is ready", pause=0.005)
            took.append(time.monotonic() - begun)
            found = node.metric("p2p_revocations")
            if found < arguments.revocations:
                raise Trouble(f"only {found:.0f} of {arguments.revocations} revocations are in force")
            node.stop()
    return took


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4, help="seconds of each load (default 4)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--revocations", type=int, default=100_000)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--directory", help="where to write: a directory on the disk in question (default: a temporary one)")
    parser.add_argument("--no-build", action="store_true", help="use the release binaries as they are")
    parser.add_argument("--debug", action="store_true", help="use the debug binaries as they are: to try the script, not to measure")
    arguments = parser.parse_args()
    target = os.path.abspath(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")))
    folder = (
        os.path.join(target, "debug")
        if arguments.debug
        else binaries(not arguments.no_build, "--bins", "--example", "bench")
    )
    with contextlib.ExitStack() as stack:
        directory = tempfile.mkdtemp(prefix="p2p-disk-", dir=arguments.directory)
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        rounds = throughput(folder, arguments, directory)
        took = starts(folder, arguments, directory)
    print(f"{arguments.callers} callers, each again once it is answered; medians of {arguments.rounds} rounds")
    median = lambda at, key: statistics.median(pair[at][key] for pair in rounds)  # noqa: E731
    for at, words in ((0, "revocations acknowledged"), (1, "bare loop, fsynced")):
        print(f"  {words:<26}{median(at, 'per_second'):>9.0f} a second, p50 {median(at, 'p50_ms'):.1f} ms, p99 {median(at, 'p99_ms'):.1f} ms")
    ratio = statistics.median(node["per_second"] / bare["per_second"] for node, bare in rounds)
    print(f"  ratio {ratio:.2f}   [revocations >= 2000 a second, or ratio >= 0.5]")
    print(f"start with {arguments.revocations} revocations and {arguments.members} members")
    print(f"  ready after {statistics.median(took):.2f} s, at most {max(took):.2f} s   [< 1.5 s]")
    return 0


if __name__ == "__main__":
    main_with(run)
