"""Findings about memory that leaves little room."""

from __future__ import annotations

import pytest

from reports.contrasts import Grid
from reports.findings.limits import card_nearly_full, host_nearly_full
from tests.reports.made import GIB, made_point, made_sweep

LIMIT = {"host_limit_bytes": 900 * GIB}


def test_host_memory_near_its_limit_is_told_with_both() -> None:
    points = [
        made_point({"factor": 64}, host_peak_bytes=436 * GIB, **LIMIT),
        made_point({"factor": 32}, {"perf/cpu_memory_used_gb": 774.0}, **LIMIT),
    ]
    (finding,) = host_nearly_full(Grid.of(made_sweep(points)))
    assert finding.sentence == (
        "**Host memory is high**: `32` saw 774.0 GiB in use, as verl sees the whole node, 86% of the 900.0 GiB that the job "
        "may hold. A smaller node may not fit."
    )
    assert finding.evidence == ("32/1/metrics.jsonl:1",)


def test_of_several_the_nearest_is_named_and_the_rest_counted() -> None:
    points = [made_point({"factor": f}, host_peak_bytes=gib * GIB, **LIMIT) for f, gib in ((64, 800), (32, 850))]
    (finding,) = host_nearly_full(Grid.of(made_sweep(points)))
    assert "`32` saw 850.0 GiB in use, 94%" in finding.sentence
    assert finding.sentence.endswith("A smaller node may not fit; 1 more came near.")


@pytest.mark.parametrize("facts", [{"host_peak_bytes": 700 * GIB, **LIMIT}, {"host_peak_bytes": 899 * GIB}, LIMIT])
def test_room_or_an_unknown_limit_is_no_finding(facts: dict[str, int]) -> None:
    assert host_nearly_full(Grid.of(made_sweep([made_point({"factor": 64}, **facts)]))) == []


def test_a_card_that_is_nearly_full_is_told_by_the_devices_own_figure() -> None:
    point = made_point({"factor": 32}, gpu_peak_bytes=139 * GIB, card_bytes=141 * GIB)
    (finding,) = card_nearly_full(Grid.of(made_sweep([point])))
    assert "held 139.0 GiB, 99% of the card, and left 2.0 GiB" in finding.sentence


def test_torchs_figure_says_nothing_of_a_card() -> None:
    point = made_point({"factor": 32}, {"perf/max_memory_allocated_gb": 140.0}, card_bytes=141 * GIB)
    assert card_nearly_full(Grid.of(made_sweep([point]))) == []
