#!/usr/bin/env python3
"""What is wrong with the input or the machine ends in one sentence and the right exit code, and nothing half-made stays visible."""
import json
import os
import pwd
import shutil
import socket
import struct
import subprocess

from stack import BIN, CORPUS, MODEL, Directory, Stack, assay, check, finish

USAGE, BAD_INPUT, UNAVAILABLE, PERMISSION = 3, 4, 6, 9


def sentence_of(process):
    lines = [line for line in process.stderr.strip().splitlines() if line.startswith("assay")]
    return lines[-1] if lines else ""


def refused(what, code, words, *args):
    """`assay args` ends with `code`, and its last sentence has all the words."""
    process = assay(*args, code=None)
    sentence = sentence_of(process)
    if process.returncode != code or not all(word in sentence for word in words):
        print(process.stdout, process.stderr, sep="\n")
    check(process.returncode == code, f"{what}: exit code {code}, found {process.returncode}")
    check(all(word in sentence for word in words), f"{what}: the sentence is '{sentence}'")


def evaluate(data, model=MODEL, corpus=CORPUS, variants="int8", out=None):
    return ("eval", model, "--variants", variants, "--corpus", corpus, "--chunks", "2", "--data", data, "--out", out or data + "/out")


def model_with(directory, name, change):
    """A copy of the bundled model with one thing wrong."""
    path = os.path.join(directory, name)
    shutil.copytree(MODEL, path)
    change(path)
    return path


def truncate(path):
    weights = os.path.join(path, "model.safetensors")
    os.truncate(weights, os.path.getsize(weights) - 1000)


def overlap(path):
    weights = os.path.join(path, "model.safetensors")
    with open(weights, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    names = sorted((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    first, second = header[names[0]]["data_offsets"], header[names[1]]
    length = second["data_offsets"][1] - second["data_offsets"][0]
    second["data_offsets"] = [first[1] - 2, first[1] - 2 + length]
    text = json.dumps(header).encode()
    with open(weights, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def other_architecture(path):
    config = os.path.join(path, "config.json")
    with open(config, encoding="utf-8") as file:
        content = json.load(file)
    content["architectures"] = ["FalconForCausalLM"]
    content["model_type"] = "falcon"
    with open(config, "w", encoding="utf-8") as file:
        json.dump(content, file)


def bad_models(data, scratch):
    refused("a model that is not there", BAD_INPUT, ["/no/such/model"], *evaluate(data, "/no/such/model"))
    refused("a truncated safetensors", BAD_INPUT, ["model.safetensors"], *evaluate(data, model_with(scratch, "truncated", truncate)))
    refused("overlapping offsets", BAD_INPUT, ["model.safetensors", "overlap"], *evaluate(data, model_with(scratch, "overlap", overlap)))
    refused("an unknown architecture", BAD_INPUT, ["FalconForCausalLM"],
            *evaluate(data, model_with(scratch, "falcon", other_architecture)))
    empty = os.path.join(scratch, "empty")
    os.mkdir(empty)
    refused("a directory without a model", BAD_INPUT, ["config.json"], *evaluate(data, empty))


def bad_corpora(data, scratch):
    refused("a corpus that is not there", BAD_INPUT, ["/no/such/corpus"], *evaluate(data, corpus="/no/such/corpus"))
    short = os.path.join(scratch, "short.txt")
    with open(short, "w", encoding="utf-8") as file:
        file.write("A few words are not enough. " * 20)
    refused("a corpus shorter than the protocol needs", BAD_INPUT, ["1024", "tokens"], *evaluate(data, corpus=short))


def bad_requests(data):
    process = assay(*evaluate(data, variants="int7"), code=None)
    check(process.returncode in (USAGE, BAD_INPUT), f"an unknown scheme: exit code {process.returncode}")
    check("int7" in sentence_of(process) and "int8" in sentence_of(process), f"an unknown scheme: '{sentence_of(process)}'")
    process = assay("eval", MODEL, "--variants", "int8", "--corpus", CORPUS, "--protocol", "mystery-7", "--data", data, code=None)
    check(process.returncode in (USAGE, BAD_INPUT) and "mystery-7" in sentence_of(process), "an unknown protocol is named")


def bad_machine(scratch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        refused("a port in use", UNAVAILABLE, [endpoint.rsplit(":", 1)[1]], "up", "--data", os.path.join(scratch, "p"), "--listen", endpoint)
    refused("an address for everybody without keys", PERMISSION, ["0.0.0.0"], "up", "--data", os.path.join(scratch, "e"), "--listen",
            "tcp://0.0.0.0:0")
    with open(os.path.join(scratch, "file"), "w", encoding="utf-8") as file:
        file.write("not a directory")
    process = assay("up", "--data", os.path.join(scratch, "file", "data"), code=None)
    check(process.returncode in (BAD_INPUT, PERMISSION) and "file" in sentence_of(process),
          f"a data directory below a file: '{sentence_of(process)}'")
    if os.geteuid() == 0:
        unwritable_for_another_user(scratch)
    else:
        os.mkdir(os.path.join(scratch, "closed"), 0o500)
        refused("an unwritable data directory", PERMISSION, ["closed"], "up", "--data", os.path.join(scratch, "closed", "data"))


def unwritable_for_another_user(scratch):
    """root may write anywhere, so another user tries; where that user cannot reach the programs, a directory of the kernel does."""
    directory = os.path.join(scratch, "closed")
    os.mkdir(directory, 0o755)
    os.chmod(scratch, 0o755)
    nobody = pwd.getpwnam("nobody")

    def become_nobody():
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)

    try:
        process = subprocess.run([os.path.join(BIN, "assay"), "up", "--data", os.path.join(directory, "data")], capture_output=True,
                                 text=True, preexec_fn=become_nobody, stdin=subprocess.DEVNULL, timeout=60)
        code = PERMISSION
    except PermissionError:
        process = assay("up", "--data", "/proc/assay-data", code=None)
        directory, code = "/proc", process.returncode
        check(code in (BAD_INPUT, PERMISSION), f"a data directory that cannot be made: exit code {code}")
    check(process.returncode == code and directory in process.stderr,
          f"an unwritable data directory: exit code {process.returncode}, '{sentence_of(process)}'")


def main():
    with Directory() as data, Directory() as scratch:
        with Stack(data):
            bad_models(data, scratch)
            bad_corpora(data, scratch)
            bad_requests(data)
            refused("a stack that runs already", UNAVAILABLE, [data], "up", "--data", data)
            artifacts = [name for name in os.listdir(os.path.join(data, "artifacts"))] if os.path.isdir(data + "/artifacts") else []
            check(artifacts == [], f"refused jobs leave no artifact, found {artifacts}")
        bad_machine(scratch)
    finish()


main()
