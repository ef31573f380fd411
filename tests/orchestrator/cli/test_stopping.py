"""Sweeps that must stop by themselves, as a user meets them, and what `plan` says before: one error everywhere, a budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.clock import FakeClock
from orchestrator.store import Store

FAST = "overrides: [synthetic.step_seconds=0.01]\nbackend: local\nalias: {seed: synthetic.seed, fail: synthetic.fail}\n"


def sweep(tmp_path: Path, text: str) -> int:
    spec = tmp_path / "s.yaml"
    spec.write_text(f"# ?\nname: s\nconfig: synthetic\n{FAST}{text}")
    return main(["sweep", str(spec), "--root", str(tmp_path / "runs")])


def status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    main(["status", "--json", "--root", str(tmp_path / "runs")])
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_three_points_dead_of_one_error_stop_the_sweep_with_exit_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every job raises the same exception; the fourth and fifth are never started."""
    code = sweep(tmp_path, "parameters: {seed: [0, 1, 2, 3, 4], fail: [python_error]}\n")
    shown = capsys.readouterr().out
    assert code == 3
    assert "stopped  3 points died of the same error before any succeeded" in shown
    found = status(tmp_path, capsys)
    assert found["state"] == "stopped"
    assert [point["state"] for point in found["points"]] == ["failed"] * 3 + ["blocked"] * 2  # type: ignore[attr-defined]
    report = (tmp_path / "runs" / "sweeps" / "s" / "report.md").read_text()
    assert "3 points died of the same error before any succeeded" in report
    assert "SyntheticFailure" in report
    assert main(["status", "--root", str(tmp_path / "runs")]) == 0
    assert "stopped: 3 points died of the same error" in capsys.readouterr().out


def test_a_budget_below_one_attempt_is_a_mistake_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = sweep(tmp_path, "resources: {gpus: 8, time: 2h}\nbudget: {gpu_hours: 10}\n")
    assert code == 2
    assert (
        "budget.gpu_hours: does not cover a single attempt, which may take 8 GPUs for 2 hours"
        in capsys.readouterr().err
    )


def test_plan_prices_the_sweep_and_names_pools_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps = Path(__file__).parents[3] / "sweeps"
    words = ["plan", str(sweeps / "factor.yaml"), "profile=h200x8", "parameters.factor=[64]", "budget.gpu_hours=200"]
    root = ["--backend", "fake", "--root", str(tmp_path / "runs")]
    assert main([*words, *root]) == 0
    shown = capsys.readouterr().out
    assert "GPU GiB" in shown
    assert "h100" in shown
    assert "at most 64.0 by the time limit, without retries, budget 200" in shown
    assert main([*words, *root, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["gpu_hours"]["at_most"] == 64.0
    assert plan["gpu_hours"]["expected"].keys() == {"value", "low", "high", "basis"}
    for point in plan["points"]:
        assert point["predicted"].keys() == {"gpu_bytes", "host_bytes", "step_s", "seconds"}
        assert 0 < point["predicted"]["gpu_bytes"]["low"] < point["predicted"]["gpu_bytes"]["high"]
    assert not (tmp_path / "runs").exists()


def test_a_model_whose_shapes_nobody_knows_may_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweeps = Path(__file__).parents[3] / "sweeps"
    words = ["plan", str(sweeps / "factor.yaml"), "profile=h200x8", "actor_rollout_ref.model.path=me/mine"]
    root = ["--backend", "fake", "--root", str(tmp_path / "runs"), "--json"]
    assert main([*words, *root]) == 0
    assert {point["predicted"] for point in json.loads(capsys.readouterr().out)["points"]} == {None}
    assert main([*words, "preflight.model=qwen3-4b", *root]) == 0
    assert all(point["predicted"] for point in json.loads(capsys.readouterr().out)["points"])
    assert main([*words, "preflight.model=qwen3-4c", *root]) == 2
    assert "did you mean `qwen3-4b`?" in capsys.readouterr().err


def test_what_a_sweep_was_seen_to_take_is_what_the_next_is_predicted_to_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(tmp_path, "") == 0
    with_store = Store.open(tmp_path / "runs" / "orchestrator.db", FakeClock())
    (seen,) = with_store.measurements()
    with_store.close()
    assert (seen.measured.steps, seen.measured.step_s) == (2, 0.01)
    assert main(["plan", str(tmp_path / "s.yaml"), "--json", "--root", str(tmp_path / "runs")]) == 0
    (point,) = json.loads(capsys.readouterr().out.partition("MLflow")[2].partition("\n")[2])["points"]
    assert point["predicted"]["step_s"]["value"] == pytest.approx(0.01)
    assert point["predicted"]["seconds"]["value"] == pytest.approx(seen.seconds, rel=0.01)
