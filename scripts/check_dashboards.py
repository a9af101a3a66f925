#!/usr/bin/env python3
"""Checks that dashboards, rules and alerts ask only for what nodes show: every metric, label and value of a closed label in
deploy/grafana and deploy/prometheus is in docs/metrics.md (which a test compares with a node) or is recorded by a rule. Also
that the dashboards are those that make_dashboards.py makes, and that each alert has a severity, a summary, an action and a
test. Needs python3 only; prints what is wrong, and exits with 1 then."""

import json
import os
import re
import sys

import make_dashboards

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROMETHEUS = os.path.join("deploy", "prometheus")
# What Prometheus adds to each series of a node, and has of its own.
TARGET_LABELS = {"cluster_id", "node_id", "role", "zone", "instance", "job"}
OF_PROMETHEUS = {
    "up": TARGET_LABELS,
    "ALERTS": TARGET_LABELS | {"alertname", "alertstate", "severity"},
    "prometheus_sd_http_failures_total": {"instance", "job"},
}
# Names in expressions that are no metrics.
WORDS = set(
    "sum min max count avg by without on ignoring and or unless rate increase changes absent round time vector "
    "histogram_quantile label_values bool offset group_left group_right".split()
)
SERIES = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\s*(?:\{([^{}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
FINDINGS = []


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def metrics():
    """From docs/metrics.md: the labels of each metric, and the values of those that are closed (`None` for an open one)."""
    known = {}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", read("docs", "metrics.md"), re.MULTILINE):
        closed = {}
        for label in filter(None, labels.split("; ")):
            label, _, values = label.partition(": ")
            closed[label.strip("`")] = set(values.split(", ")) if values else None
        if kind == "histogram":
            known.update({name + "_sum": closed, name + "_count": closed, name + "_bucket": {**closed, "le": None}})
        else:
            known[name] = closed
    if not known:
        FINDINGS.append("docs/metrics.md lists no metric; make it with UPDATE_GOLDEN=1 cargo test -p p2p-node --test metrics")
    return known


def check(where, expression, known, recorded):
    """One expression."""
    # What groups by labels names no series, and what stands in braces is looked at with its metric.
    bare = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", " ", expression)
    bare = re.sub(r"label_values\(((?:[^(){}]|\{[^}]*\})*), \w+\)", r"\1", bare)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    for name, braces in SERIES.findall(bare):
        if name in WORDS:
            continue
        if name in known:
            labels = {**known[name], **dict.fromkeys(TARGET_LABELS)}
        elif name in recorded or name in OF_PROMETHEUS:
            labels = dict.fromkeys(OF_PROMETHEUS.get(name, TARGET_LABELS | {"method", "route", "reason", "state"}))
        else:
            FINDINGS.append(f"{where}: no node shows {name}")
            continue
        for label, operator, value in MATCHER.findall(braces):
            if label not in labels:
                FINDINGS.append(f"{where}: {name} has no label {label}")
            elif labels[label] is not None and not value.startswith("$"):
                values = value.split("|") if "~" in operator else [value]
                for wrong in set(values) - labels[label]:
                    FINDINGS.append(f"{where}: the label {label} of {name} is never {wrong}")


def expressions_of(dashboard):
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"${variable['name']}", variable["query"]["query"]


def main():
    known = metrics()
    rules, alerts, tests = (read(PROMETHEUS, f"{name}.yml") for name in ("rules", "alerts", "alerts_test"))
    recorded = set(re.findall(r"record: (\S+)", rules))
    count = 0
    for file, text in (("rules.yml", rules), ("alerts.yml", alerts)):
        entries = re.split(r"^ *- (?=record|alert)", text, flags=re.MULTILINE)[1:]
        for entry in entries:
            kind, name = re.match(r"(\w+): (\S+)", entry).groups()
            expression = re.search(r"^ *expr: (.+)$", entry, re.MULTILINE)
            if expression is None or expression[1] in ("|", ">"):
                FINDINGS.append(f"{file}: {name} has no expression of one line")
                continue
            check(f"{file}: {name}", expression[1], known, recorded)
            count += 1
            if kind == "alert":
                wanted = {"severity": r"severity: (critical|warning|info)\b", "summary": r"summary: \S", "action": r"action: \S"}
                FINDINGS.extend(f"{file}: {name} has no {what}" for what, how in wanted.items() if not re.search(how, entry))
            if not re.search(rf"(?<![\w:]){re.escape(name)}(?![\w:])", tests):
                FINDINGS.append(f"{file}: {name} has no test in alerts_test.yml")
    for name in make_dashboards.DASHBOARDS:
        text = read("deploy", "grafana", f"{name}.json")
        if text != make_dashboards.text(name):
            FINDINGS.append(f"deploy/grafana/{name}.json is not what scripts/make_dashboards.py makes; run it")
        for panel, expression in expressions_of(json.loads(text)):
            check(f"{name}: {panel}", expression, known, recorded)
            count += 1
    if FINDINGS:
        sys.exit("\n".join(FINDINGS))
    print(f"{count} expressions ask for what there is")


if __name__ == "__main__":
    main()
