#!/usr/bin/env python3
"""Every relative link of every Markdown file leads somewhere, and every program that README.md tells the reader to run exists.

usage: tools/check_docs.py
"""

import os
import re
import sys

from repo_files import ROOT, finish, read_text, repo_files

LINK = re.compile(r"\[[^\]\n]*\]\(\s*<?([^)\s>]+)>?[^)\n]*\)")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCRIPT = re.compile(r"(?<![\w./-])((?:tools|\.ci)/[\w./-]+)")
BUILT = re.compile(r"build/\w+/bin/([\w-]+)")
PROGRAM = re.compile(r"\b(?:assay_program|add_executable)\s*\(\s*([\w-]+)")


def without_fences(text):
    return FENCE.sub(lambda match: "\n" * match.group(0).count("\n"), text)


def anchors(text):
    """The anchors of a Markdown file's headings, as forges derive them."""
    headings = re.findall(r"^#+[ \t]+(.+?)[ \t#]*$", without_fences(text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def check_links(path, findings):
    text = without_fences(read_text(ROOT / path))
    count = 0
    for match in LINK.finditer(text):
        target, _, anchor = match.group(1).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        count += 1
        where = f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
        full = (ROOT / path).parent / target if target else ROOT / path
        if not full.exists():
            findings.append(f"{where}: the link to {match.group(1)} leads nowhere")
        elif anchor and full.suffix == ".md" and anchor not in anchors(read_text(full)):
            findings.append(f"{where}: {target or path} has no heading #{anchor}")
    return count


def check_commands(paths, findings):
    """README.md: scripts named in code blocks are executable files, built programs are made by some CMakeLists.txt."""
    programs = {name for path in paths if path.endswith("CMakeLists.txt") for name in PROGRAM.findall(read_text(ROOT / path))}
    blocks = "\n".join(body for _, body in FENCE.findall(read_text(ROOT / "README.md")))
    scripts, built = set(SCRIPT.findall(blocks)), set(BUILT.findall(blocks))
    findings += [f"README.md: {script} is not an executable file" for script in sorted(scripts)
                 if not os.access(ROOT / script, os.X_OK) or not (ROOT / script).is_file()]
    findings += [f"README.md: no CMakeLists.txt makes the program {name}" for name in sorted(built - programs)]
    return len(scripts) + len(built)


def main(arguments):
    if arguments:
        print(f"check_docs: unknown argument {arguments[0]!r} (it takes none)", file=sys.stderr)
        return 3
    paths, findings = repo_files(), []
    if "README.md" not in paths:
        return finish("check_docs", ["there is no README.md"], "nothing checked")
    links = sum(check_links(path, findings) for path in paths if path.endswith(".md"))
    commands = check_commands(paths, findings)
    return finish("check_docs", findings, f"{links} links, {commands} commands of README.md")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
