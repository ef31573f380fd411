"""One point on each pool, by formula alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.model import Estimate, Forecast, Prediction
from orchestrator.preflight.memory import bars, host_bytes
from orchestrator.preflight.models import model_name
from orchestrator.preflight.seconds import start_seconds, step_seconds
from orchestrator.preflight.workload import LookUp, Workload, workload

NO_POOL = ""
"""The pool of a machine without GPUs."""


def predict(config: Mapping[str, Any], cards: Mapping[str, int | None], shape_of: LookUp) -> Prediction:
    """What a point will take. Where its configuration says too little, only its kind is known.

    Args:
        config: resolved, placeholders and all.
        cards: by pool, bytes of one card; None: not known. Empty: there are no pools.
        shape_of: the model behind a path, where it is known.
    """
    load = workload(config, shape_of)
    if load is None:
        return Prediction(kind_of(config))
    formula = {pool: _forecast(load, card) for pool, card in (cards or {NO_POOL: None}).items()}
    footprint = bars(load, 1).footprint if load.cuda else None
    return Prediction(kind_of(config), load.features(), footprint, formula, formula)


def kind_of(config: Mapping[str, Any]) -> str:
    """The program that runs and the model that it trains."""
    words = (config.get("job") or {}).get("command") or []
    program = next((str(word) for word in words if not str(word).startswith(("{python}", "-"))), "")
    model = ((config.get("actor_rollout_ref") or {}).get("model") or {}).get("path")
    return f"{program} {model_name(str(model))}" if model else program


def _forecast(load: Workload, card: int | None) -> Forecast:
    steps = load.steps
    step_s = _estimate(lambda guess: step_seconds(load, guess))
    whole = _estimate(lambda guess: start_seconds(load, guess) + (steps or 0) * step_seconds(load, guess))
    return Forecast(
        gpu_bytes=_estimate(lambda guess: bars(load, guess).on(card)) if load.cuda else None,
        gpu_least_bytes=bars(load, 1).least if load.cuda else None,
        host_bytes=_estimate(lambda guess: host_bytes(load, guess, card)),
        step_s=step_s,
        seconds=whole if steps else None,
    )


def _estimate(of_guess: Callable[[int], float]) -> Estimate:
    low, value, high = (of_guess(guess) for guess in range(3))
    return Estimate(value, min(low, value), max(high, value))
