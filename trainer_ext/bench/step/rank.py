"""One rank of the step benchmark: verl's worker, driven as verl's trainer drives it, with a clock around each part.

`python -m trainer_ext.bench.step.rank FOLDER`, with the environment that torch.distributed wants; `launch.py` starts it. Rank 0
appends what comes out to a file in the folder, a line an event, so that a run cut short leaves what it had.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import verl.trainer.ppo.v1  # noqa: F401  # first: the plugin's trainer is registered while it is imported
from omegaconf import OmegaConf
from tensordict import TensorDict
from torch import Tensor, distributed
from verl.workers.utils.padding import response_from_nested

from trainer_ext.bench.accuracy import relative_rms
from trainer_ext.bench.ceilings import Clock, synchronize
from trainer_ext.bench.step.batch import for_log_probs, for_update, make_batch
from trainer_ext.bench.step.cases import StepCase
from trainer_ext.bench.step.events import Event, append_event
from trainer_ext.bench.step.plan import StepPlan, influence_section
from trainer_ext.bench.step.rank_files import CONFIG, EVENTS, PLAN
from trainer_ext.bench.step.report import INFLUENCE, UPDATE, StepRow, slowest
from trainer_ext.bench.step.schedule import run_schedule
from trainer_ext.memory import GIB
from trainer_ext.replay_server import plain_tokens
from trainer_ext.verl_plugin.capture_mode import (
    batch_obstacles,
    check_setting,
    config_obstacles,
    decide,
    without_weight,
)
from trainer_ext.verl_plugin.responses import first_tokens
from trainer_ext.verl_plugin.trainer import split_settings
from trainer_ext.verl_plugin.worker import REPORT, REQUEST, SCORES, InfluenceWorker


class StepRank:
    """A worker with its batch.

    Args:
        job: the job's whole config.
        clock: seconds, monotonic.

    Raises:
        ValueError: a case asks for a capture that the config rules out.
    """

    def __init__(self, job: Mapping[str, Any], plan: StepPlan, clock: Clock) -> None:
        self._job, self._plan, self._clock = job, plan, clock
        requests = {case.name: self._request(case) for case in plan.cases}
        actor = OmegaConf.create(job["actor_rollout_ref"])
        self.worker = InfluenceWorker(config=actor, role="actor")
        self.worker.init_model()
        self._device = torch.device(self.worker.actor.device_name)
        tokenizer = self.worker.actor.model_config.tokenizer
        self._batch = make_batch(plan, self.worker.rank, plain_tokens(tokenizer))
        self._batch["old_log_probs"] = self._old_log_probs()
        self._requests = {name: self._decided(request) for name, request in requests.items()}
        self._scores: dict[str, Tensor] = {}

    def step(self, case: StepCase, number: int) -> StepRow:
        """One update with the case's trace; what all ranks measured, combined."""
        if number == 1:
            gc.collect()  # no case inherits another's cache
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        self.worker.take_memory_peaks()
        self.worker.take_pass_timings()
        request, why = self._requests[case.name]
        seconds, report = self._traced_update(case, request)
        seconds.update({name: value for name, value in self.worker.take_pass_timings().items() if value})
        peaks = asdict(self.worker.take_memory_peaks())
        del peaks["node"]  # without Ray nothing tells a rank what the other processes of the run are
        own = {
            "seconds": seconds,
            "memory": {name: value / GIB for name, value in peaks.items() if value is not None},
            "tokens": int(self._batch["response_mask"].values().numel()),
            "scored": report.get("scored_tokens", 0),
        }
        ranks: list[Any] = [None] * self._plan.ranks
        distributed.all_gather_object(ranks, own)
        return StepRow(
            case=case.name,
            settings=case.settings,
            step=number,
            seconds=slowest([rank["seconds"] for rank in ranks]),
            memory_gib=slowest([rank["memory"] for rank in ranks]),
            tokens=max(rank["tokens"] for rank in ranks),
            scored_tokens=sum(rank["scored"] for rank in ranks),
            capture=why,
            agreement=self._agreement(case),
        )

    def _traced_update(
        self, case: StepCase, request: Mapping[str, Any] | None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """(seconds by part, the trace's report), in the order of `InfluenceTrainer._update_actor`."""
        seconds: dict[str, float] = {}
        if request is None:
            with self._timed(UPDATE, seconds):
                self.worker.update_actor(for_update(self._batch, self._plan))
            return seconds, {}
        extra = {REQUEST: dict(request)}
        scored: TensorDict | None = None
        for part in (UPDATE, INFLUENCE) if request["inline"] else (INFLUENCE, UPDATE):
            data = for_update(self._batch, self._plan, **extra)
            with self._timed(part, seconds):
                if part == UPDATE:
                    self.worker.update_actor(data)
                else:
                    scored = self.worker.compute_influence(data)
        assert scored is not None
        self._scores[case.name] = scored[SCORES].values()
        report: dict[str, Any] = scored[REPORT]
        return {**seconds, **report["timing"]}, report

    @contextmanager
    def _timed(self, part: str, seconds: dict[str, float]) -> Iterator[None]:
        """Seconds from when all ranks are ready to when this one's device has finished."""
        distributed.barrier()
        synchronize(self._device)
        start = self._clock()
        yield
        synchronize(self._device)
        seconds[part] = self._clock() - start

    def _agreement(self, case: StepCase) -> float | None:
        """Against the last scores of the case that differs in its capture alone."""
        others = (known.name for known in self._plan.cases if case.same_scores_as(known) and known.name in self._scores)
        other = next(others, None)
        return None if other is None else relative_rms(self._scores[case.name], self._scores[other])

    def _old_log_probs(self) -> Tensor:
        """As verl's trainer gets them, from the weights that all steps share: their optimizer has no learning rate."""
        output = self.worker.compute_log_prob(for_log_probs(self._batch))
        return response_from_nested(output["log_probs"], self._batch["response_mask"])

    def _request(self, case: StepCase) -> dict[str, Any] | None:
        if case.settings is None:
            return None
        influence, settings = split_settings(influence_section(self._job, case))
        check_setting(settings["capture"], influence, config_obstacles(self._job, influence))
        return {"config": asdict(influence), **settings, "influence": influence}

    def _decided(self, request: dict[str, Any] | None) -> tuple[dict[str, Any] | None, str]:
        """(what the worker is sent, why its gradients come from where they do)."""
        if request is None:
            return None, ""
        influence = request.pop("influence")
        advantages, mask = self._batch["advantages"], self._batch["response_mask"]
        obstacles = [*config_obstacles(self._job, influence), *batch_obstacles(advantages, mask, None)]
        weightless = int(without_weight(first_tokens(advantages)).sum())
        mode = decide(request["capture"], influence, obstacles, weightless, len(self._batch))
        return {**request, "inline": mode.inline}, f"{'inline' if mode.inline else 'separate'}: {mode.why}"


def _first_rank_says(mine: bool) -> bool:
    answer = [mine]
    distributed.broadcast_object_list(answer, src=0)
    return answer[0]


def main(folder: Path) -> None:
    plan_of = json.loads((folder / PLAN).read_text())
    plan = StepPlan.of_mapping(plan_of["plan"])
    job = OmegaConf.to_container(OmegaConf.load(folder / CONFIG), resolve=True)
    assert isinstance(job, dict)
    first = os.environ["RANK"] == "0"

    def emit(event: Event) -> None:
        if first:
            append_event(folder / EVENTS, event)

    def seconds_gone() -> float:
        return time.time() - float(plan_of["started"])

    rank = StepRank(job, plan, time.perf_counter)
    emit(Event(ready=seconds_gone()))
    run_schedule(rank.step, plan, emit, seconds_gone=seconds_gone, agree=_first_rank_says)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
