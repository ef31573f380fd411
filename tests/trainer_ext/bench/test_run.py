from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from trainer_ext.bench.cases import named_cases
from trainer_ext.bench.run import distinct_layers, layer_bytes, make_modules, run_case
from trainer_ext.bench.shapes import linear_types, parse_shape
from trainer_ext.bench.synthetic import Batch
from trainer_ext.influence import score_batch

CPU = torch.device("cpu")
TYPES = linear_types(parse_shape("hidden=12,intermediate=24,layers=5,heads=3,kv_heads=1,head_dim=4"))
CASE = named_cases(["f32_per_prompt"])[0]


@pytest.mark.parametrize(
    ("room", "wanted", "layers"), [(100, None, 10), (1000, None, 28), (5, None, 1), (0, None, 1), (0, 3, 3)]
)
def test_layers_get_factors_of_their_own_as_far_as_there_is_room(room: int, wanted: int | None, layers: int) -> None:
    assert distinct_layers(28, 10, room, wanted) == layers


@pytest.mark.parametrize("wanted", [0, 29])
def test_more_distinct_layers_than_layers_are_refused(wanted: int) -> None:
    with pytest.raises(ValueError, match=r"--distinct: must be in \[1, 28\]"):
        distinct_layers(28, 10, 100, wanted)


def test_layers_beyond_the_distinct_ones_reuse_them_in_turn(batch: Batch) -> None:
    made = make_modules(batch, TYPES, factor=4, layers=5, distinct=2, precision="fp32", seed=0)
    assert len(made.modules) == 5 * 7
    assert made.modules["layers.4.up_proj"] is made.modules["layers.0.up_proj"]
    assert made.modules["layers.3.up_proj"] is made.modules["layers.1.up_proj"]
    first, second = (made.modules[f"layers.{i}.up_proj"].inputs for i in (0, 1))
    assert not torch.equal(first, second)
    gate, up = (made.modules[f"layers.0.{name}_proj"].inputs for name in ("gate", "up"))
    assert not torch.equal(gate, up)
    assert list(made.first_layer) == [f"layers.0.{kind.name}" for kind in TYPES]


@pytest.mark.parametrize("precision", ["fast", "fp32"])
def test_the_bytes_of_a_layer_are_those_of_its_tensors(batch: Batch, precision: str) -> None:
    made = make_modules(batch, TYPES, factor=4, layers=3, distinct=2, precision=precision, seed=0)
    assert made.stored_bytes == 2 * layer_bytes(TYPES, 4, 300, precision)


def test_a_case_is_timed_over_all_modules_and_reported_with_its_routes(
    batch: Batch, clock: Callable[[], float]
) -> None:
    made = make_modules(batch, TYPES, factor=4, layers=2, distinct=2, precision="fp32", seed=0)
    config = CASE.config(factor=4, precision="fp32")
    run = run_case(made, batch.responses, config, device=CPU, clock=clock, repeats=3)
    assert run.all_seconds == (1.0, 1.0, 1.0)
    assert run.seconds == run.startup_seconds == 1.0
    assert sum(run.routes.values()) == 14
    assert run.unscored == 0
    assert run.peak_gib is None
    result = score_batch(made.modules, batch.responses, config)
    assert set(run.phases) == set(result.timing)
    assert run.residual == pytest.approx(max(r for r in result.residuals.values() if r is not None), rel=1e-6)


def test_no_repeats_are_refused(batch: Batch, clock: Callable[[], float]) -> None:
    made = make_modules(batch, TYPES, factor=4, layers=1, distinct=1, precision="fp32", seed=0)
    with pytest.raises(ValueError, match="--repeats"):
        run_case(made, batch.responses, CASE.config(factor=4, precision="fp32"), device=CPU, clock=clock, repeats=0)
