"""verl is imported once, here: on its way in it warns about engines that are not installed, and warnings are errors in tests.

The environment is that of a CPU job: verl settles on a platform while it is imported, once for the process.
"""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")
os.environ.setdefault("VERL_USE_EXTERNAL_MODULES", "trainer_ext.verl_plugin")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import verl.trainer.ppo.v1
    import verl.workers.engine_workers  # noqa: F401
