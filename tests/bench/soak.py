#!/usr/bin/env python3
"""Memory of a stack that has jobs all the time: submitted, watched, cancelled, removed, the cache pruned, a worker killed now and then.

Prints for each process that lived through the run its resident memory at the beginning (after a tenth of the time), at the end, at most,
and its slope; "anonymous" is without mapped files, whose pages are the page cache's. Asserts nothing but that jobs end as they should.

    python3 tests/bench/soak.py --bin build/bin --minutes 30 [--seed 1] [--json]

Only the standard library is used."""
import argparse
import base64
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
SCHEMES = ("int8", "nf4", "int4", "bf16:compute=f32")
KEEP_JOBS = 20
SAMPLE_S = 5
KILL_S = 20  # between two kills: the supervisor gives up at the fifth death within a minute
VERDICTS = (0, 1, 2)
CANCELLED = (10, 11)


def memory_kib(pid):
    """(resident, anonymous) of a process in KiB; None when it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["VmRSS"].split()[0]), int(lines["RssAnon"].split()[0])
    except (OSError, KeyError):
        return None


class Samples:
    """Memory of processes by pid, from the moment that each is first seen."""

    def __init__(self, processes):
        self.processes = processes
        self.begin = time.monotonic()
        self.next = self.begin
        self.rows = {}   # pid: [(seconds, resident, anonymous)]
        self.names = {}  # pid: name

    def take(self):
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + SAMPLE_S
        for pid, kind, argv in self.processes():
            memory = memory_kib(pid)
            if memory:
                precision = argv[argv.index("--precision") + 1] if "--precision" in argv else ""
                self.names[pid] = " ".join(filter(None, (kind, precision)))
                self.rows.setdefault(pid, []).append((now - self.begin, *memory))

    def lines(self, seconds):
        """A line for each process that was there for nine tenths of the time."""
        for pid, rows in sorted(self.rows.items(), key=lambda item: self.names[item[0]]):
            settled = [row for row in rows if row[0] >= seconds / 10]
            if rows[0][0] > seconds / 10 or rows[-1][0] < seconds * 0.9 or len(settled) < 3:
                continue
            line = {"process": self.names[pid], "pid": pid, "samples": len(settled)}
            for column, name in ((1, "resident"), (2, "anonymous")):
                values = [row[column] for row in settled]
                few = max(1, len(values) // 10)
                slope = statistics.linear_regression([row[0] for row in settled], values).slope
                line[name] = {"first_kib": statistics.median(values[:few]), "last_kib": statistics.median(values[-few:]),
                              "max_kib": max(values), "slope_kib_per_minute": round(slope * 60, 2)}
            yield line


class Soak:
    def __init__(self, seed, stack, data, out):
        self.random = random.Random(seed)
        self.killed = -KILL_S
        self.stack, self.data, self.out = stack, data, out
        self.counts = dict.fromkeys(("jobs", "cancelled", "watched", "workers killed", "pruned", "removed", "failed"), 0)

    def assay(self, *args):
        return subprocess.run([os.path.join(self.stack.BIN, "assay"), *args, "--data", self.data], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=300, check=False)

    def jobs(self):
        jobs = json.loads(self.assay("jobs", "--json").stdout or "{}").get("jobs", [])
        return [(base64.b64decode(job["jobId"]).hex(), job["state"].removeprefix("JOB_STATE_")) for job in jobs]

    def kill_worker(self, processes):
        """The worker of int8; those of the other schemes live on to be measured."""
        if time.monotonic() < self.killed + KILL_S:
            return
        self.killed = time.monotonic()
        for pid, _, argv in processes():
            if "--precision" in argv and argv[argv.index("--precision") + 1] == "int8":
                os.kill(pid, signal.SIGKILL)
                self.counts["workers killed"] += 1
                return

    def watch(self):
        running = [job for job, state in self.jobs() if state == "RUNNING"]
        if not running:
            return None
        self.counts["watched"] += 1
        return subprocess.Popen([os.path.join(self.stack.BIN, "assay"), "watch", running[0], "--data", self.data, "--json"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def tidy(self):
        over = [job for job, state in self.jobs() if state in ("COMPLETED", "FAILED", "CANCELLED")]
        for job in over[KEEP_JOBS:]:
            self.counts["removed"] += self.assay("rm", job).returncode == 0
        self.counts["pruned"] += self.assay("cache", "prune", "--all").returncode == 0

    def one(self, processes, samples):
        rng = self.random
        schemes = rng.sample(SCHEMES, rng.randint(1, 3))
        cancel_at = rng.random() * 1.5 if rng.random() < 0.3 else None
        kill_at = rng.random() if rng.random() < 0.05 else None
        watches = rng.random() < 0.3
        began = time.monotonic()
        client = self.stack.start_eval(self.data, self.out, "--variants", ",".join(schemes), "--chunks", str(rng.choice((4, 8, 16))))
        watcher, cancelled = None, False
        while client.poll() is None:
            samples.take()
            now = time.monotonic() - began
            if cancel_at is not None and now > cancel_at and not cancelled:
                client.send_signal(signal.SIGINT)
                cancelled = True
            if kill_at is not None and now > kill_at:
                self.kill_worker(processes)
                kill_at = None
            if watches and now > 0.2:
                watcher, watches = self.watch(), False
            time.sleep(0.05)
        text = "".join(client.communicate())
        if watcher:
            watcher.wait(120)
        self.counts["jobs"] += 1
        self.counts["cancelled"] += client.returncode in CANCELLED
        if client.returncode not in VERDICTS and not (cancelled and client.returncode in CANCELLED):
            self.counts["failed"] += 1
            print(f"a job ended with {client.returncode}: {text[-500:]}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="folder of the programs")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.environ.update(ASSAY_BIN=os.path.abspath(args.bin), ASSAY_SOURCE=str(HERE.parent.parent))
    sys.path.insert(0, str(HERE.parent / "integration"))
    import chaos_site  # noqa: E402 needs the environment
    import stack
    seconds = args.minutes * 60
    with stack.Directory() as data, stack.Directory() as out, stack.Stack(data):
        def processes():
            return [row for row in chaos_site.processes(data) if row[1] != "assay"]

        soak, samples = Soak(args.seed, stack, data, out), Samples(processes)
        turn = 0
        while time.monotonic() - samples.begin < seconds:
            soak.one(processes, samples)
            turn += 1
            if turn % 5 == 0:
                soak.tidy()
        rows = list(samples.lines(time.monotonic() - samples.begin))
    if args.json:
        print(json.dumps({"minutes": args.minutes, "counts": soak.counts, "processes": rows}))
    else:
        print(f"{args.minutes} minutes: " + ", ".join(f"{count} {what}" for what, count in soak.counts.items()))
        for row in rows:
            for name in ("resident", "anonymous"):
                m = row[name]
                print(f"{row['process']:20} {name:10} first {m['first_kib'] / 1024:8.2f} last {m['last_kib'] / 1024:8.2f} most "
                      f"{m['max_kib'] / 1024:8.2f} MiB, slope {m['slope_kib_per_minute']:8.2f} KiB a minute")
    sys.exit(1 if soak.counts["failed"] else 0)


if __name__ == "__main__":
    main()
