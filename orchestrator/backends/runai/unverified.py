"""What no document of Run:ai settles. The backend works whichever way it is; `doctor --deep` says which way it is here.

`docs/runai.md` repeats the list, and the double of the control plane in `tests/runai/` can behave in each of these ways.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unverified:
    """One open question.

    Args:
        question: what is not known.
        therefore: how the backend gets along with either answer.
        tried: whether the trial job finds it out.
    """

    question: str
    therefore: str
    tried: bool = True


UNVERIFIED: dict[str, Unverified] = {
    "token_form": Unverified(
        "from which release on /api/v2/token answers", "the older form of /api/v1/token is tried where it does not"
    ),
    "token_ttl": Unverified(
        "how long a token lives", "renewed a minute ahead of what the answer says, and after any 401"
    ),
    "app_token": Unverified("whether the grant app_token survives release 3.0", "it is not used", tried=False),
    "backoff_limit_zero": Unverified(
        "whether every version takes backoffLimit 0 and then runs a container once",
        "a container that starts again finds the attempt's claim taken and ends at once",
    ),
    "unknown_fields": Unverified(
        "whether a field that the API does not know is refused or ignored",
        "none is sent; the tests check each body",
        False,
    ),
    "policy_fields": Unverified(
        "which fields a site's policy locks", "the refusal names field and rule, and is shown as it is", tried=False
    ),
    "tokenisation": Unverified(
        "how the strings command and args become words", "args is one path without anything that could be split"
    ),
    "args_limit": Unverified(
        "whether values are limited to 10,000 characters, each or together",
        "everything long is in the attempt folder",
        False,
    ),
    "mpi_defaults": Unverified("whether a PyTorch workload may carry fields of MPI", "none is sent", tried=False),
    "listing_lag": Unverified(
        "how long after its 202 a workload appears in lists",
        "a lost answer is settled after a minute, and the same name is then refused or adopted",
    ),
    "env_in_list": Unverified(
        "whether lists fill in the environment variables", "the workload itself is asked where they do not"
    ),
    "starts_with_filter": Unverified(
        "whether =^ filters by the start of a name", "rows of others are passed over, missing ones asked for by id"
    ),
    "duplicate_status": Unverified(
        "the HTTP status of a name that is taken", "409, or 400 with such words, leads to looking the name up"
    ),
    "wrong_kind_status": Unverified(
        "the status of asking for a training as a distributed workload", "the kind is part of what is remembered"
    ),
    "suspend_phases": Unverified(
        "the phases between the request to suspend and Stopped", "none of them ends an attempt"
    ),
    "ended_status": Unverified(
        "the status of suspending what is over, or deleting what is being deleted", "a refusal is followed by a look"
    ),
    "exit_code_phase": Unverified(
        "the phase after a container failed",
        "only Completed and Failed are ends, and the folder says what they came to",
    ),
    "failure_wording": Unverified(
        "the words of phaseMessage, conditions and events at a failure, and whether they are true",
        "they are shown, and no verdict rests on them but that of a preemption",
    ),
    "log_retention": Unverified(
        "whether the cluster serves logs after the end", "console.log on shared storage is what counts"
    ),
    "deletion_delay": Unverified("how long a deletion takes after its 202", "nothing waits for it"),
    "deleted_status": Unverified(
        "the status of asking by id for a workload that was deleted", "404 and a deletion date mean the same"
    ),
    "name_reuse_after_delete": Unverified(
        "how long a name stays taken after its workload is gone", "no name is used by two attempts", tried=False
    ),
    "preemption_phases": Unverified(
        "the phases of a workload that is preempted",
        "waiting again after the claim is the sign, however it came about",
        False,
    ),
    "preempted_end": Unverified("the phase that terminateAfterPreemption ends in", "it is sent as false", tried=False),
    "degraded_unknown": Unverified(
        "when a healthy workload is called Degraded or Unknown", "neither changes a state to an end", tried=False
    ),
    "rate_limit": Unverified(
        "whether requests are limited",
        "429 and Retry-After are followed; a refused submission uses up no attempt",
        False,
    ),
}
