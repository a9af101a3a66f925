#!/bin/sh
# Checks that other people's clients and services work with a cluster: curl, openssl, Python's grpcio with stubs made from
# the greeter example's .proto, grpc.health.v1, reflection, promtool on /metrics, and a service in Python behind one node,
# called through another and drained under load. Starts `p2pctl dev` and a greeter node, prints PASS, FAIL or SKIP for each
# check, and exits non-zero if one failed.
#
# Needs cargo, python3 with venv, and a network for the first run: grpcio goes into a virtual environment and promtool is
# unpacked from Debian's package `prometheus`, both under target/interop; nothing else is installed, except curl and
# openssl by apt-get where they are missing and this runs as root. Not part of `cargo test`.
#
# Arguments: --no-build (use the binaries as they are), --debug (those of the debug profile), --base-port PORT (default
# 18001; six ports from there on)
set -eu
cd "$(dirname "$0")/.."

build=yes
profile=release
base_port=18001
while [ $# -gt 0 ]; do
    case $1 in
        --no-build) build=no ;;
        --debug) profile=debug ;;
        --base-port) base_port=$2; shift ;;
        -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        *) echo "unknown argument $1; try --help" >&2; exit 2 ;;
    esac
    shift
done

target=${CARGO_TARGET_DIR:-target}
bin=$target/$profile
tools=$target/interop
if [ "$build" = yes ]; then
    [ $profile = debug ] || set -- --release
    cargo build "$@" --locked -p p2p-node -p p2pctl --bins --example greeter
fi
mkdir -p "$tools"

# --- Tools -----------------------------------------------------------------------------------------------------

for tool in curl openssl; do
    if ! command -v $tool >/dev/null; then
        apt-get install -y -q $tool >&2 || { echo "install $tool and try again" >&2; exit 1; }
    fi
done

python=$tools/venv/bin/python
if ! "$python" -c 'import grpc, grpc_tools, grpc_health, grpc_reflection' 2>/dev/null; then
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install -q grpcio grpcio-tools grpcio-health-checking grpcio-reflection
fi

# shellcheck source=scripts/lib/prometheus.sh
. scripts/lib/prometheus.sh
# shellcheck source=scripts/lib/dev_cluster.sh
. scripts/lib/dev_cluster.sh
promtool=$(prometheus_program promtool "$tools")

# --- Cluster ---------------------------------------------------------------------------------------------------

work=$(mktemp -d)
# The contexts that p2pctl writes here are nobody's.
export XDG_CONFIG_HOME=$work/config
pids=
# shellcheck disable=SC2317  # called by the trap
stop() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    for pid in $pids; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

greeter_port=$((base_port + 3))
certs=$work/dev/certs
entry=127.0.0.1:$base_port # the coordinator: provides no greeter

start_dev_cluster "$bin" "$work" "$base_port"

"$bin/p2pctl" certs generate --out "$certs" --node greeter-1 >/dev/null
cat >"$work/greeter.yaml" <<YAML
node_id: greeter-1
bind_address: 127.0.0.1
port: $greeter_port
advertise_addresses: ["127.0.0.1:$greeter_port"]
coordinator_addresses: ["$entry"]
ssl_cert_file: $certs/greeter-1_cert.pem
ssl_key_file: $certs/greeter-1_key.pem
ssl_ca_cert_file: $certs/ca_cert.pem
state_directory: $work/greeter
YAML
"$bin/examples/greeter" --config "$work/greeter.yaml" >"$work/greeter.log" 2>&1 &
pids="$! $pids"

ca=$certs/ca_cert.pem
cert=$certs/admin_cert.pem
key=$certs/admin_key.pem
as_admin() {
    "$bin/p2pctl" --endpoint "$entry" --ca "$ca" --cert "$cert" --key "$key" "$@"
}
waited=0
until as_admin rpc list -o json 2>/dev/null | grep -q demo.v1.Greeter/Chat; do
    sleep 0.2
    waited=$((waited + 1))
    if [ $waited -gt 50 ]; then
        cat "$work/greeter.log" >&2
        echo "the greeter did not join" >&2
        exit 1
    fi
done

# --- Checks ----------------------------------------------------------------------------------------------------

failures=0
check() { # check WHAT EXPECTED FOUND
    if [ "$2" = "$3" ]; then
        echo "PASS  $1"
    else
        echo "FAIL  $1: expected $2, found $3"
        failures=$((failures + 1))
    fi
}

says() { # says PATTERN COMMAND...: yes or the command's last words
    pattern=$1
    shift
    if "$@" >"$work/said" 2>&1 </dev/null; then true; fi
    if grep -Eq "$pattern" "$work/said"; then echo yes; else tail -n 3 "$work/said" | tr '\n' ' '; fi
}

fetch() { # fetch ARGUMENTS...: status and HTTP version
    curl -sS -o "$work/body" -w '%{http_code} %{http_version}' --cacert "$ca" "$@" 2>&1
}

url=https://$entry
check "curl, HTTP/1.1: /health is open" "200 1.1" "$(fetch --http1.1 "$url/health")"
check "curl, HTTP/2: /health is open" "200 2" "$(fetch --http2 "$url/health")"
check "curl, HTTP/2: /metrics is open" "200 2" "$(fetch --http2 "$url/metrics")"
cp "$work/body" "$work/metrics"
check "curl without certificate: /cluster/nodes is not" "401 1.1" "$(fetch --http1.1 "$url/cluster/nodes")"
check "curl without certificate, HTTP/2: neither" "401 2" "$(fetch --http2 "$url/cluster/nodes")"
check "curl as admin, HTTP/1.1: /cluster/nodes" "200 1.1" \
    "$(fetch --http1.1 --cert "$cert" --key "$key" "$url/cluster/nodes")"
check "curl as admin, HTTP/2: /cluster/nodes" "200 2" \
    "$(fetch --http2 --cert "$cert" --key "$key" "$url/cluster/nodes")"
check "curl as admin: POST /rpc through another node" yes \
    "$(says '"Hello, curl!"' curl -sS --cacert "$ca" --cert "$cert" --key "$key" "$url/rpc" \
        -H 'content-type: application/json' \
        -d '{"jsonrpc":"2.0","id":1,"method":"demo.v1.Greeter/SayHello","params":{"name":"curl"}}')"
token=$(as_admin token issue --subject curl --scope p2p.v1.ClusterService/ListNodes 2>/dev/null)
check "curl with a token: what its scope names" "200 2" \
    "$(fetch --http2 -H "authorization: Bearer $token" "$url/cluster/nodes")"
check "curl with a token: nothing else" "403 2" \
    "$(fetch --http2 -H "authorization: Bearer $token" -H 'content-type: application/json' -d '{}' "$url/rpc")"
check "curl with a token that does not hold: told so" yes \
    "$(says 'www-authenticate: Bearer .*error="invalid_token"' curl -sS -D - -o /dev/null --cacert "$ca" \
        -H "authorization: Bearer x$token" "$url/cluster/nodes")"
check "curl: the keys that verify tokens are open" yes \
    "$(says '"kty":"OKP"' curl -sS --cacert "$ca" "$url/.well-known/jwks.json")"
check "curl by host name, with the system's name check" "200 2" \
    "$(fetch --http2 "https://localhost:$base_port/livez")"
check "curl with the system's CAs only: refused" yes "$(says 'certificate' curl -sS "$url/health")"
check "curl speaking plain HTTP is told to use https" yes "$(says 'https' curl -sS "http://$entry/health")"

tls() { # tls ARGUMENTS...
    openssl s_client -connect "$entry" -CAfile "$ca" -verify_return_error "$@"
}
check "openssl, TLS 1.2: accepted" yes "$(says 'Protocol *: TLSv1\.2|New, TLSv1\.2' tls -tls1_2)"
check "openssl, TLS 1.3: accepted" yes "$(says 'New, TLSv1\.3' tls -tls1_3)"
# Old versions need a lower security level on our side, or openssl itself would refuse them.
check "openssl, TLS 1.1: refused by the node" yes \
    "$(says 'alert (protocol version|handshake failure)' tls -tls1_1 -cipher 'DEFAULT@SECLEVEL=0')"
check "openssl, ALPN: h2" yes "$(says 'ALPN protocol: h2' tls -alpn h2,http/1.1)"
check "openssl, ALPN: http/1.1" yes "$(says 'ALPN protocol: http/1.1' tls -alpn http/1.1)"
check "openssl, TLS 1.2 without AEAD: refused" yes \
    "$(says 'handshake failure' tls -tls1_2 -cipher 'ECDHE-ECDSA-AES128-SHA')"
check "openssl: the chain and its host name hold" yes \
    "$(says 'Verify return code: 0 \(ok\)' tls -verify_hostname localhost)"

"$python" -m grpc_tools.protoc -I node/examples/greeter --python_out="$work" --grpc_python_out="$work" greeter.proto
if PYTHONPATH=$work "$python" scripts/lib/interop_grpc.py "$entry" "$certs"; then true; else
    failures=$((failures + 1))
fi

# A service in Python, two processes of it: behind worker-1, and behind worker-2.
"$python" -m grpc_tools.protoc -I scripts/lib --python_out="$work" --grpc_python_out="$work" stock.proto
provider=127.0.0.1:$((base_port + 1))
other_provider=127.0.0.1:$((base_port + 2))
start_stock() { # start_stock PORT NAME: its process id in $stock
    PYTHONPATH=$work "$python" scripts/lib/stock_service.py "$1" "$2" >"$work/$2.log" 2>&1 &
    stock=$!
    pids="$stock $pids"
    waited=0
    until grep -q ready "$work/$2.log"; do
        sleep 0.1
        waited=$((waited + 1))
        if [ $waited -gt 100 ]; then
            cat "$work/$2.log" >&2
            echo "the Python service did not start" >&2
            exit 1
        fi
    done
}
at() { # at NODE VERB...
    node=$1
    shift
    "$bin/p2pctl" --endpoint "$node" --ca "$ca" --cert "$cert" --key "$key" "$@"
}
provides() { # provides NODE: waits until the entry node lists it as a provider that serves
    waited=0
    until as_admin services list -o json 2>/dev/null | "$python" -c '
import json, sys
service = [item for item in json.load(sys.stdin)["items"] if item["name"] == "shop.Stock"]
providers = service[0]["providers"] if service else []
sys.exit((sys.argv[1], "serving") not in [(provider["node_id"], provider["state"]) for provider in providers])' "$1"; do
        sleep 0.1
        waited=$((waited + 1))
        [ $waited -le 100 ] || return 1
    done
}
start_stock $((base_port + 4)) python-1
first=$stock
check "p2pctl services register: a Python service, learned by reflection" yes \
    "$(says 'shop.Stock +serving +worker-1' at "$provider" services register shop.Stock \
        --upstream "http://127.0.0.1:$((base_port + 4))")"
check "it is published" yes "$(if provides worker-1; then echo yes; fi)"
if PYTHONPATH=$work "$python" scripts/lib/interop_upstream.py call "$entry" "$provider" "$certs"; then true; else
    failures=$((failures + 1))
fi
check "p2pctl rpc call without a .proto, through another node" yes \
    "$(says '"process": "python-1"' as_admin rpc call shop.Stock/Get '{"name": "tea"}')"
start_stock $((base_port + 5)) python-2
check "p2pctl services register: the same at another node" yes \
    "$(says 'shop.Stock +serving' at "$other_provider" services register shop.Stock \
        --upstream "http://127.0.0.1:$((base_port + 5))")"
check "it is published, too" yes "$(if provides worker-2; then echo yes; fi)"
mkfifo "$work/hold"
PYTHONPATH=$work "$python" scripts/lib/interop_upstream.py load "$entry" "$certs" <"$work/hold" >"$work/load" 2>&1 &
load=$!
exec 9>"$work/hold"
sleep 2 # of load on both
check "p2pctl services drain: waits until nothing is in flight" yes \
    "$(says 'shop.Stock is draining here, 0 calls in flight' at "$provider" services drain shop.Stock)"
kill "$first"
sleep 2 # of load without the first process
check "p2pctl services list tells who drains" yes \
    "$(says 'worker-1\(draining\),worker-2' as_admin services list)"
check "p2pctl services deregister" yes \
    "$(says 'deregistered shop.Stock' at "$provider" services deregister shop.Stock)"
exec 9>&-
if wait "$load"; then true; else failures=$((failures + 1)); fi
grep -v running "$work/load"

if [ -n "$promtool" ]; then
    # Lint warnings and errors both make promtool exit non-zero, with a line for each.
    if "$promtool" check metrics <"$work/metrics" >"$work/promtool" 2>&1; then
        echo "PASS  promtool check metrics"
    else
        echo "FAIL  promtool check metrics:"
        sed 's/^/      /' "$work/promtool"
        failures=$((failures + 1))
    fi
else
    echo "SKIP  promtool check metrics: no promtool here"
fi

if [ "$failures" != 0 ]; then
    echo "something failed; the ends of the nodes' logs:" >&2
    tail -n 5 "$work"/dev/*/node.log "$work/greeter.log" >&2
    exit 1
fi
