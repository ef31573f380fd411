"""A bearer token for client credentials: `POST /api/v2/token` as OAuth2 has it, the older JSON form where that is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

import httpx

from orchestrator.backends.runai import faults
from orchestrator.backends.runai.faults import Unauthorized
from orchestrator.backends.runai.settings import Credentials
from orchestrator.errors import Unobservable

V2, V1 = "/api/v2/token", "/api/v1/token"
AHEAD_S = 60.0
"""A new token is fetched so long before the old one ends."""
DEFAULT_TTL_S = 600.0
"""Where the answer does not say."""
LONGEST_TTL_S = 1e9
_TOKEN = re.compile(r"[\x21-\x7e]+")
"""What a header can carry."""
_MISSING = (404, 405, 501)


@dataclass(frozen=True, repr=False)
class Token:
    """Has no repr: nothing prints it."""

    value: str
    renew_at: float
    """Seconds since the epoch."""
    form: str
    """The path that gave it."""
    lives_s: float


class TokenSource:
    """Keeps one token and renews it.

    Args:
        send: one request, without authorization; raises `Unobservable` where there is no answer.
        credentials: read anew for each token.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        send: Callable[[httpx.Request], httpx.Response],
        build: Callable[..., httpx.Request],
        credentials: Callable[[], Credentials],
        now: Callable[[], float],
    ) -> None:
        self._send, self._build, self._credentials, self._now = send, build, credentials, now
        self._token: Token | None = None
        self._secrets: set[str] = set()
        """What must never be seen in a message."""

    def get(self) -> Token:
        """A token that is good now.

        Raises:
            Unauthorized: the credentials are refused.
            Unobservable: nobody answers.
            EnvironmentProblem: there are no credentials.
        """
        if self._token is None or self._now() >= self._token.renew_at:
            self._token = self._fetch()
        return self._token

    def drop(self) -> None:
        """It was refused: the next `get` fetches another."""
        self._token = None

    def hide(self, text: str) -> str:
        """The text without the secret and the token, in whichever form a request carries them."""
        forms = {form for known in self._secrets for form in (known, quote(known), quote_plus(known), _in_json(known))}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "***")
        return text

    def _fetch(self) -> Token:
        known = self._credentials()
        self._secrets = {known.client_secret}
        reply = self._send(self._v2(known))
        if reply.status_code in _MISSING or (reply.status_code in (400, 401) and not _is_oauth_error(reply)):
            # a gateway before 2.24 answers for a path that it does not know, each in its own way
            reply, form = self._send(self._v1(known)), V1
        else:
            form = V2
        if reply.status_code in (400, 401, 403):
            said = faults.words(_json(reply), self.hide)
            raise Unauthorized(f"POST {form}", reply.status_code, f"the credentials are refused: {said}")
        if not reply.is_success:
            raise Unobservable(f"POST {form}: {reply.status_code}: no token")
        return self._read(reply, form)

    def _v2(self, known: Credentials) -> httpx.Request:
        form = {
            "grant_type": "client_credentials",
            "client_id": known.client_id,
            "client_secret": known.client_secret,
        }
        return self._build("POST", V2, data=form)

    def _v1(self, known: Credentials) -> httpx.Request:
        body = {
            "grantType": "client_credentials",
            "clientID": known.client_id,
            "clientSecret": known.client_secret,
        }
        return self._build("POST", V1, json=body)

    def _read(self, reply: httpx.Response, form: str) -> Token:
        data = _json(reply)
        value = data.get("access_token") or data.get("accessToken") if isinstance(data, dict) else None
        if not isinstance(value, str) or not _TOKEN.fullmatch(value):
            raise Unobservable(f"POST {form}: {reply.status_code}, but there is no token in the answer")
        ttl = data.get("expires_in", data.get("expiresIn"))
        lives_s = float(ttl) if isinstance(ttl, int | float) and 0 < ttl < LONGEST_TTL_S else DEFAULT_TTL_S
        self._secrets.add(value)
        return Token(value, self._now() + max(lives_s - AHEAD_S, lives_s / 2), form, lives_s)


def _is_oauth_error(reply: httpx.Response) -> bool:
    data = _json(reply)
    return isinstance(data, dict) and "error" in data


def _json(reply: httpx.Response) -> Any:
    try:
        return reply.json()
    except (ValueError, RecursionError):
        return reply.text


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
