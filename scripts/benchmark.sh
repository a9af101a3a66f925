#!/bin/sh
# What the stack costs: unary calls of the greeter example (100-byte name, TLS, admin's client certificate), in one run:
#
#   bare     tonic's own server, one worker thread
#   local    a node that serves the greeter itself: registry, limits, authorization, metrics, log_level info
#   one hop  a node that passes the calls to another node, which serves them; "direct" is the row `local`
#
# each under 8 connections × 32 calls in flight and under one call at a time. Runs of the three alternate, in rounds whose
# order is reversed every other time; medians count. With two cores or more the measured process has one for itself and
# the load, with the other node, the rest. Absolute figures belong to a machine; compare ratios. Loopback only; takes
# about 90 s after the build. Arguments: `scripts/benchmark.sh --help`.
set -eu
exec python3 "$(dirname "$0")/lib/benchmark.py" "$@"
