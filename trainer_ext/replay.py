"""Responses that no model writes: recorded ones, or random tokens of a given length.

For the rollout `replay` (`trainer_ext.replay_server`), whose steps cost what training costs and nothing else.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LengthSetting = int | Sequence[int] | None


class NothingRecorded(LookupError):
    """A prompt for which the file holds no response, or no further one."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of a response: drawn uniformly between two bounds, both included."""

    low: int
    high: int

    @classmethod
    def parse(cls, setting: LengthSetting, limit: int) -> Lengths:
        """From one number or a pair; `limit` where nothing is set.

        Raises:
            ValueError: no such pair, or a length that is not in [1, limit].
        """
        bounds = [limit] if setting is None else [setting] if isinstance(setting, int) else list(setting)
        if len(bounds) not in (1, 2) or not all(isinstance(bound, int) for bound in bounds):
            raise ValueError(f"rollout replay: length must be a number or [shortest, longest], got {setting!r}")
        low, high = bounds[0], bounds[-1]
        if not 1 <= low <= high <= limit:
            raise ValueError(f"rollout replay: length must lie in [1, {limit}], the response length, got {setting!r}")
        return cls(low, high)


def synthetic_response(seed: int, lengths: Lengths, vocabulary: Sequence[int]) -> list[int]:
    """Random tokens; equal seeds give equal responses, prefix by prefix."""
    draw = random.Random(seed)
    count = draw.randint(lengths.low, lengths.high)
    return draw.choices(vocabulary, k=count)


class RecordedResponses:
    """Responses by prompt, each handed out once and in the file's order.

    Args:
        rows: each with `prompt_ids` and `response_ids` (token ids), or with `input` and `output` (text without special tokens,
            as verl writes it to `trainer.rollout_data_dir`); with `step`, a row is for that training step alone.
        encode: token ids of a recorded text, the end of the response included.

    Raises:
        ValueError: a row that holds neither pair.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], encode: Callable[[str], list[int]]) -> None:
        self._left: dict[tuple[int | None, Any], deque[list[int]]] = defaultdict(deque)
        for number, row in enumerate(rows, 1):
            step = row.get("step")
            if "prompt_ids" in row and "response_ids" in row:
                prompt, response = tuple(map(int, row["prompt_ids"])), [int(token) for token in row["response_ids"]]
            elif "input" in row and "output" in row:
                prompt, response = row["input"], encode(row["output"])
            else:
                raise ValueError(
                    f"rollout replay: row {number} holds neither prompt_ids and response_ids nor input and output, "
                    f"but {', '.join(row)}"
                )
            self._left[step, prompt].append(response)

    def take(self, step: int, prompt: Sequence[int], text: str) -> list[int]:
        """The next response to a prompt.

        Args:
            step: the training step that asks, from 1.
            prompt, text: the prompt's token ids, and what they decode to without special tokens.

        Raises:
            NothingRecorded: the file holds none, or no further one.
        """
        for key in ((step, tuple(prompt)), (None, tuple(prompt)), (step, text), (None, text)):
            if self._left.get(key):
                return self._left[key].popleft()
        raise NothingRecorded(
            f"rollout replay: no response is left for this prompt in step {step}: {text[:80]!r}. The file must hold "
            "rollout.n of them for every prompt of every step; the seed of the data order decides which step asks what"
        )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a .parquet or .jsonl file, or of all .jsonl files of a folder in the order of their numbers.

    Raises:
        ValueError: another kind of file, or a folder without one.
        OSError: it cannot be read.
    """
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"), key=lambda file: (len(file.stem), file.stem))
        if not files:
            raise ValueError(f"rollout replay: {path} holds no .jsonl file")
        return [row for file in files for row in read_rows(file)]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    raise ValueError(f"rollout replay: {path} is neither .parquet, nor .jsonl, nor a folder of .jsonl files")
