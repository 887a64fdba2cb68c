#!/usr/bin/env python3
"""Jobs are paused, resumed, cancelled with a partial result, retried and removed; none of it changes a figure."""
import json
import os
import signal
import time

from stack import Directory, Stack, assay, check, coordinator_pid, figures, finish, report_of, run_eval, start_eval, wait_for

CHUNKS = 96
JOB = ("--reference", "fp32", "--variants", "int8", "--chunks", str(CHUNKS))


def jobs(data):
    found = json.loads(assay("jobs", "--data", data, "--json")).get("jobs", [])
    return [{"state": job["state"].removeprefix("JOB_STATE_").lower(), "chunks_done": int(job.get("chunksDone", 0)),
             "chunks_planned": int(job.get("chunksPlanned", 0)), "priority": job["request"].get("priority", 0)} for job in found]


def newest(data):
    return jobs(data)[0]


def control(command, data, job="last", code=0, *args):
    out = assay(command, job, "--data", data, "--json", *args, code=code)
    return json.loads(out) if code == 0 else None


def wait_under_way(data, least=8):
    def look():
        job = newest(data) if jobs(data) else {}
        return job.get("chunks_done", 0) >= least and job
    return wait_for(look, 60, f"a job has {least} chunks")


def end(process, code, what):
    stdout, stderr = process.communicate(timeout=120)
    if process.returncode != code:
        print(stdout, stderr, sep="\n")
    check(process.returncode == code, f"{what} ends with {code}, found {process.returncode}")
    return stdout


def check_partial(report, what):
    reference, variant = report["results"]
    check(report["partial"] is True and report["state"] == "cancelled" and report["verdict"] is None, f"{what} is marked partial, without a verdict")
    check(0 < variant["chunks_scored"] < CHUNKS and variant["chunks_planned"] == CHUNKS, f"{what} has its coverage: {variant['chunks_scored']}/{CHUNKS}")
    check(reference["chunks_scored"] >= variant["chunks_scored"], f"{what} has the reference's coverage")
    figure = variant["perplexity_increase_percent"]
    check(figure["interval_low"] <= figure["value"] <= figure["interval_high"], f"{what} has an interval")
    return variant


def check_partial_files(out, variant):
    report = report_of(out)
    check(report["verdict"] == "PARTIAL" and report["partial"] is True and report["exit_code"] == 11, "the report's file is marked partial")
    row = report["coverage"]["results"][1]
    check((row["chunks_scored"], row["chunks_planned"]) == (variant["chunks_scored"], CHUNKS), "the report's file has the coverage")
    figure = report["results"][1]["metrics"]["perplexity_increase_percent"]
    low, high = figure["interval_95"]
    check(low <= figure["value"] <= high, "the report's file has intervals")
    for name in ("EVALUATION_SUMMARY.md", "evaluation_report.html"):
        with open(os.path.join(out, name), encoding="utf-8") as file:
            text = file.read()
        check("PARTIAL" in text and f"{variant['chunks_scored']} of {CHUNKS} chunks" in text, f"{name} begins with the coverage")


def pause_and_resume(stack, data, out, want):
    process = start_eval(data, out, *JOB)
    wait_under_way(data)
    check(control("pause", data)["state"] == "paused", "a job is paused")
    wait_for(lambda: all(s.get("state") == "ready" for s in stack.services() if s["kind"] != "coordinator"), 30, "what is on loan is finished")
    before = newest(data)["chunks_done"]
    time.sleep(1.5)
    job = newest(data)
    check(job["state"] == "paused" and job["chunks_done"] == before < job["chunks_planned"], "a paused job stands still")
    check(control("resume", data)["state"] == "running", "a paused job is resumed")
    stdout, stderr = process.communicate(timeout=120)
    check(process.returncode in (0, 1, 2), f"a resumed job ends with a verdict, found {process.returncode} {stderr[-300:]}")
    check(figures(report_of(out)) == want, "a pause changes no figure")


def interrupt_once(data, out):
    process = start_eval(data, out, *JOB, "--json", "--record-dtype", "f16")
    wait_under_way(data, CHUNKS + 16)
    process.send_signal(signal.SIGINT)
    variant = check_partial(json.loads(end(process, 11, "an interrupted eval")), "an interrupted job")
    check_partial_files(out, variant)
    shown = assay("watch", "last", "--data", data, code=11)
    check("PARTIAL RESULT" in shown and f"{variant['chunks_scored']}/{CHUNKS}" in shown, "watch shows the partial result again")
    check(control("pause", data, code=4) is None, "a cancelled job cannot be paused")
    check(control("retry", data)["state"] in ("queued", "running"), "a cancelled job is retried")
    lines = [json.loads(line) for line in assay("watch", "last", "--data", data, "--json", code=None).stdout.splitlines()]
    check(lines[-1]["state"] == "completed", "a retried job is completed")
    sequences = [int(line["sequence"]) for line in lines[:-1]]
    check(sequences == sorted(set(sequences)), "events are numbered in order")
    check(any(line.get("text") == "job queued again" for line in lines[:-1]), "events tell of the retry")
    later = [json.loads(line) for line in
             assay("watch", "last", "--data", data, "--json", "--from", str(sequences[-1]), code=None).stdout.splitlines()]
    check([int(line["sequence"]) for line in later[:-1]] == sequences[-1:], "events are replayed from a sequence number")


def interrupt_twice(data, out):
    process = start_eval(data, out, "--reference", "bf16", *JOB[2:])
    wait_for(lambda: newest(data)["state"] == "running", 30, "the job is under way")
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    check(process.returncode in (10, 11), f"two interrupts end eval, found {process.returncode}")
    wait_for(lambda: newest(data)["state"] == "cancelled", 90, "the job is cancelled all the same")


def priorities(data, out):
    for wrong in ("11", "-11", "x"):
        check(assay("eval", "x", "--priority", wrong, "--data", data, code=None).returncode == 3, f"priority {wrong} is a usage error")
    run_eval(data, out, *JOB, "--priority", "3")
    check(newest(data)["priority"] == 3, "a job has its priority")


def remove(data):
    count = len(jobs(data))
    control("rm", data)
    check(len(jobs(data)) == count - 1, "a removed job is gone")
    check(control("rm", data, "0" * 32, 4) is None, "a job that is not there cannot be removed")


def survives(data, out):
    """A paused job is paused after the coordinator's death, and goes on when it is resumed."""
    process = start_eval(data, out, "--reference", "fp16", "--variants", "int8", "--chunks", "32")
    wait_under_way(data, 33)
    control("pause", data)
    os.kill(coordinator_pid(data), signal.SIGKILL)
    wait_for(lambda: assay("jobs", "--data", data, code=None).returncode == 0, 30, "a new coordinator answers")
    check(newest(data)["state"] == "paused", "a paused job is paused after a restart")
    check(control("resume", data)["state"] in ("queued", "running"), "it is resumed")
    stdout, stderr = process.communicate(timeout=120)
    check(process.returncode in (0, 1, 2), f"it ends with a verdict, found {process.returncode} {stderr[-300:]}")


def main():
    with Directory() as data, Directory() as out:
        want = figures(run_eval(data, out, *JOB))
    with Directory() as data, Directory() as out, Stack(data) as stack:
        pause_and_resume(stack, data, out, want)
        interrupt_once(data, out)
        priorities(data, out)
        interrupt_twice(data, out)
        remove(data)
        survives(data, out)
    finish()


if __name__ == "__main__":
    main()
