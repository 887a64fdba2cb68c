#!/usr/bin/env python3
"""Two reports of one job have the same figures; or, with --all-cached, one ran no chunk.

usage: compare_reports.py DIRECTORY DIRECTORY | --all-cached DIRECTORY
"""
import json
import os
import sys


def report_of(directory):
    with open(os.path.join(directory, "comprehensive_evaluation_report.json"), encoding="utf-8") as file:
        return json.load(file)


def figures(report):
    """What depends on the inputs alone, not on time, place or what was cached; as text."""
    kept = []
    for result in report["results"]:
        metrics = {key: value for key, value in result["metrics"].items() if key != "size"}
        kept.append([result["variant"]["label"], result["role"], metrics, result.get("criteria"), result["verdict"]])
    return json.dumps(kept, sort_keys=True)


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 3
    if arguments[0] == "--all-cached":
        ran = {r["variant"]["label"]: r["cost"]["chunks_run"] for r in report_of(arguments[1])["results"]}
        print(f"chunks run: {ran}")
        return 1 if any(ran.values()) or not ran else 0
    first, second = (figures(report_of(directory)) for directory in arguments)
    print("the figures are the same, digit by digit" if first == second else f"figures differ:\n{first}\n{second}")
    return 0 if first == second else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
