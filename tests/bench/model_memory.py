#!/usr/bin/env python3
"""Peak memory and time of one chunk on a random BF16 checkpoint in the exact shape of a known model.

Not part of any test tier: it writes as many bytes as the model has, and needs as much memory.

    python3 tests/bench/model_memory.py --assay build/bin/assay --shape mistral-7b --dir DIR [--tokens 512] [--keep]

The checkpoint goes to DIR, which must not exist, and is removed afterwards. Only the standard library is used.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import time

PIECE = 1 << 24
SHARD_BYTES = 5 << 30
SHAPES = {
    "mistral-7b": {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 32000, "max_position_embeddings": 32768, "sliding_window": 4096, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16"},
    "phi-3-mini": {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064,
        "max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "sliding_window": 2047,
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16"},
}


def tensors_of(config):
    """(name, shape) of every tensor."""
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    head = hidden // config["num_attention_heads"]
    keys = head * config["num_key_value_heads"]
    fused = config["model_type"] == "phi3"
    yield "model.embed_tokens.weight", [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        start = f"model.layers.{layer}."
        yield start + "input_layernorm.weight", [hidden]
        yield start + "post_attention_layernorm.weight", [hidden]
        if fused:
            yield start + "self_attn.qkv_proj.weight", [hidden + 2 * keys, hidden]
            yield start + "mlp.gate_up_proj.weight", [2 * wide, hidden]
        else:
            yield start + "self_attn.q_proj.weight", [hidden, hidden]
            yield start + "self_attn.k_proj.weight", [keys, hidden]
            yield start + "self_attn.v_proj.weight", [keys, hidden]
            yield start + "mlp.gate_proj.weight", [wide, hidden]
            yield start + "mlp.up_proj.weight", [wide, hidden]
        yield start + "self_attn.o_proj.weight", [hidden, hidden]
        yield start + "mlp.down_proj.weight", [hidden, wide]
    yield "model.norm.weight", [hidden]
    yield "lm_head.weight", [config["vocab_size"], hidden]


def noise():
    """BF16 numbers of either sign below 0.06: exponents 116 to 122."""
    random = bytearray(os.urandom(PIECE))
    for i in range(1, PIECE, 2):
        random[i] = (random[i] & 0x80) | 0x3A | (random[i] & 1)
    return bytes(random)


def write_shard(path, tensors, piece):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors:
        count = 2
        for size in shape:
            count *= size
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + count]}
        offset += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while offset > 0:
            file.write(piece[:min(offset, PIECE)])
            offset -= min(offset, PIECE)


def write_model(folder, config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    shards, room = [[]], SHARD_BYTES
    for name, shape in tensors_of(config):
        bytes_of = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        if bytes_of > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append((name, shape))
        room -= bytes_of
    piece, places = noise(), {}
    for i, tensors in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        write_shard(folder / file, tensors, piece)
        places.update({name: file for name, _ in tensors})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assay", required=True)
    parser.add_argument("--shape", required=True, choices=sorted(SHAPES))
    parser.add_argument("--dir", required=True, type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    if arguments.dir.exists():
        sys.exit(f"{arguments.dir} exists")
    config = SHAPES[arguments.shape]
    try:
        write_model(arguments.dir, config)
        stored = sum(path.stat().st_size for path in arguments.dir.iterdir())
        ids = arguments.dir / "ids.json"
        ids.write_text(json.dumps([(i * 7919 + 3) % config["vocab_size"] for i in range(arguments.tokens)]))
        subprocess.run([arguments.assay, "model", "inspect", str(arguments.dir)], check=True)
        begin = time.monotonic()
        subprocess.run([arguments.assay, "logits", str(arguments.dir), "--ids", str(ids), "-o",
                        str(arguments.dir / "logits.safetensors")], check=True)
        seconds = time.monotonic() - begin
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(f"{arguments.shape}: {stored / 2**30:.2f} GiB stored, peak {peak / 2**30:.2f} GiB resident, "
              f"{seconds:.0f} s to load and run {arguments.tokens} tokens")
    finally:
        if not arguments.keep:
            shutil.rmtree(arguments.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
