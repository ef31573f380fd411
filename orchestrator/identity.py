"""Which points are the same experiment: a hash over the resolved configuration, and the job names made of it.

Stored hashes decide what is run again, so the canonical form below must never change: a test pins one hash.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

POINT_ID_LENGTH = 10
JOB_NAME_LENGTH = 50
_SWEEP_DIGEST_LENGTH = 4


def point_hash(config: Mapping[str, Any], exclude: Sequence[str] = ()) -> str:
    """sha256 in hexadecimal of the configuration without the dotted keys of `exclude`."""
    kept: Mapping[str, Any] = config
    for key in exclude:
        kept = _without(kept, key.split("."))
    return hashlib.sha256(canonical_json(kept).encode()).hexdigest()


def point_id(full_hash: str) -> str:
    return full_hash[:POINT_ID_LENGTH]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no white space, ASCII alone, floats in their shortest exact form.

    `1`, `1.0`, `true` and `"1"` stay different. NaN and infinities, which JSON lacks, are `{"float": "nan"}`.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def job_name(sweep: str, full_hash: str, attempt: int) -> str:
    """The backend's name of one attempt: an RFC 1123 label that is the same in every process.

    A sweep's name that does not fit is cut and keeps a digest of the whole, so that two long names stay apart.
    """
    suffix = f"-{point_id(full_hash)}-{attempt}"
    room = JOB_NAME_LENGTH - len(suffix)
    if len(sweep) > room:
        digest = hashlib.sha256(sweep.encode()).hexdigest()[:_SWEEP_DIGEST_LENGTH]
        sweep = f"{sweep[: room - len(digest) - 1].rstrip('-')}-{digest}"
    return sweep + suffix


def _without(config: Mapping[str, Any], keys: Sequence[str]) -> Mapping[str, Any]:
    """A copy without one nested key; what is beside the path is shared, not copied."""
    first, *rest = keys
    if first not in config:
        return config
    if not rest:
        return {key: value for key, value in config.items() if key != first}
    inner = config[first]
    return {**config, first: _without(inner, rest)} if isinstance(inner, Mapping) else config


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value
