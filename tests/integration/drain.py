#!/usr/bin/env python3
"""SIGTERM while a job is under way: every service gives back or answers what it has, ends well within 10 s, and the job's figures are
those of a job that nobody disturbed."""
import os
import signal
import time

from stack import Directory, Stack, check, finish, report_of, result_of, run_eval, start_eval, wait_for

CHUNKS = 24
STATED_S = 10


def figures_of(report):
    metrics = result_of(report, "int8")["metrics"]
    return [metrics["kl_nats"][key] for key in ("mean", "median", "p99", "max", "n")] + [metrics["perplexity"]["value"]]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def terminate(stack, kind, precision=None):
    service = wait_for(lambda: stack.service(kind, precision), 30, f"{kind} is registered")
    started = time.monotonic()
    os.kill(service["pid"], signal.SIGTERM)
    wait_for(lambda: not alive(service["pid"]), STATED_S, f"{kind} {precision or ''} ends after SIGTERM")
    print(f"{kind} {precision or ''}: {time.monotonic() - started:.2f} s")


def log_of(data, name):
    with open(os.path.join(data, "logs", f"{name}.log"), encoding="utf-8", errors="replace") as file:
        return file.read()


def main():
    args = ("--reference", "fp32", "--variants", "int8", "--chunks", str(CHUNKS))
    with Directory() as calm, Directory() as data, Directory() as scratch:
        with Stack(calm):
            wanted = figures_of(run_eval(calm, os.path.join(scratch, "calm"), *args))
        with Stack(data) as stack:
            job = start_eval(data, os.path.join(scratch, "drained"), *args)
            wait_for(lambda: (stack.service("inference", "fp32") or {}).get("counters", {}).get("chunksRun", 0) > 0, 60,
                     "the first chunks have run")
            terminate(stack, "inference", "fp32")
            terminate(stack, "evaluator")
            terminate(stack, "quantizer")
            out, err = job.communicate(timeout=200)
            check(job.returncode in (0, 1, 2), f"the job ends with a verdict: {out} {err}")
            check(figures_of(report_of(os.path.join(scratch, "drained"))) == wanted, "its figures are those of an undisturbed one")
        check("shutting down signal=15" in log_of(data, "inference-fp32"), "the worker says that it was asked to end")
        check("stopped chunks_run=" in log_of(data, "inference-fp32"), "and what it had done")
    finish()


main()
