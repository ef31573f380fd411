"""What random projection does to a module's response gradients: their dots before and after, and the sizes that it leaves.

>>> [(row.module_type, row.dim) for row in projection_table({"layers.0.q_proj": (2, 1)}, {"layers.0.q_proj": 96})]
[('q_proj', 2)]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from trainer_ext.influence.curvature import CHUNK_BYTES, TokenRows
from trainer_ext.influence.factors import ModuleFactors, Responses, require_known_responses
from trainer_ext.influence.layout import arranged
from trainer_ext.influence.pair_table import ComparedResponses, SimilarityRow
from trainer_ext.influence.segments import gradients_by_loop


@dataclass(frozen=True)
class ProjectionRow:
    """Modules of one type and one size."""

    module_type: str
    """Last part of their names: q_proj."""
    modules: int
    """How many there are."""
    k_in: int
    k_out: int
    dim: int
    """D = k_in k_out."""
    peak_bytes: int
    """The largest of theirs."""


def projection_table(dims: Mapping[str, tuple[int, int]], peak_bytes: Mapping[str, int]) -> list[ProjectionRow]:
    """One row for each module type and size, in the order of `dims`.

    Args:
        dims: (k_in, k_out) by module name.
        peak_bytes: of the same modules; an upper estimate from shapes is `workspace.workspace_bytes`.
    """
    names: dict[tuple[str, int, int], list[str]] = {}
    for name, (k_in, k_out) in dims.items():
        names.setdefault((name.rpartition(".")[2], k_in, k_out), []).append(name)
    return [
        ProjectionRow(kind, len(alike), k_in, k_out, k_in * k_out, max(peak_bytes[name] for name in alike))
        for (kind, k_in, k_out), alike in names.items()
    ]


@dataclass(frozen=True, eq=False)
class ProjectionFidelity:
    """What is left of a module's RAW_DOT after projection."""

    projected: Tensor
    """float64 [R, R] on the CPU."""
    unprojected: Tensor
    """float64 [R, R] on the CPU."""
    responses: ComparedResponses

    @classmethod
    def joined(cls, ranks: Sequence[Self]) -> Self:
        """Several ranks' as one."""
        return cls(
            torch.block_diag(*(part.projected for part in ranks)),
            torch.block_diag(*(part.unprojected for part in ranks)),
            ComparedResponses.joined([part.responses for part in ranks]),
        )

    @property
    def rows(self) -> list[SimilarityRow]:
        """Six for each of the two."""
        return self.responses.rows("PROJECTED", self.projected) + self.responses.rows("UNPROJECTED", self.unprojected)

    @property
    def correlation(self) -> float:
        """Of the dots of different responses (Pearson); NaN with fewer than two pairs, or where either has no spread."""
        pairs = self.responses.pairs()
        small, full = (dots[pairs] - dots[pairs].mean() for dots in (self.projected, self.unprojected))
        return float((small @ full) / (small.norm() * full.norm()))

    @property
    def relative_error_of_self_dots(self) -> float:
        """Mean of |projected - unprojected| / unprojected over responses that have a gradient."""
        own = self.unprojected.diagonal()
        return float(((self.projected.diagonal() - own).abs()[own > 0] / own[own > 0]).mean())


def compare_projection(
    projected: ModuleFactors,
    unprojected: ModuleFactors,
    responses: Responses,
    *,
    device: torch.device | str | None = None,
) -> ProjectionFidelity:
    """Compare a module's projected gradients with the gradients of its weight, delta_r^T x_r.

    Both sides are taken as they are stored and computed with in float64, in blocks of columns: two capped
    intermediates (`curvature.CHUNK_BYTES`) are held beyond the factors and their smaller side, whatever D.

    Args:
        projected: of one module.
        unprojected: of the same module and passes, captured with `projection_dim_factor=1`.
        responses: R rows that both point into.
        device: where to compute; None: where each of them is.

    Raises:
        ValueError: a token of an unknown response, or a response whose tokens are not the same in number.
    """
    require_known_responses(projected, responses)
    require_known_responses(unprojected, responses)
    counts = [x.response.bincount(minlength=responses.count).cpu() for x in (projected, unprojected)]
    if not torch.equal(*counts):
        r = int((counts[0] != counts[1]).nonzero()[0])
        raise ValueError(
            f"compare_projection: response {r} has {counts[0][r]} projected and {counts[1][r]} unprojected tokens; "
            "capture both in the same passes"
        )
    small, full = (_exact_dots(x, responses.count, device) for x in (projected, unprojected))
    return ProjectionFidelity(small, full, ComparedResponses.of(responses))


def _exact_dots(factors: ModuleFactors, count: int, device: torch.device | str | None) -> Tensor:
    """g_r . g_r', float64 [R, R] on the CPU, a block of the long side's columns at a time."""
    if not factors.tokens:
        return torch.zeros(count, count, dtype=torch.float64)
    place = torch.device(device) if device is not None else factors.inputs.device
    counts = factors.response.bincount(minlength=count).tolist()
    layout = arranged(factors.response, counts, [(torch.arange(count), torch.eye(count))], place)
    order = slice(None) if layout.order is None else layout.order.to(factors.inputs.device)
    sides = (factors.inputs, factors.output_grads)
    large, small = sides if factors.k_in >= factors.k_out else sides[::-1]
    short = small[order].to(place)
    exponent = None if factors.exponent is None else factors.exponent[order].to(place)
    total = torch.zeros(count, count, dtype=torch.float64, device=place)
    width = max(1, CHUNK_BYTES // max(8 * count * small.shape[1], large.element_size() * factors.tokens))
    for columns in torch.split(large, width, dim=1):
        rows = TokenRows(columns[order].to(place), short, layout.owner, exponent)
        gradients = gradients_by_loop(rows, layout)
        total.addmm_(gradients, gradients.T)
    return total.cpu()
