"""verl's trainer with another trace in every step: `trainer.v1.trainer_mode=influence_schedule`, for the benchmark alone.

A job's start takes a minute or two, so that one job goes through all cases: the config's list `influence_schedule` holds a
whole `influence` section for each step. Registered where `VERL_USE_EXTERNAL_MODULES` names this module behind the plugin's.
"""

from __future__ import annotations

from typing import Any

from trainer_ext.verl_plugin.after_import import after_import

TRAINER_MODE = "influence_schedule"
SCHEDULE = "influence_schedule"
"""Key of the job's config."""


def scheduled_trainer() -> type:
    """The class; made here, because this module is imported while verl is only half imported."""
    from omegaconf import DictConfig, OmegaConf

    from trainer_ext.verl_plugin import capture_mode, metrics
    from trainer_ext.verl_plugin.trainer import InfluenceTrainer, split_settings

    class ScheduledTrainer(InfluenceTrainer):
        """InfluenceTrainer, whose settings are those of the step."""

        def __init__(self, config: DictConfig) -> None:
            sections: list[Any] = OmegaConf.to_object(config[SCHEDULE])  # type: ignore[assignment]
            self._sections = [split_settings(section) for section in sections]
            for influence, settings in self._sections:
                obstacles = capture_mode.config_obstacles(config, influence)
                capture_mode.check_setting(settings["capture"], influence, obstacles)
            super().__init__(config)

        def on_step_begin(self) -> None:
            super().on_step_begin()
            self._influence, self._settings = self._sections[self.global_steps - 1]
            print(metrics.setup_line(self._influence, self._settings), flush=True)

    return ScheduledTrainer


def _register() -> None:
    from verl.trainer.ppo.v1.trainer_base import register_trainer

    register_trainer(TRAINER_MODE)(scheduled_trainer())


after_import("verl.trainer.ppo.v1.trainer_sync", _register)
