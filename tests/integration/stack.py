"""What the integration tests share: a stack of real processes in a directory of its own. Standard library only."""
import array
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

BIN = os.environ["ASSAY_BIN"]
SOURCE = os.environ["ASSAY_SOURCE"]
MODEL = os.path.join(SOURCE, "models", "assay-tiny")
CORPUS = next(os.path.join(SOURCE, "data", "wikitext-2", name)
              for name in sorted(os.listdir(os.path.join(SOURCE, "data", "wikitext-2"))) if "test" in name)

checks = 0


def check(condition, what):
    """Counts a check; ends the test with the sentence when it does not hold (NaN does not)."""
    global checks
    checks += 1
    if not condition:
        print(f"FAILED: {what}", flush=True)
        sys.exit(1)
    print(f"ok: {what}", flush=True)


def finish():
    """A run in which nothing was checked is a failure."""
    print(f"{checks} checks held")
    sys.exit(0 if checks else 1)


def assay(*args, code=0, timeout=300):
    """Runs assay; returns stdout. The exit code must be `code` (None: any, and the process is returned)."""
    process = subprocess.run([os.path.join(BIN, "assay"), *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                             timeout=timeout)
    if code is None:
        return process
    if process.returncode != code:
        print(process.stdout, process.stderr, sep="\n")
        check(False, f"assay {' '.join(args)} ends with {code}, found {process.returncode}")
    return process.stdout


class Directory:
    """A temporary directory, removed at the end."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="assay-")
        return self.path

    def __exit__(self, *_):
        self.remove(self.path)

    @staticmethod
    def remove(path):
        shutil.rmtree(path, ignore_errors=True)


def flat(service):
    """A ServiceInfo of proto/control.proto with what it registered as, and numbers for the texts of 64-bit ones."""
    counters = {"chunksRun": 0, **{key: int(value) for key, value in service.get("counters", {}).items()}}
    registration = service.get("registration", {})
    kind = registration.get("kind", "coordinator").removeprefix("SERVICE_KIND_").lower()
    absent = dict.fromkeys(("precision", "endpoint", "http", "state"))
    return {**absent, **service, **registration, "kind": kind, "counters": counters}


class Stack:
    """`assay up` on a data directory."""

    def __init__(self, data, *args):
        self.data = data
        self.log = open(os.path.join(data, "up.log"), "ab")
        self.process = subprocess.Popen([os.path.join(BIN, "assay"), "up", "--data", data, *args], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)

    def __enter__(self):
        wait_for(self.is_ready, 30, "the stack is ready")
        return self

    def is_ready(self):
        """Before that, a death of a service ends the stack."""
        with open(os.path.join(self.data, "up.log"), encoding="utf-8", errors="replace") as file:
            return any(line.startswith("ready: ") and f"(process {self.process.pid}," in line for line in file)

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def services(self):
        reply = json.loads(assay("workers", "--data", self.data, "--json"))
        return [flat(service) for service in [reply["coordinator"], *reply.get("services", [])]]

    def service(self, kind, precision=None):
        for service in self.services():
            if service["kind"] == kind and precision in (None, service.get("precision")) and service["state"] != "silent":
                return service
        return None


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    check(False, f"{what}, within {seconds} s")
    return None


def coordinator_pid(data):
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    argv = file.read().split(b"\0")
            except OSError:
                continue
            if os.path.basename(argv[0]) == b"assay-coordinator" and data.encode() in argv:
                return int(name)
    return 0


def start_eval(data, out, *args):
    return subprocess.Popen([os.path.join(BIN, "assay"), "eval", MODEL, "--corpus", CORPUS, "--data", data, "--out", out, *args],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_eval(data, out, *args, timeout=300):
    """Runs a job to its end; the comprehensive report."""
    process = start_eval(data, out, *args)
    stdout, stderr = process.communicate(timeout=timeout)
    if process.returncode not in (0, 1, 2):
        print(stdout, stderr, sep="\n")
        check(False, f"assay eval {' '.join(args)} ends with a verdict, found exit code {process.returncode}")
    return report_of(out)


def report_of(out):
    with open(os.path.join(out, "comprehensive_evaluation_report.json"), encoding="utf-8") as file:
        return json.load(file)


def result_of(report, label, role="variant"):
    return next(r for r in report["results"] if r["variant"]["label"] == label and r["role"] == role)


def figures(report):
    """All figures of a report that depend on the inputs alone, not on time, place or what was cached; as text."""
    kept = []
    for result in report["results"]:
        metrics = {key: value for key, value in result["metrics"].items() if key != "size"}
        kept.append([result["variant"]["label"], result["role"], metrics, result.get("criteria"), result["verdict"]])
    return json.dumps(kept, sort_keys=True)


def read_safetensors(path, name):
    """(shape, flat array) of an F32 tensor."""
    with open(path, "rb") as file:
        header_bytes = struct.unpack("<Q", file.read(8))[0]
        entry = json.loads(file.read(header_bytes))[name]
        check(entry["dtype"] == "F32", f"{name} of {os.path.basename(path)} is F32")
        begin, end = entry["data_offsets"]
        file.seek(8 + header_bytes + begin)
        values = array.array("f")
        values.frombytes(file.read(end - begin))
    return entry["shape"], values


def log_softmax_f64(row):
    top = max(row)
    lse = top + math.log(math.fsum(math.exp(x - top) for x in row))
    return [x - lse for x in row]


def close(found, wanted, relative):
    return abs(found - wanted) <= relative * abs(wanted)
