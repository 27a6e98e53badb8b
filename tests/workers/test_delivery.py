"""Executors in which rows fail, workers die, nobody answers, or the caller itself is at work."""

import importlib
import logging
import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

import mapgrad
from mapgrad.errors import SolveTimeoutError
from mapgrad.solvers import Block
from mapgrad.workers import Workers
from mapgrad.workers._parcels import is_there
from mapgrad.workers._runner import Job, Runner

PROBLEM = mapgrad.KSubset(3, 1)

MODULE = '''
import os
import time

from mapgrad.solvers import InstanceSolver


class Factory:
    def build(self, problem, options):
        return Fragile(problem)


class Fragile(InstanceSolver):
    """Answers with θ; −1 kills its process, −2 hangs."""

    def solve(self, state, theta, request):
        if theta[0] == -1:
            os._exit(3)
        if theta[0] == -2:
            time.sleep(100)
        return theta + 0.0

'''


@pytest.fixture(scope="module")
def fragile(import_source):
    return import_source("fragile_solvers", MODULE)


def block_of(first):
    theta = np.arange(3) + np.array(first, dtype=np.float64)[:, None]
    theta.flags.writeable = False
    return Block(theta)


def prepare(fragile):
    return Runner(fragile.Fragile(PROBLEM)), Job("fragile", fragile.Factory(), PROBLEM, {})


def assert_answered(block, failed=()):
    expected = block.theta.copy()
    expected[list(failed)] = np.nan
    np.testing.assert_array_equal(block.z, expected)
    assert sorted(block.causes) == sorted(failed)


class Pickling(Executor):
    """Runs calls in threads of this process as if they were elsewhere: pickled, and so are their results."""

    def __init__(self, refuses=lambda theta: False):
        self.refuses = refuses
        self.calls = []
        self._threads = ThreadPoolExecutor(2)

    def submit(self, fn, /, *args, **kwargs):
        return self._threads.submit(self._run, pickle.dumps(fn), args, kwargs)

    def _run(self, data, args, kwargs):
        call = pickle.loads(data)
        if hasattr(call, "args"):  # that of rows
            theta = call.args[2]
            self.calls.append(len(theta))
            if self.refuses(theta):
                raise ConnectionError("the worker is gone")
        return pickle.loads(pickle.dumps(call(*args, **kwargs)))

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


class Replacing(Executor):
    """Two processes, each replaced when it dies, which costs the calls that it has."""

    _max_workers = 2

    def __init__(self):
        self.deaths = 0
        self._threads = ThreadPoolExecutor(2)
        self._own = threading.local()
        self._pools = []

    def submit(self, fn, /, *args, **kwargs):
        return self._threads.submit(self._run, fn, *args, **kwargs)

    def _run(self, fn, *args, **kwargs):
        if getattr(self._own, "pool", None) is None:
            self._own.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
            self._pools.append(self._own.pool)
        try:
            return self._own.pool.submit(fn, *args, **kwargs).result()
        except BrokenProcessPool as error:
            self._own.pool = None
            self.deaths += 1
            raise ConnectionError("the worker is gone") from error

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown()


def test_a_row_whose_calls_fail_is_found_by_halving(fragile):
    runner, job = prepare(fragile)
    with Pickling(lambda theta: (theta[:, 0] == 700).any()) as executor:
        runner.pace = 1e-6  # so that portions are large
        Workers(executor).solve(runner, job, block := block_of(range(1000)))
    assert_answered(block, failed=[700])
    assert isinstance(block.causes[700], ConnectionError)
    assert max(executor.calls) > 100
    assert sum(executor.calls) < 4000
    assert len(executor.calls) < 100


def test_calls_that_fail_beside_a_row_at_fault_cost_nothing(fragile):
    """As in clusters that count a worker's death against all calls that it had."""
    at_work = threading.Semaphore(2)

    def refuses(theta):
        with at_work:
            time.sleep(1e-3)
            is_alone = at_work.acquire(blocking=False)
            if is_alone:
                at_work.release()
            return (theta[:, 0] == 3).any() or not is_alone

    with Pickling(refuses) as executor:
        Workers(executor).solve(*prepare(fragile), block := block_of(range(8)))
    assert_answered(block, failed=[3])


def test_a_row_that_kills_its_worker_costs_itself(fragile):
    runner, job = prepare(fragile)
    with Replacing() as executor:
        workers = Workers(executor)
        workers.solve(runner, job, block := block_of([1, 2]))
        runner.pace = 1e-6
        workers.solve(runner, job, block := block_of([*range(20), -1, *range(20)]))
        assert_answered(block, failed=[20])
        assert 2 <= executor.deaths <= 7
        workers.solve(runner, job, block := block_of(range(20)))
        assert_answered(block)


def test_where_every_call_fails_the_rows_are_given_up_soon(fragile):
    with Pickling(lambda theta: True) as executor:
        Workers(executor).solve(*prepare(fragile), block := block_of(range(10_000)))
    assert len(block.causes) == 10_000
    assert "the worker is gone" in str(block.causes[9_999])
    assert len(executor.calls) < 200


def test_an_executor_that_refuses_some_calls_gets_them_again(fragile):
    class Busy(ThreadPoolExecutor):
        refused = 0

        def submit(self, fn, /, *args, **kwargs):
            if self.refused < 5:
                self.refused += 1
                raise OSError("try again")
            return super().submit(fn, *args, **kwargs)

    with Busy(2) as executor:
        Workers(executor).solve(*prepare(fragile), block := block_of(range(20)))
    assert_answered(block)


@pytest.mark.parametrize("count", [-3, 0, None, "4"])
def test_an_executor_may_say_nothing_of_use_about_its_workers(fragile, count):
    class Odd(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            self._max_workers = 2
            try:
                return super().submit(fn, *args, **kwargs)
            finally:
                self._max_workers = count

    with Odd(2) as executor:
        executor.submit(int)
        Workers(executor).solve(*prepare(fragile), block := block_of(range(20)))
    assert_answered(block)


def test_what_is_submitted_must_be_a_future(fragile):
    class Wrong(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            return 3

    with Wrong(2) as executor:
        Workers(executor).solve(*prepare(fragile), block := block_of(range(20)))
    assert_answered(block, failed=range(20))
    assert "add_done_callback" in str(block.causes[7])


def test_a_process_pool_that_breaks_is_succeeded(fragile, caplog):
    runner, job = prepare(fragile)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        workers = Workers(pool)
        workers.solve(runner, job, block := block_of([*range(20), -1, *range(20)]))
        assert_answered(block, failed=[20])
        with pytest.raises(BrokenExecutor):
            pool.submit(int)
        workers.solve(runner, job, block := block_of(range(20)))
        assert_answered(block)
        workers.close()
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "ProcessPoolExecutor, given as workers, is broken for good" in record.getMessage()
    assert 'workers="processes:2"' in record.getMessage()


def test_a_row_that_hangs_in_a_process_misses_the_deadline_alone(fragile):
    runner, job = prepare(fragile)
    imported = {"initializer": importlib.import_module, "initargs": ("mapgrad.workers._parcels",)}
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"), **imported) as pool:
        pids = set()
        while len(pids) < 2:  # the deadline is not for their start
            pids |= {each.result() for each in [pool.submit(os.getpid) for _ in range(8)]}
        began = time.monotonic()
        Workers(pool).solve(runner, job, block := block_of([1, -2, *range(20)]), 1.0)
        assert_answered(block, failed=[1])
        assert isinstance(block.causes[1], SolveTimeoutError)
        Workers(pool).solve(runner, job, block := block_of([-2, -2, -2, 5]), 0.5)
        assert {0, 1, 2} <= set(block.causes)
        assert time.monotonic() - began < 30
        assert [each.result(10) for each in [pool.submit(int, "3") for _ in range(8)]] == [3] * 8  # both are free


def test_an_executor_that_remembers_calls_gives_one_future_to_several(fragile):
    class Remembering(Pickling):
        def __init__(self):
            super().__init__()
            self.known = {}

        def submit(self, fn, /, *args, **kwargs):
            theta = fn.__reduce__()[1][3].tobytes()
            if theta not in self.known:
                self.known[theta] = super().submit(fn, *args, **kwargs)
            return self.known[theta]

    with Remembering() as executor:
        Workers(executor).solve(*prepare(fragile), block := block_of([5] * 20))
    assert_answered(block)


@pytest.mark.parametrize("change", [list, lambda answers: None, lambda answers: answers.z])
def test_results_that_are_changed_on_the_way_are_told(fragile, change):
    class Changing(Pickling):
        def _run(self, data, args, kwargs):
            return change(super()._run(data, args, kwargs))

    with Changing() as executor:
        Workers(executor).solve(*prepare(fragile), block := block_of(range(5)))
    assert_answered(block, failed=range(5))
    assert "expected from the executor what its call returned, Answers to 1 rows, got" in str(block.causes[3])


def test_an_executor_may_fail_to_count_and_to_cancel(fragile):
    class Rude(Asleep):
        @property
        def _max_workers(self):
            raise OSError("nobody knows")

        def submit(self, fn, /, *args, **kwargs):
            future = super().submit(fn, *args, **kwargs)
            future.cancel = lambda: self._max_workers
            return future

    Workers(Rude()).solve(*prepare(fragile), block := block_of(range(5)), 0.2)
    assert all(isinstance(block.causes[row], SolveTimeoutError) for row in range(5))


class Asleep(Executor):
    """Has no workers, but says that it has."""

    def __init__(self):
        self.rows = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        if fn is is_there:
            future.set_result(None)
        else:
            self.rows.append(future)
        return future


def test_calls_that_have_not_begun_at_the_deadline_are_cancelled(fragile):
    executor = Asleep()
    Workers(executor).solve(*prepare(fragile), block := block_of(range(5)), 0.2)
    assert all(isinstance(block.causes[row], SolveTimeoutError) for row in range(5))
    assert executor.rows
    assert all(future.cancelled() for future in executor.rows)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_process_pool_called_from_its_own_task(run_program):
    script = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
import torch, mapgrad

def task():
    return mapgrad.get_solver("topk", mapgrad.KSubset(3, 1), workers=pool)(torch.eye(3))

def remote():
    return mapgrad.get_solver("networkx.assignment", mapgrad.Assignment(2), workers=pool)(torch.eye(2)[None])

pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
with pool:
    assert torch.equal(pool.submit(task).result(), torch.eye(3))
    assert torch.equal(pool.submit(remote).result(), torch.eye(2)[None])
print("end")
"""
    done = run_program(script, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.parametrize(("workers", "rows"), [(2, 20), (200, 28)])
def test_portions_grow_with_the_number_of_workers(fragile, workers, rows):
    """So that a scheduler that takes 2 ms a call keeps up: 200 ms each, or √(40 s · 2 ms)."""
    runner, job = prepare(fragile)
    runner.pace = 1e-2
    with Pickling() as executor:
        executor._max_workers = workers
        Workers(executor).solve(runner, job, block := block_of(range(4000)))
    assert_answered(block)
    assert executor.calls[0] == rows
