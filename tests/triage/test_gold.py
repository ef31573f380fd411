"""Every log of the gold corpus is judged as a colleague would judge it, however it reaches us."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.collect.foreign import collect_folder
from orchestrator.triage.evidence import Role
from orchestrator.triage.verdict import judge
from tests.triage.confusion import DOCS, in_docs, matrix
from tests.triage.gold import CORPUS, Case, cases, judged

NCCL = (
    b"[rank3]:[E1121 10:04:11.220110239 ProcessGroupNCCL.cpp:633] [Rank 3] Watchdog caught collective operation timeout: "
    b"WorkNCCL(SeqNum=9, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600021 milliseconds before timing out.\n"
)
DIED = (
    b"(raylet) A worker died or was killed while executing a task by an unexpected system error. Some common causes include: "
    b"(1) the process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called\n"
)
ADVICE = (
    b"If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True\n"
    b"This may be caused by torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.\n"
)
PREFIX = b"\x1b[36m(TaskRunner pid=7011)\x1b[0m "


def prefixed(log: bytes) -> bytes:
    return b"".join(PREFIX + line for line in log.splitlines(keepends=True))


def stamped(log: bytes) -> bytes:
    return b"".join(b"2026-11-21T10:00:00.120Z " + line for line in log.splitlines(keepends=True))


MUTATIONS: dict[str, Callable[[bytes], bytes]] = {
    "consequences printed before": lambda log: NCCL.replace(b"10:04:11", b"00:00:01") + DIED + log,
    "consequences printed after": lambda log: log + NCCL + DIED,
    "advice in front": lambda log: ADVICE + log,
    "advice behind": lambda log: log + ADVICE,
    "through Ray": prefixed,
    "time stamps": stamped,
    "no end of the last line": lambda log: log.rstrip(b"\n"),
    "half a line before it": lambda log: b"step:1 - actor/grad_no\n" + log,
}


def has_a_root(case: Case) -> bool:
    found = judged(case)
    return case.path.is_file() and found.judgement.cause is not None and found.judgement.cause.role is Role.ROOT


ROOTED = [case for case in cases() if has_a_root(case)]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_each_log_is_judged_as_a_colleague_would(case: Case) -> None:
    found = judged(case)
    if case.known:
        assert not found.right, "what was known to go wrong goes right now: take `known` out of the index"
        return
    assert found.judgement.verdict is case.verdict, found.judgement.reason
    assert found.signature == case.signature
    assert found.anomalies == case.anomalies


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_noise_changes_no_verdict_that_a_root_decides(mutation: str, tmp_path: Path) -> None:
    wrong = []
    for case in ROOTED:
        log = MUTATIONS[mutation](case.path.read_bytes())
        (tmp_path / "mutated.log").write_bytes(log)
        verdict = judge(case.with_end(collect_folder(tmp_path / "mutated.log"))).verdict
        wrong += [case.name] if verdict is not judged(case).judgement.verdict else []
    assert not wrong


def test_every_log_says_where_it_is_from_and_every_file_is_used() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names)) >= 60
    assert all(case.source for case in cases())
    there = {path.name.removesuffix(".log") for path in CORPUS.iterdir()} - {"index.yaml"}
    assert there == set(names)


def test_more_than_a_third_was_made_by_really_failing() -> None:
    real = [case for case in cases() if case.name.startswith(("ran-", "wrapped-", "slurm-"))]
    assert len(real) > len(cases()) / 3


def test_no_verdict_is_left_out_but_one_that_no_log_can_show() -> None:
    from orchestrator.model import Verdict

    assert {case.verdict for case in cases()} == set(Verdict) - {Verdict.HANG}


def test_the_committed_confusion_matrix_is_what_the_code_says_now() -> None:
    page = DOCS.read_text()
    assert in_docs(page, matrix()) == page, "run `python -m tests.triage.confusion --write`"
