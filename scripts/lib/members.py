"""What nodes have logged of each other: the cluster as each of them saw it, without asking it anything.

A node logs every change of a member's state with the microsecond at which it saw it. With `log_format: json` that is
the whole course of a join or a failure, and reading it costs the nodes nothing.
"""

import datetime
import json

MARK = b'"member changed state"'


class MemberLog:
    """The members as one node sees them, read from the end of its log."""

    def __init__(self, node):
        self.node, self.states, self.counts = node, {}, {}
        # When each member came into its state, in Unix time.
        self.since = {}
        with open(node.log, "rb") as log:
            self.position = log.seek(0, 2)

    def read(self):
        """Takes in what was logged since the last time."""
        self.node.alive()
        with open(self.node.log, "rb") as log:
            log.seek(self.position)
            lines = log.read()
        end = lines.rfind(b"\n") + 1
        self.position += end
        for line in lines[:end].splitlines():
            if MARK in line:
                event = json.loads(line)
                at = datetime.datetime.fromisoformat(event["timestamp"]).timestamp()
                self.states[event["member"]], self.since[event["member"]] = event["to"], at
                self.counts[event["to"]] = self.counts.get(event["to"], 0) + 1

    def seen(self, names, state):
        """When the last of `names` came into `state`, if all of them are in it."""
        if all(self.states.get(name) == state for name in names):
            return max(self.since[name] for name in names)
        return None


def count(logs, state):
    """How often members came into `state`, over all logs."""
    return sum(log.counts.get(state, 0) for log in logs)
