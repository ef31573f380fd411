"""What the similarity diagnostic says: does the inverse Hessian bring out what responses share, does projection hide it."""

from __future__ import annotations

from reports.contrasts import Grid
from reports.findings.finding import Finding, ratio, share
from reports.markdown import code
from reports.similarity import significant, with_similarity
from reports.snapshot import NpzSnapshot, PointSnapshot, SimilarityRow, SimilaritySnapshot

_NEAR_ZERO = 0.01
"""Share of the self-dot below which dots of different responses are next to nothing."""
_MOST_SHOWN = 2


def preconditioning(grid: Grid) -> list[Finding]:
    """The mean dot of accepted responses as a share of their self-dot, plain and under the inverse Hessian."""
    found = [_preconditioned(*one) for one in with_similarity(grid.snapshot.points)]
    return [finding for finding in found if finding is not None][:_MOST_SHOWN]


def projection_kept(grid: Grid) -> list[Finding]:
    """Whether the dots of the module that was captured twice look the same without projection."""
    found = []
    for point, file, similarity in with_similarity(grid.snapshot.points)[:_MOST_SHOWN]:
        before, after = _row(similarity, "UNPROJECTED", "acc-acc"), _row(similarity, "PROJECTED", "acc-acc")
        if before is None or after is None or before.self_dot is None or after.self_dot is None:
            continue
        means = f"acc-acc mean {significant(after.mean)} projected and {significant(before.mean)} unprojected"
        selves = f"self-dot {significant(after.self_dot)} and {significant(before.self_dot)}"
        correlation = significant(similarity.correlation)
        sentence = (
            f"**What projection does to {code(similarity.module or 'the module')}**: {means}, {selves}"
            + (f"; dots correlate by {correlation}" if correlation else "")
            + "."
        )
        found.append(Finding(sentence, _places(point, file)))
    return found


def _preconditioned(point: PointSnapshot, file: NpzSnapshot, similarity: SimilaritySnapshot) -> Finding | None:
    raw, hinv = _row(similarity, "RAW_DOT", "acc-acc"), _row(similarity, "HINV_DOT", "acc-acc")
    raw_part, hinv_part = _part(raw), _part(hinv)
    if raw is None or hinv is None or raw_part is None or hinv_part is None:
        return None
    plain = f"{significant(raw.mean)}, {_tiny(raw_part)} of {significant(raw.self_dot)}"
    figures = (
        f"the mean HINV_DOT of acc-acc pairs is {significant(hinv.mean)}, {share(hinv_part)} of the self-dot "
        f"{significant(hinv.self_dot)}; their RAW_DOT is {plain}"
    )
    recovers = abs(raw_part) < _NEAR_ZERO <= hinv_part
    head = "The inverse Hessian brings out what accepted responses share" if recovers else "Response gradients"
    cosine = "" if hinv.cosine is None else f"; their mean cosine under it is {significant(hinv.cosine)}"
    sentence = f"**{head}**: {figures}{cosine}{_beside_mixed(similarity, hinv)}."
    return Finding(sentence, _places(point, file))


def _beside_mixed(similarity: SimilaritySnapshot, accepted: SimilarityRow) -> str:
    mixed = _row(similarity, "HINV_DOT", "acc-rej")
    if mixed is None or not mixed.mean or not accepted.mean or mixed.mean < 0 or accepted.mean < 0:
        return ""
    relation = ratio(accepted.mean / mixed.mean)
    more = "more alike than" if accepted.mean > mixed.mean else "no more alike than"
    return (
        f". Accepted responses are {more} accepted and rejected ones: {significant(accepted.mean)} against "
        f"{significant(mixed.mean)} ({relation})"
    )


def _row(similarity: SimilaritySnapshot, matrix: str, pair: str) -> SimilarityRow | None:
    rows = (*similarity.rows, *similarity.unprojected)
    of_matrix = [row for row in rows if row.matrix == matrix and row.pair == pair and row.mean is not None]
    return next((row for row in of_matrix if row.scope == "PER_PROMPT"), of_matrix[0] if of_matrix else None)


def _part(row: SimilarityRow | None) -> float | None:
    return row.mean / row.self_dot if row is not None and row.mean is not None and row.self_dot else None


def _tiny(part: float) -> str:
    return "next to nothing" if abs(part) < _NEAR_ZERO else share(part)


def _places(point: PointSnapshot, file: NpzSnapshot) -> tuple[str, ...]:
    return (f"{point.folder}/{file.file}",) if point.folder else ()
