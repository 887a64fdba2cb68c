#!/usr/bin/env python3
"""The client in docs/PROTOCOL.md, as it stands there, against a running stack. Skipped where no Python has pyzmq and protobuf (with
CI=true that is a failure)."""
import os
import re
import subprocess
import sys

from stack import SOURCE, Directory, Stack, check, finish

SKIPPED = 77


def python_with_libraries():
    for python in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([python, "-c", "import zmq, google.protobuf"], capture_output=True, check=False).returncode == 0:
            return python
    print("no Python has pyzmq and protobuf: tools/install_deps.sh --checks installs them")
    sys.exit(1 if os.environ.get("CI") == "true" else SKIPPED)


python = python_with_libraries()

with Directory() as data, Directory() as generated, Stack(data):
    proto = os.path.join(SOURCE, "proto")
    files = sorted(name for name in os.listdir(proto) if name.endswith(".proto"))
    subprocess.run(["protoc", f"--python_out={generated}", "-I", proto, *files], check=True)
    with open(os.path.join(SOURCE, "docs", "PROTOCOL.md"), encoding="utf-8") as file:
        code = re.search(r"^```python\n(.*?)^```", file.read(), re.MULTILINE | re.DOTALL).group(1)
    process = subprocess.run([python, "-c", code, f"ipc://{data}/run/coordinator.sock"], capture_output=True, text=True,
                             timeout=60, env={**os.environ, "PYTHONPATH": generated}, check=False)
    lines = process.stdout.splitlines()
    check(process.returncode == 0, f"the example ends well: {process.stderr[-300:]}")
    check(lines[0] == "SERVING_STATUS_SERVING", "Health/Check answers")
    check({"assay.v1.Health", "assay.v1.Reflection", "assay.v1.Coordinator"} <= set(lines[1:]), "ListServices answers")
finish()
