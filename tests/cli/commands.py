#!/usr/bin/env python3
"""Every command and every service keeps the same promises: --help with the variable of each option, --version, --dump-config, exit code 3
and one sentence for what it does not know, exit code 4 for a model that is not there, 6 for a stack that does not run. The commands are those that `assay --help` lists."""
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

BIN = os.environ["ASSAY_BIN"]
USAGE, BAD_INPUT, UNAVAILABLE = 3, 4, 6
SERVICES = ("coordinator", "evaluator", "inference", "quantizer")
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("ASSAY_")}
OPTION = re.compile(r"^  --([a-z0-9-]+)(?: [A-Z][^ ]*)? .*\[(ASSAY_[A-Z0-9_]+)[],]")

# What to give a command so that only the model is missing, and what shows that it looked for it.
NOWHERE = {
    "eval": ("nowhere", "--variants", "int8", "--corpus", "text"),
    "quantize": ("nowhere", "--scheme", "int8", "-o", "out"),
    "dequantize": ("nowhere", "-o", "out"),
    "import": ("nowhere", "-o", "out"),
    "tokenize": ("nowhere", "--file", "text"),
    "chat": ("nowhere", "--messages", "messages"),
    "logits": ("nowhere", "--ids", "ids", "-o", "out"),
    "compare-logits": ("nowhere", "nowhere", "--ids", "ids"),
    "embed": ("nowhere", "--texts", "text"),
    "classify": ("nowhere", "--texts", "text"),
    "bench": ("engine", "--shape", "nowhere"),
    "model": ("inspect", "nowhere"),
}
# These ask a running stack, which is not there.
NO_STACK = {"workers": (), "jobs": (), "top": ("--once",), "trace": ("last",), "cache": ("stat",), "rpc": ("coordinator", "list")}
# Options whose file is read before anything else.
FILES = {"job"}

faults = []
checks = 0


def check(condition, what):
    global checks
    checks += 1
    if not condition:
        faults.append(what)


def run(program, *args, cwd="/", **variables):
    return subprocess.run([os.path.join(BIN, program[0]), *program[1:], *args], env={**CLEAN, "HOME": cwd, **variables}, cwd=cwd, text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=30)


def one_sentence(program, process, code, words, what):
    name = " ".join(program)
    lines = process.stderr.splitlines()
    check(process.returncode == code, f"{name}: {what}: exit code {process.returncode}, wanted {code}: {process.stderr[:300]}")
    check(len(lines) == 1 and re.match(rf"{name}( [a-z]+)?: ", lines[0]), f"{name}: {what}: wanted one sentence, found {lines}")
    check(all(word in process.stderr for word in words), f"{name}: {what}: wanted {words} in {process.stderr!r}")
    check(process.stdout == "", f"{name}: {what}: stdout is {process.stdout[:100]!r}")


def options_of(program, scratch):
    process = run(program, "--help", cwd=scratch)
    name = " ".join(program)
    lines = process.stdout.splitlines()
    check(process.returncode == 0 and process.stderr == "", f"{name}: --help: exit code {process.returncode}, {process.stderr!r}")
    check(lines and lines[0].startswith(f"Usage: {name}"), f"{name}: --help begins with {lines[:1]}")
    check(lines and lines[-1].strip() == "--help, --version, --dump-config", f"{name}: --help ends with {lines[-1:]}")
    options = {}
    for line in lines[:-1]:
        if line.startswith("  --"):
            found = OPTION.match(line)
            check(found, f"{name}: --help names no variable in {line!r}")
            if found:
                options[found[1]] = found[2]
    check(len(set(options.values())) == len(options), f"{name}: two options have one variable")
    return options


def check_program(program, scratch):
    name = " ".join(program)
    options = options_of(program, scratch)
    version = run(program, "--version", cwd=scratch)
    check(version.returncode == 0 and re.fullmatch(r"(assay|assay-[a-z]+) \d+\.\d+\.\d+\n", version.stdout), f"{name}: --version: {version.stdout!r}")
    dump = run(program, "--dump-config", cwd=scratch)
    keys = [line.split("=", 1)[0] for line in dump.stdout.splitlines()]
    check(dump.returncode == 0 and keys == list(options), f"{name}: --dump-config has {keys}, --help {list(options)}")
    one_sentence(program, run(program, "--no-such-option", cwd=scratch), USAGE, ["--no-such-option"], "an unknown option")
    for option, variable in options.items():
        process = run(program, "--dump-config", cwd=scratch, **{variable: "zzz"})
        if process.returncode == 0:
            values = dict(line.split("=", 1) for line in process.stdout.splitlines())
            check(values[option] in ("zzz", "(hidden)"), f"{name}: {variable} is not heeded")
        else:
            one_sentence(program, process, BAD_INPUT if option in FILES else USAGE, ["zzz"], f"{variable}=zzz")


def check_command(command, scratch):
    program = ("assay", command)
    check_program(program, scratch)
    if command in NOWHERE:
        one_sentence(program, run(program, *NOWHERE[command], cwd=scratch), BAD_INPUT, ["nowhere"], "an unknown model")
        one_sentence(program, run(program, cwd=scratch), USAGE, [], "no arguments")
    if command in NO_STACK:
        process = run(program, *NO_STACK[command], "--data", os.path.join(scratch, "data"), cwd=scratch)
        one_sentence(program, process, UNAVAILABLE, ["no stack runs"], "no stack")


def main():
    with tempfile.TemporaryDirectory(prefix="assay-commands-") as scratch:
        for name, content in (("text", "Some words.\n" * 9), ("ids", "[1, 2]"), ("messages", '[{"role": "user", "content": "a"}]')):
            with open(os.path.join(scratch, name), "w", encoding="utf-8") as file:
                file.write(content)
        before = sorted(os.listdir(scratch))
        help_lines = run(("assay",), "--help", cwd=scratch).stdout.splitlines()
        commands = [line.split()[0] for line in help_lines if re.match(r"^  [a-z][a-z-]+  +[a-z]", line)]
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda command: check_command(command, scratch), commands))
            list(pool.map(lambda service: check_program((f"assay-{service}",), scratch), SERVICES))
        check(len(commands) >= 18, f"`assay --help` lists {len(commands)} commands")
        check({*NOWHERE, *NO_STACK} <= set(commands), "the test knows commands that are not there")
        left = sorted(set(os.listdir(scratch)) - set(before))
        check(left == [], f"nothing is left behind, found {left}")
    for fault in faults:
        print(f"FAILED: {fault}")
    print(f"{checks} checks, {len(faults)} faults")
    sys.exit(1 if faults or not checks else 0)


main()
