"""Predicted beside measured, and points that ran with another configuration than the sweep file's."""

from __future__ import annotations

import pytest

from reports.report import render
from reports.sections.patches import patch_note
from reports.snapshot import AttemptSnapshot, Expected, PointSnapshot, PredictionSnapshot, SweepSnapshot

GIB = 1024**3


def resources(snapshot: SweepSnapshot) -> str:
    return render(snapshot, only={"resources"})


def point(
    name: str, predicted: PredictionSnapshot | None, gpu_gib: float | None = 66.0, **more: object
) -> PointSnapshot:
    attempt = AttemptSnapshot(1, "h200", "judged", "completed", started_at=1000.0, ended_at=1900.0)
    peak = int(gpu_gib * GIB) if gpu_gib else None
    values = {"attempts": (attempt,), "gpu_peak_bytes": peak, "state": "succeeded", "predicted": predicted, **more}
    return PointSnapshot(name[:10], name, **values)  # type: ignore[arg-type]


def guess(value: float, basis: str = "shapes") -> Expected:
    return Expected(value * GIB, 0.8 * value * GIB, 1.25 * value * GIB, basis)


def test_a_prediction_stands_beside_its_measurement_with_its_error() -> None:
    seconds = Expected(800.0, 400.0, 1600.0)
    report = resources(SweepSnapshot("s", points=(point("a", PredictionSnapshot(guess(60.0), None, seconds)),)))
    assert "| `a` | `h200` | 60.0 (48.0 – 75.0) | 66.0 | -9% | 800 (400 – 1,600) | 900 | -11% |" in report
    assert "Host (GiB)" not in report, "nothing was predicted of it"
    assert "by formula from the model's shapes" in report


def test_a_measurement_outside_the_interval_is_bold() -> None:
    report = resources(SweepSnapshot("s", points=(point("a", PredictionSnapshot(guess(30.0))),)))
    assert "| 30.0 (24.0 – 37.5) | 66.0 | **-55%** |" in report


def test_where_the_figures_come_from_is_said() -> None:
    report = resources(SweepSnapshot("s", points=(point("a", PredictionSnapshot(guess(60.0, "scaled"))),)))
    assert "scaled from the nearest configuration" in report


@pytest.mark.parametrize(
    "unchecked",
    [
        point("a", None),
        point("a", PredictionSnapshot()),
        point("a", PredictionSnapshot(guess(60.0)), gpu_gib=None),
        point("a", PredictionSnapshot(guess(60.0)), state="failed"),
    ],
)
def test_what_cannot_be_compared_is_left_out(unchecked: PointSnapshot) -> None:
    assert "Predicted" not in resources(SweepSnapshot("s", points=(unchecked,)))


def test_predictions_survive_a_round_trip_through_json() -> None:
    snapshot = SweepSnapshot(
        "s", points=(point("a", PredictionSnapshot(guess(60.0), None, guess(1.0))), point("b", None))
    )
    assert SweepSnapshot.from_json(snapshot.to_json()) == snapshot


def patched(name: str) -> PointSnapshot:
    attempt = AttemptSnapshot(3, "h200", patch={"rollout.share": 0.4, "new": 1}, unpatched={"rollout.share": 0.5})
    return point(name, None, attempts=(AttemptSnapshot(1), attempt))


def test_a_patched_point_is_marked_wherever_it_is_named_and_explained_once() -> None:
    report = render(SweepSnapshot("s", points=(patched("a"), point("b", None))))
    assert "| `a` † |" in report
    assert "| `b` |" in report
    assert report.count("† The retry policy changed the configuration") == 1
    assert "`a` with `rollout.share` `0.4` in place of `0.5`, `new` `1`" in report


def test_a_sweep_that_nobody_patched_says_nothing_of_patches() -> None:
    assert patch_note([point("b", None)]) == ""
    assert "†" not in render(SweepSnapshot("s", points=(point("b", None),)))
