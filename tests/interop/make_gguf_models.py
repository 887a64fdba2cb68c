#!/usr/bin/env python3
"""Small seeded models as GGUF files of llama.cpp's own converter, with the outputs of transformers.

Not part of any test tier: it needs an environment of its own (the versions are written to index.json) and a copy of
llama.cpp, whose converter does the work; the source package of llama-cpp-python has one:

    python3 -m venv VENV && VENV/bin/pip install torch transformers==5.23.0 safetensors numpy gguf==0.19.0 sentencepiece
    VENV/bin/pip download --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36 && tar xf llama_cpp_python-*
    VENV/bin/python tests/interop/make_gguf_models.py llama_cpp_python-0.3.36/vendor/llama.cpp tests/vectors/gguf

Writes NAME.gguf (matrices BF16, vectors F32, a vocabulary of single letters) and NAME.golden.safetensors: for each
sequence S its S.input_ids, S.logits and S.last_hidden, weights widened to f32, eager attention.
"""
import argparse
import json
import pathlib
import sys
import tempfile

import safetensors.torch
import torch
import transformers

from make_families import VOCAB, build, fill, rope, run, sequences, small

SEED = 20261122
NEOX = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64, use_parallel_residual=True, hidden_act="gelu",
            rope_parameters=rope("default", partial_rotary_factor=0.5))
LONG = dict(original_max_position_embeddings=16, short_factor=[1.0, 1.1, 1.3, 1.4], long_factor=[1.0, 2.0, 3.5, 5.0])

# name: config class, members, what the converter wants beside them
MODELS = {
    "llama": ("LlamaConfig", small(attention_bias=True, mlp_bias=True, head_dim=16, rope_parameters={
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}), {}),
    "llama_factors": ("LlamaConfig", small(head_dim=16, rope_parameters={
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 2.0,
        "original_max_position_embeddings": 32}), {}),
    "llama_linear": ("LlamaConfig", small(tie_word_embeddings=True, rope_parameters=rope("linear", factor=4.0)), {}),
    "llama_yarn": ("LlamaConfig", small(rope_parameters=rope(
        "yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=24.0, beta_slow=2.0)), {}),
    "mistral": ("MistralConfig", small(head_dim=8, sliding_window=None), {}),
    "qwen2": ("Qwen2Config", small(tie_word_embeddings=True, use_sliding_window=False), {}),
    "qwen3": ("Qwen3Config", small(head_dim=10, attention_bias=True, use_sliding_window=False), {}),
    "phi2": ("PhiConfig", small(hidden_size=32, intermediate_size=128, num_key_value_heads=4,
                                partial_rotary_factor=0.5), {}),
    "phi3": ("Phi3Config", small(hidden_size=32, sliding_window=11,
                                 rope_parameters=rope("default", partial_rotary_factor=0.5)), {}),
    "phi3_long": ("Phi3Config", small(hidden_size=32, sliding_window=None, original_max_position_embeddings=16,
                                      rope_parameters=rope("longrope", **LONG)), {}),
    "granite": ("GraniteConfig", small(embedding_multiplier=3.0, attention_multiplier=0.5, residual_multiplier=0.4,
                                       logits_scaling=2.0), {}),
    "gemma2": ("Gemma2Config", small(head_dim=8, num_hidden_layers=3, sliding_window=9, query_pre_attn_scalar=8,
                                     attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
                                     tie_word_embeddings=True), {}),
    "gemma3": ("Gemma3TextConfig", small(head_dim=8, num_hidden_layers=6, sliding_window=9, query_pre_attn_scalar=8,
                                         tie_word_embeddings=True, rope_parameters={
                                             "full_attention": {"rope_type": "linear", "factor": 8.0,
                                                                "rope_theta": 1000000.0},
                                             "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}),
               {}),
    "gpt2": ("GPT2Config", dict(vocab_size=VOCAB, n_embd=24, n_layer=2, n_head=4, n_positions=64), {"n_ctx": 64}),
    "gptneox": ("GPTNeoXConfig", NEOX, {"rotary_pct": 0.5}),
    "gptneox_sequential": ("GPTNeoXConfig", {**NEOX, "use_parallel_residual": False}, {"rotary_pct": 0.5}),
    "deepseek2": ("DeepseekV3Config", small(
        num_hidden_layers=3, num_key_value_heads=4, moe_intermediate_size=16, n_shared_experts=2,
        n_routed_experts=8, routed_scaling_factor=2.5, kv_lora_rank=12, q_lora_rank=16, qk_rope_head_dim=8,
        v_head_dim=12, qk_nope_head_dim=10, n_group=4, topk_group=2, num_experts_per_tok=3, first_k_dense_replace=1,
        norm_topk_prob=True, rope_interleave=True, rope_parameters=rope(
            "yarn", factor=4.0, original_max_position_embeddings=16, mscale=0.8, mscale_all_dim=0.8)),
                  {"scoring_func": "sigmoid"}),
    "deepseek2_direct": ("DeepseekV3Config", small(
        num_hidden_layers=2, num_key_value_heads=4, moe_intermediate_size=16, n_shared_experts=1,
        n_routed_experts=6, routed_scaling_factor=1.5, kv_lora_rank=12, q_lora_rank=None, qk_rope_head_dim=6,
        v_head_dim=8, qk_nope_head_dim=10, n_group=2, topk_group=1, num_experts_per_tok=2, first_k_dense_replace=0,
        norm_topk_prob=False, rope_interleave=True), {"scoring_func": "sigmoid"}),
}


def letters():
    """39 letters and one pair of them."""
    return [chr(ord("!") + i) for i in range(VOCAB - 1)] + ['!"']


def set_vocab(self):
    writer = self.gguf_writer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(letters())
    writer.add_token_types([1] * VOCAB)
    writer.add_token_merges(['! "'])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def convert(conversion, gguf, folder, more, target):
    hparams = {**conversion.ModelBase.load_hparams(folder, False), **more}
    kind = conversion.get_model_class(conversion.get_model_architecture(hparams, conversion.ModelType.TEXT))
    patched = type(kind.__name__, (kind,), {"set_vocab": set_vocab, "model_arch": kind.model_arch})
    with torch.inference_mode():
        patched(folder, gguf.LlamaFileType.MOSTLY_BF16, target, model_name="small", hparams=hparams).write()


def write(conversion, gguf, name, folder):
    config_class, members, more = MODELS[name]
    seed = SEED + list(MODELS).index(name)
    torch.manual_seed(seed)
    model = build(config_class, members)
    fill(model, seed)
    golden = {}
    for sequence, ids in sequences(seed).items():
        logits, last, _ = run(model, ids)
        golden[f"{sequence}.input_ids"] = ids.to(torch.int32)
        golden[f"{sequence}.logits"] = logits
        golden[f"{sequence}.last_hidden"] = last
    safetensors.torch.save_file({key: value.contiguous() for key, value in golden.items()},
                                folder / f"{name}.golden.safetensors")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        copy = build(config_class, members)
        copy.load_state_dict(model.state_dict())
        copy.to(torch.bfloat16).save_pretrained(scratch)
        (scratch / "tokenizer.json").write_text(json.dumps(
            {"model": {"vocab": {token: i for i, token in enumerate(letters())}}, "added_tokens": []}))
        convert(conversion, gguf, scratch, more, folder / f"{name}.gguf")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("llama_cpp", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", choices=list(MODELS))
    arguments = parser.parse_args()
    sys.path[:0] = [str(arguments.llama_cpp), str(arguments.llama_cpp / "gguf-py")]
    import conversion
    import gguf
    for name in arguments.only or MODELS:
        write(conversion, gguf, name, arguments.folder)
        print(name)
    (arguments.folder / "index.json").write_text(json.dumps(
        {"models": list(MODELS), "versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                                              "llama-cpp-python": "0.3.36"}}, indent=1) + "\n")


if __name__ == "__main__":
    main()
