#!/usr/bin/env python3
"""A worker of plugins/python whose engine is a formula: what a worker does, without a model. Started by tests.

usage: toy_worker.py COORDINATOR PRECISION LISTEN [slow] [refuses] [nan]      TOY_KEY: secret key file to connect with
"""

import array
import json
import logging
import math
import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.environ["ASSAY_SOURCE"], "plugins", "python", "src"))

from assay import AssayError, Status, read_secret_key  # noqa: E402  (from this checkout)
from assay.worker import Worker, WorkerOptions  # noqa: E402


class ToyEngine:
    """Hidden states that depend on the token alone."""

    numerics_id = "toy-1"
    device = "none"
    threads = 1
    width = 0

    def __init__(self, modes):
        self.modes = modes
        self.runs = 0

    def load(self, variant):
        if "refuses" in self.modes:
            raise AssayError(Status.FAILED_PRECONDITION, f"the toy does not like {variant.label}")
        with open(os.path.join(variant.artifact_dir, "config.json"), encoding="utf-8") as file:
            self.width = json.load(file)["hidden_size"]

    def run(self, sequences):
        self.runs += 1
        print(f"run {self.runs} begins", file=sys.stderr, flush=True)
        if "slow" in self.modes:
            time.sleep(0.5)
        answers = []
        for sequence in sequences:
            rows = array.array("f")
            for token in sequence.ids[sequence.begin : sequence.end]:
                row = [math.sin(token * 0.37 + 0.05 * column) for column in range(self.width)]
                rows.extend([math.nan] * self.width if "nan" in self.modes else row)
            answers.append(rows.tobytes())
        return answers


logging.basicConfig(stream=sys.stderr, level=logging.INFO)
coordinator, precision, listen, *modes = sys.argv[1:]
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
key = read_secret_key(os.environ["TOY_KEY"]) if "TOY_KEY" in os.environ else None
worker = Worker(WorkerOptions(coordinator, listen, precision, batch=2, key=key), ToyEngine(modes))
while not stop.wait(0.2) and worker.is_alive():
    continue
worker.stop()
