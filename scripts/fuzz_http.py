#!/usr/bin/env python3
"""Feeds a node's port with malformed requests of every kind, and tells what it made of them.

- schemathesis: requests made from the node's own OpenAPI document, fitting and not, as an admin and as a stranger; each
  answer is held against the document;
- h2load: 100 streams a connection, many short connections, large heads, HTTP/1.1, calls without a token;
- http1: hand-made and mutated HTTP/1.1, byte by byte;
- http2: hand-made and mutated frames, and gRPC messages that are none.

A stranger and an admin may get 4xx (with problem+json where HTTP could be parsed), a gRPC status, or a closed connection:
never a 5xx, nothing in INTERNAL's place that gRPC does not put there, no panic. At the end no call is under way, the memory
has not grown by more than --grown megabytes, and the node answers as before. Prints a line for each kind, and what was
wrong; exit code 1 if anything was.

Needs python3 with venv, and a network for the first run: schemathesis and h2 go into a virtual environment under
target/fuzz_http. h2load (Debian: nghttp2-client) is left out where it is missing. Takes about three minutes after the
build.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from nodes import ROOT, Cluster, Trouble, binaries, main_with, program, wait_for  # noqa: E402

# What an answer must be to count as fitting its document.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
]
ECHO = "/p2p.v1.SystemService/Echo"


def tools(target):
    """The programs of the virtual environment, made if it is not there."""
    venv = os.path.join(target, "fuzz_http", "venv")
    python = os.path.join(venv, "bin", "python")
    found = os.path.exists(python) and subprocess.run([python, "-c", "import h2, schemathesis"], capture_output=True)
    if not found or found.returncode != 0:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([os.path.join(venv, "bin", "pip"), "install", "-q", "schemathesis", "h2"], check=True)
    return os.path.join(venv, "bin")


def schemathesis(bin_folder, cluster, node, who, arguments):
    """Runs schemathesis; what is to be said of it, and what was wrong."""
    url = f"https://{node.address}"
    command = [os.path.join(bin_folder, "schemathesis"), "run", f"{url}/openapi.json", "--url", url,
               "--tls-verify", cluster.certificate("ca"), "--checks", ",".join(CHECKS), "--continue-on-failure",
               "--max-examples", str(arguments.examples), "--seed", str(arguments.seed),
               "--suppress-health-check", "all", "--request-timeout", "20", "--warnings", "off"]  # fmt: skip
    if who == "admin":
        command += ["--request-cert", cluster.certificate("admin"), "--request-cert-key", cluster.key("admin")]
    done = subprocess.run(command, cwd=cluster.directory, capture_output=True, text=True, timeout=600)
    said = [line.strip() for line in done.stdout.splitlines() if re.search(r"test cases?|generated|passed|failed", line)]
    wrong = [] if done.returncode == 0 else [done.stdout[-6000:] + done.stderr[-2000:]]
    return "; ".join(said[-2:]), wrong


def h2load(cluster, node, token):
    """Several loads that no sane client makes."""
    if shutil.which("h2load") is None:
        yield "h2load", "left out: not installed", []
        return
    data = os.path.join(cluster.directory, "body")
    with open(data, "w") as file:
        file.write('{"jsonrpc": "2.0", "method": "x"' * 50)
    bearer = ["-H", f"authorization: Bearer {token}"]
    for what, path, arguments in [
        ("100 streams each", "/livez", ["-n20000", "-c20", "-m100"]),
        ("a window of 16 KiB, answers of 100", "/metrics", ["-n500", "-c20", "-m50", "-w14", "-W14"]),
        ("a connection a request", "/livez", ["-n300", "-c300", "-m1"]),
        ("HTTP/1.1", "/cluster/nodes", ["-n5000", "-c20", "--h1", *bearer]),
        ("heads of 60 KiB", "/health", ["-n500", "-c10", "-m10", "-H", "x-large: " + "x" * 60_000]),
        ("heads of 70 KiB", "/health", ["-n200", "-c10", "-m10", "-H", "x-large: " + "x" * 70_000]),
        ("JSON that is none", "/rpc", ["-n5000", "-c20", "-m50", "-d", data, "-H", "content-type: application/json", *bearer]),
        ("JSON of a stranger", "/rpc", ["-n5000", "-c20", "-m50", "-d", data, "-H", "content-type: application/json"]),
        ("gRPC that is none", ECHO, ["-n5000", "-c20", "-m50", "-d", data, "-H", "content-type: application/grpc", *bearer]),
        ("tokens that are none", "/health", ["-n5000", "-c20", "-m50", "-H", "authorization: Bearer a.b.c"]),
    ]:
        command = ["h2load", *arguments, "-T", "30", "-N", "30", f"https://{node.address}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        codes = re.search(r"status codes: .*", done.stdout)
        requests = re.search(r"requests: .*", done.stdout)
        if not codes:
            yield f"h2load, {what}", "no figures", [done.stdout[-500:] + done.stderr[-500:]]
            continue
        server_errors = int(re.search(r"(\d+) 5xx", codes[0])[1])
        wrong = [f"{server_errors} server errors"] if server_errors else []
        yield f"h2load, {what}", f"{requests[0].split(': ')[1]}: {codes[0].split(': ')[1]}", wrong


def raw(bin_folder, cluster, node, kind, token, arguments):
    """What scripts/lib/malformed.py sends; it runs with the environment's python."""
    command = [os.path.join(bin_folder, "python"), os.path.join(ROOT, "scripts", "lib", "malformed.py"), kind, node.address,
               cluster.certificate("ca"), str(arguments.seed), str(arguments.mutations)]  # fmt: skip
    environment = {**os.environ, "TOKEN": token}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    if done.returncode not in (0, 1):
        raise Trouble(f"{kind} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    said, *wrong = done.stdout.splitlines()
    return said, wrong


def aftermath(node, before, arguments):
    """What must hold when all is over."""
    node.forget_connection()
    wait_for(node.ready, f"{node.name} answers")
    quiet = lambda: (found := node.metrics())["p2p_calls_under_way"] == 0 and found["p2p_connections"] <= 4 and found  # noqa: E731
    after = wait_for(quiet, f"{node.name} has nothing to do", patience=40, pause=0.5)
    grown = (node.rss_bytes() - before) / 1e6
    with open(node.log, errors="replace") as log:
        text = log.read()
    wrong = [line for line in text.splitlines() if "panicked" in line][:5]
    panics = sum(value for name, value in after.items() if name.startswith("p2p_panics"))
    if panics:
        wrong.append(f"{panics:.0f} panics are counted")
    if grown > arguments.grown:
        wrong.append(f"grown by {grown:.1f} MB")
    return f"no call under way, {after['p2p_connections']:.0f} connections, memory {grown:+.1f} MB, {panics:.0f} panics", wrong


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100, help="schemathesis's requests for each operation (default 100)")
    parser.add_argument("--mutations", type=int, default=2000, help="mutated inputs of each kind (default 2000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of all that is random (default 1)")
    parser.add_argument("--grown", type=float, default=40, help="megabytes that the node may have grown by (default 40)")
    parser.add_argument("--only", choices=["schemathesis", "h2load", "http1", "http2"], help="one kind")
    parser.add_argument("--no-build", action="store_true", help="use the release binaries as they are")
    parser.add_argument("--debug", action="store_true", help="use the debug binaries as they are")
    arguments = parser.parse_args()

    target = os.path.abspath(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")))
    bin_folder = tools(target)
    folder = os.path.join(target, "debug") if arguments.debug else binaries(not arguments.no_build, "--bins", "--example", "greeter")
    chosen = lambda kind: arguments.only in (None, kind)  # noqa: E731
    # Rate limits would answer almost all of it.
    settings = {"rate_limit_enabled": False, "authentication_failures_max": 0}
    bad = 0

    def told(what, said, wrong):
        nonlocal bad
        bad += len(wrong)
        print(f"{'FAIL' if wrong else 'PASS'}  {what}: {said}", flush=True)
        for each in wrong[:20]:
            print(f"      {each}", flush=True)

    with Cluster(folder, ["entry", "provider"], settings) as cluster:
        entry = cluster.start("entry")
        provider = cluster.start("provider", program(folder, "examples", "greeter"))
        for node in (entry, provider):
            wait_for(node.ready, f"{node.name} is ready")
        wait_for(lambda: len(entry.states()) == 2, "both know each other")
        token = cluster.p2pctl("token", "issue", "--subject", "fuzz", "--scope", "demo.*", "--scope", "p2p.v1.SystemService/*")
        before = entry.rss_bytes()
        if chosen("schemathesis"):
            for who in ("admin", "stranger"):
                told(f"schemathesis as {who}", *schemathesis(bin_folder, cluster, entry, who, arguments))
        if chosen("h2load"):
            for result in h2load(cluster, entry, token):
                told(*result)
        for kind in filter(chosen, ("http1", "http2")):
            told(kind, *raw(bin_folder, cluster, entry, kind, token, arguments))
        told("afterwards", *aftermath(entry, before, arguments))
        provider.alive()
    return 1 if bad else 0


if __name__ == "__main__":
    main_with(run)
