#!/usr/bin/env python3
"""Small seeded encoders, and decoders that embed texts, with their tokenizers and the outputs of transformers, for tests/vectors/encoders.

Not part of any test tier: it needs an environment of its own (the versions are written to index.json).

    python3 -m venv VENV && VENV/bin/pip install torch transformers==5.23.0 safetensors numpy
    VENV/bin/python tests/interop/make_encoders.py write [--only NAME ...] tests/vectors/encoders
    VENV/bin/python tests/interop/make_encoders.py keys docs/FAMILIES.md

write  NAME/config.json, NAME/model.safetensors (BF16), NAME/tokenizer.json, the modules of sentence-transformers where the
       model has some, NAME/golden.safetensors: for each sequence S its S.input_ids, S.types, S.last_hidden, S.logits; and
       NAME/expected.json: for texts and pairs of texts their ids, types, and probabilities or embedding. Weights are
       widened to f32, eager attention; each sequence alone, and all of them padded to one batch, which are to agree.
keys   every member of transformers' config classes stands in the page's lists.
"""
import argparse
import json
import pathlib
import re
import sys

import safetensors.torch
import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import config_keys

SEED = 20261122
POSITIONS = 24
FAR = 130  # beyond the last bucket of distances
BATCH_ATOL = 2e-6
CORPUS = ["You are so kind, thank you very much!", "What a very rude dog that was.", "cats never thank anyone",
          "Nobody is always rude: not even cats.", "kind dogs are always kind", "Ein sehr höflicher Hund, naïve Katzen."]
TEXTS = ["You are so kind!", "a very rude dog", "", "naïve Hunde 🐕 dogs", "always rude, never kind; " * 8]
PAIRS = [["is the dog kind?", "kind dogs are always kind"], ["rude", "cats never thank anyone, " * 6],
         ["cats never thank anyone, " * 6, "rude cats " * 7]]
BERT = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
            max_position_embeddings=POSITIONS, hidden_act="gelu", layer_norm_eps=1e-5)
DECODER = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=4,
               intermediate_size=12, max_position_embeddings=POSITIONS)
DISTIL = dict(dim=8, n_layers=2, n_heads=4, hidden_dim=20, max_position_embeddings=POSITIONS)
POOLINGS = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]


def labels(*names):
    return dict(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})


# name: class, tokenizer, members of its config; of sentence models the kind of pooling, and whether it is normalized
MODELS = {
    "bert_pairs": ("BertForSequenceClassification", "wordpiece", dict(BERT, type_vocab_size=2, **labels("no", "yes")), None),
    "roberta_labels": ("RobertaForSequenceClassification", "bytes", dict(
        BERT, max_position_embeddings=POSITIONS + 2, type_vocab_size=1, pad_token_id=1,
        problem_type="multi_label_classification", **labels("toxic", "rude", "threat")), None),
    "roberta_sentences": ("RobertaModel", "bytes", dict(
        BERT, max_position_embeddings=POSITIONS + 5, type_vocab_size=1, pad_token_id=4, hidden_act="gelu_new"),
        ("mean_tokens", True)),
    "xlmr_score": ("XLMRobertaForSequenceClassification", "unigram", dict(
        BERT, max_position_embeddings=POSITIONS + 2, type_vocab_size=1, pad_token_id=1, **labels("relevant")), None),
    "xlmr_sentences": ("XLMRobertaModel", "unigram", dict(
        BERT, max_position_embeddings=POSITIONS + 2, type_vocab_size=1, pad_token_id=1), ("cls_token", True)),
    "distilbert_labels": ("DistilBertForSequenceClassification", "wordpiece", dict(
        DISTIL, activation="relu", sinusoidal_pos_embds=True, **labels("kind", "rude", "other")), None),
    "distilbert_sentences": ("DistilBertModel", "wordpiece", dict(DISTIL, activation="gelu"), ("mean_tokens", False)),
    "qwen3_sentences": ("Qwen3ForCausalLM", "bytes_closed", dict(DECODER, tie_word_embeddings=True), ("lasttoken", True)),
    "llama_sentences": ("LlamaModel", "unigram_opened", DECODER, ("mean_tokens", False)),
    "mpnet_sentences": ("MPNetModel", "wordpiece_open", dict(
        BERT, max_position_embeddings=FAR + 2, pad_token_id=1), ("mean_tokens", True)),
    "mpnet_labels": ("MPNetForSequenceClassification", "wordpiece_open", dict(
        BERT, max_position_embeddings=POSITIONS + 2, pad_token_id=1, **labels("kind", "rude")), None),
}


def rounded(values):
    return [float(f"{value:.8g}") for value in values.tolist()]


def template(first, last, between, second):
    return f"{first} $A {last}", f"{first} $A {between} $B:{second} {last}:{second}"


def make_tokenizer(kind):
    if kind.startswith("wordpiece"):
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        single, pair = template("[CLS]", "[SEP]", "[SEP]", 1)
        if kind == "wordpiece_open":
            special = ["<s>", "<pad>", "</s>", "[UNK]"]
            single, pair = template("<s>", "</s>", "</s> </s>", 0)
        trainer = trainers.WordPieceTrainer(vocab_size=72, special_tokens=special, show_progress=False)
    elif kind.startswith("bytes"):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        trainer = trainers.BpeTrainer(vocab_size=88, special_tokens=special, show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False)
        single, pair = template("<s>", "</s>", "</s> </s>", 0)
    tokenizer.train_from_iterator(CORPUS, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in special]
    if kind == "bytes_closed":
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="$A </s>", pair="$A $B:1 </s>:1", special_tokens=ids)])
    elif kind == "unigram_opened":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=ids)
    elif kind == "bytes":
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    else:
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return tokenizer


def build(name, vocab):
    class_name, _, members, _ = MODELS[name]
    config_class = getattr(transformers, class_name).config_class
    config = config_class(vocab_size=vocab, **members)
    config._attn_implementation = "eager"
    return getattr(transformers, class_name)(config).eval()


def fill(model, seed):
    """Weights large enough for every part to show, rounded to bf16."""
    generator = torch.Generator().manual_seed(seed)
    state = model.state_dict()
    for name in sorted(state):
        tensor = state[name]
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("bias"):
            value = 0.3 * noise
        elif tensor.dim() == 1:
            value = 1.0 + 0.2 * noise
        elif "embed" in name:
            value = 0.7 * noise
        else:
            value = 1.2 * noise / tensor.shape[-1] ** 0.5
        tensor.copy_(value.to(torch.bfloat16).to(tensor.dtype))
    model.load_state_dict(state)


def base_of(model):
    return model.base_model if hasattr(model, "classifier") or hasattr(model, "lm_head") else model


@torch.no_grad()
def run(model, ids, types, mask=None):
    """last hidden states, pooler's output or None, logits or None, of a batch"""
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids) if mask is None else mask)
    if model.config.model_type == "bert":
        inputs["token_type_ids"] = types
    states = base_of(model)(**inputs)
    logits = model(**inputs).logits if hasattr(model, "classifier") else None
    return states.last_hidden_state, states.get("pooler_output"), logits


def most_of(config):
    return FAR if config.max_position_embeddings > FAR else POSITIONS


def sequences(model, vocab, seed):
    generator = torch.Generator().manual_seed(seed + 1)
    pad = model.config.pad_token_id
    ids = {"one": [3], "most": torch.randint(5, vocab, (most_of(model.config),), generator=generator).tolist(),
           "some": torch.randint(5, vocab, (9,), generator=generator).tolist()}
    # A text may spell the token that pads; it is seen, and in RoBERTa has a position of its own.
    ids["padded"] = ids["some"][:4] + [pad] + ids["some"][4:] + [pad]
    types = {name: [0] * len(values) for name, values in ids.items()}
    if model.config.model_type == "bert":
        ids["pair"] = ids["most"][5:]
        types["pair"] = [0] * 7 + [1] * (len(ids["pair"]) - 7)
    return {name: (torch.tensor(ids[name]), torch.tensor(types[name])) for name in ids}


def golden_of(model, vocab, seed):
    golden, all_of = {}, sequences(model, vocab, seed)
    for name, (ids, types) in all_of.items():
        hidden, pooled, logits = run(model, ids[None], types[None])
        golden[f"{name}.input_ids"] = ids.to(torch.int32)
        golden[f"{name}.types"] = types.to(torch.int32)
        golden[f"{name}.last_hidden"] = hidden[0]
        if logits is not None:
            golden[f"{name}.logits"] = logits[0]
        elif pooled is not None:
            golden[f"{name}.pooler"] = pooled[0]
    longest = max(len(ids) for ids, _ in all_of.values())
    pad = model.config.pad_token_id
    batch = torch.full((len(all_of), longest), pad)
    types_batch, mask = torch.zeros_like(batch), torch.zeros_like(batch)
    for i, (ids, types) in enumerate(all_of.values()):
        batch[i, :len(ids)], types_batch[i, :len(ids)], mask[i, :len(ids)] = ids, types, 1
    hidden = run(model, batch, types_batch, mask)[0]
    for i, (name, (ids, _)) in enumerate(all_of.items()):
        difference = float((hidden[i, :len(ids)] - golden[f"{name}.last_hidden"]).abs().max())
        if not difference <= BATCH_ATOL:
            sys.exit(f"{name}: hidden states in a batch differ by {difference:.1e}")
    return golden


def pool(kind, hidden):
    if kind == "cls_token":
        return hidden[0]
    if kind == "lasttoken":
        return hidden[-1]
    if kind == "max_tokens":
        return hidden.max(0).values
    if kind == "weightedmean_tokens":
        weights = torch.arange(1, len(hidden) + 1, dtype=hidden.dtype)[:, None]
        return (hidden * weights).sum(0) / weights.sum()
    return hidden.sum(0) / len(hidden) ** (0.5 if kind == "mean_sqrt_len_tokens" else 1)


def expected_of(name, model, tokenizer):
    pooling = MODELS[name][3]
    rows = []
    tokenizer.enable_truncation(most_of(model.config), strategy="longest_first")
    for text in TEXTS + ([] if pooling else PAIRS):
        encoded = tokenizer.encode(text) if isinstance(text, str) else tokenizer.encode(*text)
        ids, types = torch.tensor([encoded.ids]), torch.tensor([encoded.type_ids])
        hidden, _, logits = run(model, ids, types)
        row = {"text": text, "ids": encoded.ids, "types": encoded.type_ids}
        if pooling:
            embeddings = {kind: pool(kind, hidden[0]) for kind in POOLINGS}
            if pooling[1]:
                embeddings = {kind: torch.nn.functional.normalize(value, dim=0) for kind, value in embeddings.items()}
            row["embeddings"] = {kind: rounded(value) for kind, value in embeddings.items()}
        else:
            single = model.config.num_labels > 1 and model.config.problem_type != "multi_label_classification"
            row["probabilities"] = rounded(torch.softmax(logits[0], 0) if single else torch.sigmoid(logits[0]))
        rows.append(row)
    tokenizer.no_truncation()
    return rows


def write_modules(target, hidden, kind, normalize):
    """What sentence-transformers writes beside a model."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")] + ([("Normalize", "2_Normalize")] if normalize else [])
    (target / "modules.json").write_text(json.dumps([
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{module}"}
        for i, (module, path) in enumerate(modules)], indent=1) + "\n")
    prompts = {"prompts": {"query": "Query: ", "document": ""}, "default_prompt_name": None}
    (target / "config_sentence_transformers.json").write_text(json.dumps(prompts) + "\n")
    (target / "1_Pooling").mkdir(exist_ok=True)
    modes = {f"pooling_mode_{mode}": mode == kind for mode in POOLINGS}
    (target / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": hidden, **modes, "include_prompt": True}, indent=1) + "\n")


def write(name, folder):
    class_name, kind, members, pooling = MODELS[name]
    seed = SEED + list(MODELS).index(name)
    torch.manual_seed(seed)
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    stored_tokenizer = target / "tokenizer.json"
    # Training is not reproducible.
    tokenizer = Tokenizer.from_file(str(stored_tokenizer)) if stored_tokenizer.exists() else make_tokenizer(kind)
    vocab = tokenizer.get_vocab_size()
    model = build(name, vocab)
    fill(model, seed)
    stored = build(name, vocab)
    stored.load_state_dict(model.state_dict())
    stored.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save(str(stored_tokenizer), pretty=False)
    if pooling:
        write_modules(target, model.config.hidden_size, *pooling)
    (target / "generation_config.json").unlink(missing_ok=True)
    rows = expected_of(name, model, tokenizer)
    (target / "expected.json").write_text("[" + ",\n ".join(json.dumps(row) for row in rows) + "]\n")
    if "head_dim" in members:  # states of decoders are compared elsewhere
        return {"class": class_name}
    golden = golden_of(model, vocab, seed)
    safetensors.torch.save_file({key: value.contiguous() for key, value in golden.items()},
                                target / "golden.safetensors")
    double = build(name, vocab)
    double.load_state_dict(model.state_dict())
    double.to(torch.float64)
    difference = max(float((run(double, ids[None], types[None])[0][0] - golden[f"{sequence}.last_hidden"]).abs().max())
                     for sequence, (ids, types) in sequences(model, vocab, seed).items())
    return {"class": class_name, "f32_against_f64": difference}


def write_all(arguments):
    index_path = arguments.path / "index.json"
    index = json.loads(index_path.read_text()) if index_path.exists() else {"models": {}}
    index["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__,
                         "tokenizers": tokenizers.__version__}
    for name in arguments.only or MODELS:
        index["models"][name] = write(name, arguments.path)
        print(name, index["models"][name])
    index_path.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    return True


def section_of(sections, config_class):
    stem = config_class.removesuffix("Config")
    own = [body for title, body in sections.items() if stem in re.split(r"[, ]+", title)]
    if len(own) != 1:
        sys.exit(f"{len(own)} sections are of {stem}, wanted one")
    return own[0]


def check_keys(arguments):
    classes = ("BertConfig", "CamembertConfig", "DistilBertConfig", "MPNetConfig", "RobertaConfig", "XLMRobertaConfig")
    return config_keys.check(arguments.path, classes, "All encoders", section_of)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("--only", nargs="*", choices=list(MODELS))
    for command in (writing, commands.add_parser("keys")):
        command.add_argument("path", type=pathlib.Path)
    arguments = parser.parse_args()
    return 0 if (write_all if arguments.command == "write" else check_keys)(arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
