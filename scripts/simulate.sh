#!/bin/sh
# Runs clusters of the protocol engine in virtual time, in a release build. Not part of `cargo test`, which runs a few seeds.
#
#   scripts/simulate.sh [campaign] [FIRST..END] [NODES]   random faults, then agreement; default 0..1000 at 64 nodes
#   scripts/simulate.sh figures [SIZES] [LOSS]            one JSON line for each size; default 16,64,128,256,512,1000 at 0.01
#
# A run that fails prints its seed and its last events.
set -eu
cd "$(dirname "$0")/.."

what=${1:-campaign}
case $what in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    figures) SIM_SIZES=${2:-16,64,128,256,512,1000} SIM_LOSS=${3:-0.01} ;;
    campaign) SIM_SEEDS=${2:-0..1000} SIM_NODES=${3:-64} ;;
    *) echo "simulate.sh: $what? Say campaign or figures; --help tells more." >&2; exit 2 ;;
esac
export SIM_SIZES SIM_LOSS SIM_SEEDS SIM_NODES
exec cargo test --release --locked -p p2p-core --test sim -- --ignored --nocapture "$what"
