"""Seconds of a step by counts of operations, at rates that span what was seen: a guess, until something was measured.

Symbols
    P, t    parameters, and tokens that a rank trains on; response tokens alone where generation is meant

A training pass takes 6 P t operations, and 2 P t for each forward pass beside it (recomputed activations, log-probabilities of
the old policy); the trace's own pass, where its output function needs one, takes as much again. Generation is bound by reading
the weights, so that its rate goes with 1 / P. Scoring with a Hessian over tokens takes 2 T M N operations a module and
D^3 / 3 a group (`trainer_ext.influence.cost`); all else that the trace does is small beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from orchestrator.preflight import influence
from orchestrator.preflight.memory import SHARES
from orchestrator.preflight.workload import Workload


@dataclass(frozen=True)
class Rates:
    """Of one rank, each as at best, expected, at worst."""

    training: tuple[float, float, float]
    """Operations a second."""
    generation: tuple[float, float, float]
    """Parameters times tokens, a second."""
    scoring: tuple[float, float, float]
    """Operations a second."""
    start_s: tuple[float, float, float]
    """From the start of the job to its first step, and from its last one to its end."""


GPU = Rates((3e14, 1.2e14, 5e13), (1.2e13, 3e12, 1e12), (5e14, 2.5e14, 5e13), (90.0, 240.0, 900.0))
"""Cards of the H100's kind. Expected rates of training and generation: between the 9e13 and 2.9e12 of eight H200 with 1.5e9
parameters under an older stack, and what the hardware allows."""
CPU = Rates((2e11, 6e10, 2e10), (4e10, 1.2e10, 4e9), (5e10, 1e10, 2e9), (25.0, 50.0, 120.0))
"""Expected rates: two cores, 1.35e8 parameters in float32."""


@lru_cache(maxsize=1024)
def step_seconds(load: Workload, guess: int) -> float:
    """Args: guess 0, 1 or 2: at best, expected, at worst."""
    rates, share = _rates(load), SHARES[guess]
    parameters, responses = load.model.parameters, load.responses
    generated = responses * share * load.response_tokens
    tokens = responses * (load.prompt_tokens + share * load.response_tokens)
    passes = 6 + 2 + (2 if load.recomputes else 0)
    if load.trace is not None and load.trace.output_function != "training_loss":
        passes += 6 + (2 if load.recomputes else 0)
    training = passes * parameters * tokens / rates.training[guess]
    generation = parameters * generated / rates.generation[guess]
    return training + generation + _scoring_operations(load, share) / rates.scoring[guess]


def start_seconds(load: Workload, guess: int) -> float:
    """What an attempt takes beside its steps."""
    return _rates(load).start_s[guess]


def _rates(load: Workload) -> Rates:
    return GPU if load.cuda else CPU


def _scoring_operations(load: Workload, share: float) -> float:
    trace, tokens = load.trace, load.traced_tokens(share)
    if trace is None:
        return 0.0
    parts = influence.groups(trace, tokens, load.responses, load.samples)
    one_layer = 0.0
    for sides in influence.layer_sides(load.model, trace):
        dim = sides[0] * sides[1]
        one_layer += 8 * tokens * dim  # sums over responses, and scores
        for part in parts:
            match influence.route(trace, sides, part):
                case "direct" if trace.source == "token":
                    one_layer += 2 * part.tokens * influence.padded_pairs(sides[0]) * influence.padded_pairs(sides[1])
                    one_layer += dim**3 / 3
                case "direct":
                    one_layer += 2 * part.responses * dim**2 + dim**3 / 3
                case "dual":
                    rows = part.tokens if trace.source == "token" else part.responses
                    one_layer += 2 * rows**2 * sum(sides) + rows**3 / 3
    return one_layer * load.model.layers
