"""Ctrl-C while rows are being solved: it comes through at once, and nothing of the batch goes on."""

import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the test engine is glibc's")

# The engine waits for a mutex in C: without the interpreter's lock, and no signal ends the wait.
PRELUDE = """
import ctypes, logging, os, signal, threading, time
import mapgrad, numpy as np
from concurrent.futures import ThreadPoolExecutor
from mapgrad.workers._runner import Job, Runner
from mapgrad.workers._workers import Workers
from mapgrad.solvers import Block, InstanceSolver

C = ctypes.CDLL(None)

class Engine(InstanceSolver):
    swallows = False

    def __init__(self, problem):
        super().__init__(problem)
        self.begun, self.closed, self.rows = threading.Semaphore(0), 0, []

    def init(self):
        mutex = ctypes.create_string_buffer(64)
        C.pthread_mutex_lock(mutex)
        return mutex

    def solve(self, mutex, theta, request):
        self.rows.append(int(theta[0]))
        self.begun.release()
        try:
            C.pthread_mutex_timedlock(mutex, (ctypes.c_long * 2)(int(time.time()) + 50, 0))
            sum(range(1000))  # where Python runs its handler at the latest
        except KeyboardInterrupt:
            if not self.swallows:
                raise
        return theta

    def close(self, mutex):
        self.closed += 1

class Stoppable(Engine):
    def stop(self, mutex):
        C.pthread_mutex_unlock(mutex)

class Swallowing(Stoppable):
    swallows = True

class Quick(InstanceSolver):
    def solve(self, state, theta, request):
        return theta

class Wakeful(Quick):
    def stop(self, state):
        pass

def interrupt(engine):
    def wait():
        engine.begun.acquire()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=wait, daemon=True).start()

runners = []  # one that is dropped would free its models

def solve(pool, solver, rows=5):
    block = Block(np.arange(rows, dtype=float)[:, None] + np.zeros((rows, 3)))
    runners.append(Runner(solver))
    pool.solve(runners[-1], Job("", None, problem, {}), block)
    assert not np.isnan(block.z).any() and not block.causes
    return block

def is_interrupted(pool, engine, rows=5):
    interrupt(engine)
    began = time.monotonic()
    try:
        solve(pool, engine, rows)
    except KeyboardInterrupt:
        assert time.monotonic() - began < 10
        return True
    return False

problem = mapgrad.KSubset(3, 1)
"""


@pytest.fixture
def run(run_program):
    """Run a script after the prelude, in a process of its own."""

    def checked(script):
        done = run_program(PRELUDE + script, timeout=60)
        assert (done.returncode, done.stdout.splitlines()[-1:], done.stderr) == (0, ["done"], "")

    return checked


def test_inline_the_engine_is_stopped_and_the_rows_after_it_are_dropped(run):
    run("""
pool = Workers(None)
for engine in (Stoppable(problem), Swallowing(problem)):
    for count in (1, 2):  # nothing is left of the first one
        assert is_interrupted(pool, engine)
        assert engine.rows == [0] * count, engine.rows
    assert engine.closed == (0 if engine.swallows else 2)
    solve(pool, Wakeful(problem))

class Nested(Wakeful):
    def solve(self, state, theta, request):
        return solve(pool, inner, 1).z[0]
inner = Swallowing(problem)
interrupt(inner)
try:
    solve(pool, Nested(problem))
except KeyboardInterrupt:
    assert inner.rows == [0]
else:
    raise AssertionError

class Raising(Stoppable):
    def stop(self, mutex):
        super().stop(mutex)
        raise OSError
messages = []
handler = logging.Handler()
handler.emit = lambda record: messages.append(record.getMessage())
logging.getLogger("mapgrad").addHandler(handler)
assert is_interrupted(pool, Raising(problem))
assert messages[0] == "Raising.stop raised"
assert signal.set_wakeup_fd(-1) == -1
print("done")
""")


def test_inline_a_handler_that_returns_lets_the_batch_go_on(run):
    run("""
calls = []
signal.signal(signal.SIGINT, lambda number, frame: (calls.append(number), engine.done.set()))
class Once(Stoppable):
    done = threading.Event()
    def solve(self, mutex, theta, request):
        return theta if self.done.is_set() and theta[0] else super().solve(mutex, theta, request)
engine = Once(problem)
reading, writing = os.pipe()
os.set_blocking(writing, False)
signal.set_wakeup_fd(writing)
def again():
    while len(engine.rows) < 2:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)
    engine.solve = lambda mutex, theta, request: theta
threading.Thread(target=again, daemon=True).start()
assert not is_interrupted(Workers(None), engine, rows=3)
assert calls == [signal.SIGINT] * 2
assert os.read(reading, 10) == bytes([signal.SIGINT] * 2)  # whoever listened before still hears
assert signal.set_wakeup_fd(-1) == writing
print("done")
""")


def test_what_a_signal_handler_raises_goes_through(run):
    run("""
class Sleepy(Quick):
    closed = 0
    def solve(self, state, theta, request):
        time.sleep(20)
    def close(self, state):
        self.closed += 1
def stop(number, frame):
    raise TimeoutError("alarm")
signal.signal(signal.SIGALRM, stop)
solver = Sleepy(problem)
for pool in (Workers(None), Workers(2)):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        solve(pool, solver)
    except TimeoutError:
        print("done" if isinstance(pool, Workers) and solver.closed and pool._crew else "", end="")
print()
""")


def test_threads_are_left_behind_and_others_take_their_place(run):
    run("""
pool = Workers(2)
engine = Engine(problem)  # which can't be stopped
assert is_interrupted(pool, engine, rows=20)
assert sorted(engine.rows) in ([0], [0, 1]), engine.rows
began = time.monotonic()
solve(pool, Quick(problem), rows=100)
assert time.monotonic() - began < 10
engine = Stoppable(problem)
assert is_interrupted(pool, engine, rows=20)
assert len(engine.rows) <= 2
for _ in range(100):
    time.sleep(0.05)
    at_work = pool._crew.at_work()
    if len(at_work) <= 2:
        break
assert len(at_work) <= 2  # those of the first engine
with ThreadPoolExecutor(2) as executor:
    engine = Stoppable(problem)
    assert is_interrupted(Workers(executor), engine, rows=20)
    assert len(engine.rows) <= 2
    solve(Workers(executor), Quick(problem))
print("done")
""")


def test_highs_itself(run):
    pytest.importorskip("highspy")
    run("""
import highspy
class Highs(InstanceSolver):
    begun = threading.Semaphore(0)
    def init(self):
        highs = highspy.Highs()
        highs.setOptionValue("output_flag", False)
        highs.setOptionValue("threads", 1)
        highs.HandleUserInterrupt = True
        rng = np.random.default_rng(0)
        integer = highspy.HighsVarType.kInteger
        columns = [highs.addVariable(0, 1, type=integer, obj=-float(c)) for c in rng.integers(50, 150, 100)]
        for row in rng.integers(1, 1000, (30, 100)):
            highs.addConstr(sum(float(a) * x for a, x in zip(row, columns)) <= float(row.sum() // 2))
        return highs
    def solve(self, highs, theta, request):
        self.begun.release()
        highs.setOptionValue("time_limit", 50.0)
        highs.run()
        return theta
    def stop(self, highs):
        highs.cancelSolve()
assert is_interrupted(Workers(None), Highs(problem))
print("done")
""")
