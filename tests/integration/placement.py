#!/usr/bin/env python3
"""A model goes to workers whose memory has room for it; when it fits nowhere the job says so and ends."""
import os
import signal
import subprocess

from stack import BIN, Directory, Stack, check, figures, finish, run_eval, start_eval, wait_for

JOB = ("--reference", "fp32", "--variants", "int8", "--chunks", "12")
RESOURCES = 7


class Worker:
    """One of fp32, with an address of its own and memory for models of that many bytes."""

    def __init__(self, data, memory_bytes):
        self.process = subprocess.Popen([os.path.join(BIN, "assay-inference"), "--precision", "fp32", "--data", data,
                                         "--memory-gb", str(memory_bytes / 1e9)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(30) == 0, "a worker ends in order")

    def service(self, stack):
        return next((s for s in stack.services() if s.get("pid") == self.process.pid), None)


def check_fits_nowhere(data, work):
    with Stack(data) as stack, Worker(data, 100_000) as one, Worker(data, 200_000) as other:
        for worker in (one, other):
            wait_for(lambda w=worker: w.service(stack), 30, "a small worker is registered")
        jobs = [start_eval(data, os.path.join(work, name), *JOB) for name in ("nowhere", "beside")]
        jobs[0].wait(120)
        jobs.append(start_eval(data, os.path.join(work, "again"), *JOB))
        for job in jobs:
            _, errors = job.communicate(timeout=120)
            check(job.returncode == RESOURCES, f"a model that fits nowhere ends the job: {errors}")
            check("variant fp32 fits into the memory of no worker" in errors and "--memory-gb allows" in errors,
                  "with the variant, its size and what there is")


def check_goes_where_it_fits(data, work, wanted):
    with Stack(data) as stack, Worker(data, 100_000) as small:
        wait_for(lambda: small.service(stack), 30, "a small worker is registered")
        with Worker(data, 4_000_000_000) as large:
            wait_for(lambda: large.service(stack), 30, "a large worker is registered")
            found = figures(run_eval(data, os.path.join(work, "mixed"), *JOB))
            ran = [worker.service(stack)["counters"]["chunksRun"] for worker in (small, large)]
            check(found == wanted, "the figures are those of a stack of large workers")
            check(ran == [0, 12], f"the large one has run all chunks, the small one none, found {ran}")


def main():
    with Directory() as work, Directory() as plain, Directory() as nowhere, Directory() as mixed:
        wanted = figures(run_eval(plain, os.path.join(work, "plain"), *JOB))
        check_fits_nowhere(nowhere, work)
        check_goes_where_it_fits(mixed, work, wanted)
    finish()


main()
