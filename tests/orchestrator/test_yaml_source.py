from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import yaml_source
from orchestrator.errors import SpecError
from orchestrator.yaml_source import Mark


def test_every_key_and_item_knows_its_line() -> None:
    source = yaml_source.parse("name: x\nparameters:\n  a: [1,\n      2]\n  b:\n    - 3\n", "f.yaml")
    assert source.data == {"name": "x", "parameters": {"a": [1, 2], "b": [3]}}
    lines = {yaml_source.dotted(path): mark.line for path, mark in source.marks.items() if path}
    assert lines == {
        "name": 1,
        "parameters": 2,
        "parameters.a": 3,
        "parameters.a[0]": 3,
        "parameters.a[1]": 4,
        "parameters.b": 5,
        "parameters.b[0]": 6,
    }


def test_key_written_twice_is_refused_with_both_lines() -> None:
    with pytest.raises(SpecError, match=r"f.yaml:3: budget.a: is already set on line 2"):
        yaml_source.parse("budget:\n  a: 1\n  a: 2\n", "f.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml: is empty"),
        ("- a\n- b\n", "f.yaml:1: must be a mapping"),
        ("a: [1\nb: 2\n", r"f.yaml:2: not valid YAML"),
        ("a: &x [*x]\n", "nested too deeply"),
        ("a: !!python/object/apply:os.getcwd []\n", "not valid YAML: could not determine a constructor"),
    ],
)
def test_bad_documents_are_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        yaml_source.parse(text, "f.yaml")


def test_anchors_that_multiply_are_refused() -> None:
    levels = "".join(f"k{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(SpecError, match="too large"):
        yaml_source.parse("k0: &a0 [x]\n" + levels, "f.yaml")


@pytest.mark.parametrize("text", ["1e-5", "1E5", "-2e+3", "1.5e-6", ".5e1"])
def test_exponents_without_a_point_are_numbers(text: str) -> None:
    assert yaml_source.value(text) == float(text)


def test_dates_stay_text() -> None:
    assert yaml_source.value("2026-11-21") == "2026-11-21"


def test_merge_keys_work() -> None:
    source = yaml_source.parse("a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\n", "f.yaml")
    assert source.data["b"] == {"x": 1, "y": 2}


def test_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"gone\.yaml: cannot read it"):
        yaml_source.read(tmp_path / "gone.yaml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(SpecError, match="is not UTF-8 text"):
        yaml_source.read(tmp_path / "x.yaml")


def test_put_replaces_what_was_below_and_its_marks() -> None:
    source = yaml_source.parse("a:\n  b: {c: 1}\n", "f.yaml")
    source.put(("a", "b"), [7], Mark("command line"))
    assert source.data == {"a": {"b": [7]}}
    assert str(source.error(("a", "b", 0), "bad")) == "command line: a.b[0]: bad"
    assert str(source.error(("a", "z"), "bad")) == "f.yaml:1: a.z: bad"


def test_put_below_a_scalar_names_the_scalar() -> None:
    source = yaml_source.parse("a: {b: 1}\n", "f.yaml")
    with pytest.raises(KeyError) as caught:
        source.put(("a", "b", "c"), 2, Mark("command line"))
    assert caught.value.args[0] == ("a", "b")


_keys = st.from_regex(r"[a-z]{1,6}", fullmatch=True).filter(lambda key: isinstance(yaml.safe_load(key), str))
_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.from_regex(r"[a-z ]{0,8}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=15,
)


@given(st.dictionaries(_keys, _trees, min_size=1, max_size=4))
def test_reads_back_what_yaml_wrote(data: dict[str, object]) -> None:
    assert yaml_source.parse(yaml.safe_dump(data), "f.yaml").data == data


def test_nesting_that_the_parser_itself_cannot_follow_is_refused() -> None:
    with pytest.raises(SpecError, match="nested too deeply"):
        yaml_source.parse("a: " + "[" * 5000 + "]" * 5000, "deep.yaml")
    with pytest.raises(ValueError, match="nested too deeply"):
        yaml_source.value("[" * 5000 + "]" * 5000)
