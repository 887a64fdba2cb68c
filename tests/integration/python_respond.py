#!/usr/bin/env python3
"""Responses, embeddings and classes through the Python client: those of the command line; many threads at once; cancelled; failures as exceptions."""

import concurrent.futures
import json
import math
import os
import subprocess

from python_side import need

need(("zmq", "google.protobuf"), "tools/install_deps.sh --checks installs them", must_in_ci=True)

from stack import BIN, MODEL, SOURCE, Directory, Stack, assay, check, finish, wait_for  # noqa: E402

from assay import AssayError, Client, Status, pb  # noqa: E402  (on the path since need())

CLASSIFIER = os.path.join(SOURCE, "tests", "vectors", "bert_classifier")
TEXTS = [f"you are {'very ' * (i % 5)}kind {i % 11}" for i in range(1100)]


def fails(what, status, call):
    try:
        call()
    except AssayError as error:
        check(error.status is status and error.sentence, f"{what}: {error}")
        return
    check(False, f"{what} fails")


def joined(messages):
    messages = list(messages)
    check(messages[-1].HasField("finish"), "the last message says why it ended")
    return (
        "".join(message.text for message in messages),
        [i for message in messages for i in message.ids],
        [p for message in messages for p in message.logprobs],
    )


def check_generate(client):
    line = assay("generate", MODEL, "--prompt", "The king", "--max-tokens", "30", "--temperature", "0.7", "--seed", "3", "--json")
    wanted = json.loads(line)[0]["responses"][0]
    found = joined(client.generate(MODEL, "The king", tokens_max=30, temperature=0.7, seed=3))
    check(found[:2] == (wanted["text"], wanted["ids"]), "a response is that of the command line")
    # JSON has 15 digits of them.
    check(all(math.isclose(a, b, rel_tol=1e-14) for a, b in zip(found[2], wanted["logprobs"])), "with its log-probabilities")
    texts = []
    for options in ({"messages": [{"role": "user", "content": "Tell me"}]}, {"ids": [5, 300, 17]}):
        texts.append(joined(client.generate(MODEL, tokens_max=12, cache_dtype="f16", stops=["zzz"], **options))[0])
    check(texts[0] != texts[1], "messages and ids are prompts, too")
    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        jobs = [threads.submit(lambda seed: joined(client.generate(MODEL, "A", tokens_max=25, temperature=1, seed=seed)), i % 6) for i in range(24)]
        results = [job.result() for job in jobs]
    check(all(results[i] == results[i % 6] for i in range(24)), "many at once do not change one another")
    check(len({result[0] for result in results}) > 3, "and seeds differ")


def check_cancel(client):
    stream = client.generate(MODEL, "Once", tokens_max=950, ignore_eos=True)
    check(next(stream).ids, "a long response begins")
    stream.close()
    fails("a deadline", Status.DEADLINE_EXCEEDED, lambda: list(client.generate(MODEL, "Once", tokens_max=950, ignore_eos=True, deadline_s=0.15)))
    check(joined(client.generate(MODEL, "Once", tokens_max=3)), "and the worker goes on")


def check_texts(client, work):
    path = os.path.join(work, "texts.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(TEXTS, file)
    wanted = json.loads(assay("embed", CLASSIFIER, "--texts", path))["embeddings"]
    rows = client.embed(CLASSIFIER, TEXTS)
    check(len(rows) == len(wanted) and all(f"{a:.9g}" == f"{b:.9g}" for row, want in zip(rows, wanted) for a, b in zip(row, want)),
          "embeddings are those of the command line")
    wanted = json.loads(assay("classify", CLASSIFIER, "--texts", path, "--json"))
    found = client.classify(CLASSIFIER, TEXTS)
    check(
        len(found) == len(wanted)
        and all(math.isclose(row[label], want[label], rel_tol=1e-14) for row, want in zip(found, wanted) for label in want),
        "classes are, too",
    )
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[1], "")]
    path = os.path.join(work, "pairs.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(pairs, file)
    wanted = json.loads(assay("classify", CLASSIFIER, "--texts", path, "--json"))
    found = client.classify(CLASSIFIER, pairs)
    check(len(found) == 2 and all(math.isclose(found[i][label], wanted[i][label], rel_tol=1e-14) for i in range(2) for label in wanted[i]),
          "and those of pairs")
    fails("texts and pairs", Status.INVALID_ARGUMENT, lambda: client.classify(CLASSIFIER, [TEXTS[0], pairs[0]]))


def main():
    with Directory() as data, Directory() as work, Stack(data) as stack, Client(data=data) as client:
        fails("no worker", Status.NOT_FOUND, lambda: client.generate(MODEL, "a"))
        worker = subprocess.Popen([os.path.join(BIN, "assay-inference"), "--precision", "fp32", "--data", data], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            endpoint = wait_for(lambda: (stack.service("inference", "fp32") or {}).get("endpoint"), 30, "the worker is registered")
            check_generate(client)
            check_cancel(client)
            check_texts(client, work)
            check(list(client.generate(MODEL, "a", tokens_max=2, worker=endpoint)), "a worker may be named")
            fails("no prompt", Status.INVALID_ARGUMENT, lambda: list(client.generate(MODEL)))
            fails("an unknown option", Status.INVALID_ARGUMENT, lambda: list(client.generate(MODEL, "a", tokens=3)))
            fails("too many tokens", Status.RESOURCE_EXHAUSTED, lambda: list(client.generate(MODEL, "a", tokens_max=10**6)))
            fails("a decoder does not classify", Status.FAILED_PRECONDITION, lambda: client.classify(MODEL, ["a"]))
            check(pb.GenerateRequest().DESCRIPTOR.full_name == "assay.v1.GenerateRequest", "the messages are known")
        finally:
            worker.terminate()
            worker.wait(30)
    finish()


main()
