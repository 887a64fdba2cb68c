#!/usr/bin/env python3
"""A job on real processes: its figures against a float64 computation from `assay logits`, the reference against itself, and a second
variant that reruns only its own side."""
import json
import math
import os
import time

from stack import (CORPUS, MODEL, Directory, Stack, assay, check, close, figures, finish, log_softmax_f64,
                   read_safetensors, result_of, run_eval)

CHUNKS = 3


def chunk_ids():
    ids = json.loads(assay("tokenize", MODEL, "--file", CORPUS, "--json"))
    return [ids[512 * i:512 * (i + 1)] for i in range(CHUNKS)]


def logits_of(directory, ids, scratch):
    with open(os.path.join(scratch, "ids.json"), "w", encoding="utf-8") as file:
        json.dump(ids, file)
    out = os.path.join(scratch, "logits.safetensors")
    assay("logits", directory, "--ids", os.path.join(scratch, "ids.json"), "-o", out)
    (rows, vocab), flat = read_safetensors(out, "logits")
    check(rows == len(ids), "assay logits gives one row a token")
    return [flat[t * vocab:(t + 1) * vocab] for t in range(rows)]


def truth(artifact, scratch):
    """Perplexities, KL and same-top-1 by float64 over the whole vocabulary, rows 256..510 of each chunk."""
    nll_ref, nll_var, kl, same = [], [], [], []
    for ids in chunk_ids():
        ref, var = logits_of(MODEL, ids, scratch), logits_of(artifact, ids, scratch)
        for t in range(256, 511):
            p, q = log_softmax_f64(ref[t]), log_softmax_f64(var[t])
            nll_ref.append(-p[ids[t + 1]])
            nll_var.append(-q[ids[t + 1]])
            kl.append(math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q)))
            same.append(max(range(len(p)), key=ref[t].__getitem__) == max(range(len(q)), key=var[t].__getitem__))
    n = len(kl)
    kl.sort()
    return {"ppl_ref": math.exp(math.fsum(nll_ref) / n), "ppl_var": math.exp(math.fsum(nll_var) / n),
            "kl_mean": math.fsum(kl) / n, "kl_max": kl[-1], "kl_median": kl[n // 2] if n % 2 else (kl[n // 2 - 1] + kl[n // 2]) / 2,
            "same": 100.0 * sum(same) / n, "n": n}


def agree_with_float64(report, scratch):
    int8 = result_of(report, "int8")
    reference = result_of(report, "fp32", "reference")
    want = truth(int8["variant"]["artifact_dir"], scratch)
    metrics = int8["metrics"]
    for what, found, wanted in (
            ("perplexity of the reference", reference["metrics"]["perplexity"]["value"], want["ppl_ref"]),
            ("perplexity of int8", metrics["perplexity"]["value"], want["ppl_var"]),
            ("dPPL%", metrics["perplexity_increase_percent"]["value"], (want["ppl_var"] / want["ppl_ref"] - 1) * 100),
            ("mean KL", metrics["kl_nats"]["mean"], want["kl_mean"]),
            ("median KL", metrics["kl_nats"]["median"], want["kl_median"]),
            ("largest KL", metrics["kl_nats"]["max"], want["kl_max"]),
            ("same top-1 %", metrics["same_top1_percent"]["value"], want["same"])):
        check(close(found, wanted, 1e-6), f"{what}: found {found!r}, float64 from assay logits gives {wanted!r}")
    check(metrics["kl_nats"]["n"] == want["n"] == 255 * CHUNKS, "255 positions a chunk are scored")


def settled_counter(stack, precision):
    """A worker's count of chunks, once its heartbeats (one in 1.25 s) have told it."""
    time.sleep(2.5)
    return stack.service("inference", precision)["counters"]["chunksRun"]


def main():
    with Directory() as data, Directory() as scratch, Stack(data) as stack:
        first = run_eval(data, os.path.join(scratch, "first"), "--reference", "fp32", "--variants", "fp32", "--chunks", str(CHUNKS))
        self_kl = result_of(first, "fp32")["metrics"]["kl_nats"]
        check(all(self_kl[key] == 0 for key in ("mean", "median", "p99", "min", "max")), "the reference against itself: KL is exactly 0")
        check(result_of(first, "fp32", "reference")["cost"]["chunks_run"] == CHUNKS, "the first job runs the reference")

        before = settled_counter(stack, "fp32")
        check(before == CHUNKS, f"the fp32 worker's own counter says that it ran each chunk once, found {before}")
        plan = json.loads(assay("eval", MODEL, "--variants", "int8", "--corpus", CORPUS, "--chunks", str(CHUNKS), "--data", data,
                                "--dry-run", "--json"))
        cached = {v["label"]: v["chunks_cached"] for v in plan["variants"]}
        check(cached == {"fp32": CHUNKS, "int8": 0} and plan["chunks_to_run"] == CHUNKS, "a dry run says what is cached and what would run")
        check(plan["expected_run_seconds"] > 0 and settled_counter(stack, "fp32") == before, "it names the time expected, and runs nothing")
        second = run_eval(data, os.path.join(scratch, "second"), "--reference", "fp32", "--variants", "fp32,int8", "--chunks", str(CHUNKS))
        after = settled_counter(stack, "fp32")
        check(after == before, "the second job, with one more variant, runs no reference chunk: the worker's counter stands still")
        check(settled_counter(stack, "int8") == CHUNKS, "the int8 worker ran its own side")
        cost = result_of(second, "fp32", "reference")["cost"]
        check(cost["chunks_run"] == 0 and cost["chunks_from_cache"] == CHUNKS, "the report says that the reference came from the cache")
        check(second["cost"]["saved_seconds"] > 0, "and how much that saved")
        check({s["kind"] for s in stack.services()} == {"coordinator", "inference", "quantizer", "evaluator"} and os.path.exists(
            os.path.join(data, "run", "coordinator.sock")), "four kinds of process took part")
        agree_with_float64(second, scratch)

        third = run_eval(data, os.path.join(scratch, "third"), "--reference", "fp32", "--variants", "fp32,int8", "--chunks", str(CHUNKS))
        check(figures(third) == figures(second), "the same job again gives the same figures, digit by digit")
        for name in ("baseline_fp32_results.json", "int8_quantized_results.json", "comprehensive_evaluation_report.json",
                     "EVALUATION_SUMMARY.md", "evaluation_report.html"):
            check(os.path.getsize(os.path.join(scratch, "third", name)) > 0, f"the job leaves {name}")
    with Directory() as data, Directory() as scratch:
        alone = run_eval(data, os.path.join(scratch, "alone"), "--reference", "fp32", "--variants", "fp32,int8", "--chunks", str(CHUNKS))
        check(figures(alone) == figures(second), "a job that starts its own stack gives the same figures, digit by digit")
    finish()


main()
