"""Patches: which key is meant, which value comes out, and what the attempt's configuration becomes."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.cli import main
from orchestrator.errors import SpecError
from orchestrator.model import Pool
from orchestrator.patches import apply, evaluate, find_key, of_pool

CONFIG = {
    "actor_rollout_ref": {
        "rollout": {"gpu_memory_utilization": 0.4, "n": 16, "name": "vllm"},
        "actor": {"ppo_max_token_len_per_gpu": 36864, "use_dynamic_bsz": True},
    },
    "critic": {"n": 1},
    "logger": ["console"],
}


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("actor_rollout_ref.rollout.gpu_memory_utilization", "x-0.1", "gpu_memory_utilization", 0.3),
        ("rollout.gpu_memory_utilization", "x-0.1", "gpu_memory_utilization", 0.3),
        ("gpu_memory_utilization", "0.2", "gpu_memory_utilization", 0.2),
        ("ppo_max_token_len_per_gpu", "x / 2", "ppo_max_token_len_per_gpu", 18432),
        ("ppo_max_token_len_per_gpu", "x * 0.7", "ppo_max_token_len_per_gpu", 25804),
        ("use_dynamic_bsz", "not x", "use_dynamic_bsz", False),
        ("rollout.name", "'hf'", "name", "hf"),
    ],
)
def test_a_key_may_be_named_by_an_ending_and_gets_the_expressions_value(
    name: str, text: str, key: str, value: object
) -> None:
    ((found, new),) = evaluate({name: text}, CONFIG, {}).items()
    assert (found.rpartition(".")[2], new, type(new)) == (key, value, type(value))


def test_a_pool_changes_what_differs_on_its_nodes_and_nothing_else() -> None:
    pool = Pool("h100", patch={"ppo_max_token_len_per_gpu": "x/2", "rollout.n": "16", "memory": "0.3"})
    alias = {"memory": "actor_rollout_ref.rollout.gpu_memory_utilization"}
    assert of_pool(pool, CONFIG, alias) == {
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 18432,
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.3,
    }
    assert of_pool(None, CONFIG, alias) == {}


def test_an_alias_of_the_sweep_file_is_a_name_too() -> None:
    alias = {"memory": "actor_rollout_ref.rollout.gpu_memory_utilization"}
    assert evaluate({"memory": "x-0.1"}, CONFIG, alias) == {alias["memory"]: 0.3}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gpu_memory_utilisation", "x-0.1", "no single value `gpu_memory_utilisation`"),
        ("n", "x/2", "`n` is the end of 2 keys"),
        ("logger", "x", "no single value `logger`"),
        ("rollout", "x", "no single value `rollout`"),
        ("rollout.n", "x", "leaves 16 as it is"),
        ("rollout.n", "x / 0", "division by zero"),
        ("rollout.name", "x - 1", "arithmetic needs numbers"),
        ("rollout.n", "[1, 2]", "no single value"),
    ],
)
def test_what_cannot_be_patched_is_refused_with_its_reason(name: str, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("[", r"\[")):
        evaluate({name: text}, CONFIG, {})


def test_a_patch_changes_its_key_alone_and_leaves_the_original_as_it_was() -> None:
    key = "actor_rollout_ref.rollout.gpu_memory_utilization"
    patched = apply(CONFIG, {key: 0.3})
    assert patched["actor_rollout_ref"]["rollout"] == {"gpu_memory_utilization": 0.3, "n": 16, "name": "vllm"}
    assert patched["actor_rollout_ref"]["actor"] is CONFIG["actor_rollout_ref"]["actor"]
    assert CONFIG["actor_rollout_ref"]["rollout"]["gpu_memory_utilization"] == 0.4


@given(st.integers(1, 10**9), st.floats(0.01, 0.99))
def test_a_whole_number_stays_one(x: int, share: float) -> None:
    (value,) = evaluate({"a": f"x * {share}"}, {"a": x}, {}).values()
    assert isinstance(value, int)
    assert value <= x * share


def test_the_whole_key_goes_before_an_ending_of_another() -> None:
    assert find_key({"a": {"b": 1}, "b": 2}, "b") == "b"


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ("synthetic.step_second: x/2", "retry.hang.patch.synthetic.step_second: the configuration has no single value"),
        ("synthetic.step_seconds: y/2", "retry.hang.patch.synthetic.step_seconds: reads `y`"),
        ("synthetic.step_seconds: open(x)", "retry.hang.patch.synthetic.step_seconds: in the expression"),
        ("synthetic.step_seconds: x", "leaves 0.1 as it is"),
    ],
)
def test_a_patch_that_cannot_work_starts_nothing(
    patch: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(f"# ?\nname: s\nconfig: synthetic\nretry: {{hang: {{patch: {{{patch}}}}}}}\n")
    assert main(["sweep", str(spec), "--root", str(tmp_path / "runs")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
