"""The attempt folder as it is written: placeholders filled, the same row giving the same folder."""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import OmegaConf

from orchestrator.launch import Ask, Site, attempt_spec, new_attempt, write_attempt
from orchestrator.ledger import AttemptRow, PointRow
from orchestrator.model import PointState, Pool
from orchestrator.paths import RootPaths
from orchestrator.spec_model import SweepSpec
from trainer_ext.records import AttemptSpec

CONFIG = {
    "lr": 1e-06,
    "model": "{root}/assets/m",
    "text": "no: null ${x} {unknown}",
    "job": {
        "command": ["{python}", "-m", "job", "--config-path", "{attempt_dir}"],
        "prepare": [["{python}", "prepare.py", "{root}"]],
        "env": {"CHECKPOINTS": "{point_dir}/checkpoints"},
        "expected": {"steps": 2, "npz": "influence/step_*.npz"},
    },
}
SPEC = SweepSpec.model_validate({"name": "s", "resources": {"time": "2h"}})
POINT = PointRow("s", "abc", 0, "point", {"x": 1}, {}, ("x=1",), "abc" * 8, PointState.READY)
H100 = Pool("h100", 8, 81_559)


def attempt() -> AttemptRow:
    return new_attempt(POINT, 1, Ask("h100"), 1_000.0)


def written(root: Path, row: AttemptRow) -> AttemptSpec:
    site = Site(RootPaths(root), "/opt/python")
    return attempt_spec(site, SPEC, POINT, CONFIG, row, H100)


def test_every_placeholder_is_filled_and_nothing_else_is_touched(tmp_path: Path) -> None:
    spec = written(tmp_path, attempt())
    folder = tmp_path / "sweeps" / "s" / "abc"
    assert spec.command == ["/opt/python", "-m", "job", "--config-path", f"{folder}/1"]
    assert spec.prepare == [["/opt/python", "prepare.py", str(tmp_path)]]
    assert spec.env == {"CHECKPOINTS": f"{folder}/checkpoints"}
    assert spec.config["model"] == f"{tmp_path}/assets/m"
    assert spec.config["text"] == "no: null ${x} {unknown}"
    assert (spec.expected_steps, spec.expected_npz, spec.time_limit_s) == (2, 2, 7200)
    assert (spec.pool, spec.card_memory_mib) == ("h100", 81_559)


def test_two_attempts_of_a_point_have_names_and_tokens_of_their_own() -> None:
    first, again = attempt(), new_attempt(POINT, 2, Ask("h100"), 1_001.0)
    assert first.token != again.token
    assert first.job_name != again.job_name


def test_writing_the_same_row_again_gives_the_same_folder(tmp_path: Path) -> None:
    row, site = attempt(), Site(RootPaths(tmp_path), "/opt/python")
    paths = write_attempt(site, SPEC, POINT, CONFIG, row, H100)
    before = {path.name: path.read_bytes() for path in paths.dir.iterdir()}
    write_attempt(site, SPEC, POINT, CONFIG, row, H100)
    assert {path.name: path.read_bytes() for path in paths.dir.iterdir()} == before
    assert before.keys() == {"attempt.json", "config.yaml"}


def test_the_configuration_reads_back_with_its_types(tmp_path: Path) -> None:
    paths = write_attempt(Site(RootPaths(tmp_path), "py"), SPEC, POINT, {**CONFIG, "text": "no"}, attempt(), None)
    read = OmegaConf.to_container(OmegaConf.load(paths.config))
    assert isinstance(read, dict)
    assert (read["lr"], read["text"]) == (1e-06, "no")
    assert json.loads(paths.spec.read_text())["config"] == read
