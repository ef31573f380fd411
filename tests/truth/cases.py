"""Small batches that influence scoring must get right: ordinary ones, and those that break shortcuts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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
    return replace(case, inputs=inputs, output_grads=case.output_grads * scale)


def extreme_tails() -> Case:
    """Token norms spread evenly over eight orders of magnitude, on both factors: one token in ten holds the Hessian."""
    case, rng = random_batch(seed=6), np.random.default_rng(7)
    power = rng.permutation(np.linspace(-4, 4, len(case.response)))[:, None]
    on_inputs = power * rng.uniform(size=power.shape)
    return replace(case, inputs=case.inputs * 10**on_inputs, output_grads=case.output_grads * 10 ** (power - on_inputs))


def fewer_tokens_than_dim() -> Case:
    """D = 30, fewer than the tokens of any group: the Hessian has no full rank without its damping."""
    return random_batch(seed=3, tokens=20, k_in=5, k_out=6)


def odd_widths() -> Case:
    """7 x 5, neither a multiple of four; responses one after another, in no order."""
    case = random_batch(seed=8, tokens=150, k_in=7, k_out=5)
    order = np.array([4, 8, 0, 3, 7, 1, 6, 2, 5])
    return replace(case, response=order[np.sort(case.response)])


def wide_inputs() -> Case:
    """9 x 2, the tokens dealt out in turn: no two neighbours are of one response."""
    case = random_batch(seed=9, k_in=9, k_out=2)
    return replace(case, response=np.arange(len(case.response)) % 9)


def narrow_inputs() -> Case:
    """k_in = 1."""
    return random_batch(seed=10, k_in=1, k_out=6)


def single_entry() -> Case:
    """D = 1."""
    return random_batch(seed=12, k_in=1, k_out=1)


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


def one_response_a_prompt() -> Case:
    """Nothing to contrast within any prompt."""
    case = random_batch(seed=13)
    return replace(case, group=np.array([5, 2, 8, 0, 1, 9, 4, 7, 3]))


def one_sided_prompts() -> Case:
    """One prompt with accepted responses only, one with rejected ones only, one with both."""
    case = random_batch(seed=14)
    accepted = np.where(case.group == 7, True, np.where(case.group == 3, False, case.accepted))
    return replace(case, accepted=accepted)


def zero_advantages() -> Case:
    """One prompt whose advantages are all zero, one where only a rejected response has any."""
    case = random_batch(seed=5)
    advantage = np.where(case.group == 7, 0.0, case.advantage)
    advantage[(case.group == 3) & case.accepted] = 0.0
    return replace(case, advantage=advantage)


def silent_tokens() -> Case:
    """Zero gradients: by either factor, of a whole response, and of a whole prompt, whose Hessian is then zero."""
    case = random_batch(seed=15)
    inputs, output_grads = case.inputs.copy(), case.output_grads.copy()
    inputs[::7] = 0.0
    output_grads[3::11] = 0.0
    output_grads[(case.response == 4) | (case.group[case.response] == 100)] = 0.0
    return replace(case, inputs=inputs, output_grads=output_grads)


def rank_one() -> Case:
    """All gradients are multiples of one: the Hessian is its damping but for one direction."""
    case, rng = random_batch(seed=16), np.random.default_rng(17)
    size = rng.uniform(0.5, 2.0, size=(len(case.response), 1))
    return replace(case, inputs=size * case.inputs[:1], output_grads=np.tile(case.output_grads[:1], (len(size), 1)))


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        random_batch,
        heavy_tails,
        extreme_tails,
        fewer_tokens_than_dim,
        odd_widths,
        wide_inputs,
        narrow_inputs,
        single_entry,
        lonely_responses,
        one_response_a_prompt,
        one_sided_prompts,
        zero_advantages,
        silent_tokens,
        rank_one,
    )
}
