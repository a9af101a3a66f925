#!/bin/sh
# A network in two halves on one machine: a namespace for each host, a bridge for each half, one link between them that
# can be cut and restored. The hosts have 10.77.0.N, N counted from 11 over both halves. The machine itself reaches host N
# at 10.78.1.N in the first half and at 10.78.2.N in the second, cut or not, and carries nothing between them.
#
#   scripts/halves.sh enter COMMAND...              runs COMMAND where the rest works: in namespaces of its own for users,
#                                                   processes, mounts and networks, so it needs no root, and the kernel
#                                                   removes processes, links and addresses when COMMAND ends, however it does
#   scripts/halves.sh up 'HOST...' 'HOST...'        builds the network
#   scripts/halves.sh run HOST COMMAND...           runs COMMAND on a host
#   scripts/halves.sh cut | restore                 takes the link between the halves down, and up again
#
# Example, by hand: scripts/halves.sh enter sh -c "scripts/halves.sh up 'a b' 'c' && scripts/halves.sh run a ping -c 1 10.77.0.13"
# Needs unshare and nsenter (util-linux), ip (iproute2), and a kernel that lets this user make namespaces.
set -eu

case ${1:-} in
    enter)
        shift
        # /run is hidden by one of our own: `ip netns` keeps its names there.
        exec unshare --user --map-root-user --net --mount --pid --fork --kill-child=KILL --mount-proc \
            sh -c 'mount -t tmpfs halves /run && mkdir /run/netns && ip link set lo up && exec "$@"' sh "$@"
        ;;
    up)
        [ $# = 3 ] || { echo "usage: $0 up 'HOST...' 'HOST...'" >&2; exit 2; }
        number=11
        half=1
        for hosts in "$2" "$3"; do
            ip link add "half$half" type bridge
            ip address add "10.78.$half.1/24" dev "half$half"
            ip link set "half$half" up
            for host in $hosts; do
                ip netns add "$host"
                ip link add "to-$host" type veth peer name eth0 netns "$host"
                ip link set "to-$host" master "half$half" up
                ip -n "$host" link set lo up
                ip -n "$host" address add "10.77.0.$number/24" dev eth0
                ip -n "$host" address add "10.78.$half.$number/24" dev eth0
                ip -n "$host" link set eth0 up
                number=$((number + 1))
            done
            half=$((half + 1))
        done
        ip link add between1 type veth peer name between2
        ip link set between1 master half1 up
        ip link set between2 master half2 up
        ;;
    run)
        host=$2
        shift 2
        exec nsenter --net="/run/netns/$host" "$@"
        ;;
    cut) ip link set between1 down ;;
    restore) ip link set between1 up ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" ;;
    *) echo "usage: $0 enter|up|run|cut|restore; see $0 --help" >&2; exit 2 ;;
esac
