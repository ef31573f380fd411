"""What a run of the step benchmark does, as one frozen value, and the job's config that follows from it."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trainer_ext
from trainer_ext.assets import qwen2_shape
from trainer_ext.assets.folder import build_once
from trainer_ext.bench.step.cases import StepCase
from trainer_ext.bench.step.report import StepSetup

CONF = Path(trainer_ext.__file__).parent / "conf"
SHAPE, TINY = "Qwen2.5-1.5B", "tiny"
"""Models: that shape, with random weights, and one with the same kinds of layer, small enough for a CPU."""
TINY_CHANGES = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}

SETTINGS = (
    # one sequence a micro-batch: packed ones would need a mask, which costs sdpa its fast kernel
    "actor_rollout_ref.actor.use_dynamic_bsz=false",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
    # with the weights as they are every step sees the same policy, and old log-probabilities hold for all of them
    "actor_rollout_ref.actor.optim.lr=0.0",
    "actor_rollout_ref.rollout.name=replay",
    "actor_rollout_ref.rollout.calculate_log_probs=false",
    "reward.custom_reward_function.name=text_parity",
)
"""Overrides of every run. The rest is the profile's, on a CPU as on a GPU: what runs here runs there."""
ON_CPU = (
    "trainer.device=cpu",
    "++job.env.VERL_PLATFORM=cpu",
    "++job.env.VERL_ENGINE_DEVICE=cuda",
    "++job.env.OMP_NUM_THREADS=1",
)


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """What to measure.

    Raises:
        ValueError: a count below 1, or bounds of the response that are not in order.
    """

    through: str
    """worker or job."""
    device: str
    """cuda or cpu."""
    model: str
    """SHAPE or TINY."""
    layers: int
    profile: str
    overrides: tuple[str, ...]
    cases: tuple[StepCase, ...]
    steps: int
    """Of each case."""
    ranks: int
    prompts: int
    """Of one rank."""
    per_prompt: int
    prompt_tokens: int
    response: tuple[int, int]
    budget_s: float
    """No step begins that would end later, seconds after the start."""
    seed: int

    def __post_init__(self) -> None:
        counts = ("layers", "steps", "ranks", "prompts", "prompt_tokens")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')}: must be 1 or more, got {getattr(self, name)}")
        if self.per_prompt < 2:
            raise ValueError(f"--per-prompt: a contrast takes 2 responses or more, got {self.per_prompt}")
        if not 1 <= self.response[0] <= self.response[1]:
            raise ValueError(f"--response: expected shortest:longest, got {self.response[0]}:{self.response[1]}")

    @classmethod
    def of_mapping(cls, mapping: Mapping[str, Any]) -> StepPlan:
        """A plan out of its JSON."""
        cases = tuple(StepCase(**case) for case in mapping["cases"])
        tuples = {name: tuple(mapping[name]) for name in ("overrides", "response")}
        return cls(**{**mapping, **tuples, "cases": cases})

    @property
    def model_name(self) -> str:
        return f"{self.model}'s shape with random weights, {self.layers} layer(s)"

    @property
    def schedule(self) -> tuple[StepCase, ...]:
        """The case of every step."""
        return tuple(case for case in self.cases for _ in range(self.steps))

    @property
    def setup(self) -> StepSetup:
        """The plan as the report states it."""
        return StepSetup(
            through=self.through,
            model=self.model_name,
            profile=self.profile,
            overrides=self.all_overrides,
            ranks=self.ranks,
            prompts=self.prompts,
            per_prompt=self.per_prompt,
            prompt_tokens=self.prompt_tokens,
            response=self.response,
            seed=self.seed,
        )

    @property
    def all_overrides(self) -> tuple[str, ...]:
        """Of the job's config over its profile, the caller's last."""
        return (
            *SETTINGS,
            *((*ON_CPU, f"++ray_kwargs.ray_init.num_gpus={self.ranks}") if self.device == "cpu" else ()),
            f"trainer.n_gpus_per_node={self.ranks}",
            f"data.train_batch_size={self.prompts * self.ranks}",
            f"data.max_prompt_length={self.prompt_tokens}",
            f"data.max_response_length={self.response[1]}",
            f"actor_rollout_ref.rollout.n={self.per_prompt}",
            f"+actor_rollout_ref.rollout.custom.replay.length=[{self.response[0]},{self.response[1]}]",
            f"trainer.total_training_steps={len(self.schedule)}",
            f"seed={self.seed}",
            *self.overrides,
        )


def compose_job(plan: StepPlan, model_folder: Path) -> dict[str, Any]:
    """The whole config of the job, resolved; placeholders of the orchestrator stay in it.

    Raises:
        ValueError: verl is not installed, an override does not fit, or a case has a setting that does not exist.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    spec = importlib.util.find_spec("verl")  # found, not imported: that takes seconds
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("the step benchmark needs verl: pip install verl==0.9.1")
    places = [f"hydra.searchpath=[file://{Path(spec.submodule_search_locations[0]) / 'trainer' / 'config'}]"]
    overrides = [*places, f"profile={plan.profile}", *plan.all_overrides]
    logging.getLogger("hydra").setLevel(logging.ERROR)
    try:
        with initialize_config_dir(str(CONF), version_base=None):
            config = compose("influence", overrides)
        OmegaConf.set_struct(config, False)
        config.actor_rollout_ref.model.path = str(model_folder)
        config.actor_rollout_ref.actor.optim.total_training_steps = len(plan.schedule)
        resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"the job's config: {error}") from error
    for case in plan.cases:
        influence_section(resolved, case)
    return resolved


def influence_section(job: Mapping[str, Any], case: StepCase) -> dict[str, Any]:
    """The job's `influence` section as a case has it.

    Raises:
        ValueError: a setting that the section does not have.
    """
    section = dict(job["influence"])
    if case.settings is None:
        return {**section, "enable": False}
    unknown = sorted(set(case.settings) - set(section))
    if unknown:
        raise ValueError(f"case {case.name}: the influence section has no {', '.join(unknown)}")
    return {**section, **case.settings, "enable": True}


def build_model(plan: StepPlan, root: Path) -> Path:
    """The folder of the plan's model below `root`, made where it is missing."""
    changes = TINY_CHANGES if plan.model == TINY else {}
    folder = root / f"{plan.model}-{plan.layers}-s{plan.seed}"

    def build(place: Path) -> None:
        qwen2_shape.save(qwen2_shape.make_model(qwen2_shape.make_config(plan.layers, **changes), plan.seed), place)

    build_once(folder, build)
    return folder
