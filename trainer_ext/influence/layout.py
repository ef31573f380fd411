"""Where the tokens of each response and group stand; made once for all modules of a batch.

Rows are worked on where they lie: the tokens of a response usually come one after another, and only where they do not
are all rows brought into the order of the groups first. Responses of groups without contrast, and groups without a
token, take no part: their tokens keep NaN.

Symbols
    R'          responses that take part, numbered by group
    T'          rows in the order of work: all T as they are, or those that take part
    Omega_g     [n, R_g] weights of the group's responses in each direction (`contrast.py`); n = R_g where the own
                response is excluded, else 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.contrast import contrast_matrix, group_members, response_weights
from trainer_ext.influence.factors import Responses

OUTER_TOKENS, SCORE_TOKENS = 1024, 128
"""Most tokens of a tile in which gradients are summed, and in which scores are made (`kernels.py`)."""
Span = tuple[int, int]
"""Begin and end among the T' rows."""


@dataclass(frozen=True, eq=False)
class Group:
    """A set of responses that are contrasted with one another and share a Hessian."""

    tokens: slice | Tensor
    """Its rows: a slice where they stand together, else int64 [T_g]."""
    size: int
    """T_g."""
    responses: slice
    """Within the R' responses."""
    omega: Tensor
    """float64 [n, R_g]."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Places of one batch on one device."""

    order: Tensor | None
    """int64 [T']: the token of each row, on the device; None where rows are the T tokens as they are."""
    spans: tuple[Span, ...]
    """[R']: the rows of each response."""
    groups: tuple[Group, ...]
    rows: int
    """T'."""
    device: torch.device

    @cached_property
    def owner(self) -> Tensor:
        """int64 [T']: number of each row's response, -1 for none."""
        owner = torch.full((self.rows,), -1, dtype=torch.int64)
        for number, (start, end) in enumerate(self.spans):
            owner[start:end] = number
        return owner.to(self.device)

    @cached_property
    def weights(self) -> Tensor:
        """float64 [sum of n, R']: all Omega_g, block by block."""
        return torch.block_diag(*(group.omega for group in self.groups)).to(self.device)

    @cached_property
    def group_of(self) -> Tensor:
        """int64 [R']: number of each response's group."""
        sizes = torch.tensor([group.responses.stop - group.responses.start for group in self.groups])
        return torch.arange(len(sizes)).repeat_interleave(sizes).to(self.device)

    def tiles(self, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """(start, end, response), int32 [tiles] each: runs of at most `most` rows of one response."""
        if most not in self._tiles:
            runs = [
                (start, min(start + most, last), number)
                for number, (first, last) in enumerate(self.spans)
                for start in range(first, last, most)
            ]
            table = torch.tensor(runs, dtype=torch.int32).reshape(-1, 3).T.contiguous().to(self.device)
            self._tiles[most] = (table[0], table[1], table[2])
        return self._tiles[most]

    def membership(self, most: int) -> Tensor:
        """float64 [R', tiles]: one where a tile of `tiles(most)` belongs to a response, else zero."""
        if most not in self._membership:
            response = self.tiles(most)[2].long()
            numbers = torch.arange(len(self.spans), device=self.device)
            self._membership[most] = (numbers[:, None] == response[None, :]).double()
        return self._membership[most]

    @cached_property
    def _tiles(self) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
        return {}

    @cached_property
    def _membership(self) -> dict[int, Tensor]:
        return {}


Chosen = tuple[Tensor, Tensor]
"""A group before it has a place: members int64 [R_g] on the CPU, Omega [n, R_g]."""


def layout_of(response: Tensor, responses: Responses, config: InfluenceConfig, device: torch.device) -> Layout:
    """The layout of tokens that belong to `response` (int64 [T], rows of `responses`)."""
    counts = response.bincount(minlength=responses.count).tolist()
    chosen: list[Chosen] = []
    for rows in group_members(responses.group, config):
        weights = response_weights(responses.accepted[rows], responses.advantage[rows], config)
        if weights is not None and any(counts[r] for r in rows.tolist()):
            chosen.append((rows.cpu(), contrast_matrix(weights, responses.accepted[rows], config)))
    return arranged(response, counts, chosen, device)


def arranged(response: Tensor, counts: Sequence[int], chosen: Sequence[Chosen], device: torch.device) -> Layout:
    """The layout of given groups.

    Args:
        response: int64 [T].
        counts: tokens of each of the R responses.
        chosen: the groups.
    """
    members = [row for rows, _ in chosen for row in rows.tolist()]
    starts = _starts(response, counts)
    order = None
    if starts is None:
        order = _order(response, members, len(counts))
        ends = list(accumulate((counts[row] for row in members), initial=0))
        spans = list(pairwise(ends))
    else:
        spans = [(starts[row], starts[row] + counts[row]) for row in members]
    groups, first = [], 0
    for rows, omega in chosen:
        place = slice(first, first + len(rows))
        tokens, size = _together(spans[place], device)
        groups.append(Group(tokens, size, place, omega.to(device, torch.float64)))
        first += len(rows)
    count = len(response) if order is None else len(order)
    return Layout(None if order is None else order.to(device), tuple(spans), tuple(groups), count, device)


def _starts(response: Tensor, counts: Sequence[int]) -> dict[int, int] | None:
    """Where each response's tokens begin, or None where those of one do not stand together."""
    values, lengths = torch.unique_consecutive(response, return_counts=True)
    if len(values) != sum(count > 0 for count in counts):
        return None
    ends = accumulate(lengths.tolist(), initial=0)
    starts = dict.fromkeys(range(len(counts)), 0)
    return starts | dict(zip(values.tolist(), ends, strict=False))


def _order(response: Tensor, members: Sequence[int], count: int) -> Tensor:
    place = torch.full((count,), -1, dtype=torch.int64)
    place[torch.tensor(members, dtype=torch.int64)] = torch.arange(len(members))
    token_place = place.to(response.device)[response]
    order = (token_place >= 0).nonzero().flatten()
    return order[token_place[order].argsort(stable=True)]


def _together(spans: Sequence[Span], device: torch.device) -> tuple[slice | Tensor, int]:
    """The rows of some spans, and how many."""
    filled = sorted(span for span in spans if span[1] > span[0])
    size = sum(end - start for start, end in filled)
    if filled[-1][1] - filled[0][0] == size:
        return slice(filled[0][0], filled[-1][1]), size
    return torch.cat([torch.arange(start, end) for start, end in filled]).to(device), size
