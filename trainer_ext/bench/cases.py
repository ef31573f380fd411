"""The cases of the influence table: which score, at which projection factor, against which figure.

Every case takes contrastive_agg=mean and leaves a token's own response out, as the reference does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer_ext.influence import InfluenceConfig

REFERENCE_NOTE = (
    "reference: seconds of hessian_solve a step of the public tracer doub7e/token-influence at 0fe865c (fp32, 78.3 GiB "
    "for one module at factor 32), one module of each shape x count, one H200, torch 2.11+cu130, T=733,870, R=96, "
    "196 modules of Qwen2.5-1.5B; reach: the goal set for this engine on the same card and shape"
)
"""Where the seconds of `Case.reference_s` and `Case.target_s` come from."""
REFERENCE_TOKENS, REFERENCE_PROMPTS, REFERENCE_PER_PROMPT = 733_870, 6, 16
REFERENCE_MODEL = "Qwen2.5-1.5B"
PEAK_TARGET_GIB = 6.0
"""Goal for memory beyond the factors at factor 32; the reference takes 78 GiB."""
ERROR_TARGETS = {"fast": 1e-3, "fp32": 1e-5}
"""Goal for the rms relative score error against fp64 on the unrounded factors, by precision."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    factor: int
    """Projection factor that the reference and the target belong to."""
    target_s: float
    """Seconds for all modules that the engine is meant to reach."""
    reference_s: float | None = None
    """Seconds that the public reference takes; None: not measured for all modules."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `InfluenceConfig` in which the case differs from inverse / token / mean / own response left out."""

    def config(self, *, factor: int, precision: str, solver: str = "auto") -> InfluenceConfig:
        """The engine's config of this case.

        Raises:
            ValueError: a precision or solver that the engine does not have.
        """
        common = {"hessian_mode": "inverse", "hessian_source": "token", "contrastive_agg": "mean"}
        return InfluenceConfig.from_mapping(
            {
                **common,
                "exclude_self_response": True,
                "projection_dim_factor": factor,
                "precision": precision,
                "solver": solver,
                **self.settings,
            }
        )


_ALL, _PROMPT = {"scope": "all_selected"}, {"scope": "per_prompt"}
CASES: tuple[Case, ...] = (
    Case("f32_all_selected", 32, 15.0, 970.0, _ALL),
    Case("f32_per_prompt", 32, 15.0, 980.0, _PROMPT),
    Case("f64_all_selected", 64, 1.5, 78.0, _ALL),
    Case("f64_per_prompt", 64, 1.5, 81.0, _PROMPT),
    Case("f32_response", 32, 0.3, None, {**_ALL, "hessian_source": "response"}),
    Case("f32_response_per_prompt", 32, 0.3, None, {**_PROMPT, "hessian_source": "response"}),
    Case("f32_identity", 32, 0.3, None, {**_ALL, "hessian_mode": "identity"}),
)


def named_cases(names: Sequence[str]) -> tuple[Case, ...]:
    """The cases of these names, in the table's order; all of them where no name is given.

    Raises:
        ValueError: a name that no case has.
    """
    known = {case.name for case in CASES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"--cases: no case {', '.join(unknown)}; there are {', '.join(case.name for case in CASES)}")
    return tuple(case for case in CASES if not names or case.name in names)
