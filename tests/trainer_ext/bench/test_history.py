from __future__ import annotations

import json
import math
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainer_ext.bench.history import append_line, source_commit, write_json


def test_a_line_is_added_and_the_earlier_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for run in range(3):
        append_line(path, {"run": run, "text": "two\nlines"})
    assert [json.loads(line)["run"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_lines_written_side_by_side_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    reports = [{"run": run, "text": str(run) * 50_000} for run in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda report: append_line(path, report), reports))
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(found, key=lambda report: report["run"]) == reports


def test_what_json_lacks_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"rows": [{"error": math.nan, "rate": math.inf, "s": 1.5}], "seconds": (1.0, 2.0)})
    assert json.loads(path.read_text()) == {"rows": [{"error": None, "rate": None, "s": 1.5}], "seconds": [1.0, 2.0]}


def test_a_report_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for run in range(2):
        write_json(path, {"run": run})
    assert json.loads(path.read_text()) == {"run": 1}
    assert list(tmp_path.iterdir()) == [path]


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_is_known_inside_a_repository_only_and_says_when_files_differ(tmp_path: Path) -> None:
    assert source_commit(tmp_path) is None
    git(tmp_path, "init")
    file = tmp_path / "source.py"
    file.write_text("a = 1\n")
    git(tmp_path, "add", "source.py")
    git(tmp_path, "commit", "-m", "first")
    commit = source_commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "result.json").write_text("{}")  # what a run leaves behind is no change of the sources
    assert source_commit(tmp_path) == commit
    file.write_text("a = 2\n")
    assert source_commit(tmp_path) == f"{commit}-dirty"
