#!/bin/sh
# Checks deploy/prometheus with the real thing: promtool on the configuration, the rules, their unit tests and on what nodes
# show at /metrics; then a Prometheus of its own, which learns of one node of `p2pctl dev`, has to find and scrape all three by
# /prometheus/targets with an access token, and to evaluate every rule without an alert; and when one of them
# is killed, to show it as down. Ends by itself, with 1 if something is wrong.
#
# Needs python3, curl, and Prometheus: that of this host, or Debian's package, which is unpacked under target/interop.
#
# Arguments: --no-build (use the binaries as they are), --debug (those of the debug profile), --base-port PORT (default
# 18101; four ports from there on), --rules-only (no cluster and no binaries: only what promtool checks in files)
set -eu
cd "$(dirname "$0")/.."

build=yes
profile=release
base_port=18101
rules_only=
while [ $# -gt 0 ]; do
    case $1 in
        --no-build) build=no ;;
        --debug) profile=debug ;;
        --base-port) base_port=$2; shift ;;
        --rules-only) rules_only=yes ;;
        -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        *) echo "unknown argument $1; try --help" >&2; exit 2 ;;
    esac
    shift
done

tools=${CARGO_TARGET_DIR:-target}/interop
bin=${CARGO_TARGET_DIR:-target}/$profile
mkdir -p "$tools"
# shellcheck source=scripts/lib/prometheus.sh
. scripts/lib/prometheus.sh
# shellcheck source=scripts/lib/dev_cluster.sh
. scripts/lib/dev_cluster.sh
promtool=$(prometheus_program promtool "$tools")
prometheus=$(prometheus_program prometheus "$tools")
if [ -z "$promtool" ] || [ -z "$prometheus" ]; then
    echo "there is no Prometheus; install it (Debian: apt-get install prometheus) and try again" >&2
    exit 1
fi

echo "==> rules and their tests"
"$promtool" check rules deploy/prometheus/rules.yml deploy/prometheus/alerts.yml
"$promtool" test rules deploy/prometheus/alerts_test.yml
[ -z "$rules_only" ] || exit 0

if [ "$build" = yes ]; then
    set --
    [ $profile = debug ] || set -- --release
    cargo build "$@" --locked -p p2p-node -p p2pctl --bins
fi

work=$(mktemp -d)
pids=
# shellcheck disable=SC2317  # called by the trap
stop() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    for pid in $pids; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

echo "==> a cluster of three"
start_dev_cluster "$bin" "$work" "$base_port"

entry=127.0.0.1:$base_port
certs=$work/dev/certs
mkdir "$work/p2p"
cp "$certs/ca_cert.pem" "$work/p2p/"
# As prometheus.yml says.
"$bin/p2pctl" --endpoint "$entry" --ca "$certs/ca_cert.pem" --cert "$certs/admin_cert.pem" --key "$certs/admin_key.pem" \
    token issue --subject prometheus --scope p2p.v1.ClusterService/ListNodes \
    --scope p2p.v1.SystemService/GetMetrics --ttl 1h >"$work/p2p/token"

echo "==> what nodes show"
curl --silent --show-error --fail --max-time 10 --cacert "$certs/ca_cert.pem" "https://$entry/metrics" >"$work/metrics"
"$promtool" check metrics <"$work/metrics"

echo "==> the configuration"
port=$((base_port + 3))
# Its own addresses and folders, and no waiting for a quarter of a minute.
sed -e "s#/etc/prometheus/p2p#$work/p2p#; s#10.0.0.1:8001#$entry#; s#10.0.0.2:8001#127.0.0.1:$((base_port + 1))#" \
    -e "s#127.0.0.1:9090#127.0.0.1:$port#; s#_interval: [0-9]*s#_interval: 1s#" \
    deploy/prometheus/prometheus.yml >"$work/prometheus.yml"
cp deploy/prometheus/rules.yml deploy/prometheus/alerts.yml "$work/"
"$promtool" check config "$work/prometheus.yml"

echo "==> Prometheus finds and scrapes the cluster"
"$prometheus" --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --log.level=warn \
    --web.listen-address="127.0.0.1:$port" >"$work/prometheus.log" 2>&1 &
pids="$! $pids"
if ! python3 scripts/lib/await_prometheus.py "http://127.0.0.1:$port" coordinator-1 worker-1 worker-2; then
    tail -n 20 "$work/prometheus.log" >&2
    exit 1
fi

echo "==> a node that is killed stays in the list, and raises an alert"
kill -KILL "$(awk '$1 == "worker-2" { print $4 }' "$work/dev.log")"
python3 scripts/lib/await_prometheus.py "http://127.0.0.1:$port" --killed worker-2
