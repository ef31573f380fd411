"""`python -m trainer_ext.bench influence` from its options to its table, on a batch that takes a second."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer_ext.bench.__main__ import main, make_plan, parser
from trainer_ext.bench.cases import CASES, Case
from trainer_ext.bench.influence import measure
from trainer_ext.bench.plan import Plan
from trainer_ext.bench.report import Environment, Report
from trainer_ext.bench.shapes import parse_shape

MODEL = "hidden=16,intermediate=40,layers=3,heads=4,kv_heads=2,head_dim=4"
SMALL = [
    *("influence", "--device", "cpu", "--model", MODEL, "--tokens", "256", "--prompts", "2", "--per-prompt", "4"),
    *("--factor", "8", "--repeats", "1"),
]
NOON = datetime.datetime(2030, 1, 2, 12, tzinfo=datetime.UTC)


def arguments(*options: str) -> argparse.Namespace:
    return parser().parse_args([*SMALL, *options])


def test_every_case_is_measured_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, history = tmp_path / "report.json", tmp_path / "history.jsonl"
    options = ["--layers", "2", "--json", str(report), "--record", str(history), "--note", "a try", "--commit", "abc"]
    assert main([*SMALL, *options], now=lambda: NOON) == 0
    found = json.loads(report.read_text())
    assert [json.loads(line) for line in history.read_text().splitlines()] == [found]
    assert found["environment"]["date"] == "2030-01-02T12:00:00+00:00"
    assert (found["environment"]["note"], found["environment"]["commit"]) == ("a try", "abc")
    assert (found["setup"]["modules"], found["setup"]["tokens"], found["setup"]["reference_shape"]) == (14, 256, False)
    assert found["ceilings"]["fp32_flops"] > 0
    assert [case["name"] for case in found["cases"]] == [case.name for case in CASES]
    for case in found["cases"]:
        assert_complete(case)
    printed = capsys.readouterr().out
    assert all(f"| {case.name} " in printed for case in CASES)


def assert_complete(case: dict[str, Any]) -> None:
    assert case["failures"] == []
    assert case["run"]["seconds"] > 0
    assert sum(case["run"]["routes"].values()) == 14
    assert case["run"]["peak_gib"] is None
    assert case["plain_seconds"] > 0
    assert case["work"]["flops"] > 0
    assert case["bound"]["nearer"] in ("arithmetic", "memory")
    assert case["errors"]["fp32"] < 1e-4
    assert case["errors"]["plain"] < 1e-4
    assert case["errors"]["fast"] < 1e-2


def test_yardsticks_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    options = ["--cases", "f32_identity", "--layers", "1", "--no-plain", "--no-accuracy", "--json", str(path)]
    assert main([*SMALL, *options]) == 0
    (case,) = json.loads(path.read_text())["cases"]
    assert (case["name"], case["yardsticks"], case["plain_seconds"]) == ("f32_identity", [], None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cases", "f16"], "--cases: no case f16"),
        (["--model", "Qwen9"], "--model: 'Qwen9'"),
        (["--device", "abacus"], "--device: 'abacus'"),
        (["--tokens", "0"], "--tokens: must be 1 or more"),
        (["--factor", "0"], "--factor: must be 1 or more"),
        (["--repeats", "0"], "--repeats: must be 1 or more"),
        (["--per-prompt", "1"], "--per-prompt 2 or more"),
        (["--distinct", "9"], "--distinct: must be in [1, 1]"),
        (["--precision", "fp7"], "precision: 'fp7' is not one of"),
        (["--solver", "guess"], "solver: 'guess' is not one of"),
    ],
)
def test_options_that_make_no_sense_end_the_run_with_a_word_on_each(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, *options]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""


def test_a_cpu_takes_a_smaller_batch_by_itself() -> None:
    plan = make_plan(parser().parse_args(["influence", "--device", "cpu"]))
    assert (plan.tokens, plan.layers, plan.precision) == (2048, 1, "fp32")
    assert {plan.factors[case.name] // case.factor for case in CASES} == {8}
    assert (plan.shape.name, plan.prompts, plan.per_prompt) == ("Qwen2.5-1.5B", 6, 16)
    assert not plan.setup.reference_shape


def test_a_given_factor_is_that_of_every_case() -> None:
    assert set(make_plan(arguments("--factor", "5")).factors.values()) == {5}


def plan_for(case: Case) -> Plan:
    return Plan(
        shape=parse_shape(MODEL),
        layers=1,
        tokens=64,
        prompts=2,
        per_prompt=4,
        cases=(case, CASES[-1]),
        factors={case.name: 8, CASES[-1].name: 8},
        precision="fp32",
        solver="auto",
        device=torch.device("cpu"),
        plain=True,
        accuracy=False,
        repeats=1,
        distinct=None,
        seed=0,
    )


def run(plan: Plan) -> tuple[Report, list[Report]]:
    saved: list[Report] = []
    environment = Environment("2030-01-02", None, "CPU", torch.__version__)
    seconds = iter(float(i) for i in range(10**6))
    report = measure(plan, environment, lambda: next(seconds), save=saved.append, tell=lambda _: None)
    return report, saved


def test_what_fails_is_told_and_the_rest_is_measured() -> None:
    """The plain implementation does not know sums."""
    report, _ = run(plan_for(Case("sums", 32, 1.0, None, {"contrastive_agg": "sum"})))
    sums, identity = report.cases
    assert report.failed
    assert any("contrastive_agg" in line for line in sums.failures)
    assert sums.run is not None
    assert sums.plain_seconds is None
    assert identity.failures == ()
    assert identity.plain_seconds is not None


def test_the_report_is_handed_out_after_every_stage() -> None:
    report, saved = run(plan_for(CASES[0]))
    assert [sum(case.run is not None for case in r.cases) for r in saved] == [1, 2, 2, 2]
    assert [sum(bool(case.yardsticks) for case in r.cases) for r in saved] == [0, 0, 1, 2]
    assert saved[-1] == report
