"""The key `search` of a sweep file as a typed model; what its keys must say of each other is `rules`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from orchestrator.model import Scalar
from orchestrator.search.figures import Constraint, Figure, parse_constraint, parse_figure
from orchestrator.search.space import Domain, parse

Direction = Literal["minimize", "maximize"]


def _domain(text: Any) -> Any:
    if not isinstance(text, str):
        raise ValueError(f"must be text such as 'int(32, 512, log)', not {text!r}")
    parse(text)
    return text


def _constraint(text: str) -> str:
    parse_constraint(text)
    return text


def _objectives(written: dict[str, Direction]) -> dict[str, Direction]:
    for text in written:
        parse_figure(text)
    return written


def _named(value: Any) -> Any:
    """`tpe` stands for `{name: tpe}`."""
    return {"name": value} if isinstance(value, str) else value


class _Named(BaseModel):
    """One of Optuna's parts by name or dotted path; every other key is an argument of it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, Field(min_length=1)]

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class SamplerSpec(_Named):
    name: Annotated[str, Field(min_length=1)] = "tpe"


class PruneSpec(_Named):
    name: Annotated[str, Field(min_length=1)] = "median"
    metric: str | None = None
    """A metric that the trainer logs each step; None: the objective."""


class SearchSpec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    objectives: Annotated[dict[str, Direction], Field(min_length=1), AfterValidator(_objectives)]
    """Figure -> direction."""
    params: Annotated[dict[str, Annotated[str, BeforeValidator(_domain)]], Field(min_length=1)]
    """Name -> domain in the notation of `orchestrator.search.space`."""
    when: dict[str, str] = Field(default_factory=dict)
    """Name -> expression over other parameters: the parameter is set only where it holds."""
    trials: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 20
    sampler: Annotated[SamplerSpec, BeforeValidator(_named)] = SamplerSpec()
    seed: Annotated[int, Field(strict=True, ge=0)] = 0
    constraints: tuple[Annotated[str, AfterValidator(_constraint)], ...] = ()
    """FIGURE <= NUMBER or FIGURE >= NUMBER."""
    reference: dict[str, Scalar] = Field(default_factory=dict)
    """What is changed in a point to get its reference for `fidelity`."""
    prune: Annotated[PruneSpec | None, BeforeValidator(_named)] = None

    @property
    def domains(self) -> dict[str, Domain]:
        return {name: parse(text) for name, text in self.params.items()}

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Of the objectives, in order."""
        return tuple(parse_figure(text) for text in self.objectives)

    @property
    def directions(self) -> tuple[Direction, ...]:
        return tuple(self.objectives.values())

    @property
    def limits(self) -> tuple[Constraint, ...]:
        return tuple(parse_constraint(text) for text in self.constraints)
