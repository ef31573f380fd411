"""The attempt folder as it is written: placeholders filled, the same row giving the same folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from omegaconf import OmegaConf

from orchestrator.job.hang import HangLimits
from orchestrator.launch import Ask, Site, attempt_spec, new_attempt, write_attempt
from orchestrator.ledger import AttemptRow, PointRow
from orchestrator.model import PointState, Pool
from orchestrator.paths import RootPaths
from orchestrator.peers import Usual
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


def test_the_container_of_a_pool_is_known_to_the_job(tmp_path: Path) -> None:
    contained = dataclasses.replace(H100, options={"container": "verl@sha256:ab"})
    spec = attempt_spec(Site(RootPaths(tmp_path), "py"), SPEC, POINT, CONFIG, attempt(), contained)
    assert spec.env["ORCHESTRATOR_IMAGE"] == "verl@sha256:ab"


def test_a_pools_patch_reaches_the_job_and_a_retrys_patch_goes_over_it(tmp_path: Path) -> None:
    small = dataclasses.replace(H100, patch={"lr": "x*2", "text": "'pool'"})
    row = dataclasses.replace(attempt(), patch={"lr": 3e-06})
    spec = attempt_spec(Site(RootPaths(tmp_path), "py"), SPEC, POINT, CONFIG, row, small)
    assert (spec.config["lr"], spec.config["text"]) == (3e-06, "pool")
    assert spec.overrides == ["x=1", "++lr=3e-06", "++text=pool"]


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


def test_a_patch_reaches_configuration_command_and_overrides_and_nothing_else(tmp_path: Path) -> None:
    plain = written(tmp_path, attempt())
    patched = written(tmp_path, new_attempt(POINT, 1, Ask("h100", patch={"lr": 0.5, "job.expected.steps": 3}), 1_000.0))
    assert patched.overrides == ["x=1", "++lr=0.5", "++job.expected.steps=3"]
    assert (patched.config["lr"], patched.expected_steps) == (0.5, 3)
    assert {**patched.config, "lr": plain.config["lr"], "job": plain.config["job"]} == plain.config
    assert CONFIG["lr"] == 1e-06


def test_the_wrapper_gets_the_sweep_files_limits_and_what_the_sweep_has_seen(tmp_path: Path) -> None:
    site = Site(RootPaths(tmp_path), "py")
    record = attempt_spec(site, SPEC, POINT, CONFIG, attempt(), H100, Usual(step_s=30.0, start_s=200.0))
    assert record.hang is not None
    limits = HangLimits.of(record.hang)
    assert limits == HangLimits(usual_step_s=30.0, usual_start_s=200.0), "the defaults of the two are the same"
    assert record.hang.keys() == {field.name for field in dataclasses.fields(HangLimits)}


def test_a_sweep_file_may_switch_the_hang_detection_off(tmp_path: Path) -> None:
    spec = SweepSpec.model_validate({"name": "s", "hang": {"enabled": False}})
    assert attempt_spec(Site(RootPaths(tmp_path), "py"), spec, POINT, CONFIG, attempt(), H100).hang is None
