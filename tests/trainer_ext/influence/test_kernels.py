"""The Triton kernels in Triton's interpreter against their plain equivalents; on a GPU `test_gpu.py` runs them compiled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

SCRIPT = """
import torch
from trainer_ext.influence import cholesky, cholesky_kernels, kernels
from trainer_ext.influence.gram import compact_gram
from trainer_ext.influence.pairs import compact_diagonal, pair_features, padded_pairs

torch.manual_seed(0)

def close(found, wanted, tolerance, what):
    error = float((found.double() - wanted.double()).norm() / wanted.double().norm())
    assert error < tolerance, (what, error)

for k_large, k_small in ((20, 5), (70, 12), (9, 7)):
    tokens = 50
    large, small = torch.randn(tokens, k_large).half(), torch.randn(tokens, k_small).half()
    exponent = torch.randint(-6, 1, (tokens,), dtype=torch.int32)
    exact = pair_features(large.float(), torch.exp2(exponent + 3.0), torch.empty(tokens, padded_pairs(k_large)))
    room = torch.full(exact.shape, torch.nan).half()
    high = kernels.pair_features(large, exponent, 3, room)
    low = kernels.pair_features(large, exponent, 3, room.clone(), low=True)
    close(high, exact, 1e-3, "features")
    close(high.double() + low.double(), exact, 1e-6, "features and what rounding left")
    start = torch.tensor([0, 13, 43], dtype=torch.int32)
    end = torch.tensor([13, 43, 50], dtype=torch.int32)
    rows = (large.double()[:, :, None] * small.double()[:, None]).flatten(1) * torch.exp2(exponent.double())[:, None]
    weights = torch.randn(tokens) * 1000
    for w in (None, weights):
        wanted = torch.stack([((rows if w is None else rows * w[:, None].double())[i:j]).sum(0) for i, j in zip(start, end)])
        close(kernels.segment_outer(large, small, exponent, start, end, w), wanted, 1e-5, "outer")
    matrices, choice = torch.randn(2, k_large * k_small) * 100, torch.tensor([1, 0, 1], dtype=torch.int32)
    wanted = torch.cat([rows[i:j] @ matrices[r].double() for i, j, r in zip(start, end, choice)])
    close(kernels.segment_scores(large, small, exponent, start, end, choice, matrices), wanted, 1e-5, "scores")

k_large, k_small = 24, 13
compact = torch.stack([compact_gram(torch.randn(900, k_large), torch.randn(900, k_small), None) for _ in range(2)])
damping = torch.tensor([30.0, 50.0])
scale = (compact_diagonal(compact, k_large, k_small) + damping[:, None]).rsqrt()
at = range(128, 384), range(128, 256), k_large, k_small
close(cholesky_kernels.panel(compact, scale, damping, *at), cholesky._panel(compact, scale, damping, *at), 1e-6, "panel")
columns = cholesky._panel(compact, scale, damping, range(384), range(128), k_large, k_small)
found, wanted = [(torch.zeros(2, 3, 128, 128), torch.zeros(2, 384, 384).half()) for _ in range(2)]
cholesky_kernels.invert_diagonal(columns, found[0], 0)
cholesky_kernels.lower_panel(columns, found[0], found[1], 0)
cholesky._factor_block(columns, *wanted, 0)
close(found[0], wanted[0], 1e-5, "inverse")
close(found[1], wanted[1], 1e-3, "panel of the factor")
for transposed in (False, True):
    values = torch.randn(2, 384, 10)
    pair = [(values.clone(), torch.zeros(2, 384, 10).half()) for _ in range(2)]
    cholesky_kernels.solve_block(*pair[0], wanted[0], 0, transposed=transposed)
    cholesky._solve_block(*pair[1], wanted[0], 0, transposed=transposed)
    close(pair[0][0], pair[1][0], 1e-5, "step of a solution")
    halves = pair[0][1][:, :128].double()
    close(halves[:, :, :5] + halves[:, :, 5:], pair[1][0][:, :128, :5], 1e-5, "halves")
print("all kernels agree")
"""


def test_kernels_do_what_their_plain_equivalents_do() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}  # read when triton is imported, hence a process of its own
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert "all kernels agree" in done.stdout
