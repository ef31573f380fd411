"""Findings of the similarity diagnostic."""

from __future__ import annotations

import dataclasses

from reports.contrasts import Grid
from reports.findings.similarity import preconditioning, projection_kept
from reports.snapshot import NpzSnapshot, SimilarityRow, SimilaritySnapshot
from tests.reports.made import made_point, made_sweep


def row(matrix: str, pair: str, mean: float | None, own: float | None) -> SimilarityRow:
    return SimilarityRow(matrix, "PER_PROMPT", pair, mean, 0.001, own, 10)


def grid(*rows: SimilarityRow, **facts: object) -> Grid:
    similarity = SimilaritySnapshot(rows, **facts)
    file = NpzSnapshot("influence/step_000001.npz", 1, similarity=similarity)
    return Grid.of(made_sweep([dataclasses.replace(made_point({"factor": 32}), npz=(file,))]))


def test_what_the_inverse_hessian_brings_out_is_told_as_shares_of_self_dots() -> None:
    (finding,) = preconditioning(
        grid(
            row("RAW_DOT", "acc-acc", -3.1e-7, 0.023),
            dataclasses.replace(row("HINV_DOT", "acc-acc", 145.0, 250.0), cosine=0.0023),
            row("HINV_DOT", "acc-rej", 64.0, None),
        )
    )
    assert finding.sentence == (
        "**The inverse Hessian brings out what accepted responses share**: the mean HINV_DOT of acc-acc pairs is 145, 58% of "
        "the self-dot 250; their RAW_DOT is -3.1e-7, next to nothing of 0.023; their mean cosine under it is 0.0023. Accepted "
        "responses are more alike than accepted and rejected ones: 145 against 64 (2.3×)."
    )
    assert finding.evidence == ("32/1/influence/step_000001.npz",)


def test_where_it_brings_out_nothing_that_is_not_claimed() -> None:
    (finding,) = preconditioning(
        grid(row("RAW_DOT", "acc-acc", 0.012, 0.024), row("HINV_DOT", "acc-acc", 100.0, 250.0))
    )
    assert finding.sentence.startswith("**Response gradients**")
    assert "50% of 0.024" in finding.sentence


def test_accepted_responses_that_are_not_more_alike_are_said_not_to_be() -> None:
    (finding,) = preconditioning(
        grid(
            row("RAW_DOT", "acc-acc", 1e-6, 0.023),
            row("HINV_DOT", "acc-acc", 50.0, 250.0),
            row("HINV_DOT", "acc-rej", 64.0, None),
        )
    )
    assert "no more alike than accepted and rejected ones: 50 against 64 (0.78×)" in finding.sentence


def test_a_matrix_without_numbers_says_nothing() -> None:
    assert preconditioning(grid(row("RAW_DOT", "acc-acc", 1e-6, 0.023))) == []
    assert preconditioning(grid(row("RAW_DOT", "acc-acc", 1e-6, 0.02), row("HINV_DOT", "acc-acc", None, 250.0))) == []


def test_projection_is_judged_by_the_module_that_was_captured_twice() -> None:
    bare = (row("PROJECTED", "acc-acc", -3.0e-7, 0.021), row("UNPROJECTED", "acc-acc", -3.1e-7, 0.022))
    (finding,) = projection_kept(grid(unprojected=bare, module="layers.14.self_attn.k_proj", correlation=0.99))
    assert finding.sentence == (
        "**What projection does to `layers.14.self_attn.k_proj`**: acc-acc mean -3e-7 projected and -3.1e-7 unprojected, "
        "self-dot 0.021 and 0.022; dots correlate by 0.99."
    )
    assert projection_kept(grid(row("RAW_DOT", "acc-acc", 1e-6, 0.023))) == []
