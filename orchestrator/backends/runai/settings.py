"""From the section `runai` of a sweep file and the environment to what the backend needs. No network.

Every value has one place in the file and one variable; the file wins. Credentials are only ever references here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml
from pydantic import TypeAdapter, ValidationError

from orchestrator import secret
from orchestrator.errors import EnvironmentProblem
from orchestrator.runai_spec import MountSpec, RunaiSpec, is_address

ENV_BASE_URL = "RUNAI_BASE_URL"
ENV_PROJECT = "RUNAI_PROJECT"
"""Run:ai sets it in its own containers: an orchestrator that runs in one finds its project."""
ENV_CLUSTER = "RUNAI_CLUSTER"
ENV_IMAGE = "RUNAI_IMAGE"
ENV_PYTHON = "RUNAI_PYTHON"
ENV_MOUNTS = "RUNAI_MOUNTS"
DEFAULT_PYTHON = "python3"


@dataclass(frozen=True)
class Settings:
    """A resolved `RunaiSpec`."""

    base_url: str
    spec: RunaiSpec
    project: str | None
    """None: the only one that these credentials see."""
    cluster: str | None
    image: str | None
    python: str
    mounts: tuple[MountSpec, ...]

    def inside(self, path: Path) -> Path:
        """Where a container sees a path of this machine.

        Raises:
            EnvironmentProblem: there are mounts, and the path is beneath none of them.
        """
        if not self.mounts:
            return path
        real = Path(os.path.realpath(path))
        beneath = {mount: _local(mount) for mount in self.mounts if real.is_relative_to(_local(mount))}
        if not beneath:
            known = ", ".join(mount.local or mount.path for mount in self.mounts)
            also = "" if real == path else f", which is {real},"
            raise EnvironmentProblem(
                f"{path}{also} is beneath no mount of the section `runai` (there are {known}): a container could not see "
                "it; choose --root on shared storage, or add the mount"
            )
        mount = max(beneath, key=lambda mount: len(str(beneath[mount])))
        if mount.read_only:
            raise EnvironmentProblem(
                f"{path} is beneath a mount that is read_only in the section `runai`; jobs write there"
            )
        inside = PurePosixPath(mount.path) / real.relative_to(beneath[mount])
        seen = max(self.mounts, key=lambda one: len(one.path) if inside.is_relative_to(one.path) else -1)
        if seen.path != mount.path:
            raise EnvironmentProblem(
                f"{path} would be {inside} in a container, but there the section `runai` mounts something else at {seen.path}"
            )
        return Path(inside)


def _local(mount: MountSpec) -> Path:
    """Where a mount is on this machine, links followed: those in a path mean nothing in a container."""
    return Path(os.path.realpath(mount.local or mount.path))


@dataclass(frozen=True, repr=False)
class Credentials:
    """A service account's, or a user's access key. Has no repr: nothing prints it."""

    client_id: str
    client_secret: str


def resolve(spec: RunaiSpec, environ: Mapping[str, str]) -> Settings:
    """The settings.

    Raises:
        EnvironmentProblem: something is neither in the sweep file nor in the environment.
    """
    base_url = spec.base_url or environ.get(ENV_BASE_URL, "").strip().rstrip("/")
    if not is_address(base_url):
        # not repeated: an address with a password in it is none, too
        said = f"{ENV_BASE_URL} is no address" if base_url else f"{ENV_BASE_URL} is not set"
        raise EnvironmentProblem(f"{said}; set it, or runai.base_url, to the control plane's: https://company.run.ai")
    return Settings(
        base_url=base_url,
        spec=spec,
        project=spec.project or environ.get(ENV_PROJECT) or None,
        cluster=spec.cluster or environ.get(ENV_CLUSTER) or None,
        image=spec.image or environ.get(ENV_IMAGE) or None,
        python=spec.python or environ.get(ENV_PYTHON) or DEFAULT_PYTHON,
        mounts=spec.mounts or _mounts(environ.get(ENV_MOUNTS, "")),
    )


def credentials(spec: RunaiSpec, environ: Mapping[str, str]) -> Credentials:
    """The secrets themselves, read now: a file may have a newer one than an hour ago.

    Raises:
        EnvironmentProblem: a reference leads nowhere.
    """
    return Credentials(secret.resolve(spec.client_id, environ), secret.resolve(spec.client_secret, environ))


def _mounts(text: str) -> tuple[MountSpec, ...]:
    if not text.strip():
        return ()
    try:
        return TypeAdapter(tuple[MountSpec, ...]).validate_python(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not YAML"
        raise EnvironmentProblem(
            f"{ENV_MOUNTS} is no list of mounts ({first}); write [{{pvc: NAME, path: /shared, local: /mnt/shared}}]"
        ) from None
