from __future__ import annotations

from typing import Any

import pytest

from reports.compare.matching import match
from reports.snapshot import AttemptSnapshot, PointSnapshot, SweepSnapshot


def sweep(
    *points: dict[str, Any], state: str = "succeeded", replicate: str | None = None, **more: Any
) -> SweepSnapshot:
    axes = tuple(dict.fromkeys(name for parameters in points for name in parameters))
    made = [
        PointSnapshot(
            id=f"p{number}",
            name="-".join(map(str, parameters.values())),
            parameters=parameters,
            replicate={replicate: parameters[replicate]} if replicate else {},
            state=state,
            attempts=(AttemptSnapshot(1),),
        )
        for number, parameters in enumerate(points)
    ]
    return SweepSnapshot("s", axes=axes, points=tuple(made), **more)


def names(found: Any) -> list[tuple[str, str]]:
    return [(pair.a.name, pair.b.name) for pair in found.pairs]


def test_points_are_matched_by_their_parameters_wherever_they_stand() -> None:
    a = sweep({"factor": 64, "scope": "x"}, {"factor": 512, "scope": "x"})
    b = sweep({"scope": "x", "factor": 512.0}, {"scope": "x", "factor": 64})
    found = match(a, b)
    assert names(found) == [("512-x", "x-512.0"), ("64-x", "x-64")]
    assert (found.only_a, found.only_b, found.ambiguous) == ((), (), ())


def test_true_is_not_one() -> None:
    found = match(sweep({"on": True}, {"on": False}), sweep({"on": 1}, {"on": 0}))
    assert found.pairs == ()


def test_points_without_a_partner_are_named() -> None:
    found = match(sweep({"f": 1}, {"f": 2}), sweep({"f": 2}, {"f": 3}))
    assert names(found) == [("2", "2")]
    assert [p.name for p in found.only_a] == ["1"]
    assert [p.name for p in found.only_b] == ["3"]


def test_an_axis_that_sets_the_sweeps_apart_matches_nothing() -> None:
    a = sweep({"f": 1, "exclude": True}, {"f": 2, "exclude": True})
    b = sweep({"f": 1, "exclude": False}, {"f": 2, "exclude": False})
    assert names(match(a, b)) == [("1-True", "1-False"), ("2-True", "2-False")]


def test_partners_are_not_guessed_where_an_axis_varies_in_one_sweep_alone() -> None:
    found = match(sweep({"f": 1}), sweep({"f": 1, "lr": 0.1}, {"f": 1, "lr": 0.2}, {"f": 2, "lr": 0.2}))
    assert found.pairs == ()
    assert [p.name for p in found.ambiguous] == ["1", "1-0.1", "1-0.2"]
    assert [p.name for p in found.only_b] == ["2-0.2"]


def test_replicates_share_a_setting() -> None:
    a = sweep({"f": 1, "seed": 0}, {"f": 1, "seed": 1}, {"f": 2, "seed": 0}, replicate="seed")
    (one, two) = match(a, a).settings.items()
    assert one[0] == (("f", "1"),)
    assert [pair.replicate for pair in one[1]] == [(("seed", "0"),), (("seed", "1"),)]
    assert len(two[1]) == 1


@pytest.mark.parametrize("state", ["failed", "pruned", "active"])
def test_a_point_that_did_not_succeed_is_matched_and_not_compared(state: str) -> None:
    found = match(sweep({"f": 1}), sweep({"f": 1}, state=state))
    assert found.pairs[0].obstacle == f"{state} in B"
    assert found.settings == {}
