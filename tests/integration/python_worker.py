#!/usr/bin/env python3
"""The Python worker on a running stack, with a toy for an engine: leases, records of f32 and f16, its own numerics id, failures, draining,
kill -9 of the worker and of those it talks to."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

from python_side import need

need(("zmq", "google.protobuf"), "tools/install_deps.sh --checks installs them", must_in_ci=True)

from stack import BIN, CORPUS, MODEL, Directory, Stack, assay, check, finish, wait_for  # noqa: E402

from assay import AssayError, Client, Status, pb, read_public_key, read_secret_key, with_server_key  # noqa: E402  (on the path since need())
from assay.worker.artifacts import find_artifact  # noqa: E402
from assay.worker.lease import Variant  # noqa: E402

TOY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "toy_worker.py")
JOB = {"model": MODEL, "variants": ["int8"], "corpus": CORPUS, "chunks": 6}


class Toy:
    """A toy worker as a process."""

    count = 0

    def __init__(self, data, precision, *modes, coordinator=None, key=None):
        Toy.count += 1
        self.endpoint = f"ipc://{data}/run/toy-{Toy.count}.sock"
        self.log_path = os.path.join(data, f"toy-{Toy.count}.log")
        with open(self.log_path, "wb") as log:
            coordinator = coordinator or f"ipc://{data}/run/coordinator.sock"
            self.process = subprocess.Popen(
                [sys.executable, TOY, coordinator, precision, self.endpoint, *modes],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **({"TOY_KEY": key} if key else {})},
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop(signal.SIGKILL)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(20)

    def log(self):
        with open(self.log_path, encoding="utf-8") as file:
            return file.read()


def counted(client, endpoint):
    for service in client.workers():
        if service.registration.endpoint == endpoint:
            return service.counters
    return pb.ServiceCounters()


def check_result(job, what):
    labels = [(result.variant.label, result.score.numerics_id) for result in job.results]
    check(labels == [("fp32", "toy-1"), ("int8", "toy-1")], f"{what}: both sides have the worker's numerics id")
    kl = job.results[1].score.kl_nats
    check(
        abs(kl.mean) < 1e-9 and job.results[0].score.perplexity.value > 1,
        f"{what}: one formula on both sides has no divergence",
    )


def check_plain(client, data):
    with Toy(data, "fp32") as reference, Toy(data, "int8") as variant:
        job = client.wait(client.submit(JOB))
        check_result(job, "f32")
        check(
            [result.chunks_run for result in job.results] == [6, 6]
            and all(result.compute_us for result in job.results),
            "each chunk ran once on each side",
        )
        check(
            client.invoke("assay.v1.Health/Check", endpoint=reference.endpoint) == {"status": "SERVING_STATUS_SERVING"},
            "the worker serves Health",
        )
        check(
            "assay.v1.Reflection"
            in client.invoke("assay.v1.Reflection/ListServices", endpoint=variant.endpoint)["names"],
            "and Reflection",
        )
        wait_for(lambda: counted(client, reference.endpoint).chunks_run == 6, 5, "heartbeats carry what it did")
        again = client.wait(client.submit(JOB))
        check(
            [result.chunks_cached for result in again.results] == [6, 6], "the records are kept under its numerics id"
        )
        half = client.wait(client.submit({**JOB, "recordDtype": "DTYPE_F16", "chunks": 40}))
        check_result(half, "f16")
        score = half.results[1].score
        check(
            score.record_dtype == pb.DTYPE_F16 and score.record_kl_error_n > 0, "chunks are measured for what f16 costs"
        )
        check(reference.stop() == 0 and variant.stop() == 0, "SIGTERM ends both well")


def check_fetch(client, data):
    """An artifact whose directory is not visible is fetched from the quantizer, whole."""
    job = client.wait(client.submit(JOB))
    services = client.workers()
    quantizer = next(s for s in services if s.registration.kind == pb.SERVICE_KIND_QUANTIZER).registration.endpoint
    for result in job.results:
        there, label = result.variant.artifact_dir, result.variant.label
        variant = Variant(result.variant.variant_id, label, "", label, "/nowhere", quantizer)
        here = find_artifact(variant, os.path.join(data, "own"), None, lambda: False)
        check(sorted(os.listdir(here)) == sorted(os.listdir(there)), f"{label}: all files of the artifact come")
        for name in os.listdir(here):
            with open(os.path.join(here, name), "rb") as found, open(os.path.join(there, name), "rb") as wanted:
                check(found.read() == wanted.read(), f"{name} has the same bytes")
        check(find_artifact(variant, os.path.join(data, "own"), None, lambda: True) == here, "a copy that is there is used")
    left = [name for name in os.listdir(os.path.join(data, "own")) if name.startswith(".")]
    check(not left, "nothing half-made is left")


def text(part):
    """A part of the corpus that no other check runs."""
    with open(CORPUS, "rb") as file:
        file.seek(part * 75_000 + 1)
        return file.read(75_000)


def fails(client, data, mode, status, sentence):
    with Toy(data, "fp32", mode), Toy(data, "int8", mode):
        try:
            client.wait(client.submit({**JOB, "corpus": text(3)}))
        except AssayError as error:
            check(
                error.status is status and sentence in error.sentence,
                f"{mode}: the job ends with the worker's sentence: {error}",
            )
            return
    check(False, f"{mode}: the job fails")


def check_drain(client, data):
    """A worker that is told to stop gives back what it has not begun; another one goes on."""
    corpus = text(1)
    job_id = None
    with Toy(data, "int8"), Toy(data, "fp32", "slow") as first:
        job_id = client.submit({**JOB, "corpus": corpus, "chunks": 12})
        wait_for(lambda: "run 3 begins" in first.log(), 15, "the first worker is at the first half of its second lease")
        check(first.stop() == 0, "it ends well")
        check(
            "UNAVAILABLE" in first.log() and "shutting down" in first.log(), "and has given the rest of its lease back"
        )
        with Toy(data, "fp32") as second:
            job = client.wait(job_id)
            check_result(job, "drained")
            check(0 < job.results[0].chunks_run <= 12 and second.process.poll() is None, "the other one did the rest")


def check_kills(client, data, stack):
    corpus = text(2)
    with Toy(data, "int8"), Toy(data, "fp32", "slow") as first, Toy(data, "fp32", "slow") as second:
        job_id = client.submit({**JOB, "corpus": corpus, "chunks": 24})
        wait_for(lambda: counted(client, first.endpoint).chunks_run >= 2, 20, "the first worker is at it")
        first.stop(signal.SIGKILL)
        os.kill(stack.service("evaluator")["pid"], signal.SIGKILL)
        wait_for(lambda: counted(client, second.endpoint).chunks_run >= 6, 20, "the second worker goes on")
        coordinator = subprocess.run(
            ["pgrep", "-f", f"assay-coordinator --data {data}"], capture_output=True, text=True, check=False
        )
        os.kill(int(coordinator.stdout.split()[0]), signal.SIGKILL)
        job = client.wait(job_id)
        check_result(job, "after kill -9 of a worker, the evaluator and the coordinator")
        check(second.process.poll() is None, "the worker outlived them")


def new_key(data, role, name):
    """The secret file of a key that is allowed."""
    made = json.loads(assay("keygen", "--role", role, "--name", name, "-o", os.path.join(data, "made"), "--json"))
    shutil.copy(made["publicFile"], os.path.join(data, "keys", "allowed"))
    return made["secretFile"]


def check_curve():
    """Workers and a user over CURVE, each with the rights of its key."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        public = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with Directory() as data, Stack(data, "--public", public, "--external", "all"):
        endpoint = with_server_key(public, read_public_key(os.path.join(data, "keys", "server.pub")))
        worker_key, client_key = new_key(data, "worker", "w1"), new_key(data, "client", "anna")
        time.sleep(1.5)  # allowed keys are looked at every second
        with (
            Client(endpoint, key=read_secret_key(client_key)) as client,
            Toy(data, "fp32", coordinator=endpoint, key=worker_key),
            Toy(data, "int8", coordinator=endpoint, key=worker_key),
        ):
            # Over tcp a model must lie below --models: the owner submits, the others look on.
            with Client(data=data) as owner:
                job_id = owner.submit(JOB)
            check_result(client.wait(job_id), "over CURVE")
            try:
                client.invoke("assay.v1.Work/Lease", {"chunksMax": 1})
                check(False, "a client's key may not lease")
            except AssayError as error:
                check(error.status is Status.PERMISSION_DENIED, f"a client's key may not lease: {error}")


def check_shards():
    """Two evaluators, and a third one that comes in the middle of a job: each record goes to the owner of its chunk."""
    with Directory() as data, Stack(data, "--external", "all", "--evaluators", "2"), Client(data=data) as client:
        with Toy(data, "int8"), Toy(data, "fp32", "slow") as worker:
            job_id = client.submit({**JOB, "corpus": text(1), "chunks": 20})
            wait_for(lambda: "run 3 begins" in worker.log(), 20, "the worker is at it")
            with open(os.path.join(data, "third.log"), "wb") as log:
                third = subprocess.Popen(
                    [os.path.join(BIN, "assay-evaluator"), "--data", data, "--store", os.path.join(data, "third")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            try:
                check_result(client.wait(job_id), "three evaluators")
                shares = [
                    service for service in client.workers() if service.registration.kind == pb.SERVICE_KIND_EVALUATOR
                ]
                check(len(shares) == 3, "three evaluators are registered")
                held = [
                    int(client.invoke("assay.v1.Cache/Stat", endpoint=share.registration.endpoint)["records"])
                    for share in shares
                ]
                check(sum(held) >= 40 and all(held), f"each has a share; what moved may still be where it was: {held}")
            finally:
                third.kill()
                third.wait()


with Directory() as folder, Stack(folder, "--external", "all") as up, Client(data=folder) as user:
    wait_for(lambda: up.service("evaluator") and up.service("quantizer"), 30, "the services are registered")
    check_plain(user, folder)
    fails(user, folder, "refuses", Status.FAILED_PRECONDITION, "the toy does not like")
    fails(user, folder, "nan", Status.INVALID_ARGUMENT, "not finite")
    check_fetch(user, folder)
    wait_for(lambda: not up.service("inference"), 10, "the former workers are known to be gone: they count in shares")
    check_drain(user, folder)
    check_kills(user, folder, up)
    check(
        not [s for s in up.services() if s["kind"] == "inference" and "toy" not in s["endpoint"]],
        "no other worker was started",
    )
check_shards()
check_curve()
finish()
