"""NPZ statistics against numpy itself, and every way in which a file can be bad."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.collect import npz
from orchestrator.collect.npz import read_npz, step_of
from orchestrator.triage.evidence import NpzFacts
from trainer_ext.writer import ScoredResponse, write_step

NAME = "influence/step_000002.npz"


def read(path: Path, **arrays: Any) -> NpzFacts:
    np.savez(path, **arrays)
    return read_npz(path, NAME)


def scores_and_mask(rows: int, columns: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((rows, columns)).astype(np.float32)
    mask = rng.random((rows, columns)) < 0.7
    scores[~mask] = np.nan
    return scores, mask


def assert_statistics(facts: NpzFacts, values: NDArray[Any]) -> None:
    exact = values.astype(np.float64)
    assert facts.error is None
    assert facts.valid == exact.size
    assert facts.mean == pytest.approx(exact.mean(), rel=1e-12, abs=1e-15)
    assert facts.std == pytest.approx(exact.std(), rel=1e-12)
    assert (facts.min, facts.max) == (exact.min(), exact.max())


def test_the_trainers_own_file_is_read(tmp_path: Path) -> None:
    nan = float("nan")
    responses = [
        ScoredResponse(np.arange(3), np.array([1.0, 2.0, nan]), np.array([True, True, True]), True, 1.0, "a"),
        ScoredResponse(np.arange(2), np.array([4.0, 9.0]), np.array([True, False]), False, -1.0, "a"),
    ]
    path = write_step(tmp_path, 2, responses, {"scope": "per_prompt"})
    facts = read_npz(path, NAME)
    assert (facts.step, facts.responses, facts.valid, facts.nan_in_valid) == (2, 2, 4, 1)
    assert (facts.min, facts.max) == (1.0, 4.0)


@pytest.mark.parametrize("compressed", [False, True])
def test_statistics_are_numpys_in_float64_over_several_blocks(tmp_path: Path, compressed: bool) -> None:
    scores, mask = scores_and_mask(700, 3001)
    assert scores.size > 2 * npz._BLOCK
    path = tmp_path / "s.npz"
    (np.savez_compressed if compressed else np.savez)(path, scores=scores + np.float32(1000), mask=mask)
    assert_statistics(read_npz(path, NAME), (scores + np.float32(1000))[mask])


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), st.sampled_from(npz.SCORES))
@settings(max_examples=40)
def test_the_mean_and_deviation_are_exact_whatever_the_values(values: list[float], name: str) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: np.array([values], np.float32)}
    np.savez(buffer, **arrays)
    with zipfile.ZipFile(buffer) as archive:
        summary, responses = npz._summarise(archive)
    exact = np.array(values, np.float64)
    assert responses == 1
    assert summary.mean == pytest.approx(exact.mean(), rel=1e-9, abs=1e-9)
    assert (summary.squares / summary.finite) ** 0.5 == pytest.approx(exact.std(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("mask_name", npz.MASKS)
@pytest.mark.parametrize("kind", [np.bool_, np.int64, np.float32])
def test_strangers_masks_are_understood(tmp_path: Path, mask_name: str, kind: Any) -> None:
    scores, mask = scores_and_mask(4, 9)
    facts = read(tmp_path / "s.npz", **{"influence": scores, mask_name: mask.astype(kind)})
    assert_statistics(facts, scores[mask])


def test_without_a_mask_nan_marks_what_is_not_valid(tmp_path: Path) -> None:
    scores, mask = scores_and_mask(4, 9)
    assert_statistics(
        read(tmp_path / "s.npz", token_influence=scores.astype(np.float16)), scores[mask].astype(np.float16)
    )


def test_a_mask_of_another_shape_is_no_mask(tmp_path: Path) -> None:
    scores, mask = scores_and_mask(4, 9)
    facts = read(tmp_path / "s.npz", scores=scores, attention_mask=np.ones((4, 20), np.int64))
    assert_statistics(facts, scores[mask])


def test_lengths_say_what_is_valid_where_there_is_no_mask(tmp_path: Path) -> None:
    scores = np.array([[1.0, np.nan, 5.0], [2.0, 3.0, np.nan]])
    facts = read(tmp_path / "s.npz", scores=scores, lengths=np.array([2, 2]))
    assert (facts.valid, facts.nan_in_valid, facts.max) == (4, 1, 3.0)


def test_flat_scores_with_row_offsets_are_all_valid(tmp_path: Path) -> None:
    facts = read(tmp_path / "s.npz", scores=np.array([1.0, 2.0, np.nan, 4.0]), row_offsets=np.array([0, 1, 4]))
    assert (facts.responses, facts.valid, facts.nan_in_valid) == (2, 4, 1)


def test_column_major_scores_and_masks_are_read_by_rows(tmp_path: Path) -> None:
    scores, mask = scores_and_mask(5, 7)
    facts = read(tmp_path / "s.npz", scores=np.asfortranarray(scores), mask=mask)
    assert_statistics(facts, scores[mask])


def test_infinities_count_as_nan_and_spoil_no_statistics(tmp_path: Path) -> None:
    scores = np.array([[1.0, np.inf, 3.0, -np.inf]])
    facts = read(tmp_path / "s.npz", scores=scores, mask=np.ones_like(scores, dtype=bool))
    assert (facts.valid, facts.nan_in_valid, facts.mean) == (4, 2, 2.0)


@pytest.mark.parametrize("shape", [(0, 0), (3, 0), (0, 3), (0,)])
def test_empty_scores_have_no_statistics(tmp_path: Path, shape: tuple[int, ...]) -> None:
    facts = read(tmp_path / "s.npz", scores=np.zeros(shape, np.float32))
    assert (facts.error, facts.valid, facts.mean, facts.std) == (None, 0, None, None)


def good_bytes() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, scores=np.ones((8, 50), np.float32), response_ids=np.zeros((8, 50), np.int32))
    return buffer.getvalue()


def with_header(shape: str) -> bytes:
    """An archive whose array says that it has another shape."""
    array = io.BytesIO()
    np.save(array, np.ones((8, 50), np.float32))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("scores.npy", array.getvalue().replace(b"(8, 50)", shape.encode().ljust(7)))
    return buffer.getvalue()


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, scores=np.array([{"a": 1}], dtype=object))
    return buffer.getvalue()


def flipped(at: int) -> bytes:
    data = bytearray(good_bytes())
    data[at] ^= 0xFF
    return bytes(data)


def without_scores() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, ids=np.zeros(3), scores=np.zeros(3, np.int32))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "BadZipFile"),
        (b"PK\x03\x04", "BadZipFile"),
        (b"not an archive at all", "BadZipFile"),
        (good_bytes()[:-30], "BadZipFile"),
        (good_bytes()[:200], "BadZipFile"),
        (flipped(600), "Bad CRC-32 for file 'scores.npy'"),
        (flipped(len(good_bytes()) - 900), "Bad CRC-32 for file 'response_ids.npy'"),
        (pickled(), "pickled Python objects"),
        (with_header("(9, 50)"), "shape (9, 50) of float32 takes 1800 bytes, the file has"),
        (with_header("(8, -1)"), "scores"),
        (without_scores(), "no float array named scores, influence, token_influence; the file holds ids, scores"),
    ],
)
def test_a_bad_file_is_a_fact_and_says_why(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "s.npz"
    path.write_bytes(data)
    facts = read_npz(path, NAME)
    assert facts.error is not None
    assert message in facts.error
    assert facts.file == NAME


@given(st.integers(0, len(good_bytes()) - 1), st.integers(1, 255))
@settings(max_examples=150)
def test_no_damage_raises(tmp_path_factory: pytest.TempPathFactory, at: int, change: int) -> None:
    data = bytearray(good_bytes())
    data[at] ^= change
    path = tmp_path_factory.mktemp("npz") / "s.npz"
    path.write_bytes(data)
    facts = read_npz(path, NAME)
    assert facts.error is not None or facts.valid == 400


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("influence/step_000002.npz", 2),
        ("step-7.npz", 7),
        ("rank0/infl_step12_rank3.npz", 12),
        ("scores_5.npz", 5),
        ("00010.npz", 10),
        ("step_000000.npz", 0),
        ("final.npz", None),
        ("run7/final.npz", None),
    ],
)
def test_the_step_is_in_the_name(name: str, step: int | None) -> None:
    assert step_of(name) == step
