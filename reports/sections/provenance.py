"""What the figures were made with: versions and hardware."""

from __future__ import annotations

from typing import Any

from reports.markdown import code, text
from reports.snapshot import SweepSnapshot


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    rows = [(text(key), code(value)) for key, value in snapshot.environment.items() if value]
    return {"rows": rows} if rows else None
