"""What the command line does: models are loaded here and nowhere else."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainer_ext.vhack import file
from trainer_ext.vhack.basis import basis_hash, expanded, linear_modules, svd_basis, weight_digest
from trainer_ext.vhack.extract import extract
from trainer_ext.vhack.pairs import generated_pairs, read_pairs, tokenised

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def extract_file(asked: argparse.Namespace) -> None:
    """Write the file of directions `asked.out`, unless it is there already.

    Raises:
        ValueError: pairs, model or settings that directions cannot be extracted from.
        OSError: no such model.
    """
    out: Path = asked.out
    if out.exists():
        print(f"[vhack] {out} is there already", flush=True)
        return
    pairs = read_pairs(asked.pairs) if asked.pairs else generated_pairs(asked.generate, asked.seed)
    model, tokenizer = _loaded(asked.model, DTYPES[asked.dtype])
    targets = tuple(name for name in asked.targets.split(",") if name)
    found = extract(model, tokenised(pairs, tokenizer), asked.k, tau_axis=asked.tau_axis, targets=targets, said=_say)
    file.save(out, found, asked.model)
    _say(f"{out}: {len(found.v)} modules, k={found.k}, {found.pairs} pairs, {found.dtype}, basis {found.basis[:12]}")


def summary(path: Path, k: int, drop_bottom_frac: float) -> str:
    """The line that a job would log, without looking at a model.

    Raises:
        WrongFile: an unreadable file, or one with fewer than k directions.
        ValueError: k or drop_bottom_frac out of range.
    """
    return file.load(path, file.as_written(path), k, drop_bottom_frac).line(path)


def deploy(base: str, trained: str, routed: Path, out: Path) -> None:
    """Write the trained model without what mode route set aside: W - D^T a.

    Raises:
        ValueError: the folder exists already, or the state is of another model or unreadable.
        OSError: a model or the state cannot be read.
    """
    if out.exists():
        raise ValueError(f"{out} exists already")
    state = _routed_state(routed)
    set_aside: torch.Tensor = state["routed"]["amounts"]
    start, _ = _loaded(base, DTYPES[state["dtype"]])
    started = {name: module for name, module in start.named_modules() if name in state["modules"]}
    if basis_hash({name: weight_digest(module.weight) for name, module in started.items()}) != state["basis"]:
        raise ValueError(
            f"{base}: training did not begin with these weights; --base is the model that the job was given"
        )
    model, tokenizer = _loaded(trained, DTYPES[state["dtype"]])
    amounts = set_aside.split([len(v) for v in state["directions"].values()])
    weights = linear_modules(model, tuple(state["directions"]))
    if missing := [name for name in state["directions"] if name not in weights]:
        raise ValueError(f"{trained}: has no {', '.join(missing[:3])}")
    with torch.no_grad():
        for (name, v), amount in zip(state["directions"].items(), amounts, strict=True):
            changes = expanded(v, svd_basis(started[name].weight))
            weights[name].weight -= torch.einsum("k,koi->oi", amount.double(), changes).to(weights[name].weight)
    _write_model(model, tokenizer, out)
    _say(f"{out}: {trained} without what was routed along {set_aside.numel()} directions")


def _routed_state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # the unpickler raises whatever a wrong byte leads it to
        raise ValueError(f"{path}: not a vhack_state.pt of a checkpoint") from None
    if "routed" not in state:
        raise ValueError(f"{path}: nothing was routed; only vhack.mode=route sets anything aside")
    return state


def _write_model(model: Any, tokenizer: Any, out: Path) -> None:
    """A folder that is whole or not there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folder.chmod(0o755)
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _loaded(model: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model in eval mode, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval(), tokenizer


def _say(line: str) -> None:
    print(f"[vhack] {line}", flush=True)
