"""Bytes that scoring a module needs beyond its factors, counted from shapes before anything is allocated.

An upper estimate of what is held at once: staged copies, response gradients and directions, and the largest of what the
routes hold, as they are written down in `gram.py`, `cholesky.py`, `factorisation.py`, `curvature.py` and `quadratic.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.curvature import CHUNK_BYTES
from trainer_ext.influence.direct import capacity
from trainer_ext.influence.gram import FEATURE_BYTES, FEATURE_TOKENS
from trainer_ext.influence.layout import Group, Layout
from trainer_ext.influence.pairs import padded_pairs
from trainer_ext.influence.precision import Precision
from trainer_ext.influence.quadratic import FEATURE_BYTES as LENGTH_BYTES

SMALL_BYTES = 2**13
"""What does not grow with anything: scalars and indices."""


def workspace_bytes(
    sides: tuple[int, int],
    layout: Layout,
    routes: Sequence[str],
    config: InfluenceConfig,
    precision: Precision,
) -> int:
    """Most bytes held at once by a module of these sides.

    Args:
        routes: of each group of the layout; none with identity.
    """
    k_in, k_out = sides
    dim, tokens, responses = k_in * k_out, layout.rows, len(layout.spans)
    cuda = layout.device.type == "cuda"
    element = {"fp64": 8, "fp32": 4, "fast": 2}[precision]
    if precision == "fast" and not cuda:
        element = 8  # float16 rows, and float32 ones made of them
    if config.token_unit_norm and config.hessian_mode == "identity":
        element *= 2
    staged = tokens * ((k_in + k_out) * element + 8 * 8) + SMALL_BYTES  # and owners, powers, norms, scores
    gradients = 8 * dim * (responses + 3 * sum(len(group.omega) for group in layout.groups))
    work = 8 if precision != "fast" else 0 if cuda else 4
    pooled = cuda and precision != "fp64"
    solving = max(
        (
            _route_bytes(
                route, group, (max(sides), min(sides)), config, work, pooled=len(layout.groups) if pooled else 0
            )
            for route, group in zip(routes, layout.groups, strict=False)
        ),
        default=0,
    )
    converted = 3 * 8 * _longest_run(layout) * (k_in + k_out) if work else 0
    return staged + gradients + max(solving, converted)


def _longest_run(layout: Layout) -> int:
    """Most rows taken to another type at once (`segments.py`): of a response, or of all that share a direction."""
    if any(len(group.omega) == 1 for group in layout.groups):
        return layout.rows
    return max((end - start for start, end in layout.spans), default=0)


def _route_bytes(
    route: str, group: Group, sides: tuple[int, int], config: InfluenceConfig, work: int, *, pooled: int
) -> int:
    """Bytes of a route for one group.

    Vectors of length D are what conjugate gradients hold at once: right-hand side, solution before and after, residual,
    direction, its product, and two in between.

    Args:
        work: of a number in products with the rows; 0: on the tensor cores.
        pooled: groups of a module whose `direct` route runs in pools on the tensor cores: one is solved beside the sums
            of the next; 0: there are none.
    """
    dim, n = sides[0] * sides[1], len(group.omega)
    by_token = config.hessian_source == "token"
    count = group.size if by_token else group.responses.stop - group.responses.start
    own = 8 * n * (8 * dim + 5 * count)
    if by_token:
        own += _product_bytes(group.size, sides, n, work)
    if config.token_unit_norm:
        own += _length_bytes(route, group, sides, by_token)
    if route == "dual":
        return 8 * 4 * count * count + own
    if route == "pcg":
        return own + (3 * min(CHUNK_BYTES, 8 * group.size * sum(sides)) if by_token else 0)
    if not by_token:
        return 8 * 4 * dim * dim + own
    m, k = map(padded_pairs, sides)
    if pooled:
        systems = capacity(sides, pooled)
        return systems * (2 * m * k * 4 + dim * dim * 2) + _feature_bytes(group.size, m, k, 2) + own
    rows = 8 * group.size * sum(sides)
    return 8 * 4 * dim * dim + 8 * 2 * m * k + rows + _feature_bytes(group.size, m, k, 8) + own


def _product_bytes(tokens: int, sides: tuple[int, int], n: int, work: int) -> int:
    """Of `TokenRows.apply`: a number for each token, right-hand side and entry of the small side, twice in the type of the
    work, besides the rows themselves; or on the tensor cores in float32, scaled, and as two float16 halves in the making."""
    numbers = n * sides[1]
    chunk = min(tokens, max(1, CHUNK_BYTES // (4 * numbers)))
    return chunk * numbers * (2 * work or 20) + (8 * tokens * sum(sides) if work else 0)


def _length_bytes(route: str, group: Group, sides: tuple[int, int], by_token: bool) -> int:
    """Of the lengths of all tokens in the metric of H^-1 (`quadratic.py`)."""
    dim, tokens, responses = sides[0] * sides[1], group.size, group.responses.stop - group.responses.start
    if route == "dual":
        if by_token:
            return 8 * 4 * tokens * tokens
        return 8 * responses * (2 * dim + 4 * tokens) + _product_bytes(tokens, sides, responses, 8)
    m, k = map(padded_pairs, sides)
    chunk = min(tokens, max(1, LENGTH_BYTES // (8 * m)))
    return 8 * (dim * dim + m * k) + 8 * chunk * (sum(sides) + 4 * m + 3 * k)


def _feature_bytes(tokens: int, m: int, k: int, element: int) -> int:
    """Of `gram_into`: a chunk of features of both sides; with them, in plain torch, the two gathered factors of the
    larger ones and their product, or on the tensor cores what rounding left of both."""
    chunk = min(tokens, FEATURE_TOKENS, max(1, int(FEATURE_BYTES) // (m * element)))
    return chunk * element * (m + k + (m + k if element == 2 else 3 * m))
