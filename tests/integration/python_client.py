#!/usr/bin/env python3
"""The Python client on a running stack: submits a job, follows it from its first event, drops the connection and replays the log from its
middle, reads the report; lists, plans, cancels; calls by reflection; failures as exceptions."""

import os
import subprocess
import sys
import time

from python_side import need

need(("zmq", "google.protobuf"), "tools/install_deps.sh --checks installs them", must_in_ci=True)

from stack import CORPUS, MODEL, SOURCE, Directory, Stack, assay, check, close, finish, wait_for  # noqa: E402

from assay import AssayError, Client, Status, pb, table_of  # noqa: E402  (on the path since need())
from assay.job import request_of  # noqa: E402

JOB = {
    "model": MODEL,
    "variants": ["int8"],
    "corpus": CORPUS,
    "chunks": 3,
    "name": "from Python",
    "thresholds": {"klMeanNats": 0.5},
}


def fails(what, status, call):
    try:
        call()
    except AssayError as error:
        check(error.status is status and error.sentence, f"{what}: {error}")
        return
    check(False, f"{what} fails")


def check_job(endpoint):
    with Client(endpoint) as client:
        check(client.is_serving(), "the coordinator serves")
        plan = client.plan(JOB)
        check(
            plan.chunks == 3 and [v.variant.label for v in plan.variants] == ["fp32", "int8"],
            "the plan has chunks and variants",
        )
        job_id = client.submit(JOB)
        events = list(client.events(job_id, 0))
    sequences = [event.sequence for event in events]
    check(len(events) >= 3 and sequences == sorted(set(sequences)), f"the events come in order: {sequences}")
    check(events[0].sequence == 1 and events[-1].state == pb.JOB_STATE_COMPLETED, "from the first to the last")
    middle = sequences[len(sequences) // 2]
    with Client(endpoint) as client:
        replayed = [event.sequence for event in client.events(job_id, middle)]
        job = client.wait(job_id)
        report = client.report(job_id)
        kept = client.jobs()
    check(
        replayed[0] == middle and replayed[-1] == sequences[-1] and set(replayed) <= set(sequences),
        f"a new connection replays from {middle}: {replayed}",
    )
    check(job.state == pb.JOB_STATE_COMPLETED and kept[0].job_id == job.job_id, "the job is kept")
    reference, variant = report["results"]
    check(
        report["job_id"] == job_id and report["chunks"] == 3 and report["verdict"] in ("PASS", "FAIL", "INCONCLUSIVE"),
        "the report",
    )
    check(
        variant["kl_nats"]["mean"] > 0 and variant["numerics_id"] == reference["numerics_id"],
        "has figures and numerics",
    )
    increase = variant["perplexity"]["value"] / reference["perplexity"]["value"] * 100 - 100
    check(close(variant["perplexity_increase_percent"]["value"], increase, 1e-9), "that agree with one another")
    check(
        [row["threshold"] for row in variant["criteria"] if row["name"] == "kl_mean_nats"] == [0.5],
        "thresholds are the job's",
    )
    table = table_of(report)
    check("int8" in table and variant["verdict"] in table, "a table for the terminal")
    print(table)


def check_calls(endpoint, data):
    with Client(endpoint) as client:
        kinds = {service.registration.kind for service in client.workers()}
        check({pb.SERVICE_KIND_QUANTIZER, pb.SERVICE_KIND_EVALUATOR} <= kinds, "workers() lists the services")
        jobs = client.invoke("assay.v1.Coordinator/ListJobs")["jobs"]
        check(jobs[0]["request"]["name"] == "from Python", "a call by name, with the server's own schemas")
        watch = client.invoke("assay.v1.Health/Watch", {"service": "assay.v1.Work"})
        check(next(watch) == {"status": "SERVING_STATUS_SERVING"}, "a stream by name")
        watch.close()
        evaluator = next(
            s.registration.endpoint for s in client.workers() if s.registration.kind == pb.SERVICE_KIND_EVALUATOR
        )
        check(int(client.invoke("assay.v1.Cache/Stat", endpoint=evaluator)["records"]) >= 6, "a call to another server")
        fails("a job that is not there", Status.NOT_FOUND, lambda: client.job("00" * 16))
        fails("an id that is none", Status.INVALID_ARGUMENT, lambda: client.job("abc"))
        fails("a method that is not there", Status.UNIMPLEMENTED, lambda: client.invoke("assay.v1.Coordinator/Nothing"))
        fails("a field that is not there", Status.INVALID_ARGUMENT, lambda: client.submit({**JOB, "treshold": 1}))
        request, corpus = request_of({**JOB, "chunks": 1})
        request.request_id = os.urandom(16)
        method = "assay.v1.Coordinator/SubmitJob"
        ids = [client._channel.call(method, request, attachments=[corpus]).message.job_id.hex() for _ in range(2)]
        check(ids[0] == ids[1], "a submission that is made again gives the job that there is")
        client.wait(ids[0])
        again = client._channel.call(method, request, attachments=[corpus]).message.job_id.hex()
        check(again == ids[0], "when it is over, too")
        request.request_id = os.urandom(16)
        other = client._channel.call(method, request, attachments=[corpus]).message.job_id.hex()
        check(other != ids[0], "with another id it is another job")
        client.wait(other)
        request.request_id = b"short"
        fails("an id of another size", Status.INVALID_ARGUMENT, lambda: client._channel.call(method, request, attachments=[corpus]))
        fails("a corpus that is not there", Status.NOT_FOUND, lambda: client.submit({**JOB, "corpus": f"{data}/none"}))
        fails("an unknown scheme", Status.INVALID_ARGUMENT, lambda: client.submit({**JOB, "variants": ["int7"]}))
        fails(
            "a bad parameter", Status.INVALID_ARGUMENT, lambda: client.submit({**JOB, "variants": ["int4:group_size"]})
        )
        fails(
            "a corpus without text",
            Status.INVALID_ARGUMENT,
            lambda: client.submit({**JOB, "corpus": b"", "corpus_name": "x"}),
        )
        text = client.submit({**JOB, "corpus": b"one two three " * 2000, "corpus_name": "three words", "chunks": 1})
        check(client.wait(text).request.corpus_name == "three words", "a corpus may be given as bytes")


def is_removed(client, job_id):
    """False while the job is just ending."""
    try:
        client.remove(job_id)
    except AssayError as error:
        check(error.status is Status.UNAVAILABLE, f"not yet: {error}")
        return False
    return True


def check_pause_at_once(endpoint):
    """The job's thread may just be starting, and is not to run what was paused."""
    with Client(endpoint) as client:
        jobs = []
        for _ in range(40):
            jobs.append(client.submit({**JOB, "chunks": 8, "variants": ["nf4"]}))
            client.pause(jobs[-1])
        time.sleep(0.5)
        check(all(client.job(job_id).state == pb.JOB_STATE_PAUSED for job_id in jobs), "jobs that are paused at once stay paused")
        for job_id in jobs:
            client.cancel(job_id)


def check_cancel(endpoint):
    with Client(endpoint) as client:
        job_id = client.submit({**JOB, "chunks": 0, "variants": ["nf4", "int4"]})
        client.pause(job_id)
        wait_for(lambda: client.job(job_id).state == pb.JOB_STATE_PAUSED, 60, "the job is paused")
        fails("removing a job that is under way", Status.FAILED_PRECONDITION, lambda: client.remove(job_id))
        client.resume(job_id)
        client.cancel(job_id)
        fails("a cancelled job", Status.CANCELLED, lambda: client.wait(job_id))
        wait_for(lambda: is_removed(client, job_id), 30, "the job is removed")
        fails("a removed job", Status.NOT_FOUND, lambda: client.job(job_id))
    fails(
        "a stack that is not there",
        Status.UNAVAILABLE,
        lambda: Client(endpoint.replace("coordinator", "nobody"))._channel.call("assay.v1.Health/Check"),
    )
    fails("a public address without keys", Status.PERMISSION_DENIED, lambda: Client("tcp://192.0.2.1:7421"))


def check_example(data):
    script = os.path.join(SOURCE, "examples", "submit_job.py")
    process = subprocess.run(
        [sys.executable, script, MODEL, CORPUS, "int8"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **os.environ,
            "ASSAY_DATA": data,
            "PYTHONPATH": os.path.join(SOURCE, "plugins", "python", "src"),
            "CHUNKS": "3",
        },
    )
    check(process.returncode in (0, 1, 2), f"examples/submit_job.py ends with a verdict: {process.stderr[-300:]}")
    check("perplexity" in process.stdout and "int8" in process.stdout, "and prints its table")


with Directory() as folder, Stack(folder) as stack:
    wait_for(lambda: stack.service("evaluator") and stack.service("quantizer"), 30, "the services are registered")
    coordinator = f"ipc://{folder}/run/coordinator.sock"
    check_job(coordinator)
    check_calls(coordinator, folder)
    check_example(folder)
    check_pause_at_once(coordinator)
    check_cancel(coordinator)
    check(len(assay("jobs", "--data", folder, "--json")) > 2, "the command line sees the same jobs")
finish()
