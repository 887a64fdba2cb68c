#!/usr/bin/env python3
"""A coordinator that dies for good under a running job: `assay eval` waits for as long as --away says, and ends with one sentence and exit
code 6. One that comes back in time ends nothing."""
import os
import signal
import subprocess
import time

from stack import BIN, Directory, Stack, check, finish, result_of, report_of, start_eval, wait_for

UNAVAILABLE = 6
AWAY_S = 2


def coordinator_of(stack):
    return next(service["pid"] for service in stack.services() if service["kind"] == "coordinator")


def begun(stack):
    return any(service["counters"]["chunksRun"] > 0 for service in stack.services())


def gone_for_good(data, scratch):
    with Stack(data) as stack:
        process = start_eval(data, os.path.join(scratch, "gone"), "--variants", "int8", "--away", str(AWAY_S))
        wait_for(lambda: begun(stack) or process.poll() is not None, 60, "the job runs")
        coordinator = coordinator_of(stack)
        stack.process.kill()  # nobody starts another one
        os.kill(coordinator, signal.SIGKILL)
        killed = time.monotonic()
        stdout, stderr = process.communicate(timeout=60)
        waited = time.monotonic() - killed
    lines = [line for line in stderr.splitlines() if line.startswith("assay eval: ")]
    check(process.returncode == UNAVAILABLE, f"exit code {UNAVAILABLE}, found {process.returncode}: {stderr[-500:]}")
    check(len(lines) == 1 and f"away for {AWAY_S} s" in lines[0], f"one sentence says how long the coordinator was away: {lines}")
    check(stdout == "" and AWAY_S <= waited < AWAY_S + 20, f"it waited {waited:.1f} s for it")


def back_in_time(data, scratch):
    """Goes on with the job that the first half has left behind: a stack on the same data finds it."""
    with Stack(data) as stack:
        process = start_eval(data, os.path.join(scratch, "back"), "--variants", "int8", "--chunks", "16", "--away", "60")
        time.sleep(0.5)
        if process.poll() is None:
            os.kill(coordinator_of(stack), signal.SIGKILL)  # the supervisor starts another one
        process.communicate(timeout=120)
        check(process.returncode in (0, 1, 2), f"the job ends with a verdict, found exit code {process.returncode}")
        check(result_of(report_of(os.path.join(scratch, "back")), "int8")["metrics"]["kl_nats"]["n"] == 16 * 255, "and all its figures")


help_text = subprocess.run([os.path.join(BIN, "assay"), "eval", "--help"], capture_output=True, text=True, check=True).stdout
check("--away SECONDS" in help_text and "ASSAY_AWAY" in help_text, "--help names the setting and its variable")
with Directory() as data, Directory() as scratch:
    gone_for_good(data, scratch)
    back_in_time(data, scratch)
finish()
