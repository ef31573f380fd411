"""Payloads against the models of Run:ai's own client: what it would refuse, and what it would silently drop."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel, Field, RootModel, ValidationError
from runai import models
from runai.models.project_creation_request import ProjectCreationRequest
from runai.models.project_effective import ProjectEffective
from runai.models.project_status import ProjectStatus


class OrgUnitProject(ProjectCreationRequest):
    """A project as `GET /org-unit/projects` lists it.

    The client's own response model names a class of the same name that describes metrics; this one is put together from
    the creation request and the models of what is added to it.
    """

    id: str
    effective: ProjectEffective | None = None
    status: ProjectStatus | None = None
    created_at: str | None = Field(default=None, alias="createdAt")
    parent: models.DepartmentProjectParent | None = None


class OrgUnitProjects(BaseModel):
    projects: list[OrgUnitProject]
    next: int | None = None


class Clusters(RootModel[list[models.DisplayedCluster]]):
    """`GET /clusters` answers with a bare array."""


def problems(model: type[BaseModel], payload: Any) -> list[str]:
    """What is wrong with a payload, a sentence each, with the place in it; empty when nothing is."""
    try:
        model.model_validate(payload)
    except ValidationError as error:
        return [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
    return [f"{place}: unknown field" for place in unknown_fields(model, payload)]


def unknown_fields(annotation: Any, payload: Any, place: str = "") -> Iterator[str]:
    """Places of keys that no model names; the models themselves would drop them without a word."""
    if isinstance(payload, list):
        for index, item in enumerate(payload):
            yield from unknown_fields(_item(annotation), item, f"{place}[{index}]")
    model = _model(annotation)
    if model is None or not isinstance(payload, dict):
        return
    known = _fields(model)
    for key, value in payload.items():
        inner = f"{place}.{key}".lstrip(".")
        if key in known:
            yield from unknown_fields(known[key], value, inner)
        else:
            yield inner


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows, without Optional and Annotated around them."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _alternatives(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for choice in typing.get_args(annotation):
            yield from _alternatives(choice)
    else:
        yield annotation


@cache
def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """Name on the wire -> annotation."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


@cache
def _model(annotation: Any) -> type[BaseModel] | None:
    choices = [choice for choice in _alternatives(annotation) if isinstance(choice, type)]
    return next((choice for choice in choices if issubclass(choice, BaseModel)), None)


def _item(annotation: Any) -> Any:
    """The type of a list's items."""
    for choice in _alternatives(annotation):
        if typing.get_origin(choice) is list:
            return typing.get_args(choice)[0]
        if isinstance(choice, type) and issubclass(choice, RootModel):
            return _item(choice.model_fields["root"].annotation)
    return Any
