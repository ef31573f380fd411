"""The verbs `step` and `job` of the benchmarks' command line."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from tests.trainer_ext.bench.step.values import INLINE, OFF, SEPARATE
from trainer_ext.bench.__main__ import main, parser
from trainer_ext.bench.step.command import make_plan

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def test_a_cpu_gets_a_model_and_a_batch_that_it_can_train() -> None:
    plan = make_plan(parser().parse_args(["step", "--device", "cpu"]))
    assert (plan.through, plan.device, plan.model, plan.layers) == ("worker", "cpu", "tiny", 2)
    assert plan.response == (8, 16)
    assert len(plan.cases) == 17


def test_options_reach_the_plan() -> None:
    words = (
        "job --device cpu --ranks 2 --response 64:128 --cases f64-* --steps 3 --budget 9 --override a=1 --override b=2"
    )
    plan = make_plan(parser().parse_args(words.split()))
    assert (plan.through, plan.ranks, plan.response, plan.steps, plan.budget_s) == ("job", 2, (64, 128), 3, 9.0)
    assert plan.overrides == ("a=1", "b=2")
    assert len(plan.cases) == 5


def test_a_length_alone_is_both_bounds() -> None:
    assert make_plan(parser().parse_args(["step", "--device", "cpu", "--response", "7"])).response == (7, 7)


@pytest.mark.parametrize("words", [["--response", "a:b"], ["--response", ":7"], ["--layers", "x"], ["--device", "tpu"]])
def test_an_option_that_makes_no_sense_is_refused_by_the_parser(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(["step", *words])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cases", "f3-*"], "--cases: no case matches 'f3-*'"),
        (["--steps", "0"], "--steps: must be 1 or more, got 0"),
        (["--override", "trainer.no_such_key=1"], "no_such_key"),
    ],
)
def test_a_bad_option_costs_no_process(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["step", "--device", "cpu", *words], now=lambda: NOW) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_two_ranks_measure_the_cases_with_the_settings_of_a_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["step", "--device", "cpu", "--ranks", "2", "--per-prompt", "2", "--cases", INLINE.name, SEPARATE.name]
    files = ["--json", str(tmp_path / "report.json"), "--record", str(tmp_path / "history.jsonl")]
    code = main([*words, *files, "--work", str(tmp_path / "work"), "--commit", "abc"], now=lambda: NOW)
    report = json.loads((tmp_path / "report.json").read_text())
    assert code == 0, report["failures"]
    assert [(row["case"], row["step"]) for row in report["rows"]] == [
        (case.name, step) for case in (OFF, INLINE, SEPARATE) for step in (1, 2)
    ]
    off, inline, separate = report["rows"][1::2]
    assert {"forward_2", "loss_backward"} < set(off["seconds"])
    assert "forward_1" not in inline["seconds"], "no pass of its own"
    assert {"forward_1", "logprob_backward", "pop_rows"} < set(separate["seconds"])
    assert inline["scored_tokens"] == separate["scored_tokens"] > inline["tokens"], "of both ranks"
    assert separate["agreement"] < 0.1, "bfloat16"
    assert all(row["memory_gib"]["process"] > 0.1 for row in report["rows"])
    assert json.loads((tmp_path / "history.jsonl").read_text()) == report
    assert f"| {INLINE.name} " in capsys.readouterr().out
