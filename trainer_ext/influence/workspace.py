"""Bytes that scoring a module needs beyond its factors, counted from shapes before anything is allocated.

An upper estimate of what is held at once: staged copies, response gradients and directions, and the largest of what the
routes hold, as they are written down in `gram.py`, `cholesky.py`, `factorisation.py` and `curvature.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.curvature import CHUNK_BYTES
from trainer_ext.influence.direct import capacity
from trainer_ext.influence.gram import FEATURE_BYTES
from trainer_ext.influence.layout import Group, Layout
from trainer_ext.influence.pairs import padded_pairs
from trainer_ext.influence.precision import Precision


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
    element = {"fp64": 8, "fp32": 4, "fast": 2}[precision]
    cuda = layout.device.type == "cuda"
    if not cuda and precision == "fast":
        element = 4
    staged = tokens * ((k_in + k_out) * element + 8 + 8)
    gradients = 8 * dim * (responses + 3 * sum(len(group.omega) for group in layout.groups))
    solving = max(
        (
            _route_bytes(route, group, k_in, k_out, config, cuda and precision != "fp64")
            for route, group in zip(routes, layout.groups, strict=False)
        ),
        default=0,
    )
    chunk = min(CHUNK_BYTES, 8 * tokens * (k_in + k_out))
    return staged + gradients + solving + 3 * chunk


def _route_bytes(route: str, group: Group, k_in: int, k_out: int, config: InfluenceConfig, tensor_cores: bool) -> int:
    dim = k_in * k_out
    count = group.size if config.hessian_source == "token" else group.responses.stop - group.responses.start
    vectors = 8 * 5 * len(group.omega) * (dim + count)
    if route == "dual":
        return 8 * 4 * count * count + vectors
    if route != "direct":
        return vectors
    if config.hessian_source == "response":
        return 8 * 4 * dim * dim + vectors
    m, n = padded_pairs(max(k_in, k_out)), padded_pairs(min(k_in, k_out))
    if tensor_cores:
        matrices = capacity((max(k_in, k_out), min(k_in, k_out))) * (m * n * 4 + dim * dim * 2)
        return matrices + int(min(FEATURE_BYTES, 2 * group.size * (m + n))) + vectors
    features = 2 * min(int(FEATURE_BYTES), 8 * group.size * (m + n))
    return 8 * 4 * dim * dim + 8 * 2 * m * n + features + vectors
