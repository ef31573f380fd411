"""Modules whose systems wait in pools: whatever pool a system is solved in, and whoever waits for it, scores are the same.

Pools run on the tensor cores alone. Here a CPU is given the float16 rows that a GPU would have, so that every module takes
that way; answers are then refined on the float32 rows, as with `fp32` on a GPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import normal
from trainer_ext.influence import InfluenceConfig, ModuleFactors, Responses, direct, modules, score_batch
from trainer_ext.influence.config import InfluenceConfig as Config
from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.layout import Layout
from trainer_ext.influence.precision import Precision
from trainer_ext.influence.staging import Staged, staged
from trainer_ext.influence.storage import half_rows


class _OneByOne:
    """Modules that are held by nobody but who asked for them."""

    def __init__(self, rows: dict[str, ModuleFactors]) -> None:
        self._rows, self._alive = rows, weakref.WeakSet[ModuleFactors]()
        self.most_alive = 0

    def __len__(self) -> int:
        return len(self._rows)

    def items(self) -> Iterator[tuple[str, ModuleFactors]]:
        for name in list(self._rows):
            factors = self._rows.pop(name)
            self._alive.add(factors)
            self.most_alive = max(self.most_alive, len(self._alive))
            yield name, factors
            del factors


SHAPES = [(6, 5), (6, 5), (4, 4), (5, 6), (3, 2)] * 3
RESPONSES = Responses(
    torch.arange(3).repeat_interleave(4),
    torch.tensor([True, False, True, False] * 3),
    torch.ones(12, dtype=torch.float32),
)


def _with_halves(factors: ModuleFactors, layout: Layout, config: Config, precision: Precision) -> Staged:
    here = staged(factors, layout, config, precision)
    if precision == "fp64":
        return here
    (large, large_power), (small, small_power) = half_rows(here.rows.large), half_rows(here.rows.small)
    power = large_power.int() + small_power.int()
    top = int(power.max())
    # both in one unit, that of the largest token
    rows = replace(here.rows, small=here.rows.small * 2.0**-top)
    return Staged(rows, TokenRows(large, small, rows.owner, power - top), here.unit * 2.0**top)


def _modules(response: Tensor) -> dict[str, ModuleFactors]:
    return {
        f"{number}.q_proj": ModuleFactors(
            normal(len(response), k_in, seed=number).float() * (1 + number),
            normal(len(response), k_out, seed=100 + number).float(),
            response,
        )
        for number, (k_in, k_out) in enumerate(SHAPES)
    }


@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
@pytest.mark.parametrize("most", [1, 2, 24], ids=lambda most: f"pools of {most}")
@pytest.mark.parametrize("broken", [False, True], ids=["", "a factor breaks down"])
def test_scores_do_not_depend_on_the_pools(
    scope: str, most: int, broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = torch.arange(12).repeat_interleave(40)
    rows = _modules(response)
    options = {"scope": scope, "solver": "direct", "exclude_self_response": True}
    exact = score_batch(rows, RESPONSES, InfluenceConfig.from_mapping({"precision": "fp64", **options})).scores
    monkeypatch.setattr(modules, "staged", _with_halves)
    monkeypatch.setattr(direct, "MOST_SYSTEMS", most)
    if broken:
        first = direct.Pool.attempt

        def attempt(pool: direct.Pool, jitter: float = direct.JITTERS[0]) -> direct.Attempt:
            made = first(pool, jitter)
            return made if jitter > 1 else replace(made, usable=torch.zeros_like(made.usable))

        monkeypatch.setattr(direct.Pool, "attempt", attempt)

    result = score_batch(rows, RESPONSES, InfluenceConfig.from_mapping({"precision": "fp32", **options}))

    assert set(result.routes.values()) == {"direct"}
    assert list(result.residuals) == list(rows)
    assert max(value for value in result.residuals.values() if value is not None) < 1e-6
    error = (result.scores.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert float(error) < 1e-5


def test_large_modules_do_not_wait_by_dozens(monkeypatch: pytest.MonkeyPatch) -> None:
    config = InfluenceConfig.from_mapping({"scope": "all_selected", "solver": "direct", "precision": "fp32"})
    response = torch.arange(12).repeat_interleave(10)
    monkeypatch.setattr(modules, "staged", _with_halves)
    small = _OneByOne(_modules(response))
    together = score_batch(small, RESPONSES, config).scores
    monkeypatch.setattr(modules, "WAITING_BYTES", 0)
    large = _OneByOne(_modules(response))

    scores = score_batch(large, RESPONSES, config).scores

    torch.testing.assert_close(scores, together, rtol=1e-4, atol=1e-4 * float(together.abs().max()))
    sizes = len({tuple(sorted(shape)) for shape in SHAPES})
    assert large.most_alive <= 4 * sizes + 1  # two in a pool, two in the one being solved, and the one that arrives
    assert large.most_alive < small.most_alive
