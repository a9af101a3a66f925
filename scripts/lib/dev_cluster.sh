# shellcheck shell=sh
# Sourced by scripts beside this folder.

# start_dev_cluster BIN WORK PORT: runs `p2pctl dev` with two workers from PORT on, its files in WORK/dev, and waits until it is
# ready. Its process goes into $pids, which the caller ends. Shows its log and returns 1 if it does not start.
start_dev_cluster() {
    "$1/p2pctl" dev --dir "$2/dev" --base-port "$3" --workers 2 >"$2/dev.log" 2>&1 &
    dev_pid=$!
    pids="$pids $dev_pid"
    waited=0
    until grep -q 'is ready after' "$2/dev.log"; do
        sleep 0.1
        waited=$((waited + 1))
        if [ $waited -gt 300 ] || ! kill -0 $dev_pid 2>/dev/null; then
            cat "$2/dev.log" >&2
            echo "the cluster did not start" >&2
            return 1
        fi
    done
}
