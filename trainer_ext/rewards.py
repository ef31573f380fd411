"""Rewards for verl: `reward.custom_reward_function.path=pkg://trainer_ext.rewards`, the function chosen by its name.

verl calls the function once per response with the columns of the prompt file (`trainer_ext.assets.prompts`). Both keys of the
answer matter: `score` is the reward, and `acc` is 1 where the response counts as accepted in the influence trace.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from trainer_ext.procedural import cached_dataset

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def extract_answer(response: str, expected: str) -> str:
    """The final answer in a response: what its last `<answer>` tag holds; else, where a number is expected, its last number;
    else all of it."""
    tagged = _TAGGED.findall(response)
    if tagged:
        return str(tagged[-1]).strip()
    if _NUMBER.fullmatch(expected.strip()):
        numbers = _NUMBER.findall(response.replace(",", ""))
        return numbers[-1] if numbers else ""
    return response.strip()


def reasoning_gym(
    data_source: str,  # noqa: ARG001  # verl calls by keyword
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    **_: Any,
) -> dict[str, float]:
    """Score by the verifier of the prompt's own reasoning-gym task; partial credit is reward, never acceptance.

    `extra_info` holds `task`, `task_config` (JSON) and `index`.
    """
    dataset = cached_dataset(str(extra_info["task"]), str(extra_info["task_config"]))
    entry = dataset[int(extra_info["index"])]
    answer = extract_answer(solution_str, ground_truth)
    score = float(dataset.score_answer(answer=answer or None, entry=entry))
    return {"score": score, "acc": float(score >= 1.0)}


def digit_share(
    data_source: str,  # noqa: ARG001
    solution_str: str,
    ground_truth: str,  # noqa: ARG001
    **_: Any,
) -> dict[str, float]:
    """For a model with random weights: how much of the response is digits; accepted where at least one is.

    Random bytes hold a digit about every second time at this profile's length, so groups have both kinds.
    """
    digits = sum(character.isdigit() for character in solution_str)
    return {"score": digits / max(1, len(solution_str)), "acc": float(digits > 0)}


def text_parity(
    data_source: str,  # noqa: ARG001
    solution_str: str,
    ground_truth: str,  # noqa: ARG001
    **_: Any,
) -> dict[str, float]:
    """For responses that no model wrote: accepted or not by the parity of a hash of the text, half of any many."""
    accepted = float(hashlib.sha256(solution_str.encode()).digest()[0] % 2)
    return {"score": accepted, "acc": accepted}
