"""What each precision means: types, tolerances, and what `auto` stands for.

    precision   factors            products over tokens              refined until |W H - d| / |d|
    fp64        float64            float64                           1e-12
    fp32        float32            float64 (judge), float16 on the   1e-6
                                   tensor cores (preconditioner)
    fast        float16 rows with  float16 in, float32 out           3e-4
                powers of two

On a Hopper card float64 products run as fast as float32 ones (58 against 51 TFLOP/s measured on an H200), so that
judging in float64 costs nothing there. A CPU has no fast float16: `fast` rounds there as on a GPU and then computes in
float32.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

from trainer_ext.influence.config import InfluenceConfig

Precision = Literal["fp64", "fp32", "fast"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_TOLERANCE: dict[Precision, float] = {"fp64": 1e-12, "fp32": 1e-6, "fast": 3e-4}
_SCORES: dict[Precision, torch.dtype] = {"fp64": torch.float64, "fp32": torch.float32, "fast": torch.float32}


def resolve(precision: str, device: torch.device | str) -> Precision:
    """The precision meant on a device: `auto` is fast on a GPU and fp32 on a CPU."""
    if precision == "auto":
        return "fast" if torch.device(device).type == "cuda" else "fp32"
    for known in PRECISIONS:
        if precision == known:
            return known
    raise ValueError(f"precision: {precision!r} is not one of auto, {', '.join(PRECISIONS)}")


def tolerance(config: InfluenceConfig, precision: Precision) -> float:
    """Largest relative residual that a solution may keep.

    With source response the system's condition is of the order of D / R and its products cost nothing, so that float64
    goes to the end in every precision. True leave-one-out is iterated to its answer from that of another Hessian: what
    a residual leaves then sits where H is smallest, and `fast` goes ten times further (1.4e-2 of score error was
    measured at 3e-4, with fewer tokens than D).
    """
    if config.residual_tolerance > 0:
        return config.residual_tolerance
    if config.hessian_source == "response":
        return _TOLERANCE["fp64"]
    return _TOLERANCE[precision] / (10 if config.true_loo and precision == "fast" else 1)


def score_dtype(precision: Precision) -> torch.dtype:
    """Type of the scores that a caller gets."""
    return _SCORES[precision]
