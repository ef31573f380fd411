"""How fast the console parser reads, and how much memory it takes. Not a test: run it by hand.

    python tests/benchmarks/console_parser.py [MEGABYTES]

The log is synthetic and looks like verl's: Ray's prefixes, engine chatter, progress bars, a metric line every few hundred
lines, now and then a traceback. The second log is the hardest case: metric lines and nothing else.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from orchestrator.collect.console import parse_console

WORDS = [
    *("INFO", "WARNING", "engine", "worker", "rank", "loading", "checkpoint", "shard", "layers", "attention", "tokens"),
    *("batch", "generated", "prompts", "responses", "reward", "advantages", "async", "server", "request", "finished"),
    *("seconds", "deprecated", "transformers", "config", "cache", "usage", "GiB", "profile"),
]
METRICS = [
    f"{group}/{name}" for group in ("actor", "critic", "timing_s", "perf", "response_length") for name in WORDS[:16]
]


def chatter(rng: random.Random) -> str:
    prefix = f"\x1b[36m(WorkerDict pid={rng.randint(1000, 99999)})\x1b[0m "
    text = " ".join(rng.choices(WORDS, k=14))
    return prefix + text + (" GPU memory usage: 71.2 GiB" if rng.random() < 0.05 else f" {rng.random():.4f}")


def metric_line(rng: random.Random, step: int) -> str:
    pairs = " - ".join(f"{name}:{rng.random()!r}" for name in METRICS)
    return f"\x1b[36m(TaskRunnerV1 pid=4121)\x1b[0m step:{step} - {pairs} - num_turns/min:np.int32(2)"


def training_log(rng: random.Random) -> Iterator[str]:
    step = 0
    while True:
        step += 1
        for _ in range(300):
            yield chatter(rng)
        yield metric_line(rng, step)
        yield "\r".join(f"Training Progress:  {k}%|###   | {step}/1000 [00:10<00:10]" for k in range(20))
        if step % 20 == 0:
            yield from (
                "Traceback (most recent call last):",
                '  File "a.py", line 3, in f',
                "    f()",
                "ValueError: no",
            )


def metric_log(rng: random.Random) -> Iterator[str]:
    step = 0
    while True:
        step = step % 100 + 1
        yield metric_line(rng, step)


def write(path: Path, lines: Iterator[str], size: int) -> None:
    piece = bytearray()
    while len(piece) < min(size, 8 << 20):
        piece += next(lines).encode() + b"\n"
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(piece)


def measure(path: Path) -> tuple[float, int, float]:
    """Seconds (best of three), lines, and the peak of Python's own memory in MiB."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        facts = parse_console(path)
        seconds.append(time.perf_counter() - start)
    tracemalloc.start()
    parse_console(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return min(seconds), facts.lines, peak / 2**20


def main() -> None:
    size = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else 200_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "console.log"
        for name, lines in (("training", training_log), ("metrics only", metric_log)):
            write(path, lines(random.Random(0)), size)
            seconds, count, peak = measure(path)
            rate = path.stat().st_size / 1e6 / seconds
            print(f"{name:>12}: {rate:7.0f} MB/s  {count / seconds / 1e3:8.0f} thousand lines/s  peak {peak:.1f} MiB")


if __name__ == "__main__":
    main()
