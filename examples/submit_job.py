#!/usr/bin/env python3
"""Submits a job to a running stack (`assay up`), follows it, prints its table; ends with 0 pass, 1 fail, 2 inconclusive.

    python3 examples/submit_job.py MODEL CORPUS int8,nf4

Needs plugins/python (pip install plugins/python, or PYTHONPATH=plugins/python/src in a checkout). CHUNKS=N runs the
first N chunks only.
"""
import os
import pathlib
import sys

from assay import AssayError, Client, pb, table_of

EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}


def main() -> int:
    model, corpus, variants = sys.argv[1:]
    job = {
        "model": model,
        "reference": "fp32",
        "variants": variants.split(","),
        "corpus": pathlib.Path(corpus),
        "chunks": int(os.environ.get("CHUNKS", "0")),
    }
    with Client() as client:  # $ASSAY_COORDINATOR, or the socket in $ASSAY_DATA
        job_id = client.submit(job)
        for event in client.events(job_id):
            for phase in event.phases:
                print(f"{phase.name}: {phase.done}/{phase.total} {phase.unit}", end="  ", file=sys.stderr)
            print(event.text or pb.name_of("JobState", event.state).lower(), file=sys.stderr)
        client.wait(job_id)
        report = client.report(job_id)
    print(table_of(report))
    return EXIT_CODES[report["verdict"]]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AssayError as error:
        sys.exit(f"submit_job: {error}")
