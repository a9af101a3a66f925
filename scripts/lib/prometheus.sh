# shellcheck shell=sh
# Sourced by scripts beside this folder.

# prometheus_program NAME DIRECTORY: the path of `prometheus` or `promtool`, those of this host or else of Debian's package,
# unpacked in DIRECTORY; nothing if there is no such package. It is not installed: it would start a service.
prometheus_program() {
    if command -v "$1"; then return; fi
    unpacked=$(cd "$2" && pwd)/prometheus/usr/bin/$1
    if ! [ -x "$unpacked" ] && command -v apt-get >/dev/null; then
        (cd "$2" && apt-get download -q prometheus && dpkg-deb -x prometheus_*.deb prometheus) >&2 || true
    fi
    if [ -x "$unpacked" ]; then echo "$unpacked"; fi
}
