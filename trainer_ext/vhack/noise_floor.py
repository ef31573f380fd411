"""The global noise floor: one threshold over the singular values of all axes of all modules.

Global on purpose. A threshold a module would protect the weakest modules, since each has a strongest axis; that the weakest
axis of one module is weaker than the strongest of another is the reason to drop it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor


def quantile(values: Tensor, fraction: float) -> float:
    """Linearly interpolated quantile, as `numpy.quantile` has it.

    `torch.quantile` refuses more than 2^24 values; this takes any number, by selection and not by sorting. Where the place is a
    whole number the answer is the value there: NumPy, for which 0.55 * 100 is 55.00000000000001, may give one just above it.

    Args:
        values: floating point [n], n > 0.
        fraction: in [0, 1], taken as the decimal number that it is written as.

    Raises:
        ValueError: no values, NaN among them, or a fraction outside [0, 1].
    """
    if values.numel() == 0:
        raise ValueError("quantile: no values")
    if not 0 <= fraction <= 1:
        raise ValueError(f"quantile: the fraction must be in [0, 1], got {fraction}")
    flat = values.flatten()
    if bool(flat.isnan().any()):
        raise ValueError("quantile: NaN among the values")
    place = Fraction(repr(float(fraction))) * (flat.numel() - 1)
    below = math.floor(place)
    lower = float(torch.kthvalue(flat, below + 1).values)
    if place == below:
        return lower
    upper = float(torch.kthvalue(flat, below + 2).values)
    return lower + float(place - below) * (upper - lower)


def check_fraction(drop_bottom_frac: float) -> None:
    """
    Raises:
        ValueError: not in [0, 1): at 1 every axis but the strongest would go.
    """
    if not 0 <= drop_bottom_frac < 1:  # NaN fails too
        raise ValueError(
            f"drop_bottom_frac: must be at least 0 (drops nothing) and below 1 (would drop everything), got {drop_bottom_frac}"
        )


def noise_floor(singular: Mapping[str, Tensor], drop_bottom_frac: float) -> tuple[float | None, dict[str, Tensor]]:
    """Which axes stay.

    Args:
        singular: by module, singular values of its axes, floating point [k].
        drop_bottom_frac: share of all (module, axis) pairs that lies below the threshold.

    Returns:
        The threshold, None where nothing is filtered, and by module bool [k], true where S is at least the threshold.

    Raises:
        ValueError: a fraction outside [0, 1).
    """
    check_fraction(drop_bottom_frac)
    if drop_bottom_frac == 0 or not singular:
        return None, {name: torch.ones_like(s, dtype=torch.bool) for name, s in singular.items()}
    values = torch.cat([s.flatten().to(torch.promote_types(s.dtype, torch.float32)) for s in singular.values()])
    threshold = quantile(values, drop_bottom_frac)
    return threshold, {name: s.double() >= threshold for name, s in singular.items()}
