"""docs/attempt-folder.md is a promise: its example runs, and it names every field that there is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from trainer_ext import records

PAGE = (Path(__file__).parents[3] / "docs" / "attempt-folder.md").read_text()


def test_the_example_job_keeps_the_contract(make_attempt):
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    attempt = make_attempt(code, npz_glob="influence/step_*.npz", expected_steps=2, expected_npz=2)
    assert attempt.run().returncode == 0
    assert attempt.paths.console.read_text() == ""
    assert (attempt.outcome.exit_code, attempt.outcome.steps) == (0, [1, 2])
    assert len(attempt.outcome.outputs) == 3
    with np.load(attempt.paths.influence / records.npz_name(2), allow_pickle=False) as arrays:
        assert (np.isnan(arrays["scores"]) == ~arrays["mask"]).all()


RECORDS = [records.AttemptSpec, records.Heartbeat, records.MemorySample, records.Checkpoint, records.Outcome]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_is_described(record):
    described = set(re.findall(r"`(\w+)`", PAGE))
    internal = {"schema"} if record is records.Outcome else set()
    assert {field.name for field in dataclasses.fields(record)} - internal <= described


def test_every_file_and_variable_is_described():
    files = [getattr(records, name) for name in ("ATTEMPT", "CONFIG", "CLAIM", "CONSOLE", "METRICS", "MEMORY")]
    variables = [records.ENV_ATTEMPT_DIR, records.ENV_ATTEMPT_TOKEN, records.ENV_POOL]
    files += [records.HEARTBEAT, records.CHECKPOINT, records.STOP_REQUESTED, records.OUTCOME]
    for name in [*files, *variables, *records.NPZ_KEYS]:
        assert f"`{name}`" in PAGE
