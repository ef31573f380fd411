"""On a GPU: what the benchmark measures there and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trainer_ext.bench.__main__ import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def test_memory_and_the_fast_precision_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    options = ["--cases", "f32_all_selected", "f32_response", "--layers", "2", "--tokens", "8192", "--factor", "128"]
    assert main(["influence", *options, "--repeats", "1", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["setup"]["precision"] == "fast"
    assert found["ceilings"]["fp16_flops"] > found["ceilings"]["fp64_flops"] > 0
    for case in found["cases"]:
        assert case["distinct_layers"] == 2
        assert case["factor_gib"] > 0
        assert case["run"]["peak_gib"] > 0
        assert case["plain_peak_gib"] > 0
        assert case["errors"]["fast"] < 1e-2
        assert case["errors"]["fp32"] < case["errors"]["fast"]
