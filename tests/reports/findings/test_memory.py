"""Findings about memory: larger pools, figures that cannot be, and growth."""

from __future__ import annotations

import pytest

from reports.contrasts import Grid
from reports.findings.memory import beyond_physics, larger_pool, memory_of_levels
from tests.reports.made import GIB, made_point, made_sweep

H200 = 143_771 * 1024**2
TORCH = "perf/max_memory_allocated_gb"
DOUBTED = (("memory_metric_unreliable", "words"),)


def test_a_point_that_needed_the_larger_pool_is_named_with_both_and_its_log_line() -> None:
    points = [
        made_point({"scope": "a", "factor": 64}, pool="h100"),
        made_point({"scope": "b", "factor": 32}, {"step": 1}, failed_on="h100", card_bytes=H200),
    ]
    (finding,) = larger_pool(Grid.of(made_sweep(points)))
    assert finding.sentence == (
        "**`b-32` needed the larger pool**: it ran out of GPU memory on `h100` and completed on `h200` (140.4 GiB a card), "
        "at `scope=b, factor=32`. 1 other point completed on `h100`."
    )
    assert finding.evidence == ("b-32/1/console.log:1", "b-32/2/console.log:2", "b-32/2/metrics.jsonl:1")


def test_many_such_points_are_one_finding() -> None:
    points = [made_point({"factor": factor}, failed_on="h100") for factor in range(1, 8)]
    (finding,) = larger_pool(Grid.of(made_sweep(points)))
    assert finding.sentence.startswith("**7 of 7 points needed a larger pool**")
    assert "`h100` to `h200`" in finding.sentence


def test_a_second_try_on_the_same_pool_is_no_move() -> None:
    assert larger_pool(Grid.of(made_sweep([made_point({"factor": 32}, failed_on="h200")]))) == []


def test_a_peak_above_the_card_is_no_measurement() -> None:
    points = [
        made_point({"factor": factor}, {TORCH: peak}, card_bytes=H200, anomalies=DOUBTED)
        for factor, peak in ((512, 141.1), (64, 170.0))
    ]
    (finding,) = beyond_physics(Grid.of(made_sweep(points)))
    assert (
        "in all 2 jobs: `max_memory_allocated` claims 141.1 to 170.0 GiB where the card has 140.4 GiB"
        in finding.sentence
    )
    assert "2 of 2 completed without running out of it" in finding.sentence
    assert finding.evidence == ("512/1/metrics.jsonl:1", "64/1/metrics.jsonl:1")


@pytest.mark.parametrize(
    "facts",
    [
        {"card_bytes": H200},  # nobody doubts it
        {"anomalies": DOUBTED},  # no card is known
        {"card_bytes": 200 * GIB, "anomalies": DOUBTED},  # doubted for another reason
    ],
)
def test_a_peak_that_may_be_is_no_finding(facts: dict[str, object]) -> None:
    assert beyond_physics(Grid.of(made_sweep([made_point({"factor": 64}, {TORCH: 150.0}, **facts)]))) == []


def test_host_memory_that_grows_with_a_level_is_a_ratio() -> None:
    points = [made_point({"factor": f}, host_peak_bytes=gib * GIB) for f, gib in ((64, 436), (32, 753))]
    (finding,) = memory_of_levels(Grid.of(made_sweep(points)))
    assert finding.sentence == "**`factor` 32 holds 1.73× the host memory of 64** (753.0 GiB against 436.0 GiB)."


def test_what_is_the_whole_nodes_is_said_to_be() -> None:
    points = [made_point({"factor": f}, {"perf/cpu_memory_used_gb": gib}) for f, gib in ((64, 436), (32, 753))]
    (finding,) = memory_of_levels(Grid.of(made_sweep(points)))
    assert "as verl sees the whole node" in finding.sentence


def test_torchs_figure_is_compared_only_where_nobody_doubts_it() -> None:
    def sweep(**facts: object) -> Grid:
        return Grid.of(
            made_sweep([made_point({"factor": f}, {TORCH: gib}, **facts) for f, gib in ((64, 50), (32, 70))])
        )

    (finding,) = memory_of_levels(sweep())
    assert "1.40× the GPU memory of 64" in finding.sentence
    assert memory_of_levels(sweep(anomalies=DOUBTED)) == []


def test_on_a_machine_without_gpus_there_is_no_gpu_memory() -> None:
    """The job reports its own memory under the device's name there."""
    sizes = ((64, 4.0), (32, 8.0))
    points = [made_point({"factor": f}, {"perf/physical_memory_peak_gb": gib}, pool=None) for f, gib in sizes]
    assert memory_of_levels(Grid.of(made_sweep(points))) == []


def test_small_growth_is_no_finding() -> None:
    points = [made_point({"factor": f}, gpu_peak_bytes=gib * GIB) for f, gib in ((64, 100), (32, 104))]
    assert memory_of_levels(Grid.of(made_sweep(points))) == []


def test_jobs_that_hold_next_to_nothing_are_not_compared() -> None:
    points = [made_point({"factor": f}, host_peak_bytes=gib * GIB) for f, gib in ((64, 0.003), (32, 0.004))]
    assert memory_of_levels(Grid.of(made_sweep(points))) == []
