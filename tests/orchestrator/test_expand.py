from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.expand import expand
from orchestrator.naming import POINT_NAME_LENGTH
from orchestrator.spec import SweepSpec


def sweep(**fields: Any) -> SweepSpec:
    return SweepSpec.model_validate({"name": "s", **fields})


def test_first_named_axis_varies_slowest_and_replicates_fastest() -> None:
    spec = sweep(parameters={"a.x": [1, 2], "b.y": ["p", "q"]}, replicates={"seed": [0, 1]}, overrides=["c.z=3"])
    points = expand(spec)
    assert [tuple(point.parameters.values()) for point in points] == [
        (a, b, seed) for a in (1, 2) for b in ("p", "q") for seed in (0, 1)
    ]
    assert points[3].overrides == ("c.z=3", "a.x=1", "b.y=q", "seed=1")
    assert points[3].replicate == {"seed": 1}
    assert [point.index for point in points] == list(range(8))


def test_zipped_columns_move_together() -> None:
    points = expand(sweep(parameters={"a.a": [1, 2]}, zip={"z": {"b.b": [3, 4], "c.c": ["x", "y"]}}))
    assert [tuple(point.parameters.values()) for point in points] == [
        (1, 3, "x"),
        (1, 4, "y"),
        (2, 3, "x"),
        (2, 4, "y"),
    ]


def test_exclude_drops_points_of_the_product_but_never_included_ones() -> None:
    spec = sweep(
        parameters={"f": [1, 2, 3]}, alias={"f": "x.f"}, exclude=["f > 1"], include=[{"f": 3}, {"other.key": 1}]
    )
    points = expand(spec)
    assert [point.parameters for point in points] == [{"f": 1}, {"f": 3}, {"other.key": 1}]
    assert points[1].overrides == ("x.f=3",)


def test_no_axes_is_one_point() -> None:
    (point,) = expand(sweep(overrides=["a=1"]))
    assert (point.name, point.overrides, point.parameters) == ("s", ("a=1",), {})


def test_included_points_alone_need_no_product() -> None:
    assert [point.parameters for point in expand(sweep(include=[{"a.b": 1}]))] == [{"a.b": 1}]


def test_a_sweep_without_points_is_an_error() -> None:
    with pytest.raises(SpecError, match="exclude: no point is left"):
        expand(sweep(parameters={"a.b": [1, 2]}, exclude=["a.b > 0"]))


def test_a_product_out_of_all_bounds_is_refused_before_it_is_built() -> None:
    with pytest.raises(SpecError, match=r"the product has 10{12} points"):
        expand(sweep(parameters={f"a.b{n}": list(range(100)) for n in range(6)}))


def test_an_expression_that_cannot_be_evaluated_names_the_point() -> None:
    with pytest.raises(SpecError, match=r"exclude\[1\]: .*column 1: '<' not supported.*for \{'a.b': 'x'\}"):
        expand(sweep(parameters={"a.b": [1, "x"]}, exclude=["a.b == 5", "a.b < 1"]))


def test_names_follow_the_template() -> None:
    spec = sweep(
        parameters={"a.lr": [1e-5], "on": [True]}, alias={"on": "x.on"}, job_name="{name}_{index}-LR{a.lr}-{on}"
    )
    assert [point.name for point in expand(spec)] == ["s-0-lr1e-05-true"]


def test_replicates_that_the_template_leaves_out_are_added() -> None:
    points = expand(sweep(parameters={"a.f": [1]}, replicates={"seed": [0, 1]}, job_name="f{a.f}"))
    assert [point.name for point in points] == ["f1-seed0", "f1-seed1"]


def test_template_that_does_not_tell_points_apart_names_the_placeholder() -> None:
    with pytest.raises(SpecError, match=r"job_name: two points are both called f1 \(add \{b.g\} to the template\)"):
        expand(sweep(parameters={"a.f": [1], "b.g": [1, 2]}, job_name="f{a.f}"))


def test_names_alike_only_in_the_safe_spelling_are_numbered() -> None:
    points = expand(sweep(parameters={"a.f": ["x.1", "x-1", "x/1"]}, job_name="{a.f}"))
    assert [point.name for point in points] == ["x-1", "x-1-2", "x-1-3"]


scalars = st.booleans() | st.integers(-5, 5) | st.sampled_from(["a", "B", "a b", "é", "x" * 70]) | st.none()
columns = st.lists(scalars, min_size=1, max_size=3, unique_by=repr)


@st.composite
def sweeps(draw: st.DrawFn) -> dict[str, Any]:
    names = [f"n{index}.k" for index in range(6)]
    width = draw(st.integers(1, 3))
    rows = draw(st.lists(st.tuples(scalars, scalars), min_size=width, max_size=width, unique_by=repr))
    return {
        "parameters": {name: draw(columns) for name in names[: draw(st.integers(0, 3))]},
        "zip": draw(st.sampled_from([{}, {"z": {names[3]: [a for a, _ in rows], names[4]: [b for _, b in rows]}}])),
        "replicates": draw(st.sampled_from([{}, {"seed": [0, 1, 2]}])),
    }


@given(sweeps())
@settings(deadline=None)
def test_counts_order_and_names(fields: dict[str, Any]) -> None:
    points = expand(sweep(**fields))
    zipped = [len(next(iter(group.values()))) for group in fields["zip"].values()]
    lengths = [len(column) for column in (*fields["parameters"].values(), *fields["replicates"].values())]
    assert len(points) == math.prod(lengths + zipped)
    assert len({repr(sorted(point.parameters.items())) for point in points}) == len(points)
    assert len({point.name for point in points}) == len(points)
    for point in points:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", point.name)
        assert len(point.name) <= POINT_NAME_LENGTH
    places = [
        [fields["parameters"][name].index(point.parameters[name]) for name in fields["parameters"]] for point in points
    ]
    if not any(isinstance(value, bool) for column in fields["parameters"].values() for value in column):
        assert places == sorted(places)


@given(sweeps(), st.integers(-5, 5))
@settings(deadline=None)
def test_exclude_drops_exactly_what_holds(fields: dict[str, Any], limit: int) -> None:
    fields["parameters"]["cut.k"] = [-3, 0, 3]
    every = expand(sweep(**fields))
    kept = [point.parameters for point in every if not point.parameters["cut.k"] > limit]
    spec = sweep(**fields, exclude=[f"cut.k > {limit}"])
    if not kept:
        with pytest.raises(SpecError):
            expand(spec)
    else:
        assert [point.parameters for point in expand(spec)] == kept
