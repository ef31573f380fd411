"""Projects what modules take in, in one product for those that take in the same tensor: query, key and value, gate and up.

Who shares is not read off names. In the first pass every module's input is compared with that of the module before it;
where it is the same tensor, the earlier one leads from then on and projects for both. A follower takes what was made for
it only if it holds the leader's very tensor, unchanged; else it projects its own, and is no follower any more. So a model
that does not share, or shares in some passes alone, gets the same rows, only in more products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from trainer_ext.influence.picked_rows import PickedRows
from trainer_ext.influence.projection import JointProjection, Projection


@dataclass(eq=False)
class _Met:
    """The tensor that a module took in, and what was made of it for the modules after it."""

    leader: str
    tensor: Tensor
    """Held, so that its memory cannot become another tensor's meanwhile."""
    version: int
    ready: dict[str, PickedRows]

    def holds(self, other: Tensor) -> bool:
        """Whether this is the same tensor, not written to since."""
        return self.version == other._version and (self.tensor is other or _same_memory(self.tensor, other))


class SharedInputs:
    """Projects inputs, module by module in the order in which they run.

    It keeps a tensor only while a module that shares it may follow: until all known followers came, or, in the first
    pass, until another tensor comes.

    Args:
        projections: of the inputs, by module.
    """

    def __init__(self, projections: Mapping[str, Projection]) -> None:
        self._projections = projections
        self._joint = {name: JointProjection([projection]) for name, projection in projections.items()}
        self._followers: dict[str, list[str]] = {}
        self._met: _Met | None = None
        self._learning = True

    def begin_pass(self) -> None:
        """Forget the tensors of the last pass; who shares is known once there was one."""
        self._learning = self._learning and not self._followers
        self.release()

    def release(self) -> None:
        """Let go of the tensor that is held."""
        self._met = None

    def followers(self) -> dict[str, list[str]]:
        """The modules that others project for, by the one that does."""
        return {leader: list(names) for leader, names in self._followers.items() if names}

    def __call__(self, name: str, inputs: Tensor, positions: Tensor) -> PickedRows:
        """What the module's projection makes of the rows at some positions, [n, k_in] (`JointProjection`).

        Args:
            inputs: [.., d] as the module takes them in; its own tensor, not a view made for this call.
            positions: int64 [n], on their device; the same for all modules of a pass.
        """
        met = self._met
        if met is not None and met.holds(inputs):
            if name in met.ready:
                rows = met.ready.pop(name)
                self._release_if_done(met)
                return rows
            (rows,) = self._projected([name], inputs, positions)
            self._lead(met.leader, [*self._followers[met.leader], name])
            return rows
        if met is not None and met.ready:  # those did not come, or with another tensor
            self._lead(met.leader, [other for other in self._followers[met.leader] if other not in met.ready])
        followers = self._followers.setdefault(name, [])
        own, *others = self._projected([name, *followers], inputs, positions)
        self._met = _Met(name, inputs, inputs._version, dict(zip(followers, others, strict=True)))
        self._release_if_done(self._met)
        return own

    def _release_if_done(self, met: _Met) -> None:
        if not met.ready and not self._learning:
            self.release()

    def _lead(self, leader: str, followers: list[str]) -> None:
        """From now on the leader projects for these; its signs lie side by side with theirs."""
        names = [leader, *followers]
        left = [name for name in self._followers[leader] if name not in followers]
        before = [self._joint[name] for name in {*names, *left}]
        self._joint[leader] = JointProjection([self._projections[name] for name in names], before)
        for name in followers:
            self._joint[name] = JointProjection([self._projections[name]])
        for name in left:
            self._joint[name] = JointProjection([self._projections[name]], before)
        self._followers[leader] = followers

    def _projected(self, names: list[str], inputs: Tensor, positions: Tensor) -> list[PickedRows]:
        return self._joint[names[0]](inputs.detach().reshape(-1, inputs.shape[-1]), positions)


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return (
        one.data_ptr() == other.data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
        and one.device == other.device
    )
