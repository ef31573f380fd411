"""Batches dealt out to ranks, scored by them, and held against the oracle's answer to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tests.trainer_ext.influence.against_truth import Options, name, relative_error, truth
from tests.trainer_ext.influence.over_ranks import Answer, Part, RankPool
from tests.truth.brute_force import Floats, Integers
from tests.truth.cases import Case

EXCLUDING: Options = {"scope": "global", "precision": "fp64", "exclude_self_response": True}


FEW: list[Options] = [
    {"hessian_mode": "identity", **EXCLUDING},
    {"solver": "direct", **EXCLUDING},
    {"solver": "pcg", "true_loo": True, **EXCLUDING},
    {"hessian_source": "response", "contrastive_agg": "advantage", **EXCLUDING},
]


def dealt(case: Case, ranks: Integers, size: int) -> list[tuple[Case, Integers]]:
    """What each of `size` ranks has of a case, and which tokens these are, given the rank of each response [R]."""
    parts = []
    for rank in range(size):
        mine = np.flatnonzero(ranks == rank)
        tokens = np.flatnonzero(ranks[case.response] == rank)
        number = np.full(len(case.group), -1)
        number[mine] = np.arange(len(mine))
        part = replace(
            case,
            inputs=case.inputs[tokens],
            output_grads=case.output_grads[tokens],
            response=number[case.response[tokens]],
            group=case.group[mine],
            accepted=case.accepted[mine],
            advantage=case.advantage[mine],
        )
        parts.append((part, tokens))
    return parts


def together(answers: Sequence[Answer], tokens: Sequence[Integers]) -> torch.Tensor:
    """Scores [T] of the whole case from those of its parts."""
    out = torch.zeros(sum(map(len, tokens)), dtype=answers[0].tensor.dtype)
    for answer, own in zip(answers, tokens, strict=True):
        out[torch.from_numpy(own)] = answer.tensor
    return out


def oracle(case: Case, options: Options) -> Floats:
    return truth(case, **{**options, "scope": "all_selected"})


def in_turn(case: Case, size: int) -> Integers:
    """Ranks of responses: dealt out like cards."""
    return np.arange(len(case.group)) % size


def parts_of(cases: Sequence[Case], **options: Any) -> list[Part]:
    return [Part([("q_proj", case)], {"scope": "global", "precision": "fp64", **options}) for case in cases]


def scores_of(
    pool: RankPool, size: int, case: Case, ranks: Integers, **options: Any
) -> tuple[torch.Tensor, list[Answer]]:
    """[T] of the whole case, and what each rank said."""
    shares = dealt(case, ranks, size)
    answers = pool.score(parts_of([part for part, _ in shares], **options))
    return together(answers, [tokens for _, tokens in shares]), answers


def disagreements(
    pool: RankPool, size: int, case: Case, ranks: Integers, every: Sequence[Options], tolerance: float, **more: Any
) -> list[str]:
    """One line for each of the options with which the ranks' scores are not the oracle's of the whole case."""
    lines, known = [], dict[str, Floats]()
    for options in every:
        asked = {key: value for key, value in options.items() if key != "solver"}
        if name(asked) not in known:
            known[name(asked)] = oracle(case, asked)
        scores, answers = scores_of(pool, size, case, ranks, **options, **more)
        error = relative_error(scores, known[name(asked)])
        if not error < tolerance:
            lines.append(f"{name(options)}: {error:.1e}, {answers[0].routes}, {answers[0].residuals}")
    return lines
