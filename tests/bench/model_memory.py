#!/usr/bin/env python3
"""Speed and peak memory on a random BF16 checkpoint in the exact shape of a known model, with bf16 compute: a prompt of
512 tokens, then 16 tokens one by one.

Not part of any test tier: it writes as many bytes as the model has, and needs as much memory.

    python3 tests/bench/model_memory.py --assay build/bin/assay --shape mistral-7b --dir DIR [--tokens 512] [--keep]

The checkpoint goes to DIR, which must not exist, and is removed afterwards. Only the standard library is used.
"""
import argparse
import json
import os
import pathlib
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
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "rope_theta": 500000.0, "rope_scaling": {
            "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "tie_word_embeddings": False, "torch_dtype": "bfloat16"},
    "qwen2.5-0.5b": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 1000000.0,
        "use_sliding_window": False, "tie_word_embeddings": True, "torch_dtype": "bfloat16"},
    "phi-3-mini": {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064,
        "max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "sliding_window": 2047,
        "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16"},
    "smollm2-135m": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 100000.0,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16"},
}


def tensors_of(config):
    """(name, shape) of every tensor."""
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    head = hidden // config["num_attention_heads"]
    keys = head * config["num_key_value_heads"]
    fused, biased = config["model_type"] == "phi3", config["model_type"] == "qwen2"
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
            if biased:
                yield start + "self_attn.q_proj.bias", [hidden]
                yield start + "self_attn.k_proj.bias", [keys]
                yield start + "self_attn.v_proj.bias", [keys]
            yield start + "mlp.gate_proj.weight", [wide, hidden]
            yield start + "mlp.up_proj.weight", [wide, hidden]
        yield start + "self_attn.o_proj.weight", [hidden, hidden]
        yield start + "mlp.down_proj.weight", [hidden, wide]
    yield "model.norm.weight", [hidden]
    if not config["tie_word_embeddings"]:
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


def tokenizer(words):
    """Every word is a token, so that a prompt has as many tokens as it has words."""
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "unk_token": "w0", "vocab": {f"w{i}": i for i in range(words)}}}


def write_model(folder, config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**config, "assay": {"compute": "bf16"}}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(config["vocab_size"])))
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


def cpu_seconds(pid):
    """User and system time of all threads of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def generate(arguments, prompt, tokens):
    """Runs `assay generate`; returns [(words so far, wall seconds, CPU seconds)] and the resources it used."""
    command = [arguments.assay, "generate", str(arguments.dir), "--prompt", prompt, "--ignore-eos",
               "--max-tokens", str(tokens), "--threads", str(arguments.threads)]
    begin, text, moments = time.monotonic(), b"", []
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    while piece := os.read(child.stdout.fileno(), 1 << 16):
        text += piece
        moments.append((len(text.split()), time.monotonic() - begin, cpu_seconds(child.pid)))
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"assay generate ended with status {os.waitstatus_to_exitcode(status)}")
    return moments, usage


def run(arguments, config):
    """The first token of a prompt of one token stands for loading; CPU time is that of one thread."""
    prompt = " ".join(f"w{(i * 7919 + 3) % config['vocab_size']}" for i in range(arguments.tokens))
    generate(arguments, "w3", 1)  # so that files are equally much in the page cache in what follows
    moments, usage = generate(arguments, prompt, arguments.generate)
    (_, load, load_cpu), = generate(arguments, "w3", 1)[0][:1]
    (words, first, first_cpu), (end_words, end, end_cpu) = moments[0], moments[-1]
    threads, more = arguments.threads, end_words - words
    prefill, prefill_cpu = first - load, (first_cpu - load_cpu) / threads
    decode, decode_cpu = end - first, (end_cpu - first_cpu) / threads
    print(f"{arguments.shape}: peak {usage.ru_maxrss / 2**20:.2f} GiB resident\n"
          f"  load and first token: {load:.1f} s, {load_cpu:.1f} s of CPU\n"
          f"  {arguments.tokens} tokens of the prompt: {prefill:.1f} s, {arguments.tokens / prefill:.1f} a second; "
          f"by CPU time of {threads} threads {arguments.tokens / prefill_cpu:.1f} a second\n"
          f"  {more} tokens one by one: {decode:.1f} s, {more / decode:.2f} a second; "
          f"by CPU time of {threads} threads {more / decode_cpu:.2f} a second", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assay", required=True)
    parser.add_argument("--shape", required=True, choices=sorted(SHAPES))
    parser.add_argument("--dir", required=True, type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--generate", type=int, default=17, help="tokens; the first comes with the prompt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    if arguments.dir.exists():
        sys.exit(f"{arguments.dir} exists")
    config = SHAPES[arguments.shape]
    try:
        write_model(arguments.dir, config)
        stored = sum(path.stat().st_size for path in arguments.dir.iterdir())
        print(f"{arguments.shape}: {stored / 2**30:.2f} GiB stored", flush=True)
        for _ in range(arguments.runs):
            run(arguments, config)
    finally:
        if not arguments.keep:
            shutil.rmtree(arguments.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
