#!/bin/sh
# Builds what a release consists of, for the machine that it runs on, in target/dist: an archive with both binaries,
# configuration, units and documentation; a Debian package of the same; and SHA256SUMS of both.
#
#   target/dist/p2p-core-VERSION-ARCH-linux.tar.gz
#   target/dist/p2p-node_VERSION_ARCH.deb           (where there is dpkg-deb)
#
# The same sources give the same archive, byte for byte, if the same toolchain makes the same binaries: times in it are those
# of the last commit. The binaries need the glibc of the machine that built them, or a newer one.
#
# Arguments: --no-build (use the binaries as they are), --debug (those of the debug profile, for trying this script)
set -eu
# What is packed must not depend on who packs it.
umask 022
cd "$(dirname "$0")/.."

build=yes
profile=release
for argument; do
    case $argument in
        --no-build) build=no ;;
        --debug) profile=debug ;;
        -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        *) echo "unknown argument $argument; try --help" >&2; exit 2 ;;
    esac
done

if [ "$build" = yes ]; then
    set --
    [ $profile = debug ] || set -- --release
    cargo build "$@" --locked -p p2p-node -p p2pctl --bins
fi
bin=${CARGO_TARGET_DIR:-target}/$profile
dist=${CARGO_TARGET_DIR:-target}/dist
version=$("$bin/p2p-node" --version | cut -d ' ' -f 2)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH
rm -rf "$dist"
mkdir -p "$dist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --- Archive ---------------------------------------------------------------------------------------------------

name=p2p-core-$version-$(uname -m)-linux
root=$work/$name
install -d "$root/bin" "$root/config"
install -m 0755 "$bin/p2p-node" "$bin/p2pctl" "$root/bin/"
strip "$root/bin/p2p-node" "$root/bin/p2pctl"
install -m 0644 config/coordinator.yaml config/worker.yaml "$root/config/"
install -m 0644 README.md ARCHITECTURE.md CHANGELOG.md LICENSE "$root/"
cp -r docs "$root/docs"
cp -r deploy "$root/deploy"
chmod -R u+rwX,go+rX,go-w "$root"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
tar --create --sort=name --owner=0 --group=0 --numeric-owner --directory "$work" "$name" |
    gzip --no-name --best >"$dist/$name.tar.gz"

# --- Debian package --------------------------------------------------------------------------------------------

if command -v dpkg-deb >/dev/null; then
    tree=$work/deb
    doc=$tree/usr/share/doc/p2p-node
    install -d "$tree/DEBIAN" "$tree/usr/bin" "$doc/examples" \
        "$tree/lib/systemd/system" "$tree/usr/lib/sysusers.d" "$tree/usr/lib/tmpfiles.d"
    install -m 0755 "$root/bin/p2p-node" "$root/bin/p2pctl" "$tree/usr/bin/"
    install -m 0644 deploy/systemd/p2p-node.service "$tree/lib/systemd/system/"
    install -m 0644 deploy/systemd/p2p-node.sysusers.conf "$tree/usr/lib/sysusers.d/p2p-node.conf"
    install -m 0644 deploy/systemd/p2p-node.tmpfiles.conf "$tree/usr/lib/tmpfiles.d/p2p-node.conf"
    install -m 0644 config/coordinator.yaml config/worker.yaml "$doc/examples/"
    cp -r deploy/prometheus deploy/grafana "$doc/examples/"
    install -m 0644 README.md ARCHITECTURE.md "$doc/"
    install -m 0644 LICENSE "$doc/copyright"
    gzip --no-name --best <CHANGELOG.md >"$doc/changelog.gz"
    cp -r docs "$doc/docs"
    install -m 0755 deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm "$tree/DEBIAN/"
    # The newest symbol version of glibc that the binaries ask for.
    glibc=$(objdump -T "$tree/usr/bin/p2p-node" "$tree/usr/bin/p2pctl" | sed -n 's/.*GLIBC_\([0-9.]*\).*/\1/p' |
        sort -Vu | tail -n 1)
    cat >"$tree/DEBIAN/control" <<CONTROL
Package: p2p-node
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: The P2P Core authors <p2p-core@localhost>
Installed-Size: $(du -sk "$tree/usr" "$tree/lib" | awk '{ sum += $1 } END { print sum }')
Depends: libc6 (>= $glibc), libgcc-s1, systemd (>= 247)
Section: net
Priority: optional
Description: services find and call each other over gossip and mutual TLS
 The daemon p2p-node, one for each host, and its command-line client p2pctl.
 Nodes find each other by gossip, prove who they are with certificates, and
 pass gRPC calls, in one hop, to a node that serves them.
CONTROL
    chmod -R u+rwX,go+rX,go-w "$tree"
    find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --build --root-owner-group "$tree" "$dist" >&2
fi

(cd "$dist" && sha256sum -- * >SHA256SUMS)
cat "$dist/SHA256SUMS"
