#!/usr/bin/env python3
"""`assay rpc` against the servers of a running stack, and a job from a file, seen by both."""
import base64
import glob
import json
import os
import re
import subprocess

from stack import BIN, SOURCE, Directory, Stack, assay, check, finish, report_of, wait_for

BAD_INPUT, DEADLINE = 4, 8
SERVED = {
    "coordinator": {"assay.v1.Coordinator", "assay.v1.Work"},
    "evaluator": {"assay.v1.Evaluator", "assay.v1.Records"},
    "quantizer": {"assay.v1.Quantizer"},
}


def rpc(data, target, *args, code=0):
    return assay("rpc", target, *args, "--data", data, code=code)


def check_reflection(data):
    for target, wanted in SERVED.items():
        names = set(rpc(data, target, "list").split())
        check(wanted | {"assay.v1.Health", "assay.v1.Reflection"} <= names, f"{target} lists {', '.join(sorted(names))}")
        check(names == set(json.loads(rpc(data, target, "list", "--json"))["names"]), f"{target} lists the same as JSON")
        described = rpc(data, target, "describe")
        check(all(f"service {name} {{" in described for name in names), f"{target}: everything listed is described")
    text = rpc(data, "coordinator", "describe", "assay.v1.Coordinator/WatchEvents")
    check("returns (stream assay.v1.Event);" in text and "enum assay.v1.JobState {" in text, "a method is described with its messages")
    for path in sorted(glob.glob(os.path.join(SOURCE, "proto", "*.proto"))):
        with open(path, encoding="utf-8") as file:
            for name in re.findall(r"^service (\w+)", file.read(), re.MULTILINE):
                check(rpc(data, "coordinator", "describe", f"assay.v1.{name}"), f"{name} of {os.path.basename(path)} is known")
    found = json.loads(rpc(data, "coordinator", "assay.v1.Reflection/FileDescriptorSet"))
    check(b"control.proto" in base64.b64decode(found["fileDescriptorSet"]), "the descriptor set is there")


def check_calls(data):
    for target in SERVED:
        found = json.loads(rpc(data, target, "assay.v1.Health/Check", "{}"))
        check(found == {"status": "SERVING_STATUS_SERVING"}, f"{target} serves")
    services = json.loads(rpc(data, "coordinator", "assay.v1.Coordinator/ListServices", "{}"))["services"]
    kinds = {service["registration"]["kind"] for service in services}
    check({"SERVICE_KIND_QUANTIZER", "SERVICE_KIND_EVALUATOR"} <= kinds, "ListServices has the services by kind")
    check(all(isinstance(service["serviceId"], str) for service in services), "64-bit integers are strings")
    process = subprocess.run([os.path.join(BIN, "assay"), "rpc", "evaluator", "assay.v1.Health/Check", "-", "--data", data],
                             input='{"service": "assay.v1.Records"}', capture_output=True, text=True, timeout=60)
    check(json.loads(process.stdout)["status"] == "SERVING_STATUS_SERVING", "a request may come from stdin")
    rpc(data, "evaluator", "assay.v1.Coordinator/ListJobs", "{}", code=BAD_INPUT)
    rpc(data, "inference:nf4", "list", code=BAD_INPUT)
    rpc(data, "coordinator", "assay.v1.Coordinator/GetJob", '{"jobId": "AAAAAAAAAAAAAAAAAAAAAA=="}', code=BAD_INPUT)
    lines = rpc(data, "coordinator", "assay.v1.Health/Watch", "{}", "--deadline-ms", "700", code=None).stdout.splitlines()
    check(lines == ['{"status":"SERVING_STATUS_SERVING"}'], "a stream is printed line by line")
    rpc(data, "coordinator", "assay.v1.Health/Watch", "{}", "--deadline-ms", "300", code=DEADLINE)


def check_job(data, out):
    process = assay("eval", "--job", os.path.join(SOURCE, "examples", "job.yaml"), "--data", data, "--out", out, "--chunks", "2", code=None)
    check(process.returncode in (0, 1, 2), f"the example job ends with a verdict, found {process.returncode}: {process.stderr[-300:]}")
    check(len(report_of(out)["results"]) == 2, "it has the reference and the variant of the file")
    jobs = json.loads(rpc(data, "coordinator", "assay.v1.Coordinator/ListJobs", "{}"))["jobs"]
    check(len(jobs) == 1 and jobs[0]["state"] == "JOB_STATE_COMPLETED", "the coordinator lists it")
    request = jobs[0]["request"]
    check(request["chunksMax"] == "2" and request["name"].startswith("int8 against"), "options override the file, and the rest is the file's")
    wanted = json.dumps({"job_id": jobs[0]["jobId"]})
    job = json.loads(rpc(data, "coordinator", "assay.v1.Coordinator/GetJob", wanted))
    check(len(job["results"]) == 2 and job["results"][1]["score"]["klNats"]["mean"] > 0, "GetJob has the figures")
    events = rpc(data, "coordinator", "assay.v1.Coordinator/WatchEvents", wanted, "--deadline-ms", "5000", code=None).stdout
    states = [json.loads(line).get("state") for line in events.splitlines()]
    check(states and states[-1] == "JOB_STATE_COMPLETED", "WatchEvents ends with the last state")


def check_up_and_down(data):
    process = subprocess.Popen([os.path.join(BIN, "assay"), "up", "--data", data, "--json"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    ready = json.loads(process.stdout.readline())
    check(ready == {"endpoint": f"ipc://{data}/run/coordinator.sock", "pid": process.pid, "data": data}, "up says as JSON where it listens")
    stopped = json.loads(assay("down", "--data", data, "--json"))
    check(stopped == {"pid": process.pid, "data": data}, "down says as JSON what it stopped")
    check(process.wait(30) == 0, "up ends well")


with Directory() as data, Directory() as out, Stack(data) as stack:
    wait_for(lambda: stack.service("evaluator") and stack.service("quantizer"), 30, "the services are registered")
    check_reflection(data)
    check_calls(data)
    check_job(data, out)
with Directory() as data:
    check_up_and_down(data)
finish()
