"""The driver's own decisions: settings, and which rank gets which rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_ext.verl_plugin.trainer import prompts_per_rank, split_settings

PLUGIN = {
    "enable": True,
    "accepted_threshold": 0.5,
    "capture": "auto",
    "profile": False,
    "similarity": False,
    "unprojected_module": None,
}
SECTION = {**PLUGIN, "scope": "all_selected"}


def test_the_section_splits_into_the_engines_fields_and_the_plugins() -> None:
    config, settings = split_settings(SECTION)
    assert config.scope == "all_selected"
    assert settings == PLUGIN


def test_an_unknown_key_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'scop'.*did you mean 'scope'"):
        split_settings({**SECTION, "scop": "per_prompt"})


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_prompts_responses_stay_on_one_rank(ranks: int, prompts_each: int, samples: int, shuffle) -> None:  # type: ignore[no-untyped-def]
    uids = [f"p{index}" for index in range(ranks * prompts_each) for _ in range(samples)]
    shuffle.shuffle(uids)
    lengths = [shuffle.randint(1, 100) for _ in uids]
    order = prompts_per_rank(uids, lengths, ranks)
    assert order is not None
    assert sorted(order) == list(range(len(uids)))
    share = len(uids) // ranks
    homes = [{uids[row] for row in order[rank * share : (rank + 1) * share]} for rank in range(ranks)]
    assert all(len(home) == prompts_each for home in homes)


@pytest.mark.parametrize(("uids", "ranks"), [(["a", "a", "b", "b", "c", "c"], 2), (["a", "a", "a", "b"], 2)])
def test_prompts_that_do_not_divide_evenly_are_left_to_verl(uids: list[str], ranks: int) -> None:
    assert prompts_per_rank(uids, [10] * len(uids), ranks) is None
