#!/usr/bin/env python3
"""Small seeded models of every family with the outputs of transformers, for tests/vectors/families.

Not part of any test tier: it needs an environment of its own (the versions are written to index.json).

    python3 -m venv VENV && VENV/bin/pip install torch transformers==5.23.0 safetensors numpy
    VENV/bin/python tests/interop/make_families.py write [--only NAME ...] tests/vectors/families
    VENV/bin/python tests/interop/make_families.py keys docs/FAMILIES.md

write  NAME/config.json, NAME/model.safetensors (BF16) and NAME/golden.safetensors: for each sequence S its S.input_ids,
       S.logits, S.last_hidden, and for `long` also long.hidden.L, the input of layer L; weights are widened to f32, eager
       attention. Each model is also run with the options under test switched off: index.json says by how much logits then
       move, which is to be far more than the tolerance of the tests.
keys   every member of transformers' config classes stands in the page's lists.
"""
import argparse
import json
import pathlib
import sys

import safetensors.torch
import torch
import transformers

import config_keys

SEED = 20261121
VOCAB = 40
LONG = 32
SENSITIVITY_MIN = 1e-2

SMALL = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, pad_token_id=None, bos_token_id=1, eos_token_id=2,
             tie_word_embeddings=False)


def small(**changes):
    return {**SMALL, **changes}


def rope(kind, **parameters):
    return {"rope_type": kind, "rope_theta": 10000.0, **parameters}


# name: config class, members, what is changed to show that the options under test matter
MODELS = {
    "llama_yarn_bias": ("LlamaConfig", small(attention_bias=True, mlp_bias=True, rope_parameters=rope(
        "yarn", factor=4.0, original_max_position_embeddings=16)), dict(rope_parameters=rope("default"))),
    "llama_dynamic": ("LlamaConfig", small(max_position_embeddings=16, num_key_value_heads=4,
                                           rope_parameters=rope("dynamic", factor=2.0)),
                      dict(rope_parameters=rope("default"))),
    "llama_linear": ("LlamaConfig", small(head_dim=12, tie_word_embeddings=True,
                                          rope_parameters=rope("linear", factor=4.0)),
                     dict(rope_parameters=rope("default"))),
    "llama_longrope": ("LlamaConfig", small(rope_parameters=rope(
        "longrope", original_max_position_embeddings=16, factor=4.0, short_factor=[1.0, 1.1, 1.3],
        long_factor=[1.0, 2.0, 3.5])), dict(rope_parameters=rope("default"))),
    "qwen2_windows": ("Qwen2Config", small(num_hidden_layers=3, use_sliding_window=True, sliding_window=7, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention"]), dict(layer_types=["full_attention"] * 3)),
    "qwen3_upper_windows": ("Qwen3Config", small(head_dim=10, num_hidden_layers=3, use_sliding_window=True,
                                                 sliding_window=9, max_window_layers=2),
                            dict(use_sliding_window=False, layer_types=["full_attention"] * 3)),
    "phi3_partial": ("Phi3Config", small(tie_word_embeddings=True, sliding_window=11, head_dim=8,
                                         rope_parameters=rope("default", partial_rotary_factor=0.5)),
                     dict(sliding_window=None)),
    "gptneox_sequential": ("GPTNeoXConfig", dict(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, use_parallel_residual=False, hidden_act="gelu_new",
        rope_parameters=rope("default", partial_rotary_factor=0.5)), dict(use_parallel_residual=True)),
    "gpt2_scaled": ("GPT2Config", dict(vocab_size=VOCAB, n_embd=24, n_layer=3, n_head=4, n_positions=64, n_inner=36,
                                       activation_function="gelu", scale_attn_by_inverse_layer_idx=True),
                    dict(scale_attn_by_inverse_layer_idx=False)),
    "phi_head_bias": ("PhiConfig", small(hidden_size=32, partial_rotary_factor=0.5, num_key_value_heads=4),
                      dict(partial_rotary_factor=1.0)),
    "granite_multipliers": ("GraniteConfig", small(embedding_multiplier=3.0, attention_multiplier=0.5,
                                                   residual_multiplier=0.4, logits_scaling=2.0),
                            dict(residual_multiplier=1.0)),
    "gemma2": ("Gemma2Config", small(head_dim=8, num_hidden_layers=3, sliding_window=9, query_pre_attn_scalar=24,
                                     attn_logit_softcapping=2.0, final_logit_softcapping=3.0, tie_word_embeddings=True),
               dict(attn_logit_softcapping=None)),
    "gemma3": ("Gemma3TextConfig", small(head_dim=8, num_hidden_layers=3, sliding_window=9, query_pre_attn_scalar=24,
                                         tie_word_embeddings=True, layer_types=[
                                             "sliding_attention", "sliding_attention", "full_attention"],
                                         rope_parameters={
                                             "full_attention": {"rope_type": "linear", "factor": 8.0,
                                                                "rope_theta": 1000000.0},
                                             "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}),
               dict(rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 10000.0},
                                     "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}})),
    "deepseek_v3": ("DeepseekV3Config", small(
        hidden_size=24, num_hidden_layers=3, num_key_value_heads=4, moe_intermediate_size=16, n_shared_experts=2,
        n_routed_experts=8, routed_scaling_factor=2.5, kv_lora_rank=12, q_lora_rank=16, qk_rope_head_dim=8, v_head_dim=12,
        qk_nope_head_dim=10, n_group=4, topk_group=2, num_experts_per_tok=3, first_k_dense_replace=1,
        norm_topk_prob=True, rope_interleave=True, rope_parameters=rope(
            "yarn", factor=4.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=0.8)),
        dict(routed_scaling_factor=1.0)),
    "deepseek_v3_direct": ("DeepseekV3Config", small(
        hidden_size=24, num_hidden_layers=2, num_key_value_heads=4, moe_intermediate_size=16, n_shared_experts=1,
        n_routed_experts=6, routed_scaling_factor=1.5, kv_lora_rank=12, q_lora_rank=None, qk_rope_head_dim=6,
        v_head_dim=8, qk_nope_head_dim=10, n_group=2, topk_group=1, num_experts_per_tok=2, first_k_dense_replace=0,
        norm_topk_prob=False, rope_interleave=False, attention_bias=True), dict(norm_topk_prob=True)),
}
ARCHITECTURES = {
    "GPT2Config": "GPT2LMHeadModel",
    "Gemma3TextConfig": "Gemma3ForCausalLM",
}


def architecture_of(config_class):
    return ARCHITECTURES.get(config_class, config_class.removesuffix("Config") + "ForCausalLM")


def build(config_class, members):
    config = getattr(transformers, config_class)(**members)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return getattr(transformers, architecture_of(config_class))(config).eval()


def fill(model, seed):
    """Weights large enough for every feature to show, rounded to bf16."""
    generator = torch.Generator().manual_seed(seed)
    state = model.state_dict()
    for name in sorted(state):
        tensor = state[name]
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("bias"):
            value = 0.3 * noise
        elif tensor.dim() == 1:
            is_offset = model.config.model_type.startswith("gemma")
            value = 0.2 * noise + (0.0 if is_offset else 1.0)
        elif "embed" in name or "wte" in name or "wpe" in name:
            value = 0.7 * noise
        else:
            value = 1.4 * noise / tensor.shape[-1] ** 0.5
        tensor.copy_(value.to(torch.bfloat16).to(tensor.dtype))
    model.load_state_dict(state)
    model.tie_weights()


def sequences(seed):
    generator = torch.Generator().manual_seed(seed + 1)
    return {"one": torch.tensor([3]), "long": torch.randint(0, VOCAB, (LONG,), generator=generator)}


@torch.no_grad()
def run(model, ids):
    """logits, final hidden states, inputs of the layers"""
    inputs = []
    layers = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    layers = layers.h if hasattr(layers, "h") else layers.layers
    hooks = [layer.register_forward_pre_hook(
        lambda _, args, kwargs: inputs.append((args[0] if args else kwargs["hidden_states"])[0].clone()),
        with_kwargs=True) for layer in layers]
    last = []
    hooks.append(model.base_model.register_forward_hook(lambda _, __, out: last.append(out[0][0].clone())))
    logits = model(input_ids=ids[None], use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return logits, last[0], inputs


def write(name, folder):
    config_class, members, off = MODELS[name]
    seed = SEED + list(MODELS).index(name)
    torch.manual_seed(seed)
    model = build(config_class, members)
    fill(model, seed)
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    build_and_copy = build(config_class, members)
    build_and_copy.load_state_dict(model.state_dict())
    build_and_copy.to(torch.bfloat16).save_pretrained(target)
    (target / "generation_config.json").unlink(missing_ok=True)
    golden, differences, moved = {}, [], 0.0
    without = build(config_class, {**members, **off})
    without.load_state_dict(model.state_dict())
    for sequence, ids in sequences(seed).items():
        logits, last, inputs = run(model, ids)
        golden[f"{sequence}.input_ids"] = ids.to(torch.int32)
        golden[f"{sequence}.logits"] = logits
        golden[f"{sequence}.last_hidden"] = last
        if sequence == "long":
            golden.update({f"long.hidden.{i}": hidden for i, hidden in enumerate(inputs)})
        moved = max(moved, float((run(without, ids)[0] - logits).abs().max()))
    double = build(config_class, members)
    double.load_state_dict(model.state_dict())
    double.to(torch.float64)
    for sequence, ids in sequences(seed).items():
        differences.append(float((run(double, ids)[0] - golden[f"{sequence}.logits"]).abs().max()))
    safetensors.torch.save_file({key: value.contiguous() for key, value in golden.items()},
                                target / "golden.safetensors")
    if not moved >= SENSITIVITY_MIN:
        sys.exit(f"{name}: without {list(off)} logits move by {moved:.2e} only")
    return {"off": sorted(off), "logits_move_without": moved, "f32_against_f64": max(differences)}


def write_all(arguments):
    index_path = arguments.path / "index.json"
    index = json.loads(index_path.read_text()) if index_path.exists() else {"models": {}}
    index["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    for name in arguments.only or MODELS:
        index["models"][name] = write(name, arguments.path)
        print(name, index["models"][name])
    index_path.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")


def check_keys(arguments):
    classes = sorted({config_class for config_class, _, _ in MODELS.values()} | {"MistralConfig"})
    return config_keys.check(arguments.path, classes, "All families",
                             lambda sections, config_class: sections[architecture_of(config_class)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("--only", nargs="*", choices=list(MODELS))
    for command in (writing, commands.add_parser("keys")):
        command.add_argument("path", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.command == "write":
        write_all(arguments)
        return 0
    return 0 if check_keys(arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
