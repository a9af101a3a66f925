#!/usr/bin/env python3
"""Writes the Grafana dashboards, deploy/grafana/*.json, from the tables below, so that all look alike and one line changes a
panel in each. scripts/check_dashboards.py compares the files with what this makes."""

import json
import os

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "deploy", "grafana")

# The variables that choose series in expressions.
C = 'cluster_id="$cluster"'
N = 'cluster_id="$cluster",node_id=~"$node"'
M = 'cluster_id="$cluster",method=~"$method"'


def stat(title, expression, unit="short", red=None, what="", below=False):
    """One number, red from `red` on, or below it."""
    steps = [{"color": "green", "value": None}]
    if red is not None:
        steps = [{"color": "red" if below else "green", "value": None}, {"color": "green" if below else "red", "value": red}]
    panel = base("stat", title, what, [(expression, "")])
    panel["fieldConfig"]["defaults"] = {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}}
    panel["options"] = {"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return 4, 4, panel


def graph(title, *queries, unit="short", what="", stack=False):
    """Lines over time; each query with the text of its legend."""
    panel = base("timeseries", title, what, queries)
    style = {"fillOpacity": 30, "stacking": {"mode": "normal"}} if stack else {"fillOpacity": 5}
    panel["fieldConfig"]["defaults"] = {"unit": unit, "min": 0, "custom": {"lineWidth": 1, "showPoints": "never", **style}}
    panel["options"] = {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return 8, 7, panel


def table(title, expression, unit, columns, value, what=""):
    """The last value of each series, and some of its labels."""
    panel = base("table", title, what, [(expression, "")])
    panel["targets"][0].update({"format": "table", "instant": True})
    panel["fieldConfig"]["defaults"] = {"unit": unit}
    panel["transformations"] = [
        {"id": "filterFieldsByName", "options": {"include": {"names": [*columns, "Value"]}}},
        {"id": "organize", "options": {"renameByName": {"Value": value}}},
        {"id": "sortBy", "options": {"sort": [{"field": value}]}},
    ]
    return 12, 8, panel


def base(kind, title, what, queries):
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [
        {"refId": chr(ord("A") + place), "datasource": source, "expr": expression, "legendFormat": legend or "__auto"}
        for place, (expression, legend) in enumerate(queries)
    ]
    return {
        "type": kind,
        "title": title,
        "description": what,
        "datasource": source,
        "targets": targets,
        "fieldConfig": {"defaults": {}, "overrides": []},
    }


def rate(metric, by, where=N):
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


NODE = ("node", "label_values(p2p_build_info{%s}, node_id)" % C)
METHOD = ("method", "label_values(p2p_requests_total{%s}, method)" % C)

DASHBOARDS = {
    "fleet": ("P2P Core: fleet", [NODE], [
        stat("Nodes up", f"sum(cluster:p2p_nodes:up{{{C}}})"),
        stat("Nodes not up", f'count(up{{job="p2p",{C}}} == 0) or vector(0)', red=1),
        stat("Coordinators up", f'sum(cluster:p2p_nodes:up{{role="coordinator",{C}}})', red=1, below=True),
        stat("Views apart", f"cluster:p2p_members_alive:spread{{{C}}}", red=1, what="By how many members nodes disagree about who is alive."),
        stat("Alerts", f'count(ALERTS{{alertstate="firing",{C}}}) or vector(0)', red=1),
        stat("First certificate ends in", f"min(node:p2p_certificate_remaining:seconds{{{C}}})", "s", red=7 * 86400, below=True),
        table("Nodes", f'up{{job="p2p",{N}}}', "short", ["node_id", "role", "zone", "instance"], "up"),
        table("Releases", f"count by (version, protocol) (p2p_build_info{{{N}}})", "short", ["version", "protocol"], "nodes"),
        graph("Members, as nodes see them", (f"max by (state) (p2p_members{{{N}}})", "{{state}}"), what="The largest number that any node sees in each state."),
        graph("Calls by where they were served", (f"cluster:p2p_routed_calls:rate5m{{{C}}}", "{{route}}"), unit="reqps"),
        graph("Faults of all calls", (f"sum(method:p2p_request_faults:rate5m{{{C}}}) / sum(method:p2p_requests:rate5m{{{C}}})", "faults"), unit="percentunit"),
        graph("CPU", (rate("process_cpu_seconds_total", "node_id"), "{{node_id}}"), unit="percentunit", what="Of one core."),
        graph("Memory in RAM", (f"process_resident_memory_bytes{{{N}}}", "{{node_id}}"), unit="bytes"),
        graph("File descriptors, of those allowed", (f"process_open_fds{{{N}}} / process_max_fds{{{N}}}", "{{node_id}}"), unit="percentunit"),
        graph("Runtime threads busy", (f"{rate('p2p_runtime_busy_seconds_total', 'node_id')} / sum by (node_id) (p2p_runtime_workers{{{N}}})", "{{node_id}}"), unit="percentunit"),
        graph("Tasks", (f"p2p_runtime_tasks{{{N}}}", "{{node_id}}"), what="One or more for each connection and call."),
        graph("Connections", (f"p2p_connections{{{N}}}", "{{node_id}}")),
    ]),
    "service": ("P2P Core: services", [NODE, METHOD], [
        graph("Calls", (f"method:p2p_requests:rate5m{{{M}}}", "{{method}}"), unit="reqps", what="A routed call is counted where it enters and where it is served."),
        graph("Faults", (f"method:p2p_request_faults:ratio5m{{{M}}}", "{{method}}"), unit="percentunit", what="UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS, of all answers."),
        graph("Answers by code", (f"sum by (code) (rate(p2p_requests_total{{{N},method=~\"$method\"}}[$__rate_interval]))", "{{code}}"), unit="reqps", stack=True),
        graph("Time of half of the calls", (f"method:p2p_request_duration_seconds:p50_5m{{{M}}}", "{{method}}"), unit="s"),
        graph("Time of 99 % of the calls", (f"method:p2p_request_duration_seconds:p99_5m{{{M}}}", "{{method}}"), unit="s"),
        graph("Calls under way, of those allowed", (f"p2p_calls_under_way{{{N}}} / p2p_calls_limit{{{N}}}", "{{node_id}}"), unit="percentunit"),
        graph("Retries", (f"cluster:p2p_retries:rate5m{{{C}}}", "{{reason}}"), (f"sum(rate(p2p_retries_denied_total{{{N}}}[$__rate_interval]))", "denied"), unit="reqps"),
        graph("Circuits that are not closed", (f'sum by (state) (p2p_circuits{{{N},state=~"open|half_open"}})', "{{state}}"), (f"sum(increase(p2p_provider_ejections_total{{{N}}}[$__rate_interval]))", "ejections")),
        graph("Refused by limits", (rate("p2p_rate_limited_requests_total", "class"), "rate, {{class}}"), (rate("p2p_calls_refused_total", "limit"), "calls under way, {{limit}}"), unit="reqps"),
        graph("Processes behind nodes: healthy", (f"min by (service, node_id) (p2p_upstream_healthy{{{N}}})", "{{service}} at {{node_id}}")),
        graph("Processes behind nodes: calls in flight", (f"sum by (service) (p2p_upstream_calls_in_flight{{{N}}})", "{{service}}")),
        graph("Processes behind nodes: failures", (rate("p2p_upstream_call_failures_total", "service, reason"), "{{service}}: {{reason}}"), (rate("p2p_upstream_check_failures_total", "service, reason"), "check of {{service}}: {{reason}}")),
        graph("HTTP", (rate("p2p_http_requests_total", "path, status"), "{{path}} {{status}}"), unit="reqps"),
        graph("Ways between nodes", (rate("p2p_peer_calls_total", "way"), "{{way}}"), (rate("p2p_peer_stream_excess_total", "reason"), "not by stream: {{reason}}"), unit="reqps"),
        graph("Generic calls that failed", (rate("p2p_generic_call_faults_total", "reason"), "{{reason}}"), (rate("p2p_broadcast_results_total", "result"), "broadcast: {{result}}"), unit="reqps"),
    ]),
    "gossip": ("P2P Core: gossip", [NODE], [
        graph("Members alive", (f'max(p2p_members{{state="alive",{N}}})', "most"), (f'min(p2p_members{{state="alive",{N}}})', "fewest"), what="Apart for long: the network is cut."),
        graph("Changes of state", (f"max by (state) (increase(p2p_member_transitions_total{{{N}}}[$__rate_interval]))", "{{state}}"), what="At the node that saw the most."),
        graph("Declared down while alive", (f"increase(p2p_gossip_identity_renewals_total{{{N}}}[$__rate_interval])", "{{node_id}}"), (f"increase(p2p_gossip_identity_conflicts_total{{{N}}}[$__rate_interval])", "conflict at {{node_id}}")),
        graph("Sent by each node", (f"node:p2p_gossip_sent_bytes:rate5m{{{N}}}", "{{node_id}}"), unit="Bps"),
        graph("Size after compression", (f"cluster:p2p_gossip_compression:ratio5m{{{C}}}", "of the size before"), unit="percentunit"),
        graph("Frames received", (f'sum by (kind) (rate(p2p_gossip_frames_total{{direction="received",{N}}}[$__rate_interval]))', "{{kind}}"), unit="cps", stack=True),
        graph("Interval", (f"p2p_gossip_interval_seconds{{{N}}}", "{{node_id}}"), unit="s", what="Between comparisons of records; grows with the load."),
        graph("Load", (f"p2p_gossip_load{{{N}}}", "{{node_id}}"), unit="cps"),
        graph("Streams", (f"p2p_gossip_links{{{N}}}", "{{node_id}}"), what="About log2(n) + 4 of n nodes, of both sides."),
        graph("Refused", (rate("p2p_gossip_refused_total", "reason"), "{{reason}}"), unit="cps", what="docs/bad-input.md explains each reason."),
        graph("Dropped and slowed", (rate("p2p_gossip_dropped_frames_total", "node_id"), "dropped, {{node_id}}"), (rate("p2p_gossip_slowed_frames_total", "node_id"), "slowed, {{node_id}}"), unit="cps"),
        graph("Dials", (rate("p2p_peer_dials_total", "result"), "{{result}}"), unit="cps"),
        graph("Connections to other nodes", (f"p2p_peer_connections{{{N}}}", "{{node_id}}")),
        graph("Peer streams", (f"p2p_peer_streams{{{N}}}", "{{node_id}}"), (rate("p2p_peer_stream_faults_total", "reason"), "fault: {{reason}}")),
    ]),
    "trust": ("P2P Core: trust", [NODE], [
        stat("First certificate ends in", f"min(node:p2p_certificate_remaining:seconds{{{C}}})", "s", red=7 * 86400, below=True),
        stat("First CA ends in", f"min(node:p2p_ca_certificate_remaining:seconds{{{C}}})", "s", red=30 * 86400, below=True),
        stat("Evicted nodes", f"max(p2p_evicted_nodes{{{C}}})"),
        stat("Revocations in force", f"max(p2p_revocations{{{C}}})"),
        stat("Nodes that lost revocations", f"sum(p2p_revocations_incomplete{{{C}}})", red=1),
        stat("Addresses blocked", f"max(p2p_authentication_blocked_addresses{{{C}}})", red=1),
        table("Certificates", f"node:p2p_certificate_remaining:seconds{{{N}}}", "s", ["node_id", "role", "zone"], "ends in"),
        table("CA certificates", f"node:p2p_ca_certificate_remaining:seconds{{{N}}}", "s", ["node_id", "role", "zone"], "ends in"),
        graph("Renewals", (f"sum by (result) (increase(p2p_certificate_renewals_total{{{N}}}[1h]))", "{{result}}"), what="Within an hour."),
        graph("Enrolments", (f"sum by (result) (increase(p2p_enrolments_total{{{N}}}[1h]))", "{{result}}"), (f"max(p2p_join_tokens{{{N}}})", "join tokens kept"), what="Within an hour, by coordinators."),
        graph("Audit log", (f"sum by (result) (increase(p2p_audit_lines_total{{{N}}}[1h]))", "{{result}}"), what="Lines within an hour; none may be missing."),
        graph("Authentication failures", (rate("p2p_authentication_failures_total", "reason"), "{{reason}}"), (rate("p2p_authentication_blocked_total", "node_id"), "unseen, {{node_id}}"), unit="reqps"),
        graph("Authorization denials", (rate("p2p_authorization_denials_total", "access, evidence"), "{{access}}, by {{evidence}}"), unit="reqps"),
        graph("Tokens", (rate("p2p_tokens_verified_total", "cluster_id"), "verified"), (rate("p2p_token_cache_hits_total", "cluster_id"), "known"), unit="reqps"),
        graph("Keys that verify tokens", (f"p2p_token_signers{{{N}}}", "{{node_id}}")),
        graph("Connections refused", (rate("p2p_connections_refused_total", "reason"), "{{reason}}"), (rate("p2p_connections_ended_total", "reason"), "ended: {{reason}}"), unit="cps"),
        graph("Connections closed by revocation", (rate("p2p_revoked_connections_total", "node_id"), "{{node_id}}"), unit="cps"),
    ]),
}


def variable(name, query, all_of_them=True):
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "name": name,
        "type": "query",
        "datasource": source,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "includeAll": all_of_them,
        "multi": all_of_them,
        "allValue": ".*" if all_of_them else None,
        "current": {"text": ["All"], "value": ["$__all"]} if all_of_them else {},
    }


def dashboard(name):
    title, variables, panels = DASHBOARDS[name]
    x = y = row = 0
    placed = []
    for number, (width, height, panel) in enumerate(panels, 1):
        if x + width > 24:
            x, y, row = 0, y + row, 0
        placed.append({"id": number, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
        x, row = x + width, max(row, height)
    choices = [
        {"name": "source", "label": "data source", "type": "datasource", "query": "prometheus"},
        variable("cluster", "label_values(p2p_build_info, cluster_id)", all_of_them=False),
        *(variable(*each) for each in variables),
    ]
    return {
        "uid": f"p2p-{name}",
        "title": title,
        "tags": ["p2p"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [{"type": "dashboards", "title": "P2P Core", "tags": ["p2p"], "keepTime": True, "includeVars": True}],
        "templating": {"list": choices},
        "panels": placed,
    }


def text(name):
    return json.dumps(dashboard(name), indent=1) + "\n"


def main():
    os.makedirs(FOLDER, exist_ok=True)
    for name in DASHBOARDS:
        with open(os.path.join(FOLDER, f"{name}.json"), "w", encoding="utf-8") as file:
            file.write(text(name))


if __name__ == "__main__":
    main()
