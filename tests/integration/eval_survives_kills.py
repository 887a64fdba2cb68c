#!/usr/bin/env python3
"""SIGKILL of each kind of process in the middle of a job changes no figure, and nothing half-made is ever visible."""
import os
import signal
import time

from stack import Directory, Stack, check, coordinator_pid, figures, finish, report_of, run_eval, start_eval, wait_for

CHUNKS = "64"
JOB = ("--reference", "fp32", "--variants", "int8", "--chunks", CHUNKS)


def kill(stack, kind, precision=None):
    """Kills the live service of a kind; its pid, 0 when there is none now (one that died a moment ago may still be listed)."""
    service = stack.service(kind, precision)
    try:
        if service:
            os.kill(service["pid"], signal.SIGKILL)
            return service["pid"]
    except ProcessLookupError:
        pass
    return 0


def chunks_run(stack, precision):
    service = stack.service("inference", precision)
    return service["counters"]["chunksRun"] if service else 0


def artifacts(data):
    path = os.path.join(data, "artifacts")
    return [name for name in os.listdir(path) if not name.startswith(".")] if os.path.isdir(path) else []


def all_artifacts_whole(data):
    return all(os.path.exists(os.path.join(data, "artifacts", name, "manifest.json")) for name in artifacts(data))


def ends_well(process, out, what):
    stdout, stderr = process.communicate(timeout=150)
    if process.returncode not in (0, 1, 2):
        print(stdout, stderr, sep="\n")
    check(process.returncode in (0, 1, 2), f"{what}: the job ends with a verdict, found exit code {process.returncode}")
    return figures(report_of(out))


def undisturbed():
    with Directory() as data, Directory() as out:
        return figures(run_eval(data, out, *JOB))


def kill_worker(want):
    with Directory() as data, Directory() as out, Stack(data) as stack:
        process = start_eval(data, out, *JOB)
        wait_for(lambda: 0 < chunks_run(stack, "fp32") < int(CHUNKS) or process.poll() is not None, 60, "the fp32 worker is at work")
        check(process.poll() is None and kill(stack, "inference", "fp32"), "the fp32 worker is killed in mid-job")
        check(ends_well(process, out, "worker killed") == want, "a killed worker changes no figure")


def kill_evaluator(want):
    with Directory() as data, Directory() as out, Stack(data) as stack:
        process = start_eval(data, out, *JOB)
        wait_for(lambda: chunks_run(stack, "fp32") > 0 or process.poll() is not None, 60, "records are on their way")
        check(process.poll() is None and kill(stack, "evaluator"), "the evaluator is killed in mid-job")
        check(ends_well(process, out, "evaluator killed") == want, "a killed evaluator changes no figure")


def kill_coordinator(want):
    with Directory() as data, Directory() as out, Stack(data) as stack:
        process = start_eval(data, out, *JOB)
        wait_for(lambda: chunks_run(stack, "fp32") > 0 or process.poll() is not None, 60, "the job runs")
        pid = coordinator_pid(data)
        check(process.poll() is None and pid, "the coordinator is found in mid-job")
        os.kill(pid, signal.SIGKILL)
        check(ends_well(process, out, "coordinator killed") == want, "a killed coordinator loses no job and changes no figure")


def kill_quantizer(want):
    with Directory() as data, Directory() as out, Stack(data) as stack:
        wait_for(lambda: stack.service("quantizer"), 30, "the quantizer is there")
        process = start_eval(data, out, *JOB)
        kills = 0
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and kills < 3 and process.poll() is None:
            if kill(stack, "quantizer"):
                kills += 1
            check(all_artifacts_whole(data), "every artifact that is visible under its id is whole")
            time.sleep(0.7)
        check(kills > 0, "the quantizer is killed")
        check(ends_well(process, out, "quantizer killed") == want, "a killed quantizer changes no figure")
        check(len(artifacts(data)) == 2 and all_artifacts_whole(data), "both artifacts are there and whole")


def main():
    want = undisturbed()
    kill_worker(want)
    kill_evaluator(want)
    kill_coordinator(want)
    kill_quantizer(want)
    finish()


main()
