#!/usr/bin/env python3
"""A small job under disturbances: whatever is killed, frozen, cut, delayed, sent twice, filled up or set wrong, its figures are those of the
undisturbed job, bit by bit. Round n of a seed has the same plan each time.

  chaos.py [--rounds N] [--first K] [--seed S] [--plan] [--keep DIR] [--go-on]

`--plan` prints plans and runs nothing. A round that fails leaves its directory, with its log, below --keep; with --go-on the rounds behind it
are run all the same."""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time

import stack
from chaos_site import Site, alive, processes
from stack import Directory, check, figures, finish, report_of, run_eval

JOBS = (
    ("--variants", "int8,nf4", "--chunks", "32"),
    ("--variants", "int8,nf4,int4", "--chunks", "24"),
    ("--variants", "int8,bf16:compute=f32", "--chunks", "16"),
    ("--variants", "int8,int4,nf4", "--chunks", "8"),
    ("--variants", "nf4,int8", "--chunks", "24", "--record-dtype", "f16"),
)
SERVICES = ("coordinator", "evaluator", "quantizer", "inference")
LINKED = ("coordinator", "evaluator", "quantizer")
PERIOD_S = 3.0     # disturbances begin within that time
ROUND_S = 150      # a job that has no verdict by then hangs
SETTLE_S = 60      # until records are where they belong
LEAVE_S = 15       # until workers whose supervisor was killed have ended, too
CRASHES = ("ABRT", "SEGV", "BUS", "FPE", "ILL")
KILLS_MAX = 3      # of one kind in a round: the supervisor gives up at the fifth death within a minute


def random_event(rng, site):
    """One disturbance that the site allows, as the method of Site and its arguments."""
    def kill():
        kind = rng.choice(SERVICES)
        which = rng.choice((0, 1, 2, "all")) if kind == "inference" else rng.randrange(3)
        name = rng.choice(("SIGKILL", "SIGKILL", "SIGKILL", "SIGTERM"))
        # An evaluator of several that is asked to end leaves the stack, and would not be started again.
        return {"what": "kill", "kind": kind, "which": which, "signal_name": "SIGKILL" if kind == "evaluator" else name}

    def freeze():
        return {"what": "freeze", "kind": rng.choice(SERVICES), "which": rng.choice((0, 1, "all")),
                "seconds": rng.choice((0.2, 1.0, 3.5, 6.0))}

    makers = [kill, kill, kill, freeze, freeze,
              lambda: {"what": "leave"}, lambda: {"what": "prune"}, lambda: {"what": "join"},
              lambda: {"what": "unjoin", "signal_name": rng.choice(("SIGKILL", "SIGTERM"))},
              lambda: {"what": rng.choice(("power", "supervisor"))}]
    if site["links"]:
        makers += [lambda: {"what": "cut", "kind": rng.choice(LINKED), "seconds": rng.choice((0.0, 0.5, 2.0, 6.0))},
                   lambda: {"what": "cut", "kind": rng.choice(LINKED), "seconds": rng.choice((0.0, 0.5, 2.0))},
                   lambda: {"what": "stall", "kind": rng.choice(LINKED), "seconds": rng.choice((0.5, 2.0, 6.5))},
                   lambda: {"what": "delay", "kind": rng.choice(LINKED), "milliseconds": rng.choice((5, 30, 100))},
                   lambda: {"what": "twice", "kind": rng.choice(LINKED), "share": rng.choice((0.05, 0.3, 1.0))},
                   lambda: {"what": "twice", "kind": rng.choice(LINKED), "share": rng.choice((0.05, 0.3))},
                   lambda: {"what": "strange", "kind": rng.choice(LINKED), "seed": rng.randrange(1 << 30)}]
    if site["far"]:
        makers += [lambda: {"what": "cable", "seconds": rng.choice((0.3, 2.0, 6.0))},
                   lambda: {"what": "garble", "share": rng.choice((0.02, 0.3)), "seconds": rng.choice((0.5, 2.0))},
                   lambda: {"what": "garble", "share": 0.1, "seconds": 2.0},
                   lambda: {"what": "cut", "kind": "far", "seconds": rng.choice((0.0, 0.5, 2.0, 6.0))}] * 2
    if site["disk"]:
        makers += [lambda: {"what": "full", "seconds": rng.choice((0.5, 2.0, 5.0))}] * 4
    if site["clock"]:
        makers += [lambda: {"what": "jump", "kind": rng.choice((*SERVICES, "all")),
                            "seconds": rng.choice((-1, 1)) * rng.choice((1, 60, 3600, 86400, 40000000))}] * 3
    return rng.choice(makers)()


def fits(events, event):
    """Whether the plan stays one that a stack is meant to survive: nobody is away for longer than it waits, or dies too often."""
    kills = sum(1 for e in events if e["what"] in ("kill", "power") and e.get("kind") in (event.get("kind"), None))
    once = event["what"] in ("power", "supervisor", "leave", "join", "unjoin", "prune") and any(e["what"] == event["what"] for e in events)
    long = event.get("seconds", 0) >= 3 and event["what"] != "jump"
    return not once and kills < KILLS_MAX and not (long and any(e.get("seconds", 0) >= 3 and e["what"] != "jump" for e in events))


def plan_of(seed, number):
    rng = random.Random(f"{seed}/{number}")
    site = {"evaluators": rng.choice((1, 1, 2, 3)), "links": rng.random() < 0.6, "clock": rng.random() < 0.3,
            "far": rng.choice(("fp32", "int8")) if rng.random() < 0.15 else None,
            "disk": rng.choice((None, None, None, None, "store", "data"))}
    job = rng.randrange(len(JOBS))
    wanted, events = rng.randint(1, 5), []
    while len(events) < wanted:
        event = random_event(rng, site)
        if fits(events, event):
            events.append({"at": round(rng.random() * PERIOD_S, 2), **event})
    return {"name": f"{seed}/{number}", "job": job, "site": site, "events": sorted(events, key=lambda e: e["at"])}


class Failure(Exception):
    pass


class Round:
    def __init__(self, path, plan, wanted):
        self.path, self.plan, self.wanted = path, plan, wanted
        self.began = time.monotonic()
        self.log = open(os.path.join(path, "round.log"), "w", encoding="utf-8")

    def tell(self, sentence):
        print(f"{time.monotonic() - self.began:7.2f} s  {sentence}", file=self.log, flush=True)

    def disturb(self, site, start):
        for event in self.plan["events"]:
            time.sleep(max(0.0, start + event["at"] - time.monotonic()))
            if site.client.poll() is not None:
                self.tell(f"the job is over before: {event}")
                return
            self.tell(site.disturb(event))

    def end(self, site):
        try:
            stdout, stderr = site.client.communicate(timeout=ROUND_S)
        except subprocess.TimeoutExpired as hang:
            site.stacks()
            raise Failure(f"the job has no verdict after {ROUND_S} s") from hang
        with open(os.path.join(self.path, "eval.txt"), "w", encoding="utf-8") as file:
            file.write(stdout + stderr)
        if site.client.returncode not in (0, 1, 2):
            raise Failure(f"the job ends with {site.client.returncode}: {stderr.strip().splitlines()[-1:]}")
        self.tell(f"the job ends with {site.client.returncode}")
        if site.links:
            self.tell(f"{site.links.repeated()} messages came twice, {site.links.spoiled()} pieces were spoiled")
        if figures(report_of(site.out_dir())) != self.wanted["figures"]:
            raise Failure("figures differ")
        self.settle(site)

    def settle(self, site):
        """Each record is in one place in the end. Those that went when they were scored need not come back."""
        def is_settled(found):
            return found == self.wanted["records"] or (site.may_lack and found is not None and found < self.wanted["records"])

        deadline = time.monotonic() + SETTLE_S
        while not is_settled(found := site.records()):
            if time.monotonic() > deadline:
                site.stacks()
                raise Failure(f"the stores have {found} records, wanted {self.wanted['records']}")
            time.sleep(0.2)
        self.tell(f"the stores have {found} records")

    def run(self):
        self.tell(json.dumps(self.plan))
        site = Site(self.path, self.plan, self.tell)
        try:
            with site:
                start = time.monotonic()
                site.start_job(JOBS[self.plan["job"]])
                self.disturb(site, start)
                self.end(site)
            crashes = [line for line in site.events() if any(f"signal {name}" in line for name in CRASHES)]
            if crashes:
                raise Failure(f"a process crashed: {crashes[0].strip()}")
            deadline = time.monotonic() + LEAVE_S
            while left := [row for row in processes(site.data) if alive(row[0])]:
                if time.monotonic() > deadline:
                    raise Failure(f"processes are left: {left}")
                time.sleep(0.1)
        finally:
            site.close()
            self.tell("end")
            self.log.close()


class Wanted:
    """What each job gives when nobody disturbs it; made when first asked for."""

    def __init__(self):
        self.known = {}

    def of(self, job):
        if job not in self.known:
            with Directory() as data, Directory() as out, stack.Stack(data):
                report = run_eval(data, out, *JOBS[job])
                stat = json.loads(stack.assay("cache", "stat", "--data", data, "--json"))
                self.known[job] = {"figures": figures(report), "records": sum(e["records"] for e in stat["evaluators"])}
        return self.known[job]


def run_round(plan, wanted, keep):
    """True when it held; else what there is to know is printed."""
    path = tempfile.mkdtemp(prefix="chaos-", dir=keep)
    began = time.monotonic()
    round_ = Round(path, plan, wanted)
    try:
        round_.run()
    except (Failure, SystemExit, Exception) as failure:  # pylint: disable=broad-except
        with open(os.path.join(path, "round.log"), encoding="utf-8") as file:
            print(file.read())
        print(f"FAILED: round {plan['name']}: {failure!r}; see {path}", flush=True)
        return False
    stack.Directory.remove(path)
    what = ", ".join(event["what"] for event in plan["events"])
    check(True, f"round {plan['name']} ({time.monotonic() - began:.1f} s): {what}")
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--keep", default=None)
    parser.add_argument("--go-on", action="store_true")
    args = parser.parse_args()
    wanted, failed = Wanted(), []
    for number in range(args.first, args.first + args.rounds):
        plan = plan_of(args.seed, number)
        if args.plan:
            print(json.dumps(plan))
        elif not run_round(plan, wanted.of(plan["job"]), args.keep):
            failed.append(number)
            if not args.go_on:
                break
    if failed:
        print(f"{len(failed)} rounds of seed {args.seed} failed: {failed}")
        sys.exit(1)
    if not args.plan:
        finish()


def in_own_mounts():
    """Disks to be filled are mounted where nobody else sees them, and are gone with this process."""
    if os.environ.get("CHAOS_MOUNTS") or "--plan" in sys.argv:
        return
    for options in (["-m"], ["-rm"]):
        if subprocess.run(["unshare", *options, "true"], capture_output=True, check=False).returncode == 0:
            os.execvpe("unshare", ["unshare", *options, sys.executable, *sys.argv], {**os.environ, "CHAOS_MOUNTS": "own"})


if __name__ == "__main__":
    in_own_mounts()
    main()
