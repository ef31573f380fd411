"""Every verb on one small finished sweep, as a user types it: output, documented JSON, exit codes, messages."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import VERBS, main
from orchestrator.clock import FakeClock
from orchestrator.planning import plan_sweep
from orchestrator.session import register
from orchestrator.store import Store
from reports.report import render
from reports.snapshot import SweepSnapshot

SWEEP = """\
# What do the verbs say?
name: verbs
description: Two jobs, one of which fails.
config: synthetic
parameters: {fail: [none, python_error]}
alias: {fail: synthetic.fail}
overrides: [synthetic.step_seconds=0.01]
job_name: "verbs-{fail}"
backend: local
budget: {max_parallel: 2}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder with one finished sweep; its file lies beside it."""
    folder = tmp_path_factory.mktemp("verbs")
    (folder / "verbs.yaml").write_text(SWEEP)
    code = main(["sweep", str(folder / "verbs.yaml"), "--root", str(folder / "runs")])
    assert code == 1, "one of the two points fails"
    yield folder / "runs"
    shutil.rmtree(folder)


def test_status_as_json_has_the_documented_form(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "verbs", "--json", "--root", str(root)]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["sweep"], status["state"]) == ("verbs", "failed")
    good, bad = status["points"]
    assert good.keys() == {"id", "name", "state", "verdict", "anomalies", "attempts"}
    assert (good["state"], good["verdict"]) == ("succeeded", "completed")
    assert good["attempts"] == [{"n": 1, "pool": None, "state": "judged", "verdict": "completed", "exit_code": 0}]
    assert (bad["state"], bad["verdict"], bad["attempts"][0]["exit_code"]) == ("failed", "code_error", 1)


def test_status_for_people_names_points_and_verdicts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--root", str(root)]) == 0
    shown = capsys.readouterr().out
    for word in ("verbs-none", "verbs-python-error", "succeeded", "failed", "code_error"):
        assert word in shown


def test_plan_as_json_has_the_documented_form_and_writes_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["plan", str(root.parent / "verbs.yaml"), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["sweep"] == "verbs"
    assert plan["points"][0].keys() == {"id", "name", "parameters", "overrides", "hash", "pool", "predicted"}
    assert [point["parameters"] for point in plan["points"]] == [{"fail": "none"}, {"fail": "python_error"}]
    assert sorted(tmp_path.rglob("*")) == before


def test_words_and_options_may_stand_in_any_order(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans = []
    for words in (["synthetic.seed=3", "--backend", "local"], ["--backend", "local", "synthetic.seed=3"]):
        assert main(["plan", str(root.parent / "verbs.yaml"), *words, "--json"]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    assert plans[0] == plans[1]
    assert "synthetic.seed=3" in plans[0]["points"][0]["overrides"]


def test_logs_prints_the_console_log_of_a_point(root: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["logs", "verbs-python-error", "--root", str(root)]) == 0
    assert b"Traceback" in capfdbinary.readouterr().out


def test_collect_judges_an_attempt_folder_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = (next(root.glob(f"sweeps/verbs/{point['id']}/1")) for point in _status(root, capsys)["points"])
    assert main(["collect", str(good), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert {"path", "verdict", "anomalies", "steps", "metrics", "npz"} <= run.keys()
    assert (run["verdict"], run["steps"]) == ("completed", [1, 2])
    assert {"file", "valid", "mean", "std", "min", "max", "nan_in_valid"} <= run["npz"][0].keys()
    assert main(["collect", str(bad)]) == 1
    assert "code_error" in capsys.readouterr().out


def test_the_report_is_the_same_when_it_is_drawn_again(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = (root / "sweeps" / "verbs" / "report.md").read_text()
    assert main(["report", "verbs", "--stdout", "--root", str(root)]) == 0
    assert capsys.readouterr().out == written
    assert "verbs-python-error" in written


def test_report_snapshot_is_a_file_from_which_the_report_can_be_drawn(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "verbs", "--snapshot", str(tmp_path / "verbs.json"), "--root", str(root)]) == 0
    assert capsys.readouterr().out.strip().endswith("verbs.json")
    read = SweepSnapshot.from_json((tmp_path / "verbs.json").read_bytes())
    assert render(read) == (root / "sweeps" / "verbs" / "report.md").read_text()


def test_ui_prints_a_link_and_the_command_that_serves_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", "verbs", "--print", "--root", str(root)]) == 0
    link, command = capsys.readouterr().out.splitlines()
    assert link.startswith("http://127.0.0.1:")
    assert str(root / "mlflow.db") in command


def test_sweeping_again_starts_nothing_and_ends_alike(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (root / "sweeps" / "verbs" / "report.md").read_text()
    folders = sorted(root.glob("sweeps/verbs/*/*"))
    assert main(["resume", "verbs", "--root", str(root)]) == 1
    assert sorted(root.glob("sweeps/verbs/*/*")) == folders
    assert (root / "sweeps" / "verbs" / "report.md").read_text() == before
    assert "report" in capsys.readouterr().out


def test_a_failed_point_can_be_run_again_and_a_good_one_cannot(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "runs"
    shutil.copytree(root, copy)
    assert main(["rerun", "verbs-none", "--root", str(copy)]) == 2
    assert "its result stands" in capsys.readouterr().err
    assert main(["rerun", "verbs-python-error", "--root", str(copy)]) == 1
    capsys.readouterr()
    point = _status(copy, capsys)["points"][1]
    assert [attempt["n"] for attempt in point["attempts"]] == [1, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweap"], "did you mean 'sweep'"),
        (["status", "nothing"], "no sweep named 'nothing'; known: verbs"),
        (["logs", "nothing"], "no point 'nothing'"),
        (["collect", "nowhere"], "nowhere is not a folder"),
        (["sweep", "nowhere.yaml"], "no such sweep file"),
        (["ui", "verbs", "--port", "99999999"], "a port is a number from 1 to 65535"),
        (["logs", "verbs-none", "--attempt", "0"], "verbs-none has attempts 1, not 0"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    words: list[str], message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rooted = [*words, "--root", str(root)] if words[0] in ("status", "logs", "sweep", "ui") else words
    assert main(rooted) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_mistake_in_a_sweep_file_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "bad.yaml"
    spec.write_text("# ?\nname: bad\nconfig: synthetic\nparamters: {x: [1]}\n")
    assert main(["sweep", str(spec), "--root", str(tmp_path / "runs")]) == 2
    assert f"{spec}:4: paramters: unknown key (did you mean `parameters`?)" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["job=3"], "job must be a mapping, not 3"),
        (["job.command=[]"], "the configuration has no job.command"),
        (["outputs.npz=/etc/*"], "outputs.npz must be a glob below the attempt folder"),
        (["--profile", "h200x8"], "config synthetic has no profiles"),
    ],
)
def test_a_job_that_could_never_run_starts_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text("# ?\nname: s\nconfig: synthetic\n")
    assert main(["sweep", str(spec), *words, "--root", str(tmp_path / "runs")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["what?", "a%20b"])
def test_a_root_that_mlflow_would_misread_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--root", str(tmp_path / name)]) == 2
    assert "must not hold" in capsys.readouterr().err


def test_a_root_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--root", str(tmp_path / ("x" * 300))]) == 2
    assert "File name too long" in capsys.readouterr().err


def test_brackets_in_a_path_are_printed_as_they_are_and_commands_are_quoted(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "[/bold] it's [red]"
    shutil.copytree(root, copy)
    assert main(["resume", "verbs", "--root", str(copy)]) == 1
    shown = capsys.readouterr().out
    assert str(copy / "sweeps" / "verbs" / "report.md") in shown
    assert f"ui verbs --root {shlex.quote(str(copy))}" in shown


def test_the_command_in_the_report_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text("# ?\nname: s\nconfig: synthetic\n")
    words = ["sweep", str(spec), "synthetic.fail_on_pools=[a, b]"]
    store = Store.open(tmp_path / "orchestrator.db", FakeClock())
    register(plan_sweep(spec, words[2:], None, None), store, spec, ["python", "-m", "orchestrator", *words], 0.0)
    assert shlex.split(store.sweep("s").command) == ["python", "-m", "orchestrator", *words]


def test_nothing_has_run_yet_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--root", str(tmp_path / "runs")]) == 2
    assert "nothing has run under" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_output_without_utf8_gets_escapes_and_json_stays_json(root: Path) -> None:
    folder = str(sorted(root.glob("sweeps/*/*/1"))[0])
    for words, decoded in ((["collect", folder], str), (["collect", "--json", folder], json.loads)):
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, encoding="ascii", write_through=True)
        with contextlib.redirect_stdout(stream):
            assert main(words) in (0, 1)
        assert decoded(written.getvalue().decode("ascii"))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert f"python -m orchestrator {verb}" in capsys.readouterr().out


def _status(root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[dict[str, list[dict[str, int]]]]]:
    capsys.readouterr()
    main(["status", "verbs", "--json", "--root", str(root)])
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_a_reader_that_leaves_early_sees_no_traceback() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout
    child.stdout.close()
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (0, b"")
