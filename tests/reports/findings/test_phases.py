"""Findings about where an update's time goes."""

from __future__ import annotations

from reports.contrasts import Grid
from reports.findings.phases import bottleneck, share_of_scores
from tests.reports.made import made_point, made_sweep

TIMED = {
    "grad_staging": 0.055,
    "hessian_solve": 1.469,
    "token_scoring": 1.348,
    "pop_rows": 3.432,
    "forward_1": 38.9,
    "logprob_backward": 76.42,
    "forward_2": 38.13,
    "loss_backward": 70.784,
    "update_actor": 230.518,
}


def test_the_dominant_phases_and_the_share_of_the_update_are_named() -> None:
    (finding,) = share_of_scores(Grid.of(made_sweep([made_point({"factor": 256}, TIMED)])))
    assert "`pop_rows` is 1.5% of `update_actor`" in finding.sentence
    assert "`hessian_solve` 1.5 s (42.8%) and `token_scoring` 1.3 s (39.3%) dominate" in finding.sentence
    assert finding.evidence == ("256/1/metrics.jsonl:1",)


def test_the_cheapest_point_is_told_beside_the_dearest() -> None:
    points = [
        made_point({"factor": 512}, {"pop_rows": 1.2, "hessian_solve": 0.29, "update_actor": 146}),
        made_point({"factor": 64}, {"pop_rows": 34.5, "hessian_solve": 31.1, "update_actor": 195}),
    ]
    (finding,) = share_of_scores(Grid.of(made_sweep(points)))
    assert "18% of `update_actor` at `factor=64`** (34.5 of 195 s)" in finding.sentence
    assert "At `factor=512` it is 0.8%." in finding.sentence


def test_the_passes_together_are_the_bottleneck() -> None:
    (finding,) = bottleneck(Grid.of(made_sweep([made_point({"factor": 256}, TIMED)])))
    assert "The backward passes are the largest part of the update" in finding.sentence
    assert "`logprob_backward` 76.4 s + `loss_backward` 70.8 s = 147 s, 64% of `update_actor`" in finding.sentence


def test_the_trace_that_our_trainer_states_apart_is_added_and_said_to_be() -> None:
    times = {**TIMED, "update_actor": 150.0, "trace": 80.518}
    grid = Grid.of(made_sweep([made_point({"factor": 256}, times)]))
    assert bottleneck(grid)[0].sentence.endswith("64% of `update_actor` and the trace beside it (150 + 80.5 s).")
    of_both = "`pop_rows` is 1.5% of `update_actor` and the trace beside it** (3.4 of 231 s)"
    assert of_both in share_of_scores(grid)[0].sentence


def test_a_phase_that_is_not_most_of_the_scores_does_not_dominate_them() -> None:
    times = {"pop_rows": 10.0, "hessian_solve": 4.0, "update_actor": 100.0}
    (finding,) = share_of_scores(Grid.of(made_sweep([made_point({"factor": 32}, times)])))
    assert "of its seconds `hessian_solve` 4.0 s (40.0%) take most" in finding.sentence


def test_the_scores_may_be_the_bottleneck_themselves() -> None:
    times = {**TIMED, "pop_rows": 1069.0, "update_actor": 1916.0}
    (finding,) = bottleneck(Grid.of(made_sweep([made_point({"factor": 32}, times)])))
    assert "The scores are the largest part" in finding.sentence


def test_a_part_that_is_less_than_what_nobody_timed_is_not_called_the_largest() -> None:
    times = {"pop_rows": 0.22, "loss_backward": 0.1, "update_actor": 0.86}
    assert bottleneck(Grid.of(made_sweep([made_point({"factor": 32}, times)]))) == []


def test_timings_that_are_zero_or_missing_say_nothing() -> None:
    for times in (dict.fromkeys(TIMED, 0.0), {"pop_rows": 1.0}, {"update_actor": 10.0}):
        grid = Grid.of(made_sweep([made_point({"factor": 64}, times)]))
        assert share_of_scores(grid) == bottleneck(grid) == []
