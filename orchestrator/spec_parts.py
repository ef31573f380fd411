"""What several sections of the sweep file are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Part(BaseModel):
    """A mapping of the sweep file: it refuses keys that it does not know, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretSpec(Part):
    """A secret by reference: only the reference is ever stored."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    file: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_reference(cls, value: Any) -> Any:
        if isinstance(value, SecretSpec):
            return value
        if not isinstance(value, dict) or sum(part is not None for part in value.values()) != 1:
            raise ValueError("is a secret: write {env: NAME} or {file: PATH}")
        return value
