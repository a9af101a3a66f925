"""Where the time of a routing node goes: perf's samples by symbol, and by what the symbols belong to.

The release build keeps its symbols but no frame pointers, so what is told is self time. For callers build with
RUSTFLAGS="-C force-frame-pointers=yes" and read the recording with `perf report --no-children -g caller`.
"""

import os
import re
import shutil
import subprocess

from nodes import Trouble
from tables import Table

MOST = 25
# The first that fits names the group of a symbol; what none fits is "other".
GROUPS = [
    ("memmove, memset", r"^_*(mem(move|cpy|set|cmp)|bcmp)"),
    ("malloc", r"^(_*(int_)?(malloc|free|realloc|calloc|cfree)|malloc_consolidate|unlink_chunk|sysmalloc|__rust_(de|re)?alloc|_int_|tcache)"),
    ("TLS", r"rustls|aws_lc|aes_|gcm|ghash|chacha|sha256|sha512|webpki|^aead|EVP_|CRYPTO_"),
    ("HPACK", r"hpack|huffman"),
    ("h2", r"\bh2::|h2\d"),
    ("headers", r"\bhttp::|HeaderMap|header_?map|httparse"),
    ("hyper", r"hyper"),
    ("our code", r"p2p_|p2p_node|prometheus|governor"),
    ("tokio", r"tokio|parking_lot|mio::|futures"),
    ("bytes", r"\bbytes::"),
    ("tower, tonic", r"tower|tonic|axum"),
    ("tracing", r"tracing"),
    ("clock", r"clock_gettime|Instant|__vdso"),
    ("hashing", r"hash|sip|Hasher"),
]


def of(bench, seconds):
    """The profile of the entry node under 8 connections × 32 calls in flight, as text."""
    perf = shutil.which("perf")
    if perf is None:
        raise Trouble("perf is not installed (Debian: apt-get install linux-perf)")
    entry = bench.systems["hop"][1]["entry"]
    recording = os.path.join(bench.cluster.directory, "perf.data")
    bench.arguments.warmup, bench.arguments.seconds = 1, seconds + 2
    record = [perf, "record", "-q", "-e", "cpu-clock", "-F", "1999", "-g", "-p", str(entry.pid), "-o", recording]
    # Begins with the measured time: one second after the load does.
    recorder = subprocess.Popen(
        ["sh", "-c", 'sleep 1.5; exec "$@"', "sh", *record, "--", "sleep", str(seconds)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        run = bench.calls("hop", "8x32")
        _, error = recorder.communicate(timeout=30)
    finally:
        recorder.kill()
    if recorder.returncode != 0:
        raise Trouble(f"perf record failed: {error.strip()}")
    samples = report(perf, recording)
    head = f"routing node: {run['calls_per_second']:.0f} calls/s, {run['cpu']:.2f} CPU s per 100k calls\n"
    return "\n".join([head, by_group(samples).text(False), "", by_symbol(samples).text(False)])


def report(perf, recording):
    """(share in per cent, object, symbol) of each symbol."""
    command = [perf, "report", "--stdio", "--no-children", "-g", "none", "--percent-limit", "0.02", "-F", "overhead,dso,symbol"]
    command += ["-t", "\t", "-i", recording]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    lines = (line.split("\t") for line in done.stdout.splitlines() if line.strip() and not line.startswith("#"))
    samples = [(float(line[0].strip(" %")), line[1].strip(), line[2].strip()) for line in lines if len(line) >= 3]
    if not samples:
        raise Trouble(f"perf report told nothing: {done.stderr.strip()}")
    return samples


def group(symbol):
    kind, _, name = symbol.partition("] ")
    if kind == "[k":
        return "kernel"
    return next((words for words, pattern in GROUPS if re.search(pattern, name)), "other")


def by_group(samples):
    shares = {}
    for share, _, symbol in samples:
        shares[group(symbol)] = shares.get(group(symbol), 0) + share
    table = Table("per cent", "where")
    for words, share in sorted(shares.items(), key=lambda item: -item[1]):
        table.row(f"{share:.1f}", words)
    return table


def by_symbol(samples):
    table = Table("per cent", "where", "symbol")
    for share, _, symbol in sorted(samples, reverse=True)[:MOST]:
        table.row(f"{share:.2f}", group(symbol), symbol.partition("] ")[2][:110])
    return table
