"""Directions from pairs, against gradients that autograd gives for an adapter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from tests.trainer_ext.vhack.models import SmallModel, token_pairs
from trainer_ext.vhack import TokenPair, extract
from trainer_ext.vhack.basis import svd_basis
from trainer_ext.vhack.directions import directions

TARGETS = ("proj",)


def adapter_gradient(model: SmallModel, prompt: Tensor, completion: Tensor) -> dict[str, Tensor]:
    """By module, the gradient of the mean negative log-likelihood by additions to the singular values."""
    names = ("up_proj", "down_proj")
    bases = {name: svd_basis(getattr(model, name).weight) for name in names}
    amounts = {name: torch.zeros(8, dtype=torch.float64, requires_grad=True) for name in names}
    weights = {
        f"{name}.weight": getattr(model, name).weight.detach().double()
        + (bases[name].u * amounts[name]) @ bases[name].vh
        for name in names
    }
    tokens = torch.cat([prompt, completion])
    logits = functional_call(model, weights, (tokens[None],)).logits[0]
    log_probs = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(1, completion[:, None])
    return dict(zip(names, torch.autograd.grad(-log_probs.mean(), list(amounts.values())), strict=True))


def test_directions_are_the_singular_vectors_of_the_pairs_gradient_differences() -> None:
    model, pairs = SmallModel().double(), token_pairs(5)
    found = extract(model, pairs, 3, targets=TARGETS)
    for name in ("up_proj", "down_proj"):
        difference = torch.stack(
            [
                adapter_gradient(model, p.prompt, p.hack)[name] - adapter_gradient(model, p.prompt, p.clean)[name]
                for p in pairs
            ]
        )
        _, s, vh = torch.linalg.svd(difference, full_matrices=False)
        assert torch.allclose(found.s[name].double(), s[:3], rtol=1e-4)
        assert torch.allclose((found.v[name].double() * vh[:3]).sum(1).abs(), torch.ones(3).double(), atol=1e-4)


def test_the_likelihood_is_the_mean_over_a_completions_tokens() -> None:
    """Twice the same token after tokens that do not matter: as its length grows, the gradient does not."""
    model = SmallModel()
    torch.nn.init.ones_(model.embed.weight)
    torch.nn.init.zeros_(model.up_proj.weight)  # every position predicts alike
    prompt, token = torch.tensor([1, 2]), torch.tensor([3])
    short = [TokenPair(prompt, token, torch.tensor([5]))]
    long = [TokenPair(prompt, token.repeat(6), torch.tensor([5, 5, 5]))]
    one, six = (extract(model, pairs, 1, targets=("head",)).s["head"] for pairs in (short, long))
    assert torch.allclose(one, six, rtol=1e-5)
    assert float(one) > 0


def test_model_and_gradients_are_left_as_they_were() -> None:
    model = SmallModel()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    extract(model, token_pairs(2), 2, targets=TARGETS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_number_of_pairs_caps_k_and_the_file_says_of_what_it_is() -> None:
    found = extract(SmallModel(), token_pairs(3), 12, targets=TARGETS)
    assert (found.k, found.pairs, found.dtype, found.targets) == (3, 3, "float32", TARGETS)
    assert found.basis == extract(SmallModel(), token_pairs(1), 1, targets=TARGETS).basis
    assert found.basis != extract(SmallModel(seed=1), token_pairs(1), 1, targets=TARGETS).basis


def test_a_direction_points_to_where_most_pairs_lie_however_far_the_others_are() -> None:
    differences = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [-8.0, 0.0]])
    v, _ = directions(differences, 1)
    assert v[0, 0] > 0.99
    v, _ = directions(-differences, 1)
    assert v[0, 0] < -0.99


def test_an_even_vote_goes_to_the_side_of_the_mean() -> None:
    assert directions(torch.tensor([[3.0, 0.0], [-1.0, 0.0]]), 1)[0][0, 0] > 0
    assert directions(torch.tensor([[-3.0, 0.0], [1.0, 0.0]]), 1)[0][0, 0] < 0


def test_pairs_with_nothing_along_a_direction_do_not_vote_on_it() -> None:
    """Each pair along a line of its own: what the others have there is rounding, of either sign."""
    for seed in range(10):
        lines = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[
            0
        ]
        v, s = directions(torch.tensor([4.0, 3.0, 2.0, 1.5, 1.0]).double()[:, None] * lines[:5], 5)
        assert torch.allclose(v.double(), lines[:5], atol=1e-6), "each as its pair, not turned round"
        assert s.tolist() == pytest.approx([4.0, 3.0, 2.0, 1.5, 1.0])


def test_axes_that_no_pair_spans_are_zero() -> None:
    same = torch.randn(1, 9, generator=torch.Generator().manual_seed(0)).repeat(4, 1)
    v, s = directions(same, 3)
    assert v.norm(dim=1).tolist() == [pytest.approx(1), 0, 0]
    assert s.tolist() == [pytest.approx(2 * float(same[0].norm())), 0, 0]
    assert not directions(torch.zeros(3, 9), 2)[0].any(), "pairs that do not differ"


def test_a_module_that_the_tokens_do_not_reach_has_no_direction() -> None:
    model = SmallModel()
    model.add_module("idle_proj", torch.nn.Linear(8, 8, bias=False))
    found = extract(model, token_pairs(2), 2, targets=TARGETS)
    assert not found.v["idle_proj"].any()
    assert found.v["up_proj"].norm(dim=1).tolist() == pytest.approx([1.0, 1.0])


def test_tau_axis_makes_weak_axes_zero() -> None:
    differences = torch.diag(torch.tensor([4.0, 2.0, 1.0]))
    v, s = directions(differences, 3, tau_axis=0.5)
    assert s.tolist() == [4.0, 2.0, 0.0]
    assert v.norm(dim=1).tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("k", "tau", "message"), [(0, 0.0, "k: must be 1 or more"), (1, 1.5, "tau_axis: must be between")]
)
def test_settings_out_of_range_are_errors(k: int, tau: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        directions(torch.eye(2), k, tau)


def test_pairs_that_cannot_be_used_are_named() -> None:
    good = token_pairs(1)[0]
    with pytest.raises(ValueError, match="no pairs"):
        extract(SmallModel(), [], 1, targets=TARGETS)
    with pytest.raises(ValueError, match="pair 2: prompt and completions need at least one token"):
        extract(SmallModel(), [good, replace(good, hack=torch.zeros(0, dtype=torch.int64))], 1, targets=TARGETS)
    model = SmallModel()
    torch.nn.init.constant_(model.head.weight, torch.nan)
    with pytest.raises(ValueError, match="pair 1: the negative log-likelihood is nan"):
        extract(model, [good], 1, targets=TARGETS)
