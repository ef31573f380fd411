"""What an anomaly as a rule comes from, and what this program does about it: the words behind each code."""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    cause: str
    done: str


WORDS = {
    "memory_metric_unreliable": Words(
        "torch counts address space: pages that a sleeping rollout engine gave back, or that the allocator maps through "
        "CUDA's virtual memory (expandable segments), stay in its figure; verl's host figure is the whole node's",
        "tables show what the device or the job itself was seen to hold where that was sampled, and mark the rest",
    ),
    "nonzero_exit_after_completion": Words(
        "most often the shutdown of Ray or of the process group after the last step",
        "counted as completed, since every step and every score file is there; not run again",
    ),
    "nan_scores": Words(
        "a solve that failed, or a token without a gradient",
        "left out of the statistics; the files stay as they are",
    ),
    "no_rows_emitted": Words(
        "no prompt had accepted as well as rejected responses, or none of its tokens was selected",
        "shown as it is; such a run says nothing about influence",
    ),
    "timing_all_zero": Words(
        "timers that are reset before they are read", "shown as it is; times of this run are not to be compared"
    ),
    "missing_npz": Words("the job ended early, or writes its scores elsewhere", "counted as incomplete"),
    "corrupt_npz": Words(
        "a write that was cut short, or a disk that was full", "left out of the statistics, and counted as incomplete"
    ),
    "incomplete_steps": Words("the job ended early", "counted as incomplete"),
    "grad_norm_nonfinite": Words("training diverged, or a loss was not finite", "shown as it is"),
    "restarted_after_completion": Words(
        "a scheduler that restarts whatever exits with an error",
        "of a step that was done twice the later figures count",
    ),
    "throughput_outlier": Words("a slow node, a busy neighbour, or a clock that was throttled", "shown as it is"),
    "solver_residual_high": Words(
        "a Hessian that is badly conditioned for the precision it is solved in",
        "shown as it is; scores are good to fewer digits",
    ),
    "oom_recovered": Words(
        "the configuration needs more memory than the pool has", "run again where there is more, by the retry policy"
    ),
    "log_truncated": Words("the job or its node died while it wrote", "judged by what is there"),
}
"""By code; an anomaly that is not here is told by its message alone."""
