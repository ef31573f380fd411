"""Rollout with transformers alone: `actor_rollout_ref.rollout.name=hf`. For machines without vLLM, and for exactness.

The server is a Ray actor beside the trainer's rank, with a model of its own; it gathers the requests of a step into batches.
The adapter lives in the trainer's worker and hands the weights over after every update. On a CPU they lie in Ray's shared
memory and the server's parameters point there: one copy, none of it the server's own.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch import Tensor
from verl.utils.device import get_device_name, get_resource_name
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import CONTROL_METHOD_CONCURRENCY, RolloutReplica, TokenOutput

from trainer_ext.verl_plugin.sampling import Request, Sample, sample_batch

ROLLOUT = "hf"
"""`actor_rollout_ref.rollout.name`."""
GATHER_S = 0.05
"""A batch starts when no request has come for this long. Requests of a step arrive milliseconds apart."""

WireTensor = tuple[str, str, tuple[int, ...], NDArray[np.uint8]]
"""(name, dtype, shape, bytes): numpy arrays cross Ray without a copy, and torch's bfloat16 has no numpy type."""


def to_wire(name: str, tensor: Tensor) -> WireTensor:
    host = tensor.detach().to("cpu").contiguous()
    return name, str(host.dtype).removeprefix("torch."), tuple(host.shape), host.flatten().view(torch.uint8).numpy()


def from_wire(message: WireTensor) -> tuple[str, Tensor]:
    """The tensor over the message's own memory, which is read-only where Ray holds it."""
    name, dtype, shape, octets = message
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")  # nor does inference write
        return name, torch.frombuffer(octets, dtype=getattr(torch, dtype)).reshape(shape)


class TransformersServer:
    """Ray actor: token ids in, token ids and log-probabilities out. Rank `replica_rank` of the job's rollout servers."""

    def __init__(self, config: Any, model_config: Any, replica_rank: int) -> None:
        from accelerate import init_empty_weights
        from transformers import AutoModelForCausalLM
        from verl.utils.config import omega_conf_to_dataclass

        self._config, self._model_config = omega_conf_to_dataclass(config), omega_conf_to_dataclass(model_config)
        self._device = torch.device(get_device_name())
        dtype = getattr(torch, self._config.dtype)
        # on a CPU the parameters get their memory with the first weights; on a GPU it is allocated now
        with init_empty_weights() if self._device.type == "cpu" else self._device:
            self._model = AutoModelForCausalLM.from_config(self._model_config.hf_config, dtype=dtype).eval()
        self._eos, self._pad = _end_tokens(self._model_config), self._model_config.tokenizer.pad_token_id
        self._replica_rank, self._global_steps = replica_rank, 0
        self._asked: Counter[tuple[int, ...]] = Counter()
        self._waiting: list[tuple[Request, asyncio.Future[Sample]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def update_weights(self, references: Sequence[Any], global_steps: int | None = None) -> None:
        """Take over the trainer's weights. `references` are Ray objects, each a `WireTensor`."""
        messages = await asyncio.gather(*references)
        weights = dict(from_wire(message) for message in messages)
        self._model.load_state_dict(weights, strict=False, assign=self._device.type == "cpu")
        self._model.tie_weights()
        _require_all_weights(self._model)
        if global_steps is not None:
            await self.set_global_steps(global_steps)

    async def sleep(self) -> None:
        """Let go of the weights: the next come before the next request, and shared memory need not hold both."""
        if self._device.type == "cpu":
            _release_weights(self._model)

    async def set_global_steps(self, global_steps: int) -> None:
        self._global_steps = global_steps
        self._asked.clear()

    async def generate(
        self, prompt_ids: Sequence[int], sampling_params: dict[str, Any], request_id: str, **_: Any
    ) -> TokenOutput:
        """Continue one prompt; waits for a place in the next batch."""
        import time; print("DBG generate", time.time(), flush=True)
        future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._request(tuple(prompt_ids), sampling_params), future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run_batches())
        sample = await future
        print("DBG generated", time.time(), flush=True)
        return TokenOutput(
            token_ids=sample.token_ids,
            log_probs=sample.log_probs,
            stop_reason="completed",
            extra_fields={"global_steps": self._global_steps},
        )

    def _request(self, prompt: tuple[int, ...], params: dict[str, Any]) -> Request:
        room = self._config.prompt_length + self._config.response_length - len(prompt)
        wanted = params.get("max_tokens") or params.get("max_new_tokens") or self._config.response_length
        repetition = self._asked[prompt]
        self._asked[prompt] += 1
        # the draws follow from what is asked, not from when: the same step repeats whatever the order of arrival
        key = repr((self._config.seed, self._global_steps, prompt, repetition)).encode()
        return Request(
            prompt=prompt,
            max_tokens=min(wanted, room),
            uniform=random.Random(hashlib.sha256(key).digest()).random,
            temperature=float(params.get("temperature", 1.0)),
            top_k=int(params.get("top_k", -1)),
            top_p=float(params.get("top_p", 1.0)),
        )

    async def _run_batches(self) -> None:
        while self._waiting:
            count = 0
            while count < len(self._waiting) < self._config.max_num_seqs:
                count = len(self._waiting)
                await asyncio.sleep(GATHER_S)
            batch, self._waiting = (
                self._waiting[: self._config.max_num_seqs],
                self._waiting[self._config.max_num_seqs :],
            )
            batch.sort(key=lambda item: item[0].prompt)  # the order of arrival must not show in the last bits
            try:
                requests = [request for request, _ in batch]
                samples = await asyncio.to_thread(sample_batch, self._model, requests, eos=self._eos, pad=self._pad)
            except Exception as error:  # every caller must hear of it, or the step never ends
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), sample in zip(batch, samples, strict=True):
                future.set_result(sample)

    async def get_server_address(self) -> tuple[str, int]:
        return ray.util.get_node_ip_address(), 0

    async def abort_all_requests(self, reject_request: bool = False) -> dict[str, Any]:  # noqa: ARG002
        return {"aborted_count": 0, "request_ids": []}

    async def wake_up(self, *_: Any, **__: Any) -> None: ...
    async def clear_kv_cache(self) -> None: ...
    async def release_kv_cache(self) -> None: ...
    async def resume_kv_cache(self) -> None: ...
    async def resume_generation(self) -> None: ...
    async def start_profile(self, **_: Any) -> None: ...
    async def stop_profile(self) -> None: ...


def _end_tokens(model_config: Any) -> frozenset[int]:
    """Every token that ends a response: the tokenizer's, and those of the model's generation config."""
    generation = getattr(model_config, "generation_config", None)
    listed = getattr(generation, "eos_token_id", None) or []
    return frozenset([model_config.tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])])


def _release_weights(model: torch.nn.Module) -> None:
    """Leave parameters their shapes alone; buffers, which no update brings, stay."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(parameter.to("meta"), requires_grad=False))


def _require_all_weights(model: torch.nn.Module) -> None:
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise RuntimeError(f"rollout hf: the trainer sent no weights for {', '.join(missing[:5])}")


def server_name(replica_rank: int, suffix: str = "") -> str:
    return f"transformers_server_{replica_rank}{suffix}"


def launch_server(config: Any, model_config: Any, replica_rank: int, suffix: str = "", **options: Any) -> Any:
    """Start the server of a replica, or find it where it was started ahead of time. Returns its Ray handle."""
    actor = ray.remote(TransformersServer).options(
        name=server_name(replica_rank, suffix),
        get_if_exists=True,
        num_cpus=1,
        max_concurrency=max(1000, config.max_num_seqs + CONTROL_METHOD_CONCURRENCY),
        **options,
    )
    return actor.remote(config=config, model_config=model_config, replica_rank=replica_rank)


class TransformersReplica(RolloutReplica):
    """One server, on the node, and on the GPU, of the trainer's first rank of this replica."""

    async def launch_servers(self) -> None:
        node, devices = await self.workers[0].__ray_call__.remote(_placement)
        options: dict[str, Any] = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False)}
        if get_device_name() != "cpu":  # the server asks Ray for no GPU: it shares the trainer's
            visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, devices))}
            options["runtime_env"] = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1", **visible}}
        server = launch_server(self.config, self.model_config, self.replica_rank, self.name_suffix, **options)
        host, _ = await server.get_server_address.remote()
        self.servers = [server]
        self._server_handle, self._server_address = server, f"{host}:{self.replica_rank}"


def _placement(_worker: Any) -> tuple[str, list[Any]]:
    """(node, devices) of the worker that Ray runs this in."""
    context = ray.get_runtime_context()
    return context.get_node_id(), context.get_accelerator_ids().get(get_resource_name(), [])


class TransformersAdapter(BaseRollout):
    """The server's counterpart inside the trainer's worker."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        parallel = (
            self.config.tensor_model_parallel_size
            * self.config.data_parallel_size
            * self.config.pipeline_model_parallel_size
        )
        rank = int(os.environ["RANK"])
        self._leads = rank % parallel == 0
        self._server_name = server_name(rank // parallel if replica_rank == -1 else replica_rank)

    async def resume(self, tags: list[str]) -> None: ...
    async def release(self) -> None: ...

    async def update_weights(
        self,
        weights: Iterable[tuple[str, Tensor]],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        """Send full tensors to the server. Every rank walks the weights, for gathering them is collective."""
        if wire_format != "named_tensors":
            raise ValueError(
                f"rollout hf takes whole tensors, not {wire_format!r}: set checkpoint_engine.backend=naive"
            )
        references = []
        for name, tensor in weights:
            if self._leads:
                references.append(ray.put(to_wire(name, tensor)))
        if self._leads:
            server = ray.get_actor(self._server_name)
            await server.update_weights.remote(references, global_steps=global_steps)
