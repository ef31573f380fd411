"""Ratios between levels: turned the right way, and told from noise by their replicates."""

from __future__ import annotations

import pytest

from reports.contrasts import Grid
from reports.ratios import every_ratio, largest, log_ratio, per_replicate, ratios
from reports.snapshot import PointSnapshot
from tests.reports.made import crossed, made_point, made_sweep


def value(point: PointSnapshot) -> float | None:
    return point.metrics[1]["x/value"]


def made(values: dict[object, float]) -> Grid:
    return Grid.of(made_sweep([made_point({"scope": key}, {"x/value": one}) for key, one in values.items()]))


def repeated(values: dict[str, list[float]]) -> Grid:
    """Level -> a value for each seed."""
    seeds = range(len(next(iter(values.values()))))
    return Grid.of(
        crossed(
            {"scope": list(values), "seed": list(seeds)},
            lambda scope, seed: made_point(
                {"scope": scope}, {"x/value": values[scope][seed]}, replicate={"seed": seed}, name=f"{scope}{seed}"
            ),
        )
    )


def test_the_larger_level_is_held_against_the_smaller() -> None:
    (found,) = ratios(made({"a": 10.0, "b": 4.0}), "scope", value)
    assert (found.contrast.level, found.contrast.reference, found.mean) == ("a", "b", 2.5)
    assert [(pair.level, pair.reference) for pair in found.pairs] == [(10.0, 4.0)]
    assert [pair.pair[0].name for pair in found.pairs] == ["a"]


def test_without_replicates_a_ratio_is_taken_as_it_is() -> None:
    (found,) = ratios(made({"a": 10.0, "b": 9.9}), "scope", value)
    assert (found.interval, found.is_noise) == (None, False)
    assert found.most == pytest.approx(10 / 9.9 - 1)


def test_replicates_that_disagree_about_the_direction_make_it_noise() -> None:
    (found,) = ratios(repeated({"a": [10.0, 10.0, 10.0, 10.0], "b": [12.0, 9.0, 13.0, 8.5]}), "scope", value)
    assert found.is_noise
    assert largest([found], 1.0) is None


def test_replicates_that_agree_make_it_real() -> None:
    (found,) = ratios(repeated({"a": [10.0, 20.0, 5.0], "b": [12.0, 25.0, 6.1]}), "scope", value)
    assert not found.is_noise
    assert found.contrast.level == "b"
    assert found.interval is not None
    assert 1.2 <= found.interval.low <= found.mean <= found.interval.high <= 1.25
    assert largest([found], 1.03) is found
    assert largest([found], 1.5) is None


def test_of_many_levels_the_largest_by_chance_is_noise() -> None:
    """Alone this pair would pass at 95%; beside nineteen others it must not."""
    near = [10.5, 10.3, 10.6, 9.9, 10.4, 10.2, 9.95, 10.3]
    alone = repeated({"a": [10.0] * 8, "b": near})
    among = repeated({"a": [10.0] * 8, "b": near, **{f"c{n}": [10.0] * 8 for n in range(200)}})
    assert not ratios(alone, "scope", value)[0].is_noise
    assert ratios(among, "scope", value)[0].is_noise


def test_a_replicate_counts_once_over_all_settings() -> None:
    grid = Grid.of(
        crossed(
            {"scope": ["a", "b"], "factor": [64, 32], "seed": [0, 1]},
            lambda scope, factor, seed: made_point(
                {"scope": scope, "factor": factor},
                {"x/value": (2.0 if factor == 32 else 1.0) * (3.0 if scope == "b" and factor == 32 else 1.0)},
                replicate={"seed": seed},
                name=f"{scope}{factor}{seed}",
            ),
        )
    )
    (found,) = ratios(grid, "factor", value)
    logs = per_replicate(grid, found.pairs, log_ratio)
    assert len(found.pairs) == 4
    assert logs == pytest.approx([1.2425, 1.2425], abs=1e-4)  # (log 2 + log 6) / 2


def paired(*pairs: tuple[float, float]) -> Grid:
    """A setting a pair: scope a and b at each."""
    return Grid.of(
        made_sweep(
            [
                made_point({"scope": scope, "at": at}, {"x/value": one})
                for at, pair in enumerate(pairs)
                for scope, one in zip("ab", pair, strict=True)
            ]
        )
    )


def test_pairs_that_disagree_about_the_direction_are_no_effect() -> None:
    (found,) = ratios(paired((10.0, 15.0), (10.0, 9.0)), "scope", value)
    assert found.mean > 1.1
    assert largest([found], 1.03) is None
    (found,) = ratios(paired((10.0, 15.0), (10.0, 11.0)), "scope", value)
    assert largest([found], 1.03) is found


def test_one_pair_of_ten_may_disagree() -> None:
    (found,) = ratios(paired(*[(10.0, 15.0)] * 9, (10.0, 9.0)), "scope", value)
    assert largest([found], 1.03) is found


def numbers(*values: float) -> Grid:
    return Grid.of(made_sweep([made_point({"lr": 10.0**-place}, {"x/value": one}) for place, one in enumerate(values)]))


def test_what_goes_up_and_down_along_numbers_is_no_effect_unless_replicates_say_so() -> None:
    assert largest(ratios(numbers(10.0, 12.0, 9.0), "lr", value), 1.03) is None
    found = largest(ratios(numbers(10.0, 12.0, 12.1), "lr", value), 1.03)
    assert found is not None
    assert found.contrast.level == 0.1
    sure = Grid.of(
        crossed(
            {"lr": [1.0, 0.1, 0.01], "seed": list(range(7))},
            lambda lr, seed: made_point(
                {"lr": lr}, {"x/value": {1.0: 10, 0.1: 12, 0.01: 9}[lr] + seed / 9}, replicate={"seed": seed}
            ),
        )
    )
    found = largest(ratios(sure, "lr", value), 1.03)
    assert found is not None
    assert found.is_sure


def test_every_two_levels_are_compared_where_that_is_asked_for() -> None:
    every = every_ratio(numbers(100.0, 102.9, 105.8), "lr", value)
    assert [round(one.mean, 3) for one in every] == [1.029, 1.058, 1.028]
