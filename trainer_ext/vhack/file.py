"""The file of directions: safetensors, written whole, and read only for the model that it was made from.

    {module}       V float32 [k_max, r]: directions in the SVD basis of the module's weight, strongest first
    _sv/{module}   S float32 [k_max]: their singular values
    metadata       schema, model, dtype, basis, k, targets, pairs, tau_axis

Files with `V/{module}` and `S/{module}`, as they circulate, are read too. They say nothing about their model, so only their
modules and ranks are checked.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainer_ext.vhack.basis import orthonormal
from trainer_ext.vhack.extract import Extracted
from trainer_ext.vhack.noise_floor import check_fraction, noise_floor

SCHEMA = "vhack/1"
SINGULAR = "_sv/"
PUBLIC_V, PUBLIC_S = "V/", "S/"


class WrongFile(ValueError):
    """A file of directions, or of what was set aside along them, that does not fit: what differs, and what to do."""


@dataclass(frozen=True)
class ModelIdentity:
    """What directions belong to: `model_name` of it, dtype of its weights, hash of the basis, rank of each module."""

    model: str
    dtype: str
    basis: str
    ranks: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Loaded:
    """Directions in use. `v`: by module, float32 [axes, r]; modules without an axis left are absent."""

    v: dict[str, Tensor]
    modules_saved: int
    axes_saved: int
    """Axes of all modules after the slice to k, before the noise floor."""
    threshold: float | None
    k_saved: int
    k: int
    drop_bottom_frac: float
    verified: bool
    """Whether the file said of which model it is."""

    @property
    def axes(self) -> int:
        return sum(len(v) for v in self.v.values())

    def line(self, path: Path) -> str:
        """What was kept, for a log."""
        floor = "none" if self.threshold is None else f"{self.threshold:.6g}"
        return (
            f"[vhack] {path}: modules={len(self.v)} (dropped {self.modules_saved - len(self.v)}); "
            f"k_saved={self.k_saved}, k={self.k}; axes={self.axes}/{self.axes_saved} kept "
            f"(drop_bottom_frac={self.drop_bottom_frac}, threshold={floor})"
            + ("" if self.verified else "; the file does not say of which model it is")
        )


def model_name(path: str | Path) -> str:
    """A model's name wherever it lies: the last part of its folder, or of its name on a hub."""
    return Path(path).name


def save(path: Path, found: Extracted, model: str) -> None:
    """Write directions, whole or not at all.

    Args:
        model: folder or name of the model.
    """
    tensors = {name: v.contiguous() for name, v in found.v.items()}
    tensors.update({SINGULAR + name: s.contiguous() for name, s in found.s.items()})
    metadata = {
        "schema": SCHEMA,
        "model": model_name(model),
        "dtype": found.dtype,
        "basis": found.basis,
        "k": str(found.k),
        "targets": ",".join(found.targets),
        "pairs": str(found.pairs),
        "tau_axis": str(found.tau_axis),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, name, metadata)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@dataclass(frozen=True, eq=False)
class _Contents:
    v: dict[str, Tensor] = field(default_factory=dict)
    s: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    public: bool = False


def targets_of(path: Path) -> tuple[str, ...]:
    """By which parts of their names the file's modules were chosen; where it does not say, their whole names.

    Raises:
        WrongFile: not a file of directions.
    """
    contents = _read(path)
    targets = contents.metadata.get("targets")
    return tuple(targets.split(",")) if targets else tuple(sorted(contents.v))


def as_written(path: Path) -> ModelIdentity:
    """The model that a file says it is of, and its modules.

    Raises:
        WrongFile: not a file of directions.
    """
    contents = _read(path)
    model, dtype, basis = (contents.metadata.get(key, "") for key in ("model", "dtype", "basis"))
    return ModelIdentity(model, dtype, basis, {name: rows.shape[1] for name, rows in contents.v.items()})


def load(path: Path, model: ModelIdentity, k_use: int, drop_bottom_frac: float = 0.25) -> Loaded:
    """Read directions: first the `k_use` strongest of each module, then one noise floor over all that are left.

    Args:
        model: what the directions are to be used on. `ranks` holds the modules that could take part.
        k_use: directions a module.
        drop_bottom_frac: see `noise_floor`; 0 drops nothing.

    Raises:
        WrongFile: a file of another model, dtype, SVD basis or schema; with fewer than `k_use` directions; with modules that
            the model lacks, or without some that it has; with directions that are not orthonormal, or not in order.
        ValueError: k_use below 1, or drop_bottom_frac outside [0, 1).
    """
    check_fraction(drop_bottom_frac)
    if k_use < 1:
        raise ValueError(f"k: must be 1 or more, got {k_use}")
    contents = _read(path)
    if not contents.public:
        _check_metadata(path, contents.metadata, model)
    _check_modules(path, contents, model)
    saved = min(len(v) for v in contents.v.values())
    if k_use > saved:
        raise WrongFile(
            f"{path}: k={k_use}, but the file holds {saved} directions a module. Extract again with --k {k_use}"
        )
    v = {name: rows[:k_use].contiguous() for name, rows in contents.v.items()}
    _check_directions(path, v)
    threshold, keep = noise_floor({name: contents.s[name][:k_use] for name in v}, drop_bottom_frac)
    kept = {name: rows[keep[name]].contiguous() for name, rows in v.items() if bool(keep[name].any())}
    axes = sum(len(rows) for rows in v.values())
    return Loaded(kept, len(v), axes, threshold, saved, k_use, drop_bottom_frac, not contents.public)


def _read(path: Path) -> _Contents:
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except FileNotFoundError:
        raise WrongFile(f"{path}: no such file. Write it with `python -m trainer_ext.vhack extract`") from None
    except (SafetensorError, OSError) as error:
        raise WrongFile(f"{path}: not a readable safetensors file: {error}") from None
    public = any(name.startswith(PUBLIC_V) for name in tensors)
    if public:
        v = {name.removeprefix(PUBLIC_V): t for name, t in tensors.items() if name.startswith(PUBLIC_V)}
        s = {name.removeprefix(PUBLIC_S): t for name, t in tensors.items() if name.startswith(PUBLIC_S)}
    else:
        v = {name: t for name, t in tensors.items() if not name.startswith(SINGULAR)}
        s = {name.removeprefix(SINGULAR): t for name, t in tensors.items() if name.startswith(SINGULAR)}
    _check_shapes(path, v, s)
    return _Contents(
        {name: t.float() for name, t in v.items()}, {name: t.float() for name, t in s.items()}, metadata, public
    )


def _check_shapes(path: Path, v: Mapping[str, Tensor], s: Mapping[str, Tensor]) -> None:
    if not v:
        raise WrongFile(f"{path}: holds no directions")
    if lonely := sorted(v.keys() ^ s.keys()):
        raise WrongFile(f"{path}: these modules have directions or singular values, not both: {_named(lonely)}")
    for name, rows in v.items():
        if rows.dim() != 2 or s[name].shape != rows.shape[:1]:
            raise WrongFile(
                f"{path}: {name}: directions of shape {tuple(rows.shape)} with singular values of shape "
                f"{tuple(s[name].shape)}, expected [k, r] and [k]"
            )
        if bool((s[name].diff() > 0).any()):
            raise WrongFile(f"{path}: {name}: singular values do not descend, so that no first k are the strongest")
        if not bool(torch.isfinite(rows).all()) or not bool(torch.isfinite(s[name]).all()):
            raise WrongFile(f"{path}: {name}: directions or singular values are not finite")


def _check_metadata(path: Path, metadata: Mapping[str, str], model: ModelIdentity) -> None:
    again = "Extract directions again from the model that is trained"
    if (schema := metadata.get("schema")) != SCHEMA:
        raise WrongFile(f"{path}: schema {schema!r}, expected {SCHEMA!r}. Extract the directions again")
    found = metadata.get("model", "")
    if found != model.model:
        raise WrongFile(f"{path}: directions of model {found!r}, but {model.model!r} is trained. {again}")
    dtype = metadata.get("dtype", "")
    if dtype != model.dtype:
        raise WrongFile(
            f"{path}: extracted from weights in {dtype}, but they are trained in {model.dtype}. "
            f"Extract again with --dtype {model.dtype}"
        )
    basis = metadata.get("basis", "")
    if basis != model.basis:
        raise WrongFile(
            f"{path}: another SVD basis ({basis[:12]}, the model's is {model.basis[:12]}): the weights differ from those that "
            f"directions were extracted from. {again}"
        )


def _check_modules(path: Path, contents: _Contents, model: ModelIdentity) -> None:
    if unknown := sorted(contents.v.keys() - model.ranks.keys()):
        raise WrongFile(f"{path}: directions of modules that the model does not have: {_named(unknown)}")
    if missing := sorted(model.ranks.keys() - contents.v.keys()):
        raise WrongFile(f"{path}: no directions of these modules of the model: {_named(missing)}")
    for name, rows in contents.v.items():
        if rows.shape[1] != model.ranks[name]:
            raise WrongFile(
                f"{path}: {name}: directions of {rows.shape[1]} numbers, but its weight has rank {model.ranks[name]}"
            )


def _check_directions(path: Path, v: Mapping[str, Tensor]) -> None:
    for name, rows in v.items():
        try:
            orthonormal(rows)
        except ValueError as error:
            raise WrongFile(f"{path}: {name}: {error}") from None


def _named(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
