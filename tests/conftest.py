"""What all tests have in common."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# how long an example takes depends on what else the machine does, and says nothing of the code
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
