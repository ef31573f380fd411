"""A search typed by hand: the front of two objectives with a knee, one trial that did not fit, one pruned, one repeated."""

from __future__ import annotations

from reports.snapshot import SweepSnapshot
from reports.trials import SearchSnapshot, TrialSnapshot

VALUES = {0: (1.0, 2.0), 1: (0.95, 0.5), 2: (0.9, 0.6), 3: (0.4, 0.25), 4: (0.95, 0.5)}


def trial(number: int) -> TrialSnapshot:
    return TrialSnapshot(
        number=number,
        point=f"p{1 if number == 4 else number}",
        name=f"job-{1 if number == 4 else number}",
        params={"factor": (32, 64, 96, 512, 64)[number], "scope": "per_prompt" if number % 2 else "all_selected"},
        state="complete",
        values=VALUES[number],
    )


def searched() -> SweepSnapshot:
    return SweepSnapshot(
        "s",
        search=SearchSnapshot(
            sampler="tpe",
            seed=7,
            wanted=10,
            params={"factor": "int(32, 512, log)", "scope": "choice(per_prompt, all_selected)"},
            objectives={"fidelity": "maximize", "timing_s/solve": "minimize"},
            constraints=("memory <= 75",),
            trials=(
                *(trial(number) for number in range(5)),
                TrialSnapshot(5, "p5", "job-5", {"factor": 33}, "infeasible", None, "did not fit into memory"),
                TrialSnapshot(6, "p6", "job-6", {"factor": 400}, "pruned", None, "pruned after step 1", 1.25),
            ),
            front=(0, 1, 3),
            knee=1,
            importance={"fidelity": {"factor": 0.9, "scope": 0.1}, "timing_s/solve": {"factor": 0.75, "scope": 0.25}},
        ),
    )
