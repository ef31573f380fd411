"""How far one point's influence scores order tokens as its reference's do: Spearman's rank correlation.

rho = Pearson's correlation of the ranks, equal values sharing their mean rank (Spearman 1904). Compared are the first score
files of both, over the positions that both hold a score for; the responses must be the same, token by token, or the ranks
would be of different things.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NotComparable(ValueError):
    """Two score files have no rank correlation; the message says why, for the user."""


@dataclass(frozen=True)
class Scores:
    """One score file: values float32 [R, L], valid bool [R, L], tokens int32 [R, L]."""

    values: NDArray[Any]
    valid: NDArray[Any]
    tokens: NDArray[Any]


def fidelity(one: Path, reference: Path) -> float:
    """Spearman's correlation of two score files of ours, in [-1, 1].

    Raises:
        NotComparable: one cannot be read, their responses differ, or fewer than two positions or values are left.
    """
    return correlation(read_scores(one), read_scores(reference))


def read_scores(path: Path) -> Scores:
    """Raises: NotComparable: no such file, or not one of ours."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            values, mask, tokens = (file[name] for name in ("scores", "mask", "response_ids"))
    except Exception as error:  # zipfile, zlib, numpy and the OS each have their own
        raise NotComparable(f"{path.name} cannot be read: {error}") from None
    if values.ndim != 2 or not values.shape == mask.shape == tokens.shape:
        raise NotComparable(f"{path.name}: scores, mask and response_ids differ in shape")
    return Scores(values, mask.astype(bool) & np.isfinite(values), np.where(mask, tokens, 0))


def correlation(one: Scores, reference: Scores) -> float:
    """Raises: NotComparable: see `fidelity`."""
    import numpy as np

    if one.tokens.shape != reference.tokens.shape or not np.array_equal(one.tokens, reference.tokens):
        raise NotComparable("the responses differ from the reference's; fix the seeds, and compare the first step")
    both = one.valid & reference.valid
    a, b = one.values[both].astype(np.float64), reference.values[both].astype(np.float64)
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        raise NotComparable("fewer than two different scores are left to be ranked")
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def ranks(values: NDArray[Any]) -> NDArray[Any]:
    """Ranks from 1, float64 [n]; equal values share the mean of theirs."""
    import numpy as np

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: NDArray[Any] = last - (counts - 1) / 2
    return mean[inverse]
