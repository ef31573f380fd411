"""Folders that are built once, by whoever comes first."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from trainer_ext.assets.folder import build_once


def test_the_first_call_builds_and_the_second_does_not(tmp_path: Path) -> None:
    calls = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "model").write_text("weights")

    assert build_once(tmp_path / "deep" / "asset", build)
    assert not build_once(tmp_path / "deep" / "asset", build)
    assert len(calls) == 1
    assert (tmp_path / "deep" / "asset" / "model").read_text() == "weights"


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        build_once(tmp_path / "asset", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".asset.lock"]
    assert build_once(tmp_path / "asset", lambda folder: (folder / "whole").touch())


def test_files_that_were_made_private_become_readable_to_all(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "weights").touch(mode=0o600)

    build_once(tmp_path / "asset", build)
    assert (tmp_path / "asset" / "weights").stat().st_mode & 0o777 == 0o644


def test_of_many_processes_at_once_exactly_one_builds(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import pathlib, sys, time
        from trainer_ext.assets.folder import build_once
        def build(folder):
            (folder / "model").write_text("whole")
            time.sleep(0.2)
        target = pathlib.Path(sys.argv[1])
        built = build_once(target, build)
        print(built, (target / "model").read_text())
    """)
    command = [sys.executable, "-c", script, str(tmp_path / "asset")]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = sorted(job.communicate(timeout=60)[0].split() for job in jobs)
    assert answers == [["False", "whole"]] * 3 + [["True", "whole"]]
