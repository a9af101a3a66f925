#!/usr/bin/env python3
"""What very many connections cost a node, idle ones and such as stall on purpose.

- idle: --connections clients with a certificate that have made one call; memory of the node for each;
- stalled: as many strangers, from 100 addresses, a quarter each silent before TLS, after it, amid the head of a request,
  and amid a call; who is cut off comes back half a second later. Meanwhile a client at another address opens a connection
  for each of its calls, with a certificate and as a stranger; all must be answered.

Needs root for a network namespace of its own, in which these addresses are: from loopback's, connections would not count
for their address. The node is configured as it comes, but for the rate limit, which would count the asking client's calls.
Needs as many open files as connections and
some more (ulimit -n) in each of two processes. Standard library only; about two minutes after the build. Exit code 1 if a
call failed.
"""

import argparse
import json
import os
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from nodes import ROOT, Cluster, Trouble, binaries, main_with, program, wait_for  # noqa: E402


# The node's address in the namespace, the first of the stalling clients', and the calling client's.
NODE, STALLING, CALLING = "10.99.0.1", "10.99.1.1", "10.99.200.1"


def enter_namespace():
    """Runs this script once more, in a network namespace with all of these addresses."""
    if os.environ.get("OWN_NETWORK"):
        return
    if os.geteuid() != 0:
        raise Trouble("this takes root, for a network namespace of its own")
    inside = f'ip link set lo up && ip addr add {NODE}/16 dev lo && exec "$@"'
    os.environ["OWN_NETWORK"] = "yes"
    os.execvp("unshare", ["unshare", "-n", "sh", "-c", inside, "sh", sys.executable, *sys.argv])


def call(port, path, tls):
    """The status of a request over a new connection."""
    plain = socket.create_connection((NODE, port), timeout=5, source_address=(CALLING, 0))
    with tls.wrap_socket(plain, server_hostname="localhost") as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        head = stream.recv(4096)
        return int(head.split(b" ")[1]) if head else 0


def start(folder, cluster, name, **settings):
    cluster.settings = {"log_level": "info", "rate_limit_enabled": False, **settings}
    node = cluster.start(name, program(folder, "examples", "greeter"), joins=False)
    wait_for(node.ready, f"{name} is ready")
    node.forget_connection()
    return node


def driver(folder, cluster, address, *part):
    command = [program(folder, "examples", "bench"), *map(str, part), "--address", address, *cluster.tls_arguments("admin")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(load, patience):
    out, err = load.communicate(timeout=patience)
    if load.returncode != 0:
        raise Trouble(f"the load ended with {load.returncode}: {err.strip()[-500:]}")
    return json.loads(out)


def idle(folder, cluster, count):
    node = start(folder, cluster, "idle", connections_max=count + 100)
    load = driver(folder, cluster, node.address, "idle", "--connections", count, "--watch", f"node={node.pid}")
    found = result(load, 60 + count / 20)
    print(f"{found['connections']} idle connections: {found['bytes_each'] / 1e3:.1f} KB each   [<= 40]", flush=True)
    node.stop()


def stalled(folder, cluster, count, seconds):
    node = start(folder, cluster, "stalled", bind_address="0.0.0.0")
    stranger = ssl.create_default_context(cafile=cluster.certificate("ca"))
    callers = {"with a certificate": ("/cluster/nodes", cluster.tls), "as a stranger": ("/livez", stranger)}
    before = node.rss_bytes()
    load = driver(folder, cluster, f"{NODE}:{node.port}", "loris", "--connections", count, "--seconds", seconds, "--source", STALLING)
    took, failures, most = {who: [] for who in callers}, [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end - 1:
        for who, (path, tls) in callers.items():
            began = time.monotonic()
            try:
                status = call(node.port, path, tls)
                if status != 200:
                    failures.append(f"{who}: {status}")
            except OSError as error:
                failures.append(f"{who}: {error}")
            took[who].append(time.monotonic() - began)
        most = max(most, node.rss_bytes())
        time.sleep(0.1)
    metrics = node.metrics()
    found = result(load, 60)
    print(f"{count} stalling connections for {seconds:.0f} s, {found['most_open']} open at once, {found['cut_off']} cut off:")
    for who, times in took.items():
        times.sort()
        print(f"  calls {who}, each over a new connection: {len(times)}, p50 {statistics.median(times) * 1e3:.0f} ms, "
              f"p99 {times[int(len(times) * 0.99)] * 1e3:.0f} ms, longest {times[-1] * 1e3:.0f} ms")  # fmt: skip
    print(f"  calls that failed: {len(failures)}   [0]")
    for each in failures[:5]:
        print(f"    {each}")
    print(f"  memory of the node: {(most - before) / 1e6:.0f} MB more at most")
    ended = {name.split('"')[1]: value for name, value in metrics.items() if name.startswith("p2p_connections_ended") and value}
    refused = {name.split('"')[1]: value for name, value in metrics.items() if name.startswith("p2p_connections_refused") and value}
    print(f"  ended: {ended}, refused: {refused}")
    node.alive()
    return not failures


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000, help="connections of each kind (default 10,000)")
    parser.add_argument("--seconds", type=float, default=40, help="seconds of stalling (default 40)")
    parser.add_argument("--only", choices=["idle", "stalled"], help="one part")
    parser.add_argument("--no-build", action="store_true", help="use the release binaries as they are")
    parser.add_argument("--debug", action="store_true", help="use the debug binaries as they are: to try the script, not to measure")
    arguments = parser.parse_args()
    enter_namespace()
    target = os.path.abspath(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")))
    folder = (
        os.path.join(target, "debug")
        if arguments.debug
        else binaries(not arguments.no_build, "--bins", "--example", "greeter", "--example", "bench")
    )
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < arguments.connections + 200:
        raise Trouble(f"only {most} files may be open (ulimit -n); {arguments.connections + 200} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(f"load average {os.getloadavg()[0]:.1f} at the start, {len(os.sched_getaffinity(0))} cores\n")
    with Cluster(folder, ["idle", "stalled:coordinator"]) as cluster:
        if arguments.only != "stalled":
            idle(folder, cluster, arguments.connections)
        well = arguments.only == "idle" or stalled(folder, cluster, arguments.connections, arguments.seconds)
    return 0 if well else 1


if __name__ == "__main__":
    main_with(run)
