"""Sending the messages of `notices`, each once, through apprise.

URLs hold tokens and passwords: they are read from where the sweep file refers to, handed to apprise, and named by their
reference in every message of ours.
"""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.errors import EnvironmentProblem
from orchestrator.ledger import View
from orchestrator.notices import SENT, Notice, at_the_end, sent_keys, while_running
from orchestrator.secret import name_of, resolve
from orchestrator.spec_model import NotifySpec
from orchestrator.store import Store

TRIES = 3
"""A message that cannot be sent so often is left to the next start of the sweep."""


class Notifier(Protocol):
    @property
    def places(self) -> Sequence[str]:
        """Names of where messages go."""

    def send(self, place: str, title: str, body: str) -> bool:
        """Whether the place took it."""


@dataclass
class Announcer:
    """Tells of one sweep, every place once. `notifier` is None where the sweep file asks for nothing."""

    sweep: str
    store: Store
    notifier: Notifier | None
    kinds: Sequence[str]
    warn: Callable[[str], None]
    _sent: set[str] | None = None
    _tries: Counter[str] = field(default_factory=Counter)

    def progress(self, view: View) -> None:
        """To be called with every tick."""
        if self.notifier is not None:
            self._announce(self.notifier, while_running(self.sweep, view, self.kinds))

    def finished(self, view: View, report: str) -> None:
        if self.notifier is not None:
            self._announce(self.notifier, at_the_end(self.sweep, view, self.kinds, report))

    def _announce(self, notifier: Notifier, notices: Sequence[Notice]) -> None:
        if notices and self._sent is None:
            self._sent = sent_keys(self.store.events(self.sweep))
        for notice in notices:
            for place in notifier.places:
                self._send(notifier, notice, place)

    def _send(self, notifier: Notifier, notice: Notice, place: str) -> None:
        key = f"{notice.key} to {place}"
        if self._sent is None or key in self._sent or self._tries[key] >= TRIES:
            return
        self._tries[key] += 1
        if notifier.send(place, notice.title, notice.body):
            self._sent.add(key)
            self.store.note(self.sweep, SENT + key, notice.point)
        else:
            self.warn(f"the message '{notice.title}' did not reach {place}")


class AppriseNotifier:
    """Args: name -> apprise's URL.

    Raises:
        EnvironmentProblem: apprise is not installed, or it does not know a URL's kind.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        apprise = _import_apprise()
        self._services: dict[str, Any] = {}
        for name, url in urls.items():
            service = apprise.Apprise()
            if not service.add(url):
                raise EnvironmentProblem(f"{name} holds no URL that apprise understands")
            self._services[name] = service

    @property
    def places(self) -> Sequence[str]:
        return tuple(self._services)

    def send(self, place: str, title: str, body: str) -> bool:
        try:
            return bool(self._services[place].notify(title=title, body=body))
        except Exception:  # whatever a service does; its words may hold the URL
            return False


def open_notifier(settings: NotifySpec, environ: Mapping[str, str]) -> Notifier | None:
    """What the sweep file asks for; None where it asks for nothing.

    Raises:
        EnvironmentProblem: a URL is not where it refers to, or apprise is missing.
    """
    if not settings.urls:
        return None
    return AppriseNotifier({name_of(secret): resolve(secret, environ) for secret in settings.urls})


def _import_apprise() -> Any:
    try:
        apprise = importlib.import_module("apprise")
    except ImportError:
        raise EnvironmentProblem(
            "the sweep file asks for notifications, which need apprise: pip install 'influence-orchestrator[notify]'"
        ) from None
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its messages may hold URLs
    return apprise
