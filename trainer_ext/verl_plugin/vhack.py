"""v_hack in verl: directions are prepared on each rank before a checkpoint is loaded, and every optimizer step is projected.

Directions are written in the SVD basis of the weights that training begins with, so that basis is taken from the model as verl
loads it, before a checkpoint that the job resumes from goes over it. The projection stands between verl's clipping of gradients
and its optimizer (`trainer_ext.vhack.projector`); gradients are FSDP2's shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from trainer_ext.vhack import (
    Loaded,
    ModelIdentity,
    Projector,
    VhackConfig,
    WrongFile,
    load,
    model_name,
    weight_directions,
)
from trainer_ext.vhack.basis import basis_hash, linear_modules, orthonormal, weight_digest
from trainer_ext.vhack.file import targets_of
from trainer_ext.vhack.project import Directions
from trainer_ext.vhack.routed import Routed
from trainer_ext.vhack.sharding import whole
from trainer_ext.vhack.singular_values import SingularValues

STATE_FILE = "vhack_state.pt"
"""In a checkpoint's folder of the actor: what mode route set aside, with what `deploy` needs to take it out, and how far
singular values are."""
PARTS = ("routed", "singular_values")
PLUGIN_KEYS = ("enable", "command", "generate", "generate_seed", "extract_k")
"""Keys of the `vhack` section that are not settings of the projection."""


def settings(section: Mapping[str, Any]) -> VhackConfig | None:
    """What the `vhack` section of a job's config asks for; None where it is off.

    Raises:
        ValueError: an unknown key or a bad value.
    """
    if not section["enable"]:
        return None
    return VhackConfig.from_mapping({key: section[key] for key in section if key not in PLUGIN_KEYS})


@dataclass(frozen=True, eq=False)
class Prepared:
    """Directions of this rank's shards, and what stands behind the optimizer because of them."""

    config: VhackConfig
    loaded: Loaded
    projector: Projector
    identity: ModelIdentity
    """Of the model that training begins with."""
    singular_values: SingularValues | None = None
    """Trained in the place of the weights, with `train: singular_values`."""

    @contextmanager
    def around(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """While open, steps of verl's optimizer are projected, or those of singular values made instead of them."""
        with ExitStack() as stack:
            if self.singular_values is not None:
                stack.enter_context(self.singular_values.instead_of(optimizer))
                optimizer = self.singular_values.optimizer
            stack.enter_context(self.projector.around(optimizer))
            yield

    def line(self) -> str:
        """What was kept of the file, for the log."""
        return self.loaded.line(Path(self.config.file))

    def constants(self) -> dict[str, float]:
        """Metrics that are the same in every step."""
        kept = {
            "vhack/modules_kept": len(self.loaded.v),
            "vhack/modules_saved": self.loaded.modules_saved,
            "vhack/axes_kept": self.loaded.axes,
            "vhack/axes_saved": self.loaded.axes_saved,
        }
        return kept if self.loaded.threshold is None else {**kept, "vhack/threshold": self.loaded.threshold}

    def save(self, folder: Path) -> None:
        """Write what mode route set aside, and how far singular values are; nothing where there is neither."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        if parts:
            identity = {
                "dtype": self.identity.dtype,
                "basis": self.identity.basis,
                "modules": list(self.identity.ranks),
            }
            torch.save({**parts, "directions": self.loaded.v, **identity}, folder / STATE_FILE)

    def restore(self, folder: Path) -> None:
        """Take up what `save` wrote.

        Raises:
            WrongFile: the checkpoint was made without, or it was made with something that this job would lose, or what it set
                aside lies along other directions.
        """
        path, parts = folder / STATE_FILE, self._parts()
        state = torch.load(path, map_location="cpu", weights_only=True) if path.exists() else {}
        again = "resume with the mode and train that it was made with"
        for name in PARTS:
            if name in parts and name not in state:
                raise WrongFile(f"{path}: a checkpoint without {name}; {again}")
            if name in state and name not in parts:
                raise WrongFile(f"{path}: a checkpoint with {name}, which would be lost; {again}")
        if "routed" in parts and not _same(state["directions"], self.loaded.v):
            raise WrongFile(
                f"{path}: set aside along other directions; resume with the file, k and drop_bottom_frac that it was made with"
            )
        for name, part in parts.items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Routed | SingularValues]:
        """What a checkpoint has to hold beside verl's own, by name."""
        parts = dict(zip(PARTS, (self.projector.routed, self.singular_values), strict=True))
        return {name: part for name, part in parts.items() if part is not None}


def prepare(module: nn.Module, model: str, config: VhackConfig) -> Prepared:
    """Directions for a model with the weights that training begins with. All ranks must call it.

    Args:
        module: whole, or sharded by FSDP2.
        model: folder or name of the model.

    Raises:
        WrongFile: the file of directions is not of this model, or holds fewer than k.
        ValueError: a module that FSDP1 shards.
    """
    if isinstance(module, FullyShardedDataParallel):
        raise ValueError(
            "vhack.enable: FSDP1 keeps no module's weight by itself; set actor_rollout_ref.actor.strategy=fsdp2"
        )
    path = Path(config.file)
    modules = linear_modules(module, targets_of(path))
    digests, ranks, dtypes = {}, {}, set()
    for name, linear in modules.items():
        full: Tensor = whole(linear.weight.detach())
        digests[name], ranks[name] = weight_digest(full), min(full.shape)
        dtypes.add(str(full.dtype).removeprefix("torch."))
    dtype = "+".join(sorted(dtypes))
    identity = ModelIdentity(model_name(model), dtype, basis_hash(digests), ranks)
    loaded = load(path, identity, config.k, config.drop_bottom_frac)
    weights = {name: linear.weight for name, linear in modules.items()}
    if config.train == "weights":
        return Prepared(config, loaded, Projector(weights, weight_directions(weights, loaded.v), config), identity)
    trained = SingularValues(weights)
    rows = {name: orthonormal(v).to(trained.amounts[name]) for name, v in loaded.v.items()}
    return Prepared(config, loaded, Projector(trained.amounts, Directions(rows), config), identity, trained)


def around(prepared: Prepared | None, optimizer: torch.optim.Optimizer) -> AbstractContextManager[None]:
    """Project the steps that are made inside, where there is anything to project."""
    return prepared.around(optimizer) if prepared else nullcontext()


def step_metrics(ranks: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], float]:
    """(metrics, seconds of the slowest rank) out of each rank's `Projector.take_metrics`; shares are of all ranks together."""
    found = {f"vhack/{name}": ranks[0][name] for name in ("cin", "cout", "fired") if name in ranks[0]}
    return found, max(rank.get("seconds", 0.0) for rank in ranks)


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
