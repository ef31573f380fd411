"""verl's synchronous trainer with an influence trace in every step: `trainer.v1.trainer_mode=influence_sync`.

Runs on the driver. It asks the ranks for scores, writes the step's NPZ file and logs the trace's metrics. Everything else is
verl's: sampling, rewards, advantages, the update.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.debug import marked_timer
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

from trainer_ext import routing
from trainer_ext.influence import InfluenceConfig
from trainer_ext.verl_plugin import capture_mode, similarity, vhack
from trainer_ext.verl_plugin import metrics as names
from trainer_ext.verl_plugin.capture_mode import CaptureMode
from trainer_ext.verl_plugin.profiling import FOLDER as PROFILE_FOLDER
from trainer_ext.verl_plugin.refills import capped
from trainer_ext.verl_plugin.responses import acceptance, first_tokens
from trainer_ext.verl_plugin.resumable import ResumableTrainer
from trainer_ext.verl_plugin.rollout import ROLLOUT, launch_server
from trainer_ext.verl_plugin.startup import InlineRewards
from trainer_ext.verl_plugin.worker import MASK, REPORT, REQUEST, SCORES, InfluenceWorker
from trainer_ext.writer import ScoredResponse, attempt_dir, output_dir, write_step

ROUTER = Path(routing.__file__).with_suffix(".yaml")
POLL_INTERVAL_S = 0.2
"""How often the driver looks whether generation has finished; verl's own 2 s are most of a small step."""
SETTINGS = ("enable", "accepted_threshold", "capture", "profile", "similarity", "unprojected_module")
"""Keys of the `influence` section that are the plugin's; the others are fields of InfluenceConfig."""


def split_settings(section: Mapping[str, Any]) -> tuple[InfluenceConfig, dict[str, Any]]:
    """(what to score, how this plugin goes about it) from the `influence` section of the job's config.

    Raises:
        ValueError: an unknown key or a bad value.
    """
    settings = {key: section[key] for key in SETTINGS}
    return InfluenceConfig.from_mapping({key: section[key] for key in section if key not in SETTINGS}), settings


def prompts_per_rank(uids: list[str], lengths: list[int], ranks: int) -> list[int] | None:
    """An order of rows that keeps each prompt's responses on one rank, with about equal work for all.

    Ranks take equal, consecutive shares of the order. None where prompts cannot be dealt out evenly.
    """
    groups: dict[str, list[int]] = {}
    for row, uid in enumerate(uids):
        groups.setdefault(uid, []).append(row)
    members = list(groups.values())
    if len(members) % ranks or len({len(rows) for rows in members}) > 1:
        return None
    work = calculate_workload(torch.tensor(lengths))
    shares = get_seqlen_balanced_partitions(
        [float(work[rows].sum()) for rows in members], k_partitions=ranks, equal_size=True
    )
    return [row for share in shares for group in share for row in members[group]]


class InfluenceTrainer(ResumableTrainer):
    """verl's synchronous trainer, and the trace."""

    def __init__(self, config: DictConfig) -> None:
        self._influence, self._settings = split_settings(dict(OmegaConf.to_object(config.influence)))
        capture_mode.check_setting(
            self._settings["capture"], self._influence, capture_mode.config_obstacles(config, self._influence)
        )
        self._vhack = vhack.settings(dict(OmegaConf.to_object(config.vhack)))
        self._vhack_constants: dict[str, float] = {}
        self._profiled_step: int | None = None
        if not config.actor_rollout_ref.rollout.router_config_path and config.trainer.device == "cpu":
            config.actor_rollout_ref.rollout.router_config_path = str(ROUTER)
        super().__init__(config)

    def _build_replay_buffer(self) -> ReplayBuffer:
        self.trainer_mode = "sync"  # verl branches on this name, not on the class
        buffer = capped(super()._build_replay_buffer, self.config)
        buffer.poll_interval = POLL_INTERVAL_S
        return buffer

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        self._early = self._launch_early() if self.config.trainer.device == "cpu" else []
        for role in (Role.ActorRolloutRef, Role.ActorRollout, Role.Actor):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(InfluenceWorker)

    def _launch_early(self) -> list[Any]:
        """Actors that verl starts after the trainer's worker: here they import while that one does.

        Only where placement does not matter, which on GPUs it does. The handles keep them alive.
        """
        # not at the top: this module is registered while verl's agent loop, which that one needs, is being imported
        from trainer_ext.verl_plugin.agent_loop import launch_agent_loops

        rollout, model = self.config.actor_rollout_ref.rollout, self.config.actor_rollout_ref.model
        ranks = self.config.trainer.n_gpus_per_node * self.config.trainer.nnodes
        servers = [launch_server(rollout, model, rank) for rank in range(ranks)] if rollout.name == ROLLOUT else []
        return [*servers, *launch_agent_loops(rollout.agent.num_workers)]

    def get_reward_handles(self) -> list[Any]:
        return super().get_reward_handles() or [InlineRewards(self.config)]

    def on_train_begin(self) -> None:
        super().on_train_begin()
        print(names.setup_line(self._influence, self._settings), flush=True)

    def _load_checkpoint(self) -> None:
        if self._vhack:  # before weights of a checkpoint take the place of those that directions were extracted from
            model = self.config.actor_rollout_ref.model.path
            line, self._vhack_constants = self.actor_rollout_wg.prepare_vhack(self._vhack, model)[0]
            print(line, flush=True)
        super()._load_checkpoint()

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> KVBatchMeta:
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        ranks = max(self.actor_rollout_wg._dispatch_info["actor"]) + 1
        if ranks > 1 and self._influence.scope == "per_prompt":
            uids = [key.rsplit("_", 2)[0] for key in batch.keys]
            order = prompts_per_rank(uids, [tag["seq_len"] for tag in batch.tags], ranks)
            if order is None:
                print(f"[influence_trace] {len(set(uids))} prompts do not divide over {ranks} ranks; groups are split")
            else:
                batch.reorder(order)
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if not self._settings["enable"]:
            batch = super()._update_actor(batch, metrics)
        else:
            batch = self._update_and_trace(batch, metrics)
        ranks = self.actor_rollout_wg.take_pass_timings()
        self.timing_raw.update({f"influence_{name}": max(seconds[name] for seconds in ranks) for name in ranks[0]})
        if self._vhack:
            found, self.timing_raw["vhack"] = vhack.step_metrics(self.actor_rollout_wg.take_vhack_metrics())
            metrics.update({**self._vhack_constants, **found})
        return batch

    def _update_and_trace(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        mode = self._capture_mode(batch)
        print(mode.line(), flush=True)
        # a batch that went through TransferQueue has lost it, and verl sets it anew only for the update
        batch.extra_info["temperature"] = self.config.actor_rollout_ref.rollout.temperature
        batch.extra_info[REQUEST] = {
            "config": dataclasses.asdict(self._influence),
            **self._settings,
            "inline": mode.inline,
            "step": self.global_steps,
            "profile": self._profile_folder(),
        }
        if mode.inline:
            batch = super()._update_actor(batch, metrics)
            self._trace(batch, metrics, mode)
        else:
            self._trace(batch, metrics, mode)
            batch = super()._update_actor(batch, metrics)
        del batch.extra_info[REQUEST]
        return batch

    def _capture_mode(self, batch: KVBatchMeta) -> CaptureMode:
        """Where this batch's gradients come from."""
        capture = self._settings["capture"]
        if self._influence.output_function == "training_loss" or capture == "separate":
            return capture_mode.decide(capture, self._influence, [], 0, len(batch))
        corrected = (self.config.algorithm.get("rollout_correction") or {}).get("rollout_is")
        fields = ["advantages", "response_mask", *(["rollout_is_weights"] if corrected else [])]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        obstacles = [
            *capture_mode.config_obstacles(self.config, self._influence, rows=len(batch)),
            *capture_mode.batch_obstacles(data["advantages"], data["response_mask"], data.get("rollout_is_weights")),
        ]
        real = torch.tensor([not tag.get("is_padding", False) for tag in batch.tags])
        weightless = capture_mode.without_weight(first_tokens(data["advantages"])) & real
        return capture_mode.decide(capture, self._influence, obstacles, int(weightless.sum()), int(real.sum()))

    def _profile_folder(self) -> str | None:
        """Where to, if this step is the one that is profiled: the run's second, or its only one; the first warms up."""
        if not self._settings["profile"]:
            return None
        if self._profiled_step is None:
            self._profiled_step = min(self.global_steps + 1, self.total_training_steps)
        return str(attempt_dir().resolve() / PROFILE_FOLDER) if self.global_steps == self._profiled_step else None

    def _trace(self, batch: KVBatchMeta, metrics: dict[str, Any], mode: CaptureMode) -> None:
        """Score the batch on its ranks, write the step's file, fill in metrics and timings."""
        with marked_timer("influence", self.timing_raw):
            scored = self.actor_rollout_wg.compute_influence(batch)
            report = names.combine_ranks(_as_list(scored.extra_info[REPORT]))
            self._say_similarity(report)
            rows = self._rows(batch)
            write_step(output_dir(), self.global_steps, rows, self._meta(report, mode))
        for phase, seconds in report["timing"].items():
            self.timing_raw[f"influence_{phase}"] = seconds
        residuals = [m["residual"] for m in report["modules"].values() if m["residual"] is not None]
        metrics.update(
            {
                names.ROWS: len(rows),
                names.TOKENS: report["tokens"],
                names.SCORED_TOKENS: report["scored_tokens"],
                **({names.RESIDUAL: max(residuals)} if residuals else {}),
            }
        )

    def _say_similarity(self, report: Mapping[str, Any]) -> None:
        for line in similarity.lines(self.global_steps, report["similarity"]) if "similarity" in report else ():
            print(line, flush=True)

    def _rows(self, batch: KVBatchMeta) -> list[ScoredResponse]:
        fields = ["responses", "advantages", "uid", "rm_scores", "extra_fields", SCORES, MASK]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        rewards = torch.stack([row.sum() for row in data["rm_scores"].unbind()])
        accepted = acceptance(rewards, list(data["extra_fields"]), self._settings["accepted_threshold"])
        advantages = first_tokens(data["advantages"])
        columns = zip(
            batch.tags,
            data["responses"].unbind(),
            data[SCORES].unbind(),
            data[MASK].unbind(),
            accepted.tolist(),
            advantages.tolist(),
            list(data["uid"]),
            strict=True,
        )
        return [
            ScoredResponse(tokens.numpy(), scores.numpy(), mask.numpy(), accepted, advantage, uid)
            for tag, tokens, scores, mask, accepted, advantage, uid in columns
            if not tag.get("is_padding", False)
        ]

    def _meta(self, report: Mapping[str, Any], mode: CaptureMode) -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(self._influence),
            "settings": self._settings,
            "inline": mode.inline,
            "modules": report["modules"],
            **({"similarity": report["similarity"]} if "similarity" in report else {}),
        }

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float], *args: Any, **kwargs: Any
    ) -> None:
        # verl times the update around our hook: give back what the trace took of it
        timing_raw["update_actor"] = timing_raw.get("update_actor", 0.0) - timing_raw.get("influence", 0.0)
        metrics.update(names.memory_metrics(self.actor_rollout_wg.take_memory_peaks()))
        super()._compute_metrics(batch, metrics, timing_raw, *args, **kwargs)


def _as_list(reports: Any) -> list[Any]:
    """Non-tensor answers come as a list, one for each rank, or alone."""
    return list(reports) if isinstance(reports, list | tuple) else [reports]
