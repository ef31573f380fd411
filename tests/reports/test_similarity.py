"""The similarity section: sizes of projections, and pairs of response gradients."""

from __future__ import annotations

import dataclasses

import pytest

from reports.report import render
from reports.similarity import significant
from reports.snapshot import ModuleDims, NpzSnapshot, PointSnapshot, SimilarityRow, SimilaritySnapshot
from tests.reports.made import made_point, made_sweep

ROWS = (
    SimilarityRow("RAW_DOT", "PER_PROMPT", "acc-acc", -3.1e-7, -0.0008, 0.023, 1260),
    SimilarityRow("RAW_DOT", "PER_PROMPT", "acc-rej", 1.8e-6, 0.002, None, 900),
    SimilarityRow("RAW_DOT", "ALL_PROMPT", "acc-acc", 2e-8, 1e-5, 0.023, 4560),
    SimilarityRow("HINV_DOT", "PER_PROMPT", "acc-acc", 145.0, 0.0023, 250.0, 1260),
)
DIMS = (
    ModuleDims("q_proj", 48, 48, 28, ("direct",), 2e-7),
    ModuleDims("gate_proj", 48, 280, 28, ("pcg",), 3e-6),
    ModuleDims("o_proj", 48, 48, 28, ("dual",), 5e-7),
)


def diagnosed(name: str, similarity: SimilaritySnapshot) -> PointSnapshot:
    file = NpzSnapshot("influence/step_000002.npz", 2, None, 96, 10, similarity=similarity)
    return dataclasses.replace(made_point({"factor": 32}, name=name), npz=(file,), dims=DIMS)


def test_modules_of_one_size_share_a_row() -> None:
    drawn = render(made_sweep([diagnosed("job", SimilaritySnapshot(ROWS))]), only={"similarity"})
    assert "| `q_proj` / `o_proj` | 56 | 48 | 48 | 2,304 | 40.5 | direct, dual | 5e-7 |" in drawn
    assert "| `gate_proj` | 28 | 48 | 280 | 13,440 | 1,378 | pcg | 3e-6 |" in drawn


def test_each_matrix_has_a_table_with_a_row_for_each_class_of_pairs() -> None:
    drawn = render(made_sweep([diagnosed("job", SimilaritySnapshot(ROWS, residual=4e-6))]), only={"similarity"})
    raw, hinv = drawn.split("**RAW_DOT**")[1].split("**HINV_DOT**")
    assert "| acc-acc | -3.1e-7 | -0.0008 | 1,260 | 2e-8 | 1e-5 | 4,560 | 0.023 |" in raw
    assert "| acc-rej | 1.8e-6 | 0.002 | 900 |  |  |  |  |" in raw
    assert "| acc-acc | 145 | 0.0023 | 1,260 | 250 |" in hinv
    assert "`job`, step 2, from `influence/step_000002.npz`; largest relative residual of the solve 4e-6." in drawn
    assert "PROJECTED" not in drawn


def test_the_module_without_projection_is_named_with_how_well_its_dots_agree() -> None:
    bare = (
        SimilarityRow("PROJECTED", "PER_PROMPT", "acc-acc", 1.0, 0.1, 2.0, 3),
        SimilarityRow("UNPROJECTED", "PER_PROMPT", "acc-acc", 1.1, 0.1, 2.1, 3),
    )
    found = SimilaritySnapshot(ROWS, None, "layers.14.self_attn.k_proj", bare, 0.987, 0.05)
    drawn = render(made_sweep([diagnosed("job", found)]), only={"similarity"})
    assert "**PROJECTED**" in drawn
    assert "**UNPROJECTED**" in drawn
    assert "`layers.14.self_attn.k_proj`; its dots before and after projection correlate by 0.987" in drawn
    assert "self-dots differ by 0.05 of themselves" in drawn


def test_of_many_points_the_first_are_shown_and_the_rest_counted() -> None:
    points = [diagnosed(f"job-{number}", SimilaritySnapshot(ROWS)) for number in range(5)]
    drawn = render(made_sweep(points), only={"similarity"})
    assert [f"`job-{number}`, step" in drawn for number in range(5)] == [True, True, True, False, False]
    assert "2 more points ran the diagnostic" in drawn


def test_without_the_diagnostic_there_is_no_section() -> None:
    assert render(made_sweep([made_point({"factor": 32}, std=0.1)]), only={"similarity"}).strip() == ""


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, ""), (0.0, "0"), (-3.14e-7, "-3.14e-7"), (0.0023, "0.0023"), (145.2, "145"), (-12345.6, "-12,346")],
)
def test_figures_have_three_significant_digits(value: float | None, words: str) -> None:
    assert significant(value) == words
