"""What our own NPZ files say of their modules, and that strangers' files may say anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.collect.npz import read_npz
from reports.snapshot import ModuleDims, SimilarityRow
from trainer_ext.writer import ScoredResponse, write_step

ROW = {"matrix": "HINV_DOT", "scope": "PER_PROMPT", "pair": "acc-acc", "mean": 145.0, "cosine": 0.0023}
META: dict[str, Any] = {
    "modules": {
        "layers.0.q_proj": {"k_in": 48, "k_out": 48, "route": "dense", "residual": 1e-6},
        "layers.1.q_proj": {"k_in": 48, "k_out": 48, "route": "dual", "residual": 3e-6},
        "layers.0.k_proj": {"k_in": 48, "k_out": 8, "route": "dense", "residual": None},
    },
    "similarity": {
        "rows": [{**ROW, "self_dot": 250.0, "pairs": 12}],
        "residual": 2e-6,
        "projection": [],
        "unprojected": {
            "module": "layers.0.k_proj",
            "rows": [{**ROW, "matrix": "UNPROJECTED", "self_dot": None, "pairs": 3}],
            "correlation": 0.99,
            "relative_error_of_self_dots": None,
        },
    },
}


def written(folder: Path, meta: dict[str, Any]) -> Path:
    one = ScoredResponse(np.array([1, 2]), np.array([0.5, -0.5]), np.array([True, True]), True, 1.0, "p")
    return write_step(folder, 1, [one], meta)


def test_modules_are_counted_by_type_and_size(tmp_path: Path) -> None:
    facts = read_npz(written(tmp_path, META), "step_000001.npz")
    assert facts.dims == (
        ModuleDims("k_proj", 48, 8, 1, ("dense",), None),
        ModuleDims("q_proj", 48, 48, 2, ("dense", "dual"), 3e-6),
    )
    assert [dims.dim for dims in facts.dims] == [384, 2304]
    assert facts.bytes == (tmp_path / "step_000001.npz").stat().st_size


def test_the_similarity_diagnostic_is_read_back(tmp_path: Path) -> None:
    found = read_npz(written(tmp_path, META), "step_000001.npz").similarity
    assert found is not None
    assert found.rows == (SimilarityRow("HINV_DOT", "PER_PROMPT", "acc-acc", 145.0, 0.0023, 250.0, 12),)
    assert (found.residual, found.module, found.correlation) == (2e-6, "layers.0.k_proj", 0.99)
    assert found.unprojected == (SimilarityRow("UNPROJECTED", "PER_PROMPT", "acc-acc", 145.0, 0.0023, None, 3),)


@pytest.mark.parametrize(
    "meta",
    [
        np.array("no JSON"),
        np.array('{"modules": 3}'),
        np.array('{"modules": {"q": {"k_in": "wide"}}, "similarity": []}'),
        np.array('{"similarity": {"rows": [1]}}'),
        np.array([1.0]),
        np.array({"pickled": True}, dtype=object),
    ],
)
def test_a_meta_that_is_none_of_ours_says_nothing_and_spoils_nothing(tmp_path: Path, meta: Any) -> None:
    path = tmp_path / "step_000001.npz"
    np.savez(path, scores=np.array([[1.0]], np.float32), meta=meta)
    facts = read_npz(path, path.name)
    assert (facts.error, facts.valid, facts.dims, facts.similarity) == (None, 1, (), None)
