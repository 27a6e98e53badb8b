"""Ctrl-C in the midst of a long native solve, and programs that end though a row hangs: what a user sees."""

import importlib.util
import signal
import time

import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals as POSIX has them")

# An interrupt is due within a second; a busy machine gets three.
PRELUDE = """
import os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
import numpy as np, torch
import mapgrad
from mapgrad.testing._slow_program import slow_program

program, *rows, answer = slow_program()
slow, quick = (torch.from_numpy(row) * (1 - torch.arange(8)[:, None] / 64) for row in rows)  # all different
answer = torch.from_numpy(answer)

def interrupt(after=0.2):
    def send():
        time.sleep(after)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    sent = []
    threading.Thread(target=send, daemon=True).start()
    return sent

def is_interrupted(call):
    sent = interrupt()
    try:
        call()
    except KeyboardInterrupt:
        delay = time.monotonic() - sent[0]
        print(f"interrupted after {delay:.3f} s")
        assert delay < 3, delay
        return True
    return False

def goes_on(solver):
    "Eight easy rows are solved at once, whatever was asked before."
    began = time.monotonic()
    assert (solver(quick) == answer).all()
    took = time.monotonic() - began
    print(f"then {len(quick)} rows in {took:.3f} s")
    assert took < 10, took

def children():
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has ended
            found += (task / "children").read_text().split()
    return found

def ends():
    print("done", time.time(), flush=True)
"""


@pytest.fixture
def run(run_program):
    """Run a script after the prelude; check its exit code, and that it ends once it is done."""

    def checked(script, *arguments, code=0):
        done = run_program(PRELUDE + script, *arguments, timeout=300)
        ended = time.time()
        print(done.stdout, done.stderr)  # noqa: T201 (the delays, for whoever asks for them by -rP)
        assert done.returncode == code, done.stderr
        last = done.stdout.split()[-2:]
        assert last[:1] == ["done"], done.stderr
        assert ended - float(last[1]) < 10
        return done

    return checked


def installed(name):
    packages = {"highs": "highspy", "ortools": "ortools", "pulp": "pulp", "scipy": "scipy"}
    return pytest.param(
        name, marks=pytest.mark.skipif(importlib.util.find_spec(packages[name.split(".")[0]]) is None, reason=name)
    )


# OR-Tools' CBC, which can't be stopped and answers to SIGINT itself, isn't among them.
ENGINES = [installed(name) for name in ("highs", "ortools.cp_sat", "ortools.mip scip", "pulp.highs", "pulp.cbc")]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_interrupt_comes_within_a_second_and_drops_the_batch(run, engine):
    """Rows 2, 2b and 2c: inline, in threads and in a given executor; forward, and in the backward pass of a layer."""
    run(
        """
name, *engine = sys.argv[1].split()
options = {"engine": engine[0]} if engine else {}
with ThreadPoolExecutor(2) as executor:
    for workers in (None, 2, executor):
        solver = mapgrad.get_solver(name, program, workers=workers, **options)
        goes_on(solver)
        assert is_interrupted(lambda: solver(slow))
        goes_on(solver)
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(None, mapgrad.Step(1.0)))
        theta = quick.clone().requires_grad_()
        z = layer(theta)
        if workers is not executor:
            assert is_interrupted(lambda: z.backward(quick - slow))
            assert theta.grad is None
            goes_on(solver)
        assert threading.active_count() < 8
for _ in range(100):
    if not children():
        break
    time.sleep(0.05)
assert not children()  # an engine that is a program of its own
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
ends()
""",
        engine,
    )


@pytest.mark.parametrize("engine", [installed("scipy.milp")])
def test_in_threads_an_engine_that_can_not_be_stopped_is_left_behind(run, engine):
    """The main thread reacts, the next rows get other threads, and the program ends."""
    run(
        """
solver = mapgrad.get_solver(sys.argv[1], program, workers=2)
goes_on(solver)
assert is_interrupted(lambda: solver(slow))
goes_on(solver)
ends()
""",
        engine,
    )


@pytest.mark.parametrize("workers", ["None", "2"])
@pytest.mark.parametrize("engine", ENGINES[:1])
def test_an_interrupt_that_nobody_catches_ends_the_program(run, engine, workers):
    done = run(
        """
import atexit
solver = mapgrad.get_solver(sys.argv[1], program, workers=eval(sys.argv[2]))
goes_on(solver)
interrupt()
atexit.register(ends)
solver(slow)
""",
        engine,
        workers,
        code=-signal.SIGINT,
    )
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_own_problems_are_interrupted_too(run):
    run("""
class Sleeping(mapgrad.InstanceSolver):
    def solve(self, state, theta, request):
        time.sleep(0.01 if theta[0] > 0 else 100)
        return (theta >= np.sort(theta)[-self.problem.k]).astype(float)

problems = [mapgrad.KSubset(4, 1 + row % 2) for row in range(8)]
theta = torch.tensor([3.0, 4.0, 2.0, 1.0]) * (1 - torch.arange(8)[:, None] / 64)
for workers in (None, 2):
    solver = mapgrad.get_solver(Sleeping, None, workers=workers)
    for _ in range(3):
        assert is_interrupted(lambda: solver(-theta, problems=problems))
        assert solver(theta, problems=problems).sum(dim=1).tolist() == [1.0, 2.0] * 4
ends()
""")


HUNG = """
class Hung(mapgrad.InstanceSolver):
    def solve(self, state, theta, request):
        begun.set()
        time.sleep(1000)

begun = threading.Event()
problem = mapgrad.KSubset(4, 1)
"""


def test_the_program_ends_though_a_row_hangs_in_a_thread(run):
    """Row 4."""
    run(
        HUNG
        + """
solver = mapgrad.get_solver(Hung, problem, workers=2)
threading.Thread(target=solver, args=(torch.eye(4),), daemon=True).start()
begun.wait()
ends()
"""
    )


def test_a_program_that_ends_amid_a_daemon_threads_rows_says_nothing_of_them(run_program):
    done = run_program(
        """
import sys, threading, time, torch, mapgrad

begun = threading.Event()

class Slow(mapgrad.InstanceSolver):
    def solve(self, state, theta, request):
        begun.set()
        time.sleep(0.02)
        return theta

solver = mapgrad.get_solver(Slow, mapgrad.KSubset(4, 1), workers=2, merge=False)
threading.Thread(target=solver, args=(torch.rand(200, 4),), daemon=True).start()
begun.wait()
sys.exit(7)
""",
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (7, "")


def test_the_program_ends_though_rows_hang_that_were_interrupted(run):
    run(
        HUNG
        + """
solver = mapgrad.get_solver(Hung, problem, workers=2)
theta = torch.eye(4)
assert is_interrupted(lambda: solver(theta))
assert is_interrupted(lambda: mapgrad.MAPLayer(solver)(theta))
assert is_interrupted(lambda: solver(theta, problems=[problem, mapgrad.KSubset(4, 2)] * 2))
solver.close()
assert is_interrupted(lambda: solver(theta))
del solver
ends()
"""
    )
