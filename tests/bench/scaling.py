#!/usr/bin/env python3
"""How much a second core brings, and how much time goes to anything but computing.

Runs one job, a reference against itself, on a whole stack that is pinned to one core, with one worker; then anew on two cores, with two.
Prints the throughput of both with the ratio, and the CPU time by what it was for: workers and evaluator computing; the coordinator; the bus
(loops and ZeroMQ's threads); the store (the evaluator's writer). Asserts nothing.

    python3 tests/bench/scaling.py --bin build/bin [--model DIR] [--chunks 16] [--cpus 0,1] [--runs 1] [--json]

Without --model a random checkpoint in the shape of SmolLM2-135M is made, with the bundled model's tokenizer. On a machine with other work
only the shares and the CPU times mean something. Only the standard library is used."""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

import model_memory

HERE = pathlib.Path(__file__).resolve().parent
BUS = ("assay-loop", "ZMQbg/IO/0", "ZMQbg/Reaper", "assay-member", "assay-shards")
STORE = ("assay-writer", "assay-takeover")
PARTS = ("computing", "coordinator", "bus", "store", "quantizer")


def threads(pid):
    """[(name, CPU seconds)] of the threads that a process has now, and one "ended" for those that it had."""
    tick = os.sysconf("SC_CLK_TCK")
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat", encoding="ascii", errors="replace") as file:
            name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
        found.append((name, sum(int(field) for field in rest.split()[11:13]) / tick))
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        whole = sum(int(field) for field in file.read().rsplit(")", 1)[1].split()[11:13]) / tick
    return found + [("ended", max(0.0, whole - sum(seconds for _, seconds in found)))]


def part_of(kind, thread):
    if kind in ("coordinator", "quantizer"):
        return kind
    return "bus" if thread in BUS else "store" if thread in STORE else "computing"


def cpu_by_part(processes):
    parts = dict.fromkeys(PARTS, 0.0)
    for pid, kind, _ in processes:
        for thread, seconds in threads(pid):
            parts[part_of(kind, thread)] += seconds
    return parts


def random_model(folder, tiny):
    model_memory.write_model(folder, model_memory.SHAPES["smollm2-135m"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (tiny / name).exists():
            shutil.copy(tiny / name, folder)


def job_seconds(job):
    """From the first forward pass to the end: making the artifact is not what is measured."""
    phases = [phase for phase in job["phases"] if phase["name"].startswith(("run", "score"))]
    return max(phase["elapsed_seconds"] for phase in phases)


def measure(stack, sites, cpus, args):
    """Chunks a second, and CPU seconds by part, of one job on the cores."""
    workers = ";".join(f"fp32:{cpu}" for cpu in cpus)
    with stack.Directory() as data, stack.Directory() as out:
        with stack.Stack(data, "--cpus", ",".join(cpus), "--workers", workers):
            os.sched_setaffinity(0, {int(cpu) for cpu in cpus})  # the command that asks is part of the whole
            report = stack.run_eval(data, out, "--reference", "fp32", "--variants", "fp32", "--chunks", str(args.chunks), timeout=3600)
            parts = cpu_by_part([row for row in sites.processes(data) if row[1] != "assay"])
            os.sched_setaffinity(0, range(os.cpu_count()))
    return args.chunks / job_seconds(report), parts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, help="folder of the programs")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--cpus", default="0,1", help="two of them")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.environ.update(ASSAY_BIN=os.path.abspath(args.bin), ASSAY_SOURCE=str(HERE.parent.parent))
    sys.path.insert(0, str(HERE.parent / "integration"))
    import chaos_site  # needs the environment
    import stack
    first, second = args.cpus.split(",")
    with tempfile.TemporaryDirectory(prefix="assay-scaling-") as scratch:
        if not args.model:
            args.model = pathlib.Path(scratch) / "model"
            random_model(args.model, pathlib.Path(stack.MODEL))
        stack.MODEL = str(args.model)
        rows = []
        for _ in range(args.runs):
            one, one_parts = measure(stack, chaos_site, [first], args)
            two, two_parts = measure(stack, chaos_site, [first, second], args)
            rows.append({"one": one, "two": two, "ratio": two / one, "cpu_one": one_parts, "cpu_two": two_parts})
    middle = statistics.median(row["ratio"] for row in rows)
    for row in rows:
        row["overhead_percent"] = {name: 100 * sum(row[name][part] for part in ("coordinator", "bus", "store")) / sum(row[name].values())
                                   for name in ("cpu_one", "cpu_two")}
    if args.json:
        print(json.dumps({"chunks": args.chunks, "rows": rows, "ratio": middle}))
        return
    for row in rows:
        print(f"one core {row['one']:.3f} chunks/s, two cores {row['two']:.3f} chunks/s, ratio {row['ratio']:.3f}")
        for name in ("cpu_one", "cpu_two"):
            parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in row[name].items())
            print(f"  CPU seconds, {'one core' if name == 'cpu_one' else 'two cores'}: {parts}; coordinator, bus and store "
                  f"{row['overhead_percent'][name]:.2f} %")
    print(f"median of ratios {middle:.3f}")


if __name__ == "__main__":
    main()
