"""Names and seeds that a resumed run shares with one that was never disturbed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainer_ext.seeds import prompt_name, repeatable_order, response_seed


def test_seeds_follow_from_their_arguments_on_every_machine() -> None:
    assert response_seed(0, 1, "000001-00000", 0) == 5559245599143223704
    seeds = {response_seed(s, t, p, r) for s in (0, 1) for t in (1, 2) for p in ("a", "b") for r in range(8)}
    assert len(seeds) == 64
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), unique=True, min_size=1), st.randoms())
def test_rows_are_ordered_by_prompt_and_number_whatever_was_ready_first(
    rows: list[tuple[int, int]], chance: object
) -> None:
    keys = [f"{prompt_name(3, prompt)}_{replica}_0" for prompt, replica in rows]
    ordered = [keys[row] for row in repeatable_order(keys)]
    assert ordered == [f"{prompt_name(3, prompt)}_{replica}_0" for prompt, replica in sorted(rows)]
    chance.shuffle(keys)  # type: ignore[attr-defined]
    assert [keys[row] for row in repeatable_order(keys)] == ordered


def test_names_sort_as_their_numbers_and_hold_no_underscore() -> None:
    names = [prompt_name(step, index) for step in (9, 10) for index in (2, 11)]
    assert names == sorted(names)
    assert not any("_" in name for name in names)
