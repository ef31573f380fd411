"""The console parser: any bytes, any blocks; steps and signatures come out of the noise."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.collect import console
from orchestrator.collect.console import ConsoleFacts, ConsoleParser, parse_console
from orchestrator.triage.evidence import PLAIN_EXCEPTION, Role

RAY = "\x1b[36m(TaskRunnerV1 pid=21194)\x1b[0m "
WORKER = "\x1b[36m(WorkerDict pid=4121)\x1b[0m "
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.69 GiB. GPU 3 has a total capacity of 79.11 GiB"
TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "/opt/verl/trainer.py", line 120, in fit',
    "    self.step()",
    '  File "/opt/verl/actor.py", line 7, in step',
    "    raise ValueError('3 is not divisible by 2')",
    "ValueError: 3 is not divisible by 2",
]
FRAGMENTS = st.sampled_from(
    [
        *(line.encode() for line in TRACEBACK),
        b"step:1 - a/x:1 - a/y:2",
        b"step:2 - a/x:np.float64(3.5) - a/y:nan",
        RAY.encode(),
        OOM.encode(),
        b"Exception ignored in: <function f at 0x7f>",
        b"Original " + TRACEBACK[0].encode(),
        b"[prompt] why?",
        b"[ground_truth] 4",
        b"Training Progress:  50%|#####     | 1/2 [00:10<00:10]",
        b"'total_training_steps': 7,",
        b"slurmstepd: error: *** JOB 46 ON n1 CANCELLED AT 2026-11-21T09:33:02 DUE TO TIME LIMIT ***",
        b"\n",
        b"\n",
        b"\r",
        b"\r\n",
        b"\x1b[0m",
        b"\x00\xff\xfe\x80",
        b" - ",
        b"  ",
    ]
)
LOGS = st.lists(st.one_of(FRAGMENTS, st.binary(max_size=12)), max_size=40).map(b"".join)


def parse(*lines: str, end: str = "\n") -> ConsoleFacts:
    return parse_console(io.BytesIO(("\n".join(lines) + end).encode()))


def codes(facts: ConsoleFacts) -> list[tuple[int, str]]:
    return [(signature.line, signature.code) for signature in facts.signatures]


@given(LOGS, st.lists(st.integers(1, 60), max_size=20))
@settings(max_examples=300, deadline=None)
def test_where_the_blocks_end_changes_nothing(log: bytes, sizes: list[int]) -> None:
    whole, pieces = ConsoleParser(), ConsoleParser()
    whole.feed(log)
    at = 0
    for size in sizes:
        pieces.feed(log[at : at + size])
        at += size
    pieces.feed(log[at:])
    assert repr(pieces.finish()) == repr(whole.finish())


@given(st.binary(max_size=300), st.integers(1, 400))
def test_any_bytes_are_read(log: bytes, block: int) -> None:
    facts = parse_console(io.BytesIO(log), block=block)
    assert facts.bytes == len(log)
    assert facts.lines == log.count(b"\n") + (not log.endswith((b"\n", b"\r")) and log != b"")


@given(LOGS, st.sampled_from([b"\n", b"\r\n", b"\n\x00\xff\n"]))
def test_a_metric_line_of_its_own_is_found_in_any_noise(noise: bytes, newline: bytes) -> None:
    line = RAY.encode() + b"step:77 - actor/grad_norm:0.25 - num_turns/min:np.int32(2)"
    facts = parse_console(io.BytesIO(noise + newline + line + newline + noise))
    assert facts.steps[77] == {"actor/grad_norm": 0.25, "num_turns/min": 2.0}


@pytest.mark.parametrize("block", [7000, console.BLOCK, 1 << 23])
def test_long_lines_are_cut_and_the_next_line_is_read_again(block: int) -> None:
    junk = "x" * (console.MAX_LINE * 2)
    lines = ("step:1 - a/x:1", junk + " step:9 - a/x:9", "y" * 20_000 + " step:2 - a/x:2 " + "y" * 20_000, "")
    facts = parse_console(io.BytesIO("\n".join(lines).encode()), block=block)
    assert list(facts.steps) == [1, 2]
    assert facts.lines == 3


def test_a_progress_bar_of_any_length_hides_no_step() -> None:
    bar = "\r".join(f"Training Progress:  {k % 100}%|##  | 1/2 [00:10<00:10]" for k in range(40_000))
    facts = parse("step:1 - a/x:1", bar + "\rstep:2 - a/x:2")
    assert len(bar) > console.MAX_LINE
    assert list(facts.steps) == [1, 2]
    assert facts.total_steps == 2


def test_memory_stays_flat_however_often_a_failure_repeats() -> None:
    facts = parse(*([OOM] * 5000), "step:1 - a/x:1", *([OOM] * 5000))
    assert len(facts.signatures) == 2 * console.KEEP
    assert facts.signatures[0].line == 1
    assert facts.signatures[-1].line == 10_001


@pytest.mark.parametrize(
    ("lines", "total"),
    [
        (["Total training steps: 7"], 7),
        (["INFO:main:Total training steps: 7", "Training Progress:  50%|## | 1/9 [00:10<00:10]"], 7),
        (["\rTraining Progress:   0%|          | 0/2 [00:00<?, ?it/s]"], 2),
        (["  'total_training_steps': -1,", "  'total_training_steps': 5,"], 5),
        (["python -m verl.trainer.main_ppo trainer.total_training_steps=2"], 2),
        (["trainer.total_training_steps=4", "Training Progress:  50%|## | 1/3 [00:10<00:10]"], 3),
        (["'total_training_steps': None", "Loading: 50%|## | 1/3 [00:10<00:10]"], None),
    ],
)
def test_the_log_says_how_many_steps_are_meant(lines: list[str], total: int | None) -> None:
    assert parse(*lines).total_steps == total


def test_a_log_without_a_last_line_end_is_truncated() -> None:
    assert parse("a", "b", end="").truncated
    assert not parse("a", "b").truncated
    assert not parse_console(io.BytesIO(b"")).truncated


def test_a_failure_in_an_unterminated_last_line_counts() -> None:
    assert codes(parse("fine", OOM, end="")) == [(2, "cuda_oom")]


def test_a_traceback_is_named_by_its_last_line_and_its_innermost_frame() -> None:
    (found,) = parse("loading", *TRACEBACK, "bye").signatures
    assert (found.line, found.code, found.role) == (7, PLAIN_EXCEPTION, Role.ROOT)
    assert found.text == "ValueError: 3 is not divisible by 2"
    assert found.where == "actor.py:7 in step"


def test_source_code_in_a_traceback_is_no_evidence() -> None:
    lines = [*TRACEBACK[:4], f'    raise RuntimeError("{OOM}")', "RuntimeError: no"]
    assert codes(parse(*lines)) == [(6, PLAIN_EXCEPTION)]


def test_two_processes_tracebacks_may_interleave() -> None:
    other = [line.replace("ValueError", "KeyError") for line in TRACEBACK]
    mixed = [
        line for pair in zip([RAY + t for t in TRACEBACK], [WORKER + t for t in other], strict=True) for line in pair
    ]
    facts = parse(*mixed, RAY + "step:1 - a/x:1")
    assert [signature.text for signature in facts.signatures] == [
        "ValueError: 3 is not divisible by 2",
        "KeyError: 3 is not divisible by 2",
    ]


def test_time_stamps_in_front_of_each_line_do_not_hide_a_traceback() -> None:
    facts = parse(*(f"2026-11-21T10:00:{second:02}.120Z {line}" for second, line in enumerate(TRACEBACK)))
    assert [signature.text for signature in facts.signatures] == ["ValueError: 3 is not divisible by 2"]


def test_of_a_quoted_remote_traceback_the_innermost_exception_counts() -> None:
    facts = parse(
        *TRACEBACK[:3],
        "ray.exceptions.RayTaskError(OutOfMemoryError): \x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=7011, ip=10.0.0.7)",
        "           ^^^^^^^^^^^^",
        '  File "/opt/verl/worker.py", line 8, in update_actor',
        "    loss.backward()",
        OOM,
    )
    (found,) = facts.signatures
    assert (found.code, found.line, found.where) == ("cuda_oom", 8, "worker.py:8 in update_actor")


def test_an_exception_of_the_main_module_is_named_whatever_it_is_called() -> None:
    (found,) = parse(*TRACEBACK[:5], "SyntheticFailure: asked for this", "bye").signatures
    assert (found.line, found.text, found.where) == (6, "SyntheticFailure: asked for this", "actor.py:7 in step")


def test_what_only_looks_like_an_exception_gives_way_to_one() -> None:
    (found,) = parse(*TRACEBACK[:5], "Epoch: 3", TRACEBACK[5]).signatures
    assert found.text == TRACEBACK[5]


@pytest.mark.parametrize("before", ["Original ", "[2026-11-21 18:18:34 TP0] Scheduler hit an exception: "])
def test_a_header_in_the_middle_of_a_line_begins_the_frames_below_it(before: str) -> None:
    for process in ("", RAY, "2026-11-21T10:00:01Z "):
        lines = [process + line for line in (before + TRACEBACK[0], *TRACEBACK[1:])]
        (found,) = parse(*lines, "bye").signatures
        assert (found.text, found.where) == ("ValueError: 3 is not divisible by 2", "actor.py:7 in step")


def test_a_remote_exception_that_ended_an_actors_creation_is_the_one_that_counts() -> None:
    facts = parse(
        *TRACEBACK[:3],
        "ray.exceptions.ActorDiedError: The actor died because of an error raised in its creation task, "
        "\x1b[36mray::Rollout.__init__()\x1b[39m (pid=20684, ip=10.0.0.7)",
        '  File "/opt/verl/rollout.py", line 8, in __init__',
        "    raise RuntimeError('engine did not start')",
        "RuntimeError: engine did not start",
    )
    (root,) = [signature for signature in facts.signatures if signature.role is Role.ROOT]
    assert (root.text, root.where) == ("RuntimeError: engine did not start", "rollout.py:8 in __init__")


def test_a_rank_and_a_time_are_read_from_what_stands_before_a_traceback() -> None:
    (found,) = parse(*(f"[rank3]: {line}" for line in TRACEBACK)).signatures
    assert (found.rank, found.text) == (3, "ValueError: 3 is not divisible by 2")
    (found,) = parse(*(f"2026-11-21T10:00:01.120Z {line}" for line in TRACEBACK)).signatures
    assert found.time == "11-21 10:00:01.120000"


def test_an_exception_without_a_class_of_its_own_is_looked_up_among_the_patterns() -> None:
    said = (
        "Exception: The current node timed out during startup. This could happen because the GCS has become overloaded."
    )
    assert codes(parse(*TRACEBACK[:5], said)) == [(6, "ray_startup")]
    assert codes(parse(*TRACEBACK[:5], "Exception: no")) == [(6, PLAIN_EXCEPTION)]


def test_a_traceback_that_breaks_off_is_still_a_failure() -> None:
    assert codes(parse("a", *TRACEBACK[:4], end="")) == [(2, PLAIN_EXCEPTION)]


@pytest.mark.parametrize(
    "above", ["Exception ignored in: <function Server.__del__ at 0x7f01>", "--- Logging error ---"]
)
def test_a_traceback_that_python_passes_over_is_no_failure(above: str) -> None:
    assert codes(parse(above, *TRACEBACK)) == []


def test_a_signature_knows_how_many_steps_the_job_outlived_it() -> None:
    facts = parse("step:1 - a/x:1", OOM, "step:2 - a/x:1", "step:3 - a/x:1", OOM, "step:3 - val-core/x:1")
    assert [signature.steps_after for signature in facts.signatures] == [2, 0]


def test_a_signature_is_printable_and_short() -> None:
    (found,) = parse("\x1b[31m\x07" + OOM + "\x00" + "y" * 5000).signatures
    assert found.text.isprintable()
    assert len(found.text) <= console.MAX_TEXT


def test_a_file_is_read_by_path_and_signatures_carry_its_name(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_text(OOM + "\n")
    assert parse_console(path, name="logs/run.log").signatures[0].file == "logs/run.log"
