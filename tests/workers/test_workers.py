"""Who runs the rows of a block: rows that fail alone, workers that die, callers that share a pool."""

import gc
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import mapgrad
from mapgrad import Status
from mapgrad.solvers import Block, InstanceSolver
from mapgrad.workers import Workers, require_workers
from mapgrad.workers._runner import Job, Runner
from mapgrad.workers._threads import InPlace, Threads

PROBLEM = mapgrad.KSubset(3, 1)

# Workers elsewhere import a solver's class by name, which they can't from a test file.
MODULE = '''
import os
import signal
import time
import weakref
from pathlib import Path

import numpy as np

from mapgrad.solvers import InstanceSolver


class Factory:
    """Makes solvers, and counts how often it is unpickled."""

    def __init__(self, solver_class, log=None):
        self.solver_class, self.log = solver_class, log

    def build(self, problem, options):
        return self.solver_class(problem, **options)

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self.log:
            Path(self.log, f"unpickled-{os.getpid()}").touch()


class Identity(InstanceSolver):
    def __init__(self, problem, folder=None):
        super().__init__(problem)
        self.folder = folder

    def solve(self, state, theta, request):
        return self.answer(theta)

    def answer(self, theta):
        return theta + 0.0

    def close(self, state):
        if self.folder:
            Path(self.folder, f"closed-{os.getpid()}").touch()


class Deadly(Identity):
    def answer(self, theta):
        if theta[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return theta + 0.0


class Quitting(Identity):
    def answer(self, theta):
        if theta[0] < 0:
            raise KeyboardInterrupt if theta[0] < -1 else SystemExit(3)
        return theta + 0.0


class Unsendable(Identity):
    def answer(self, theta):
        error = ArithmeticError("x" * 1_000_000)
        error.held = lambda: None
        raise error


class Foreign(Identity):
    def answer(self, theta):
        raise ForeignError


class ForeignError(Exception):
    """Can be made in workers alone."""

    def __init__(self):
        if os.environ.get("MAPGRAD_TEST_HOME") == str(os.getpid()):
            raise OSError("not here")


class Hung(Identity):
    def answer(self, theta):
        Path(self.folder, "begun").touch()
        time.sleep(100)


class Unbuildable(Identity):
    def __init__(self, problem):
        raise OSError("no licence")
'''


@pytest.fixture(scope="module")
def solvers(import_source):
    return import_source("worker_solvers", MODULE)


@pytest.fixture(scope="module")
def processes(solvers):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture(scope="module")
def own_processes(solvers):
    pool = Workers("processes:1")
    yield pool
    pool.close()


def block_of(first, columns=3, **keywords):
    """Return a block whose rows begin with these numbers."""
    theta = np.arange(columns) + np.array(first, dtype=np.float64)[:, None]
    theta.flags.writeable = False
    return Block(theta, **keywords)


def prepare(solver_class, token="job", log=None, **options):
    factory = sys.modules["worker_solvers"].Factory(solver_class, log) if "worker_solvers" in sys.modules else None
    return Runner(solver_class(PROBLEM, **options)), Job(token, factory, PROBLEM, options)


def assert_answered(block, failed=()):
    expected = block.theta.copy()
    expected[list(failed)] = np.nan
    np.testing.assert_array_equal(block.z, expected)
    assert sorted(block.causes) == sorted(failed)


ERRORS = {-1: ValueError("minus one"), -2: SystemExit(2), -3: GeneratorExit(), -4: MemoryError()}


class Counting(InstanceSolver):
    """Answers with θ; raises what a row's first entry names; counts its native models."""

    def __init__(self, problem):
        super().__init__(problem)
        self.made, self.closed, self.lock = [], [], threading.Lock()

    def init(self):
        state = object()
        with self.lock:
            self.made.append(state)
        return state

    def solve(self, state, theta, request):
        error = ERRORS.get(int(theta[0]))
        if error is not None:
            raise error
        return theta + 0.0

    def close(self, state):
        with self.lock:
            self.closed.append(state)


WORKERS = [None, 2, "thread executor"]


@pytest.fixture(params=WORKERS, ids=str)
def pool(request):
    if request.param != "thread executor":
        pool = Workers(request.param)
        yield pool
        pool.close()
        return
    with ThreadPoolExecutor(2) as executor:
        yield Workers(executor)


# -- rows that fail alone


def test_whatever_is_raised_costs_its_row_and_its_model(pool):
    runner, job = prepare(Counting)
    block = block_of([5, -1, 6, -2, -3, 7, -4], exact=True)
    pool.solve(runner, job, block)
    assert_answered(block, failed=[1, 3, 4, 6])
    assert block.status.tolist() == [1, 0, 1, 0, 0, 1, 0]
    assert [block.causes[row] for row in (1, 3, 4, 6)] == list(ERRORS.values())
    runner.close()
    assert len(runner.solver.closed) == len(runner.solver.made) >= 4
    assert set(runner.solver.closed) == set(runner.solver.made)


def test_no_rows_need_no_model(pool):
    runner, job = prepare(Counting)
    pool.solve(runner, job, block_of([]))
    assert not runner.solver.made


def test_statuses_follow_the_errors():
    class Infeasible(InstanceSolver):
        def solve(self, state, theta, request):
            raise [mapgrad.InfeasibleError, mapgrad.UnboundedError, mapgrad.SolveTimeoutError, OSError][int(theta[0])](
                ""
            )

    block = block_of(range(4))
    Runner(Infeasible(PROBLEM)).run(block)
    assert [Status(status) for status in block.status] == [
        Status.INFEASIBLE,
        Status.UNBOUNDED,
        Status.TIME_LIMIT,
        Status.ERROR,
    ]


@pytest.mark.parametrize("names_row", [True, False, "nonsense"])
def test_a_loop_over_rows_that_raises_is_asked_for_the_others_again(names_row):
    class Blockwise(Counting):
        def solve_rows(self, state, block):
            block.z[:], block.status[:], block.objective[:], block.bound[:] = 99.0, Status.TIME_LIMIT, 9.0, 9.0
            for row, theta in enumerate(block.theta):
                if theta[0] < 0:
                    block.row = {True: row, False: None, "nonsense": len(block)}[names_row]
                    raise ValueError(row)
                if theta[0] != 4:  # a row that stays without an answer
                    block.z[row] = theta
                else:
                    assert np.isnan(block.z[row]).all() or block.z[row, 0] == 99.0
                    block.z[row] = np.nan
                block.status[row], block.objective[row], block.bound[row] = Status.OPTIMAL, 1.0, 2.0

    block = block_of([3, -1, 4, -2, -3, 5])
    Runner(Blockwise(PROBLEM)).run(block)
    failed = [1, 3, 4]
    assert sorted(block.causes) == failed
    np.testing.assert_array_equal(block.z[:, 0], [3, np.nan, np.nan, np.nan, np.nan, 5])
    assert block.status.tolist() == [1, 0, 1, 0, 0, 1]
    np.testing.assert_array_equal(block.objective, [1, np.nan, 1, np.nan, np.nan, 1])
    np.testing.assert_array_equal(block.bound, [2, np.nan, 2, np.nan, np.nan, 2])


def test_init_that_raises_fails_the_rows_that_are_left(pool):
    class Once(Counting):
        def init(self):
            if self.made:
                raise OSError("no second licence")
            return super().init()

    runner, job = prepare(Once)
    block = block_of([1, -1, 2, 3])
    Runner.run(runner, block)
    assert_answered(block, failed=[1, 2, 3])
    assert [str(block.causes[row]) for row in (1, 2, 3)] == ["minus one", *["no second licence"] * 2]
    pool.solve(runner, job, block := block_of([1, 2, 3]))
    assert sorted(block.causes) == [0, 1, 2]


def test_close_that_raises_is_logged_and_costs_nothing(pool, caplog):
    class Unclosable(Counting):
        def close(self, state):
            super().close(state)
            raise OSError("busy")

    runner, job = prepare(Unclosable)
    with caplog.at_level(logging.WARNING, logger="mapgrad"):
        pool.solve(runner, job, block := block_of([1, -1, 2]))
        runner.close()
    assert_answered(block, failed=[1])
    assert "Unclosable.close raised" in caplog.text
    assert "busy" in caplog.text
    assert len(runner.solver.closed) == len(runner.solver.made)


def test_models_are_reused_and_those_at_work_are_freed_when_given_back():
    class Closing(Counting):
        def solve(self, state, theta, request):
            if theta[0] == 7:
                runner.close()
            return theta

    runner, _ = prepare(Closing)
    runner.run(block_of([1, 2]))
    runner.run(block_of([3]))
    assert len(runner.solver.made) == 1
    assert not runner.solver.closed
    runner.run(block_of([7, 8]))
    assert runner.solver.closed == runner.solver.made
    runner.run(block_of([9]))  # a runner that was closed goes on
    assert len(runner.solver.made) == 2


def test_errors_say_where_they_were_raised_but_hold_no_frames():
    class Deep(InstanceSolver):
        def solve(self, state, theta, request):
            try:
                self.inner()
            except ZeroDivisionError as error:
                raise ValueError("outer") from error

        def inner(self):
            return 1 / 0

    block = block_of([1])
    Runner(Deep(PROBLEM)).run(block)
    error = block.causes[0]
    assert error.__traceback__ is error.__cause__.__traceback__ is None
    assert ", in solve\n" in error.__notes__[0]
    assert "raise ValueError" in error.__notes__[0]
    assert ", in inner\n" in error.__cause__.__notes__[0]
    assert "mapgrad/batching" not in "".join(error.__notes__ + error.__cause__.__notes__)


def test_errors_that_resist_are_kept_all_the_same():
    class FrozenError(Exception):
        def __setattr__(self, name, value):
            raise AttributeError(name)

        def __str__(self):
            raise RuntimeError

    shared = FrozenError()

    class Resisting(InstanceSolver):
        def solve(self, state, theta, request):
            raise shared

    block = block_of([1, 2])
    Runner(Resisting(PROBLEM)).run(block)
    assert list(block.causes.values()) == [shared] * 2
    assert shared.__traceback__ is None


def test_what_the_caller_itself_handles_stays_as_it_is():
    block = block_of([-1])

    def fail_while_handling():
        try:
            {}["the caller's"]
        except KeyError:
            Runner(Raising(PROBLEM)).run(block)
            raise

    with pytest.raises(KeyError) as caught:
        fail_while_handling()
    assert caught.traceback[-1].name == "fail_while_handling"
    assert not hasattr(caught.value, "__notes__")
    assert block.causes[0].__context__ is None


class AfreshError(ValueError):
    pass


class Raising(InstanceSolver):
    def solve(self, state, theta, request):
        raise AfreshError("raised afresh")


def test_a_failing_block_leaves_nothing_behind(pool):
    runner, job = prepare(Raising)
    block = block_of(range(4))
    gc.disable()
    try:
        pool.solve(runner, job, block)
        causes = [*map(weakref.ref, block.causes.values())]
        assert len(causes) == 4
        del block
        deadline = time.monotonic() + 10  # threads let go of the last portion
        while any(cause() is not None for cause in causes) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(cause() is not None for cause in causes)
    finally:
        gc.enable()


# -- threads


def test_threads_are_shared_named_and_ended():
    others = set(threading.enumerate())  # that tests of rows which hang have left behind
    pool = Workers(2)
    runner, job = prepare(Counting)
    blocks = [block_of(range(200)) for _ in range(6)]
    callers = [threading.Thread(target=pool.solve, args=(runner, job, block)) for block in blocks]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for block in blocks:
        assert_answered(block)
    assert sorted(names(others)) == ["mapgrad_0", "mapgrad_1"]
    assert len(runner.solver.made) <= 2
    pool.close()
    assert not names(others)
    pool.solve(runner, job, block := block_of([1, 2]))  # later use starts new threads
    assert_answered(block)
    del pool
    gc.collect()
    wait_until(lambda: not names(others))


def names(others):
    return [
        thread.name
        for thread in set(threading.enumerate()) - others
        if thread.name.startswith("mapgrad_") and thread.name != "mapgrad_interrupts"
    ]


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_portions_balance_uneven_rows():
    class Uneven(InstanceSolver):
        def solve(self, state, theta, request):
            time.sleep(0.1 if theta[0] == 0 else 0.002)
            seen.setdefault(threading.current_thread().name, []).append(theta[0])
            return theta

    seen = {}
    pool = Workers(2)
    runner, job = prepare(Uneven)
    pool.solve(runner, job, block := block_of(range(40)))
    assert_answered(block)
    assert len(next(rows for rows in seen.values() if 0 in rows)) < 12
    pool.close()


def test_close_while_others_solve_lets_them_finish(pool):
    class Slow(Counting):
        def solve(self, state, theta, request):
            begun.set()
            time.sleep(0.01)
            return theta

    begun = threading.Event()
    runner, job = prepare(Slow)
    block = block_of(range(30))
    caller = threading.Thread(target=pool.solve, args=(runner, job, block))
    caller.start()
    begun.wait()
    pool.close()
    runner.close()
    pool.solve(runner, job, other := block_of([1, 2]))
    caller.join()
    assert_answered(block)
    assert_answered(other)
    runner.close()
    assert set(runner.solver.closed) == set(runner.solver.made)


def test_close_just_as_threads_are_started_leaves_no_batch_behind(monkeypatch):
    start, closers, answered = Threads._start, [], threading.Event()

    def start_and_close(threads, rows):
        started = start(threads, rows)
        closers.append(threading.Thread(target=threads.close))
        closers[-1].start()
        for thread in [*closers, *threads._wanted]:
            thread.join(0.2)
        return started

    monkeypatch.setattr(Threads, "_start", start_and_close)
    pool = Workers(2)
    runner, job = prepare(Counting)
    block = block_of(range(4))
    caller = threading.Thread(target=lambda: (pool.solve(runner, job, block), answered.set()), daemon=True)
    caller.start()
    assert answered.wait(10)
    assert_answered(block)
    for closer in closers:
        closer.join(10)


def test_a_solver_may_ask_its_own_pool():
    class Nested(InstanceSolver):
        def solve(self, state, theta, request):
            pool.solve(*inner, block := block_of([theta[0]]))
            return block.z[0]

    pool = Workers(2)
    inner = prepare(Counting)
    pool.solve(*prepare(Nested), block := block_of(range(6)))
    assert_answered(block)
    pool.close()


def test_keyboard_interrupt_that_a_solver_raises_in_a_thread_is_its_rows():
    class Interrupting(InstanceSolver):
        def solve(self, state, theta, request):
            raise KeyboardInterrupt

    pool = Workers(2)
    pool.solve(*prepare(Interrupting), block := block_of([1, 2]))
    assert all(isinstance(error, KeyboardInterrupt) for error in block.causes.values())
    assert_answered(block, failed=[0, 1])
    pool.close()


def test_a_program_ends_though_a_row_hangs(run_program):
    script = """
import threading, time
import mapgrad, numpy as np
from mapgrad.workers._runner import Job, Runner
from mapgrad.workers._threads import Threads
from mapgrad.workers._workers import Workers
from mapgrad.solvers import Block, InstanceSolver
class Hung(InstanceSolver):
    def solve(self, state, theta, request):
        begun.set()
        time.sleep(1000)
begun = threading.Event()
problem = mapgrad.KSubset(3, 1)
pool = Workers(2)
arguments = Runner(Hung(problem)), Job("", None, problem, {}), Block(np.zeros((3, 3)))
threading.Thread(target=pool.solve, args=arguments, daemon=True).start()
begun.wait()
print("end")
"""
    done = run_program(script, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


# -- given executors


def test_an_executor_that_runs_in_place():
    class Immediate(ThreadPoolExecutor):
        def submit(self, function, /, *arguments, **keywords):
            future = Future()
            future.set_result(function(*arguments, **keywords))
            return future

    with Immediate(1) as executor:
        Workers(executor).solve(*prepare(Counting), block := block_of([1, -1, 2]))
    assert_answered(block, failed=[1])


def test_an_executor_that_was_shut_down_fails_the_rows():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    Workers(executor).solve(*prepare(Counting), block := block_of([1, 2]))
    assert_answered(block, failed=[0, 1])
    assert "is it shut down?" in str(block.causes[0])
    assert isinstance(block.causes[0].__cause__, RuntimeError)


def test_a_caller_inside_of_its_own_executor_takes_its_rows_back():
    with ThreadPoolExecutor(1) as executor:
        block = block_of([1, -1, *range(20)])
        executor.submit(Workers(executor).solve, *prepare(Counting), block).result(timeout=30)
        assert_answered(block, failed=[1])


def test_models_in_a_given_executors_threads_are_the_runners():
    with ThreadPoolExecutor(2) as executor:
        runner, job = prepare(Counting)
        Workers(executor).solve(runner, job, block_of(range(20)))
        runner.close()
        assert set(runner.solver.closed) == set(runner.solver.made)


def test_a_given_process_executor_gets_a_job_once_and_forgets_it(processes, solvers, tmp_path):
    runner, job = prepare(solvers.Identity, "once", str(tmp_path), folder=str(tmp_path))
    pool = Workers(processes)
    for _ in range(3):
        pool.solve(runner, job, block := block_of(range(50), seconds=1.0))
        assert_answered(block)
    assert len(list(tmp_path.glob("unpickled-*"))) == 1
    other = Workers(processes)  # which doesn't know what the worker has
    other.solve(runner, job, block := block_of([1, 2]))
    assert_answered(block)
    assert not list(tmp_path.glob("closed-*"))
    pool.forget("once")
    wait_until(lambda: list(tmp_path.glob("closed-*")))
    pool.solve(runner, job, block := block_of([1, 2]))
    other.solve(runner, job, block := block_of([1, 2]))
    assert_answered(block)
    assert processes.submit(int, "3").result() == 3


def test_a_worker_keeps_sixteen_jobs(processes, solvers, tmp_path):
    pool = Workers(processes)
    for number in range(18):
        folder = tmp_path / str(number)
        folder.mkdir()
        pool.solve(*prepare(solvers.Identity, f"many-{number}", folder=str(folder)), block := block_of([1]))
        assert_answered(block)
    assert {int(path.parent.name) for path in tmp_path.glob("*/closed-*")} == {0, 1}
    pool.close()
    wait_until(lambda: len(list(tmp_path.glob("*/closed-*"))) == 18)


def test_what_cannot_be_sent_fails_the_rows(processes, solvers):
    pool = Workers(processes)
    runner, _ = prepare(Counting)
    pool.solve(runner, Job("local", lambda: None, PROBLEM, {}), block := block_of([1, 2]))
    assert isinstance(block.causes[0], pickle.PicklingError)
    assert "take threads" in str(block.causes[0])
    pool.solve(*prepare(solvers.Unsendable, "unsendable"), block := block_of([1, 2]))
    assert str(block.causes[1]) == "ArithmeticError: " + "x" * 1000 + " …"
    assert "in answer" in block.causes[1].__notes__[0]
    job = Job("unbuildable", solvers.Factory(solvers.Unbuildable), PROBLEM, {})
    pool.solve(runner, job, block := block_of([1, 2]))
    assert [str(error) for error in block.causes.values()] == ["no licence"] * 2


def test_an_error_that_can_only_be_made_in_the_worker_costs_its_row(processes, solvers, monkeypatch):
    monkeypatch.setenv("MAPGRAD_TEST_HOME", str(os.getpid()))
    pool = Workers(processes)
    pool.solve(*prepare(solvers.Foreign, token="foreign"), block := block_of([1, 2]))
    assert_answered(block, failed=[0, 1])
    assert str(block.causes[0]) == "ForeignError: "
    pool.solve(*prepare(solvers.Identity, token="fine"), block := block_of([1, 2]))
    assert_answered(block)


def test_a_process_that_quits_by_itself_costs_a_row(processes, solvers):
    Workers(processes).solve(*prepare(solvers.Quitting, "quitting"), block := block_of([1, -1, 2, -2, 3]))
    assert_answered(block, failed=[1, 3])
    assert [type(block.causes[row]) for row in (1, 3)] == [SystemExit, KeyboardInterrupt]


# -- our own processes


def test_only_rows_that_kill_their_worker_fail(own_processes, solvers):
    runner, job = prepare(solvers.Deadly, "deadly")
    own_processes.solve(runner, job, block := block_of([1, 2, -1, *range(20)]))
    assert_answered(block, failed=[2])
    assert isinstance(block.causes[2], ChildProcessError)
    own_processes.solve(runner, job, block := block_of(range(20)))
    assert_answered(block)


def test_an_interrupt_ends_processes_that_hang(solvers, tmp_path, run_program):
    script = f"""
import os, pathlib, signal, sys, threading, time
sys.path.insert(0, {str(solvers.Path(solvers.__file__).parent)!r})
import mapgrad, numpy as np, worker_solvers
from mapgrad.workers._runner import Job, Runner
from mapgrad.workers._threads import Threads
from mapgrad.workers._workers import Workers
from mapgrad.solvers import Block
def interrupt():
    while not pathlib.Path({str(tmp_path)!r}, "begun").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
problem, options, pool = mapgrad.KSubset(3, 1), dict(folder={str(tmp_path)!r}), Workers("processes:1")
job = Job("", worker_solvers.Factory(worker_solvers.Hung), problem, options)
try:
    pool.solve(Runner(worker_solvers.Hung(problem, **options)), job, Block(np.zeros((3, 3))))
except KeyboardInterrupt:
    print("interrupted")
"""
    done = run_program(script, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_processes_without_a_main_guard_say_so(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        MODULE
        + """
import mapgrad
from mapgrad.workers._runner import Job, Runner
from mapgrad.workers._threads import Threads
from mapgrad.workers._workers import Workers
from mapgrad.solvers import Block
problem = mapgrad.KSubset(3, 1)
pool = Workers("processes:1")
block = Block(np.zeros((50, 3)))
pool.solve(Runner(Identity(problem)), Job("", Factory(Identity), problem, {}), block)
if block.causes:
    raise SystemExit(f"{len(block.causes)} failed: {block.causes[49]}")
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "50 failed: no worker process starts" in done.stderr
    assert '__name__ == "__main__"' in done.stderr


def test_a_script_that_reads_its_arguments_as_it_is_imported(tmp_path):
    script = tmp_path / "with_arguments.py"
    script.write_text("""
import argparse
import numpy as np, torch, mapgrad
parser = argparse.ArgumentParser()
parser.add_argument("--place", type=int, required=True)
place = parser.parse_args().place

class Placed(mapgrad.InstanceSolver):
    def solve(self, state, theta, request):
        return np.eye(3)[place]

if __name__ == "__main__":
    print(mapgrad.get_solver(Placed, mapgrad.KSubset(3, 1), workers="processes:1")(torch.ones(3)).tolist())
""")
    command = [sys.executable, script, "--place", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0.0, 0.0, 1.0]\n", "")


def test_a_thread_that_gets_ready_as_slowly_as_another_did_is_not_given_up(monkeypatch):
    monkeypatch.setattr("mapgrad.workers._threads.START", 0.1)
    ready, given_up = [], []

    class Slow(InPlace):
        is_there = False

        def is_ready(self, batch):
            return self.is_there

        def prepare(self, batch):
            time.sleep(0.2 if self is hands[0] else 0.3)
            self.is_there = True
            ready.append(self)

        def stop(self, batch, *, is_last):
            given_up.append(self)

    hands = []
    threads = Threads(2, lambda: hands.append(Slow()) or hands[-1])
    runner, job = prepare(Counting)
    deadline = time.monotonic() + 10
    while len(ready) < 2 and time.monotonic() < deadline:
        block = block_of(range(2))
        threads.solve(runner, job, block)
        assert_answered(block)
        time.sleep(0.005)
    assert len(ready) == len(hands) == 2
    assert not given_up
    threads.close()


# -- what a user may give


@pytest.mark.parametrize("workers", [None, 1, 3, "processes:2"])
def test_workers_that_are_accepted(workers):
    require_workers(workers)


@pytest.mark.parametrize(
    ("workers", "error"), [(0, ValueError), (-1, ValueError), ("two", ValueError), ("processes:0", ValueError),
                           (True, TypeError), (1.5, TypeError)],
)  # fmt: skip
def test_workers_that_are_refused(workers, error):
    with pytest.raises(error, match="workers must be None, a number of threads of at least 1"):
        require_workers(workers)
