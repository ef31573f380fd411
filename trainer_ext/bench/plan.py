"""What a run of the influence benchmark measures, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer_ext.bench import cases as table_cases
from trainer_ext.bench.cases import Case
from trainer_ext.bench.report import Setup
from trainer_ext.bench.shapes import DecoderShape, ModuleShape, linear_types, module_shapes
from trainer_ext.influence import InfluenceConfig


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Raises:
        ValueError: a count below 1, or a factor below 1; the rest is refused where it is used.
    """

    shape: DecoderShape
    layers: int
    tokens: int
    prompts: int
    per_prompt: int
    cases: tuple[Case, ...]
    factors: dict[str, int]
    """Projection factor by case."""
    precision: str
    solver: str
    device: torch.device
    plain: bool
    accuracy: bool
    repeats: int
    distinct: int | None
    seed: int

    def __post_init__(self) -> None:
        counts = {"layers": self.layers, "tokens": self.tokens, "repeats": self.repeats, **self.factors}
        for name, value in counts.items():
            if value < 1:
                option = "factor" if name in self.factors else name
                raise ValueError(f"--{option}: must be 1 or more, got {value}")

    def config(self, case: Case) -> InfluenceConfig:
        """The engine's config of a case in this plan."""
        return self.config_at(case, self.precision)

    def config_at(self, case: Case, precision: str) -> InfluenceConfig:
        """The same with another precision; fp64 is the judge of the others and takes its own route."""
        solver = "auto" if precision == "fp64" else self.solver
        return case.config(factor=self.factors[case.name], precision=precision, solver=solver)

    def module_shapes(self, case: Case) -> tuple[ModuleShape, ...]:
        """The distinct shapes of a case's modules."""
        return module_shapes(linear_types(self.shape), self.factors[case.name], self.layers)

    @property
    def setup(self) -> Setup:
        """The plan as the report states it."""
        return Setup(
            model=self.shape.name,
            layers=self.layers,
            modules=self.layers * sum(kind.per_layer for kind in linear_types(self.shape)),
            tokens=self.tokens,
            prompts=self.prompts,
            per_prompt=self.per_prompt,
            precision=self.precision,
            solver=self.solver,
            repeats=self.repeats,
            seed=self.seed,
            reference_shape=self._reference_shape,
        )

    @property
    def _reference_shape(self) -> bool:
        reference = (
            table_cases.REFERENCE_MODEL,
            table_cases.REFERENCE_TOKENS,
            table_cases.REFERENCE_PROMPTS,
            table_cases.REFERENCE_PER_PROMPT,
        )
        return (
            (self.shape.name, self.tokens, self.prompts, self.per_prompt) == reference
            and self.layers == self.shape.layers
            and self.device.type == "cuda"
            and all(self.factors[case.name] == case.factor for case in self.cases)
        )
