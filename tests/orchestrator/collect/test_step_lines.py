"""Metric lines: what verl prints comes back, whatever stands around it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.collect.step_lines import StepStore, parse_line, training_steps

KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,8}(/[a-z0-9_@-]{1,8}){1,3}", fullmatch=True)
NUMBERS = st.one_of(st.floats(), st.integers(-(10**18), 10**18), st.booleans())
METRICS = st.dictionaries(KEYS, NUMBERS, min_size=1, max_size=12)
WRAPPERS = st.sampled_from(["{}", "np.float64({})", "np.int32({})"])


def printed(value: float, wrapper: str) -> str:
    if isinstance(value, bool):
        return "np.True_" if value and wrapper != "{}" else "True" if value else "False"
    return wrapper.format(repr(value))


def line_of(step: int, metrics: dict[str, float], wrapper: str = "{}") -> str:
    pairs = [f"{name}:{printed(value, wrapper)}" for name, value in metrics.items()]
    return " - ".join([f"step:{step}", *pairs])


def same(found: dict[str, float], expected: dict[str, float]) -> bool:
    return list(found) == list(expected) and all(
        found[name] == float(value) or (math.isnan(found[name]) and math.isnan(value))
        for name, value in expected.items()
    )


@given(st.integers(0, 10**9), METRICS, WRAPPERS)
def test_a_metric_line_comes_back_as_it_was_printed(step: int, metrics: dict[str, float], wrapper: str) -> None:
    ((found_step, found),) = parse_line(line_of(step, metrics, wrapper)).steps
    assert found_step == step
    assert same(found, metrics)


@given(
    METRICS,
    st.sampled_from(
        ["", "(TaskRunnerV1 pid=21194) ", "loading shard 3/7 ", "INFO 11-21 10:00:01] ", "50%|##  | 1/2 [00:10]"]
    ),
    st.sampled_from(["", " ", "(WorkerDict pid=7) note: done", " WARNING: foo - bar", "\t", " - INFO - loaded"]),
)
def test_other_processes_words_around_a_metric_line_change_nothing(
    metrics: dict[str, float], before: str, after: str
) -> None:
    ((step, found),) = parse_line(before + line_of(3, metrics) + after).steps
    assert step == 3
    assert same(found, metrics)


@given(METRICS, METRICS)
def test_two_metric_lines_without_a_line_break_are_two_steps(first: dict[str, float], second: dict[str, float]) -> None:
    text = line_of(1, first) + " " + line_of(2, second)
    assert [step for step, _ in parse_line(text).steps] == [1, 2]
    assert all(
        same(found, expected) for (_, found), expected in zip(parse_line(text).steps, (first, second), strict=True)
    )


def test_words_in_the_middle_of_a_metric_line_cost_only_the_metric_that_they_hit() -> None:
    parsed = parse_line("step:1 - a/x:1.5 - a/y:2.(WorkerDict pid=3) warning: low - a/z:3 - a/w:four")
    assert parsed.steps == ((1, {"a/x": 1.5, "a/y": 2.0, "a/z": 3.0}),)
    assert "warning: low" in parsed.rest
    assert "a/x" not in parsed.rest


@pytest.mark.parametrize(
    "text",
    [
        "training/global_step:1 - training/epoch:0",
        "timing_s/step:10 - perf/throughput:3",
        "step:1",
        "step:1 - ",
        "step:1 - nothing here",
        "step:x - a/b:1",
        "step:12345678901234567890 - a/b:1",
        "the next step: 3 - good",
        "",
    ],
)
def test_what_only_resembles_a_metric_line_is_none(text: str) -> None:
    assert parse_line(text).steps == ()


@given(st.text())
def test_any_text_is_parsed_without_an_error(text: str) -> None:
    parse_line(text)
    parse_line("step:1 - " + text)
    parse_line("step:1 - a/b:" + text)


def test_numbers_that_no_float_holds_do_not_stop_the_parser() -> None:
    ((_, found),) = parse_line(f"step:1 - a/b:{'9' * 5000} - a/c:1").steps
    assert found == {"a/b": math.inf, "a/c": 1.0}


def store(*lines: str, unterminated: str | None = None) -> StepStore:
    steps = StepStore()
    for number, line in enumerate(lines, start=1):
        steps.add(number, parse_line(line).steps)
    if unterminated is not None:
        steps.add(len(lines) + 1, parse_line(unterminated).steps, unterminated=True)
    return steps


def test_a_step_logged_twice_is_united_and_the_later_value_wins() -> None:
    steps = store("step:1 - a/x:1 - a/y:2", "step:1 - val-core/acc:0.5", "step:1 - a/x:3")
    assert steps.metrics() == {1: {"a/x": 3.0, "a/y": 2.0, "val-core/acc": 0.5}}


@pytest.mark.parametrize(
    ("lines", "restarted"),
    [
        (["step:1 - a/x:1", "step:2 - a/x:2"], False),
        (["step:1 - a/x:1", "step:2 - a/x:2", "step:2 - a/x:2"], False),
        (["step:1 - a/x:nan", "step:2 - a/x:nan", "step:2 - a/x:nan"], False),
        (["step:1 - a/x:1", "step:2 - a/x:2", "step:2 - val-core/acc:1"], False),
        (["step:1 - a/x:1", "step:2 - a/x:2", "step:1 - a/x:1.5"], True),
        (["step:1 - a/x:1", "step:1 - a/x:1.5"], True),
        (["step:1 - a/x:1", "step:2 - a/x:2", "step:2 - a/x:2.5", "step:3 - a/x:3"], False),
        (["step:0 - val-core/acc:1", "step:1 - a/x:1", "step:0 - val-core/acc:2"], False),
    ],
)
def test_restarted_means_that_steps_began_again_after_the_highest(lines: list[str], restarted: bool) -> None:
    assert store(*lines).restarted is restarted


def test_an_unterminated_step_counts_when_it_reaches_the_last_metric_of_the_step_before() -> None:
    steps = store("step:1 - a/x:1 - a/y:2", unterminated="step:2 - a/x:3 - a/y:4.0")
    assert steps.metrics()[2] == {"a/x": 3.0}


@pytest.mark.parametrize("cut", ["step:2 - a/x:3 - a/", "step:2 - a/x:3", "step:2 - a/x", "step:2"])
def test_an_unterminated_step_that_breaks_off_does_not_count(cut: str) -> None:
    assert list(store("step:1 - a/x:1 - a/y:2", unterminated=cut).metrics()) == [1]


def test_validation_alone_is_no_training_step() -> None:
    metrics = {0: {"val-core/acc": 1.0}, 1: {"actor/loss": 1.0}, 2: {"val-core/acc": 1.0, "val/x": 1.0}}
    assert training_steps(metrics) == (1,)
