"""The files of the checkout that the checks look at, and the one-line verdict that each check ends with."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def repo_files(root=ROOT):
    """Paths relative to root, sorted: what git tracks or would track. Without git, every file outside build and hidden folders."""
    try:
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True, capture_output=True)
        names = {name for name in listed.stdout.decode().split("\0") if name}
    except (OSError, subprocess.CalledProcessError):
        names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        names = {name for name in names if not name.startswith((".", "build/", "out/"))}
    return sorted(name for name in names if (root / name).is_file())


def read_text(path):
    return path.read_bytes().decode("utf-8", errors="replace")


def finish(check, findings, summary):
    """Prints the findings to stderr and the verdict to stdout. Returns the exit status."""
    for finding in findings:
        print(f"{check}: {finding}", file=sys.stderr)
    if findings:
        print(f"{check}: failed: {len(findings)} findings ({summary})")
        return 1
    print(f"{check}: ok: {summary}")
    return 0
