#!/usr/bin/env python3
"""Files of every kind with one thing wrong: the command that reads one ends with exit code 4 and one sentence that names the file,
and leaves nothing behind. The files are made here, from the bundled model and from small ones.

usage: malformed.py [--show]: prints every sentence, for a human to judge
"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

ASSAY = os.path.join(os.environ["ASSAY_BIN"], "assay")
BUNDLED = os.path.join(os.environ["ASSAY_SOURCE"], "models", "assay-tiny")
BAD_INPUT = 4
HUGE = 2**63
DEADLINE_S = 20


class Weights:
    """A safetensors file in memory: tensors as name -> (dtype, shape, bytes), and what of its header is wrong."""

    def __init__(self, tensors):
        self.header, data = {}, b""
        for name, (dtype, shape, content) in tensors.items():
            self.header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
            data += content
        self.data = data

    def bytes(self, text=None, length=None):
        text = json.dumps(self.header).encode() if text is None else text
        return struct.pack("<Q", len(text) if length is None else length) + text + self.data


def tiny_config(**changes):
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64,
              "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32,
              "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
              "vocab_size": 64, "torch_dtype": "float32"}
    config.update(changes)
    return {key: value for key, value in config.items() if value is not Ellipsis}


def f32(*shape):
    count = 1
    for size in shape:
        count *= size
    return "F32", list(shape), struct.pack(f"<{count}f", *(((i * 37) % 101 - 50) / 64 for i in range(count)))


def tiny_tensors():
    tensors = {"model.embed_tokens.weight": f32(64, 64), "model.norm.weight": f32(64)}
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"model.layers.0.{name}.weight"] = f32(64)
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
                 "mlp.down_proj"):
        tensors[f"model.layers.0.{name}.weight"] = f32(64, 64)
    return tensors


class Corpus:
    """The cases: (name, words of which the sentence has one, arguments, words that it has). Each has a directory of its own."""

    def __init__(self, scratch):
        self.scratch, self.cases = scratch, []

    def directory(self, name):
        path = os.path.join(self.scratch, name.replace(" ", "-").replace("/", "-"))
        os.mkdir(path)
        return path

    def add(self, name, wrong, *args, words=()):
        self.cases.append((name, wrong, args, words))

    def model(self, name, config=None, weights=None, wrong="model.safetensors", command="logits", files=(), words=()):
        """A tiny model with one file given as bytes; the rest is right."""
        path = self.directory(name)
        contents = {"config.json": json.dumps(tiny_config()).encode() if config is None else config,
                    "model.safetensors": Weights(tiny_tensors()).bytes() if weights is None else weights, **dict(files)}
        for file, content in contents.items():
            if content is not None:
                with open(os.path.join(path, file), "wb") as out:
                    out.write(content)
        ids = os.path.join(self.scratch, "ids.json")
        out = os.path.join(path, "out")
        rest = {"logits": ("--ids", ids, "-o", out, "--threads", "1"), "dequantize": ("-o", out),
                "quantize": ("--scheme", "int8", "-o", out, "--threads", "1")}[command]
        self.add(f"{command}: {name}", wrong, command, path, *rest, words=words)


def change_header(change):
    weights = Weights(tiny_tensors())
    change(weights.header)
    return weights.bytes()


def safetensors(corpus):
    whole = Weights(tiny_tensors())
    good, name = whole.bytes(), "model.norm.weight"
    text = json.dumps(whole.header)

    def field(key, value):
        return change_header(lambda header: header[name].__setitem__(key, value))

    begin, end = whole.header[name]["data_offsets"]
    cases = {
        "empty": b"", "of 7 bytes": good[:7], "without header": good[:8], "with half a header": good[:100],
        "without its last byte": good[:-1], "with one byte more": good + b"\0", "cut in the middle": good[:len(good) // 2],
        "header length 0": whole.bytes(length=0), "header length 2^63": whole.bytes(length=HUGE),
        "header length 2^64-1": whole.bytes(length=2**64 - 1), "header longer than the file": whole.bytes(length=len(good)),
        "header shorter than it is": whole.bytes(length=50), "header not JSON": whole.bytes(text=b"x" * 64),
        "header an array": whole.bytes(text=b"[1, 2, 3, 4, 5]"), "header not UTF-8": whole.bytes(text=b'{"\xff": 1}    '),
        "header deeply nested": whole.bytes(text=b"[" * 5000 + b"]" * 5000),
        "header with a key twice": whole.bytes(text=(text[:-1] + "," + json.dumps(name) + ":" + json.dumps(whole.header[name]) + "}").encode()),
        "unknown dtype": field("dtype", "F7"), "dtype a number": field("dtype", 3), "dtype of another size": field("dtype", "F16"),
        "shape not an array": field("shape", 64), "shape negative": field("shape", [-64]), "shape a fraction": field("shape", [63.5]),
        "shape overflows": field("shape", [2**32, 2**32, 2**32]), "shape too large": field("shape", [2**40]),
        "shape a text": field("shape", ["64"]), "shape of nine dimensions": field("shape", [1] * 40 + [64]),
        "offsets missing": change_header(lambda header: header[name].pop("data_offsets")),
        "offsets backwards": field("data_offsets", [end, begin]), "offsets beyond the file": field("data_offsets", [2**40, 2**40 + 256]),
        "offsets negative": field("data_offsets", [-256, 0]), "offsets overlap": field("data_offsets", [begin - 4, end - 4]),
        "offsets of one number": field("data_offsets", [begin]), "offsets of huge numbers": field("data_offsets", [1e300, 1e301]),
        "tensor not an object": change_header(lambda header: header.__setitem__(name, 7)),
        "metadata a number": change_header(lambda header: header.__setitem__("__metadata__", 7)),
        "metadata of numbers": change_header(lambda header: header.__setitem__("__metadata__", {"format": 7})),
    }
    for what, content in cases.items():
        for command in ("logits", "quantize"):
            corpus.model(f"{command} safetensors {what}", weights=content, command=command)

    def tensors(**changes):
        made = tiny_tensors()
        for key, value in changes.items():
            made[key.replace("__", ".")] = value
        return Weights({key: value for key, value in made.items() if value is not None}).bytes()

    q_proj, nan = "model.layers.0.self_attn.q_proj.weight", ("F32", [64, 64], struct.pack("<f", float("nan")) * 4096)
    for what, value in {"missing": None, "of another shape": f32(64, 32), "of one dimension": f32(4096),
                        "of integers": ("I64", [64, 64], bytes(8 * 4096))}.items():
        corpus.model(f"tensor {what}", weights=tensors(**{q_proj: value}), wrong=q_proj)
    corpus.model("tensor of NaN", weights=tensors(**{q_proj: nan}), wrong=q_proj, command="quantize", words=("NaN", "row 0, column 0"))
    corpus.model("tensor infinite", weights=tensors(**{q_proj: ("F16", [64, 64], b"\0\x7c" * 4096)}), wrong=q_proj, command="quantize")
    corpus.model("no linear weights", weights=Weights({"model.embed_tokens.weight": f32(64, 64)}).bytes(), wrong="no-linear-weights", command="quantize")
    corpus.model("no head", weights=tensors(**{"model.embed_tokens.weight": None}), wrong="no-head", command="quantize")


def indexes(corpus):
    shard = Weights(tiny_tensors()).bytes()
    names = list(tiny_tensors())
    good = {"metadata": {}, "weight_map": {name: "a.safetensors" for name in names}}

    def mapped(value, **more):
        return json.dumps({"weight_map": {**good["weight_map"], **more}} if value is None else value).encode()

    cases = {
        "empty": b"", "not JSON": b"{", "an array": b"[]", "without map": b"{}", "map an array": b'{"weight_map": []}', "map empty": b'{"weight_map": {}}',
        "file a number": mapped(None, **{names[0]: 7}), "file outside": mapped(None, **{names[0]: "../a.safetensors"}),
        "file absolute": mapped(None, **{names[0]: "/etc/passwd"}), "file missing": mapped(None, **{names[0]: "b.safetensors"}),
        "tensor that is nowhere": mapped(None, **{"model.extra.weight": "a.safetensors"}), "deeply nested": b'{"weight_map": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        "a key twice": b'{"weight_map": {}, "weight_map": {"a": "a.safetensors"}}',
        "shards without number": mapped({"weight_map": {f"t{i}": f"s{i}.safetensors" for i in range(5000)}}),
    }
    for what, content in cases.items():
        corpus.model(f"index {what}", command="quantize", wrong=f"index-{what.replace(' ', '-')}",
                     files={"model.safetensors": None, "a.safetensors": shard, "model.safetensors.index.json": content})
    corpus.model("tensor in two shards", command="quantize", wrong="tensor-in-two-shards",
                 files={"model.safetensors": None, "a.safetensors": shard, "b.safetensors": shard,
                        "model.safetensors.index.json": mapped(None, **{names[0]: "b.safetensors"})})


def configs(corpus):
    def raw(**changes):
        return json.dumps(tiny_config(**changes)).encode()

    cases = {
        "empty": b"", "an array": b"[]", "a number": b"7", "cut": raw()[:40], "not UTF-8": b'{"a": "\xff"}', "NaN": raw(rms_norm_eps=float("nan")),
        "Infinity": raw(rope_theta=float("inf")), "deeply nested": b'{"a":' * 3000 + b"1" + b"}" * 3000, "a key twice": raw()[:-1] + b', "hidden_size": 32}',
        "huge number": raw().replace(b'"hidden_size": 64', b'"hidden_size": 1e999'), "eps negative": raw(rms_norm_eps=-1e-5), "eps a text": raw(rms_norm_eps="small"),
        "theta 0": raw(rope_theta=0), "rope_scaling a number": raw(rope_scaling=7), "rope of unknown type": raw(rope_scaling={"type": "magic", "factor": 2.0}),
        "rope factor 0": raw(rope_scaling={"type": "linear", "factor": 0}), "architectures a text": raw(architectures="LlamaForCausalLM"),
        "architectures empty": raw(architectures=[]), "architectures missing": raw(architectures=...), "heads do not divide": raw(num_attention_heads=3, head_dim=...),
        "more key heads than heads": raw(num_key_value_heads=4), "key heads do not divide": raw(num_attention_heads=4, num_key_value_heads=3, head_dim=16),
        "head_dim odd": raw(head_dim=31), "tie a text": raw(tie_word_embeddings="yes"), "assay compute unknown": raw(assay={"compute": "int3"}),
    }
    for size in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        for what, value in {"missing": ..., "0": 0, "negative": -64, "a fraction": 63.5, "a text": "64", "huge": 1e18, "null": None, "2^63": HUGE}.items():
            cases[f"{size} {what}"] = raw(**{size: value})
    for what, content in cases.items():
        corpus.model(f"config {what}", config=content, wrong="config-" + what.replace(" ", "-").replace("/", "-"))


def quantized(corpus, scratch):
    """Changes to artifacts that assay made, by their quantization_config and by their tensors."""
    changes = {
        "int8": [{"num_bits": 7}, {"num_bits": "8"}, {"num_bits": -8}, {"num_bits": 1e300}, {"type": "float"}, {"symmetric": False}, {"strategy": "tensor"},
                 {"strategy": 7}, {"dynamic": True}],
        "int4": [{"num_bits": 3}, {"group_size": 0}, {"group_size": -32}, {"group_size": 31}, {"group_size": 2**40}, {"group_size": "32"}, {"group_size": None},
                 {"strategy": "block"}, {"actorder": "group"}],
    }
    source = corpus.directory("source")
    for file, content in (("config.json", json.dumps(tiny_config()).encode()), ("model.safetensors", Weights(tiny_tensors()).bytes())):
        with open(os.path.join(source, file), "wb") as out:
            out.write(content)
    for scheme in ("int8", "int4", "nf4", "nf4:double_quant=false"):
        made = os.path.join(scratch, "made-" + scheme.replace(":", "-"))
        subprocess.run([ASSAY, "quantize", source, "--scheme", scheme, "-o", made, "--threads", "1"], check=True, capture_output=True)
        with open(os.path.join(made, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        with open(os.path.join(made, "model.safetensors"), "rb") as file:
            content = file.read()
        length = struct.unpack("<Q", content[:8])[0]
        header, data = json.loads(content[8:8 + length]), content[8 + length:]
        wrong_configs(corpus, scheme, config, content, changes.get(scheme, []))
        wrong_parts(corpus, scheme, config, header, data)


def wrong_configs(corpus, scheme, config, content, changes):
    def add(what, quantization):
        name = f"{scheme} quantization_config {what}".replace(":", "-").replace("'", "").replace('"', "")
        text = json.dumps({**config, "quantization_config": quantization}).encode()
        corpus.model(name, config=text, weights=content, wrong="config.json|model.layers.0")
        if "strategy-tensor" not in name:  # dequantize reads one scale a tensor
            corpus.model(f"dequantize {name}", config=text, weights=content, wrong="config.json|model.layers.0", command="dequantize")

    good = config["quantization_config"]
    for what, value in {"a number": 7, "an array": [], "empty": {}, "without method": {**good, "quant_method": None}, "of another method": {**good, "quant_method": "quip"},
                        "method a number": {**good, "quant_method": 8}}.items():
        add(what, value)
    if scheme.startswith("nf4"):
        for what, value in {"fp4": {**good, "bnb_4bit_quant_type": "fp4"}, "8 bit": {**good, "load_in_4bit": False, "load_in_8bit": True},
                            "type a number": {**good, "bnb_4bit_quant_type": 4}}.items():
            add(what, value)
        return
    for what, value in {"format unknown": {**good, "format": "marlin-24"}, "groups missing": {**good, "config_groups": {}}, "groups an array": {**good, "config_groups": [1]},
                        "group a number": {**good, "config_groups": {"group_0": 7}}, "weights missing": {**good, "config_groups": {"group_0": {"targets": ["Linear"]}}}}.items():
        add(what, value)
    for change in changes:
        group = good["config_groups"]["group_0"]
        add(str(change).replace(" ", ""), {**good, "config_groups": {"group_0": {**group, "weights": {**group["weights"], **change}}}})


def wrong_parts(corpus, scheme, config, header, data):
    module = "model.layers.0.mlp.up_proj"
    parts = sorted(name for name in header if name.startswith(module))
    tensors = {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])]) for name, entry in header.items() if name != "__metadata__"}
    config = json.dumps(config).encode()

    def add(what, part, value):
        made = {name: content for name, content in {**tensors, part: value}.items() if content is not None}
        name = f"{scheme} {part.replace(module, 'up_proj')} {what}".replace(":", "-")
        for command in ("logits", "dequantize"):
            corpus.model(f"{command} {name}", config=config, weights=Weights(made).bytes(), wrong=module, command=command)

    for part in parts:
        dtype, shape, content = tensors[part]
        if "weight_shape" not in part:
            add("missing", part, None)
        add("of another dtype", part, ("BOOL", [len(content)], content))
        add("of another size", part, (dtype, [0], b""))
    for part in (part for part in parts if "quant_state" in part):
        for what, text in {"not JSON": b"{", "an array": b"[]", "empty object": b"{}", "block 0": tensors[part][2].replace(b'"blocksize": 64', b'"blocksize": 0 '),
                           "block negative": tensors[part][2].replace(b'"blocksize": 64', b'"blocksize": -4'), "shape huge": tensors[part][2].replace(b"[64, 64]", b"[9e9, 64]"),
                           "shape of another matrix": tensors[part][2].replace(b"[64, 64]", b"[32, 32]"), "not UTF-8": b"\xff" * 8}.items():
            add(what, part, ("U8", [len(text)], text))


def tokenizers(corpus):
    with open(os.path.join(BUNDLED, "tokenizer.json"), "rb") as file:
        good = file.read()
    content = json.loads(good)

    def changed(**changes):
        return json.dumps({**content, **changes}).encode()

    cases = {
        "empty": b"", "not JSON": b"{", "an array": b"[]", "cut": good[:5000], "not UTF-8": good[:200] + b"\xff" + good[200:], "without model": changed(model=None),
        "model a number": changed(model=7), "model of unknown type": changed(model={"type": "Magic"}), "vocabulary an array": changed(model={**content["model"], "vocab": []}),
        "ids negative": changed(model={**content["model"], "vocab": {"a": -1}}), "ids huge": changed(model={**content["model"], "vocab": {"a": 2**40}}),
        "merges of numbers": changed(model={**content["model"], "merges": [1, 2]}), "merges of unknown tokens": changed(model={**content["model"], "merges": [["no", "such"]]}),
        "normalizer unknown": changed(normalizer={"type": "Magic"}), "added tokens a text": changed(added_tokens="x"), "deeply nested": b'{"a":' * 3000 + b"1" + b"}" * 3000,
    }
    text = os.path.join(corpus.scratch, "text.txt")
    for what, value in cases.items():
        path = corpus.directory(f"tokenizer {what}")
        with open(os.path.join(path, "tokenizer.json"), "wb") as file:
            file.write(value)
        corpus.add(f"tokenizer {what}", "tokenizer.json", "tokenize", path, "--file", text)


class Gguf:
    """A GGUF file: keys as (name, type, bytes) and tensors as (name, dimensions, type, offset)."""

    def __init__(self):
        self.version, self.keys, self.tensors, self.data = 3, [], [], b""

    @staticmethod
    def text(value):
        value = value if isinstance(value, bytes) else value.encode()
        return struct.pack("<Q", len(value)) + value

    def bytes(self, keys=None, tensors=None, magic=b"GGUF"):
        out = magic + struct.pack("<IQQ", self.version, len(self.tensors) if tensors is None else tensors, len(self.keys) if keys is None else keys)
        for name, kind, value in self.keys:
            out += self.text(name) + struct.pack("<I", kind) + value
        for name, dimensions, kind, offset in self.tensors:
            out += self.text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)
        return out + bytes(-len(out) % 32) + self.data


def llama_gguf(change=None):
    gguf = Gguf()
    numbers = {"block_count": 1, "context_length": 64, "embedding_length": 8, "feed_forward_length": 8, "attention.head_count": 2, "attention.head_count_kv": 2}
    gguf.keys = [("general.architecture", 8, Gguf.text("llama"))] + [(f"llama.{key}", 4, struct.pack("<I", value)) for key, value in numbers.items()]
    gguf.keys.append(("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)))
    words = [chr(c) for c in range(33, 127)]
    gguf.keys += [("tokenizer.ggml.model", 8, Gguf.text("gpt2")), ("tokenizer.ggml.pre", 8, Gguf.text("gpt-2")),
                  ("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, len(words)) + b"".join(map(Gguf.text, words))),
                  ("tokenizer.ggml.token_type", 9, struct.pack(f"<IQ{len(words)}i", 5, len(words), *[1] * len(words))),
                  ("tokenizer.ggml.merges", 9, struct.pack("<IQ", 8, 0))]
    shapes = {"token_embd.weight": [8, len(words)], "output_norm.weight": [8], "blk.0.attn_norm.weight": [8], "blk.0.ffn_norm.weight": [8]}
    shapes.update({f"blk.0.{name}.weight": [8, 8] for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")})
    for name, dimensions in shapes.items():
        count = dimensions[0] * (dimensions[1] if len(dimensions) > 1 else 1)
        gguf.tensors.append((name, dimensions, 0, len(gguf.data)))
        gguf.data += struct.pack(f"<{count}f", *[0.5] * count)
        gguf.data += bytes(-len(gguf.data) % 32)
    if change:
        change(gguf)
    return gguf


def gguf_files(corpus):
    good = llama_gguf().bytes()

    def key(name, kind, value):
        def change(gguf):
            gguf.keys = [(name, kind, value) if row[0] == name else row for row in gguf.keys]
        return llama_gguf(change).bytes()

    def tensor(index, name=None, dimensions=None, kind=None, offset=None):
        def change(gguf):
            old = gguf.tensors[index]
            gguf.tensors[index] = tuple(mine if mine is not None else his for mine, his in zip((name, dimensions, kind, offset), old))
        return llama_gguf(change).bytes()

    def version(number):
        return llama_gguf(lambda gguf: setattr(gguf, "version", number)).bytes()

    last = llama_gguf().tensors[-1]
    cases = {
        "empty": b"", "cut in the magic": good[:3], "of another magic": llama_gguf().bytes(magic=b"GGML"), "cut in the counts": good[:20], "cut in the keys": good[:200],
        "cut in the tensors": good[:-5000] if len(good) > 6000 else good[:1500], "without its last bytes": good[:-64], "version 1": version(1), "version 99": version(99),
        "2^63 keys": llama_gguf().bytes(keys=HUGE), "2^63 tensors": llama_gguf().bytes(tensors=HUGE), "one key too many": llama_gguf().bytes(keys=len(llama_gguf().keys) + 1),
        "key of a huge length": good.replace(struct.pack("<Q", len("llama.block_count")) + b"llama.block_count", struct.pack("<Q", HUGE) + b"llama.block_count"),
        "key twice": llama_gguf(lambda gguf: gguf.keys.append(gguf.keys[1])).bytes(), "key not UTF-8": llama_gguf(lambda gguf: gguf.keys.append((b"\xff\xfe", 4, bytes(4)))).bytes(),
        "value of unknown type": key("llama.block_count", 99, bytes(4)), "block_count a text": key("llama.block_count", 8, Gguf.text("one")),
        "block_count 0": key("llama.block_count", 4, struct.pack("<I", 0)), "block_count negative": key("llama.block_count", 5, struct.pack("<i", -1)),
        "block_count huge": key("llama.block_count", 10, struct.pack("<Q", HUGE)), "heads do not divide": key("llama.attention.head_count", 4, struct.pack("<I", 3)),
        "epsilon NaN": key("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", float("nan"))), "architecture unknown": key("general.architecture", 8, Gguf.text("mamba")),
        "tokens of numbers": key("tokenizer.ggml.tokens", 9, struct.pack("<IQ4I", 4, 4, 1, 2, 3, 4)), "array of 2^60": key("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2**60)),
        "array of arrays": key("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 4, 0)), "tokenizer unknown": key("tokenizer.ggml.model", 8, Gguf.text("magic")),
        "tensor twice": tensor(1, name="token_embd.weight"), "tensor missing": tensor(2, name="blk.0.attn_nose.weight"), "tensor of unknown type": tensor(3, kind=77),
        "tensor of nine dimensions": tensor(3, dimensions=[1] * 9), "tensor of size 0": tensor(3, dimensions=[0]), "tensor overflows": tensor(3, dimensions=[2**62, 2**62]),
        "tensor beyond the file": tensor(-1, offset=2**40), "tensor not aligned": tensor(1, offset=last[3] + 4), "tensors overlap": tensor(2, offset=0),
        "tensor of another shape": tensor(4, dimensions=[4, 16]), "tensor of blocks that do not divide": tensor(4, kind=8),
    }
    for what, value in cases.items():
        path = corpus.directory(f"gguf {what}")
        file = os.path.join(path, "model.gguf")
        with open(file, "wb") as out:
            out.write(value)
        corpus.add(f"gguf {what}", "model.gguf", "import", file, "-o", os.path.join(path, "out"))


def jobs_and_texts(corpus):
    good = f"model: {BUNDLED}\nvariants: [int8]\ncorpus: {corpus.scratch}/text.txt\n"
    cases = {
        "empty": b"", "not YAML": b"a: [", "a list": b"- a\n- b\n", "a text": b"model", "not UTF-8": b"model: \xff\xfe\n", "a key twice": (good + "model: other\n").encode(),
        "unknown key": (good + "colour: red\n").encode(), "a key of another type": good.replace("[int8]", "7").encode(), "chunks negative": (good + "chunks: -1\n").encode(),
        "chunks a text": (good + "chunks: many\n").encode(), "chunks huge": (good + "chunks: 1e99\n").encode(), "deeply nested": b"a: " + b"[" * 2000 + b"]" * 2000,
        "an alias bomb": b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nmodel: *c\n", "a tag": b"model: !!python/object:os.system x\n", "two documents": (good + "---\n" + good).encode(),
        "a tab": b"model:\n\t- x\n", "a NUL": b"model: a\0b\n", "unknown scheme": good.replace("int8", "int99").encode(),
    }
    for what, value in cases.items():
        path = corpus.directory(f"job {what}")
        file = os.path.join(path, "job.yaml")
        with open(file, "wb") as out:
            out.write(value)
        corpus.add(f"job {what}", "job.yaml", "eval", "--job", file, "--out", os.path.join(path, "out"), "--data", os.path.join(path, "data"))
    texts = {"latin-1": "caf\xe9 ".encode("latin-1") * 2000, "utf-16": "a text ".encode("utf-16") * 2000, "cut in a character": b"word " * 2000 + b"\xe2\x82",
             "surrogates": b"word \xed\xa0\x80 " * 2000, "overlong": b"word \xc0\xaf " * 2000, "binary": bytes(range(256)) * 40, "empty": b""}
    for what, value in texts.items():
        path = corpus.directory(f"text {what}")
        file = os.path.join(path, "corpus.txt")
        with open(file, "wb") as out:
            out.write(value)
        corpus.add(f"text {what}", "corpus.txt", "eval", BUNDLED, "--variants", "int8", "--corpus", file, "--out", os.path.join(path, "out"),
                   "--data", os.path.join(path, "data"))


def listing(path):
    return sorted(os.path.join(folder, name) for folder, folders, files in os.walk(path) for name in folders + files)


def judge(case):
    """What is wrong with how the command ends; None when nothing is."""
    name, wrong, args, words = case
    path = next((arg for arg in args if os.path.exists(arg)), ".")
    path = path if os.path.isdir(path) else os.path.dirname(path)
    before = listing(path) if path != BUNDLED else []
    process = subprocess.run([ASSAY, *args], capture_output=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL)
    said = process.stderr.decode("utf-8", "replace")
    lines = said.splitlines()
    fault = None
    if process.returncode != BAD_INPUT:
        fault = f"exit code {process.returncode}, wanted {BAD_INPUT}"
    elif len(lines) != 1 or not said.startswith(f"assay {args[0]}: ") or process.stdout:
        fault = "wanted one line on stderr alone"
    elif not any(word in said for word in wrong.split("|")) or not all(word in said for word in words):
        fault = f"wanted the words {(wrong, *words)}"
    elif before and listing(path) != before:
        fault = f"it left {sorted(set(listing(path)) - set(before))}"
    return fault, said.strip()


def main():
    with tempfile.TemporaryDirectory(prefix="assay-malformed-") as scratch:
        corpus = Corpus(scratch)
        with open(os.path.join(scratch, "ids.json"), "w", encoding="utf-8") as file:
            file.write("[1, 2, 3]")
        with open(os.path.join(scratch, "text.txt"), "w", encoding="utf-8") as file:
            file.write("Some words. " * 50)
        for kind in (safetensors, indexes, configs, tokenizers, gguf_files, jobs_and_texts):
            kind(corpus)
        quantized(corpus, scratch)
        with ThreadPoolExecutor(max_workers=4) as pool:
            results = list(pool.map(judge, corpus.cases))
        failures = 0
        for (name, *_), (fault, said) in zip(corpus.cases, results):
            said = said.replace(scratch, "SCRATCH").replace(os.environ["ASSAY_SOURCE"], "SOURCE")
            if fault:
                print(f"FAILED: {name}: {fault}\n    {said}")
                failures += 1
            elif "--show" in sys.argv:
                print(f"{name}: {said}")
        shutil.rmtree(scratch, ignore_errors=True)
        os.mkdir(scratch)
    print(f"malformed: {len(results)} files, {failures} failures")
    sys.exit(1 if failures or len(results) < 300 else 0)


main()
