#!/usr/bin/env python3
"""A worker and an evaluator that do not see the artifacts fetch them in pieces and give the same bits."""
import os
import subprocess
import sys

from stack import BIN, Directory, Stack, check, figures, finish, report_of, result_of, run_eval, start_eval, wait_for

JOB = ("--reference", "fp32", "--variants", "int8", "--chunks", "12")


def can_hide():
    return subprocess.run(["unshare", "-rm", "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


class Hidden:
    """A program of the stack in a mount namespace of its own, where the stack's artifacts are an empty directory."""

    def __init__(self, data, own, program, *args):
        self.log_path = os.path.join(own, f"{program}.log")
        self.log = open(self.log_path, "ab")
        hide = 'mount -t tmpfs none "$1/artifacts" && shift && exec "$@"'
        command = [os.path.join(BIN, f"assay-{program}"), "--data", own, "--coordinator", f"ipc://{data}/run/coordinator.sock", *args]
        self.process = subprocess.Popen(["unshare", "-rm", "sh", "-c", hide, "sh", data, *command], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def lines(self, what):
        with open(self.log_path, encoding="utf-8") as file:
            return [line for line in file if what in line]


def main():
    if not can_hide():
        print("SKIPPED: mount namespaces are not to be had here")
        sys.exit(77)
    with Directory() as data, Directory() as out:
        want = figures(run_eval(data, out, *JOB))
    with Directory() as data, Directory() as out, Directory() as one, Directory() as two, Directory() as three, \
            Stack(data, "--external", "all", "--evaluators", "1") as stack:
        with Hidden(data, one, "inference", "--precision", "fp32") as fp32, Hidden(data, two, "inference", "--precision", "int8") as int8, \
                Hidden(data, three, "evaluator") as evaluator:
            wait_for(lambda: len([s for s in stack.services() if s["kind"] == "evaluator"]) == 2, 30, "a second evaluator is there")
            check(figures(run_eval(data, out, *JOB)) == want, "artifacts and heads that were fetched give the same bits")
            check(len(fp32.lines("artifact fetched")) == 1, "the fp32 worker fetched its artifact")
            check(len(int8.lines("artifact fetched")) == 1, "the int8 worker fetched its artifact")
            check(len(evaluator.lines("head_only=1")) == 2, "the evaluator fetched the heads, and nothing but the heads")
        ids = [result_of(report_of(out), "fp32", "reference"), result_of(report_of(out), "int8")]
        names = [r["variant"]["variant_id"] for r in ids]
        for own, name in ((one, names[0]), (two, names[1])):
            check(os.listdir(os.path.join(own, "artifacts")).count(name) == 1, "the artifact stands under its id in the worker's own directory")
            here, there = os.path.join(own, "artifacts", name), os.path.join(data, "artifacts", name)
            check(sorted(os.listdir(here)) == sorted(os.listdir(there)), "all files came")
            for file in os.listdir(here):
                with open(os.path.join(here, file), "rb") as a, open(os.path.join(there, file), "rb") as b:
                    check(a.read() == b.read(), f"{file} has the same bytes")
        with Directory() as again, Hidden(data, one, "inference", "--precision", "fp32") as fp32:
            process = start_eval(data, again, "--reference", "fp32", "--variants", "fp32", "--chunks", "20")
            stdout, stderr = process.communicate(timeout=120)
            check(process.returncode in (0, 1, 2), f"a second worker on the same directory ends the job: {stderr[-300:]}")
            check(len(fp32.lines("artifact fetched")) == 1, "it used the copy that was there")
    finish()


main()
