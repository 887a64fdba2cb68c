#!/usr/bin/env python3
"""What a running stack shows: metrics as docs/METRICS.md lists them, probes, a trace that covers every batch, assay top."""
import base64
import http.client
import json
import os
import re
import shutil
import socket
import subprocess

from stack import BIN, SOURCE, Directory, Stack, assay, check, finish, run_eval, wait_for

CHUNKS = 48
SECTIONS = {"Coordinator": "coordinator", "Inference": "inference", "Evaluator": "evaluator", "Quantizer": "quantizer"}


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


def get(url, page):
    connection = UnixConnection(url[len("unix:"):])
    connection.request("GET", page)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def documented():
    """{service or "all": {name: (type, labels)}} from the tables of docs/METRICS.md."""
    found, section = {}, None
    with open(os.path.join(SOURCE, "docs", "METRICS.md"), encoding="utf-8") as file:
        for line in file:
            if line.startswith("## "):
                title = line[3:].strip()
                section = "all" if title == "Every process" else SECTIONS.get(title)
            match = re.match(r"\| `([a-z_]+)` \| (counter|gauge|histogram) \| ([^|]+) \|", line)
            if match and section:
                labels = frozenset(re.findall(r"`(\w+)`", match.group(3)))
                found.setdefault(section, {})[match.group(1)] = (match.group(2), labels)
    return found


def exported(text):
    """{name: (type, labels seen)}; every sample must belong to a family that was announced."""
    types, labels = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            if name in types:
                check(False, f"{name} is announced once")
            types[name] = kind
            labels[name] = set()
        elif not line.startswith("#"):
            match = re.match(r"([a-z_]+)(?:\{(.*)\})? (\S+)$", line)
            if not match:
                check(False, f"a line of the text format: {line}")
            name = match.group(1)
            family = name if name in types else re.sub(r"_(bucket|sum|count)$", "", name)
            if family not in types:
                check(False, f"{name} belongs to an announced family")
            labels[family] |= {label for label in re.findall(r'(\w+)="', match.group(2) or "") if label != "le"}
            float(match.group(3))
    return {name: (types[name], labels[name]) for name in types}


def samples(text, name):
    """{labels as written: value}"""
    return {m.group(1) or "": float(m.group(2)) for m in re.finditer(rf"^{name}(\{{.*\}})? (\S+)$", text, re.MULTILINE)}


def check_metrics(pages):
    listed = documented()
    seen = set()
    for service, text in pages.items():
        kind = service.split()[0]
        want = {**listed["all"], **listed[kind]}
        found = exported(text)
        seen |= set(found)
        check(set(found) == set(want), f"{service} exports what the document lists, both ways: {sorted(set(found) ^ set(want))}")
        for name, (metric_type, labels) in found.items():
            if metric_type != want[name][0] or not (labels <= want[name][1]):
                check(False, f"{service}: {name} is a {want[name][0]} with {sorted(want[name][1])}, found {metric_type} {sorted(labels)}")
        if shutil.which("promtool"):
            verdict = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, timeout=60)
            check(verdict.returncode == 0, f"promtool accepts the metrics of {service}: {verdict.stderr or verdict.stdout}")
    check(seen == {name for section in listed.values() for name in section}, "every metric of the document is exported by some service")
    if not shutil.which("promtool"):
        check(os.environ.get("CI") != "true", "promtool is installed (tools/install_deps.sh --checks)")
        print("SKIPPED: promtool is missing: 1 kind of check")


def check_figures(pages):
    coordinator = pages["coordinator"]
    for precision in ("fp32", "int8"):
        ran = samples(coordinator, "assay_chunks_run_total")[f'{{precision="{precision}"}}']
        own = samples(pages[f"inference {precision}"], "assay_worker_chunks_total")[""]
        check(ran == own == CHUNKS, f"{precision}: {CHUNKS} chunks ran, by the coordinator's count {ran} and the worker's {own}")
        sent = samples(pages[f"inference {precision}"], "assay_worker_records_sent_total")[""]
        check(sent == CHUNKS, f"{precision}: {CHUNKS} records were acknowledged, found {sent}")
    check(samples(coordinator, "assay_record_lookups_total") == {'{outcome="hit"}': 0, '{outcome="miss"}': 2 * CHUNKS},
          "all records were missing")
    check(samples(coordinator, "assay_jobs_ended_total") == {'{state="completed"}': 1}, "one job completed")
    granted = samples(coordinator, "assay_leases_granted_total")[""]
    ended = sum(samples(coordinator, "assay_leases_ended_total").values())
    check(samples(coordinator, "assay_chunks_retried_total")[""] == 0, "no chunk came back")
    check(granted == ended > 0, f"all {granted} leases ended, found {ended}")
    check(samples(pages["evaluator"], "assay_scored_chunks_total")[""] == CHUNKS, "all chunks were scored")
    put = samples(pages["evaluator"], "assay_rpc_received_bytes_total")['{side="server",method="Records/Put"}']
    sent = sum(samples(pages[f"inference {p}"], "assay_rpc_sent_bytes_total")['{side="client",method="Records/Put"}'] for p in ("fp32", "int8"))
    check(put == sent > 1e6, f"what workers sent as records arrived: {sent} and {put} bytes")
    check(samples(pages["quantizer"], "assay_artifacts_total")['{outcome="made"}'] == 2, "two artifacts were made")


def check_event(event):
    for key, kind in (("name", str), ("ph", str), ("pid", int), ("tid", int)):
        if not isinstance(event.get(key), kind):
            check(False, f"an event has a {key}: {event}")
    if event["ph"] == "M":
        return isinstance(event["args"]["name"], str)
    if event["ph"] == "X" and not (isinstance(event["dur"], int) and event["dur"] >= 0):
        check(False, f"a complete event has a duration: {event}")
    if event["ph"] in "be" and not isinstance(event["id"], str):
        check(False, f"an asynchronous event has an id: {event}")
    return isinstance(event["ts"], int) and event["ts"] >= 0 and isinstance(event["cat"], str)


def check_nesting(events):
    """On one thread, spans lie within each other or apart."""
    threads = {}
    for event in events:
        if event["ph"] == "X":
            threads.setdefault((event["pid"], event["tid"]), []).append(event)
    for spans in threads.values():
        spans.sort(key=lambda e: (e["ts"], -e["dur"]))
        open_ends = []
        for span in spans:
            while open_ends and open_ends[-1] <= span["ts"]:
                open_ends.pop()
            end = span["ts"] + span["dur"]
            if open_ends and end > open_ends[-1]:
                check(False, f"a span lies within the one that is open on its thread: {span}")
            open_ends.append(end)
    check(len(threads) >= 6, f"job, quantizer, two workers with two threads each, scoring: {len(threads)} tracks")


def within(inner, outer):
    return inner["ts"] >= outer["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]


def check_trace(path, job_id):
    with open(path, encoding="utf-8") as file:
        trace = json.load(file)
    events = trace["traceEvents"]
    check(trace["otherData"]["job"] == job_id and trace["otherData"]["missing"] == [], "the trace is the job's, and nobody is missing")
    check(events and all(check_event(event) for event in events), f"{len(events)} events have the shape of the format")
    begins = sorted(e["id"] for e in events if e["ph"] == "b")
    ends = sorted(e["id"] for e in events if e["ph"] == "e")
    check(begins and begins == ends and len(set(begins)) == len(begins), f"{len(begins)} asynchronous events begin and end once")
    check_nesting(events)
    named = [e for e in events if e["ph"] == "X"]
    for precision in ("fp32", "int8"):
        forwards = [e for e in named if e["name"] == "forward" and e["args"]["precision"] == precision]
        covered = sum(e["args"]["chunks"] for e in forwards)
        check(covered == CHUNKS, f"{precision}: the forward spans cover {CHUNKS} chunks, found {covered}")
        leases = [e for e in named if e["name"] == "lease" and e["args"]["precision"] == precision]
        check(all(any(within(f, l) and f["tid"] == l["tid"] and f["pid"] == l["pid"] for l in leases) for f in forwards),
              f"{precision}: every forward pass lies in a lease")
        check(sum(l["args"]["chunks"] for l in leases) == CHUNKS, f"{precision}: the leases are of {CHUNKS} chunks")
        sends = [e for e in named if e["name"] == "send" and e["pid"] == forwards[0]["pid"]]
        puts = [e for e in named if e["name"] == "Records/Put" and e["pid"] == forwards[0]["pid"]]
        check(len(sends) == len(forwards) and sum(s["args"]["records"] for s in sends) == CHUNKS, f"{precision}: every batch was sent")
        check(len(puts) >= len(sends) and all(any(within(p, s) for s in sends) for p in puts), f"{precision}: every Put lies in a send")
    jobs = [e for e in named if e["name"] == "job"]
    check(len(jobs) == 1 and jobs[0]["args"]["chunks"] == CHUNKS, "the job is one span")
    slack_us = 5000  # between two processes' readings of their clocks
    check(all(e["ts"] >= jobs[0]["ts"] - slack_us and e["ts"] + e["dur"] <= jobs[0]["ts"] + jobs[0]["dur"] + slack_us
              for e in named if e["name"] in ("forward", "quantize", "score", "plan")), "on one clock all work lies within the job")
    batches = [e for e in named if e["name"] == "score.batch"]
    check(sum(e["args"]["chunks"] for e in batches) == CHUNKS, "the scoring spans cover every chunk")
    clients = [e for e in named if e["cat"] == "rpc.client" and e["name"] == "Records/Put"]
    servers = [e for e in events if e["ph"] == "b" and e["name"] == "Records/Put"]
    check(len(clients) == len(servers), "each Put was seen at both sides under the job's trace id")


def check_top(data):
    def looked():
        """A busy machine may hold reports up for more than the time between the two looks."""
        found = json.loads(assay("top", "--once", "--json", "--data", data))
        return found if all(s["cpu_percent"] is not None for s in found["services"]) else None

    status = wait_for(looked, 30, "every process has reported between two looks of top")
    kinds = sorted(service["kind"] for service in status["services"])
    check(kinds == ["coordinator", "evaluator", "inference", "inference", "quantizer"], f"top lists all processes: {kinds}")
    check(all(s["cpu_percent"] >= 0 and s["counters"]["rss_bytes"] > 0 for s in status["services"]), "each has its CPU and memory")
    check([job["state"] for job in status["jobs"]] == ["completed"], "the job that ended is listed")
    check(status["jobs"][0]["phases"] and all(p["done"] == p["total"] for p in status["jobs"][0]["phases"]), "with its phases done")
    text = assay("top", "--once", "--data", data)
    check("\x1b" not in text and "coordinator" in text and "queue:" in text, "as text without a terminal there are no escapes")


def probe(service, *args):
    return subprocess.run([os.path.join(BIN, f"assay-{service}"), "--health", *args], capture_output=True, text=True, timeout=30)


def check_probes(stack, data):
    for service in stack.services():
        done = probe(service["kind"], "--endpoint", service["endpoint"])
        check(done.returncode == 0 and done.stderr == "", f"--health of {service['kind']} passes: {done.stderr}")
    check(probe("coordinator", "--data", data).returncode == 0, "the coordinator's probe finds its own socket")
    gone = probe("evaluator", "--endpoint", f"ipc://{data}/run/nobody.sock")
    check(gone.returncode == 1 and "nobody.sock" in gone.stderr, "a probe of nobody fails and says whom it asked")
    check(probe("inference").returncode == 3, "a probe that is told nobody is a usage error")


def check_eval_trace():
    """A command that starts a stack of its own writes the trace before the stack goes."""
    with Directory() as data, Directory() as out:
        path = os.path.join(out, "trace.json")
        run_eval(data, out, "--reference", "fp32", "--variants", "int8", "--chunks", str(CHUNKS), "--trace", path)
        with open(path, encoding="utf-8") as file:
            job_id = json.load(file)["otherData"]["job"]
        check_trace(path, job_id)


def main():
    with Directory() as data, Directory() as out:
        with Stack(data, "--http", "unix") as stack:
            report = run_eval(data, out, "--reference", "fp32", "--variants", "int8", "--chunks", str(CHUNKS))
            check(report["verdict"] in ("PASS", "FAIL", "INCONCLUSIVE"), "the job ends")
            services = stack.services()
            check(all(service["http"].startswith("unix:") for service in services), "assay workers tells where the pages are")
            ran = lambda: all(s["counters"]["chunksRun"] >= CHUNKS for s in stack.services() if s["kind"] == "inference")
            wait_for(ran, 30, "the workers' last reports have come")
            coordinator = next(s["http"] for s in services if s["kind"] == "coordinator")
            wait_for(lambda: samples(get(coordinator, "/metrics")[1], "assay_leases_open")[""] == 0, 30, "the last lease has ended")
            pages = {}
            for service in services:
                name = service["kind"] + (" " + service["precision"] if service["precision"] else "")
                for page in ("/healthz", "/readyz"):
                    check(get(service["http"], page) == (200, "ok\n"), f"{page} of {name} says ok")
                pages[name] = get(service["http"], "/metrics")[1]
            check_metrics(pages)
            check_figures(pages)
            job_id = base64.b64decode(json.loads(assay("jobs", "--data", data, "--json"))["jobs"][0]["jobId"]).hex()
            path = os.path.join(out, "trace.json")
            assay("trace", job_id[:8], "-o", path, "--data", data)
            check_trace(path, job_id)
            check(json.loads(assay("trace", "last", "--data", data))["otherData"]["job"] == job_id, "without -o it goes to stdout")
            check(assay("trace", "f" * 32, "--data", data, code=None).returncode == 4, "a job that nobody knows is bad input")
            check_top(data)
            check_probes(stack, data)
        check(not any(name.endswith("-http.sock") for name in os.listdir(os.path.join(data, "run"))), "no socket of a page is left")
    check_eval_trace()
    finish()


main()
