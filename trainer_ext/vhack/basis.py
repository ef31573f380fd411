"""The SVD basis of a weight, in which directions are written.

With W = U diag(s) Vh, a vector a of r = min(out, in) numbers stands for the change U diag(a) Vh of the weight: it moves
singular values and keeps singular vectors. Its inner product is the Frobenius product of the changes, so what is orthonormal
as vectors is orthonormal as changes, and the gradient by a is diag(U^T G Vh^T), where G is the gradient by W. A singular pair
may change its sign, both sides together, without changing a; so vectors are the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Basis:
    """`u` float64 [out, r] and `vh` float64 [r, in], singular values descending."""

    u: Tensor
    vh: Tensor


def svd_basis(weight: Tensor) -> Basis:
    """The basis of a weight [out, in] of any floating dtype, computed in float64.

    Where a singular value is zero its vectors are whatever the machine makes them; those of U are zero here, so that nothing is
    measured or changed along them.
    """
    u, s, vh = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    rounding = s[0] * max(weight.shape) * torch.finfo(s.dtype).eps
    return Basis(u * (s > rounding), vh)


def coordinates(gradient: Tensor, basis: Basis) -> Tensor:
    """diag(U^T G Vh^T), float64 [r], of a gradient [out, in]: the gradient by the singular values."""
    return (basis.u * (gradient.to(basis.u) @ basis.vh.T)).sum(dim=0)


def orthonormal(v: Tensor) -> Tensor:
    """Directions without the rounding of a file's dtype: orthonormalised again, first row first, float64 [k, r].

    Rows of zeros, which extraction leaves where an axis was below `tau_axis`, stay zeros.

    Args:
        v: directions [k, r], nearly orthonormal or zero.

    Raises:
        ValueError: rows that are far from orthonormal: no directions that this package extracted.
    """
    rows = v.double()
    gram = rows @ rows.T + torch.diag((rows.norm(dim=1) == 0).double())
    if bool((gram - torch.eye(len(rows)).to(gram)).abs().gt(0.05).any()):
        raise ValueError(f"directions are not orthonormal: the products of their rows are {gram.tolist()}")
    return torch.linalg.solve_triangular(torch.linalg.cholesky(gram), rows, upper=False)


def expanded(v: Tensor, basis: Basis) -> Tensor:
    """Directions [k, r] as changes of the weight, float64 [k, out, in], orthonormal in the Frobenius product or zero.

    Raises:
        ValueError: see `orthonormal`.
    """
    return torch.stack([(basis.u * row) @ basis.vh for row in orthonormal(v).to(basis.u)])


def linear_modules(model: nn.Module, targets: tuple[str, ...]) -> dict[str, nn.Linear]:
    """By name, every `nn.Linear` whose dotted name contains one of `targets`.

    Of modules that share a weight the first alone: what is to be taken out of that weight is to be taken out once.

    Raises:
        ValueError: there is none.
    """
    found, seen = {}, set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and any(target in name for target in targets) and module.weight not in seen:
            found[name] = module
            seen.add(module.weight)
    if not found:
        raise ValueError(f"no linear module's name contains one of {', '.join(targets)}")
    return found


def weight_digest(weight: Tensor) -> str:
    """sha256 of a weight's shape and values, whatever device it is on."""
    plain = weight.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(plain.shape)}".encode())
    digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def basis_hash(digests: Mapping[str, str]) -> str:
    """What tells one model's basis from another's: a hash of the weights that it is the basis of.

    Args:
        digests: by module, `weight_digest`.
    """
    lines = "\n".join(f"{name} {digests[name]}" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()
