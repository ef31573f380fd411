"""Modules that take in one tensor are projected in one product; whatever they share, the rows are their own projection's."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.trainer_ext.influence.tiny_decoder import VOCABULARY, TinyDecoder, log_prob_sum
from trainer_ext.influence import InfluenceConfig, LinearCapture
from trainer_ext.influence.picked_rows import PickedRows
from trainer_ext.influence.projection import JointProjection, Projection
from trainer_ext.influence.shared_inputs import SharedInputs

NAMES = ("q", "k", "v", "o")
POSITIONS = torch.tensor([4, 1, 3])


class Counted(SharedInputs):
    """Notes which modules each product was for."""

    def __init__(self) -> None:
        self.own = {name: Projection(6, 2, seed=0, module=name, side="in") for name in NAMES}
        super().__init__(self.own)
        self.products: list[list[str]] = []

    def _projected(self, names: list[str], inputs: Tensor, positions: Tensor) -> list[PickedRows]:
        self.products.append(names)
        return super()._projected(names, inputs, positions)

    def run(self, inputs: dict[str, Tensor]) -> list[list[str]]:
        """One pass; the products that it took."""
        self.begin_pass()
        self.products = []
        for name, tensor in inputs.items():
            rows = self(name, tensor, POSITIONS)
            torch.testing.assert_close(rows.values(), self.own[name](tensor.flatten(0, -2)[POSITIONS]))
        return self.products


def wide() -> Tensor:
    return torch.randn(1, 6, 6, dtype=torch.float64)


@pytest.fixture
def shared() -> Counted:
    return Counted()


@pytest.fixture
def taught(shared: Counted) -> Counted:
    x = wide()
    shared.run({"q": x, "k": x, "v": x, "o": wide()})
    return shared


def test_the_first_pass_finds_out_who_shares(shared: Counted) -> None:
    x = wide()
    assert shared.run({"q": x, "k": x, "v": x, "o": wide()}) == [["q"], ["k"], ["v"], ["o"]]
    assert shared.followers() == {"q": ["k", "v"]}


def test_from_the_second_pass_on_one_product_serves_all_who_share(taught: Counted) -> None:
    for _ in range(2):
        x = wide()
        assert taught.run({"q": x, "k": x, "v": x, "o": wide()}) == [["q", "k", "v"], ["o"]]


def test_views_of_the_same_memory_are_the_same_tensor(taught: Counted) -> None:
    x = wide()
    assert taught.run({"q": x[:], "k": x.view(1, 6, 6), "v": x}) == [["q", "k", "v"]]


@pytest.mark.parametrize("other", ["copy", "reshaped", "shifted"])
def test_a_module_that_takes_in_another_tensor_gets_its_own_rows(taught: Counted, other: str) -> None:
    x = torch.randn(1, 7, 6, dtype=torch.float64)
    different = {"copy": x.clone(), "reshaped": x.view(7, 1, 6), "shifted": x[:, 1:]}[other]
    assert taught.run({"q": x, "k": different}) == [["q", "k", "v"], ["k"]]


def test_a_tensor_that_was_written_to_is_another(taught: Counted) -> None:
    x = wide()
    taught.begin_pass()
    taught("q", x, POSITIONS)
    x.add_(1)
    torch.testing.assert_close(taught("k", x, POSITIONS).values(), taught.own["k"](x[0, POSITIONS]))
    assert taught.products[-2:] == [["q", "k", "v"], ["k"]]


def test_a_follower_that_stays_away_is_no_follower_any_more(taught: Counted) -> None:
    x = wide()
    taught.run({"q": x, "k": x, "o": wide()})
    assert taught.followers() == {"q": ["k"]}
    assert taught.run({"q": x, "k": x, "v": x, "o": wide()}) == [["q", "k"], ["v"], ["o"]]


def held_after(shared: SharedInputs, names: Sequence[str]) -> list[bool]:
    """Whether the tensor that each module took in is still there right after it."""
    x = wide()
    kept: dict[str, Tensor] = {"q": x, "k": x, "v": x, "o": wide()}
    alive = {name: weakref.ref(tensor) for name, tensor in kept.items()}
    del x
    held = []
    for name in names:
        shared(name, kept.pop(name), POSITIONS)
        held.append(alive[name]() is not None)
    return held


def test_no_tensor_is_held_once_all_who_share_it_came(taught: Counted) -> None:
    taught.begin_pass()
    assert held_after(taught, NAMES) == [True, True, False, False]


def test_signs_of_modules_that_share_are_kept_once(taught: Counted) -> None:
    x = wide()
    taught.run({"q": x, "k": x, "v": x, "o": x.clone()})
    kept = {name: [signs.shape for signs in joint._kept.values()] for name, joint in taught._joint.items()}
    assert kept == {"q": [(6, 6)], "k": [], "v": [], "o": [(6, 2)]}


def test_a_decoder_shares_query_with_key_and_value_and_gate_with_up() -> None:
    model, config = TinyDecoder(), InfluenceConfig(projection_dim_factor=4)
    tokens = torch.randint(VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(0))
    with LinearCapture(model, config) as capture:
        for _ in range(2):  # the second pass shares
            capture.select(torch.arange(21), torch.zeros(21, dtype=torch.int64))
            log_prob_sum(model(tokens), tokens).backward()
        modules = capture.pop()

    assert capture._inputs.followers() == {
        f"layers.{layer}.{leader}": [f"layers.{layer}.{name}" for name in names]
        for layer in (0, 1)
        for leader, names in {
            "self_attn.q_proj": ["self_attn.k_proj", "self_attn.v_proj"],
            "mlp.gate_proj": ["mlp.up_proj"],
        }.items()
    }
    for factors in modules.values():
        torch.testing.assert_close(factors.inputs[:21], factors.inputs[21:], rtol=1e-12, atol=1e-12)


def test_projections_of_different_widths_are_no_product() -> None:
    with pytest.raises(ValueError, match=r"widths differ, \[6, 8\]"):
        JointProjection([Projection(dim, 2, seed=0, module="m", side="in") for dim in (6, 8)])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_sharing_on_a_gpu_waits_for_nothing_and_gives_the_same_rows(dtype: torch.dtype) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj, self.k_proj = nn.Linear(64, 64), nn.Linear(64, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.q_proj(x).square().sum() + self.k_proj(x).square().sum()

    model = Pair().to("cuda", dtype)
    x = torch.randn(20, 64, device="cuda", dtype=dtype)
    with LinearCapture(model, InfluenceConfig(projection_dim_factor=4)) as capture:
        for number in range(3):
            capture.select(torch.arange(15), torch.full((15,), number))
            torch.cuda.set_sync_debug_mode("error" if number else "default")
            try:
                model(x).backward()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        modules = capture.pop()

    assert capture._inputs.followers() == {"q_proj": ["k_proj"]}
    for factors in modules.values():
        for rows in (factors.inputs.float(), factors.output_grads.float()):
            for later in rows[15:].split(15):
                torch.testing.assert_close(later, rows[:15], rtol=1e-3, atol=1e-3)
