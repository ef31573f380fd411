"""Responses that no model writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer_ext.replay import Lengths, NothingRecorded, RecordedResponses, read_rows, synthetic_response

ROWS = [
    {"prompt_ids": [1, 2], "response_ids": [7]},
    {"prompt_ids": [1, 2], "response_ids": [8, 9]},
    {"prompt_ids": [3], "response_ids": [10], "step": 2},
    {"input": "two", "output": "abc", "step": 1},
]


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


@pytest.mark.parametrize(
    ("setting", "expected"), [(None, (9, 9)), (4, (4, 4)), ([2, 9], (2, 9)), ((3,), (3, 3)), (9, (9, 9))]
)
def test_lengths_are_a_number_a_pair_or_the_limit(setting: Any, expected: tuple[int, int]) -> None:
    assert Lengths.parse(setting, limit=9) == Lengths(*expected)


@pytest.mark.parametrize("setting", [0, 10, [5, 4], [1, 10], [1, 2, 3], [], "4", [1.5, 2]])
def test_any_other_length_is_refused(setting: Any) -> None:
    with pytest.raises(ValueError, match="rollout replay: length must"):
        Lengths.parse(setting, limit=9)


def test_synthetic_responses_repeat_by_seed_and_stay_within_the_bounds() -> None:
    lengths, vocabulary = Lengths(2, 6), range(100, 110)
    responses = [synthetic_response(seed, lengths, vocabulary) for seed in range(60)]
    assert responses == [synthetic_response(seed, lengths, vocabulary) for seed in range(60)]
    assert {len(response) for response in responses} == {2, 3, 4, 5, 6}
    assert {token for response in responses for token in response} == set(vocabulary)


def test_recorded_responses_of_a_prompt_come_once_each_and_in_order() -> None:
    recorded = RecordedResponses(ROWS, encode)
    assert [recorded.take(step, [1, 2], "") for step in (1, 2)] == [[7], [8, 9]]
    with pytest.raises(NothingRecorded, match=r"no response is left for this prompt in step 2: 'one plus one'"):
        recorded.take(2, [1, 2], "one plus one")


def test_a_row_with_a_step_is_for_that_step_alone() -> None:
    recorded = RecordedResponses(ROWS, encode)
    with pytest.raises(NothingRecorded):
        recorded.take(1, [3], "")
    assert recorded.take(2, [3], "") == [10]


def test_rows_of_text_are_found_by_the_text_of_the_prompt() -> None:
    assert RecordedResponses(ROWS, encode).take(1, [99, 98], "two") == [97, 98, 99]


def test_a_row_of_another_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"row 2 holds neither .* but prompt, answer"):
        RecordedResponses([ROWS[0], {"prompt": "a", "answer": "b"}], encode)


def test_rows_are_read_from_jsonl_parquet_and_a_folder_of_steps(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for step in (1, 2, 10):
        (tmp_path / f"{step}.jsonl").write_text(json.dumps({"step": step}) + "\n\n")
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2, 10]
    pq.write_table(pa.Table.from_pylist(ROWS[:2]), tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet") == ROWS[:2]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no \.jsonl file"):
        read_rows(tmp_path)
    with pytest.raises(ValueError, match=r"neither \.parquet, nor \.jsonl"):
        read_rows(tmp_path / "rows.csv")
