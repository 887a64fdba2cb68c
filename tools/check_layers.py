#!/usr/bin/env python3
"""Proves that the code keeps the one-way order of layers.

    base -> {quant, stats, obs} -> {kernels, formats, tokenizer, wire, store} -> corpus -> {nn, artifact} -> services/*, cli

A layer includes and links only what is to its left; layers in one brace group are peers and do not know each other. A service
includes the common layers, the conversations in proto/ and itself, never another service. Tests may include anything.

usage: tools/check_layers.py [--self-test]
"""

import pathlib
import re
import sys
import tempfile

from repo_files import ROOT, finish, read_text, repo_files

GROUPS = (
    ("base",),
    ("quant", "stats", "obs"),
    ("kernels", "formats", "tokenizer", "wire", "store"),
    ("corpus",),
    ("nn", "artifact"),
)
RANK = {layer: rank for rank, group in enumerate(GROUPS) for layer in group}

# Uses between peers that ARCHITECTURE.md gives a reason for: (user, used).
PEERS_ALLOWED = frozenset()

# The layers that may see generated messages; services and the command line may as well.
PROTO_LAYERS = frozenset({"wire", "artifact"})

EXEMPT_FOLDERS = ("tests/", "tools/")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)
TARGET = re.compile(r"\b(assay_layer|assay_program|add_library|add_executable|target_link_libraries)\s*\(\s*([\w${}-]+)([^)]*)\)",
                    re.DOTALL)


def area_of(path):
    """The part of the program that a path belongs to: base, ..., nn, services/NAME, cli, proto, exempt, or None."""
    if path.startswith(EXEMPT_FOLDERS):
        return "exempt"
    parts = path.split("/")
    if parts[0] == "common" and len(parts) > 2:
        return parts[1] if parts[1] in RANK else None
    if parts[0] == "services" and len(parts) > 2:
        return f"services/{parts[1]}"
    return parts[0] if parts[0] in ("cli", "proto") and len(parts) > 1 else None


def why_forbidden(user, used):
    """None when code of area `user` may use code of area `used`, else the reason."""
    if user in ("exempt", used):
        return None
    if used == "exempt":
        return "the program does not use tests or tools"
    is_program = user == "cli" or user.startswith("services/")
    if used == "proto":
        allowed = is_program or user in PROTO_LAYERS
        return None if allowed else f"{user} is not among the layers that see messages ({', '.join(sorted(PROTO_LAYERS))})"
    if user == "proto":
        return "proto is generated from the conversations alone"
    if used == "cli":
        return "nothing uses the command line"
    if used.startswith("services/"):
        return "services meet only in proto" if is_program else "a layer knows no service"
    if is_program or RANK[used] < RANK[user] or (user, used) in PEERS_ALLOWED:
        return None
    return "they are peers" if RANK[used] == RANK[user] else f"{used} is to the right of {user}"


def resolve_include(root, path, included):
    """The repository path that an include names, as the compiler finds it: beside the file, then from the root."""
    beside = pathlib.PurePosixPath(path).parent / included
    if (root / beside).is_file():
        return (root / beside).resolve().relative_to(root.resolve()).as_posix()
    return included


def check_includes(root, paths, findings):
    count = 0
    for path in paths:
        if not path.endswith((".c", ".h", ".inc")):
            continue
        user = area_of(path)
        if user is None:
            findings.append(f"{path}: is in no layer")
            continue
        text = read_text(root / path)
        for match in INCLUDE.finditer(text):
            count += 1
            line = text.count("\n", 0, match.start()) + 1
            target = resolve_include(root, path, match.group(1))
            used = area_of(target)
            if user == "exempt":
                continue
            if used is None:
                findings.append(f'{path}:{line}: include "{match.group(1)}": no such layer (write it from the root of the repository)')
                continue
            reason = why_forbidden(user, used)
            if reason:
                findings.append(f'{path}:{line}: {user} includes "{match.group(1)}": {reason}')
    return count


def strip_cmake_comments(text):
    return re.sub(r"#[^\n]*", "", text)


def cmake_targets(root, paths):
    """Yields (path, verb, name as CMake knows it, words) for each target and each link list."""
    for path in paths:
        if not path.endswith(("CMakeLists.txt", ".cmake")) or area_of(path) in ("exempt", None):
            continue
        for match in TARGET.finditer(strip_cmake_comments(read_text(root / path))):
            verb, name, words = match.groups()
            yield path, verb, f"assay_{name}" if verb == "assay_layer" else name, words.split()


def check_links(root, paths, findings):
    targets = list(cmake_targets(root, paths))
    home = {name: area_of(path) for path, verb, name, _ in targets if verb != "target_link_libraries"}
    count = 0
    for path, verb, name, words in targets:
        user = area_of(path)
        if "USES" in words:
            words = words[words.index("USES") + 1:]
        elif verb != "target_link_libraries":
            continue
        for word in words:
            if not word.startswith("assay_") or word == "assay_flags":
                continue
            count += 1
            layer = word.removeprefix("assay_")
            used = home.get(word) or (layer if layer in RANK else None)
            if used is None:
                findings.append(f"{path}: {name} links {word}, which no CMakeLists.txt defines")
                continue
            reason = why_forbidden(user, used)
            if reason:
                findings.append(f"{path}: {name} ({user}) links {word}: {reason}")
    return count


def check(root, paths):
    findings = []
    includes = check_includes(root, paths, findings)
    links = check_links(root, paths, findings)
    return findings, includes, links


PLANTED = {
    "common/base/status.h": "",
    "common/base/upward.c": '#include "common/nn/model.h"\n',
    "common/quant/peer.c": '#include "common/stats/moments.h"\n',
    "common/stats/moments.h": "",
    "common/stats/messages.c": '#include "proto/types.pb-c.h"\n',
    "common/nn/model.h": '#include "common/base/status.h"\n#include "common/quant/scheme.h"\n',
    "common/wire/server.c": '#include "server.h"\n#include "proto/rpc.pb-c.h"\n',
    "common/wire/server.h": "",
    "common/wire/knows_service.c": '#include "services/evaluator/join.h"\n',
    "common/CMakeLists.txt": "",
    "common/quant/CMakeLists.txt": "assay_layer(quant\n  SOURCES peer.c\n  USES assay_base assay_nn)\n",
    "common/loose.c": "",
    "services/evaluator/join.h": "",
    "services/evaluator/main.c": '#include "join.h"\n#include "common/nn/model.h"\n#include "proto/record.pb-c.h"\n',
    "services/inference/main.c": '#include "services/evaluator/join.h"\n',
    "services/inference/CMakeLists.txt": "assay_program(assay-inference\n  SOURCES main.c\n  USES assay_nn evaluator_core)\n"
                                         "target_link_libraries(assay-inference PRIVATE assay_evaluator_core)\n",
    "services/evaluator/CMakeLists.txt": "add_library(assay_evaluator_core STATIC join.c)\n",
    "cli/main.c": '#include "services/evaluator/join.h"\n#include "../common/base/status.h"\n#include "nowhere.h"\n',
    "tests/unit/anything.c": '#include "services/evaluator/join.h"\n#include "common/nn/model.h"\n',
}
EXPECTED = (
    "common/base/upward.c:1: base includes", "common/quant/peer.c:1: quant includes", "common/stats/messages.c:1: stats includes",
    "common/wire/knows_service.c:1: wire includes", "common/loose.c: is in no layer",
    "services/inference/main.c:1: services/inference includes", "cli/main.c:1: cli includes", "cli/main.c:3: include",
    "common/quant/CMakeLists.txt: assay_quant (quant) links assay_nn",
    "services/inference/CMakeLists.txt: assay-inference (services/inference) links assay_evaluator_core",
)


def self_test():
    """Plants violations beside lawful uses in a scratch tree: exactly the violations must be found."""
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        for path, text in PLANTED.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        findings, _, _ = check(root, sorted(PLANTED))
    problems = [f"not found: {wanted}" for wanted in EXPECTED if not any(f.startswith(wanted) for f in findings)]
    problems += [f"found, though lawful: {found}" for found in findings if not found.startswith(EXPECTED)]
    return finish("check_layers --self-test", problems, f"{len(EXPECTED)} planted violations")


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if arguments:
        print(f"check_layers: unknown argument {arguments[0]!r} (known: --self-test)", file=sys.stderr)
        return 3
    findings, includes, links = check(ROOT, repo_files())
    if includes == 0 or links == 0:
        findings.append("found no include or no link list to check: wrong folder?")
    return finish("check_layers", findings, f"{includes} includes, {links} links between targets")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
