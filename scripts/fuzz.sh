#!/bin/sh
# Feeds what reads the bytes of other nodes with mutated inputs for a while: frames and their envelope, messages, packets
# of the failure detector, owners' states, segments of revocations. A failure is kept as a file under
# node/core/fuzz/failures; exits non-zero if there was one. Not part of `cargo test`; part of `.ci/run`, for a short while.
#
# Arguments: SECONDS in all (default 10), then any of the program's: --seed N, --target NAME, --input FILE, --make-corpus
set -eu
cd "$(dirname "$0")/.."

seconds=10
case ${1:-} in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    [0-9]*) seconds=$1; shift ;;
esac

CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
export CARGO_TARGET_DIR
exec cargo run --release --locked --quiet --manifest-path node/core/fuzz/Cargo.toml -- --seconds "$seconds" "$@"
