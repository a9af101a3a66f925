#!/bin/sh
# Runs clusters of the protocol engine in virtual time, in a release build. Not part of `cargo test`, which runs a few seeds.
#
#   scripts/simulate.sh [campaign]                    1,000 seeds of random faults, then agreement, at 3 to 64 nodes;
#                                                     then 20 seeds at 1,000 nodes
#   scripts/simulate.sh campaign FIRST..END [NODES]   these seeds only, at NODES nodes or FROM..BELOW of them (3..65)
#   scripts/simulate.sh figures [SIZES] [LOSS]        CSV, a line for each size (16,64,128,256,512,1000) at LOSS (0.01)
#   scripts/simulate.sh speed                         1,000 nodes over ten minutes: how long that takes
#
# A run that fails prints its seed and its last events, and the whole ends with another code than zero.
# scripts/plot_figures.py draws the plots of ARCHITECTURE.md from the CSV.
set -eu
cd "$(dirname "$0")/.."

simulate() {
    cargo test --release --locked -p p2p-core --test sim -- --ignored --nocapture --exact "$1"
}

# campaign SEEDS NODES
campaign() {
    case $2 in
        *..*) SIM_NODES=$2 ;;
        *) SIM_NODES=$2..$(($2 + 1)) ;;
    esac
    SIM_SEEDS=$1
    export SIM_SEEDS SIM_NODES
    simulate chaos::campaign
}

what=${1:-campaign}
case $what in
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" ;;
    figures)
        SIM_SIZES=${2:-16,64,128,256,512,1000} SIM_LOSS=${3:-0.01}
        export SIM_SIZES SIM_LOSS
        simulate figures::figures
        ;;
    speed) simulate figures::speed ;;
    campaign)
        if [ $# -gt 1 ]; then
            campaign "$2" "${3:-3..65}"
        else
            code=0
            campaign 0..1000 3..65 || code=$?
            campaign 0..20 1000 || code=$?
            exit "$code"
        fi
        ;;
    *) echo "simulate.sh: $what? Say campaign, figures or speed; --help tells more." >&2; exit 2 ;;
esac
