"""Prompt files in verl's format."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from trainer_ext.assets.prompts import DIFFICULTIES, make_rows, task_config, write


def test_equal_arguments_give_equal_bytes_and_other_seeds_other_prompts(tmp_path: Path) -> None:
    def content(seed: int, name: str) -> bytes:
        write(tmp_path / name, make_rows("chain_sum", task_config("chain_sum", "small", {}, size=8, seed=seed)))
        return (tmp_path / name).read_bytes()

    assert content(0, "a") == content(0, "b")
    assert content(1, "c") != content(0, "a")


def test_rows_carry_what_verl_and_the_verifier_need(tmp_path: Path) -> None:
    config = task_config("chain_sum", "small", {}, size=3, seed=0)
    write(tmp_path / "p.parquet", make_rows("chain_sum", config, system="Be brief."))
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["extra_info"]["index"] for row in rows] == [0, 1, 2]
    assert {row["extra_info"]["task"] for row in rows} == {"chain_sum"}
    assert [message["role"] for message in rows[0]["prompt"]] == ["system", "user"]
    assert all(row["reward_model"]["ground_truth"].lstrip("-").isdigit() for row in rows)


@pytest.mark.parametrize("difficulty", DIFFICULTIES["chain_sum"])
def test_every_named_difficulty_makes_prompts(difficulty: str) -> None:
    assert len(make_rows("chain_sum", task_config("chain_sum", difficulty, {}, size=2, seed=0))) == 2


def test_explicit_fields_go_over_the_named_difficulty() -> None:
    assert task_config("chain_sum", "small", {"max_terms": 6}, size=1, seed=0)["max_terms"] == 6


@pytest.mark.parametrize(
    ("task", "message"), [("chain_sum", "has small, medium, large"), ("simple_equations", "no named difficulties")]
)
def test_an_unknown_difficulty_says_what_there_is(task: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_config(task, "huge", {}, size=1, seed=0)
