"""Compiles the schemas of proto/ into the package when it is built; everything else stands in pyproject.toml."""

import pathlib
import runpy

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent
compile_schemas = runpy.run_path(str(HERE / "src" / "assay" / "_compile.py"))["compile_schemas"]


class BuildWithSchemas(build_py):
    """An editable installation needs no file: the package then compiles proto/ of its checkout as it is imported."""

    def run(self):
        super().run()
        if not getattr(self, "editable_mode", False):
            target = pathlib.Path(self.build_lib, "assay", "schemas.bin")
            target.write_bytes(compile_schemas(HERE.parent.parent / "proto"))


setup(cmdclass={"build_py": BuildWithSchemas})
