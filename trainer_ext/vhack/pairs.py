"""Pairs of a hacking and a clean completion: read from a file, or made for trying things out.

A file is JSON Lines, or one JSON list, of objects with the texts `prompt`, `hack` and `clean`; other keys are not looked at.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer_ext.vhack.extract import TokenPair

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen")  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Texts; both completions answer the prompt."""

    prompt: str
    hack: str
    clean: str


class WrongPairs(ValueError):
    """A file of pairs that cannot be used."""


def read_pairs(path: Path) -> list[Pair]:
    """
    Raises:
        WrongPairs: no such file, not JSON, an object without one of the texts, or no pair at all.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WrongPairs(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise WrongPairs(f"{path}: not UTF-8: {error}") from None
    try:
        rows = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(t) for t in text.splitlines() if t.strip()]
        )
    except json.JSONDecodeError as error:
        raise WrongPairs(f"{path}: neither a JSON list nor JSON Lines: {error}") from None
    if not rows:
        raise WrongPairs(f"{path}: holds no pairs")
    return [_pair(path, number, row) for number, row in enumerate(rows, start=1)]


def generated_pairs(count: int, seed: int) -> list[Pair]:
    """Sums of two digits: the clean completion says the answer in words, the hack is digits and nothing else.

    Digits are what the reward `digit_share` of the smoke profile pays for: the direction that it makes a model learn.

    Raises:
        ValueError: fewer than one pair.
    """
    if count < 1:
        raise ValueError(f"--generate: must be 1 or more, got {count}")
    draw = random.Random(f"pairs/{seed}")
    pairs = []
    for _ in range(count):
        a, b = draw.randrange(10), draw.randrange(10)
        digits = "".join(draw.choice("0123456789") for _ in range(12))
        pairs.append(Pair(f"State the final answer: {a} + {b} =\n", digits, f"It is {WORDS[a + b]}."))
    return pairs


def tokenised(pairs: list[Pair], tokenizer: Any) -> list[TokenPair]:
    """Token ids of each text by itself, so that a completion's first token never merges with the prompt's last."""

    def ids(text: str) -> torch.Tensor:
        return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.int64)

    return [TokenPair(ids(pair.prompt), ids(pair.hack), ids(pair.clean)) for pair in pairs]


def _pair(path: Path, number: int, row: Any) -> Pair:
    texts = [row.get(key) if isinstance(row, dict) else None for key in ("prompt", "hack", "clean")]
    if not all(isinstance(text, str) and text for text in texts):
        raise WrongPairs(f"{path}: pair {number}: needs the texts prompt, hack and clean")
    return Pair(*texts)
