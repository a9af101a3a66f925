#!/bin/sh
# Checks what deploy/ and a release consist of, as far as that goes without systemd, Docker or Kubernetes: unpacks the Debian
# package of target/dist (scripts/build_release.sh) into a folder, and has systemd's own tools verify the unit, make the user
# and make the directories there; the binaries must run and accept the example configuration; all YAML must parse. Prints the
# exposure that systemd-analyze gives the unit.
#
# Needs dpkg-deb, systemd-analyze, systemd-sysusers, systemd-tmpfiles (Debian: systemd) and python3 with yaml.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dist=${CARGO_TARGET_DIR:-target}/dist

echo "==> checksums"
(cd "$dist" && sha256sum --check --strict SHA256SUMS)

echo "==> package"
tree=$work/root
dpkg-deb --extract "$dist"/p2p-node_*.deb "$tree"
dpkg-deb --control "$dist"/p2p-node_*.deb "$work/control"
for script in postinst prerm postrm; do sh -n "$work/control/$script"; done
for example in coordinator worker; do
    "$tree/usr/bin/p2p-node" --config "$tree/usr/share/doc/p2p-node/examples/$example.yaml" --check
done
"$tree/usr/bin/p2pctl" --version

echo "==> archive"
mkdir "$work/archive"
tar --extract --gzip --file "$dist"/p2p-core-*.tar.gz --directory "$work/archive" --strip-components 1
cmp "$work/archive/bin/p2p-node" "$tree/usr/bin/p2p-node"

echo "==> user and directories"
mkdir -p "$tree/etc"
systemd-sysusers --root="$tree" "$tree/usr/lib/sysusers.d/p2p-node.conf"
grep -q '^p2p:.*:/var/lib/p2p-node:/usr/sbin/nologin$' "$tree/etc/passwd"
# Owners are set by root only.
if [ "$(id -u)" = 0 ]; then
    systemd-tmpfiles --root="$tree" --create "$tree/usr/lib/tmpfiles.d/p2p-node.conf"
    [ "$(stat -c %a "$tree/etc/p2p/certs")" = 700 ]
fi

echo "==> unit"
# What it wants is looked for in the same folder.
install -D -m 0755 /bin/kill "$tree/bin/kill"
for target in network-online multi-user sysinit basic shutdown; do
    printf '[Unit]\nDescription=%s\n' "$target" >"$tree/lib/systemd/system/$target.target"
done
systemd-analyze verify --root="$tree" p2p-node.service >"$work/verify" 2>&1 || { cat "$work/verify"; exit 1; }
if grep p2p-node "$work/verify"; then exit 1; fi
systemd-analyze security --offline=yes --threshold=20 deploy/systemd/p2p-node.service | tail -n 1

echo "==> YAML"
find deploy -name '*.y*ml' -print | sort | xargs python3 -c '
import sys, yaml
for file in sys.argv[1:]:
    with open(file) as text: documents = list(yaml.safe_load_all(text))
    print(file, len(documents))
'
