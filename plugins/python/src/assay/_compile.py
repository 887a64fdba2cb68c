"""Compiles proto/*.proto to one FileDescriptorSet. Standard library only: the build of the package runs it, too."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import subprocess
import sys
import tempfile


def _protoc() -> list[str]:
    if shutil.which("protoc"):
        return ["protoc"]
    if importlib.util.find_spec("grpc_tools"):
        return [sys.executable, "-m", "grpc_tools.protoc"]
    raise RuntimeError(
        "compiling the schemas needs protoc: install protobuf-compiler, or the Python package grpcio-tools"
    )


def compile_schemas(folder: pathlib.Path) -> bytes:
    """The FileDescriptorSet of all schemas in `folder`, imports first."""
    files = sorted(path.name for path in folder.glob("*.proto"))
    if not files:
        raise RuntimeError(f"{folder} has no .proto files: assay's Python package is built from a checkout of assay")
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch, "schemas.bin")
        command = [*_protoc(), f"--proto_path={folder}", "--include_imports", f"--descriptor_set_out={out}", *files]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode != 0:
            raise RuntimeError(f"protoc does not take the schemas in {folder}: {process.stderr.strip()}")
        return out.read_bytes()
