from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.compose import compose_points, find_verl_config, resolve_profile
from orchestrator.errors import ComposeError, EnvironmentProblem, SpecError
from orchestrator.expand import expand
from orchestrator.model import Point
from orchestrator.spec import SweepSpec, load

FILES = {
    "conf/top.yaml": "defaults:\n- base\n- influence: default\n- _self_\n- profile: ???\njob: {command: ['{python}']}\n",
    "conf/plain.yaml": "seed: 0\nsteps: 2\n",
    "conf/influence/default.yaml": "factor: 128\nscope: per_prompt\n",
    "conf/influence/off.yaml": "factor: 0\nscope: none\n",
    "conf/profile/local.yaml": "# @package _global_\ntrainer: {device: cpu}\n",
    "conf/profile/h200x8.yaml": "# @package _global_\ntrainer: {device: cuda, nnodes: 1}\n",
    "verl/base.yaml": "trainer: {device: cuda, experiment_name: x, steps: 2}\nseed: 1\n",
}
SWEEP = """\
name: s
config: top
overrides:
  - trainer.steps=3
parameters:
  factor: [128, 64]
alias: {factor: influence.factor}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "s.yaml").write_text(SWEEP)
    return tmp_path


def points(folder: Path, *words: str, profile: str | None = "local", verl: str = "verl") -> tuple[Point, ...]:
    spec = load(folder / "s.yaml", words, configs=folder / "conf")
    if spec.profile == "auto":
        spec = spec.model_copy(update={"profile": profile})
    return compose_points(spec, expand(spec), config_dir=folder / "conf", verl_config_dir=folder / verl)


def refusal(folder: Path, *words: str) -> str:
    with pytest.raises(ComposeError) as caught:
        points(folder, *words)
    return str(caught.value).replace(f"{folder}/", "")


def test_points_hold_the_resolved_configuration_and_all_overrides(folder: Path) -> None:
    one, other = points(folder)
    assert one.overrides == ("profile=local", "trainer.steps=3", "influence.factor=128")
    assert one.config["trainer"] == {"device": "cpu", "experiment_name": "x", "steps": 3}
    assert other.config["influence"] == {"factor": 64, "scope": "per_prompt"}
    assert other.config["job"] == {"command": ["{python}"]}
    assert other.id == other.hash[:10]
    assert other.hash != one.hash


def test_profiles_may_be_crossed(folder: Path) -> None:
    words = ("parameters={profile: [local, h200x8]}",)
    assert [point.config["trainer"]["device"] for point in points(folder, *words)] == ["cpu", "cuda"]


def test_other_groups_may_be_chosen_by_an_override(folder: Path) -> None:
    (point,) = points(folder, "parameters={}", "influence=off")
    assert point.config["influence"]["scope"] == "none"


def test_config_without_profiles_ignores_them(folder: Path) -> None:
    (point,) = points(folder, "config=plain", "overrides=[]", "parameters={}", profile="h200x8")
    assert (point.overrides, point.config) == ((), {"seed": 0, "steps": 2})


def test_users_own_config_is_composed_over_the_named_ones(folder: Path) -> None:
    (folder / "mine.yaml").write_text("defaults: [top, _self_]\ntrainer: {steps: 9}\n")
    (point,) = points(folder, "config=mine.yaml", "overrides=[]", "parameters={}")
    assert (point.config["trainer"]["steps"], point.config["influence"]["factor"]) == (9, 128)


def test_config_folders_may_have_any_name(folder: Path) -> None:
    odd = folder / "o'dd, [na]me=1 ${x}"
    (folder / "verl").rename(odd)
    assert len(points(folder, verl=odd.name)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.stepz=1"], "command line: overrides[1]: `trainer.stepz=1`: Could not override 'trainer.stepz' "
                              "(did you mean `trainer.steps`?)"),
        (["brandnew=1"], "(to add a new key write +brandnew=1)"),
        (["profile=locl"], "command line: profile: `profile=locl`: no such option of the config group `profile` "
                           "(did you mean `local`?)"),
        (["influence=x"], "no such option of the config group `influence` (there are default, off)"),
        (["trainer.steps=[1"], "command line: overrides[1]: `trainer.steps=[1`: cannot be read"),
        (["trainer.steps=1,2"], "has several values (list them under parameters)"),
        (["~trainer.nothing"], "`~trainer.nothing`: Could not delete from config. 'trainer.nothing' does not exist"),
        (["+trainer.device=x"], "`+trainer.device=x`: Could not append to config. An item is already at 'trainer.device'"),
        (["hydra.run.dir=x"], "Hydra's own settings have no effect here"),
        (["trainer.steps=${no.such}"], "s.yaml:2: config: cannot compose `top`: Interpolation key 'no.such' not found"),
        (["overrides=[trainer.bad=1]"], "command line: overrides[0]: `trainer.bad=1`: Could not override"),
        (["alias.factor=influence.factr"], "s.yaml:6: parameters.factor: `influence.factr=128`: Could not override "
                                           "'influence.factr', in point s-factor128 (did you mean `influence.factor`?)"),
        (["zip={z: {trainer.x: [1, 2]}}"], "command line: zip.z.trainer.x: `trainer.x=1`"),
        (["include=[{trainer.y: 1}]"], "command line: include[0].trainer.y: `trainer.y=1`"),
        (["parameters.profile=[local, x]"], "command line: parameters.profile: `profile=x`: no such option"),
    ],
)  # fmt: skip
def test_each_refused_override_has_its_place_and_a_way_out(folder: Path, words: Sequence[str], message: str) -> None:
    assert message in refusal(folder, *words)


def test_first_of_several_bad_overrides_is_named(folder: Path) -> None:
    assert "overrides[0]: `trainer.a=1`" in refusal(folder, "overrides=[trainer.a=1, trainer.b=1]")


def test_points_that_are_the_same_configuration_are_refused(folder: Path) -> None:
    with pytest.raises(SpecError) as caught:
        points(folder, "include=[{factor: 64}]")
    assert "points s-factor64 and s-factor64-2 are the same configuration" in str(caught.value)
    with pytest.raises(SpecError) as caught:
        points(folder, "parameters.trainer.experiment_name=[a, b]")
    assert "are the same configuration (does `trainer.experiment_name`" in str(caught.value)


def test_identity_leaves_out_what_the_sweep_excludes(folder: Path) -> None:
    plain = points(folder, "identity.exclude=[seed]")[0]
    seeded = points(folder, "identity.exclude=[seed]", "overrides=[trainer.steps=3, seed=7]")[0]
    assert plain.hash == seeded.hash
    assert plain.config != seeded.config


def test_unknown_key_of_the_identity_is_refused(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"identity.exclude\[1\]: no point has the key `sead`"):
        points(folder, "identity.exclude=[seed, sead]")


def test_missing_verl_says_what_to_install(folder: Path, tmp_path: Path) -> None:
    (folder / "conf" / "top.yaml").write_text("defaults: [ppo_trainer]\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EnvironmentProblem, match="verl is not installed here"):
        points(folder, verl="empty")


def sweep(**fields: Any) -> SweepSpec:
    return SweepSpec.model_validate({"name": "s", **fields})


@pytest.mark.parametrize(
    ("written", "can_use_gpu", "preferred", "profile"),
    [
        ("auto", False, None, "local"),
        ("auto", True, None, "h200x8"),
        ("auto", True, "h100x8", "h100x8"),
        ("auto", False, "smoke", "smoke"),
        ("smoke", True, "h100x8", "smoke"),
        (None, True, "h100x8", None),
    ],
)
def test_auto_is_a_profile_for_the_machine(
    written: str | None, can_use_gpu: bool, preferred: str | None, profile: str | None
) -> None:
    assert resolve_profile(sweep(profile=written), can_use_gpu, preferred) == profile


def test_verl_is_found_without_importing_it() -> None:
    import sys

    before = "verl" in sys.modules
    found = find_verl_config()
    assert found is None or (found / "ppo_trainer.yaml").is_file()
    assert ("verl" in sys.modules) == before
