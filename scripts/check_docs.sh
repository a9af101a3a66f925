#!/bin/sh
# Runs the tutorial as a reader would, block after block in a folder of its own, and compares what is printed with the page
# (scripts/lib/run_docs.py); looks whether every link between the pages leads to a file and a heading, and whether every
# command `p2pctl ...` on any page is a verb that there is, with its flags. Ends by itself, with 1 at the first thing that is
# not as the page says.
#
# Needs cargo, bash, curl, python3 with venv, and a network: the tutorial installs grpcio into a virtual environment.
#
# Arguments: --no-build (use the binaries as they are), --debug (those of the debug profile), --links-only
set -eu
cd "$(dirname "$0")/.."

build=yes
profile=release
links_only=
for argument; do
    case $argument in
        --no-build) build=no ;;
        --debug) profile=debug ;;
        --links-only) links_only=yes ;;
        -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        *) echo "unknown argument $argument; try --help" >&2; exit 2 ;;
    esac
done

echo "==> links"
python3 scripts/lib/check_links.py README.md ARCHITECTURE.md CONTRIBUTING.md deploy/README.md docs/*.md
[ -z "$links_only" ] || exit 0

if [ "$build" = yes ]; then
    set --
    [ $profile = debug ] || set -- --release
    cargo build "$@" --locked -p p2p-node -p p2pctl --bins
fi
bin=$(cd "${CARGO_TARGET_DIR:-target}/$profile" && pwd)

echo "==> verbs and flags"
python3 scripts/lib/check_verbs.py "$bin/p2pctl" README.md CONTRIBUTING.md deploy/README.md docs/*.md deploy/prometheus/*.yml \
    deploy/kubernetes/*.yaml

root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
unset P2PCTL_ENDPOINT P2PCTL_CA P2PCTL_CERT P2PCTL_KEY P2PCTL_TOKEN
for page in tutorial; do
    echo "==> docs/$page.md"
    mkdir "$work/$page"
    (cd "$work/$page" && PATH=$bin:$PATH python3 "$root/scripts/lib/run_docs.py" "$root/docs/$page.md")
done
