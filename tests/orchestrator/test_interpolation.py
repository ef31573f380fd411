from __future__ import annotations

import pytest

from orchestrator.interpolation import ROOT, Reach, leaves, references


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("plain {root}", set()),
        (3, set()),
        ("${x.y}", {"x.y"}),
        ("${.sibling}", {"a.b.sibling"}),
        ("${..uncle}", {"a.uncle"}),
        ("${x[y].z}", {"x.y.z"}),
        ("${oc.select:x.y,${z}}", {"x.y", "z"}),
        ("${oc.select:.s, 3}", {"a.b.s"}),
        (["${..near}", {"k": "${.k2}"}], {"a.b.near", "a.b.leaf.1.k2"}),
    ],
)
def test_reads_at_least_what_is_written(value: object, paths: set[str]) -> None:
    read = references("a.b.leaf", value)
    assert paths <= read
    assert ROOT not in read


@pytest.mark.parametrize(
    "text",
    [
        "${x.${y}}",
        "${${y}}",
        "${oc.select:${y}.z}",
        "${oc.select:x,${y}.z}",
        "${now:%Y}",
        "${oc.decode:${x}}",
        "${x.'y'}",
    ],
)
def test_what_cannot_be_told_reads_everything(text: str) -> None:
    assert ROOT in references("a.b", text)


def test_two_interpolations_beside_each_other_are_told() -> None:
    assert {"x.y", "z"} <= references("a.b", "{root}/${x.y}-${z}.parquet")
    assert ROOT not in references("a.b", "{root}/${x.y}-${z}.parquet")


def reach(tree: dict[str, object], *changed: str, reads: tuple[str, ...] = ()) -> Reach:
    return Reach({path: references(path, value) for path, value in leaves(tree)}, changed, reads)


def test_change_travels_along_interpolations() -> None:
    tree = {"a": 1, "b": "${a}", "c": {"d": "${b}", "e": 2}, "f": "${c}", "g": 3}
    assert reach(tree, "a").affected == {"a", "b", "c.d", "f"}
    assert reach(tree, "a").needed == {"a", "b", "c.d", "c.e", "f"}


def test_new_keys_reach_those_who_asked_for_them() -> None:
    tree = {"a": {"b": 1}, "c": "${oc.select:a.new,0}", "d": "${oc.dict.keys:a}"}
    assert reach(tree, "a.new").affected == {"c", "d"}


def test_setting_below_an_interpolation_changes_its_target() -> None:
    assert reach({"a": {"x": 1}, "b": "${a}", "c": "${a.x}"}, "b.x").affected == {"a.x", "b", "c"}


def test_new_values_need_what_they_read() -> None:
    tree = {"a": 1, "b": "${c}", "c": 2, "d": 3}
    assert reach(tree, "a", reads=("b",)).needed == {"a", "b", "c"}
    assert reach(tree, "a", reads=("b",)).affected == {"a"}
