#!/usr/bin/env python3
"""Writes tests/vectors/bert_classifier: a seeded random BertForSequenceClassification of three labels with a tokenizer of
some words, and what transformers makes of some texts (expected.json). Needs torch, transformers and tokenizers.

usage: make_classifier.py DIRECTORY
"""
import json
import os
import sys

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification

WORDS = "[PAD] [UNK] [CLS] [SEP] you are a kind very rude dog cat never always ##s ##ly . ! so".split()
TEXTS = ["You are so kind!", "a very rude dog", "cats never", "", "unknown words here", "always " * 40]


def make_tokenizer():
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", WORDS.index("[CLS]")), ("[SEP]", WORDS.index("[SEP]"))])
    return tokenizer


def main():
    directory = sys.argv[1]
    torch.manual_seed(20)
    config = BertConfig(vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=48, max_position_embeddings=24, type_vocab_size=2,
                        id2label={0: "kind", 1: "rude", 2: "other"}, label2id={"kind": 0, "rude": 1, "other": 2})
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(directory)
    tokenizer = make_tokenizer()
    tokenizer.save(os.path.join(directory, "tokenizer.json"))
    rows = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        if len(ids) > config.max_position_embeddings:
            ids = ids[:config.max_position_embeddings - 1] + ids[-1:]
        with torch.no_grad():
            scores = model(torch.tensor([ids])).logits[0]
        rows.append({"text": text, "softmax": torch.softmax(scores, 0).tolist(), "sigmoid": torch.sigmoid(scores).tolist()})
    with open(os.path.join(directory, "expected.json"), "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
