"""The influence trace on each rank: verl's actor worker plus a tap on its backward passes and the scoring.

Gradients come from one of two places (`capture_mode.py`). Where the update's backward pass holds them, it is tapped, so that no
extra pass is needed, and scores are read after the update. Else a pass of its own runs before the update. Scores go back
through TransferQueue, as verl's own log-probabilities do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.distributed import ProcessGroup
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id, get_device_name
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from trainer_ext.influence import InfluenceConfig, Responses, score_batch, score_batch_over_ranks
from trainer_ext.memory import MemoryPeaks, RankMemory
from trainer_ext.verl_plugin import vhack
from trainer_ext.verl_plugin.counters import SELECTED_TOKENS, DebugCounters
from trainer_ext.verl_plugin.pass_timing import Pass, PassTimer
from trainer_ext.verl_plugin.profiling import StepProfiler, trace_name
from trainer_ext.verl_plugin.responses import (
    acceptance,
    contrasted,
    first_tokens,
    group_numbers,
    per_response,
    row_numbers,
    weightless_in_contrast,
)
from trainer_ext.verl_plugin.similarity import Comparison, unprojected_module
from trainer_ext.verl_plugin.tap import ROW, Captured, Tap, log_prob_objective
from trainer_ext.vhack import VhackConfig

REQUEST = "influence_request"
"""Among a batch's non-tensor data: `config` (fields of InfluenceConfig), `accepted_threshold`, `inline` (`capture_mode.py`),
`step`, and `profile`, the folder for a trace of this step or None; for the diagnostic `similarity` and `unprojected_module`."""
SCORES, MASK, REPORT = "influence_scores", "influence_mask", "influence_report"
"""What `compute_influence` answers: jagged float32 and bool [B, n], and this rank's `metrics.combine_ranks` report."""


class InfluenceTrainingWorker(TrainingWorker):
    """Trains as verl does, with a tap that can be attached to its passes."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._taps: dict[tuple[InfluenceConfig, str | None], Tap] = {}
        self.pass_timer = PassTimer.on(torch.device(get_device_name()))
        self.counters = DebugCounters()
        self.profiler_of_steps = StepProfiler()
        self.vhack: vhack.Prepared | None = None
        """Projects optimizer steps, once directions are prepared."""

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)
    def train_mini_batch(self, data: TensorDict) -> TensorDict:
        """verl's update; with a trace requested, tapped or without its optimizer step as the settings say."""
        with vhack.around(self.vhack, self.engine.optimizer):
            return self._traced_update(data)

    def _traced_update(self, data: TensorDict) -> TensorDict:
        request = tu.pop(data, REQUEST, default=None)
        if request is None:
            return self._timed_update(data)
        config = InfluenceConfig.from_mapping(request["config"])
        with self.recorded("update", request), self._optimizer_held(config.skip_optimizer_step):
            if not request["inline"]:
                return self._timed_update(data)
            data[ROW] = row_numbers(data["response_mask"])
            tap = self.tap(config, unprojected_module(request))
            with tap.attached():
                if config.output_function == "training_loss":
                    return self._timed_update(data)
                self._pass_for_weightless(data, config, request["accepted_threshold"])
                with tap.of_log_probs():
                    return self._timed_update(data)

    def tap(self, config: InfluenceConfig, unprojected: str | None = None) -> Tap:
        """The tap of these settings; kept, since its projections are as large as a few layers."""
        if (config, unprojected) not in self._taps:
            self._taps = {(config, unprojected): Tap(self.engine, config, self.counters, unprojected)}
        return self._taps[config, unprojected]

    def capture_pass(self, data: TensorDict, config: InfluenceConfig, unprojected: str | None = None) -> None:
        """One forward and backward pass over the batch for its gradients alone; weights and optimizer stay as they are."""
        data = data.clone(recurse=False)
        data[ROW] = row_numbers(data["response_mask"])
        with self.tap(config, unprojected).attached():
            self._gradient_pass(data, config)

    def recorded(self, name: str, request: Mapping[str, Any]) -> AbstractContextManager[None]:
        """A part of a step, profiled where the request says where to."""
        folder = request.get("profile")
        file = Path(folder) / trace_name(request["step"], self.rank) if folder else None
        return self.profiler_of_steps.part(name, file)

    def _timed_update(self, data: TensorDict) -> TensorDict:
        with self.pass_timer.timing(self.engine, "forward_2", "loss_backward"):
            return super().train_mini_batch(data)

    def _gradient_pass(self, data: TensorDict, config: InfluenceConfig) -> None:
        """Forward and backward over the rows of `data`, to a tap that is attached."""
        tu.assign_non_tensor(data, **self._engine_settings(data), calculate_entropy=False)
        objective = log_prob_objective(weighted=config.output_function == "log_prob_advantage")
        timing = self.pass_timer.timing(self.engine, "forward_1", "logprob_backward")
        with self.engine.train_mode(), timing:  # train_mode drops the gradients on leaving
            self.engine.forward_backward_batch(data, loss_function=objective, forward_only=False)

    def _engine_settings(self, data: TensorDict) -> dict[str, Any]:
        """How to run a pass: as the batch says, else as the engine is set, as in verl's own `train_batch`."""
        names = ("use_dynamic_bsz", "max_token_len_per_gpu", "micro_batch_size_per_gpu", "use_fused_kernels")
        settings = {name: getattr(self.engine_config, name) for name in names}
        settings["use_remove_padding"] = self.model_config.get("use_remove_padding", False)
        return {name: tu.get_non_tensor_data(data, name, default=value) for name, value in settings.items()}

    def _pass_for_weightless(self, data: TensorDict, config: InfluenceConfig, threshold: float) -> None:
        """A pass for the responses that the update gives no weight and that the scores need nevertheless.

        Ranks run passes together: all run as many rows as the rank with the most, other rows of theirs to fill up with.
        """
        if config.output_function != "log_prob_reward":
            return
        rows = data[ROW]
        due = torch.zeros(len(rows), dtype=torch.bool)
        due[rows >= 0] = weightless_in_contrast(responses_of(data, rows >= 0, threshold), config)
        most = torch.tensor([int(due.sum())], device=get_device_id())
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX, group=self.engine.get_data_parallel_group())
        if not int(most):
            return
        settings = self._engine_settings(data)
        step = 1 if settings["use_dynamic_bsz"] else settings["micro_batch_size_per_gpu"]
        order = torch.argsort(due, descending=True, stable=True)[: -(-int(most) // step) * step]
        part = tu.index_select_tensor_dict(data, order)
        part[ROW] = torch.where(due[order], rows[order], -1)
        self._gradient_pass(part, config)

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

        Where its capture is inline, the tapped update of the same batch must have run; otherwise the capture pass runs here.
        """
        self._memory.sample()  # a phase has ended, and torch still has all that it took
        request = tu.pop(data, REQUEST)
        config = InfluenceConfig.from_mapping(request["config"])
        with self.actor.recorded("influence", request):
            if not request["inline"]:
                self.actor.capture_pass(data, config, unprojected_module(request))
            start = time.perf_counter()
            ranks = self.actor.engine.get_data_parallel_group()
            captured = self.actor.tap(config, unprojected_module(request)).take()
            scores, mask, report = score_rows(data, captured, config, request, ranks)
            pop_rows = time.perf_counter() - start  # the whole, of which the phases are parts
        report["timing"] = {**report["timing"], "pop_rows": pop_rows}
        report["tokens"] = self.actor.counters.read().get(SELECTED_TOKENS, 0)
        self._memory.sample()
        return tu.get_tensordict(tensor_dict={SCORES: scores, MASK: mask}, non_tensor_dict={REPORT: report}).cpu()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def take_pass_timings(self) -> dict[Pass, float]:
        """Seconds of this rank's forward and backward passes since the last call."""
        return self.actor.pass_timer.read()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def prepare_vhack(self, config: VhackConfig, model: str) -> tuple[str, dict[str, float]]:
        """Have every optimizer step projected from now on; what was kept of the directions, as a line and as metrics.

        To be called while weights are still those of `model`.
        """
        with self.actor.engine.eval_mode():  # brings weights to the device, where they are offloaded
            self.actor.vhack = vhack.prepare(self.actor.engine.module, model, config)
        return self.actor.vhack.line(), self.actor.vhack.constants()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def take_vhack_metrics(self) -> dict[str, float]:
        """What the projections since the last call did."""
        return self.actor.vhack.projector.take_metrics() if self.actor.vhack else {}

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_checkpoint(self, local_path: str, *args: Any, **kwargs: Any) -> None:
        super().save_checkpoint(local_path, *args, **kwargs)
        if self.actor.vhack and self.rank == 0:
            self.actor.vhack.save(Path(local_path))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_checkpoint(self, local_path: str, *args: Any, **kwargs: Any) -> None:
        if self.actor.vhack and local_path is not None:
            self.actor.vhack.restore(Path(local_path))
        super().load_checkpoint(local_path, *args, **kwargs)


def score_rows(
    data: TensorDict,
    captured: Captured,
    config: InfluenceConfig,
    request: Mapping[str, Any],
    ranks: ProcessGroup | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """(scores, mask, report): jagged float32 and bool [B, n] in the batch's order, and what was done.

    With scope `global` all of `ranks` (None: all processes) must call it, in whatever state their batches are.
    """
    rows = row_numbers(data["response_mask"])
    responses = responses_of(data, rows >= 0, request["accepted_threshold"])
    comparison = Comparison(captured, responses, config) if request.get("similarity") else None
    factors = comparison or captured.modules
    if config.scope == "global":
        result = score_batch_over_ranks(factors, responses, config, group=ranks)
        # all ranks' responses are one group, of which this rank sees a part
        due = torch.full((len(captured.response),), "none" not in result.routes.values())
    else:
        result = score_batch(factors, responses, config)
        due = contrasted(responses, config)[captured.response]
    lengths = data["response_mask"].offsets().diff().tolist()
    place = (captured.response, captured.token, rows, lengths)
    scores = per_response(result.scores.float().cpu(), *place, empty=torch.nan)
    mask = per_response(due, *place, empty=False)
    modules = {
        name: {"k_in": k_in, "k_out": k_out, "route": result.routes[name], "residual": result.residuals[name]}
        for name, (k_in, k_out) in result.dims.items()
    }
    report = {"scored_tokens": int(due.sum()), "timing": result.timing, "modules": modules}
    if comparison:
        report["similarity"] = comparison.result()
        report["timing"] = {**result.timing, "similarity": report["similarity"].seconds}
    return scores, mask, report


def responses_of(data: TensorDict, real: Tensor, threshold: float) -> Responses:
    """The responses of the rows that are `real` (bool [B]), in order."""
    rewards = torch.stack([row.sum() for row in data["rm_scores"].unbind()]).cpu()
    return Responses(
        group=group_numbers(list(data["uid"]))[real],
        accepted=acceptance(rewards, list(data["extra_fields"]), threshold)[real],
        advantage=first_tokens(data["advantages"]).float().cpu()[real],
    )
