"""Secrets by reference: read where they are used, from the environment or a file, and never kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import EnvironmentProblem
from orchestrator.spec_model import SecretSpec


def resolve(secret: SecretSpec, environ: Mapping[str, str]) -> str:
    """The secret itself.

    Raises:
        EnvironmentProblem: there is none where the reference points; names the reference alone.
    """
    if secret.env is not None:
        value = environ.get(secret.env, "")
    else:
        try:
            value = Path(secret.file or "").expanduser().read_text().strip()
        except (OSError, ValueError) as error:
            raise EnvironmentProblem(f"{name_of(secret)} cannot be read: {type(error).__name__}") from None
    if not value:
        raise EnvironmentProblem(f"{name_of(secret)} is not set; the sweep file refers to it")
    return value


def name_of(secret: SecretSpec) -> str:
    """How messages speak of it."""
    return f"the variable {secret.env}" if secret.env is not None else f"the file {secret.file}"
