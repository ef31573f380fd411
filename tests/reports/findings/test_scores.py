"""Findings about the scores: their spread over the axes, the knee of its price, rows."""

from __future__ import annotations

import pytest

from reports.contrasts import Grid
from reports.findings.scores import knee, rows_emitted, spread_over_numbers, spread_over_words
from tests.reports.made import crossed, made_point, made_sweep

ROWS = "influence_trace/rows_emitted"


def stds(*values: float) -> Grid:
    return Grid.of(made_sweep([made_point({"factor": 512 // 2**place}, std=std) for place, std in enumerate(values)]))


def test_a_spread_that_goes_one_way_is_told_level_by_level() -> None:
    (finding,) = spread_over_numbers(stds(0.088, 0.180, 0.207))
    assert finding.sentence == (
        "**Score std rises as `factor` falls**: 0.088 at 512, 0.180 at 256, 0.207 at 128, as it would if the larger "
        "projection kept more of the variance; noise would look alike."
    )
    assert finding.evidence[0] == "512/1/influence/step_000001.npz"
    (finding,) = spread_over_numbers(stds(0.3, 0.2, 0.1))
    assert "falls as `factor` falls" in finding.sentence
    assert "kept more" not in finding.sentence


@pytest.mark.parametrize("values", [(0.1, 0.3, 0.2), (0.1, 0.1, 0.1), (0.1, 0.2)])
def test_a_spread_that_goes_back_and_forth_or_has_two_levels_is_no_trend(values: tuple[float, ...]) -> None:
    assert spread_over_numbers(stds(*values)) == []


def test_of_words_the_wider_level_is_the_subject() -> None:
    points = [
        made_point({"scope": scope, "factor": 512}, std=std)
        for scope, std in (("all_selected", 0.088), ("per_prompt", 0.139))
    ]
    points.append(made_point({"scope": "all_selected", "factor": 64}, std=0.207))
    (finding,) = spread_over_words(Grid.of(made_sweep(points)))
    assert finding.sentence == (
        "**`per_prompt` has 1.58× the score std of `all_selected`** (0.139 against 0.088 at `factor=512`)."
    )


def test_words_that_change_little_are_no_finding() -> None:
    points = [made_point({"scope": scope}, std=std) for scope, std in (("a", 0.100), ("b", 0.102))]
    assert spread_over_words(Grid.of(made_sweep(points))) == []


def test_the_knee_says_what_it_buys_and_costs() -> None:
    points = [
        made_point({"factor": factor}, {"update_actor": seconds, "pop_rows": pop}, std=std)
        for factor, seconds, pop, std in ((512, 146, 1.2, 0.088), (128, 159, 8.5, 0.180), (64, 195, 34.5, 0.207))
    ]
    (finding,) = knee(Grid.of(made_sweep(points)))
    for words in (
        "**`factor` 128 is the knee of cost against fidelity**: 4.0× the projected width of 512",
        "8.9% more `update_actor` (159 s against 146 s; `pop_rows` is 5.3% of it)",
        "87% of the largest score std (0.180 of 0.207), which stands in for fidelity",
        "64 takes 34% more",
    ):
        assert words in finding.sentence


def test_rows_are_told_where_all_points_emitted_as_many() -> None:
    (finding,) = rows_emitted(Grid.of(made_sweep([made_point({"factor": f}, {ROWS: 96}) for f in (64, 32)])))
    assert finding.sentence == "**All 2 points emitted 96 rows** in step 1."


@pytest.mark.parametrize("rows", [(96, 80), (0, 0), (96, None)])
def test_rows_that_differ_or_lack_are_not_all_alike(rows: tuple[int | None, ...]) -> None:
    sweep = made_sweep(
        [made_point({"factor": f}, {ROWS: n} if n is not None else {}) for f, n in zip((64, 32), rows, strict=True)]
    )
    assert rows_emitted(Grid.of(sweep)) == []


def test_replicates_are_left_to_statistics() -> None:
    sweep = crossed(
        {"factor": [128, 64, 32], "seed": [0, 1]},
        lambda factor, seed: made_point(
            {"factor": factor}, std=1 / factor + seed, replicate={"seed": seed}, name=f"{factor}-{seed}"
        ),
    )
    assert spread_over_numbers(Grid.of(sweep)) == []
