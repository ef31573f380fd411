"""The wrapper as a process of its own: what a job's end looks like in the attempt folder."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

from orchestrator.job import processes
from trainer_ext.records import Claim, Node

PATIENCE_S = 30.0
GRACE = "ORCHESTRATOR_GRACE_S"
NOTICE = "ORCHESTRATOR_NOTICE_S"
STOPS_WHEN_ASKED = (
    "import os, time; print('ready')\nwhile not os.path.exists('stop-requested'): time.sleep(0.01)\nprint('saved')"
)


def wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def log_holds(attempt, text: str):
    return lambda: attempt.paths.console.exists() and text in attempt.paths.console.read_text()


def test_success_leaves_every_file(make_attempt):
    attempt = make_attempt("print('hello')")
    assert attempt.run().returncode == 0
    assert attempt.outcome.exit_code == 0
    assert (attempt.outcome.phase, attempt.outcome.signal, attempt.outcome.stop_reason) == ("run", None, None)
    assert attempt.outcome.token == attempt.token
    assert attempt.outcome.started_at <= attempt.outcome.ended_at
    assert attempt.paths.console.read_text() == "hello\n"
    assert attempt.heartbeat.phase == "finish"
    assert len(attempt.memory) == 2  # at the beginning and at the end
    claim = Claim.from_json(attempt.paths.claim.read_text())
    assert (claim.token, claim.host) == (attempt.token, attempt.outcome.host)
    node = Node.from_json(attempt.paths.node.read_text())
    assert (node.host, len(node.packages_sha256)) == (claim.host, 64)


def test_a_failing_job_is_a_successful_wrapper(make_attempt):
    attempt = make_attempt("import sys; print('oh', file=sys.stderr); sys.exit(7)")
    assert attempt.run().returncode == 0
    assert attempt.outcome.exit_code == 7
    assert attempt.paths.console.read_text() == "oh\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_job_killed_by_any_signal_is_recorded(make_attempt, number):
    attempt = make_attempt(
        f"import os, signal; signal.signal({int(number)}, 0) if {int(number)} not in (9,) else 0; "
        f"os.kill(os.getpid(), {int(number)})"
    )
    assert attempt.run().returncode == 0
    assert (attempt.outcome.exit_code, attempt.outcome.signal) == (None, number)
    assert attempt.outcome.stop_reason is None


def test_the_job_sees_its_folder_token_pool_and_own_variables(make_attempt):
    names = ["ORCHESTRATOR_ATTEMPT_DIR", "ORCHESTRATOR_ATTEMPT_TOKEN", "ORCHESTRATOR_POOL", "PYTHONUNBUFFERED", "A"]
    attempt = make_attempt(
        f"import os, json; print(json.dumps([os.getcwd(), *(os.environ[n] for n in {names})]))",
        pool="h100",
        env={"A": "b c"},
    )
    attempt.run()
    folder = str(attempt.paths.dir)
    assert json.loads(attempt.paths.console.read_text()) == [folder, folder, attempt.token, "h100", "1", "b c"]


def test_the_job_can_be_signalled_although_the_wrapper_blocks_signals(make_attempt):
    attempt = make_attempt("import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))")
    attempt.run()
    assert attempt.paths.console.read_text() == "set()\n"


def test_preparations_run_in_order_before_the_job(make_attempt):
    def say(word: str) -> list[str]:
        return [sys.executable, "-c", f"print({word!r})"]

    attempt = make_attempt("print('three')", prepare=[say("one"), say("two")])
    attempt.run()
    assert attempt.paths.console.read_text() == "one\ntwo\nthree\n"


def test_a_failed_preparation_is_where_it_ends(make_attempt):
    attempt = make_attempt("print('never')", prepare=[[sys.executable, "-c", "raise SystemExit(4)"]])
    assert attempt.run().returncode == 0
    assert (attempt.outcome.phase, attempt.outcome.exit_code) == ("prepare", 4)
    assert attempt.paths.console.read_text() == ""


def test_a_command_that_cannot_be_started_is_explained(make_attempt):
    attempt = make_attempt(command=["no-such-program", "--flag"])
    assert attempt.run().returncode == 0
    assert (attempt.outcome.exit_code, attempt.outcome.signal) == (None, None)
    assert "no-such-program" in attempt.outcome.error


def test_the_loser_of_the_claim_changes_nothing(make_attempt):
    attempt = make_attempt("print('never')")
    attempt.paths.claim.write_text("somebody else")
    before = {path: path.read_bytes() for path in attempt.paths.dir.iterdir()}
    result = attempt.run()
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert {path: path.read_bytes() for path in attempt.paths.dir.iterdir()} == before


def test_of_many_wrappers_one_runs_the_job(make_attempt, tmp_path):
    attempt = make_attempt(f"open({str(tmp_path / 'runs')!r}, 'a').write('x')")
    wrappers = [attempt.start() for _ in range(5)]
    assert [wrapper.wait(PATIENCE_S) for wrapper in wrappers] == [0] * 5
    assert (tmp_path / "runs").read_text() == "x"


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"token": "t"}'])
def test_without_a_readable_attempt_nothing_is_claimed(make_attempt, content):
    attempt = make_attempt()
    attempt.paths.spec.unlink()
    if content is not None:
        attempt.paths.spec.write_text(content)
    result = attempt.run()
    assert result.returncode == 2
    assert "attempt.json" in result.stderr
    assert "Traceback" not in result.stderr
    assert not attempt.paths.claim.exists()


def test_an_attempt_without_a_command_is_refused(make_attempt):
    result = make_attempt(command=[]).run()
    assert result.returncode == 2
    assert "command" in result.stderr


@pytest.mark.parametrize("name", [GRACE, NOTICE])
def test_a_wrong_number_of_seconds_is_refused(make_attempt, name):
    result = make_attempt().run(**{name: "soon"})
    assert result.returncode == 2
    assert "soon" in result.stderr


@pytest.mark.parametrize(("file_size", "missing"), [(0, "claim"), (1000, "outcome.json")])
def test_a_full_disk_is_no_success(make_attempt, file_size, missing):
    """A limit on the size of files fails writes as a full disk does. The outcome is large: it lists 20 outputs."""
    attempt = make_attempt("for n in range(20): open(f'{n}.npz', 'w')", npz_glob="*.npz")
    limited = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({file_size}, {file_size})); "
        "os.execv(sys.executable, [sys.executable, '-m', 'orchestrator.job', sys.argv[1]])"
    )
    command = [sys.executable, "-c", limited, str(attempt.paths.dir)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert missing in result.stderr
    assert "Traceback" not in result.stderr
    assert not [path for path in attempt.paths.dir.iterdir() if missing in path.name]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_whole_group_of_the_job(make_attempt, number):
    handler = f"import signal, sys; signal.signal({int(number)}, lambda *_: (print('told'), sys.exit(5)))"
    grandchild = f"{handler}; print('ready'); signal.pause()"
    attempt = make_attempt(
        f"{handler}; import subprocess; p = subprocess.Popen([sys.executable, '-c', {grandchild!r}]); signal.pause()",
    )
    wrapper = attempt.start()
    wait_until(log_holds(attempt, "ready"))
    wrapper.send_signal(number)
    assert wrapper.wait(PATIENCE_S) == 0
    assert attempt.paths.console.read_text().count("told") == 2
    assert (attempt.outcome.exit_code, attempt.outcome.stop_reason) == (5, "terminated")


def test_a_job_that_ignores_the_request_is_killed_after_the_grace(make_attempt):
    attempt = make_attempt("import signal; signal.signal(15, signal.SIG_IGN); print('ready'); signal.pause()")
    wrapper = attempt.start(**{GRACE: "0.2"})
    wait_until(log_holds(attempt, "ready"))
    wrapper.terminate()
    assert wrapper.wait(PATIENCE_S) == 0
    assert (attempt.outcome.signal, attempt.outcome.stop_reason) == (signal.SIGKILL, "terminated")


def test_with_notice_the_job_is_asked_by_a_file_and_may_end_by_itself(make_attempt):
    attempt = make_attempt(STOPS_WHEN_ASKED)
    wrapper = attempt.start(**{NOTICE: "30"})
    wait_until(log_holds(attempt, "ready"))
    wrapper.terminate()
    assert wrapper.wait(PATIENCE_S) == 0
    assert attempt.paths.console.read_text() == "ready\nsaved\n"
    assert (attempt.outcome.exit_code, attempt.outcome.stop_reason) == (0, "terminated")


def test_when_the_notice_is_over_the_signal_follows(make_attempt):
    attempt = make_attempt("import time; print('ready'); time.sleep(60)")
    wrapper = attempt.start(**{NOTICE: "0.2"})
    wait_until(log_holds(attempt, "ready"))
    wrapper.terminate()
    assert wrapper.wait(PATIENCE_S) == 0
    assert (attempt.outcome.signal, attempt.outcome.stop_reason) == (signal.SIGTERM, "terminated")
    assert attempt.paths.stop_requested.exists()


def test_a_schedulers_warning_asks_and_no_more(make_attempt):
    attempt = make_attempt(STOPS_WHEN_ASKED)
    wrapper = attempt.start()
    wait_until(log_holds(attempt, "ready"))
    wrapper.send_signal(signal.SIGUSR2)
    assert wrapper.wait(PATIENCE_S) == 0
    assert (attempt.outcome.exit_code, attempt.outcome.stop_reason) == (0, "warned")


def test_a_job_that_nobody_asks_to_stop_finds_no_request(make_attempt):
    attempt = make_attempt()
    attempt.run()
    assert not attempt.paths.stop_requested.exists()


def test_a_hangup_does_not_end_the_job(make_attempt):
    attempt = make_attempt("import os, time; print('ready'); time.sleep(0.3)")
    wrapper = attempt.start()
    wait_until(log_holds(attempt, "ready"))
    wrapper.send_signal(signal.SIGHUP)
    assert wrapper.wait(PATIENCE_S) == 0
    assert (attempt.outcome.exit_code, attempt.outcome.stop_reason) == (0, None)


def test_the_time_limit_ends_the_job(make_attempt):
    attempt = make_attempt("import time; time.sleep(60)", time_limit_s=0.3)
    attempt.run()
    assert (attempt.outcome.signal, attempt.outcome.stop_reason) == (signal.SIGTERM, "time_limit")


def test_a_stop_during_preparation_keeps_the_job_from_starting(make_attempt):
    attempt = make_attempt(
        "print('never')",
        prepare=[
            [
                sys.executable,
                "-c",
                "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('ready'); signal.pause()",
            ]
        ],
    )
    wrapper = attempt.start()
    wait_until(log_holds(attempt, "ready"))
    wrapper.terminate()
    assert wrapper.wait(PATIENCE_S) == 0
    assert attempt.paths.console.read_text() == "ready\n"
    assert (attempt.outcome.phase, attempt.outcome.stop_reason) == ("prepare", "terminated")


def test_nothing_of_the_job_outlives_it(make_attempt, tmp_path):
    """A daemon: a session of its own, no parent, deaf to SIGTERM, and without the token in its environment."""
    pid_file = tmp_path / "pid"
    daemon = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); "
        f"open({str(pid_file)!r}, 'w').write(str(os.getpid())); print('up', flush=True); time.sleep(60)"
    )
    options = "start_new_session=True, env={}"
    between = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {daemon!r}], {options})"
    attempt = make_attempt(
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {between!r}])\n"
        "while 'up' not in open('console.log').read(): pass",
    )
    assert attempt.run().returncode == 0
    assert not psutil.pid_exists(int(pid_file.read_text()))


def test_a_killed_wrapper_takes_the_job_along(make_attempt):
    attempt = make_attempt("import os, time; print(os.getpid()); time.sleep(60)")
    wrapper = attempt.start()
    wait_until(log_holds(attempt, "\n"))
    job = psutil.Process(int(attempt.paths.console.read_text()))
    wrapper.kill()
    wrapper.wait(PATIENCE_S)
    wait_until(lambda: not processes.is_alive(job))
    assert not attempt.paths.outcome.exists()


def test_outputs_are_listed_with_their_digests(make_attempt):
    attempt = make_attempt(
        "import os; os.mkdir('influence')\n"
        "for n in (1, 2): open(f'influence/step_{n:06d}.npz', 'wb').write(b'x' * n)\n"
        "open('influence/other', 'w')\n"
        'open("metrics.jsonl", "w").write(\'{"step": 1}\\n{"step": 2}\\n{"step": 2}\\n{"st\')',
        npz_glob="influence/step_*.npz",
    )
    attempt.run()
    files = {file["path"]: file for file in attempt.outcome.outputs}
    assert sorted(files) == ["influence/step_000001.npz", "influence/step_000002.npz", "metrics.jsonl"]
    second = files["influence/step_000002.npz"]
    assert (second["size"], second["sha256"]) == (2, hashlib.sha256(b"xx").hexdigest())
    assert attempt.outcome.steps == [1, 2]


def test_a_bad_glob_does_not_cost_the_outcome(make_attempt):
    attempt = make_attempt(npz_glob="/absolute/*.npz")
    assert attempt.run().returncode == 0
    assert attempt.outcome.outputs == []


def test_failing_to_sample_does_not_hurt_the_job(make_attempt):
    attempt = make_attempt("print('fine')")
    attempt.paths.memory.mkdir()
    attempt.paths.heartbeat.mkdir()
    result = attempt.run()
    assert result.returncode == 0
    assert attempt.outcome.exit_code == 0
    assert "memory" in result.stderr


def test_the_heartbeat_shows_how_far_the_job_is(make_attempt):
    attempt = make_attempt(
        'import time; open("metrics.jsonl", "w").write(\'{"step": 3, "data": {}}\\n\'); print("x" * 9)\n'
        "while not __import__('os').path.exists('go'): time.sleep(0.01)",
    )
    wrapper = attempt.start()
    wait_until(lambda: attempt.paths.heartbeat.exists() and attempt.heartbeat.step == 3)
    beat = attempt.heartbeat
    assert (beat.phase, beat.console_bytes) == ("run", 10)
    assert beat.last_output_at <= beat.time
    assert psutil.Process(beat.child_pid).ppid() == wrapper.pid
    (attempt.paths.dir / "go").touch()
    assert wrapper.wait(PATIENCE_S) == 0


def test_memory_is_sampled_from_the_beginning(make_attempt):
    attempt = make_attempt("import time; time.sleep(0.2)")
    attempt.run()
    first = attempt.memory[0]
    assert attempt.outcome.started_at <= first.time <= attempt.outcome.ended_at
    assert first.process_pss > 0


def test_the_wrapper_needs_next_to_nothing_installed(make_attempt):
    attempt = make_attempt()
    heavy = {
        "pydantic",
        "sqlalchemy",
        "yaml",
        "hydra",
        "omegaconf",
        "numpy",
        "pandas",
        "mlflow",
        "torch",
        "verl",
        "ray",
    }
    code = (
        "import sys; from pathlib import Path; from orchestrator.job.wrapper import run_attempt; "
        "run_attempt(Path(sys.argv[1])); print(sorted(m.partition('.')[0] for m in sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(attempt.paths.dir)], capture_output=True, text=True, check=True
    )
    assert heavy.isdisjoint(eval(run.stdout))
    assert attempt.outcome.exit_code == 0


def test_arguments_are_checked():
    run = subprocess.run([sys.executable, "-m", "orchestrator.job"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "usage" in run.stderr
