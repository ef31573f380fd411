"""What makes a run repeatable, wherever it starts: names of prompts and seeds of responses that follow from the configuration.

verl names each prompt with a random UUID and lets a sampler draw from wherever its generator happens to be; a job that resumes
would name and sample otherwise than one that was never disturbed. Standard library only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def prompt_name(step: int, index: int) -> str:
    """The `uid` of the prompt number `index` (from 0) of a step. It holds no underscore: verl splits its keys there."""
    return f"{step:06d}-{index:05d}"


def response_seed(seed: int, step: int, prompt: str, replica: int) -> int:
    """The seed of one response, in [0, 2^63): equal for equal arguments, and unrelated for others.

    Args:
        seed: the run's.
        step: the training step.
        prompt: its name.
        replica: which of the prompt's responses.
    """
    key = repr((seed, step, prompt, replica)).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "little") >> 1


def repeatable_order(keys: Sequence[str]) -> list[int]:
    """The order of a batch's rows that does not depend on which response was ready first.

    Args:
        keys: verl's, `{prompt}_{replica}_{output}`.
    """

    def place(row: int) -> tuple[str, int, int]:
        prompt, replica, output = keys[row].rsplit("_", 2)
        return prompt, int(replica), int(output)

    return sorted(range(len(keys)), key=place)
