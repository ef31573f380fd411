"""The influence trace on each rank: verl's actor worker plus a tap on its backward passes and the scoring.

Gradients come from one of two places. With `output_function=training_loss` the real update is tapped: its backward computes
them anyway, so no extra pass is needed, and scores are read after the update. With the log-probability functions a pass of its
own runs before the update. Scores go back through TransferQueue, as verl's own log-probabilities do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from trainer_ext.influence import InfluenceConfig, Responses, score_batch
from trainer_ext.memory import MemoryPeaks, RankMemory
from trainer_ext.verl_plugin.responses import (
    acceptance,
    contrasted,
    first_tokens,
    group_numbers,
    per_response,
    row_numbers,
)
from trainer_ext.verl_plugin.tap import ROW, Captured, Tap, log_prob_objective

REQUEST = "influence_request"
"""Among a batch's non-tensor data: `config` (fields of InfluenceConfig), `accepted_threshold`."""
SCORES, MASK, REPORT = "influence_scores", "influence_mask", "influence_report"
"""What `compute_influence` answers: jagged float32 and bool [B, n], and this rank's `metrics.combine_ranks` report."""


class InfluenceTrainingWorker(TrainingWorker):
    """Trains as verl does, with a tap that can be attached to its passes."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._taps: dict[InfluenceConfig, Tap] = {}

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)
    def train_mini_batch(self, data: TensorDict) -> TensorDict:
        """verl's update; with a trace requested, tapped or without its optimizer step as the settings say."""
        request = tu.pop(data, REQUEST, default=None)
        if request is None:
            return super().train_mini_batch(data)
        config = InfluenceConfig.from_mapping(request["config"])
        with self._optimizer_held(config.skip_optimizer_step):
            if config.output_function != "training_loss":
                return super().train_mini_batch(data)
            data[ROW] = row_numbers(data["response_mask"])
            with self.tap(config).attached():
                return super().train_mini_batch(data)

    def tap(self, config: InfluenceConfig) -> Tap:
        """The tap of these settings; kept, since its projections are as large as a few layers."""
        if config not in self._taps:
            self._taps = {config: Tap(self.engine, config)}
        return self._taps[config]

    def capture_pass(self, data: TensorDict, config: InfluenceConfig) -> None:
        """One forward and backward pass over the batch for its gradients alone; weights and optimizer stay as they are."""
        data = data.clone(recurse=False)
        data[ROW] = row_numbers(data["response_mask"])
        tu.assign_non_tensor(
            data,
            use_remove_padding=self.model_config.get("use_remove_padding", False),
            use_dynamic_bsz=self.engine_config.use_dynamic_bsz,
            max_token_len_per_gpu=self.engine_config.max_token_len_per_gpu,
            micro_batch_size_per_gpu=self.engine_config.micro_batch_size_per_gpu,
            use_fused_kernels=self.engine_config.use_fused_kernels,
            calculate_entropy=False,
        )
        objective = log_prob_objective(weighted=config.output_function == "log_prob_advantage")
        with self.engine.train_mode(), self.tap(config).attached():  # train_mode drops the gradients on leaving
            self.engine.forward_backward_batch(data, loss_function=objective, forward_only=False)

    @contextmanager
    def _optimizer_held(self, hold: bool) -> Iterator[None]:
        """Where `hold`, an update computes and logs its gradient norm and leaves the weights alone."""
        optimizer = self.engine.optimizer
        step = optimizer.step
        if hold:
            optimizer.step = lambda *_args, **_kwargs: None
        try:
            yield
        finally:
            optimizer.step = step


class InfluenceWorker(ActorRolloutRefWorker):
    """verl's worker with the tapped trainer inside and one method more."""

    actor_worker_cls = InfluenceTrainingWorker

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        device = torch.cuda.current_device() if get_device_name() == "cuda" else None
        first_on_node = self.rank % int(os.environ.get("RAY_LOCAL_WORLD_SIZE", "1")) == 0
        self._memory = RankMemory(device, watches_node=first_on_node)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def take_memory_peaks(self) -> MemoryPeaks:
        """This rank's memory since the last call."""
        return self._memory.take()

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_influence(self, data: TensorDict) -> TensorDict:
        """Score every response token of this rank's batch.

        With `training_loss` the tapped update of the same batch must have run; otherwise the capture pass runs here.
        """
        self._memory.sample()  # a phase has ended, and torch still has all that it took
        request = tu.pop(data, REQUEST)
        config = InfluenceConfig.from_mapping(request["config"])
        timing = {}
        if config.output_function != "training_loss":
            start = time.perf_counter()
            self.actor.capture_pass(data, config)
            timing["capture"] = time.perf_counter() - start
        start = time.perf_counter()
        captured = self.actor.tap(config).pop()
        scores, mask, report = score_rows(data, captured, config, request)
        timing["pop_rows"] = time.perf_counter() - start  # the whole, of which the phases are parts
        report["timing"] = {**report["timing"], **timing}
        self._memory.sample()
        return tu.get_tensordict(tensor_dict={SCORES: scores, MASK: mask}, non_tensor_dict={REPORT: report}).cpu()


def score_rows(
    data: TensorDict, captured: Captured, config: InfluenceConfig, request: Mapping[str, Any]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """(scores, mask, report): jagged float32 and bool [B, n] in the batch's order, and what was done."""
    rows = row_numbers(data["response_mask"])
    responses = responses_of(data, rows >= 0, request["accepted_threshold"])
    result = score_batch(captured.modules, responses, config)
    due = contrasted(responses, config)[captured.response]
    lengths = data["response_mask"].offsets().diff().tolist()
    place = (captured.response, captured.token, rows, lengths)
    scores = per_response(result.scores.float().cpu(), *place, empty=torch.nan)
    mask = per_response(due, *place, empty=False)
    modules = {
        name: {"k_in": k_in, "k_out": k_out, "route": result.routes[name], "residual": result.residuals[name]}
        for name, (k_in, k_out) in result.dims.items()
    }
    report = {"tokens": len(due), "scored_tokens": int(due.sum()), "timing": result.timing, "modules": modules}
    return scores, mask, report


def responses_of(data: TensorDict, real: Tensor, threshold: float) -> Responses:
    """The responses of the rows that are `real` (bool [B]), in order."""
    rewards = torch.stack([row.sum() for row in data["rm_scores"].unbind()]).cpu()
    return Responses(
        group=group_numbers(list(data["uid"]))[real],
        accepted=acceptance(rewards, list(data["extra_fields"]), threshold)[real],
        advantage=first_tokens(data["advantages"]).float().cpu()[real],
    )
