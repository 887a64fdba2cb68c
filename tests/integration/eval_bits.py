#!/usr/bin/env python3
"""The same job gives the same figures, digit by digit, for 1 and 2 threads, 1 to 3 workers and any batch size: services started by hand."""
import os
import signal
import subprocess

from stack import BIN, Directory, assay, check, figures, finish, run_eval, wait_for

JOB = ("--reference", "fp32", "--variants", "int8", "--chunks", "24")


class Services:
    """A stack without a supervisor: a coordinator, a quantizer, an evaluator and the workers given as lists of arguments."""

    def __init__(self, data, workers):
        self.data = data
        self.workers = workers
        self.processes = []

    def start(self, name, *args):
        log = open(os.path.join(self.data, "by-hand.log"), "ab")
        self.processes.append(subprocess.Popen([os.path.join(BIN, name), "--data", self.data, *args], stdin=subprocess.DEVNULL,
                                               stdout=log, stderr=log))
        log.close()

    def __enter__(self):
        os.makedirs(os.path.join(self.data, "artifacts"), exist_ok=True)
        self.start("assay-coordinator")
        self.start("assay-quantizer")
        self.start("assay-evaluator")
        for worker in self.workers:
            self.start("assay-inference", *worker)
        wait_for(lambda: assay("workers", "--data", self.data, "--json", code=None).returncode == 0, 30, "the coordinator answers")
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def figures_with(workers):
    with Directory() as data, Directory() as out, Services(data, workers):
        return figures(run_eval(data, out, *JOB))


def worker(precision, threads, batch_tokens):
    return ("--precision", precision, "--threads", str(threads), "--batch-tokens", str(batch_tokens))


def main():
    want = figures_with([worker("fp32", 1, 512), worker("int8", 1, 512)])
    for what, workers in (
            ("2 threads", [worker("fp32", 2, 512), worker("int8", 2, 512)]),
            ("batches of 4 chunks", [worker("fp32", 1, 2048), worker("int8", 2, 2048)]),
            ("batches of 24 chunks", [worker("fp32", 2, 12288), worker("int8", 1, 12288)]),
            ("2 workers a precision", [worker(p, 1, 1024) for p in ("fp32", "int8") for _ in range(2)]),
            ("3 workers a precision, unlike each other", [worker(p, t, b) for p in ("fp32", "int8")
                                                          for t, b in ((1, 512), (2, 1536), (1, 4096))])):
        check(figures_with(workers) == want, f"{what}: the same figures as 1 thread, 1 worker, 1 chunk a batch, digit by digit")
    os.environ["ASSAY_CPU_MASK"] = "avx2"
    check(figures_with([worker("fp32", 2, 2048), worker("int8", 2, 2048)]) == want, "the AVX2 path at most: the same figures")
    finish()


main()
