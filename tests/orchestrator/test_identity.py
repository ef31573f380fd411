from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.identity import JOB_NAME_LENGTH, canonical_json, job_name, point_hash, point_id

CONFIG = {"trainer": {"steps": 2, "logger": ["console"]}, "lr": 1e-5, "name": "größe", "on": True, "none": None}

_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
_configs = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def test_the_stored_form_never_changes() -> None:
    """Points that ran are found again by this hash: if this test fails, every stored sweep would run anew."""
    assert canonical_json(CONFIG) == (
        '{"lr":1e-05,"name":"gr\\u00f6\\u00dfe","none":null,"on":true,"trainer":{"logger":["console"],"steps":2}}'
    )
    assert point_hash(CONFIG) == "085aed3572897dc574d399c07d68cd4c27629d924240294291ff7b50eb7dd4fe"


@given(st.dictionaries(st.text(max_size=4), _configs, max_size=4), st.randoms())
def test_order_of_keys_does_not_matter(config: dict[str, Any], random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, shuffled(inner)) for key, inner in value.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert point_hash(shuffled(config)) == point_hash(config)


@given(st.dictionaries(st.text(max_size=4), _configs, max_size=4))
def test_survives_a_trip_through_json(config: dict[str, Any]) -> None:
    assert point_hash(json.loads(json.dumps(config))) == point_hash(config)


def test_numeric_keys_hash_as_they_are_stored() -> None:
    config = {10: "a", 9: {2: "b", "x": "c"}}
    assert point_hash(json.loads(json.dumps(config))) == point_hash(config)  # type: ignore[arg-type]


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (1, "1"), (None, "null"), (0, False), ([], {})])
def test_unlike_types_are_unlike_points(one: object, other: object) -> None:
    assert point_hash({"a": one}) != point_hash({"a": other})


def test_nan_is_stable_and_valid_json() -> None:
    assert canonical_json({"a": math.nan}) == canonical_json({"a": math.nan}) == '{"a":{"float":"nan"}}'
    assert canonical_json({"a": -math.inf}) == '{"a":{"float":"-inf"}}'


def test_excluded_keys_do_not_count() -> None:
    other = {**CONFIG, "trainer": {"steps": 2, "logger": ["file"]}}
    assert point_hash(other) != point_hash(CONFIG)
    assert point_hash(other, ["trainer.logger"]) == point_hash(CONFIG, ["trainer.logger", "no.such.key", "lr.deeper"])
    assert other["trainer"] == {"steps": 2, "logger": ["file"]}


def test_excluding_a_key_is_not_the_same_as_emptying_it() -> None:
    assert point_hash({"a": {"b": 1}}, ["a.b"]) == point_hash({"a": {}})


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True), st.integers(1, 99999))
def test_job_names_are_labels_that_tell_attempts_apart(sweep: str, attempt: int) -> None:
    full_hash = point_hash(CONFIG)
    name = job_name(sweep, full_hash, attempt)
    assert len(name) <= JOB_NAME_LENGTH
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert name.endswith(f"-{point_id(full_hash)}-{attempt}")


def test_long_sweeps_with_one_beginning_stay_apart() -> None:
    one, other = "a" * 39 + "1", "a" * 39 + "2"
    assert job_name(one, "0" * 64, 1) != job_name(other, "0" * 64, 1)
