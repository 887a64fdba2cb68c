#!/usr/bin/env python3
"""Artifacts of assay in transformers: plain loading works, and the logits are those of `assay logits`.

Not part of any test tier: it needs an environment of its own and the network once.

    python3 -m venv VENV && VENV/bin/pip install torch transformers accelerate compressed-tensors bitsandbytes
    VENV/bin/python tests/interop/check_artifacts.py --assay build/dev/bin/assay --model models/assay-tiny

For nf4 it also shows what is left once the two places that round to bf16 are switched off (docs/NUMERICS.md).
Exit status: 0 all within the tolerance, 1 something is not.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

IDS = [5, 17, 300, 42, 7, 1999, 8]
TOLERANCE = 1e-4  # logits of a few units: f32 in another order of sums
ROUNDED = 0.5  # nf4 through bitsandbytes in bf16


def load(path, exact):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    for parameter in model.parameters() if exact else ():
        if parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
    for module in model.modules() if exact else ():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assay", required=True)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "ids.json").write_text(json.dumps(IDS))
        for scheme, exact, bound in (("bf16:compute=f32", False, TOLERANCE), ("int8", False, TOLERANCE), ("int4", False, TOLERANCE), ("nf4", False, ROUNDED),
                                     ("nf4", True, TOLERANCE)):
            artifact, logits = scratch / f"{scheme}-{exact}", scratch / "logits.safetensors"
            subprocess.run([args.assay, "quantize", args.model, "--scheme", scheme, "-o", artifact], check=True, stdout=subprocess.DEVNULL)
            subprocess.run([args.assay, "logits", artifact, "--ids", scratch / "ids.json", "-o", logits], check=True)
            with torch.no_grad():
                found = load(artifact, exact)(torch.tensor([IDS])).logits[0].float()
            difference = (found - load_file(logits)["logits"]).abs().max().item()
            good = good and difference <= bound
            print(f"{scheme}{' without bf16' if exact else ''}: largest difference of logits {difference:.3g}, wanted at most {bound:g}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
