"""Forks: a child starts its own threads, processes and native models, whoever held which lock."""

import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest

import mapgrad
from mapgrad.solvers import Block, InstanceSolver
from mapgrad.workers._fork_server import fork_server
from mapgrad.workers._locks import call_after_fork, new_condition, new_lock
from mapgrad.workers._messages import send
from mapgrad.workers._runner import Job, Runner
from mapgrad.workers._workers import Workers

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

PROBLEM = mapgrad.KSubset(3, 1)
JOB = Job("", None, PROBLEM, {})


class Counting(InstanceSolver):
    """Its native models say which process they belong to."""

    def __init__(self, problem):
        super().__init__(problem)
        self.closed = []

    def init(self):
        return os.getpid()

    def solve(self, state, theta, request):
        assert state == os.getpid()
        return theta

    def stop(self, state):
        pass

    def close(self, state):
        self.closed.append(state)


def solve(pool, runner, rows=20):
    block = Block(np.arange(rows, dtype=float)[:, None] + np.zeros((rows, 3)))
    pool.solve(runner, JOB, block)
    np.testing.assert_array_equal(block.z, block.theta)


@pytest.mark.parametrize("workers", [None, 2])
def test_a_pool_that_was_used_works_in_a_child(workers, in_child):
    pool, runner = Workers(workers), Runner(Counting(PROBLEM))
    solve(pool, runner)

    def child():
        solve(pool, runner)
        pool.close()
        runner.close()
        assert set(runner.solver.closed) == {os.getpid()}  # the parent's models are the parent's

    in_child(child)
    in_child(lambda: in_child(child))
    solve(pool, runner)
    assert not runner.solver.closed
    pool.close()


def test_a_fork_while_others_solve(in_child):
    class Slow(Counting):
        def solve(self, state, theta, request):
            time.sleep(0.001)
            return super().solve(state, theta, request)

    pool, runner = Workers(2), Runner(Slow(PROBLEM))
    callers = [threading.Thread(target=solve, args=(pool, runner, 200)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for _ in range(10):
        in_child(lambda: solve(pool, runner, 2))
    for caller in callers:
        caller.join()
    pool.close()


def test_locks_are_free_in_a_child_though_somebody_held_them(in_child):
    lock, condition = new_lock(), new_condition()
    held, over = threading.Event(), threading.Event()

    def hold():
        with lock, condition:
            held.set()
            over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()

    def child():
        with lock, lock, condition:
            condition.notify()

    in_child(child)
    over.set()
    holder.join()


def test_owners_are_called_in_a_child_and_not_kept_alive(in_child):
    class Owner:
        forks = 0

        def after_fork(self):
            self.forks += 1

    owner, dropped = Owner(), Owner()
    call_after_fork(owner)
    call_after_fork(dropped)
    del dropped

    def child():
        assert owner.forks == 1

    in_child(child)
    assert owner.forks == 0


def test_an_interrupt_in_a_child_stays_there(in_child):
    pool, runner = Workers(None), Runner(Counting(PROBLEM))
    solve(pool, runner)  # the watcher is there

    class Interrupted(Counting):
        def solve(self, state, theta, request):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    class Forking(Counting):
        def solve(self, state, theta, request):
            in_child(self.child)
            return theta

        def child(self):
            solve(pool, runner)
            with pytest.raises(KeyboardInterrupt):
                solve(pool, Runner(Interrupted(PROBLEM)))

        def stop(self, state):
            stopped.append(state)

    stopped = []
    solve(pool, Runner(Forking(PROBLEM)), rows=2)
    assert not stopped


def test_children_hold_nothing_of_the_workers_that_are_forked_meanwhile():
    """Nobody would see that a worker has ended until the child has, too, which may be that of a data loader."""
    seen, children, over = [], [], threading.Event()

    def fork_workers():
        while not over.is_set() and False not in seen:
            worker = fork_server.fork()
            send(worker.socket, None)
            worker.socket.settimeout(5)
            try:
                seen.append(worker.socket.recv(1) == b"")
            except TimeoutError:
                seen.append(False)
            worker.close()
            time.sleep(0.001)

    forking = threading.Thread(target=fork_workers)
    forking.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks while threads run
            while forking.is_alive() and len(children) < 60:
                child = os.fork()
                if child == 0:
                    time.sleep(60)
                    os._exit(0)
                children.append(child)
        over.set()
        forking.join(30)
        is_held_up = forking.is_alive()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert len(children) == 60
    assert all(seen)
    assert not is_held_up
