#!/usr/bin/env python3
"""The files of compose/ that Prometheus and Grafana read ask for metrics that docs/METRICS.md lists, with labels that these have; the
dashboard has the shape that Grafana imports; every service that is scraped is one of compose.yaml.

usage: tools/check_compose.py
"""

import json
import re
import sys

from repo_files import ROOT, finish, read_text

ROW = re.compile(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \| ([^|]+) \|", re.MULTILINE)
# Made by Prometheus itself, for each target.
OF_PROMETHEUS = {"up": {"job", "instance"}}
TARGET_LABELS = {"job", "instance", "le"}
SELECTOR = re.compile(r"\b([a-z_][a-z0-9_]*)\s*(\{[^}]*\})?")
GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


def documented():
    """{name as it is asked for: labels}; a histogram has three names."""
    names = dict(OF_PROMETHEUS)
    for name, kind, labels in ROW.findall(read_text(ROOT / "docs/METRICS.md")):
        found = set(re.findall(r"`(\w+)`", labels)) | TARGET_LABELS
        for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
            names[name + suffix] = found
    return names


def check_expression(where, text, names, findings):
    """Every name that is or looks like a metric of ours, and the labels that its selector names."""
    asked = 0
    without_groups = GROUPING.sub(" ", text)
    bare = re.sub(r'"[^"]*"', '""', without_groups)
    for name, selector in SELECTOR.findall(bare):
        if not (name in names or name.startswith(("assay_", "process_"))):
            continue
        asked += 1
        if name not in names:
            findings.append(f"{where}: {name} is not a metric that docs/METRICS.md lists")
            continue
        for label in re.findall(r"(\w+)\s*(?:=|!=|=~|!~)", selector):
            if label not in names[name]:
                findings.append(f"{where}: {name} has no label {label}")
    if asked == 0:
        findings.append(f"{where}: asks for no metric: {text}")
    return asked


def check_dashboard(names, findings):
    board = json.loads(read_text(ROOT / "compose/grafana/assay.json"))
    panels, asked = board.get("panels", []), 0
    ids = [panel["id"] for panel in panels]
    if not panels or len(set(ids)) != len(ids) or not board.get("title") or not isinstance(board.get("schemaVersion"), int):
        findings.append("compose/grafana/assay.json: wanted a title, a schemaVersion and panels with ids of their own")
    taken = set()
    for panel in panels:
        where = f"compose/grafana/assay.json: panel {panel.get('title')!r}"
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        if cells & taken or any(x >= 24 for x, _ in cells):
            findings.append(f"{where} lies over another one, or beyond the 24 columns")
        taken |= cells
        for target in panel["targets"]:
            asked += check_expression(where, target["expr"], names, findings)
    return asked


def main(arguments):
    if arguments:
        print(f"check_compose: unknown argument {arguments[0]!r} (it takes none)", file=sys.stderr)
        return 3
    names, findings = documented(), []
    rules = read_text(ROOT / "compose/prometheus/alerts.yml")
    expressions = re.findall(r"- alert: (\w+)\n\s+expr: (.*)", rules)
    asked = sum(check_expression(f"compose/prometheus/alerts.yml: {name}", text, names, findings) for name, text in expressions)
    if not expressions:
        findings.append("compose/prometheus/alerts.yml: no alert was found")
    asked += check_dashboard(names, findings)
    scraped = re.search(r"names: \[([^\]]*)\]", read_text(ROOT / "compose/prometheus/prometheus.yml")).group(1).split(", ")
    services = set(re.findall(r"^  ([\w-]+):$", read_text(ROOT / "compose/compose.yaml").split("\nservices:\n")[1], re.MULTILINE))
    findings += [f"compose/prometheus/prometheus.yml: {name} is no service of compose.yaml" for name in scraped if name not in services]
    with_metrics = {name for name in services if name in ("coordinator", "quantizer", "evaluator") or name.startswith("inference-")}
    findings += [f"compose/prometheus/prometheus.yml: {name} is not scraped" for name in sorted(with_metrics - set(scraped))]
    return finish("check_compose", findings, f"{asked} uses of metrics, {len(scraped)} services")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
