"""Each fault, under each kind of worker and each policy: the other rows are exact, and the faulty one as documented."""

import sys
import warnings

import pytest
import torch

import mapgrad
from mapgrad import Status

if sys.platform != "linux":
    pytest.skip("processes are tested on Linux", allow_module_level=True)

PROBLEM = mapgrad.KSubset(4, 1)

MODULE = """
import os
import signal
import threading

import numpy as np

import mapgrad
from mapgrad import Solution, Status

over = threading.Event()  # by which threads that hang end with their test


def fail():
    raise RuntimeError("out of sorts")


FAULTS = {
    "raises": fail,
    "wrong shape": lambda: np.zeros(3),
    "NaN": lambda: np.full(4, np.nan),
    "hangs": lambda: over.wait(20),
    "exits": lambda: os._exit(3),
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "infeasible": lambda: Solution(None, Status.INFEASIBLE),
    "unbounded": lambda: Solution(None, Status.UNBOUNDED),
    "time limit": lambda: Solution(None, Status.TIME_LIMIT),
    "time limit, incumbent": lambda: Solution(np.eye(4)[2], Status.TIME_LIMIT),
}


class Faulty(mapgrad.InstanceSolver):
    \"\"\"The largest entry; where that is the first one, a fault.\"\"\"

    def __init__(self, problem, fault):
        super().__init__(problem)
        self.fault = fault

    def solve(self, state, theta, request):
        best = int(theta.argmax())
        return np.eye(4)[best] if best else FAULTS[self.fault]()
"""

ENDS = {
    "raises": (Status.ERROR, mapgrad.SolverCrashError, "out of sorts"),
    "wrong shape": (Status.ERROR, mapgrad.SolverCrashError, "shape"),
    "NaN": (Status.ERROR, mapgrad.SolverCrashError, "NaN or infinite"),
    "hangs": (Status.TIME_LIMIT, mapgrad.SolveTimeoutError, "deadline of 0.3 s"),
    "exits": (Status.ERROR, mapgrad.SolverCrashError, "exit code 3"),
    "is killed": (Status.ERROR, mapgrad.SolverCrashError, "SIGKILL"),
    "infeasible": (Status.INFEASIBLE, mapgrad.InfeasibleError, "INFEASIBLE"),
    "unbounded": (Status.UNBOUNDED, mapgrad.UnboundedError, "UNBOUNDED"),
    "time limit": (Status.TIME_LIMIT, mapgrad.SolveTimeoutError, "TIME_LIMIT"),
    "time limit, incumbent": (Status.TIME_LIMIT, mapgrad.SolveTimeoutError, "TIME_LIMIT"),
}
"""The status, the error under "raise", and what that says."""

KINDS = {"inline": None, "threads": 2, "processes": "processes:2"}
DEADLY = ("exits", "is killed")
CASES = [(fault, kind) for fault in ENDS for kind in KINDS if fault not in DEADLY or kind == "processes"]
"""A row that ends its process ends the program where it is solved there."""

each_case = pytest.mark.parametrize(("fault", "kind"), CASES, ids=[" - ".join(case) for case in CASES])


@pytest.fixture(scope="module")
def module(import_source):
    return import_source("faulty_solvers", MODULE)


@pytest.fixture(scope="module")
def crews():
    """One pool of workers of each kind for all tests: what a fault leaves behind meets the next one."""
    made = {kind: mapgrad.Workers(workers) for kind, workers in KINDS.items()}
    yield made
    for workers in made.values():
        workers.close()


@pytest.fixture
def solver_of(module, crews):
    """Return a function that makes a solver with a fault; what hangs ends with the test."""
    module.over.clear()

    def make(fault, kind, policy):
        deadline = 0.3 if fault == "hangs" else None
        return mapgrad.get_solver(
            module.Faulty, PROBLEM, workers=crews[kind], on_error=policy, deadline=deadline, fault=fault
        )

    yield make
    module.over.set()


def batch(fault):
    """Return θ [6, 4], the faulty row's number, and the best of the other rows.

    In the calling thread, what comes behind a row that hangs isn't solved before the deadline: it is the last one.
    """
    theta = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    theta[:, 0] -= 9.0
    sick = 5 if fault == "hangs" else 2
    theta[sick] = torch.tensor([3.0, 0.0, 1.0, 0.0])
    return theta, sick, torch.nn.functional.one_hot(theta.argmax(dim=1), 4).to(theta)


def quiet(call, *arguments):
    """Call something whose first failing rows warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* has no acceptable answer")
        return call(*arguments)


def assert_goes_on(solver, theta, best, sick):
    others = [row for row in range(len(theta)) if row != sick]
    assert torch.equal(solver(theta[others]), best[others])


@each_case
def test_raise_names_the_row_and_has_the_other_answers(fault, kind, solver_of):
    status, error, said = ENDS[fault]
    theta, sick, best = batch(fault)
    solver = solver_of(fault, kind, "raise")
    with pytest.raises(error) as caught:
        solver(theta)
    assert caught.value.rows == (sick,)
    assert said in str(caught.value)
    best[sick] = torch.eye(4)[2] if fault == "time limit, incumbent" else torch.nan
    torch.testing.assert_close(caught.value.solutions.z, best, rtol=0, atol=0, equal_nan=True)
    assert caught.value.solutions.status.tolist() == [status if row == sick else Status.OPTIMAL for row in range(6)]
    assert_goes_on(solver, theta, best, sick)


@each_case
@pytest.mark.parametrize("policy", ["nan", "zero_grad"])
def test_a_filled_row_has_no_gradient_and_the_others_theirs(fault, kind, policy, solver_of):
    status, *_ = ENDS[fault]
    theta, sick, best = batch(fault)
    others = [row for row in range(6) if row != sick]
    solver = solver_of(fault, kind, policy)
    layer = mapgrad.MAPLayer(solver, mapgrad.Blackbox(2.0))
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    weight[:, 0] = 0.0  # so that no step leads to the fault

    def gradient_of(layer, rows):
        leaf = theta[rows].clone().requires_grad_()
        z = quiet(layer, leaf)
        mask = layer.last.mask
        (z[mask] * weight[rows][mask]).sum().backward()
        return z.detach(), leaf.grad

    z, gradient = gradient_of(layer, range(6))
    best[sick] = torch.nan if policy == "nan" else 0.0
    torch.testing.assert_close(z, best, rtol=0, atol=0, equal_nan=True)
    assert layer.last.mask.tolist() == [row != sick for row in range(6)]
    assert layer.last.status.tolist() == [status if row == sick else Status.OPTIMAL for row in range(6)]
    assert layer.stats["unsolved"] == 1
    assert layer.stats["unsolved_backward"] == 0
    _, expected = gradient_of(mapgrad.MAPLayer(mapgrad.get_solver("topk", PROBLEM), mapgrad.Blackbox(2.0)), others)
    assert expected.any()
    assert torch.equal(gradient[others], expected)
    assert not gradient[sick].any()
    assert_goes_on(solver, theta, best, sick)


@each_case
def test_a_fallback_answers_the_row(fault, kind, solver_of):
    theta, sick, best = batch(fault)
    solver = solver_of(fault, kind, "fallback:topk")
    solutions = quiet(solver.solve, theta)
    assert torch.equal(solutions.z, best)
    assert (solutions.status == Status.OPTIMAL).all()
    assert solutions.mask.all()
    assert (solutions.stats["fallback"], solutions.stats["failed"]) == (1, 0)
    torch.testing.assert_close(solutions.objective, theta.amax(dim=1).double())
    assert_goes_on(solver, theta, best, sick)


@each_case
def test_an_incumbent_is_accepted_where_there_is_one(fault, kind, solver_of):
    status, error, _ = ENDS[fault]
    theta, sick, best = batch(fault)
    solver = solver_of(fault, kind, "incumbent")
    if fault == "time limit, incumbent":
        solutions = solver.solve(theta)
        best[sick] = torch.eye(4)[2]
        assert torch.equal(solutions.z, best)
        assert solutions.status[sick] == status
        assert solutions.mask.all()
        assert (solutions.stats["incumbent"], solutions.stats["failed"]) == (1, 0)
    else:
        with pytest.raises(error) as caught:
            solver(theta)
        assert caught.value.rows == (sick,)
    assert_goes_on(solver, theta, best, sick)
