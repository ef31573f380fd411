"""The step benchmark on a GPU, with the small model."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
import torch

from trainer_ext.bench.__main__ import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def test_every_case_runs_and_the_device_is_measured(tmp_path: Path) -> None:
    words = ["step", "--model", "tiny", "--layers", "2", "--response", "64:128", "--prompts", "2", "--steps", "1"]
    now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    code = main([*words, "--json", str(tmp_path / "report.json"), "--work", str(tmp_path / "work")], now=lambda: now)
    report = json.loads((tmp_path / "report.json").read_text())
    assert code == 0, report["failures"]
    assert len(report["rows"]) == 17
    for row in report["rows"]:
        assert 0 < row["memory_gib"]["allocated"] < row["memory_gib"]["device"]
        assert 0 < row["seconds"]["forward_2"] < row["seconds"]["update_actor"]
        assert row["agreement"] is None or row["agreement"] < 0.1, "bfloat16"
