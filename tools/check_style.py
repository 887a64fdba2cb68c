#!/usr/bin/env python3
"""Holds the files to the rules that a formatter does not know.

Files of at most 600 lines, functions of at most 70 (C and Python), no unfinished business, no trailing blanks, no tabs, `#pragma once` in
headers, executable scripts, no path of somebody's machine, no address outside a short list, no tracked file over 8 MB.

usage: tools/check_style.py [--self-test]
"""

import ast
import os
import pathlib
import re
import sys
import tempfile

from repo_files import ROOT, finish, read_text, repo_files

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
FILE_BYTES_MAX = 8_000_000

CODE = (".c", ".h", ".inc", ".py", ".sh", ".rs", ".proto", ".cmake", ".txt", ".js", ".css", ".html")
TEXT = CODE + (".md", ".json", ".toml", ".yml", ".yaml", ".cnf", ".supp")
# Bytes that others wrote, or that a test needs as they are.
FOREIGN = ("data/", "models/", "tests/fuzz/corpus/", "tests/vectors/", "LICENSE")
# The text of a .c file for one instruction set each, with the macros of the file that includes it: never included twice, never alone.
TEMPLATE_NAME = "body.h"
# In these trailing blanks and tabs are what a program printed.
EXPECTED_OUTPUT = (".exp",)

# Written in pieces, so that this file does not contain what it looks for.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(work|farm|root|home)/[\w.]|[.]libr" r"ary/|/tmp/assay-c" r"argo")
ADDRESS = re.compile(r"\b(?:https?|git|ssh)://([^\s/:)>\"'`]+)")
ADDRESSES_ALLOWED = re.compile(
    r"^(127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0|example\.(com|org)|HOST|\$\{?\w+\}?|%s"
    r"|www\.apache\.org|creativecommons\.org|www\.gnu\.org|arxiv\.org|www\.w3\.org)$")


def blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def c_skeleton(text):
    """The text with comments, literals and preprocessor lines blanked, lines kept, so that braces can be counted."""
    text = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.DOTALL)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blank, text, flags=re.MULTILINE)


def c_functions(text):
    """Yields (line of the signature, lines, name) of each function; line 0 with the depth left over when braces do not match."""
    depth, head_start, body_head, line_of_head = 0, 0, None, 0
    skeleton = c_skeleton(text)
    for match in re.finditer(r"[{};]", skeleton):
        token, at = match.group(0), match.start()
        if token == "{":
            if depth == 0:
                head = skeleton[head_start:at]
                body_head = re.search(r"(\w+)\s*\([^{};]*\)\s*(?:__attribute__.*)?$", head, re.DOTALL)
                if body_head and "=" in head[:body_head.start()]:
                    body_head = None
                line_of_head = skeleton.count("\n", 0, head_start + len(head) - len(head.lstrip())) + 1
            depth += 1
        elif token == "}":
            depth -= 1
            if depth == 0 and body_head:
                yield line_of_head, skeleton.count("\n", 0, at) + 2 - line_of_head, body_head.group(1)
        if depth == 0:
            head_start = at + 1
    if depth != 0:
        yield 0, depth, ""


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno - node.lineno + 1, node.name


def check_functions(path, text, findings):
    """Returns the number of functions seen."""
    count = 0
    try:
        functions = list(c_functions(text) if path.endswith((".c", ".h", ".inc")) else python_functions(text))
    except SyntaxError as error:
        findings.append(f"{path}: cannot be parsed: {error}")
        return 0
    for line, lines, name in functions:
        count += 1
        if line == 0:
            findings.append(f"{path}: braces do not match ({lines:+d}); conditional compilation inside a function?")
        elif lines > FUNCTION_LINES_MAX:
            findings.append(f"{path}:{line}: {name} has {lines} lines (at most {FUNCTION_LINES_MAX})")
    return count


def check_line(path, number, line, findings):
    where = f"{path}:{number}"
    if not path.endswith(EXPECTED_OUTPUT):
        if line != line.rstrip():
            findings.append(f"{where}: trailing blanks")
        if "\t" in line:
            findings.append(f"{where}: a tab")
    match = UNFINISHED.search(line)
    if match:
        findings.append(f'{where}: unfinished business: "{match.group(0)}"')
    match = MACHINE_PATH.search(line)
    if match:
        findings.append(f'{where}: a path of one machine: "{match.group(0)}"')
    for match in ADDRESS.finditer(line):
        if not ADDRESSES_ALLOWED.match(match.group(1)):
            findings.append(f'{where}: an address outside the list of this check: "{match.group(0)}"')


def check_text(path, text, findings):
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    elif not path.endswith(EXPECTED_OUTPUT):
        findings.append(f"{path}: no line end at the end of the file")
    for number, line in enumerate(lines, 1):
        check_line(path, number, line, findings)
    if path.endswith(CODE) and len(lines) > FILE_LINES_MAX:
        findings.append(f"{path}: {len(lines)} lines (at most {FILE_LINES_MAX}): is there a seam inside?")
    if path.endswith(".h") and not path.endswith("/" + TEMPLATE_NAME) and "#pragma once" not in lines:
        findings.append(f"{path}: no #pragma once")
    return check_functions(path, text, findings) if path.endswith((".c", ".h", ".inc", ".py")) else 0


def check(root, paths):
    findings, functions, files = [], 0, 0
    for path in paths:
        full = root / path
        if full.stat().st_size > FILE_BYTES_MAX:
            findings.append(f"{path}: {full.stat().st_size} bytes (at most {FILE_BYTES_MAX})")
        if path.startswith(FOREIGN) and not path.endswith(".md"):
            continue
        with open(full, "rb") as file:
            is_script = file.read(2) == b"#!"
        if is_script and not os.access(full, os.X_OK):
            findings.append(f"{path}: begins with #! and is not executable")
        if is_script or path.endswith(TEXT + EXPECTED_OUTPUT):
            files += 1
            functions += check_text(path, read_text(full), findings)
    return findings, files, functions


def planted():
    body = "    x();\n" * (FUNCTION_LINES_MAX - 3)
    return {
        "ok.c": '/* { */\nstatic const int a[] = {1, 2};\n\nstatic void\nfits(void)\n{\n' + body.replace("    x();\n", "", 1)
                + '}\n\n#define M(x) { \\\n    x\nconst char *b = "}";\nstruct s {\n    int x;\n};\n',
        "long.c": "void too_long(struct s *s,\n              int x)\n{\n" + body + "}\n",
        "unbalanced.c": "void f(void)\n{\n    if (x) {\n}\n",
        "once.h": "int x;\n",
        "isa/body.h": "int x;\n",
        "lines.c": "int x;\n" * (FILE_LINES_MAX + 1),
        "marks.c": "int a; /* TO" + "DO */\nint b; \n\tint c;\n/* /ro" + "ot/x */\n/* https://" + "a.invalid/ */\n/* http://127.0.0.1:80/ */\n",
        "noend.md": "text",
        "long.py": "def too_long():\n" + "    x = 1\n" * FUNCTION_LINES_MAX,
        "script.sh": "#!/bin/sh\n",
    }


EXPECTED = (
    "long.c:1: too_long has 71 lines", "unbalanced.c: braces", "once.h: no #pragma once", "lines.c: 601 lines",
    "marks.c:1: unfinished", "marks.c:2: trailing", "marks.c:3: a tab", "marks.c:4: a path", "marks.c:5: an address",
    "noend.md: no line end", "long.py:1: too_long has 71 lines", "script.sh: begins with #!",
)


def self_test():
    """Plants each kind of fault beside lawful text in a scratch tree: exactly the faults must be found."""
    with tempfile.TemporaryDirectory() as scratch:
        files = planted()
        for path, text in files.items():
            (pathlib.Path(scratch) / path).parent.mkdir(exist_ok=True)
            (pathlib.Path(scratch) / path).write_text(text)
        findings, _, _ = check(pathlib.Path(scratch), sorted(files))
    problems = [f"not found: {wanted}" for wanted in EXPECTED if not any(f.startswith(wanted) for f in findings)]
    problems += [f"found, though lawful: {found}" for found in findings if not found.startswith(EXPECTED)]
    return finish("check_style --self-test", problems, f"{len(EXPECTED)} planted faults")


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if arguments:
        print(f"check_style: unknown argument {arguments[0]!r} (known: --self-test)", file=sys.stderr)
        return 3
    findings, files, functions = check(ROOT, repo_files())
    if functions == 0:
        findings.append("found no function to check: wrong folder?")
    return finish("check_style", findings, f"{files} files, {functions} functions")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
