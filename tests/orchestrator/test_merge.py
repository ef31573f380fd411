"""Merging overrides into a configuration composed once must equal composing it anew for every point."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.compose import compose_points, find_verl_config
from orchestrator.errors import ComposeError
from orchestrator.expand import RawPoint
from orchestrator.interpolation import leaves
from orchestrator.spec import SweepSpec

CONFIG = """\
defaults:
  - model: small
  - optim@training.optim: adam
  - _self_
seed: 0
name: run-${seed}_${model.kind}
model:
  copies: ${oc.select:model.layers,1}
training:
  lr: 0.1
  steps: 10
  warmup: ${.steps}
  total: ${oc.select:training.extra.steps,${training.steps}}
  betas: [0.9, "${training.lr}", {deep: "${..0}"}]
  kind: ${oc.dict.keys:training.optim}
alias: ${training.optim}
through: ${alias.name}
computed: ${training.${which}}
which: lr
nothing: null
empty: {}
open: ???
needs_open: ${oc.select:open,unset}
holder: {inner: {leaf: 1, other: "${holder.inner.leaf}"}, list: [1, 2]}
"""
FILES = {
    "top.yaml": CONFIG,
    "model/small.yaml": "kind: s\nlayers: 2\n",
    "model/large.yaml": "kind: l\nlayers: 20\nextra: {width: '${seed}'}\n",
    "optim/adam.yaml": "name: adam\nbeta: 0.9\n",
    "optim/sgd.yaml": "name: sgd\nmomentum: ${training.lr}\n",
    "extra/on.yaml": "flag: ${seed}\n",
}

KEYS = [
    "seed",
    "name",
    "model.kind",
    "model.layers",
    "model.copies",
    "training.lr",
    "training.steps",
    "training.warmup",
    "training.extra.steps",
    "training.optim",
    "training.optim.name",
    "training.optim.beta",
    "training.betas",
    "training.betas.1",
    "alias",
    "alias.name",
    "through",
    "which",
    "computed",
    "nothing",
    "nothing.x",
    "empty",
    "empty.x",
    "open",
    "holder",
    "holder.inner",
    "holder.inner.leaf",
    "holder.list",
    "new.key",
    "training",
]
VALUES = [
    *("1", "2.5", "lr", "true", "null", "[]", "[1,2]", "{}", "{leaf: 5, x: 6}", "'a b'", "steps"),
    *("${seed}", "${training.lr}", "${.leaf}", "${training.optim}", "[${seed},${which}]", "x-${model.kind}"),
]
CHOICES = ["model=small", "model=large", "optim@training.optim=sgd", "optim@training.optim=adam", "+extra=on"]

settable = st.tuples(st.sampled_from(["", "++", "++", "+"]), st.sampled_from(KEYS), st.sampled_from(VALUES))
overrides = (
    settable.map(lambda made: f"{made[0]}{made[1]}={made[2]}")
    | st.sampled_from(KEYS).map(lambda key: f"~{key}")
    | st.sampled_from(CHOICES)
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder / "top.yaml"


def merged(
    config: Path, shared: Sequence[str], points: Sequence[Sequence[str]], verl: Path | None = None
) -> list[dict[str, Any]]:
    """As the product does it: one call for all points."""
    spec = SweepSpec.model_validate({"name": "s", "config": str(config), "profile": None, "overrides": shared})
    raw = [
        RawPoint(index, f"p{index}", {f"n{n}": text for n, text in enumerate(own)}, {}, (*shared, *own))
        for index, own in enumerate(points)
    ]
    return [
        point.config
        for point in compose_points(spec, raw, config_dir=config.parent, verl_config_dir=verl or config.parent)
    ]


def composed(config: Path, words: Sequence[str], search: Sequence[Path] = (), resolve: bool = True) -> dict[str, Any]:
    """As Hydra's documentation does it."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    path = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in search)}]"] if search else []
    with initialize_config_dir(str(config.parent), version_base="1.3"):
        config_dict: Any = OmegaConf.to_container(compose(config.stem, overrides=[*path, *words]), resolve=resolve)
    return config_dict


def outcome(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception:
        return "refused"


@given(st.lists(overrides, max_size=2), st.lists(overrides, min_size=1, max_size=4))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_equals_composing_anew(config: Path, shared: list[str], own: list[str]) -> None:
    expected = outcome(composed, config, [*shared, *own])
    if expected == "refused":
        with pytest.raises((ComposeError, ValueError)):
            merged(config, shared, [own])
    else:
        assert merged(config, shared, [own]) == [expected]


@given(st.lists(st.tuples(st.sampled_from(KEYS[:8]), st.integers(0, 3)), min_size=2, max_size=6))
@settings(deadline=None, max_examples=10)
def test_points_do_not_see_each_other(config: Path, changes: list[tuple[str, int]]) -> None:
    points = [[f"{key}={value}", f"model={'large' if value % 2 else 'small'}"] for key, value in changes]
    points = [[*own, f"++id={index}"] for index, own in enumerate(points)]
    points = [own for own in points if outcome(composed, config, own) != "refused"]
    assert merged(config, [], points) == [composed(config, own) for own in points]


VERL = find_verl_config()


@pytest.mark.skipif(VERL is None, reason="verl is not installed")
@pytest.mark.parametrize("seed", range(3))
def test_equals_composing_anew_over_all_of_verls_configuration(tmp_path: Path, seed: int) -> None:
    assert VERL is not None
    config = tmp_path / "mine.yaml"
    config.write_text("defaults: [ppo_trainer, _self_]\n")
    chance = random.Random(seed)
    tree = composed(config, [], [VERL], resolve=False)
    keys = [path for path, value in leaves(tree) if not isinstance(value, list | dict)]
    points = [[f"++id={n}", *(f"{key}={chance.randint(0, 9)}" for key in chance.sample(keys, 6))] for n in range(4)]
    assert merged(config, [], points, VERL) == [composed(config, own, [VERL]) for own in points]
