"""Reward functions that verl calls once per response."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainer_ext.assets.prompts import make_rows, task_config
from trainer_ext.rewards import digit_share, extract_answer, reasoning_gym, text_parity

ROW = make_rows("chain_sum", task_config("chain_sum", "small", {}, size=4, seed=1))[0]
TRUTH = ROW["reward_model"]["ground_truth"]


def score(text: str) -> dict[str, float]:
    arguments: dict[str, Any] = {
        "data_source": ROW["data_source"],
        "ground_truth": TRUTH,
        "extra_info": ROW["extra_info"],
    }
    return reasoning_gym(solution_str=text, **arguments)


@pytest.mark.parametrize(
    ("response", "expected", "answer"),
    [
        ("The sum is 7, so the answer is 12.", "3", "12"),
        ("4 - 9 = -5", "3", "-5"),
        ("It is 1,204 apples", "3", "1204"),
        ("first 3 <answer> 8 </answer> not 9", "3", "8"),
        ("no digits here", "3", ""),
        ("  yes \n", "no", "yes"),
    ],
)
def test_the_last_number_counts_unless_an_answer_is_tagged(response: str, expected: str, answer: str) -> None:
    assert extract_answer(response, expected) == answer


def test_the_right_answer_is_accepted() -> None:
    assert score(f"Adding up gives {TRUTH}.") == {"score": 1.0, "acc": 1.0}


@pytest.mark.parametrize("text", ["It is 987654.", "I do not know.", ""])
def test_a_wrong_or_missing_answer_is_not_accepted(text: str) -> None:
    assert score(text)["acc"] == 0.0
    assert score(text)["score"] < 0.5


def test_the_entry_is_rebuilt_from_the_row_alone() -> None:
    extra = json.loads(json.dumps(ROW["extra_info"]))  # as it comes out of a parquet file
    assert reasoning_gym("any", TRUTH, TRUTH, extra)["acc"] == 1.0


@pytest.mark.parametrize(("text", "expected"), [("abcd", 0.0), ("a1b2", 0.5), ("", 0.0)])
def test_digit_share_accepts_any_digit(text: str, expected: float) -> None:
    assert digit_share("smoke", text, "") == {"score": expected, "acc": float(expected > 0)}


def test_text_parity_accepts_half_of_all_texts_and_the_same_ones_each_time() -> None:
    verdicts = [text_parity("replay", f"response {index}", "") for index in range(400)]
    assert verdicts == [text_parity("replay", f"response {index}", "") for index in range(400)]
    assert 160 < sum(verdict["acc"] for verdict in verdicts) < 240
    assert all(verdict["score"] == verdict["acc"] for verdict in verdicts)
