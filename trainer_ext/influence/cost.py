"""What a route will cost on this device, from a few rates measured once, and the choice between routes.

Seconds of a system with T rows, sides k_l and k_s (D = k_l k_s), n right-hand sides; M and N are the pairs of the two
sides (`pairs.py`), of which there are about k^2 / 2:

    direct   2 T M N / product  +  3 T (M + N) e / copy  +  D^3 / 3 / factor  +  2 D^2 n / product64
             on the tensor cores, in a pool: ... + D^3 / 3 / (product / 2)  +  D / 128 steps
    dual     2 T^2 (k_l + k_s) / product64  +  T^3 / 3 / factor  +  2 T^2 n / product64  +  4 T D n / product64
    pcg      I (4 T D n / product  +  6 T n k_s f / copy),  I = 0.63 sqrt(D) log(2 / tolerance) / log(2000)

and a latency for each operation; e and f are the bytes of an element of the features and of a product with a direction.
The iterations I are a guess: with lambda = 0.1 tr(H)/D the condition number is 1 + 10 D p where p is the largest
eigenvalue's share of the trace; p = 2% and 1.4 sqrt(condition) iterations to 1e-3 were seen on factors of a small
language model. Rates are rounded to powers of the square root of two, so that noise does not change a choice from run
to run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

from trainer_ext.influence.cholesky import BLOCK
from trainer_ext.influence.direct import Pool
from trainer_ext.influence.pairs import padded_pairs
from trainer_ext.influence.precision import Precision
from trainer_ext.influence.solve import Route


@dataclass(frozen=True)
class Rates:
    """What a device does in a second."""

    product: float
    """FLOP/s of a product over tokens in the precision's type."""
    product64: float
    """FLOP/s of a float64 product."""
    factor: float
    """FLOP/s of a Cholesky factorisation, n^3 / 3 each."""
    copy: float
    """Bytes/s read and written by a copy."""
    element: int
    """e."""
    step: float
    """Seconds of one block of columns of one system in a pool on the tensor cores, or 0 without them."""
    latency: float
    """Seconds of one small operation."""


@dataclass(frozen=True)
class Shape:
    """A system to solve."""

    rows: int
    large: int
    small: int
    right_hand_sides: int
    tolerance: float
    dense: bool = False
    """Rows are stored as they are (response source), not as factors."""

    @property
    def dim(self) -> int:
        """D."""
        return self.large * self.small


@dataclass(frozen=True)
class Choice:
    """A route and the seconds predicted for it and for the others."""

    route: Route
    predicted: dict[Route, float]


OPERATIONS: dict[Route, int] = {"direct": 60, "dual": 30, "pcg": 40}
"""Small operations of a route, for pcg an iteration; counted from profiles."""


def predicted_seconds(shape: Shape, rates: Rates) -> dict[Route, float]:
    """Seconds by route."""
    rows, dim, n = shape.rows, shape.dim, shape.right_hand_sides
    features = dim * dim if shape.dense else padded_pairs(shape.large) * padded_pairs(shape.small)
    gram_width = dim if shape.dense else shape.large + shape.small
    iterations = max(1.0, 0.63 * math.sqrt(dim) * math.log(2 / shape.tolerance) / math.log(2000))
    columns = dim if shape.dense else padded_pairs(shape.large) + padded_pairs(shape.small)
    form = 2 * rows * features / rates.product + 3 * rows * columns * rates.element / rates.copy
    width = min(8, 2 * rates.element)
    step = 4 * rows * dim * n / rates.product + 6 * rows * n * shape.small * width / rates.copy
    work: dict[Route, float] = {
        "direct": form + _factored(shape, rates) + 2 * dim**2 * n / rates.product64,
        "dual": (2 * rows**2 * (gram_width + n) + 4 * rows * dim * n) / rates.product64 + rows**3 / 3 / rates.factor,
        "pcg": iterations * step,
    }
    repeats = {"direct": 1.0, "dual": 1.0, "pcg": iterations}
    return {route: seconds + OPERATIONS[route] * repeats[route] * rates.latency for route, seconds in work.items()}


def _factored(shape: Shape, rates: Rates) -> float:
    """Seconds of a Cholesky factorisation, and on the tensor cores of the solutions that come with it."""
    if shape.dense or not rates.step:
        return shape.dim**3 / 3 / rates.factor
    return 2 * shape.dim**3 / 3 / rates.product + -(-shape.dim // BLOCK) * rates.step


def choose(shape: Shape, rates: Rates) -> Choice:
    """The route predicted to be fastest."""
    predicted = predicted_seconds(shape, rates)
    return Choice(min(predicted, key=lambda route: predicted[route]), predicted)


@lru_cache(maxsize=8)
def measured_rates(device: torch.device, precision: Precision) -> Rates:
    """The rates of a device, measured once in a process: a quarter of a second on two CPU cores, less on a GPU."""
    size = 4096 if device.type == "cuda" else 512
    dtype = {"fp64": torch.float64, "fp32": torch.float64, "fast": torch.float32}[precision]
    if device.type == "cuda" and precision != "fp64":
        dtype = torch.float16
    generator = torch.Generator().manual_seed(0)
    factored_size = 2 * size if device.type == "cuda" else size  # a small one is a chain of launches there
    sample = torch.randn(size, size, generator=generator).to(device) / size
    low, high = sample.to(dtype), sample.double()
    positive = torch.eye(factored_size, device=device, dtype=torch.float64).add_(0.5 / factored_size)
    small = torch.zeros(8, device=device)

    def seconds(work: Callable[[], object]) -> float:
        return _shortest(work, device)

    return Rates(
        product=_rounded(2 * size**3 / seconds(lambda: low @ low)),
        product64=_rounded(2 * size**3 / seconds(lambda: high @ high)),
        factor=_rounded(factored_size**3 / 3 / seconds(lambda: torch.linalg.cholesky_ex(positive))),
        copy=_rounded(2 * sample.nbytes / seconds(sample.clone)),
        element=low.element_size(),
        step=_rounded(_step_seconds(device)) if dtype == torch.float16 else 0.0,
        latency=_rounded(seconds(lambda: [small + 1 for _ in range(100)]) / 100),
    )


def _step_seconds(device: torch.device, sides: tuple[int, int] = (64, 32), systems: int = 3) -> float:
    """Seconds of a block of columns: a pool of a few well-conditioned systems, factored and solved."""
    blocks = sides[0] * sides[1] // BLOCK

    def pooled() -> None:
        pool = Pool.of(sides, device)
        pool.compact[:systems] = 0
        pool.dampings = [torch.ones((), dtype=torch.float64, device=device)] * systems
        pool.directions = [torch.ones(16, sides[0] * sides[1], dtype=torch.float64, device=device)] * systems
        pool.solve()

    return _shortest(pooled, device) / (blocks * systems)


def _shortest(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Shortest time of some runs, the first of which only warms up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _rounded(value: float) -> float:
    """To a power of the square root of two."""
    return 2 ** (round(2 * math.log2(value)) / 2)
