"""The section `runai` of the sweep file: which control plane, which project, and what every container is given.

What is left out here comes from the environment, so that one sweep file serves several sites; `docs/runai.md` has the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orchestrator import units
from orchestrator.spec_parts import Part, SecretSpec
from trainer_ext.records import ENV_ATTEMPT_TOKEN, ENV_IMAGE

ENV_CLIENT_ID = "RUNAI_CLIENT_ID"
ENV_CLIENT_SECRET = "RUNAI_CLIENT_SECRET"
OWN_VARIABLES = frozenset({ENV_ATTEMPT_TOKEN, ENV_IMAGE, "ORCHESTRATOR_NOTICE_S"})
"""What containers are given besides `environment`."""
VALUE_LENGTH = 10_000
"""Characters of one value that every version of Run:ai takes."""
DAY_S = 86400.0

Preemptibility = Literal["preemptible", "non-preemptible", "semi-preemptible"]

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)(?:$|_)"
)
_LABEL = re.compile(r"(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def _absolute(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or ".." in parts:
        raise ValueError("is a path from the root without `..`, such as /shared")
    return "/" + "/".join(parts)


def is_address(text: str) -> bool:
    """Whether it is a scheme and a host, with a port where there is one: without a path, an account or a password."""
    return re.fullmatch(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", text) is not None


def _url(text: str) -> str:
    if not is_address(text.rstrip("/")):
        raise ValueError("is the address of the control plane, such as https://company.run.ai")
    return text.rstrip("/")


def _text(value: Any) -> Any:
    """Numbers and truth values in place of words, as YAML reads them."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Word = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
Duration = Annotated[float, BeforeValidator(units.seconds)]


class MountSpec(Part):
    """Storage that the containers see, and where this machine sees the same."""

    pvc: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Name of a claim that exists in the project."""
    nfs: Annotated[str, Field(pattern=r"^[^:\s]+:/\S*$")] | None = None
    """SERVER:/EXPORT."""
    host_path: AbsolutePath | None = None
    """A folder of the nodes."""
    path: AbsolutePath
    """Inside the container."""
    local: AbsolutePath | None = None
    """On this machine; None: the same path."""
    read_only: bool = False

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(kind is not None for kind in (self.pvc, self.nfs, self.host_path)) != 1:
            raise ValueError("is one of pvc, nfs and host_path")
        return self


class KeyOfSecret(Part):
    """An environment variable whose value the cluster takes from a Kubernetes secret."""

    secret: Word
    key: Word


class RunaiSpec(Part):
    """Run:ai. Scalars that are None come from the environment: `RUNAI_PROJECT` for `project`, and so on."""

    base_url: Annotated[str, AfterValidator(_url)] | None = None
    client_id: SecretSpec = SecretSpec(env=ENV_CLIENT_ID)
    client_secret: SecretSpec = SecretSpec(env=ENV_CLIENT_SECRET)
    ca_file: str | None = None
    """Certificates that a control plane of one's own is checked against."""
    project: Word | None = None
    cluster: Word | None = None
    """Only where two clusters have a project of that name."""
    image: Word | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[Word, ...] = ()
    python: Word | None = None
    """The interpreter inside the image."""
    working_dir: AbsolutePath | None = None
    mounts: tuple[MountSpec, ...] = ()
    environment: dict[str, Word | KeyOfSecret] = Field(default_factory=dict)
    labels: dict[str, Word] = Field(default_factory=dict)
    priority: Word | None = None
    """A priority class; None: the project's default."""
    preemptibility: Preemptibility | None = None
    large_shm: bool = True
    grace: Duration = 60.0
    """Seconds between the request to stop and the kill."""
    notice: Annotated[float, Field(ge=0)] = 0.0
    """Seconds of them in which the job may save a checkpoint before it is told to stop."""
    keep: Duration = 7 * DAY_S
    """Seconds that a workload stays in Run:ai after its end."""

    @model_validator(mode="after")
    def _environment_can_be_sent(self) -> Self:
        for name, value in self.environment.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"environment: {name!r} is no name of a variable")
            if name in OWN_VARIABLES:
                raise ValueError(f"environment.{name}: the orchestrator needs that for itself")
            if isinstance(value, str) and len(value) > VALUE_LENGTH:
                raise ValueError(f"environment.{name} has {len(value)} characters; Run:ai takes {VALUE_LENGTH}")
            if isinstance(value, str) and _SECRET_NAME.search(name.upper()):
                raise ValueError(f"environment.{name} looks like a secret: write {{secret: NAME, key: KEY}}")
        return self

    @model_validator(mode="after")
    def _labels_are_labels(self) -> Self:
        for name, value in self.labels.items():
            if not (_LABEL.fullmatch(name) and len(name) <= 63 and _LABEL.fullmatch(value) and len(value) <= 63):
                raise ValueError(f"labels: `{name}: {value}` cannot be a label; letters, digits, dots and dashes can")
        return self

    @model_validator(mode="after")
    def _notice_within_grace(self) -> Self:
        if self.notice and self.notice + KILL_S > self.grace:
            raise ValueError(
                f"notice: {self.notice:g} s and {KILL_S:g} s to end do not fit into grace, {self.grace:g} s"
            )
        return self


KILL_S = 25.0
"""What the wrapper needs after the notice: SIGTERM, 20 s, SIGKILL, and to write the outcome."""


def wrong_in_pool(options: Mapping[str, Any]) -> dict[str, str]:
    """Keys of a pool whose values Run:ai could not use, each with what it has to be."""
    wrong = {}
    for key in ("node_pool", "priority"):
        if not isinstance(options.get(key), str | int | None) or isinstance(options.get(key), bool):
            wrong[key] = "is one name"
    kinds = get_args(Preemptibility)
    if options.get("preemptibility") not in (None, *kinds):
        wrong["preemptibility"] = f"is one of {', '.join(kinds)}"
    cores, extended = options.get("cpus"), options.get("extended_resources") or {}
    if cores is not None and (isinstance(cores, bool) or not isinstance(cores, int | float) or cores <= 0):
        wrong["cpus"] = "is a number of cores"
    if not isinstance(extended, Mapping) or any(isinstance(value, dict | list | None) for value in extended.values()):
        wrong["extended_resources"] = "is a mapping such as {rdma/ib: 8}"
    return wrong
