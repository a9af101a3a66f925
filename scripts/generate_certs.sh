#!/bin/sh
# Creates the certificates that config/coordinator.yaml and config/worker.yaml name: a CA, both nodes and an admin,
# in certs/. Arguments are passed on; `scripts/generate_certs.sh --help` lists them.
set -eu
cd "$(dirname "$0")/.."
if command -v p2pctl >/dev/null 2>&1; then
    exec p2pctl certs generate "$@"
fi
exec cargo run --release -q -p p2pctl -- certs generate "$@"
