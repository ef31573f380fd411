"""Processes that score together, one a rank, and batches dealt out to them.

A `RankPool` starts its processes once and then asks them as often as a test likes. A rank that gives no answer in time
is an error of its own: `ANSWER_SECONDS` is shorter than the timeout of a collective, so that a hang is never taken for an
error that all ranks agreed on.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tests.trainer_ext.influence.against_truth import Options, responses_of
from tests.truth.brute_force import Floats, Integers
from tests.truth.cases import Case
from trainer_ext.influence import InfluenceConfig, ModuleFactors
from trainer_ext.influence.distributed import score_batch_over_ranks
from trainer_ext.influence.storage import half_output_grads, half_rows

ANSWER_SECONDS = 45
COLLECTIVE_TIMEOUT = timedelta(seconds=60)


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
    """The second module cannot be read."""
    like: Case | None = None
    """Whose responses they are where there is no module."""
    members: tuple[int, ...] | None = None
    """Ranks of the group that scores; None: all. Others answer nothing."""


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
    claimed_bytes: int = 0
    """`BatchResult.peak_bytes`."""
    allocated_bytes: int = 0
    """Most bytes allocated on the rank's GPU beyond what was there before."""

    @property
    def tensor(self) -> torch.Tensor:
        """The scores; raises where there is an error in their place."""
        assert not self.error, f"{self.error}: {self.message}"
        return torch.from_numpy(self.scores)


class BreakingModules:
    """Modules of which the second cannot be read."""

    def __init__(self, modules: Mapping[str, ModuleFactors]) -> None:
        self._modules = modules

    def __len__(self) -> int:
        return len(self._modules)

    def items(self) -> Iterator[tuple[str, ModuleFactors]]:
        yield next(iter(self._modules.items()))
        raise OSError("the disk is gone")


class RankPool:
    """One process a rank, on the CPU or on one GPU each.

    Args:
        backend: as `torch.distributed` names it.
    """

    def __init__(self, size: int, backend: str = "gloo", *, gpus: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
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

    def score(self, parts: Sequence[Part]) -> list[Answer]:
        """Answers by rank."""
        assert not self._broken, f"an earlier question broke the pool: {self._broken}"
        for pipe, part in zip(self._pipes, parts, strict=True):
            pipe.send(part)
        answers = []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(ANSWER_SECONDS):
                self._broken = f"rank {rank} gave no answer in {ANSWER_SECONDS} s"
                raise TimeoutError(self._broken)
            answers.append(pipe.recv())
        return answers

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


def dealt(case: Case, ranks: Integers, size: int) -> list[tuple[Case, Integers]]:
    """What each of `size` ranks has of a case, and which tokens these are, given the rank of each response [R]."""
    parts = []
    for rank in range(size):
        mine = np.flatnonzero(ranks == rank)
        tokens = np.flatnonzero(ranks[case.response] == rank)
        number = np.full(len(case.group), -1)
        number[mine] = np.arange(len(mine))
        part = replace(
            case,
            inputs=case.inputs[tokens],
            output_grads=case.output_grads[tokens],
            response=number[case.response[tokens]],
            group=case.group[mine],
            accepted=case.accepted[mine],
            advantage=case.advantage[mine],
        )
        parts.append((part, tokens))
    return parts


def together(answers: Sequence[Answer], tokens: Sequence[Integers]) -> torch.Tensor:
    """Scores [T] of the whole case from those of its parts."""
    out = torch.zeros(sum(map(len, tokens)), dtype=answers[0].tensor.dtype)
    for answer, own in zip(answers, tokens, strict=True):
        out[torch.from_numpy(own)] = answer.tensor
    return out


def _serve(rank: int, size: int, backend: str, meeting: str, device: torch.device, pipe: Connection) -> None:
    torch.set_num_threads(1)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)
    groups: dict[tuple[int, ...], dist.ProcessGroup] = {}
    while (part := pipe.recv()) is not None:
        if part.members is not None and part.members not in groups:
            groups[part.members] = dist.new_group(list(part.members), timeout=COLLECTIVE_TIMEOUT)
        if part.members is not None and rank not in part.members:
            pipe.send(Answer())
            continue
        pipe.send(_answered(part, None if part.members is None else groups[part.members], device))
    dist.destroy_process_group()


def _answered(part: Part, group: dist.ProcessGroup | None, device: torch.device) -> Answer:
    try:
        modules: Any = {name: _factors(case, part, device) for name, case in part.modules}
        if part.breaks:
            modules = BreakingModules(modules)
        before = _watch(device)
        responses = responses_of(part.like or part.modules[0][1])
        result = score_batch_over_ranks(modules, responses, InfluenceConfig(**part.options), group=group)
    except Exception as error:
        return Answer(error=type(error).__name__, message=f"{error}\n{traceback.format_exc()}")
    return Answer(
        scores=result.scores.cpu().numpy(),
        routes=result.routes,
        residuals=result.residuals,
        predicted=[(record.module, record.route, record.predicted_seconds) for record in result.choices],
        claimed_bytes=result.peak_bytes,
        allocated_bytes=torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else 0,
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


def _watch(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return int(torch.cuda.memory_allocated(device))
