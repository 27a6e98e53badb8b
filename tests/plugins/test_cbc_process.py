"""CBC's process leaves nothing behind: neither files nor itself, whatever ends it or the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import mapgrad
from mapgrad import Request, Status
from mapgrad_pulp import _process
from mapgrad_pulp._cbc import Cbc
from mapgrad_pulp._process import CbcProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HARD = """
import numpy as np, threading, mapgrad
from mapgrad_pulp._cbc import Cbc
weights = np.random.default_rng(3).integers(50, 100, (30, 100))
solver = Cbc(mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2))
solve = lambda: solver.solve(solver.init(), weights.mean(axis=0) / 128, mapgrad.Request())
"""
STARTS = {
    "main thread": "solve()",
    "thread": "threading.Thread(target=solve, daemon=True).start(); threading.Event().wait()",
    "thread of an ended one": "threading.Thread(target=lambda: threading.Thread(target=solve).start()).start()",
}

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere CBC stays behind when its parent is killed")


def cbc_children(parent: int) -> list[int]:
    """Return the ids of the processes that run CBC, zombies included, and were started by one."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, fields = status.read_text().partition("(")[2].rsplit(")", 1)
        except OSError:
            continue
        if name.startswith("cbc") and int(fields.split()[1]) == parent:
            found.append(int(status.parent.name))
    return found


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def within(seconds: float, condition: Callable[[], object]) -> bool:
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return bool(met)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of temporary files, which must be empty at the end."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield tmp_path
    assert not list(tmp_path.iterdir())


@on_linux
@pytest.mark.parametrize(
    ("start", "ending"),
    [
        ("main thread", signal.SIGKILL),
        ("thread", signal.SIGKILL),
        ("thread of an ended one", signal.SIGKILL),
        ("main thread", signal.SIGTERM),
        ("main thread", signal.SIGINT),
    ],
)
def test_cbc_dies_with_the_process_that_started_it(start: str, ending: signal.Signals, folder: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", HARD + STARTS[start]], stderr=subprocess.DEVNULL)
    try:
        assert within(60, lambda: cbc_children(parent.pid))
        (cbc,) = cbc_children(parent.pid)
        assert os.getpgid(cbc) == cbc != os.getpgid(parent.pid)
        time.sleep(0.2)
        assert is_alive(cbc)
        parent.send_signal(ending)
        assert within(2, lambda: not is_alive(cbc))
    finally:
        parent.kill()
        parent.wait()


INTERRUPTED = """
import os, time, warnings
import numpy as np, torch, mapgrad
warnings.simplefilter("error")
weights = np.random.default_rng(3).integers(50, 100, (30, 100))
solver = mapgrad.get_solver("pulp.cbc", mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2))
try:
    solver(torch.tensor(weights.mean(0)))
except KeyboardInterrupt:
    print("interrupted")
try:
    for _ in range(500):  # a busy machine takes a moment to end it
        os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)
except ChildProcessError:
    print("no process left")
"""


@on_linux
def test_an_interrupt_leaves_no_file_and_no_process(folder: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert within(60, lambda: cbc_children(running.pid))
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=10)
    finally:
        running.kill()
        running.wait()
    assert output.splitlines() == ["interrupted", "no process left"]


def program() -> mapgrad.IntegerProgram:
    weights = np.random.default_rng(3).integers(50, 100, (30, 100))
    return mapgrad.IntegerProgram(A_ub=weights, b_ub=weights.sum(axis=1) // 2)


@on_linux
@pytest.mark.parametrize("in_memory", [True, False])
def test_nothing_is_left_of_runs_that_end_are_stopped_or_fail(
    folder: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr(_process, "_DESCRIPTORS", Path("/nowhere"))
    small = Cbc(mapgrad.IntegerProgram(A_ub=[[3, 5, 7]], b_ub=[10]))
    state = small.init()
    small.solve(state, np.array([0.25, 0.5, 0.75]), Request())
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert small.solve(state, np.array([0.25, 0.5, 0.75]), Request()).status is Status.OPTIMAL
    hard = Cbc(program())
    state, theta = hard.init(), program().A_ub.toarray().mean(axis=0) / 128
    assert hard.solve(state, theta, Request(seconds=0.3)).status is Status.TIME_LIMIT
    timer = threading.Timer(0.3, hard.stop, [state])
    timer.start()
    assert hard.solve(state, theta, Request()).status is Status.TIME_LIMIT
    timer.join()
    hard._path = sys.executable  # it ends at once, without a solution
    with pytest.raises(mapgrad.SolverCrashError, match=r"CBC ended with exit status \d+ and without a solution"):
        hard.solve(state, theta, Request())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not cbc_children(os.getpid())


def run_of(script: str, tmp_path: Path, *, deadline: float | None, stopped: threading.Event | None = None) -> object:
    """Run a script in place of CBC; it gets the same arguments."""
    binary = tmp_path / "cbc"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    process = CbcProcess(str(binary), stopped or threading.Event())
    return process.run(lambda path: Path(path).write_text("model"), lambda path: Path(path).read_text(), [], deadline)


def test_the_limit_is_kept_in_wall_clock_time(tmp_path: Path) -> None:
    started = time.monotonic()
    assert run_of("exec sleep 30", tmp_path, deadline=started + 0.2) is None
    assert time.monotonic() - started < 5
    assert run_of("exec sleep 30", tmp_path, deadline=started) is None
    elapsed = 'while [ $1 != -solution ]; do words="$words $1"; shift; done; echo $words > $2'
    words = str(run_of(elapsed, tmp_path, deadline=time.monotonic() + 9)).split()
    assert words[1:3] == ["-timeMode", "elapsed"]
    assert 8 < float(words[words.index("-sec") + 1]) < 9


def test_a_binary_that_fails_is_a_crash_and_not_an_answer(tmp_path: Path) -> None:
    for script, status in (("exit 3", 3), ("exit 0", 0), ("kill -SEGV $$", -signal.SIGSEGV)):
        with pytest.raises(mapgrad.SolverCrashError, match=f"CBC ended with exit status {status} and"):
            run_of(script, tmp_path, deadline=None)
    stopped = threading.Event()
    stopped.set()
    assert run_of("exit 3", tmp_path, deadline=None, stopped=stopped) is None


@pytest.mark.parametrize("told", ["TERM", "USR1"])
def test_a_signal_to_the_whole_job_costs_no_row(told: str, tmp_path: Path) -> None:
    """One that comes as CBC starts, before it has a group of its own."""
    seen = tmp_path / "seen"
    end = "while [ $1 != -solution ]; do shift; done; echo solved > $2"
    script = f"if [ ! -e {seen} ]; then touch {seen}; kill -{told} $$; fi; {end}"
    assert run_of(script, tmp_path, deadline=None) == "solved\n"
    with pytest.raises(
        mapgrad.SolverCrashError, match=f"CBC ended with exit status -{signal.Signals[f'SIG{told}']:d} and"
    ):
        run_of(f"kill -{told} $$", tmp_path, deadline=None)


def test_cbc_that_is_started_once_more_has_the_time_that_is_left(tmp_path: Path) -> None:
    seen, limits = tmp_path / "seen", tmp_path / "limits"
    script = f"echo $5 >> {limits}; if [ ! -e {seen} ]; then touch {seen}; sleep 0.2; kill -TERM $$; fi; exit 1"
    with pytest.raises(mapgrad.SolverCrashError, match="exit status 1 and"):
        run_of(script, tmp_path, deadline=time.monotonic() + 20)
    first, second = map(float, limits.read_text().split())
    assert second <= first - 0.2
    seen.unlink()
    assert run_of(script, tmp_path, deadline=time.monotonic() + 0.1) is None
    assert len(limits.read_text().split()) == 3
