"""verl's synchronous trainer, so that a job killed at any moment and started again leaves what it would have left undisturbed.

Four things: names of prompts and the order of rows do not depend on the run (`trainer_ext.seeds`); a checkpoint counts once its
step is logged, and carries the records of its steps (`trainer_ext.checkpoints`); a job that starts takes up the newest that
counts; and a job that is asked to stop saves one at the end of the step and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer

from trainer_ext import checkpoints, records
from trainer_ext.seeds import prompt_name, repeatable_order
from trainer_ext.writer import attempt_dir


class _AfterLog:
    """A tracking backend of verl's that only hears that a step was logged: the backends before it have written it."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self._heard = heard

    def log(self, data: Mapping[str, Any], step: int) -> None:  # noqa: ARG002
        self._heard()


class ResumableTrainer(PPOTrainerSync):
    """`trainer.save_freq`, `resume_mode`, `default_local_dir` and `max_actor_ckpt_to_keep` mean what they mean in verl."""

    def __init__(self, config: DictConfig) -> None:
        # verl removes the older checkpoint before the newer one is whole; here it goes when that one is confirmed
        self._keep: int | None = config.trainer.max_actor_ckpt_to_keep
        config.trainer.max_actor_ckpt_to_keep = config.trainer.max_critic_ckpt_to_keep = None
        self._attempt = attempt_dir()
        self._resumed_after = 0
        self._saved: Path | None = None
        """Written, not yet confirmed."""
        self._keeps_none = config.trainer.save_freq <= 0 and config.trainer.resume_mode == "auto"
        """A checkpoint is there for resuming alone, because a job was asked to stop."""
        self._prompts: tuple[int, int] = (0, 0)
        """(step, prompts named in it so far)."""
        super().__init__(config)

    # ---- the same names and the same order, whenever and wherever ----------------------------------------------------

    def _fetch_one_gen_batch(self) -> TensorDict:
        batch: TensorDict = super()._fetch_one_gen_batch()
        step, named = self._prompts if self._prompts[0] == self.global_steps else (self.global_steps, 0)
        tu.assign_non_tensor_stack(batch, "uid", [prompt_name(step, named + index) for index in range(len(batch))])
        self._prompts = (step, named + len(batch))
        return batch

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> KVBatchMeta:
        batch.reorder(repeatable_order(batch.keys))
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def _load_checkpoint(self) -> None:
        trainer = self.config.trainer
        if trainer.resume_mode == "auto":
            newest = checkpoints.newest(Path(trainer.default_local_dir).absolute())
            trainer.resume_mode = "resume_path" if newest else "disable"
            trainer.resume_from_path = str(newest) if newest else None
        super()._load_checkpoint()
        self._resumed_after = self.global_steps

    def _save_checkpoint(self) -> None:
        folder = checkpoints.folder_of(Path(self.config.trainer.default_local_dir).absolute(), self.global_steps)
        checkpoints.begin(folder)
        super()._save_checkpoint()
        self._saved = folder

    def on_train_begin(self) -> None:
        super().on_train_begin()
        if self._resumed_after:
            folder = Path(self.config.trainer.resume_from_path)
            for row in checkpoints.restore(folder, self._attempt):
                self.logger.log(row["data"], row["step"], backend=["file"])
            print(f"[resume] goes on after step {self._resumed_after} from {folder}", flush=True)
        self.logger.logger["after"] = _AfterLog(self._confirm)

    def _confirm(self) -> None:
        """The step is logged: its checkpoint, if there is one, counts."""
        if self._saved is not None:
            checkpoints.confirm(self._saved, self._attempt, keep=self._keep)
            self._saved = None
        elif self._keeps_none and self.global_steps >= self.total_training_steps:
            checkpoints.discard(Path(self.config.trainer.default_local_dir))

    # ---- stopping on request -----------------------------------------------------------------------------------------

    def on_step_end(self) -> None:
        if self.global_steps >= self.total_training_steps or not (self._attempt / records.STOP_REQUESTED).exists():
            super().on_step_end()
            return
        print(f"[resume] asked to stop: saves a checkpoint and ends after step {self.global_steps}", flush=True)
        if self._saved is None:
            with marked_timer("save_checkpoint", self.timing_raw):
                self._save_checkpoint()
        self.total_training_steps = self.global_steps  # verl's loop ends by itself, this step being logged as any other
