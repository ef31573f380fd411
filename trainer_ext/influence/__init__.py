"""Influence of every response token on a contrast of accepted and rejected responses. Pure torch: no trainer, no
cluster.

    with LinearCapture(model, config) as capture:
        for micro_batch in ...:
            capture.select(positions, response)     # which tokens of the coming pass
            loss(model(...)).backward()
        modules = capture.pop()                     # {module name: ModuleFactors}
    result = score_batch(modules, responses, config)
    result.scores                                   # [T], NaN where a group has no contrast

With scope `global` all ranks of a process group call `score_batch_over_ranks(modules, responses, config, group=...)` in
place of `score_batch`; each has its own tokens and responses and gets the scores of those.

`scoring.py` holds the definition of a score.
"""

from trainer_ext.influence.capture import LinearCapture, leading_tokens, target_modules
from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.distributed import score_batch_over_ranks
from trainer_ext.influence.factors import ModuleFactors, Responses
from trainer_ext.influence.pair_table import SimilarityRow
from trainer_ext.influence.projection import projection_dims
from trainer_ext.influence.projection_fidelity import ProjectionFidelity, compare_projection, projection_table
from trainer_ext.influence.scoring import BatchResult, ModuleResult, score_batch, score_module
from trainer_ext.influence.similarity import Similarity, SimilaritySums, similarity
from trainer_ext.influence.storage import FactorStore, StoredFactors
from trainer_ext.influence.timing import PHASES, PhaseTimer

__all__ = [
    "PHASES",
    "BatchResult",
    "FactorStore",
    "InfluenceConfig",
    "LinearCapture",
    "ModuleFactors",
    "ModuleResult",
    "PhaseTimer",
    "ProjectionFidelity",
    "Responses",
    "Similarity",
    "SimilarityRow",
    "SimilaritySums",
    "StoredFactors",
    "compare_projection",
    "leading_tokens",
    "projection_dims",
    "projection_table",
    "score_batch",
    "score_batch_over_ranks",
    "score_module",
    "similarity",
    "target_modules",
]
