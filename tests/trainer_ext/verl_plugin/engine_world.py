"""verl's engine without Ray: its worker with the plugin inside, in this process or one process a rank, and batches for it."""

from __future__ import annotations

import copy
import functools
import io
import multiprocessing
import os
import socket
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.trainer_ext.verl_plugin import conftest as _environment  # noqa: F401  before verl, in spawned processes too

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import verl
    from hydra import compose, initialize_config_dir
    from omegaconf import DictConfig, OmegaConf
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu

    import trainer_ext
    from trainer_ext.verl_plugin.worker import MASK, REPORT, REQUEST, SCORES, InfluenceWorker

CONF = Path(trainer_ext.__file__).parent / "conf"
IDENTITY = {
    "hessian_mode": "identity",
    "contrastive_agg": "sum",
    "exclude_self_response": True,
    "projection_dim_factor": 1,
    "precision": "fp64",
}


class Rows:
    """Prompts and responses of a batch, a row each."""

    def __init__(self, rows: Sequence[tuple[str, list[int], list[int], float, float]]) -> None:
        self.uids, self.prompts, self.responses, self.rewards, self.advantages = map(list, zip(*rows, strict=True))

    def __len__(self) -> int:
        return len(self.uids)


def make_config(model: Path, *overrides: str) -> DictConfig:
    search = f"hydra.searchpath=[file://{Path(verl.__file__).parent / 'trainer' / 'config'}]"
    fixed = [
        search,
        "profile=smoke",
        "actor_rollout_ref.rollout.n=1",
        "actor_rollout_ref.actor.optim.total_training_steps=2",
    ]
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose("influence", [*fixed, *overrides])
    OmegaConf.set_struct(config, False)
    config.actor_rollout_ref.model.path = str(model)
    return config


@functools.cache
def base_config() -> DictConfig:
    return make_config(Path("model"))


def changed(*overrides: str) -> DictConfig:
    """The config with values changed, without composing it again."""
    config = OmegaConf.merge(base_config(), OmegaConf.from_dotlist(list(overrides)))
    assert isinstance(config, DictConfig)
    return config


@contextmanager
def worker_of(config: DictConfig, rank: int = 0, world: int = 1, port: int | None = None) -> Iterator[Any]:
    """verl's worker with the plugin's trainer inside, as one rank of its world, in this process."""
    names = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    values = {name: str(value) for name, value in names.items()}
    values.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port or free_port()))
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    alone, threads = not torch.distributed.is_initialized(), torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are tiny: a second thread only waits for the first, and for other processes
    try:
        built = InfluenceWorker(config=config.actor_rollout_ref, role="actor")
        built.init_model()
        yield built
    finally:
        torch.set_num_threads(threads)
        if alone and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def jagged(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row, dtype=dtype) for row in rows], layout=torch.jagged)


def make_batch(rows: Rows, old_log_probs: Sequence[Tensor], *, world: int = 1, **settings: Any) -> TensorDict:
    """What verl's worker gets of a step.

    Args:
        world: over how many ranks the step's rows are spread, as many on each.
        settings: how the engine is to run it, over what it was configured with.
    """
    sequences = [prompt + response for prompt, response in zip(rows.prompts, rows.responses, strict=True)]
    data = tu.get_tensordict(
        {
            "prompts": jagged(rows.prompts),
            "responses": jagged(rows.responses),
            "input_ids": jagged(sequences),
            "position_ids": jagged([list(range(len(sequence))) for sequence in sequences]),
            "response_mask": jagged([[1] * len(response) for response in rows.responses]),
            "loss_mask": jagged([[1] * len(response) for response in rows.responses]),
            "old_log_probs": torch.nested.as_nested_tensor(list(old_log_probs), layout=torch.jagged),
            "advantages": jagged(
                [[a] * len(r) for a, r in zip(rows.advantages, rows.responses, strict=True)], torch.float32
            ),
            "rm_scores": jagged(
                [[0.0] * (len(r) - 1) + [s] for s, r in zip(rows.rewards, rows.responses, strict=True)], torch.float32
            ),
            "uid": rows.uids,
            "extra_fields": [{"reward_extra_info": {}} for _ in rows.uids],
        }
    )
    size = len(rows) * world
    tu.assign_non_tensor(data, temperature=1.0, global_batch_size=size, mini_batch_size=size, epochs=1, seed=0)
    tu.assign_non_tensor(data, dataloader_kwargs={"shuffle": False}, calculate_entropy=False, **settings)
    return data


def request(inline: bool = True, **changes: Any) -> dict[str, Any]:
    return {"config": {**IDENTITY, **changes}, "accepted_threshold": 0.5, "inline": inline, "step": 1, "profile": None}


def update(worker: Any, batch: TensorDict, asked: Mapping[str, Any]) -> dict[str, Any]:
    """verl's update with a trace requested; its metrics."""
    data = copy.copy(batch)
    tu.assign_non_tensor_data(data, REQUEST, dict(asked))
    metrics: dict[str, Any] = tu.get(worker.actor.train_mini_batch(data), "metrics")
    return metrics


def score(worker: Any, batch: TensorDict, asked: Mapping[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Scores and mask, jagged [B, n], and the report, as the driver gets them from a rank."""
    data = copy.copy(batch)
    tu.assign_non_tensor_data(data, REQUEST, dict(asked))
    answer = worker.compute_influence(data)
    return answer[SCORES], answer[MASK], tu.get(answer, REPORT)


def traced(worker: Any, batch: TensorDict, asked: Mapping[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """What `score` gives, after the update that it needs, if it needs one."""
    if asked["inline"]:
        update(worker, batch, asked)
    return score(worker, batch, asked)


def parameters(worker: Any) -> dict[str, Tensor]:
    """Copies of the whole model's weights."""
    return {name: tensor.detach().clone() for name, tensor in worker.actor.engine.get_per_tensor_param()[0]}


Work = Callable[[int, int, int, Any], Any]
"""(rank, world, port, argument) -> answer, a function of a module; runs in a process of its own."""
RANKS_TIMEOUT_S = 300.0


def on_ranks(world: int, work: Work, argument: Any) -> list[Any]:
    """What each of `world` new processes answers, in the order of ranks.

    Raises:
        RuntimeError: one of them failed, with its traceback, or gave no answer in time.
    """
    context, port = multiprocessing.get_context("spawn"), free_port()
    ends = [context.Pipe(duplex=False) for _ in range(world)]
    processes = [
        context.Process(target=_answer, args=(work, rank, world, port, argument, theirs), daemon=True)
        for rank, (_, theirs) in enumerate(ends)
    ]
    for process, (_, theirs) in zip(processes, ends, strict=True):
        process.start()
        theirs.close()
    try:
        return [_received(rank, ours) for rank, (ours, _) in enumerate(ends)]
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()


def _received(rank: int, pipe: Connection) -> Any:
    if not pipe.poll(RANKS_TIMEOUT_S):
        raise RuntimeError(f"rank {rank} gave no answer in {RANKS_TIMEOUT_S:.0f} s")
    try:
        answer, error = torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=True)
    except EOFError:
        raise RuntimeError(f"rank {rank} ended without an answer") from None
    if error:
        raise RuntimeError(f"rank {rank}:\n{error}")
    return answer


def _answer(work: Work, rank: int, world: int, port: int, argument: Any, pipe: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        answer = work(rank, world, port, argument), ""
    except BaseException:
        answer = None, traceback.format_exc()
    written = io.BytesIO()
    torch.save(answer, written)  # as bytes: tensors in a pipe die with their process
    pipe.send_bytes(written.getvalue())
