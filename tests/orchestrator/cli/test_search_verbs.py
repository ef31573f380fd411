"""`plan` and `status` of a search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import main

SWEEP = """\
name: s
config: synthetic
parameters: {factor: [32]}
alias: {factor: influence.projection_dim_factor}
backend: fake
resources: {gpus: 8, time: 1h}
search:
  objectives: {npz/std: maximize}
  params: {factor: "int(32, 512, log)"}
  trials: 6
"""


def planned(tmp_path: Path, *words: str) -> list[str]:
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP)
    return ["plan", str(file), "--root", str(tmp_path / "runs"), *words]


def test_plan_says_what_the_search_will_do_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(planned(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "searches 6 trials to maximize npz/std; sampler tpe, seed 0" in said
    assert "begins with 1 of the grid: factor=32" in said
    assert "s-t0" in said
    assert "s-t1" in said
    assert not (tmp_path / "runs").exists()


def test_plan_as_json_names_the_corners_and_no_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(planned(tmp_path, "--json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["points"] == []
    assert (plan["search"]["trials"], plan["search"]["first"]) == (6, [{"factor": 32}])
    assert [corner["parameters"]["factor"] for corner in plan["search"]["corners"]] == [32, 512]


def test_a_sampler_that_cannot_be_made_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = planned(tmp_path, "search.sampler={name: tpe, n_start: 3}")
    assert main(words) == 2
    assert "TPESampler has no argument `n_start`" in capsys.readouterr().err
