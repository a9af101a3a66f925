#!/usr/bin/env python3
"""await_prometheus.py URL NODE...: waits until a Prometheus scrapes exactly these nodes, all of them up, and has evaluated every
rule; then no alert may fire.

await_prometheus.py URL --killed NODE: waits until the other nodes show a member as down, and the alert P2pNodeDown waits, or
fires, for this node, which so is still a target.

Exits with 1, and says what is missing, if that is not so within a minute."""

import json
import sys
import time
import urllib.parse
import urllib.request

PATIENCE = 60
# What a target must say of itself. The zone may be empty, and Prometheus drops what is empty.
LABELS = {"cluster_id", "node_id", "role", "instance", "job"}


def ask(url, path, **parameters):
    query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
    with urllib.request.urlopen(f"{url}/api/v1/{path}{query}", timeout=5) as answer:
        return json.load(answer)["data"]


def missing(url, nodes):
    """What is not as it should be yet, in words; nothing if all is well."""
    targets = ask(url, "targets", state="active")["activeTargets"]
    ours = [target for target in targets if target["labels"]["job"] == "p2p"]
    found = sorted(target["labels"].get("node_id", "") for target in ours)
    if found != sorted(nodes):
        return f"the targets are {found}"
    for target in targets:
        if target["health"] != "up":
            return f"{target['scrapeUrl']} is {target['health']}: {target['lastError']}"
    for target in ours:
        if not LABELS <= target["labels"].keys():
            return f"a target has only the labels {sorted(target['labels'])}"
    rules = [rule for group in ask(url, "rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        if rule["health"] != "ok":
            return f"rule {rule['name']} is {rule['health']}: {rule.get('lastError', '')}"
    # Without enough scrapes for a rate, rules evaluate to nothing.
    for query in ["method:p2p_requests:rate5m", "sum(cluster:p2p_nodes:up) == %d" % len(nodes), "node:p2p_certificate_remaining:seconds"]:
        if not ask(url, "query", query=query)["result"]:
            return f"{query} has no result"
    return None


def missing_of_killed(url, node):
    """The same after a node was killed. Asked only once the others have given it up: until then it is a target anyway."""
    if not ask(url, "query", query='p2p_members{state="down"} == 1')["result"]:
        return "no node shows a member as down"
    told = [alert["labels"].get("node_id") for alert in ask(url, "alerts")["alerts"] if alert["labels"]["alertname"] == "P2pNodeDown"]
    return None if told == [node] else f"P2pNodeDown is told of {told}"


def wait(look):
    """Looks until nothing is missing."""
    deadline, why = time.monotonic() + PATIENCE, "it was not asked"
    while time.monotonic() < deadline:
        try:
            why = look()
        except OSError as error:
            why = f"it does not answer: {error}"
        if why is None:
            return
        time.sleep(0.5)
    sys.exit(f"after {PATIENCE} s: {why}")


def main():
    url, nodes = sys.argv[1], sys.argv[2:]
    if nodes[0] == "--killed":
        wait(lambda: missing_of_killed(url, nodes[1]))
        # The list is read anew each second; now the nodes that answer it know.
        time.sleep(3)
        wait(lambda: missing_of_killed(url, nodes[1]))
        print(f"{nodes[1]} is shown as down, and told of")
        return
    wait(lambda: missing(url, nodes))
    firing = [alert for alert in ask(url, "alerts")["alerts"] if alert["state"] == "firing"]
    if firing:
        sys.exit(f"alerts fire: {[alert['labels'] for alert in firing]}")
    rules = sum(len(group["rules"]) for group in ask(url, "rules")["groups"])
    print(f"{len(nodes)} nodes are up and found by one, {rules} rules evaluate, no alert fires")


if __name__ == "__main__":
    main()
