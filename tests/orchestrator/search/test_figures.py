"""Names of figures and constraints, and what they come to for one point."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.ledger import AttemptRow
from orchestrator.model import AttemptState
from orchestrator.search.figures import Figure, parse_constraint, parse_figure
from orchestrator.search.reading import Facts, NoFigure, read_figure
from orchestrator.triage.evidence import GIB, Evidence, NpzFacts


def attempt(n: int, started: float | None, ended: float | None) -> AttemptRow:
    return AttemptRow("s", "p", n, "t", "j", None, AttemptState.JUDGED, 0.0, started_at=started, ended_at=ended)


FACTS = Facts(
    evidence=Evidence(
        ended=True,
        metrics={1: {"m/a": 1.0, "m/b": 5.0}, 3: {"m/a": 3.0}, 2: {"m/a": 8.0}},
        npz=(NpzFacts("b.npz", 2, std=0.5), NpzFacts("a.npz", 1, std=0.25), NpzFacts("c.npz", 3, error="torn")),
        gpu_peak_bytes=3 * GIB,
    ),
    history=(attempt(1, 0.0, 100.0), attempt(2, 200.0, 260.0)),
    gpus=9,
    folder=Path("nowhere"),
    reference=lambda: Path("nowhere"),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("m/a", 3.0),
        ("last(m/a)", 3.0),
        ("first(m/a)", 1.0),
        ("mean(m/a)", 4.0),
        ("max(m/a)", 8.0),
        ("min( m/a )", 1.0),
        ("m/b", 5.0),
        ("npz/std", 0.5),
        ("first(npz/std)", 0.25),
        ("memory", 3.0),
        ("seconds", 60.0),
        ("gpu_hours", 160 * 9 / 3600),
    ],
)
def test_a_figure_of_a_point(text: str, value: float) -> None:
    assert read_figure(parse_figure(text), FACTS) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("m/c", "m/c was not logged"), ("host_memory", "host_memory was not measured"), ("fidelity", "cannot be read")],
)
def test_a_figure_that_a_point_does_not_have_says_so(text: str, message: str) -> None:
    with pytest.raises(NoFigure, match=message):
        read_figure(parse_figure(text), FACTS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memroy", "`memroy` is no figure of a point; did you mean `memory`?"),
        ("median(m/a)", "there is no median()"),
        ("mean(memory)", "`memory` is one number"),
        ("npz/variance", "there is no `npz/variance`"),
    ],
)
def test_a_name_that_is_no_figure_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_figure(text)


def test_a_constraint_says_by_how_much_it_is_broken() -> None:
    at_most, at_least = parse_constraint("memory <= 75"), parse_constraint("mean(m/a)>=-2.5")
    assert (at_most.violation(80), at_most.violation(70)) == (5, -5)
    assert (at_least.figure, at_least.violation(-3)) == (Figure("m/a", "mean"), 0.5)


@pytest.mark.parametrize("text", ["memory", "memory < 75", "memory <= x", "memory <= inf", "<= 3", "memory <= 3 <= 4"])
def test_what_is_no_constraint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_constraint(text)
