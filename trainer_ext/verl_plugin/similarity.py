"""The similarity diagnostic: how alike the gradients of a step's responses are (`influence.similarity`).

Captured factors can be read once, and the scores need them. So they are compared as they pass (`Comparison`). Each rank
compares its own responses; the driver makes one table of all ranks' dots and says it on the console:

    [influence_trace] HINV_DOT PER_PROMPT acc-acc mean=145 cos=0.0023 self=250 pairs=1260
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer_ext.influence import (
    InfluenceConfig,
    ModuleFactors,
    ProjectionFidelity,
    Responses,
    Similarity,
    SimilarityRow,
    SimilaritySums,
    compare_projection,
    projection_table,
)
from trainer_ext.influence.timing import Span
from trainer_ext.verl_plugin.tap import Captured

MIB = 2**20


def unprojected_module(request: Mapping[str, Any]) -> str | None:
    """The module that a request wants captured without projection as well."""
    return request.get("unprojected_module") if request.get("similarity") else None


@dataclass(frozen=True, eq=False)
class RankComparison:
    """What one rank found; on the CPU."""

    similarity: Similarity
    module: str | None
    """The one that was captured without projection too."""
    fidelity: ProjectionFidelity | None
    """Of that module."""
    seconds: float
    """Of the device's own work."""


class Comparison:
    """A rank's factors by module name, as `score_batch` takes them, and compared by the time that it has read them all.

    Args:
        captured: whose modules these are.
        responses, config: as for the scores.
    """

    def __init__(self, captured: Captured, responses: Responses, config: InfluenceConfig) -> None:
        self._captured, self._responses = captured, responses
        self._sums = SimilaritySums(responses, config)
        self._module: str | None = None
        self._fidelity: ProjectionFidelity | None = None
        self._spans: list[Span] = []

    def __len__(self) -> int:
        return len(self._captured.modules)

    def items(self) -> Iterator[tuple[str, ModuleFactors]]:
        """Name and factors; asked for once."""
        unprojected = self._captured.unprojected
        watched = None if unprojected is None else next(iter(unprojected.keys()))
        for name, factors in self._captured.modules.items():
            span = Span.on(factors.inputs.device)
            self._sums.add(name, factors)
            if name == watched and unprojected is not None:
                ((self._module, full),) = unprojected.items()
                self._fidelity = compare_projection(factors, full, self._responses)
                del full
            span.close()
            self._spans.append(span)
            yield name, factors
            del factors  # the store may bring the next module while this name is still bound

    def require_finite(self) -> None:
        """Look at what was read so far, as `StoredFactors.require_finite`."""
        self._captured.modules.require_finite()

    def result(self) -> RankComparison:
        """What was found, once all modules have passed."""
        seconds = sum(span.seconds for span in self._spans)
        return RankComparison(self._sums.result(), self._module, self._fidelity, seconds)


def combined(ranks: Sequence[RankComparison], dims: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """All ranks' as one; plain values, None where there is no number.

    Args:
        ranks: in order.
        dims: (k_in, k_out) by module.

    Returns:
        `rows`, fields of `SimilarityRow`; `residual`, the largest; `projection`, fields of `ProjectionRow` with `hessian_mib`,
        what one D x D matrix of float64 takes; and `unprojected`, None or of the unprojected module: its name `module`, `rows`,
        `correlation` and `relative_error_of_self_dots`.
    """
    whole = Similarity.joined([rank.similarity for rank in ranks])
    sizes = projection_table(dims, {name: 8 * (k_in * k_out) ** 2 for name, (k_in, k_out) in dims.items()})
    fidelities = [rank.fidelity for rank in ranks if rank.fidelity is not None]
    unprojected = None
    if fidelities:
        fidelity = ProjectionFidelity.joined(fidelities)
        unprojected = {
            "module": ranks[0].module,
            "rows": [_plain(row) for row in fidelity.rows],
            "correlation": _number(fidelity.correlation),
            "relative_error_of_self_dots": _number(fidelity.relative_error_of_self_dots),
        }
    return {
        "rows": [_plain(row) for row in whole.table()],
        "residual": whole.residual,
        "projection": [_size(dataclasses.asdict(row)) for row in sizes],
        "unprojected": unprojected,
    }


def lines(step: int, found: Mapping[str, Any]) -> list[str]:
    """For the console, what `combined` made of a step."""
    said = [f"similarity of step {step}, residual={_short(found['residual'])}"]
    said += [
        "projection {module_type} modules={modules} k_in={k_in} k_out={k_out} D={dim} hessian={hessian_mib:.0f}MiB".format(
            **row
        )
        for row in found["projection"]
    ]
    said += [_said(row) for row in found["rows"]]
    if unprojected := found["unprojected"]:
        said += [f"{_said(row)} module={unprojected['module']}" for row in unprojected["rows"]]
        named = ("correlation", "relative_error_of_self_dots")
        facts = " ".join(f"{name}={_short(unprojected[name])}" for name in named)
        said.append(f"UNPROJECTED against PROJECTED {facts} module={unprojected['module']}")
    return [f"[influence_trace] {line}" for line in said]


def _said(row: Mapping[str, Any]) -> str:
    numbers = {"mean": row["mean"], "cos": row["cosine"], "self": row["self_dot"]}
    facts = " ".join(f"{name}={_short(value)}" for name, value in numbers.items())
    return f"{row['matrix']} {row['scope']} {row['pair']} {facts} pairs={row['pairs']}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _plain(row: SimilarityRow) -> dict[str, Any]:
    return {name: _number(value) for name, value in dataclasses.asdict(row).items()}


def _number(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _size(row: dict[str, Any]) -> dict[str, Any]:
    size = row.pop("peak_bytes") / MIB
    return {**row, "hessian_mib": size}
