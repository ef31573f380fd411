"""`why POINT` as it is typed: one page in a pipe, the documented JSON, mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.backends.base import JobRequest
from orchestrator.backends.fake import Play
from orchestrator.backends.fake_files import fail
from orchestrator.cli import main
from tests.orchestrator.driving import Rehearsal

LOG = (
    "step:1 - actor/grad_norm:0.5\n"
    "[rank3]:[E1121 10:04:11.22 ProcessGroupNCCL.cpp:633] [Rank 3] Watchdog caught collective operation timeout: WorkNCCL\n"
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.35 GiB.\n"
    "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.\n"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A point that ran out of memory on h100 and completed on h200."""
    folder = tmp_path_factory.mktemp("why")

    def script(request: JobRequest, _earlier: int) -> Play:
        small = request.pool is not None and request.pool.name == "h100"
        return Play(on_end=fail(1, log=LOG)) if small else Play()

    Rehearsal(folder, script, points=1).drive()
    return folder


def test_a_pipe_gets_one_plain_page(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "point-0", "--attempt", "1", "--root", str(root)]) == 0
    page = capsys.readouterr().out.splitlines()
    assert page[0].startswith("point-0 (")
    assert "of sweep s succeeded after 2 attempts" in page[0]
    assert page[1].startswith("  attempt 1 on h100")
    assert "    decided by: cuda_oom, the only cause that the log names" in page
    assert "      at: console.log:3" in page
    assert any(line.startswith("      nccl: followed from something else, rank 3") for line in page)
    assert any(
        line.startswith("    then: ready: the GPU's memory did not suffice: moved from h100 to h200") for line in page
    )
    assert page[-2].startswith(f"  folder: {root}/sweeps/s/")
    assert page[-1] == "  next: nothing"
    assert len(page) <= 40
    assert "\x1b" not in "".join(page)


def test_the_newest_attempt_is_shown_unless_another_is_asked_for(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why", "point-0", "--root", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "decided by" not in shown
    assert "flag oom_recovered: ran out of GPU memory on h100, then completed on h200" in shown


def test_as_json_it_has_the_documented_form(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "point-0", "--attempt", "1", "--json", "--root", str(root)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {
        *(
            "point",
            "name",
            "sweep",
            "state",
            "reason",
            "attempts",
            "explained",
            "folder",
            "cause",
            "evidence",
            "today",
            "next",
        )
    }
    assert [(one["pool"], one["verdict"]) for one in found["attempts"]] == [("h100", "gpu_oom"), ("h200", "completed")]
    assert found["attempts"][0].keys() == {"n", "pool", "node", "verdict", "reason", "anomalies", "decision"}
    assert (found["cause"]["code"], found["cause"]["role"], found["cause"]["line"]) == ("cuda_oom", "root", 3)
    assert found["evidence"][0]["label"] == "decided by"
    assert (found["explained"], found["today"]) == (1, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["nothing"], "no point 'nothing'"), (["point-0", "--attempt", "7"], "point-0 has attempts 1, 2, not 7")],
)
def test_a_mistake_is_one_line(words: list[str], message: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", *words, "--root", str(root)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
