"""Similarity of response gradients where the diagnostic ran: projection sizes, plain dots, dots under the inverse Hessian."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reports.markdown import Column, code
from reports.numbers import count
from reports.snapshot import ModuleDims, NpzSnapshot, PointSnapshot, SimilarityRow, SimilaritySnapshot, SweepSnapshot

_MOST_SHOWN = 3
_MIB = 1024**2
_BYTES_OF_FLOAT64 = 8
TITLES = {
    "RAW_DOT": "**RAW_DOT**: dots of response gradients",
    "HINV_DOT": "**HINV_DOT**: dots under the inverse Hessian",
    "PROJECTED": "**PROJECTED**: dots of that module alone, after projection",
    "UNPROJECTED": "**UNPROJECTED**: dots of the same module, without projection",
}


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """The first file with the diagnostic of each of the first points that have one."""
    found = with_similarity(snapshot.points)
    if not found:
        return None
    return {
        "shown": [_shown(point, file, similarity) for point, file, similarity in found[:_MOST_SHOWN]],
        "hidden": len(found) - len(found[:_MOST_SHOWN]),
    }


def with_similarity(points: Iterable[PointSnapshot]) -> list[tuple[PointSnapshot, NpzSnapshot, SimilaritySnapshot]]:
    """Points with the diagnostic, each with its first file that holds it."""
    found = ((point, next((file for file in point.npz if file.similarity), None)) for point in points)
    return [(point, file, file.similarity) for point, file in found if file is not None and file.similarity is not None]


def significant(value: float | None) -> str:
    """Three significant digits: 145, 0.0023, -3.1e-7."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return count(round(value))
    mantissa, _, power = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(power)}" if power else mantissa


def _shown(point: PointSnapshot, file: NpzSnapshot, similarity: SimilaritySnapshot) -> dict[str, Any]:
    rows = (*similarity.rows, *similarity.unprojected)
    tables = [(title, [row for row in rows if row.matrix == matrix]) for matrix, title in TITLES.items()]
    return {
        "point": point,
        "file": file,
        "similarity": similarity,
        "residual": significant(similarity.residual),
        "correlation": significant(similarity.correlation),
        "self_dot_error": significant(similarity.relative_error_of_self_dots),
        "sizes": projection_columns(point.dims),
        "tables": [(title, pair_columns(alike)) for title, alike in tables if alike],
    }


def projection_columns(dims: Sequence[ModuleDims]) -> list[Column]:
    """One row for each size, with the module types that have it."""
    sizes: dict[tuple[int, int], list[ModuleDims]] = {}
    for one in dims:
        sizes.setdefault((one.k_in, one.k_out), []).append(one)
    rows = list(sizes.values())
    squares = [_BYTES_OF_FLOAT64 * alike[0].dim ** 2 / _MIB for alike in rows]
    return [
        Column("Module type", [" / ".join(code(one.module_type) for one in alike) for alike in rows]),
        Column("Modules", [count(sum(one.modules for one in alike)) for alike in rows], numeric=True),
        Column("k_in", [count(alike[0].k_in) for alike in rows], numeric=True),
        Column("k_out", [count(alike[0].k_out) for alike in rows], numeric=True),
        Column("D", [count(alike[0].dim) for alike in rows], numeric=True),
        Column("Hessian (MiB, float64)", [significant(size) for size in squares], numeric=True),
        Column("Route", [", ".join(sorted({r for one in alike for r in one.routes})) for alike in rows]),
        Column("Residual", [significant(_largest(alike)) for alike in rows], numeric=True),
    ]


def pair_columns(rows: Sequence[SimilarityRow]) -> list[Column]:
    """One row for each class of pairs: within prompts, and over all."""
    pairs = list(dict.fromkeys(row.pair for row in rows))
    held = {(row.scope, row.pair): row for row in rows}
    columns = [Column("Pairs", pairs)]
    for scope in dict.fromkeys(row.scope for row in rows):
        known = [held.get((scope, pair)) for pair in pairs]
        columns += [
            Column(f"{scope} mean", [significant(row.mean) if row else "" for row in known], numeric=True),
            Column(f"{scope} cos", [significant(row.cosine) if row else "" for row in known], numeric=True),
            Column(f"{scope} pairs", [count(row.pairs) if row and row.pairs else "" for row in known], numeric=True),
        ]
    of_pair = [next((row.self_dot for row in rows if row.pair == pair), None) for pair in pairs]
    return [*columns, Column("Self-dot", [significant(value) for value in of_pair], numeric=True)]


def _largest(alike: Sequence[ModuleDims]) -> float | None:
    return max((one.residual for one in alike if one.residual is not None), default=None)
