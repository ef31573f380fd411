"""`reclassify` as it is typed: the sweep file's patterns of today, what changed, the report brought up to date."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.backends.fake import Play, always
from orchestrator.backends.fake_files import fail
from orchestrator.cli import main
from orchestrator.reporting import write_report
from orchestrator.spec_model import SweepSpec
from tests.orchestrator.driving import Rehearsal, point

ODD = "FABRIC MANAGER LOST SWITCH 3"
SPEC = """\
# ?
name: s
config: synthetic
"""
OWN = """\
triage:
  patterns:
    - code: lost_switch
      role: root
      verdict: node_failure
      literals: [FABRIC MANAGER]
      regex: FABRIC MANAGER LOST SWITCH
      match: [FABRIC MANAGER LOST SWITCH 3]
      reject: [FABRIC MANAGER ready]
"""


@pytest.fixture
def failed(tmp_path: Path) -> Rehearsal:
    """A sweep with one point that died of something unknown; its file lies beside the state folder."""
    (tmp_path / "s.yaml").write_text(SPEC)
    spec = SweepSpec.model_validate({"name": "s", "config": "synthetic", "retry": {"budgets": {"unknown": 0}}})
    rehearsal = Rehearsal(tmp_path / "runs", always(Play(on_end=fail(1, log=ODD + "\n"))), points=1, spec=spec)
    row = replace(rehearsal.store.sweep("s"), spec_path=str(tmp_path / "s.yaml"))
    rehearsal.store.put_sweep(row, [point(0)])
    rehearsal.drive()
    write_report(rehearsal.store, rehearsal.paths, "s", print)
    return rehearsal


def test_a_pattern_added_to_the_sweep_file_is_used_and_the_report_follows(
    failed: Rehearsal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "runs")
    assert main(["reclassify", "s", "--root", root]) == 0
    assert "1 attempts judged again, 0 changed" in capsys.readouterr().out
    (tmp_path / "s.yaml").write_text(SPEC + OWN)
    assert main(["reclassify", "s", "--dry-run", "--root", root]) == 0
    assert "1 would change" in capsys.readouterr().out
    assert failed.store.sweep("s").spec["triage"]["patterns"] == []
    assert ODD not in failed.paths.report("s").read_text()
    assert main(["reclassify", "s", "--root", root]) == 0
    said = capsys.readouterr().out
    assert f"(patterns: {tmp_path / 's.yaml'})" in said
    assert f"point-0 attempt 1: unknown -> node_failure: the node failed: {ODD}" in said
    assert "before: ended with exit code 1" in said
    assert ODD in failed.paths.report("s").read_text()
    (kept,) = failed.store.sweep("s").spec["triage"]["patterns"]
    assert kept["code"] == "lost_switch"  # `rerun` and `resume` take the stored sweep


def test_as_json_it_has_the_documented_form(
    failed: Rehearsal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(SPEC + OWN)
    assert main(["reclassify", "--json", "--root", str(failed.root)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["sweep"], found["judged"]) == ("s", 1)
    (change,) = found["changed"]
    assert (change["before"], change["after"], change["state"]) == ("unknown", "node_failure", "failed")


def test_a_sweep_file_that_describes_another_sweep_now_is_not_used(
    failed: Rehearsal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(SPEC.replace("name: s", "name: other") + OWN)
    assert main(["reclassify", "s", "--root", str(failed.root)]) == 0
    said = capsys.readouterr().out
    assert "now describes other" in said
    assert "0 changed" in said


def test_a_wrong_pattern_is_told_with_its_place(
    failed: Rehearsal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(SPEC + OWN.replace("[FABRIC MANAGER ready]", "[FABRIC MANAGER LOST SWITCH 9]"))
    assert main(["reclassify", "s", "--root", str(failed.root)]) == 2
    assert "s.yaml:12: triage.patterns[0].reject[0]: is recognised, and must not be" in capsys.readouterr().err
