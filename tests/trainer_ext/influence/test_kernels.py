"""The Triton kernels against their plain equivalents, in Triton's interpreter: the cases are in `interpreted/`.

Triton decides when it is imported whether it interprets, hence a process of its own. On a GPU `test_gpu.py` runs them
compiled.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

INTERPRETED = Path(__file__).parent / "interpreted"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("cases", ["kernels", "cholesky_kernels", "products_of_groups", "rounding_kernels"])
def test_kernels_do_what_their_plain_equivalents_do(cases: str) -> None:
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        f"{INTERPRETED}/{cases}.py",
    ]

    done = subprocess.run(
        command, env={**outer, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
