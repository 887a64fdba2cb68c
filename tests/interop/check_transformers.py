#!/usr/bin/env python3
"""An imported GGUF model beside other implementations: the same tensors, token ids and perplexity.

Not part of any test tier: it needs an environment of its own, the network once, and minutes.

    python3 -m venv VENV && VENV/bin/pip install torch transformers numpy gguf safetensors
    assay fetch smollm2 -o MODEL
    VENV/bin/python tests/interop/check_transformers.py tensors --gguf FILE.gguf --model MODEL
    VENV/bin/python tests/interop/check_transformers.py ids --assay build/bin/assay --model MODEL --corpus FILE
    VENV/bin/python tests/interop/check_transformers.py perplexity --assay build/bin/assay --model MODEL --corpus FILE \\
        --chunks 64 --expected PPL

tensors     every tensor of the checkpoint equals, bit for bit, what the package `gguf` decodes, with the rows of the
            query and key projections in the order of transformers.
ids         `assay tokenize` gives the ids of the package `tokenizers` from the checkpoint's tokenizer.json.
perplexity  protocol llamacpp-512 with transformers in float32 and sums in float64, on the ids of `assay tokenize`; with
            --expected (from assay's report) the two are to agree to 0.05 %.
Exit status: 0 all equal, 1 something differs.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import time

CONTEXT = 512
TOLERANCE = 5e-4
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def checkpoint_name(name):
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    _, layer, kind, _ = name.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[kind]}.weight"


def in_halves(rows, heads):
    """From pairs that rotate together, side by side, to first halves before second halves."""
    head_dim = rows.shape[0] // heads
    return rows.reshape(heads, head_dim // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def check_tensors(arguments):
    import gguf
    import numpy
    import torch
    from safetensors import safe_open

    config = json.loads((pathlib.Path(arguments.model) / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    reader = gguf.GGUFReader(arguments.gguf)
    checked = 0
    with safe_open(pathlib.Path(arguments.model) / "model.safetensors", "pt") as stored:
        names = set(stored.keys())
        for tensor in reader.tensors:
            if tensor.name == "rope_freqs.weight":
                continue
            wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
            kind = tensor.name.split(".")[-2]
            if kind in heads:
                wanted = in_halves(wanted, heads[kind])
            name = checkpoint_name(tensor.name)
            found = stored.get_tensor(name).to(torch.float32).numpy()
            names.discard(name)
            if found.shape != wanted.shape or not (found.view(numpy.uint32) == wanted.view(numpy.uint32)).all():
                print(f"{name} differs from {tensor.name}")
                return 1
            checked += 1
    if names or not checked:
        print(f"{checked} tensors checked, not in the GGUF file: {sorted(names)}")
        return 1
    print(f"{checked} tensors are equal bit for bit")
    return 0


def assay_ids(arguments):
    command = [arguments.assay, "tokenize", arguments.model, "--file", arguments.corpus, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def check_ids(arguments):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(pathlib.Path(arguments.model) / "tokenizer.json"))
    text = pathlib.Path(arguments.corpus).read_bytes().decode("utf-8", "replace")
    wanted = tokenizer.encode(text, add_special_tokens=False).ids
    found = assay_ids(arguments)
    print(f"{len(found)} ids, {'equal' if found == wanted else 'which differ'}")
    return 0 if found == wanted and found else 1


def check_perplexity(arguments):
    import torch
    from transformers import AutoModelForCausalLM

    config = json.loads((pathlib.Path(arguments.model) / "tokenizer_config.json").read_text())
    if config["add_bos_token"]:
        print("this check is for vocabularies that put no token before a text")
        return 1
    torch.set_num_threads(arguments.threads)
    ids = assay_ids(arguments)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    model.eval()
    losses = []
    begun, cpu_begun = time.monotonic(), time.process_time()
    with torch.inference_mode():
        for first in range(0, arguments.chunks * CONTEXT, CONTEXT):
            chunk = torch.tensor([ids[first : first + CONTEXT]])
            if chunk.shape[1] != CONTEXT:
                print(f"the corpus has {len(ids)} ids, too few for {arguments.chunks} chunks")
                return 1
            logits = model(chunk).logits[0, CONTEXT // 2 : CONTEXT - 1].to(torch.float64)
            targets = chunk[0, CONTEXT // 2 + 1 :]
            losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    mean = torch.cat(losses).mean().item()
    perplexity = math.exp(mean)
    print(f"perplexity {perplexity:.8f} over {len(losses)} chunks, {sum(len(x) for x in losses)} positions, "
          f"wall {time.monotonic() - begun:.1f} s, CPU {time.process_time() - cpu_begun:.1f} s")
    if arguments.expected is None:
        return 0
    difference = arguments.expected / perplexity - 1
    print(f"assay has {arguments.expected:.8f}: {difference:+.3e}, allowed {TOLERANCE:.0e}")
    return 0 if abs(difference) <= TOLERANCE else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=["tensors", "ids", "perplexity"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf")
    parser.add_argument("--assay", default="assay")
    parser.add_argument("--corpus")
    parser.add_argument("--chunks", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--expected", type=float)
    arguments = parser.parse_args()
    wanted = "gguf" if arguments.check == "tensors" else "corpus"
    if getattr(arguments, wanted) is None:
        parser.error(f"{arguments.check} needs --{wanted}")
    checks = {"tensors": check_tensors, "ids": check_ids, "perplexity": check_perplexity}
    return checks[arguments.check](arguments)


if __name__ == "__main__":
    sys.exit(main())
