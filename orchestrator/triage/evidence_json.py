"""Evidence as JSON text and back, NaN and infinities included, for the store."""

from __future__ import annotations

import dataclasses
import functools
import json

from pydantic import TypeAdapter

from orchestrator.triage.evidence import Evidence


@functools.cache
def _adapter() -> TypeAdapter[Evidence]:
    return TypeAdapter(Evidence)


def dumps(evidence: Evidence) -> str:
    return json.dumps(dataclasses.asdict(evidence))


def loads(text: str) -> Evidence:
    """The inverse of `dumps`; unknown keys of a newer version are ignored."""
    return _adapter().validate_python(json.loads(text))
