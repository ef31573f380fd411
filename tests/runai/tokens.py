"""Bearer tokens: issued, expiring, revoked."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass, field

from orchestrator.clock import Clock

CLIENT_ID = "orchestrator-tests"
CLIENT_SECRET = "s3cr3t-of-the-double"


@dataclass
class Tokens:
    """The service account's tokens. Their form is that of a JWT, because clients read the time in it; nothing is signed."""

    clock: Clock
    ttl_s: float
    _expiry: dict[str, float] = field(default_factory=dict)

    def issue(self) -> str:
        expiry = self.clock.now() + self.ttl_s
        claims = {"exp": int(expiry), "iss": "double", "sub": CLIENT_ID, "jti": secrets.token_hex(8)}
        token = ".".join([_part({"alg": "none", "typ": "JWT"}), _part(claims), "unsigned"])
        self._expiry[token] = expiry
        return token

    def accepts(self, authorization: str | None) -> bool:
        scheme, _, token = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and self._expiry.get(token, 0.0) > self.clock.now()

    def revoke_all(self) -> None:
        """What the administrator does; clients learn by the next 401."""
        self._expiry.clear()


def _part(claims: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
