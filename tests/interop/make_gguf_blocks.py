#!/usr/bin/env python3
"""Random blocks of every quantized GGUF type with the values that the package gguf gives them.

Not part of any test tier: it needs an environment of its own (the versions are written into the file's metadata).

    python3 -m venv VENV && VENV/bin/pip install gguf==0.19.0 safetensors numpy
    VENV/bin/python tests/interop/make_gguf_blocks.py tests/vectors/gguf/blocks.safetensors

TYPE.blocks U8 [blocks, bytes], TYPE.values F32 [blocks, elements]. Bytes are random but for the halves that scale the
block: half of the blocks have one between 2^-14 and 2^-2, the others are the ends of the range (zeros of both signs, the
smallest, the largest). The last two blocks are all zero and all ones but for those halves.
"""
import argparse
import struct

import gguf
import numpy
import safetensors.numpy

SEED = 20261121
# where the halves of a block stand
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}
ENDS = [0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff]


def blocks_of(name, generator):
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    count = 32 if elements == 32 else 12
    blocks = generator.integers(0, 256, (count, size), dtype=numpy.uint8)
    blocks[-2], blocks[-1] = 0, 255
    for i, block in enumerate(blocks):
        for at in HALVES[name]:
            small = numpy.float16(generator.uniform(2**-14, 2**-2) * generator.choice([-1, 1]))
            half = small.tobytes() if i % 2 == 0 else struct.pack("<H", generator.choice(ENDS))
            block[at:at + 2] = numpy.frombuffer(half, numpy.uint8)
    return blocks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    arguments = parser.parse_args()
    generator = numpy.random.default_rng(SEED)
    tensors = {}
    for name in HALVES:
        blocks = blocks_of(name, generator)
        values = gguf.dequantize(blocks, gguf.GGMLQuantizationType[name])
        assert values.dtype == numpy.float32 and numpy.isfinite(values).all(), name
        tensors[f"{name}.blocks"] = blocks
        tensors[f"{name}.values"] = values.reshape(len(blocks), -1)
    safetensors.numpy.save_file(tensors, arguments.file, metadata={"gguf": "0.19.0", "numpy": numpy.__version__})


if __name__ == "__main__":
    main()
