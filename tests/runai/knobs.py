"""What the documentation of Run:ai does not settle, as knobs of the double: each has settings, and suites run under all.

A setting is a guess; that the product works under every one of them is the proof. `docs/runai.md` repeats the list, and
`doctor --deep` asks a real control plane.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Knobs:
    """One way in which a control plane may behave; `UNVERIFIED` says what each is about. Times are seconds."""

    duplicate_status: int = 409
    unknown_fields: str = "refused"
    tokenisation: str = "shell"
    wrong_kind_status: int = 404
    ended_status: int = 202
    deleted_status: int = 404
    preemption_phases: tuple[str, ...] = ("Pending",)
    preempted_end: str = "Failed"
    suspend_phases: str = "Stopping"
    exit_code_phase: str = "Running"
    degraded_unknown: str = "never"
    backoff_limit_zero: str = "honoured"
    deletion_delay: float = 0.2
    name_reuse_after_delete: float = 0.0
    listing_lag: float = 0.0
    env_in_list: str = "shown"
    starts_with_filter: str = "works"
    log_retention: str = "kept"
    failure_wording: str = "plain"
    token_ttl: float = 3600.0
    token_form: str = "v2"
    app_token: str = "accepted"
    args_limit: int | None = None
    mpi_defaults: str = "accepted"
    rate_limit: int | None = None


@dataclass(frozen=True)
class Unverified:
    """One open question.

    Args:
        question: what nobody can read anywhere.
        others: the settings besides the default.
    """

    question: str
    others: tuple[Any, ...]


UNVERIFIED: dict[str, Unverified] = {
    "duplicate_status": Unverified("the HTTP status of a name that is taken", (400,)),
    "unknown_fields": Unverified("whether a field that the API does not know is refused or ignored", ("ignored",)),
    "tokenisation": Unverified("how the strings command and args become words", ("spaces",)),
    "wrong_kind_status": Unverified("the status of asking for a training as a distributed workload", (400,)),
    "ended_status": Unverified("the status of suspending what is over, or deleting what is being deleted", (400, 404)),
    "deleted_status": Unverified("the status of asking by id for a workload that was deleted", (200,)),
    "preemption_phases": Unverified(
        "the phases of a workload that is preempted",
        (("Stopping", "Pending"), ("Terminating", "Initializing", "Pending")),
    ),
    "preempted_end": Unverified("the phase that terminateAfterPreemption ends in", ("Stopped",)),
    "suspend_phases": Unverified("the phase between the request to suspend and Stopped", ("Terminating", "Running")),
    "exit_code_phase": Unverified(
        "the phase between a failed run and the next under backoffLimit", ("Pending", "Degraded")
    ),
    "degraded_unknown": Unverified("when a healthy workload is called Degraded or Unknown", ("Degraded", "Unknown")),
    "backoff_limit_zero": Unverified("whether backoffLimit 0 is honoured or raised to one", ("raised",)),
    "deletion_delay": Unverified("how long a deletion takes after its 202", (3.0,)),
    "name_reuse_after_delete": Unverified("how long a name stays taken after its workload is gone", (3.0,)),
    "listing_lag": Unverified("how long after its 202 a workload appears in lists", (2.0,)),
    "env_in_list": Unverified("whether lists fill in the environment variables", ("hidden",)),
    "starts_with_filter": Unverified("whether =^ filters by the start of a name", ("ignored",)),
    "log_retention": Unverified("whether the cluster serves logs after the end", ("gone",)),
    "failure_wording": Unverified("the words of phaseMessage at a failure, and whether they are true", ("oom",)),
    "token_ttl": Unverified("how long a token lives", (90.0,)),
    "token_form": Unverified("from which release on /api/v2/token answers", ("v1",)),
    "app_token": Unverified("whether the grant app_token survives release 3.0", ("refused",)),
    "args_limit": Unverified("whether values are limited to 10,000 characters", (10_000,)),
    "mpi_defaults": Unverified("whether a PyTorch workload may carry fields of MPI", ("refused",)),
    "rate_limit": Unverified("whether requests are limited: every n-th is told to come later", (5,)),
}


def variations() -> dict[str, Knobs]:
    """Name -> knobs: the defaults, and each other setting alone."""
    one_off = {
        f"{name}={_word(setting)}": replace(Knobs(), **{name: setting})
        for name, unverified in UNVERIFIED.items()
        for setting in unverified.others
    }
    return {"defaults": Knobs()} | one_off


def settings(name: str) -> tuple[Any, ...]:
    """All settings of a knob, the default first."""
    default = next(field.default for field in fields(Knobs) if field.name == name)
    return (default, *UNVERIFIED[name].others)


def _word(setting: Any) -> str:
    return "-".join(setting) if isinstance(setting, tuple) else str(setting)
