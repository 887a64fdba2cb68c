#!/usr/bin/env python3
"""`python -m assay.worker` beside our workers: the reference by transformers, the variant by us; its figures against ours."""

import importlib.util
import os
import signal
import subprocess
import sys

from python_side import need

need(
    ("zmq", "google.protobuf", "torch", "transformers"),
    "pip install 'plugins/python[worker]' brings them; ASSAY_PYTHON names a Python",
    must_in_ci=False,
)

from stack import (
    CORPUS,
    MODEL,
    SOURCE,
    Directory,
    Stack,
    check,
    close,
    finish,
    result_of,
    run_eval,
    wait_for,
)  # noqa: E402

CHUNKS = "8"


class Worker:
    """python -m assay.worker as a process."""

    def __init__(self, data, *args):
        self.log_path = os.path.join(data, "transformers.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "assay.worker", "--data", data, *args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.path.join(SOURCE, "plugins", "python", "src")},
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            with open(self.log_path, encoding="utf-8") as file:
                check(False, f"the worker ends well: {file.read()[-2000:]}")


def check_quantized(data, out, scheme, package):
    """A quantized artifact of ours, run by the package whose layout it has."""
    if not importlib.util.find_spec(package):
        print(f"{scheme}: {package} is not installed, not compared")
        return
    with Stack(data) as stack, Worker(data, "--precision", scheme):
        wait_for(lambda: stack.service("inference", scheme), 240, f"the worker of {scheme} is registered")
        report = run_eval(
            data,
            os.path.join(out, scheme),
            "--reference",
            f"{scheme}:engine=transformers",
            "--variants",
            f"{scheme}:engine=assay",
            "--chunks",
            "2",
            timeout=400,
        )
    kl = result_of(report, f"{scheme}:engine=assay")["metrics"]["kl_nats"]
    check(
        0 <= kl["mean"] < 1e-9 and kl["max"] < 1e-7,
        f"{scheme} by {package} and by us: mean {kl['mean']:.3g}, largest {kl['max']:.3g} nats",
    )


def perplexity(report, label, role):
    return result_of(report, label, role)["metrics"]["perplexity"]["value"]


with Directory() as data, Directory() as ours_data, Directory() as out:
    with Stack(data, "--external", "fp32") as stack, Worker(data, "--precision", "fp32"):
        wait_for(lambda: stack.service("inference", "fp32"), 240, "the worker is registered")
        mixed = run_eval(data, os.path.join(out, "mixed"), "--variants", "int8", "--chunks", CHUNKS, timeout=400)
    ids = [result["numerics_id"] for result in mixed["results"]]
    check(
        ids[0].startswith("transformers-") and "-torch-" in ids[0] and ids[0].endswith("-float32-cpu"),
        f"the reference ran there: {ids[0]}",
    )
    check(ids[1].startswith("assay-"), f"the variant ran here: {ids[1]}")
    with open(os.path.join(out, "mixed", "EVALUATION_SUMMARY.md"), encoding="utf-8") as file:
        summary = file.read()
    check(all(numerics in summary for numerics in ids), "the report names both")
    with Stack(data) as stack, Worker(data, "--precision", "fp32"):
        wait_for(lambda: stack.service("inference", "fp32"), 240, "the worker is registered again")
        both = run_eval(
            data,
            os.path.join(out, "both"),
            "--reference",
            "fp32:engine=transformers",
            "--variants",
            "fp32:engine=assay",
            "--chunks",
            CHUNKS,
            timeout=400,
        )
    ids = [result["numerics_id"].split("-")[0] for result in both["results"]]
    check(ids == ["transformers", "assay"], "one model under two engines, each by its own workers")
    kl = result_of(both, "fp32:engine=assay")["metrics"]["kl_nats"]
    check(
        0 <= kl["mean"] < 1e-9 and kl["max"] < 1e-7,
        f"KL of transformers' fp32 and ours: mean {kl['mean']:.3g}, largest {kl['max']:.3g} nats",
    )
    ours = run_eval(ours_data, os.path.join(out, "ours"), "--variants", "int8", "--chunks", CHUNKS)
    found, wanted = (perplexity(report, "fp32", "reference") for report in (mixed, ours))
    check(
        close(found, wanted, 1e-4),
        f"perplexity of transformers {found:.9g} and of us {wanted:.9g}, {found / wanted - 1:.2e} apart",
    )
    kl = [result_of(report, "int8")["metrics"]["kl_nats"]["mean"] for report in (mixed, ours)]
    check(close(kl[0], kl[1], 1e-3), f"KL of int8 against either reference: {kl[0]:.6g}, {kl[1]:.6g}")
    check_quantized(data, out, "int8", "compressed_tensors")
    check_quantized(data, out, "nf4", "bitsandbytes")
finish()
