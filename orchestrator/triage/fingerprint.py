"""Whether two failures are the same failure: a hash of the exception without what differs from run to run."""

from __future__ import annotations

import hashlib
import re

from orchestrator.triage.evidence import Signature

LENGTH = 12

_VARYING = (
    (re.compile(r"^\(?\w+ pid=\d+[^)]*\)\s*|^\[rank\d+\]:\s*"), ""),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*"), "<time>"),
    (re.compile(r"0x[0-9a-fA-F]+"), "<address>"),
    (re.compile(r"\b[0-9a-fA-F]{16,}\b"), "<id>"),
    (re.compile(r"(?:[A-Za-z]:)?(?:/[\w.@+~-]+){2,}/?"), "<path>"),
    (re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"), "<n>"),
    (re.compile(r"\s+"), " "),
)
_LINE_NUMBER = re.compile(r":\d+ in ")


def normalise(text: str) -> str:
    """The text without process prefixes, times, addresses, ids, paths and numbers."""
    for varying, name in _VARYING:
        text = varying.sub(name, text)
    return text.strip()


def fingerprint(signature: Signature) -> str:
    """First hexadecimal digits of the hash of a failure: its code, its words and the function that it came from."""
    where = _LINE_NUMBER.sub(" in ", signature.where or "")
    return hashlib.sha256("\n".join((signature.code, normalise(signature.text), where)).encode()).hexdigest()[:LENGTH]
