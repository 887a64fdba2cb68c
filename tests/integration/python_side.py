"""For tests of plugins/python: goes on under a Python that has what they need, with the package of this checkout."""

import os
import subprocess
import sys

SKIPPED = 77


def need(modules, hint, must_in_ci):
    """Returns when this Python can import the modules; else starts the test anew under one that can (ASSAY_PYTHON names one to try first).
    Where there is none the test is skipped with the hint; with CI=true that is a failure if it must run there."""
    candidates = [os.environ.get("ASSAY_PYTHON"), sys.executable, "/usr/bin/python3"]
    imports = f"import {', '.join(modules)}"
    for python in filter(None, candidates):
        if subprocess.run([python, "-c", imports], capture_output=True, check=False).returncode != 0:
            continue
        if os.path.realpath(python) != os.path.realpath(sys.executable) or python != sys.executable:
            os.execv(python, [python, *sys.argv])
        sys.path.insert(0, os.path.join(os.environ["ASSAY_SOURCE"], "plugins", "python", "src"))
        return
    print(f"no Python has {', '.join(modules)}: {hint}")
    sys.exit(1 if must_in_ci and os.environ.get("CI") == "true" else SKIPPED)
