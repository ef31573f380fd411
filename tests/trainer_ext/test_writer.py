"""The NPZ file that the trainer leaves for each step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_ext import records
from trainer_ext.writer import ScoredResponse, output_dir, pack, write_step


def response(scores: list[float], mask: list[bool], accepted: bool = True, uid: str = "p0") -> ScoredResponse:
    return ScoredResponse(
        token_ids=np.arange(1, len(scores) + 1),
        scores=np.array(scores),
        mask=np.array(mask, dtype=bool),
        accepted=accepted,
        advantage=0.5,
        uid=uid,
    )


def test_a_written_step_reads_back_without_pickle_and_with_the_documented_types(tmp_path: Path) -> None:
    path = write_step(
        tmp_path / "influence", 7, [response([1.0, 2.0], [True, True])], {"config": {"scope": "per_prompt"}}
    )
    assert path.name == "step_000007.npz"
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    assert set(arrays) == set(records.NPZ_KEYS)
    types = {name: array.dtype.kind + str(array.dtype.itemsize) for name, array in arrays.items()}
    assert types["scores"] == "f4"
    assert types["mask"] == "b1"
    assert types["response_ids"] == "i4"
    assert types["lengths"] == "i8"
    assert types["accepted"] == "b1"
    assert types["advantage"] == "f4"
    assert json.loads(str(arrays["meta"])) == {
        "config": {"scope": "per_prompt"},
        "schema": records.SCHEMA_VERSION,
        "step": 7,
    }


@given(st.lists(st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.booleans()), max_size=6), max_size=5))
def test_scores_are_nan_exactly_where_the_mask_is_false(rows: list[list[tuple[float, bool]]]) -> None:
    arrays = pack([response([s for s, _ in row], [m for _, m in row]) for row in rows], {})
    assert np.array_equal(np.isnan(arrays["scores"]), ~arrays["mask"])
    assert arrays["lengths"].tolist() == [len(row) for row in rows]
    for index, row in enumerate(rows):
        kept = [s for s, m in row if m]
        assert arrays["scores"][index][arrays["mask"][index]].tolist() == kept
        assert arrays["response_ids"][index, : len(row)].tolist() == list(range(1, len(row) + 1))


def test_a_nan_that_a_solver_produced_stays_visible_under_a_true_mask() -> None:
    arrays = pack([response([np.nan, 1.0], [True, True])], {})
    assert arrays["mask"].all()
    assert np.isnan(arrays["scores"][0, 0])


def test_scores_outside_the_mask_are_dropped() -> None:
    arrays = pack([response([1.0, 5.0], [True, False])], {})
    assert np.isnan(arrays["scores"][0, 1])


def test_a_response_whose_parts_differ_in_length_is_refused_by_number() -> None:
    good, bad = response([1.0], [True]), response([1.0, 2.0], [True])
    with pytest.raises(ValueError, match="response 1: 2 tokens, 2 scores and 1 mask"):
        pack([good, bad], {})


def test_no_temporary_file_is_left_beside_the_step(tmp_path: Path) -> None:
    write_step(tmp_path, 1, [response([1.0], [True])], {})
    write_step(tmp_path, 1, [response([2.0], [True])], {})
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001.npz"]


def test_files_go_to_the_attempt_folder_or_else_to_the_working_directory() -> None:
    assert output_dir({records.ENV_ATTEMPT_DIR: "/runs/a/1"}) == Path("/runs/a/1/influence")
    assert output_dir({}) == Path("influence")
