"""A whole configuration to figures: against what was measured, and by what must hold for any size."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.model import Forecast, Prediction
from orchestrator.planning import plan_sweep
from orchestrator.preflight.forecast import kind_of, predict
from orchestrator.preflight.memory import GIB, Bars, bars
from orchestrator.preflight.models import KNOWN, known_shape
from orchestrator.preflight.workload import Workload, workload

SWEEPS = Path(__file__).parents[3] / "sweeps"
CARDS = {"h100": 81_559 * 2**20, "h200": 143_771 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    """The configuration of a point on eight GPUs, as Hydra composes it."""
    return plan_sweep(SWEEPS / "factor.yaml", ["profile=h200x8"], None, None).points[0].config


@pytest.fixture(scope="module")
def local() -> dict[str, Any]:
    return plan_sweep(SWEEPS / "factor.yaml", ["profile=local"], "local", None).points[0].config


def with_key(config: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    *above, last = key.split(".")
    place = changed
    for part in above:
        place = place[part]
    place[last] = value
    return changed


def on_h100(config: dict[str, Any]) -> Forecast:
    return predict(config, CARDS, known_shape).on["h100"]


def test_the_local_profile_is_predicted_as_it_was_measured(local: dict[str, Any]) -> None:
    """SmolLM2-135M on two cores: 7.2 to 7.6 GiB, 29 to 36 s a step, 112 to 140 s a point."""
    found = predict(local, {}, known_shape).on[""]
    assert found.gpu_bytes is None, "there is no card"
    assert found.host_bytes is not None
    assert found.step_s is not None
    assert found.seconds is not None
    for measured in (7.2, 7.6):
        assert found.host_bytes.low <= measured * GIB <= found.host_bytes.high
    assert found.step_s.low <= 29 < 36 <= found.step_s.high
    assert found.seconds.low <= 112 < 140 <= found.seconds.high


def test_the_reports_shapes_come_out_of_the_cluster_profile(cluster: dict[str, Any]) -> None:
    load = workload(cluster, known_shape)
    assert load is not None
    assert (load.responses, load.ranks, load.pass_tokens) == (96, 8, 36_864)
    assert load.model == KNOWN["qwen2.5-1.5b"]
    assert load.traced_tokens(1.0) == 96 * 8192, "the reports' 733,870 tokens a rank are 93% of that"


def test_the_peak_of_a_card_is_the_larger_bar_and_not_the_sum() -> None:
    both = Bars(resident=10, passing=30, workspace=20, factors=0, rollout_share=0.5)
    assert both.on(100) == max(10 + 30, 0.5 * 100 + 10)
    assert Bars(10, 80, 20, 0, 0.5).on(100) == 90


def test_factors_go_to_the_host_where_the_card_has_no_room(cluster: dict[str, Any]) -> None:
    factor32 = with_key(cluster, "influence.projection_dim_factor", 32)
    found = predict(factor32, CARDS, known_shape)
    small, large = found.on["h100"], found.on["h200"]
    assert small.gpu_bytes is not None
    assert large.gpu_bytes is not None
    assert small.host_bytes is not None
    assert large.host_bytes is not None
    assert found.footprint_bytes is not None
    assert small.gpu_bytes.value < CARDS["h100"] < found.footprint_bytes
    assert large.gpu_bytes.value == pytest.approx(found.footprint_bytes)
    assert small.host_bytes.value > large.host_bytes.value


def test_replicates_and_steps_change_no_footprint(cluster: dict[str, Any]) -> None:
    longer = with_key(with_key(cluster, "seed", 7), "trainer.total_training_steps", 50)
    one, other = predict(cluster, CARDS, known_shape), predict(longer, CARDS, known_shape)
    assert one.footprint_bytes == other.footprint_bytes
    assert one.on["h100"].step_s == other.on["h100"].step_s
    assert one.on["h100"].seconds != other.on["h100"].seconds


@pytest.mark.parametrize(
    ("key", "smaller", "larger"),
    [
        ("influence.projection_dim_factor", 512, 32),
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu", 9216, 73728),
        ("data.max_response_length", 1024, 16384),
        ("trainer.n_gpus_per_node", 8, 1),
        ("actor_rollout_ref.model.enable_gradient_checkpointing", True, False),
        ("actor_rollout_ref.model.use_fused_kernels", True, False),
        ("actor_rollout_ref.actor.fsdp_config.optimizer_offload", True, False),
    ],
)
def test_what_makes_a_job_larger_makes_its_footprint_larger(
    cluster: dict[str, Any], key: str, smaller: object, larger: object
) -> None:
    low, high = (predict(with_key(cluster, key, value), CARDS, known_shape) for value in (smaller, larger))
    assert low.footprint_bytes is not None
    assert high.footprint_bytes is not None
    assert low.footprint_bytes < high.footprint_bytes


loads = st.builds(
    Workload,
    model=st.sampled_from(list(KNOWN.values())),
    cuda=st.booleans(),
    ranks=st.integers(1, 64),
    ranks_per_node=st.integers(1, 8),
    prompts=st.integers(1, 256),
    samples=st.integers(1, 32),
    prompt_tokens=st.integers(1, 4096),
    response_tokens=st.integers(1, 16_384),
    pass_tokens=st.integers(1, 65_536),
    steps=st.none() | st.integers(1, 100),
    recomputes=st.booleans(),
    weight_bytes=st.sampled_from([2, 4]),
    weights_on_host=st.booleans(),
    optimizer_on_host=st.booleans(),
    keeps_logits=st.booleans(),
    rollout_share=st.floats(0, 0.9),
    trace=st.none(),
)


@given(loads, st.none() | st.integers(2**33, 2**38))
def test_what_is_needed_at_least_is_never_more_than_the_peak_and_guesses_are_ordered(
    load: Workload, card: int | None
) -> None:
    low, middle, high = (bars(load, guess) for guess in range(3))
    assert 0 < middle.least <= middle.on(card)
    assert middle.least <= middle.footprint
    assert low.footprint <= middle.footprint <= high.footprint


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"job": {"command": ["{python}", "-m", "mine"]}},
        {"actor_rollout_ref": None, "data": 3, "trainer": []},
        {"actor_rollout_ref": {"model": {"path": "x"}, "actor": {}, "rollout": {}}, "data": {}, "trainer": {}},
    ],
)
def test_a_configuration_that_says_nothing_is_unknown_and_no_error(config: dict[str, Any]) -> None:
    found = predict(config, CARDS, known_shape)
    assert found == Prediction(kind_of(config))
    assert found.on == {}


def test_another_model_is_unknown_until_it_is_named(cluster: dict[str, Any]) -> None:
    other = with_key(cluster, "actor_rollout_ref.model.path", "somebody/else")
    assert predict(other, CARDS, known_shape).on == {}
    assert predict(other, CARDS, lambda _path: KNOWN["qwen3-4b"]).on.keys() == CARDS.keys()


def test_the_kind_is_the_program_and_its_model(cluster: dict[str, Any]) -> None:
    assert kind_of(cluster) == "verl.trainer.main_ppo qwen2.5-1.5b"
    assert kind_of({"job": {"command": ["{python}", "-m", "trainer_ext.synthetic", "x"]}}) == "trainer_ext.synthetic"


def test_a_forecast_can_be_read(cluster: dict[str, Any]) -> None:
    found = on_h100(cluster)
    for estimate in (found.gpu_bytes, found.host_bytes, found.step_s, found.seconds):
        assert estimate is not None
        assert 0 < estimate.low <= estimate.value <= estimate.high
        assert estimate.basis == "shapes"
