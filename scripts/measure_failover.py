#!/usr/bin/env python3
"""What callers see when a provider dies, is taken out, or all nodes are restarted: failed calls, and p99 for each half second.

Starts a coordinator, where calls enter, and three nodes that provide demo.v1.Greeter, calls SayHello (declared free of
side effects) at a fixed rate, and after a third of the time

- kill: ends one provider with SIGKILL;
- stop: ends one with SIGTERM, which drains it.

Each is a run of its own with fresh providers. The third restarts every node of a cluster of five, one after the other, each
when the one before knows all providers again, under calls of p2p-client that may enter by any of them:

- rolling: --rolling-rate calls a second, as long as it takes.

It prints the failed calls, the p99 of calls by when they were due, half a
second each (so calls that wait count), and how long the p99 was above twice what it was before. Exit code 1 if a call
failed. Standard library only; takes about two minutes after the build.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from nodes import PATIENCE, ROOT, Cluster, Trouble, binaries, main_with, program, wait_for  # noqa: E402

# Seconds of a row of the result.
EVERY = 0.5
# The first seconds, in which connections are opened, are no measure of what is normal.
WARMUP = 1.0
PROVIDERS = ["greeter-1", "greeter-2", "greeter-3"]
METHOD = "demo.v1.Greeter/SayHello"
# Seconds of load while five nodes are restarted.
ROLLING_SECONDS = 40


def measure(folder, arguments, how):
    """The rows of one run, and the second in which the provider got its signal."""
    with Cluster(folder, ["entry", *PROVIDERS], {"rate_limit_enabled": False}) as cluster:
        entry = cluster.start("entry")
        wait_for(entry.ready, "the entry node is ready")
        greeter = program(folder, "examples", "greeter")
        providers = [cluster.start(name, binary=greeter) for name in PROVIDERS]
        wait_for(lambda: knows(cluster, entry, PROVIDERS), "the entry node routes to all providers", pause=0.2)
        command = [program(folder, "examples", "bench"), "pace", "--address", entry.address, *cluster.tls_arguments("admin"),
                   "--rate", str(arguments.rate), "--seconds", str(arguments.seconds), "--every", str(EVERY)]  # fmt: skip
        load = cluster.run("pace", command)
        time.sleep(arguments.seconds / 3)
        load.alive()
        signalled = time.time()
        os.kill(providers[0].pid, how)
        result = outcome(load, arguments.seconds)
        samples = entry.metrics()
        result["retries"] = {name: value for name, value in samples.items() if name.startswith("p2p_retries") and value}
        return result, signalled - result["began_unix"]


def roll(folder, arguments):
    """The rows of the run in which every node is restarted, and the seconds in which each was told to stop."""
    names = [f"node-{number}" for number in range(1, 6)]
    with Cluster(folder, names, {"rate_limit_enabled": False}) as cluster:
        greeter = program(folder, "examples", "greeter")
        nodes = {name: cluster.start(name, binary=greeter) for name in names}
        for node in nodes.values():
            wait_for(lambda: knows(cluster, node, names), f"{node.name} routes to all", pause=0.2)
        first, *others = (node.address for node in nodes.values())
        command = [program(folder, "examples", "bench"), "pace", "--address", first, *(f"--or={other}" for other in others),
                   *cluster.tls_arguments("admin"), "--rate", str(arguments.rolling_rate), "--every", str(EVERY),
                   "--seconds", str(ROLLING_SECONDS)]  # fmt: skip
        load = cluster.run("pace", command)
        time.sleep(3)
        signalled = []
        for name in names:
            load.alive()
            signalled.append(time.time())
            nodes[name].forget_connection()
            nodes[name].child.terminate()
            nodes[name].child.wait(PATIENCE)
            node = nodes[name] = cluster.start(name, binary=greeter, port=nodes[name].port)
            wait_for(lambda: knows(cluster, node, names), f"{name} is back and routes to all", pause=0.2)
        load.alive()
        return outcome(load, ROLLING_SECONDS), signalled


def knows(cluster, node, providers):
    """Whether calls that enter at `node` can go to all `providers`."""
    if not node.ready():
        return False
    listed = json.loads(cluster.p2pctl("-o", "json", "rpc", "list", at=node.address))["items"]
    return any(item["path"] == METHOD and set(item["providers"]) == set(providers) for item in listed)


def outcome(load, seconds):
    """What the load printed when it has ended."""
    code = load.child.wait(seconds + 60)
    with open(load.log) as log:
        text = log.read()
    if code != 0:
        raise Trouble(f"the load ended with {code}:\n{text[-2000:]}")
    return json.loads(text.strip().splitlines()[-1])


def report_rolling(result, signalled):
    """Prints the run of restarts; the number of its failed calls."""
    rows = result["rows"]
    failed, answered = (sum(row[key] for row in rows) for key in ("failed", "answered"))
    at = ", ".join(f"{moment - result['began_unix']:.1f}" for moment in signalled)
    print(f"\nevery node restarted, after {at} s")
    print(f"  calls        {answered} answered, {failed} failed{'' if not failed else ': ' + result['first_failure']}   [0 failed]")
    print("  p99 in ms    " + " ".join(f"{row['p99_ms'] or float('nan'):.1f}" for row in rows))
    return failed


def report(words, result, signalled):
    """Prints a run; the number of its failed calls."""
    rows = result["rows"]
    failed, answered = (sum(row[key] for row in rows) for key in ("failed", "answered"))
    before = [row["p99_ms"] for row in rows if WARMUP <= row["at"] < signalled - EVERY and row["p99_ms"]]
    normal = statistics.median(before)
    high = [row["at"] + EVERY for row in rows if row["at"] + EVERY > signalled and (row["p99_ms"] or 1e9) > 2 * normal]
    print(f"\n{words}, after {signalled:.1f} s")
    print(f"  calls        {answered} answered, {failed} failed{'' if not failed else ': ' + result['first_failure']}   [0 failed]")
    print(f"  p99 before   {normal:.1f} ms")
    back = max(0.0, max(high, default=signalled) - signalled)
    print(f"  p99 above twice that until {back:.1f} s after the signal   [< 2]")
    print("  p99 in ms    " + " ".join(f"{row['p99_ms'] or float('nan'):.1f}" for row in rows))
    print("  retries      " + (", ".join(f"{name} {value:.0f}" for name, value in result["retries"].items()) or "none"))
    return failed


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=5000, help="calls a second (default 5000)")
    parser.add_argument("--rolling-rate", type=int, default=2000, help="calls a second while all are restarted (default 2000)")
    parser.add_argument("--seconds", type=float, default=15, help="seconds of each run (default 15)")
    parser.add_argument("--out", help="file to append the results to, as a line of JSON")
    parser.add_argument("--no-build", action="store_true", help="use the release binaries as they are")
    parser.add_argument("--debug", action="store_true", help="use the debug binaries as they are: to try the script, not to measure")
    arguments = parser.parse_args()

    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    folder = (
        os.path.join(os.path.abspath(target), "debug")
        if arguments.debug
        else binaries(not arguments.no_build, "--bins", "--example", "greeter", "--example", "bench")
    )
    failed, results = 0, {}
    for name, words, how in (("kill", "SIGKILL", signal.SIGKILL), ("stop", "SIGTERM", signal.SIGTERM)):
        result, signalled = measure(folder, arguments, how)
        failed += report(words, result, signalled)
        results[name] = {"signalled": signalled, **result}
    result, signalled = roll(folder, arguments)
    failed += report_rolling(result, signalled)
    results["rolling"] = {"signalled": signalled, **result}
    if arguments.out:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with open(arguments.out, "a") as out:
            print(json.dumps({"at": at, **results}), file=out)
    return 1 if failed else 0


if __name__ == "__main__":
    main_with(run)
