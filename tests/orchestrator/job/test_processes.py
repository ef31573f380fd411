from __future__ import annotations

import os
import subprocess
import sys

import psutil

from orchestrator.clock import FakeClock, SystemClock
from orchestrator.job import processes
from orchestrator.job.processes import carries_token, end_all, of_attempt, pids_of_session, pids_with_token

TOKEN = "ORCHESTRATOR_ATTEMPT_TOKEN"


def write_environ(proc, pid: int, content: bytes) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "environ").write_bytes(content)


def test_a_token_counts_only_as_a_whole_variable(tmp_path):
    write_environ(tmp_path, 1, f"A=1\0{TOKEN}=abc\0B=2\0".encode())
    write_environ(tmp_path, 2, f"{TOKEN}=abcd\0".encode())
    write_environ(tmp_path, 3, f"X{TOKEN}=abc\0".encode())
    write_environ(tmp_path, 4, b"")
    assert [pid for pid in (1, 2, 3, 4, 5) if carries_token(pid, "abc", tmp_path)] == [1]


def test_only_processes_are_looked_at(tmp_path):
    write_environ(tmp_path, 12, f"{TOKEN}=abc\0".encode())
    (tmp_path / "meminfo").write_text("")
    (tmp_path / "13").mkdir()  # its environment is not ours to read
    assert pids_with_token("abc", tmp_path) == [12]


def write_place(proc, pid: int, session: int, folder) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b (c)) S 1 {pid} {session} 0 -1 4194560 100 0 0 0 1 2\n")
    (proc / str(pid) / "cwd").symlink_to(folder)


def test_session_and_folder_have_to_agree(tmp_path):
    proc, folder, link = tmp_path / "proc", tmp_path / "attempt", tmp_path / "link"
    proc.mkdir()
    folder.mkdir()
    link.symlink_to(folder)
    write_place(proc, 1, session=70, folder=folder)
    write_place(proc, 2, session=71, folder=folder)  # a user who looks around there
    write_place(proc, 3, session=70, folder=tmp_path)  # the number was given anew
    (proc / "4").mkdir()
    assert pids_of_session(70, link, proc) == [1]


def test_a_machine_without_proc_has_no_such_processes(tmp_path):
    assert pids_with_token("abc", tmp_path / "proc") == []


def test_descendants_belong_to_the_attempt_even_without_the_token(tmp_path):
    token = str(tmp_path)
    child = "import sys; print('up', flush=True); sys.stdin.read()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], env={{}})"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, TOKEN: token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout.readline() == b"up\n"
        found = of_attempt(token)
        assert parent.pid in {process.pid for process in found}
        assert len(found) == 2
        assert end_all(lambda: of_attempt(token), grace_s=5.0, clock=SystemClock()) == []
    assert of_attempt(token) == []


def test_this_process_and_those_above_are_never_found(tmp_path):
    token = str(tmp_path)
    code = (
        "from orchestrator.job.processes import of_attempt, pids_with_token; "
        f"print(of_attempt({token!r}), len(pids_with_token({token!r})))"
    )
    inner = [sys.executable, "-c", code]
    outer = f"import subprocess; subprocess.run({inner!r})"
    run = subprocess.run(
        [sys.executable, "-c", outer], env={**os.environ, TOKEN: token}, capture_output=True, text=True, check=True
    )
    assert run.stdout == "[] 2\n"


def test_a_zombie_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""])
    process = psutil.Process(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.is_alive(process)
    child.wait()
    assert not processes.is_alive(process)


class Recorder:
    """Stands in for a process; dies of the signals it is not deaf to."""

    pid = 1

    def __init__(self, clock: FakeClock, deaf_to: tuple[str, ...] = ()) -> None:
        self.clock, self.deaf_to = clock, deaf_to
        self.running, self.got = True, []

    def _receive(self, name: str) -> None:
        self.got.append((name, self.clock.now()))
        self.running = self.running and name in self.deaf_to

    def terminate(self) -> None:
        self._receive("term")

    def kill(self) -> None:
        self._receive("kill")

    def is_running(self) -> bool:
        return self.running

    def status(self) -> str:
        return psutil.STATUS_RUNNING


def test_the_polite_are_asked_once_and_never_killed():
    clock = FakeClock(0.0)
    process = Recorder(clock)
    assert end_all(lambda: [process], grace_s=3.0, clock=clock) == []
    assert process.got == [("term", 0.0)]


def test_the_deaf_are_killed_after_the_grace():
    clock = FakeClock(0.0)
    process = Recorder(clock, deaf_to=("term",))
    assert end_all(lambda: [process], grace_s=3.0, clock=clock) == []
    assert [name for name, _ in process.got] == ["term", "kill"]
    assert process.got[1][1] >= 3.0


def test_what_survives_everything_is_returned():
    clock = FakeClock(0.0)
    process = Recorder(clock, deaf_to=("term", "kill"))
    assert end_all(lambda: [process], grace_s=1.0, clock=clock, kill_wait_s=2.0) == [process]
    assert clock.now() < 4.0


def test_what_appears_meanwhile_is_ended_too():
    clock = FakeClock(0.0)
    first, second = Recorder(clock, deaf_to=("term",)), Recorder(clock)
    assert end_all(lambda: [first] if clock.now() < 0.5 else [first, second], grace_s=1.0, clock=clock) == []
    assert not first.running
    assert not second.running
