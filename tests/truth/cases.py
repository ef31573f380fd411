"""Small batches that influence scoring must get right: ordinary ones, and those that break shortcuts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.truth.brute_force import Flags, Floats, Integers


@dataclass(frozen=True, eq=False)
class Case:
    """Factors of one module and what is known of the responses; shapes as in `trainer_ext.influence.factors`."""

    inputs: Floats
    output_grads: Floats
    response: Integers
    group: Integers
    accepted: Flags
    advantage: Floats


def random_batch(seed: int = 0, tokens: int = 60, k_in: int = 3, k_out: int = 4) -> Case:
    """Three prompts with odd labels, both classes in each, tokens of all responses interleaved."""
    rng = np.random.default_rng(seed)
    group = np.array([7, 3, 7, 100, 3, 7, 100, 3, 7])
    accepted = np.array([1, 0, 0, 1, 1, 1, 0, 0, 0], dtype=bool)
    return Case(
        inputs=rng.normal(size=(tokens, k_in)) + 0.5,
        output_grads=rng.normal(size=(tokens, k_out)),
        response=np.concatenate([np.arange(9), rng.integers(0, 9, size=tokens - 9)]),
        group=group,
        accepted=accepted,
        advantage=rng.normal(size=9),
    )


def heavy_tails() -> Case:
    """A massive mean activation and token norms over four orders of magnitude."""
    case, rng = random_batch(seed=1), np.random.default_rng(2)
    scale = rng.lognormal(sigma=2.0, size=(len(case.response), 1))
    inputs = case.inputs + np.array([100.0, 0.0, 0.0])
    return Case(inputs, case.output_grads * scale, case.response, case.group, case.accepted, case.advantage)


def fewer_tokens_than_dim() -> Case:
    """D = 30, fewer than the tokens of any group: the Hessian has no full rank without its damping."""
    return random_batch(seed=3, tokens=20, k_in=5, k_out=6)


def lonely_responses() -> Case:
    """A prompt answered once, classes of one, a prompt without contrast, a response and a prompt without tokens."""
    rng = np.random.default_rng(4)
    group = np.array([0, 1, 1, 2, 2, 2, 3, 3, 4, 4])
    accepted = np.array([1, 1, 0, 1, 0, 0, 1, 1, 0, 1], dtype=bool)
    response = np.repeat([6, 0, 2, 3, 4, 1, 7], 5)  # response 5 and prompt 4 (responses 8, 9) have no token
    return Case(
        inputs=rng.normal(size=(35, 3)),
        output_grads=rng.normal(size=(35, 2)),
        response=response,
        group=group,
        accepted=accepted,
        advantage=rng.normal(size=10),
    )


def zero_advantages() -> Case:
    """One prompt whose advantages are all zero, one where only a rejected response has any."""
    case = random_batch(seed=5)
    advantage = np.where(case.group == 7, 0.0, case.advantage)
    advantage[(case.group == 3) & case.accepted] = 0.0
    return Case(case.inputs, case.output_grads, case.response, case.group, case.accepted, advantage)


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (random_batch, heavy_tails, fewer_tokens_than_dim, lonely_responses, zero_advantages)
}
