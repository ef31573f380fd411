"""What projecting a step costs in the shapes of SmolLM2-135M: `python docs/benchmarks/vhack.py [--threads N] [--k K]`.

Gradients, directions and steps are random; the cost does not depend on their values. Prints the median of a few calls for each
form, and the plain AdamW step beside it. What a whole step costs says `timing_s/step` of a job.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch
from torch import nn

from trainer_ext.vhack import Projector, VhackConfig
from trainer_ext.vhack.project import Directions

LAYERS = 30
SHAPES = {
    "q_proj": (576, 576),
    "k_proj": (192, 576),
    "v_proj": (192, 576),
    "o_proj": (576, 576),
    "gate_proj": (1536, 576),
    "up_proj": (1536, 576),
    "down_proj": (576, 1536),
}
CALLS = 5


def weights() -> dict[str, nn.Parameter]:
    """Every linear module of a layer, with a gradient."""
    made = {}
    for layer in range(LAYERS):
        for name, shape in SHAPES.items():
            made[f"{layer}.{name}"] = nn.Parameter(0.05 * torch.randn(shape))
    for weight in made.values():
        weight.grad = torch.randn_like(weight)
    return made


def directions(of: dict[str, nn.Parameter], k: int) -> Directions:
    """Random rows of about unit length: nearly orthogonal in so many dimensions."""
    return Directions({name: torch.randn(k, w.numel()) / w.numel() ** 0.5 for name, w in of.items()})


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--k", type=int, default=5)
    arguments = asked.parse_args()
    torch.set_num_threads(arguments.threads)
    trained = weights()
    rows = directions(trained, arguments.k)
    size = sum(axes.nbytes for axes in rows.by_module.values()) / 1024**3
    print(f"{rows.axes} directions, {size:.1f} GiB, threads={arguments.threads}, load {os.getloadavg()[0]:.1f}")
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-5)
    plain = [timed(optimizer) for _ in range(CALLS)]
    print(f"AdamW alone: {shown(plain)}")
    for form in ("gradient", "update"):
        projector = Projector(trained, rows, VhackConfig(file="d", k=arguments.k, form=form))
        with projector.around(optimizer):
            timed(optimizer)  # takes its memory
            projected = [timed(optimizer) for _ in range(CALLS)]
        print(f"{form}: {shown(projected)}, of which the projection is what AdamW alone does not take")


def timed(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """Seconds of a step: of the clock, and of the processor, which other processes disturb less."""
    clock, processor = time.perf_counter(), time.process_time()
    optimizer.step()
    return time.perf_counter() - clock, time.process_time() - processor


def shown(times: list[tuple[float, float]]) -> str:
    clock, processor = zip(*times, strict=True)
    return f"{statistics.median(clock):.2f} s (least {min(clock):.2f}), processor {statistics.median(processor):.2f} s"


if __name__ == "__main__":
    main()
