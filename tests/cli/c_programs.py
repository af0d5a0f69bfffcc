"""Compiles the C programs of the documentation, with the warnings of a careful reader."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def find_c_compiler() -> str | None:
    """None only outside CI: there a missing compiler is an error."""
    compiler = shutil.which("cc")
    assert compiler or not os.environ.get("CI"), "CI needs a C compiler (Debian: gcc)"
    return compiler


def compile_c(compiler: str, text: str, directory: Path, standard: str) -> str:
    source, program = directory / "program.c", str(directory / "program")
    source.write_text(text)
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-std={standard}", "-O2"]
    subprocess.run([compiler, *strict, str(source), "-o", program, "-lrt"], check=True)
    return program
