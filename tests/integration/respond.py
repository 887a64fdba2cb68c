#!/usr/bin/env python3
"""Responses, embeddings and classes by a worker of a running stack: the same as in the command's own process; beside an evaluation; cancelled,
interrupted, killed."""
import http.client
import json
import os
import signal
import socket
import subprocess
import time

from stack import BIN, MODEL, SOURCE, Directory, Stack, assay, check, figures, finish, report_of, run_eval, start_eval, wait_for

BAD_INPUT, UNAVAILABLE, RESOURCES, CANCELLED = 4, 6, 7, 10
CLASSIFIER = os.path.join(SOURCE, "tests", "vectors", "bert_classifier")
JOB = ("--reference", "fp32", "--variants", "int8", "--chunks", "40")
SAMPLED = ("--temperature", "0.8", "--top-k", "40", "--top-p", "0.95", "--min-p", "0.01", "--repetition-penalty", "1.1", "--seed", "11")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


class Worker:
    def __init__(self, data, *args):
        self.data = data
        self.process = subprocess.Popen([os.path.join(BIN, "assay-inference"), "--precision", "fp32", "--data", data, *args],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(30) in (0, -signal.SIGKILL), "the worker ends in order")

    def endpoint(self, stack):
        return wait_for(lambda: next((s["endpoint"] for s in stack.services() if s.get("pid") == self.process.pid), None), 30,
                        "the worker is registered")


def write(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file)
    return path


def lines(text):
    """The messages of `assay generate --json` by a worker, by prompt."""
    found = {}
    for line in text.splitlines():
        message = json.loads(line)
        found.setdefault(message["prompt"], []).append(message)
    return found


def joined(messages):
    return {"text": "".join(m["text"] for m in messages), "ids": [i for m in messages for i in m["ids"]],
            "logprobs": [p for m in messages for p in m["logprobs"]], "finish": messages[-1]["finish"]}


def generate(*args, where=(), code=0):
    return assay("generate", MODEL, *args, *where, code=code)


def check_equality(work, where):
    prompts = write(os.path.join(work, "prompts.json"), [f"{word} was" for word in "The A One His Her All Some".split()])
    for options in (SAMPLED, ("--stop", '["the", ". "]'), ("--ignore-eos", "--kv", "f16"), ("--chat", "--kv", "i8", "--date", "2026-01-02")):
        args = ("--prompts", prompts, "--max-tokens", "40", *options, "--json")
        here = json.loads(generate(*args))[0]["responses"]
        there = lines(generate(*args, where=where))
        check(sorted(there) == list(range(len(here))), f"{' '.join(options)}: an answer to each prompt")
        for i, wanted in enumerate(here):
            found = joined(there[i])
            if any(found[key] != wanted[key] for key in found):
                check(False, f"{' '.join(options)}: prompt {i} by a worker is {found}, wanted {wanted}")
        check(True, f"{' '.join(options)}: ids, log-probabilities, texts and ends are those of one process")
        last = there[0][-1]
        check(last["response_tokens"] == len(here[0]["ids"]) and last["prompt_tokens"] > 0 and
              0 <= last["queue_seconds"] <= last["first_token_seconds"] <= last["seconds"], "the last message has totals")
    check(generate("--prompt", "The king", where=where) == generate("--prompt", "The king"), "the text streams to the terminal as it is")
    check(generate("--prompts", prompts, where=where) == generate("--prompts", prompts), "several are printed alike")
    messages = write(os.path.join(work, "messages.json"), [{"role": "user", "content": "Tell me"}])
    check(generate("--messages", messages, where=where) == generate("--messages", messages), "a conversation, too")


def check_texts(work, where):
    texts = write(os.path.join(work, "texts.json"), [f"you are {'very ' * (i % 7)}kind {i % 13}" for i in range(1500)])
    for command in (("embed", CLASSIFIER), ("classify", CLASSIFIER), ("classify", CLASSIFIER, "--json")):
        here = assay(*command, "--texts", texts)
        check(assay(*command, "--texts", texts, *where) == here and len(here) > 10000, f"{' '.join(command[:1] + command[2:])}: the same bits")
    pairs = write(os.path.join(work, "pairs.json"), [["are you kind?", f"you are {'very ' * (i % 7)}rude {i % 13}"] for i in range(1100)])
    here = assay("classify", CLASSIFIER, "--texts", pairs)
    check(assay("classify", CLASSIFIER, "--texts", pairs, *where) == here and len(here) > 10000, "classify of pairs: the same bits")
    outputs = [os.path.join(work, f"{name}.safetensors") for name in ("here", "there")]
    assay("embed", CLASSIFIER, "--texts", texts, "-o", outputs[0])
    assay("embed", CLASSIFIER, "--texts", texts, "-o", outputs[1], *where)
    contents = [open(path, "rb").read() for path in outputs]
    check(contents[0] == contents[1], "the files are the same")


def check_failures(work, where, endpoint):
    generate("--prompt", "a", "--max-tokens", "100000", where=where, code=RESOURCES)
    generate("--prompt", "a", "--side-by-side", "fp32", where=where, code=3)
    assay("classify", MODEL, "--texts", write(os.path.join(work, "one.json"), ["a"]), *where, code=BAD_INPUT)
    assay("generate", os.path.join(work, "nowhere"), "--prompt", "a", *where, code=BAD_INPUT)
    assay("generate", MODEL, "--prompt", "a", "--worker", f"ipc://{work}/nobody", code=UNAVAILABLE)
    described = assay("rpc", endpoint, "describe", "assay.v1.Respond/Generate")
    check("returns (stream assay.v1.GenerateReply);" in described, "reflection describes the methods")
    reply = assay("rpc", endpoint, "assay.v1.Respond/Generate", json.dumps({"model": {"artifactDir": MODEL}, "ids": [5, 6], "tokensMax": 3}))
    # The last message may have totals alone: when it comes depends on how fast the others were read.
    check(sum(len(json.loads(line).get("ids", ())) for line in reply.splitlines()) == 3, "assay rpc can call them")
    for bad in ({}, {"model": {"artifactDir": MODEL}}, {"model": {"artifactDir": "x"}, "prompt": "a"},
                {"model": {"artifactDir": MODEL}, "prompt": "a", "topP": 7}, {"model": {"artifactDir": MODEL}, "ids": [-1], "tokensMax": 3}):
        assay("rpc", endpoint, "assay.v1.Respond/Generate", json.dumps(bad), code=BAD_INPUT)


def start_long(where):
    """A response of many tokens, under way."""
    process = subprocess.Popen([os.path.join(BIN, "assay"), "generate", MODEL, "--prompt", "Once", "--max-tokens", "950", "--ignore-eos",
                                "--json", *where], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    check("ids" in json.loads(process.stdout.readline()), "a long response has begun")
    return process


def check_ends(work, where, metrics):
    process = start_long(where)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    check(process.returncode == CANCELLED and "finish" not in rest, "Ctrl-C ends it with the exit code of that")
    process = start_long(where)
    process.kill()
    process.communicate(timeout=30)
    begun = time.monotonic()
    wait_for(lambda: metrics("assay_respond_calls") == 0, 20, "the worker hears that clients are gone")
    print(f"after {time.monotonic() - begun:.1f} s")


def check_beside_leases(data, work):
    """The job's figures are those of a stack where nobody else asks."""
    here = generate("--prompt", "The", "--max-tokens", "60", *SAMPLED)
    job = start_eval(data, os.path.join(work, "busy"), *JOB)
    answers = 0
    while job.poll() is None or answers == 0:
        if generate("--prompt", "The", "--max-tokens", "60", *SAMPLED, where=("--data", data)) != here:
            check(False, "a busy worker answers the same")
        answers += 1
    job.communicate()
    check(answers > 0, f"a busy worker answers the same, {answers} times")
    with Directory() as other:
        quiet = figures(run_eval(other, os.path.join(work, "quiet"), *JOB))
    check(figures(report_of(os.path.join(work, "busy"))) == quiet, "and its records are the same")


def main():
    with Directory() as data, Directory() as work, Stack(data) as stack:
        generate("--prompt", "a", where=("--data", data), code=BAD_INPUT)
        with Worker(data, "--http", f"unix:{work}/http.sock") as worker:
            endpoint = worker.endpoint(stack)
            by_stack, by_endpoint = ("--data", data), ("--worker", endpoint)

            def metrics(name):
                connection = UnixConnection(f"{work}/http.sock")
                connection.request("GET", "/metrics")
                page = connection.getresponse().read().decode()
                return float(next(line.split()[-1] for line in page.splitlines() if line.startswith(name)))

            check_equality(work, by_stack)
            check_texts(work, by_endpoint)
            check_failures(work, by_stack, endpoint)
            check_ends(work, by_endpoint, metrics)
            check(metrics("assay_respond_tokens_total") > 1000 and metrics("assay_respond_texts_total") >= 6000, "the work is counted")
            check_beside_leases(data, work)
            process = start_long(by_endpoint)
            worker.process.kill()
            _, errors = process.communicate(timeout=60)
            check(process.returncode == UNAVAILABLE, f"a worker that is killed is UNAVAILABLE: {errors.strip()}")
    finish()


main()
