from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import ComposeError
from orchestrator.job_section import JobSection, fill, job_section
from orchestrator.spec import SweepSpec

JOB: dict[str, Any] = {
    "command": ["{python}", "-m", "x", 3],
    "prepare": [["{python}", "-m", "assets"]],
    "env": {"A": 1, "B": True, "C": None, "D": "d"},
    "expected": {"steps": 4, "npz": "influence/*.npz"},
}


def read(job: dict[str, Any] | None, **outputs: Any) -> JobSection:
    return job_section({"job": job}, SweepSpec.model_validate({"name": "s", "outputs": outputs}))


def test_the_configuration_says_what_runs_and_what_is_expected() -> None:
    assert read(JOB) == JobSection(
        command=["{python}", "-m", "x", "3"],
        prepare=[["{python}", "-m", "assets"]],
        env={"A": "1", "B": "1", "C": "", "D": "d"},
        expected_steps=4,
        npz_glob="influence/*.npz",
        expected_npz=4,
    )


def test_outputs_of_the_sweep_go_before() -> None:
    section = read(JOB, steps=7, npz="x_*.npz")
    assert (section.expected_steps, section.npz_glob, section.expected_npz) == (7, "x_*.npz", 7)


def test_a_preparation_that_is_null_is_none() -> None:
    assert read({**JOB, "prepare": [None, ["{python}", "-m", "assets"], None]}) == read(JOB)


def test_a_command_is_enough() -> None:
    section = read({"command": ["true"]})
    assert (section.prepare, section.env, section.expected_steps, section.npz_glob, section.expected_npz) == (
        [], {}, None, None, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": None}, "the configuration has no job.command"),
        ({"command": []}, "the configuration has no job.command"),
        ({"command": "python x"}, "job.command must be a list of words"),
        ({"prepare": ["x"]}, r"job.prepare\[0\] must be a list of words"),
        ({"prepare": "x"}, "job.prepare must be a list of commands"),
        ({"env": ["A=1"]}, "job.env must be a mapping"),
        ({"expected": {"steps": "two"}}, "job.expected.steps must be a whole number"),
        ({"expected": {"npz": 3}}, "job.expected.npz must be a glob"),
    ],
)
def test_parts_of_another_type_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ComposeError, match=message):
        read({**JOB, **change})


def test_no_job_section_is_told() -> None:
    with pytest.raises(ComposeError, match=r"the configuration has no job\.command"):
        read(None)


def test_fill_replaces_every_string_in_one_pass() -> None:
    value = {"a": ["{root}/x", 3, {"b": "{python}{root}"}], "c": "{other} {root", "d": None}
    filled = fill(value, {"{root}": "{python}", "{python}": "py"})
    assert filled == {"a": ["{python}/x", 3, {"b": "py{python}"}], "c": "{other} {root", "d": None}
    assert value["a"][0] == "{root}/x"  # type: ignore[index]


def test_fill_without_placeholders_changes_nothing() -> None:
    assert fill(["{root}"], {}) == ["{root}"]


@pytest.mark.parametrize("glob", ["/etc/*", "../*", "a/../../*", "a**", "", ".", 3])
def test_a_glob_that_leaves_the_attempt_folder_or_is_none_is_refused(glob: object) -> None:
    with pytest.raises(ComposeError, match="must be a glob below the attempt folder"):
        read({"command": ["true"], "expected": {"npz": glob}})


def test_a_glob_of_the_sweep_file_is_refused_by_its_name_there() -> None:
    with pytest.raises(ComposeError, match=r"outputs\.npz"):
        read(JOB, npz="/etc/*")
