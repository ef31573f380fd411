"""Bytes of a job by count: the training bar, the rollout bar, and the host.

Training and rollout take turns on a card, so what it must hold is the larger of the two bars, not their sum.

Symbols
    P      parameters;  N ranks that share them (fully sharded);  w bytes of a weight
    t      tokens of one pass;  T traced tokens of the rank;  V words of the vocabulary

Training bar = resident + max(activations + logits, workspace of scoring) + captured factors on the card
    resident      (w P + 4 P + 8 P) / N: weights, gradients, two moments of Adam; each left out where it is on the host
    activations   2 t (4 h + (2 a + 2 k) d + 4 f) bytes for each layer that is kept, 2 t h for one that is recomputed
                  (counted from a gated decoder layer: two norms' outputs, q, k, v, attention's output, gate, up, product)
    logits        t V times 4 to 12 bytes: in 16 bit and in float32, with or without their gradient at the same time
Rollout bar = its share of the card + resident
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from orchestrator.preflight import influence
from orchestrator.preflight.workload import RESPONSE_SHARE, Workload

GIB = 1024**3

CONTEXT = (1.5 * GIB, 2.5 * GIB, 4 * GIB)
"""CUDA contexts, NCCL's buffers and what a sleeping rollout engine keeps: at least, expected, at most."""
LOGIT_BYTES = (4.0, 8.0, 12.0)
SLACK = (0.95, 1.05, 1.2)
"""Gaps in the allocator's memory, and what the counts leave out."""
SHARES = (0.5, RESPONSE_SHARE, 1.0)
"""Mean length of responses, of the longest."""
NODE_BASE = (15 * GIB, 30 * GIB, 60 * GIB)
RANK_BASE = (5 * GIB, 10 * GIB, 16 * GIB)
"""Host memory of a node and of each of its GPU ranks: Ray, the processes' own imports, pinned buffers, the engine."""
CPU_BASE = (2.2 * GIB, 3.3 * GIB, 4.5 * GIB)
"""Of all processes of a job without GPUs, measured with a model of two layers."""
CPU_WEIGHT_BYTES = (18.0, 24.0, 32.0)
"""Bytes a parameter there: weights, gradients and moments in float32, the rollout's copy, and copies in passing."""


@dataclass(frozen=True)
class Bars:
    """Bytes on one card, for one guess of what the counts leave open."""

    resident: float
    passing: float
    """Activations and logits of one pass."""
    workspace: float
    """Of scoring, two modules' factors included where they come from the host."""
    factors: float
    """All that was captured."""
    rollout_share: float

    @property
    def footprint(self) -> float:
        """With everything on the card: the training bar where memory is no object."""
        return self.resident + max(self.passing, self.workspace) + self.factors

    @property
    def least(self) -> float:
        """With all factors on the host."""
        return self.resident + max(self.passing, self.workspace)

    def factors_on(self, card: float | None) -> float:
        """What the factor store keeps on a card of this size; None: all."""
        if card is None:
            return self.factors
        return min(self.factors, max(0.0, card - influence.RESERVE_BYTES - self.resident - self.passing))

    def on(self, card: float | None) -> float:
        """What is in use on a card of this size at most: the larger bar."""
        rollout = self.rollout_share * card + self.resident if card else 0.0
        return max(self.least + self.factors_on(card), rollout)


@lru_cache(maxsize=1024)
def bars(load: Workload, guess: int) -> Bars:
    """Args: guess 0, 1 or 2: what is at least, expected, at most."""
    tokens = load.traced_tokens(SHARES[guess])
    slack = SLACK[guess]
    half, per_token, workspace = False, 0, 0.0
    if load.trace is not None:
        half = _precision(load) == "fast" and load.cuda
        sides = influence.layer_sides(load.model, load.trace)
        per_token = influence.bytes_per_token(sides * load.model.layers, half)
        workspace = _workspace(load, tokens, half)
    return Bars(
        resident=CONTEXT[guess] + slack * _resident(load),
        passing=slack * (_activations(load) + _logits(load, guess)),
        workspace=slack * workspace,
        factors=tokens * per_token,
        rollout_share=load.rollout_share,
    )


def host_bytes(load: Workload, guess: int, card: float | None) -> float:
    """Of one node."""
    counted = bars(load, guess)
    if not load.cuda:
        logits = 3 * 4 * load.pass_tokens * load.model.vocab
        weights = CPU_WEIGHT_BYTES[guess] * load.model.parameters
        return CPU_BASE[guess] + weights + load.ranks_per_node * (logits + counted.factors + counted.workspace)
    spilled = counted.factors - counted.factors_on(card)
    offloaded = load.model.parameters * (
        (load.weight_bytes if load.weights_on_host else 0) + (8 if load.optimizer_on_host else 0)
    )
    a_rank = RANK_BASE[guess] + spilled + offloaded / load.ranks
    return NODE_BASE[guess] + load.ranks_per_node * a_rank


def _resident(load: Workload) -> float:
    each = 4 + (0 if load.weights_on_host else load.weight_bytes) + (0 if load.optimizer_on_host else 8)
    gathered = 2 * 2 * load.model.layer_parameters + 2 * load.model.embedding_parameters  # two layers ahead, in 16 bit
    return each * load.model.parameters / load.ranks + gathered


def _activations(load: Workload) -> float:
    model = load.model
    width = 4 * model.hidden + 2 * (model.heads + model.kv_heads) * model.head_dim + 4 * model.intermediate
    layer = 2.0 * load.pass_tokens * width
    return layer + 2.0 * load.pass_tokens * model.hidden * model.layers if load.recomputes else layer * model.layers


def _logits(load: Workload, guess: int) -> float:
    return LOGIT_BYTES[guess] * load.pass_tokens * load.model.vocab if load.keeps_logits else 0.0


def _workspace(load: Workload, tokens: float, half: bool) -> float:
    """Of the largest module, with its own factors and the next one's."""
    assert load.trace is not None
    parts = influence.groups(load.trace, tokens, load.responses, load.samples)
    precision = _precision(load)
    return max(
        influence.workspace_bytes(sides, parts, load.trace, cuda=load.cuda, precision=precision)
        + 2 * tokens * influence.bytes_per_token([sides], half)
        for sides in set(influence.layer_sides(load.model, load.trace))
    )


def _precision(load: Workload) -> str:
    asked = load.trace.precision if load.trace else "auto"
    return ("fast" if load.cuda else "fp32") if asked == "auto" else asked
