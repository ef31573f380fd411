from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.report import render
from reports.snapshot import (
    ChangesSnapshot,
    CommitSnapshot,
    Expected,
    FileChange,
    GitState,
    HardwareSnapshot,
    ModuleDims,
    NpzSnapshot,
    PredictionSnapshot,
    SimilarityRow,
    SimilaritySnapshot,
    SweepSnapshot,
)


def test_a_report_can_be_redrawn_from_a_file(factor_sweep: SweepSnapshot) -> None:
    read = SweepSnapshot.from_json(factor_sweep.to_json())
    assert read == factor_sweep
    assert render(read) == render(factor_sweep)


def test_keys_of_a_newer_version_are_ignored(factor_sweep: SweepSnapshot) -> None:
    data = json.loads(factor_sweep.to_json())
    for record in (data, data["git"], data["points"][0], data["points"][0]["attempts"][0], data["points"][0]["npz"][0]):
        record["from_the_future"] = 1
    assert SweepSnapshot.from_json(json.dumps(data)) == factor_sweep


def test_not_a_number_survives(factor_sweep: SweepSnapshot) -> None:
    data = json.loads(factor_sweep.to_json())
    data["points"][0]["metrics"]["1"]["actor/grad_norm"] = math.nan
    read = SweepSnapshot.from_json(json.dumps(data))
    assert math.isnan(read.points[0].metrics[1]["actor/grad_norm"])


def test_everything_that_a_report_may_know_survives(factor_sweep: SweepSnapshot) -> None:
    row = SimilarityRow("HINV_DOT", "PER_PROMPT", "acc-acc", 145.0, 0.0023, None, 12)
    first = dataclasses.replace(
        factor_sweep.points[0],
        step_lines={1: "metrics.jsonl:1"},
        errors=("console.log:3: CUDA error",),
        dims=(ModuleDims("q_proj", 48, 8, 28, ("dense", "dual"), 1e-6),),
        hardware=HardwareSnapshot("NVIDIA H200", 8, "570", "verl@sha256:ab", "c" * 64),
        npz=(
            NpzSnapshot(
                "a.npz",
                1,
                histogram=((-1.0, 0.0, 3),),
                bytes=9,
                similarity=SimilaritySnapshot((row,), unprojected=(row,)),
            ),
        ),
        predicted=PredictionSnapshot(seconds=Expected(9.0, 8.0, 10.0)),
    )
    changes = ChangesSnapshot(
        "a", "b", "before", (CommitSnapshot("c", "d"),), (FileChange("e", "added", 1, 0, ("d",)),)
    )
    full = dataclasses.replace(factor_sweep, points=(first,), changes=changes, backend="slurm", gpus=8)
    assert SweepSnapshot.from_json(full.to_json()) == full


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "JSON object"), ("{}", "name"), ('{"name": "x", "points": [{"id": "p"}]}', "PointSnapshot.*name")],
)
def test_a_file_that_is_no_snapshot_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SweepSnapshot.from_json(text)


@given(commit=st.text(), branch=st.none() | st.text(), dirty=st.none() | st.booleans())
def test_git_state_round_trips(commit: str, branch: str | None, dirty: bool | None) -> None:
    snapshot = SweepSnapshot(name="s", git=GitState(commit, branch, dirty))
    assert SweepSnapshot.from_json(snapshot.to_json()) == snapshot
