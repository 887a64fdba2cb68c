#!/usr/bin/env python3
"""Several evaluators give the bits of one. One that joins or leaves in the middle of a job takes records over, which no worker computes
again; what one takes to its grave is computed again."""
import json
import os
import signal
import subprocess

from stack import BIN, Directory, Stack, assay, check, figures, finish, report_of, result_of, run_eval, start_eval, wait_for

CHUNKS = 64
JOB = ("--reference", "fp32", "--variants", "int8", "--chunks", str(CHUNKS))


def shares(data):
    """Records of each live evaluator, by endpoint; None while one does not answer."""
    process = assay("cache", "stat", "--data", data, "--json", code=None)
    if process.returncode != 0:
        return None
    return {share["endpoint"]: share["records"] for share in json.loads(process.stdout)["evaluators"]}


def chunks_run(stack):
    return sum(service["counters"]["chunksRun"] for service in stack.services() if service["kind"] == "inference")


class Evaluator:
    """One more evaluator beside those of the stack."""

    def __init__(self, data, name):
        self.log = open(os.path.join(data, f"{name}.log"), "ab")
        self.process = subprocess.Popen([os.path.join(BIN, "assay-evaluator"), "--data", data, "--store", os.path.join(data, name)],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def records(self, data):
        held = shares(data) or {}
        return next((count for endpoint, count in held.items() if f"evaluator-{self.process.pid}.sock" in endpoint), None)


def ends_well(process, out, what):
    stdout, stderr = process.communicate(timeout=150)
    if process.returncode not in (0, 1, 2):
        print(stdout, stderr, sep="\n")
    check(process.returncode in (0, 1, 2), f"{what}: the job ends with a verdict, found exit code {process.returncode}")
    return figures(report_of(out))


def work_done(out):
    report = report_of(out)
    return [result_of(report, "fp32", "reference")["cost"]["chunks_run"], result_of(report, "int8")["cost"]["chunks_run"]]


def one():
    with Directory() as data, Directory() as out, Stack(data):
        want = figures(run_eval(data, out, *JOB))
        check(list(shares(data).values()) == [2 * CHUNKS], "one evaluator has all records")
        return want


def three(want):
    with Directory() as data, Directory() as out, Directory() as again, Stack(data, "--evaluators", "3"):
        check(figures(run_eval(data, out, *JOB)) == want, "three evaluators give the bits of one")
        held = shares(data)
        check(len(held) == 3 and all(0 < records < 2 * CHUNKS for records in held.values()), f"each has a share: {list(held.values())}")
        check(sum(held.values()) == 2 * CHUNKS, "each record is in one place")
        check(all(records % 2 == 0 for records in held.values()), "both records of a chunk are in one place")
        check(figures(run_eval(data, again, *JOB)) == want, "the same job again gives the same bits")
        check(work_done(again) == [0, 0], "the second run finds all records")
    with Directory() as data, Directory() as out:
        with Stack(data, "--evaluators", "3"):
            run_eval(data, out, *JOB)
        with Stack(data, "--evaluators", "3"), Directory() as again:
            check(figures(run_eval(data, again, *JOB)) == want and work_done(again) == [0, 0],
                  "a stack that was stopped and started finds all records where they were")


def join_in_the_middle(want):
    with Directory() as data, Directory() as out, Stack(data) as stack:
        process = start_eval(data, out, *JOB)
        wait_for(lambda: chunks_run(stack) >= 16 or process.poll() is not None, 60, "records are on their way")
        check(process.poll() is None, "the job runs when an evaluator joins")
        with Evaluator(data, "joins") as joined:
            wait_for(lambda: joined.records(data), 30, "the new evaluator has records")
            check(ends_well(process, out, "joined") == want, "an evaluator that joins changes no figure")
            check(0 < joined.records(data) < 2 * CHUNKS, "the new evaluator has a share")
            check(sum(shares(data).values()) == 2 * CHUNKS, "what moved is in one place")
            check(chunks_run(stack) == 2 * CHUNKS, f"nothing was computed twice, found {chunks_run(stack)} forward passes")


def leave_in_the_middle(want):
    with Directory() as data, Directory() as out, Stack(data, "--evaluators", "2") as stack, Evaluator(data, "leaves") as leaver:
        wait_for(lambda: len(shares(data) or {}) == 3, 30, "three evaluators are there")
        process = start_eval(data, out, *JOB)
        wait_for(lambda: leaver.records(data) or process.poll() is not None, 60, "the evaluator has records")
        check(process.poll() is None, "the job runs when an evaluator leaves")
        leaver.process.send_signal(signal.SIGTERM)
        check(leaver.process.wait(40) == 0, "an evaluator that is asked to leave hands its records over and ends")
        check(ends_well(process, out, "left") == want, "an evaluator that leaves changes no figure")
        check(sum(shares(data).values()) == 2 * CHUNKS, "the others have all records")
        check(chunks_run(stack) == 2 * CHUNKS, f"nothing was computed twice, found {chunks_run(stack)} forward passes")


def die_in_the_middle(want):
    with Directory() as data, Directory() as out, Stack(data, "--evaluators", "2") as stack, Evaluator(data, "dies") as victim:
        wait_for(lambda: len(shares(data) or {}) == 3, 30, "three evaluators are there")
        process = start_eval(data, out, *JOB)
        wait_for(lambda: victim.records(data) or process.poll() is not None, 60, "the evaluator has records")
        check(process.poll() is None, "the job runs when an evaluator dies")
        victim.process.kill()
        check(ends_well(process, out, "died") == want, "an evaluator that dies changes no figure")
        check(sum((shares(data) or {}).values()) == 2 * CHUNKS, "what it had is there again")
        check(chunks_run(stack) > 2 * CHUNKS, "what it had was computed again")


def main():
    want = one()
    three(want)
    join_in_the_middle(want)
    leave_in_the_middle(want)
    die_in_the_middle(want)
    finish()


main()
