"""On a GPU: the same scores as on the CPU, and captured rows that never leave the device unless they are told to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainer_ext.influence import InfluenceConfig, LinearCapture, ModuleFactors, Responses, score_batch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

RESPONSES, TOKENS = 12, 600


def batch(device: str) -> tuple[dict[str, ModuleFactors], Responses]:
    """Two modules of different shape; the same numbers on every device."""
    random = torch.Generator().manual_seed(0)
    response = torch.randint(0, RESPONSES, (TOKENS,), generator=random)

    def rows(width: int) -> Tensor:
        return torch.randn(TOKENS, width, generator=random, dtype=torch.float64).to(device)

    modules = {
        name: ModuleFactors(rows(a), rows(b), response.to(device)) for name, a, b in (("q", 6, 5), ("up", 4, 16))
    }
    accepted = torch.arange(RESPONSES) % 3 == 0
    responses = Responses(torch.arange(RESPONSES) // 4, accepted, accepted.double() - 0.3)
    return modules, responses


@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
@pytest.mark.parametrize("hessian_source", ["token", "response"])
@pytest.mark.parametrize("hessian_mode", ["identity", "inverse"])
def test_scores_are_those_of_the_cpu(scope: str, hessian_source: str, hessian_mode: str) -> None:
    config = InfluenceConfig.from_mapping(
        {
            "scope": scope,
            "hessian_source": hessian_source,
            "hessian_mode": hessian_mode,
            "exclude_self_response": True,
            "precision": "fp64",
        }
    )
    on_cpu, on_gpu = (score_batch(*batch(device), config).scores for device in ("cpu", "cuda"))
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_captured_rows_stay_where_they_are_told_to() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"q_proj": nn.Linear(32, 16, bias=False)}).cuda()
    x = torch.randn(2, 5, 32, device="cuda")
    positions = torch.tensor([1, 2, 6], device="cuda")
    response = torch.tensor([0, 0, 1], device="cuda")
    rows = {}
    for storage in (None, "cpu"):
        with LinearCapture(model, InfluenceConfig(projection_dim_factor=4), storage=storage) as capture:
            capture.select(positions, response)
            model["q_proj"](x).square().sum().backward()
            rows[storage] = capture.pop()["q_proj"]
    assert rows[None].inputs.device.type == "cuda"
    assert rows["cpu"].inputs.device.type == "cpu"
    torch.testing.assert_close(rows["cpu"].output_grads, rows[None].output_grads.cpu())
