"""Names of points, from the template `job_name`: short, readable, unique in the sweep, RFC 1123 safe.

Placeholders are the names of the parameters, `{name}` (of the sweep) and `{index}`. Two points that differ only in what
the template leaves out would share a name: that is an error. Names that became alike only through the safe spelling get
a number.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from orchestrator.model import Scalar

POINT_NAME_LENGTH = 63
BUILT_IN = ("name", "index")
ABSENT = "default"
"""What a placeholder says in a point of `include` that does not set the parameter."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class AmbiguousName(ValueError):
    """Two points share a name because the template leaves out `missing`."""

    def __init__(self, name: str, missing: Sequence[str]) -> None:
        self.name, self.missing = name, tuple(missing)
        super().__init__(f"two points are both called {name}")


def placeholders(template: str) -> list[str]:
    """The names in braces, in order."""
    return _PLACEHOLDER.findall(template)


def default_template(parameters: Iterable[str]) -> str:
    """`{name}` and every parameter with its short name: `factor-scope{scope}-factor{factor}`."""
    return "-".join(["{name}", *(f"{parameter.split('.')[-1]}{{{parameter}}}" for parameter in parameters)])


def with_replicates(template: str, varying: Iterable[str]) -> str:
    """The template with every replicate axis that it leaves out."""
    named = placeholders(template)
    return template + "".join(f"-{axis.split('.')[-1]}{{{axis}}}" for axis in varying if axis not in named)


def safe_name(text: str, length: int = POINT_NAME_LENGTH) -> str:
    """`text` as an RFC 1123 label."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:length].strip("-") or "point"


def point_names(template: str, sweep: str, points: Sequence[Mapping[str, Scalar]]) -> list[str]:
    """One name a point.

    Raises:
        AmbiguousName: the template does not tell two points apart.
    """
    names: list[str] = []
    first_with: dict[str, Mapping[str, Scalar]] = {}
    taken: set[str] = set()
    for index, point in enumerate(points):
        name = safe_name(_fill(template, {"name": sweep, "index": index, **point}))
        if name in first_with and (missing := _untold(template, first_with[name], point)):
            raise AmbiguousName(name, missing)
        first_with.setdefault(name, point)
        names.append(_numbered(name, taken))
        taken.add(names[-1])
    return names


def _fill(template: str, values: Mapping[str, Scalar]) -> str:
    return _PLACEHOLDER.sub(lambda match: _spelled(values.get(match[1], ABSENT)), template)


def _spelled(value: Scalar) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _untold(template: str, one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> list[str]:
    """The parameters in which two points differ, when the template names none of them."""
    differing = [key for key in {**one, **other} if (key in one, one.get(key)) != (key in other, other.get(key))]
    named = placeholders(template)
    return [] if any(key in named for key in differing) else differing


def _numbered(name: str, taken: Collection[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name[: POINT_NAME_LENGTH - len(str(number)) - 1]}-{number}"
    return candidate
