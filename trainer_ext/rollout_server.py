"""The process behind the rollout `hf`: a transformers model that answers requests in batches.

A Ray actor. Whoever holds its handle imports this module, for Ray looks the class up, and the request router holds it. So
nothing heavy is imported here before the actor itself is made, and the module lives outside `verl_plugin`, which imports verl.

On a CPU the weights lie in Ray's shared memory, and the parameters point there: one copy, none of it the server's own.
"""

from __future__ import annotations

import asyncio
import secrets
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trainer_ext.server_controls import ServerControls

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from trainer_ext.sampling import Request, Sample

GATHER_S = 0.05
"""A batch starts when no request has come for this long. Requests of a step arrive milliseconds apart."""

WireTensor = tuple[str, str, tuple[int, ...], Any]
"""(name, dtype, shape, uint8 array): numpy arrays cross Ray without a copy, and torch's bfloat16 has no numpy type."""


def to_wire(name: str, tensor: Tensor) -> WireTensor:
    import torch

    host = tensor.detach().to("cpu").contiguous()
    return name, str(host.dtype).removeprefix("torch."), tuple(host.shape), host.flatten().view(torch.uint8).numpy()


def from_wire(message: WireTensor) -> tuple[str, Tensor]:
    """The tensor over the message's own memory, which is read-only where Ray holds it."""
    import torch

    name, dtype, shape, octets = message
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")  # nor does inference write
        return name, torch.frombuffer(octets, dtype=getattr(torch, dtype)).reshape(shape)


class TransformersServer(ServerControls):
    """Token ids in, token ids and log-probabilities out. A request without `seed` among its sampling parameters draws anew.

    Args:
        config, model_config: verl's `actor_rollout_ref.rollout` and `.model`.
        device: torch's name of it.
        to_dataclass: makes the configs verl's own types.
        answer: type of an answer, verl's TokenOutput; handed in, so that this module needs no verl.
    """

    def __init__(
        self, config: Any, model_config: Any, device: str, to_dataclass: Callable[[Any], Any], answer: type
    ) -> None:
        import torch
        from accelerate import init_empty_weights
        from transformers import AutoModelForCausalLM

        self._config, self._model_config, self._answer = to_dataclass(config), to_dataclass(model_config), answer
        self._device = torch.device(device)
        dtype = getattr(torch, self._config.dtype)
        # on a CPU the parameters get their memory with the first weights; on a GPU it is allocated now
        with init_empty_weights() if self._device.type == "cpu" else self._device:
            self._model = AutoModelForCausalLM.from_config(self._model_config.hf_config, dtype=dtype).eval()
        self._eos, self._pad = _end_tokens(self._model_config), self._model_config.tokenizer.pad_token_id
        self._global_steps = 0
        self._waiting: list[tuple[Request, asyncio.Future[Sample]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def update_weights(self, references: Sequence[Any], global_steps: int | None = None) -> None:
        """Take over the trainer's weights. `references` are Ray objects, each a `WireTensor`.

        Raises:
            RuntimeError: a parameter of the model is not among them.
        """
        messages = await asyncio.gather(*references)
        weights = dict(from_wire(message) for message in messages)
        self._model.load_state_dict(weights, strict=False, assign=self._device.type == "cpu")
        self._model.tie_weights()
        missing = [name for name, parameter in self._model.named_parameters() if parameter.is_meta]
        if missing:
            raise RuntimeError(f"rollout hf: the trainer sent no weights for {', '.join(missing[:5])}")
        if global_steps is not None:
            await self.set_global_steps(global_steps)

    async def sleep(self) -> None:
        """Let go of the weights: the next come before the next request, and shared memory need not hold both."""
        if self._device.type == "cpu":
            release_weights(self._model)

    async def set_global_steps(self, global_steps: int) -> None:
        self._global_steps = global_steps

    async def generate(self, prompt_ids: Sequence[int], sampling_params: dict[str, Any], **_: Any) -> Any:
        """Continue one prompt; waits for a place in the next batch."""
        future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._request(tuple(prompt_ids), sampling_params), future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run_batches())
        sample = await future
        return self._answer(
            token_ids=sample.token_ids,
            log_probs=sample.log_probs,
            stop_reason="completed",
            extra_fields={"global_steps": self._global_steps},
        )

    def _request(self, prompt: tuple[int, ...], params: dict[str, Any]) -> Request:
        from trainer_ext.sampling import Request

        room = self._config.prompt_length + self._config.response_length - len(prompt)
        wanted = params.get("max_tokens") or params.get("max_new_tokens") or self._config.response_length
        seed = params.get("seed")
        return Request(
            prompt=prompt,
            max_tokens=min(wanted, room),
            seed=secrets.randbits(63) if seed is None else int(seed),
            temperature=float(params.get("temperature", 1.0)),
            top_k=int(params.get("top_k", -1)),
            top_p=float(params.get("top_p", 1.0)),
        )

    async def _run_batches(self) -> None:
        from trainer_ext.sampling import sample_batch

        limit = self._config.max_num_seqs
        while self._waiting:
            count = 0
            while count < len(self._waiting) < limit:
                count = len(self._waiting)
                await asyncio.sleep(GATHER_S)
            batch, self._waiting = self._waiting[:limit], self._waiting[limit:]
            batch.sort(
                key=lambda item: (item[0].prompt, item[0].seed)
            )  # the order of arrival must not show in the last bits
            requests = [request for request, _ in batch]
            try:
                samples = await asyncio.to_thread(sample_batch, self._model, requests, eos=self._eos, pad=self._pad)
            except Exception as error:  # every caller must hear of it, or the step never ends
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), sample in zip(batch, samples, strict=True):
                future.set_result(sample)


def _end_tokens(model_config: Any) -> frozenset[int]:
    """Every token that ends a response: the tokenizer's, and those of the model's generation config."""
    listed = getattr(getattr(model_config, "generation_config", None), "eos_token_id", None) or []
    return frozenset([model_config.tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])])


def release_weights(model: torch.nn.Module) -> None:
    """Leave parameters their shapes alone; buffers, which no update brings, stay."""
    import torch

    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(parameter.to("meta"), requires_grad=False))
