"""Products of pairs of a row's entries, the features behind the compact Gram matrix, and where each pair stands.

For token rows x_t = l_t s_t^T the Gram matrix H[(b,a),(d,c)] = sum_t l_b l_d s_a s_c is symmetric in b <-> d and in
a <-> c separately. Its distinct entries are one product of matrices,

    C = B^T A      B [T, M] all l_b l_d with b <= d,  A [T, N] all s_a s_c with a <= c

a quarter of the work of X^T X and a quarter of its memory.

The order of pairs is by blocks of four first entries, so that a row of a block is a run of consecutive second entries
that starts at a multiple of four, and a kernel can write it with wide stores:

    block I = b // 4 holds for each of its b the pairs (b, d) for all d >= 4 I
    place(b, d) = 4 I k - 8 I (I - 1) + (b - 4 I)(k - 4 I) + (d - 4 I)     for b // 4 <= d // 4

Pairs inside a block therefore appear twice, (b, d) and (d, b): 1% more columns at k = 280, 6% at 48.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

GRANULE = 4
"""First entries per block."""
ALIGNMENT = 64
"""Feature columns are padded with zeros to a multiple of this: an unaligned width was measured at a third of the GEMM
rate on an H200."""


@dataclass(frozen=True, eq=False)
class PairIndex:
    """Places of the pairs of k entries."""

    k: int
    first: Tensor
    """int64 [count]: b of each feature."""
    second: Tensor
    """int64 [count]: d of each feature."""
    place: Tensor
    """int64 [k, k]: the feature of (b, d), whichever comes first."""

    @property
    def count(self) -> int:
        return len(self.first)

    @property
    def padded(self) -> int:
        """`count` rounded up to the alignment."""
        return -(-self.count // ALIGNMENT) * ALIGNMENT


@lru_cache(maxsize=1024)
def padded_pairs(k: int) -> int:
    """Columns of the padded features of k entries."""
    full, rest = divmod(k, GRANULE)
    count = sum(GRANULE * (k - GRANULE * block) for block in range(full)) + rest * rest
    return -(-count // ALIGNMENT) * ALIGNMENT


@lru_cache(maxsize=64)
def pair_index(k: int, device: torch.device) -> PairIndex:
    """The index of k entries, kept per width and device."""
    entries = torch.arange(k)
    start = entries // GRANULE * GRANULE
    width = k - start
    first = entries.repeat_interleave(width)
    second = torch.cat([torch.arange(int(s), k) for s in start])
    place = torch.empty(k, k, dtype=torch.int64)
    feature = torch.arange(len(first))
    # the second assignment wins inside a block, where both orders are features of equal value
    place[second, first] = feature
    place[first, second] = feature
    return PairIndex(k, first.to(device), second.to(device), place.to(device))


def pair_features(rows: Tensor, weight: Tensor | None, out: Tensor) -> Tensor:
    """weight_t x_tb x_td for every pair, zeros in the padding.

    Args:
        rows: x [T, k] floating point.
        weight: [T], or None for ones.
        out: [T, padded]; written in full, in its dtype.
    """
    index = pair_index(rows.shape[1], rows.device)
    left = rows if weight is None else rows * weight[:, None]
    out[:, : index.count] = left[:, index.first] * rows[:, index.second]
    out[:, index.count :] = 0
    return out


def expanded(compact: Tensor, large: int, small: int) -> Tensor:
    """H [D, D] from its distinct entries C [M, N], D = large * small with the small side varying fastest."""
    rows = pair_index(large, compact.device).place
    columns = pair_index(small, compact.device).place
    blocks = compact[rows[:, :, None, None], columns[None, None, :, :]]  # [b, d, a, c]
    return blocks.permute(0, 2, 1, 3).reshape(large * small, large * small)


def compact_diagonal(compact: Tensor, large: int, small: int) -> Tensor:
    """diag(H) [.., D] from C [.., M, N]."""
    rows = pair_index(large, compact.device).place.diagonal()
    columns = pair_index(small, compact.device).place.diagonal()
    return compact[..., rows[:, None], columns[None, :]].flatten(-2)


def symmetrised(matrix: Tensor, large: int, small: int) -> Tensor:
    """S' [M, N] so that l^T S s-forms become one product: sum over features of B_tm S'_mn A_tn = x_t^T S x_t.

    Each unordered pair of pairs collects the entries of S at all of its images; where a pair stands twice among the
    features, the second place stays zero.

    Args:
        matrix: S [D, D] symmetric.
    """
    rows, columns = pair_index(large, matrix.device), pair_index(small, matrix.device)
    out = matrix.new_zeros(rows.padded, columns.padded)
    blocks = matrix.unflatten(0, (large, small)).unflatten(2, (large, small)).permute(0, 2, 1, 3)  # [b, d, a, c]
    upper = torch.ones(small, small, device=matrix.device, dtype=torch.bool).triu()
    for b in range(large):  # one slice at a time: a second copy of S would not fit where S just does
        both = blocks[b, b:] + blocks[b:, b]  # (b, d) and (d, b)
        both[0] /= 2
        both = both + both.transpose(1, 2)
        both.diagonal(dim1=1, dim2=2).div_(2)
        out[rows.place[b, b:, None], columns.place[upper][None]] = both[:, upper]
    return out
