"""Traces of one step."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import torch

from trainer_ext.verl_plugin.profiling import StepProfiler, trace_name


def test_a_step_becomes_one_file_that_holds_both_its_parts(tmp_path: Path) -> None:
    profiler, file = StepProfiler(), tmp_path / "profile" / trace_name(12, 3)
    with profiler.part("influence", file):
        torch.ones(3).add(1)
    assert not file.exists()
    with profiler.part("update", file):
        torch.ones(3).sub(1)
    assert file.name == "step_000012_rank3.json.gz"
    names = {event["name"] for event in json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]}
    assert {"influence", "update", "aten::add", "aten::sub"} <= names


def test_a_step_that_is_not_asked_for_is_not_recorded(tmp_path: Path) -> None:
    profiler = StepProfiler()
    for _ in range(2):
        with profiler.part("update", None):
            torch.ones(3).add(1)
    assert not list(tmp_path.iterdir())
    assert not torch.autograd._profiler_enabled()
