"""What is kept of a file of directions, and each reason to refuse one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.trainer_ext.vhack.models import IDENTITY, RANKS, made_up
from trainer_ext.vhack import WrongFile, load, model_name, save
from trainer_ext.vhack.file import as_written, targets_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "d.safetensors"
    save(path, made_up(), "models/tiny")
    return path


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata())


def rewritten(path: Path, **metadata: str) -> Path:
    """The file with its metadata changed."""
    save_file(load_file(path), path, {**metadata_of(path), **metadata})
    return path


def test_keys_are_bare_names_and_sv_with_metadata_that_says_of_what(path: Path) -> None:
    tensors = load_file(path)
    assert set(tensors) == {*RANKS, *(f"_sv/{name}" for name in RANKS)}
    assert tensors["a.q_proj"].shape == (4, 6)
    assert tensors["_sv/c.down_proj"].shape == (4,)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    expected = {"schema": "vhack/1", "model": "tiny", "dtype": "float32", "basis": IDENTITY.basis, "k": "4"}
    assert expected.items() <= metadata.items()


@pytest.mark.parametrize("frac", [0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_slices_to_k_first_and_then_filters_over_all_modules(path: Path, k: int, frac: float) -> None:
    """A plain NumPy reading of the seed's text."""
    found, tensors = load(path, IDENTITY, k, frac), {name: t.numpy() for name, t in load_file(path).items()}
    sliced_v = {name: tensors[name][:k] for name in RANKS}
    sliced_s = {name: tensors[f"_sv/{name}"][:k].astype(np.float64) for name in RANKS}
    threshold = np.quantile(np.concatenate(list(sliced_s.values())), frac) if frac else -np.inf
    expected = {n: sliced_v[n][sliced_s[n] >= threshold] for n in RANKS if (sliced_s[n] >= threshold).any()}
    assert set(found.v) == set(expected)
    for name, rows in expected.items():
        assert np.array_equal(found.v[name].numpy(), rows)
    assert (found.axes, found.axes_saved) == (sum(map(len, expected.values())), 3 * k)
    assert found.threshold == (pytest.approx(threshold) if frac else None)


def test_the_other_order_would_give_another_threshold_and_other_axes(path: Path) -> None:
    tensors = load_file(path)
    everything = np.quantile(np.concatenate([tensors[f"_sv/{n}"].numpy() for n in RANKS]), 0.5)
    found = load(path, IDENTITY, 1, 0.5)
    assert found.threshold is not None
    assert abs(found.threshold / everything - 1) > 0.2
    assert set(found.v) == {"b.q_proj", "c.down_proj"}


def test_the_line_says_what_was_kept(path: Path) -> None:
    line = load(path, IDENTITY, 2, 0.5).line(path)
    assert "modules=2 (dropped 1); k_saved=4, k=2; axes=3/6 kept (drop_bottom_frac=0.5, threshold=" in line


@pytest.mark.parametrize(("change", "message"), [
    ({"model": "another"}, "directions of model 'tiny', but 'another' is trained"),
    ({"dtype": "bfloat16"}, "extracted from weights in float32, but they are trained in bfloat16. .* --dtype bfloat16"),
    ({"basis": "fedcba"}, "another SVD basis .0123456789ab, the model's is fedcba"),
    ({"ranks": {**RANKS, "d.q_proj": 6}}, "no directions of these modules of the model: d.q_proj"),
    ({"ranks": {"a.q_proj": 6, "b.q_proj": 6}}, "modules that the model does not have: c.down_proj"),
    ({"ranks": {**RANKS, "a.q_proj": 5}}, "a.q_proj: directions of 6 numbers, but its weight has rank 5"),
])  # fmt: skip
def test_refuses_what_was_made_for_something_else(path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(WrongFile, match=message):
        load(path, replace(IDENTITY, **change), 2)


def test_refuses_another_schema_by_name(path: Path) -> None:
    with pytest.raises(WrongFile, match=r"schema 'v2_with_sv', expected 'vhack/1'"):
        load(rewritten(path, schema="v2_with_sv"), IDENTITY, 2)


def test_refuses_a_file_without_metadata(path: Path) -> None:
    save_file(load_file(path), path)
    with pytest.raises(WrongFile, match=r"schema None"):
        load(path, IDENTITY, 2)


def test_refuses_more_directions_than_were_saved(path: Path) -> None:
    with pytest.raises(WrongFile, match=r"k=5, but the file holds 4 directions a module. Extract again with --k 5"):
        load(path, IDENTITY, 5)


@pytest.mark.parametrize(
    ("k", "frac", "message"), [(0, 0.25, "k: must be 1 or more"), (2, 1.0, "drop_bottom_frac: must be")]
)
def test_refuses_settings_out_of_range(path: Path, k: int, frac: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(path, IDENTITY, k, frac)


def test_refuses_what_is_no_file_of_directions(tmp_path: Path) -> None:
    with pytest.raises(WrongFile, match=r"no such file. Write it with `python -m trainer_ext.vhack extract`"):
        load(tmp_path / "absent", IDENTITY, 1)
    (tmp_path / "text").write_text("not tensors")
    with pytest.raises(WrongFile, match="not a readable safetensors file"):
        load(tmp_path / "text", IDENTITY, 1)


@pytest.mark.parametrize(("tensors", "message"), [
    ({"_sv/m": torch.ones(2)}, "holds no directions"),
    ({"m": torch.eye(2)}, "directions or singular values, not both: m"),
    ({"m": torch.eye(2), "_sv/m": torch.ones(3)}, "m: directions of shape .2, 2. with singular values of shape .3,."),
    ({"m": torch.eye(2), "_sv/m": torch.tensor([1.0, 2.0])}, "m: singular values do not descend"),
    ({"m": torch.eye(2) * torch.inf, "_sv/m": torch.ones(2)}, "m: directions or singular values are not finite"),
])  # fmt: skip
def test_refuses_tensors_that_do_not_go_together(
    tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    save_file(tensors, tmp_path / "d", {"schema": "vhack/1"})
    with pytest.raises(WrongFile, match=message):
        as_written(tmp_path / "d")


def test_refuses_directions_that_are_not_orthonormal_by_module(path: Path) -> None:
    save_file({**load_file(path), "b.q_proj": torch.ones(4, 6)}, path, metadata_of(path))
    with pytest.raises(WrongFile, match=r"b.q_proj: directions are not orthonormal") as raised:
        load(path, IDENTITY, 2)
    assert "\n" not in str(raised.value)


def test_reads_the_public_form_and_says_that_its_model_is_unknown(path: Path, tmp_path: Path) -> None:
    own, public = load_file(path), tmp_path / "public"
    save_file({(f"S/{n[4:]}" if n.startswith("_sv/") else f"V/{n}"): t for n, t in own.items()}, public)
    found, same = load(public, replace(IDENTITY, model="any"), 2, 0.5), load(path, IDENTITY, 2, 0.5)
    assert (found.threshold, found.axes, set(found.v)) == (same.threshold, same.axes, set(same.v))
    assert (found.verified, same.verified) == (False, True)
    assert "does not say of which model" in found.line(public)
    assert targets_of(public) == tuple(sorted(RANKS))


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    broken = replace(made_up(), v={"m": torch.ones(2, 2).to_sparse()})
    with pytest.raises(Exception, match=r"."):
        save(tmp_path / "d", broken, "tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["Qwen/Qwen2.5-1.5B", "/models/Qwen2.5-1.5B", "/models/Qwen2.5-1.5B/"])
def test_a_model_has_one_name_wherever_it_lies(path: str) -> None:
    assert model_name(path) == "Qwen2.5-1.5B"
