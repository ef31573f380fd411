"""Processes that work together, one a rank.

A `RankPool` starts its processes once and then asks them, or some of them, as often as a test likes. A rank that gives no
answer in time is an error of its own: `PATIENCE` is shorter than the timeout of a collective, so that a hang is
never taken for an error that all ranks agreed on.
"""

from __future__ import annotations

import logging
import multiprocessing
import queue
import tempfile
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tests.trainer_ext.influence.against_truth import Options, responses_of
from tests.trainer_ext.influence.live_bytes import LiveBytes
from tests.truth.brute_force import Floats
from tests.truth.cases import Case
from trainer_ext.influence import InfluenceConfig, ModuleFactors, score_batch_over_ranks
from trainer_ext.influence.storage import half_output_grads, half_rows

PATIENCE = timedelta(seconds=100)
"""How long an answer may take, the first of which includes what a rank must import, compile and start."""


@dataclass(frozen=True, eq=False)
class Part:
    """What one rank has of a batch."""

    modules: Sequence[tuple[str, Case]]
    """By name; the first one's responses are those of all, if `like` does not say otherwise."""
    options: Options
    dtype: torch.dtype = torch.float64
    stored: bool = False
    """Rounded to float16 as a store keeps them."""
    breaks: bool = False
    """The second module cannot be brought."""
    ends_with: str = ""
    """What the modules find out about themselves once all were read."""
    stagings: int | None = None
    """How often the first module can be staged; None: as often as needed."""
    like: Case | None = None
    """Whose responses they are where there is no module."""
    device: str | None = None
    """Where to compute; None: where the factors are."""
    watched: bool = False
    """Whether memory is counted on a CPU, which takes time; on a GPU the allocator counts anyway."""


@dataclass(frozen=True, eq=False)
class Answer:
    """A `BatchResult` that can travel, or the error in its place."""

    scores: Floats = field(default_factory=lambda: np.empty(0))
    routes: Mapping[str, str] = field(default_factory=dict)
    residuals: Mapping[str, float | None] = field(default_factory=dict)
    predicted: Sequence[tuple[str, str, float]] = ()
    """Module, route and predicted seconds."""
    error: str = ""
    message: str = ""
    logged: Sequence[str] = ()
    most_held: int = 0
    """Most modules whose factors were in memory at once."""
    claimed_bytes: int = 0
    """`BatchResult.peak_bytes`."""
    allocated_bytes: int = 0
    """Most bytes taken on the rank's device beyond the factors, if watched."""

    @property
    def tensor(self) -> torch.Tensor:
        """The scores; raises where there is an error in their place."""
        assert not self.error, f"{self.error}: {self.message}"
        return torch.from_numpy(self.scores)


class _WearingOut(ModuleFactors):
    """Factors that can be staged `left` times more, once it is set."""

    def __getattribute__(self, name: str) -> Any:
        state = super().__getattribute__("__dict__")
        if name == "exponent" and "left" in state:
            if not state["left"]:
                raise OSError("the disk is gone")
            state["left"] -= 1
        return super().__getattribute__(name)


class _Modules:
    """The modules of a part, made one by one as they are asked for."""

    def __init__(self, part: Part, device: torch.device) -> None:
        self._part, self._device = part, device
        self._held = weakref.WeakSet[ModuleFactors]()
        self.most_held = self.most_bytes = 0
        """Most modules, and bytes of factors, in memory at once."""

    def __len__(self) -> int:
        return len(self._part.modules)

    def items(self) -> Iterator[tuple[str, ModuleFactors]]:
        for number, (name, case) in enumerate(self._part.modules):
            if self._part.breaks and number == 1:
                raise OSError("the disk is gone")
            yield name, self._made(case, self._part.stagings if number == 0 else None)
        self.require_finite()

    def require_finite(self) -> None:
        if self._part.ends_with:
            raise ValueError(self._part.ends_with)

    def _made(self, case: Case, stagings: int | None) -> ModuleFactors:
        factors = _factors(case, self._part, self._device)
        if stagings is not None:
            factors = _WearingOut(factors.inputs, factors.output_grads, factors.response, factors.exponent)
            vars(factors)["left"] = stagings
        self._held.add(factors)
        self.most_held = max(self.most_held, len(self._held))
        self.most_bytes = max(self.most_bytes, sum(map(_bytes, self._held)))
        return factors


Work = Callable[[dist.ProcessGroup | None, torch.device, Any], Any]
"""What a rank is asked to do, given the group (None: all processes), its device and its own argument; a function of a
module. Argument and answer travel by pickle."""


class RankPool:
    """One process a rank, on the CPU or on one GPU each.

    Args:
        backend: as `torch.distributed` names it.
        preload: modules that are slow to import, imported once for all ranks.
    """

    def __init__(
        self,
        size: int,
        backend: str = "gloo",
        *,
        gpus: bool = False,
        preload: Sequence[str] = ("torch.distributed", __name__),
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(preload))
        self.size = size
        self._broken = ""
        self._folder = tempfile.TemporaryDirectory()
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(size):
            ours, theirs = context.Pipe()
            device = torch.device("cuda", rank) if gpus else torch.device("cpu")
            arguments = (rank, size, backend, f"file://{self._folder.name}/meeting", device, theirs)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def ask(self, work: Work, arguments: Sequence[Any], members: Sequence[int] | None = None) -> list[Any]:
        """Answers in the order of the arguments, one for each rank that takes part.

        Args:
            members: these ranks; None: as many as there are arguments, from the first on.
        """
        assert not self._broken, f"an earlier question broke the pool: {self._broken}"
        asked = tuple(range(len(arguments)) if members is None else members)
        own = dict(zip(asked, arguments, strict=True))
        for rank, pipe in enumerate(self._pipes):  # a group is made by all processes
            pipe.send((asked, work, own.get(rank)))
        answers = []
        for rank in asked:
            if not self._pipes[rank].poll(PATIENCE.total_seconds()):
                self._broken = f"rank {rank} gave no answer in {PATIENCE.total_seconds():.0f} s"
                raise TimeoutError(self._broken)
            answers.append(self._pipes[rank].recv())
        return answers

    def score(self, parts: Sequence[Part], members: Sequence[int] | None = None) -> list[Answer]:
        """Score a part a rank."""
        return self.ask(_answered, parts, members)

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            if not self._broken:
                pipe.send(None)
            pipe.close()
        for process in self._processes:
            process.join(0 if self._broken else 10)
            if process.is_alive():
                process.kill()
        self._folder.cleanup()


def _serve(rank: int, size: int, backend: str, meeting: str, device: torch.device, pipe: Connection) -> None:
    torch.set_num_threads(1)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size, timeout=2 * PATIENCE)
    groups: dict[tuple[int, ...], dist.ProcessGroup | None] = {tuple(range(size)): None}
    while (question := pipe.recv()) is not None:
        members, work, argument = question
        if members not in groups:
            groups[members] = dist.new_group(list(members), timeout=2 * PATIENCE)
        if rank in members:
            pipe.send(work(groups[members], device, argument))
    dist.destroy_process_group()


def _answered(group: dist.ProcessGroup | None, device: torch.device, part: Part) -> Answer:
    modules = _Modules(part, device)
    logged = queue.SimpleQueue[logging.LogRecord]()
    handler, logger = QueueHandler(logged), logging.getLogger("trainer_ext.influence")  # type: ignore[arg-type]
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    memory = _Memory(device, watched=part.watched)
    try:
        responses = responses_of(part.like or part.modules[0][1])
        config = InfluenceConfig(**part.options)
        with memory:
            result = score_batch_over_ranks(modules, responses, config, group=group, device=part.device)
    except Exception as error:
        return Answer(error=type(error).__name__, message=f"{error}\n{traceback.format_exc()}")
    finally:
        logger.removeHandler(handler)
    return Answer(
        scores=result.scores.cpu().numpy(),
        routes=result.routes,
        residuals=result.residuals,
        predicted=[(record.module, record.route, record.predicted_seconds) for record in result.choices],
        logged=[logged.get().getMessage() for _ in range(logged.qsize())],
        most_held=modules.most_held,
        claimed_bytes=result.peak_bytes,
        allocated_bytes=memory.peak - modules.most_bytes,
    )


def _factors(case: Case, part: Part, device: torch.device) -> ModuleFactors:
    inputs = torch.from_numpy(case.inputs).to(part.dtype)
    output_grads = torch.from_numpy(case.output_grads).to(part.dtype)
    exponent = None
    if part.stored:
        inputs, power = half_rows(inputs)
        output_grads, exponent = half_output_grads(output_grads, power)
        exponent = exponent.to(device)
    response = torch.from_numpy(case.response)
    return ModuleFactors(inputs.to(device), output_grads.to(device), response.to(device), exponent)


def _bytes(factors: ModuleFactors) -> int:
    parts = (factors.inputs, factors.output_grads, factors.response, factors.exponent)
    return sum(part.nbytes for part in parts if part is not None)


class _Memory(AbstractContextManager[None]):
    """Most bytes taken while it is open."""

    def __init__(self, device: torch.device, *, watched: bool) -> None:
        self._device = device
        self._live = LiveBytes([]) if watched and device.type == "cpu" else None
        self.peak = 0

    def __enter__(self) -> None:
        if self._live is not None:
            self._live.__enter__()
        elif self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self.peak = -torch.cuda.memory_allocated(self._device)

    def __exit__(self, *raised: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*raised)
            self.peak = self._live.peak
        elif self._device.type == "cuda":
            self.peak += torch.cuda.max_memory_allocated(self._device)
