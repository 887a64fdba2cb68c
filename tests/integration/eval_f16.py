#!/usr/bin/env python3
"""Records of f16 and the cache, on real processes: the two kinds are never mixed, the error of f16 is measured, and `assay cache` lists,
checks and prunes what is there."""
import json
import os

from stack import Directory, Stack, assay, check, finish, result_of, run_eval

CHUNKS = 48


def cache(data, *args, code=0):
    return json.loads(assay("cache", *args, "--data", data, "--json", code=code))


def dtypes(data):
    return sorted((v["label"], v["dtype"], v["chunks"]) for v in cache(data, "ls"))


with Directory() as data, Directory() as scratch, Stack(data):
    job = ("--variants", "int8", "--chunks", str(CHUNKS))
    wide = run_eval(data, os.path.join(scratch, "wide"), *job)
    check(dtypes(data) == [("fp32", "f32", CHUNKS), ("int8", "f32", CHUNKS)], "records are f32 unless asked otherwise")

    half = run_eval(data, os.path.join(scratch, "half"), *job, "--record-dtype", "f16")
    int8 = result_of(half, "int8")
    check(int8["records"]["dtype"] == "f16", "the report says that the records are of f16")
    check(int8["cost"]["chunks_run"] == CHUNKS, "records of f32 do not serve a job of f16")
    check([row[2] for row in dtypes(data) if row[1] == "f16"] == [CHUNKS, CHUNKS], "both sides are kept as f16")
    sizes = {(v["label"], v["dtype"]): v["bytes"] for v in cache(data, "ls")}
    check(sizes["int8", "f16"] < 0.55 * sizes["int8", "f32"], "f16 takes about half the room")

    records, kl = int8["records"], result_of(wide, "int8")["metrics"]["kl_nats"]["mean"]
    check(records["kl_error_positions"] == 16 * 255, "the error is measured at the positions of 16 chunks")
    check(0 < records["kl_error_mean_nats"] <= records["kl_error_max_nats"], "the error is a measurement")
    check(records["kl_error_relative"] < 0.05, "f16 changes the KL of int8 by less than 5 %")
    moved = abs(int8["metrics"]["kl_nats"]["mean"] - kl)
    check(moved < 0.05 * kl, "the mean KL moves by as little")

    again = run_eval(data, os.path.join(scratch, "again"), *job, "--record-dtype", "f16")
    check(result_of(again, "int8")["cost"]["chunks_run"] == 0, "the second job of f16 runs nothing")

    cache(data, "prune", "--all")
    short = run_eval(data, os.path.join(scratch, "short"), "--variants", "int8", "--chunks", "2", "--record-dtype", "f16")
    check(result_of(short, "int8")["records"]["kl_error_positions"] >= 255, "the first chunk of a short job is measured")
    check(("fp32", "f32", 1) in dtypes(data) or ("fp32", "f32", 2) in dtypes(data), "it is kept as f32, too, on both sides")
    cache(data, "prune", "--all")
    run_eval(data, os.path.join(scratch, "wide2"), *job)
    run_eval(data, os.path.join(scratch, "half2"), *job, "--record-dtype", "f16")

    verified = cache(data, "verify")
    check(verified["damaged"] == 0 and verified["checked"] >= 4 * CHUNKS, "everything is checked and sound")
    variant = next(v["variant_id"] for v in cache(data, "ls") if v["label"] == "int8")
    planned = cache(data, "prune", "--variant", variant[:12], "--dry-run")
    check(planned["records"] == 2 * CHUNKS and len(cache(data, "ls")) == 4, "a dry run counts and drops nothing")
    check(cache(data, "prune", "--variant", variant[:12])["records"] == 2 * CHUNKS, "pruning takes one variant")
    check({row[0] for row in dtypes(data)} == {"fp32"}, "the reference stays")
    cache(data, "prune", "--all")
    check(cache(data, "stat")["records"] == 0, "pruning all leaves nothing")
finish()
