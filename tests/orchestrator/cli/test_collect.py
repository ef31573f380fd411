"""`collect` on runs of other people, as it is typed: verdicts, flags, exit codes, the card, mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.clock import FakeClock
from orchestrator.store import Store
from tests.triage.gold import CORPUS


def collected(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[dict[str, Any]]:
    assert main(["collect", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def story(name: str) -> str:
    return str(CORPUS / f"story-{name}")


def test_an_error_after_all_steps_is_completed_by_log_files_and_describe(capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = collected(capsys, story("error-though-both-steps-are-done"))
    assert (run["verdict"], run["anomalies"]) == ("completed", ["nonzero_exit_after_completion"])
    assert run["steps"] == [1, 2]
    assert len(run["npz"]) == 2


@pytest.mark.parametrize("run", ["torch-claims-156.5-gib", "torch-claims-170.0-gib"])
def test_metric_names_of_old_and_new_verl_are_both_read_and_the_pool_names_the_card(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = collected(capsys, story(run))
    assert found["card_mib"] == 143_771, "from the pool in describe.txt"
    assert found["anomalies"] == ["memory_metric_unreliable"]
    (found,) = collected(capsys, story(run), "--pool", "b200")
    assert (found["card_mib"], found["anomalies"]) == (183_359, [])


def test_a_pool_may_be_called_by_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = collected(capsys, story("timings-all-zero"), "--pool", "dgx-h100-80g")
    assert (run["card_mib"], run["anomalies"]) == (81_559, ["timing_all_zero"])


def test_an_out_of_memory_error_is_the_cause_and_names_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = collected(capsys, story("f32-all-selected-on-h100"), code=1)
    assert (run["verdict"], run["card_mib"]) == ("gpu_oom", 81_559)
    assert any(fact.startswith("train.log:") and "CUDA out of memory" in fact for fact in run["evidence"])


def test_sacct_speaks_where_the_log_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = collected(capsys, str(CORPUS / "slurm-sacct-oom-in-a-step"), code=1)
    assert run["verdict"] == "host_oom"


def test_several_runs_are_judged_one_by_one_and_one_failure_is_exit_code_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = collected(capsys, story("timings-all-zero"), story("f32-all-selected-on-h100"), code=1)
    assert [run["verdict"] for run in runs] == ["completed", "gpu_oom"]


def test_for_people_it_says_the_same_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", story("torch-claims-170.0-gib")]) == 0
    said = capsys.readouterr().out
    assert "completed — all 2 steps done, 2 score files valid" in said
    assert "steps 1, 2; 2 NPZ files; card of 140.4 GiB" in said
    assert "! memory_metric_unreliable: torch reports a peak of 170.0 GiB" in said


def test_an_unknown_pool_is_told_with_the_known_cards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", story("timings-all-zero"), "--pool", "v100"]) == 2
    assert "--pool v100: known cards are" in capsys.readouterr().err


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of three foreign runs that are kept as one sweep."""
    folder = tmp_path_factory.mktemp("kept")
    for name, factor, log in (("a", 64, "timings-all-zero"), ("b", 32, "f32-all-selected-on-h100")):
        shutil.copytree(story(log), folder / name)
        (folder / name / ".hydra").mkdir()
        (folder / name / ".hydra" / "overrides.yaml").write_text(f"- influence.factor={factor}\n- trainer.name=x\n")
    words = ["--into", "others", "--pool", "h100", "--root", str(folder / "runs")]
    assert main(["collect", str(folder / "a"), str(folder / "b"), *words]) == 1, "one of them failed"
    assert main(["collect", str(folder / "b"), story("error-though-both-steps-are-done"), *words]) == 1
    return folder / "runs"


def test_runs_that_are_kept_are_points_of_a_sweep_judged_once(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "others", "--json", "--root", str(kept)]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert [(point["name"], point["state"], point["verdict"]) for point in points] == [
        ("a", "succeeded", "completed"),
        ("b", "failed", "gpu_oom"),
        ("story-error-though-both-steps-are-done", "succeeded", "completed"),
    ]
    assert [len(point["attempts"]) for point in points] == [1, 1, 1]


def test_what_differs_in_their_overrides_is_their_parameters(kept: Path) -> None:
    points = Store.open(kept / "orchestrator.db", FakeClock()).points("others")
    assert [point.parameters for point in points] == [
        {"influence.factor": 64, "trainer.name": "x"},
        {"influence.factor": 32, "trainer.name": "x"},
        {},
    ], "the third run left no word of how it was started"


def test_kept_runs_have_a_report_and_a_why_and_cannot_be_run_again(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = (kept / "sweeps" / "others" / "report.md").read_text()
    assert "`timing_all_zero`" in report
    assert "gpu_oom" in report
    assert main(["why", "b", "--root", str(kept)]) == 0
    assert "CUDA out of memory" in capsys.readouterr().out
    assert main(["rerun", "b", "--root", str(kept)]) == 2
    assert "was run by someone else" in capsys.readouterr().err


def test_a_sweep_of_our_own_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yaml").write_text(
        "# Which?\nname: own\nconfig: synthetic\noverrides: [synthetic.step_seconds=0]\n"
    )
    assert main(["sweep", str(tmp_path / "own.yaml"), "--root", str(tmp_path / "runs")]) == 0
    words = ["collect", story("timings-all-zero"), "--root", str(tmp_path / "runs"), "--into"]
    assert main([*words, "own"]) == 2
    assert "choose another name" in capsys.readouterr().err
    assert main([*words, "Own runs"]) == 2
    assert "write own-runs" in capsys.readouterr().err
