"""Hydra's override words as text: writing one from a key and a value, reading the key of one."""

from __future__ import annotations

import re

from orchestrator.model import Scalar

_PLAIN = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_WORDS_WITH_MEANING = {"true", "false", "null", "nan", "inf"}


def assignment(key: str, value: Scalar) -> str:
    """`key=value` such that Hydra's parser gives back exactly `value`, type included."""
    return f"{key}={_written(value)}"


def _written(value: Scalar) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and (not _PLAIN.fullmatch(value) or value.lower() in _WORDS_WITH_MEANING):
        return _quoted(value)
    return str(value)


def _quoted(text: str) -> str:
    """In Hydra's quotes: backslashes count only where they stand before a quote or the end."""
    escaped = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{escaped[len(escaped) - trailing :]}'"


def override_key(override: str) -> str:
    """The configuration key (or group) that an override is about: without prefix, package and value."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]
