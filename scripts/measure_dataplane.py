#!/usr/bin/env python3
"""What calls cost, ours beside others, in one run on one machine.

Unary calls of the greeter example (100-byte name) over TLS with an admin's client certificate, each system under 8
connections × 32 calls in flight and under one call at a time; messages on 8 streams × 32 in flight where it has streams:

- bare      tonic's own server, one worker thread
- local     a node that serves the greeter itself: registry, limits, authorization, metrics, log_level info
- token     the same, called with an access token (which it remembers)
- hop       a node that passes the calls to another node, which serves them
- nginx     grpc_pass in front of that very other node, TLS on both sides, one process
- haproxy   the same over HTTP/2, one thread
- nats      request-reply over a NATS server with TLS, one processor; its responder echoes 100 bytes

And once: what an idle node takes, what 1,000 idle connections take, how much the processes between grow while 1 GiB
goes through one stream in each direction, and what verifying a token takes.

The measured process has the last core for itself; the load, and whoever serves behind a hop, share the others. Runs
alternate, in rounds whose order is reversed every other time. What counts are medians, and of ratios those within a
round. nginx, haproxy and nats-server are used where they are installed (Debian: apt-get install --no-install-recommends
nginx-light haproxy nats-server) and left out with a word where not. The load of NATS comes from a client of our own that
does less than any library, so its calls/s are NATS at its best; CPU is the figure that does not depend on the load.

Absolute figures belong to a machine and its load: run this on an idle one and compare ratios. Loopback only, nothing stays behind;
about five minutes after the build. --profile tells where a routing node's time goes instead (with perf).
"""

import argparse
import json
import os
import platform
import resource
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import hop_profile  # noqa: E402
from dataplane import LOADS, Bench, Results  # noqa: E402
from nodes import Cluster, binaries, main_with  # noqa: E402

NODES = ["entry", "provider", "local:coordinator", "bare"]


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds; every other one in reverse order (default 3)")
    parser.add_argument("--seconds", type=float, default=3, help="measured time of each run (default 3)")
    parser.add_argument("--warmup", type=float, default=1, help="time before it (default 1)")
    parser.add_argument("--load", choices=LOADS, action="append", help="only this load; default: all")
    parser.add_argument("--mebibytes", type=int, default=1024, help="what goes through one stream (default 1024; 0: leave out)")
    parser.add_argument("--idle", type=int, default=1000, help="idle connections (default 1000; 0: leave out)")
    parser.add_argument("--markdown", action="store_true", help="print tables for docs/benchmarks.md")
    parser.add_argument("--out", help="file to append results to (default dataplane.jsonl in the target folder)")
    parser.add_argument("--no-build", action="store_true", help="use the release binaries as they are")
    parser.add_argument("--profile", action="store_true", help="profile the routing node of a hop, and nothing else")
    arguments = parser.parse_args()

    folder = binaries(not arguments.no_build, "--bins", "--example", "greeter", "--example", "bench")
    out = arguments.out or os.path.join(os.path.dirname(folder), "dataplane.jsonl")
    # A thousand connections have two ends each, in two processes.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Cluster(folder, NODES, {"log_level": "info"}) as cluster:
        bench = Bench(arguments, cluster, folder)
        if arguments.profile:
            bench.start_hop()
            print(hop_profile.of(bench, arguments.seconds))
            return
        bench.start()
        where = {
            "kind": "machine",
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": " ".join(["scripts/measure_dataplane.py", *sys.argv[1:]]),
            "kernel": platform.release(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average": os.getloadavg()[0],
            "pinned": bench.tested is not None,
            "rivals": bench.versions,
        }
        print(f"{where['at']}: {where['cores']} cores, Linux {where['kernel']}, load average {where['load_average']:.1f}, ", end="")
        print("measured system alone on one core" if where["pinned"] else "one core for everything: ratios only")
        for version in bench.versions.values():
            print(f"  beside {version}")
        results = Results()
        with open(out, "a") as file:
            print(json.dumps(where), file=file)
            for result in bench.all():
                print(json.dumps(result), file=file, flush=True)
                print(f"  {results.add(result)}", flush=True)
    print(results.tables(arguments.markdown))
    print(f"\nEach run is a line of {out}.")


if __name__ == "__main__":
    main_with(run)
