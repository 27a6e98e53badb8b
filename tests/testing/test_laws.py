"""The kit rejects each dishonest solver by the law that it breaks, and accepts the honest ones."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import BatchSolver, InstanceSolver, Traits, testing

PROBLEMS = [
    mapgrad.KSubset(5, 2),
    mapgrad.GridShortestPath(3, 3),
    mapgrad.Matching(4, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]),
]


class Rows(InstanceSolver):
    """Honest, row by row: `pick` takes a state from the values of all of them."""

    def __init__(self, problem):
        super().__init__(problem)
        self.states = np.asarray(problem.states())

    def values(self, theta):
        return self.states.reshape(len(self.states), -1) @ theta.ravel()

    def pick(self, values):
        return self.states[values.argmax()]

    def solve(self, state, theta, request):
        return self.pick(self.values(theta))


class Batch(BatchSolver):
    """Honest, all rows at once: `pick` takes a state for each row from the values of all of them."""

    def __init__(self, problem):
        super().__init__(problem)
        self.states = problem.states()

    def values(self, theta):
        return theta.flatten(1).double() @ self.states.flatten(1).T

    def pick(self, values):
        return self.states[values.argmax(1)]

    def solve(self, theta):
        return self.pick(self.values(theta))


class Heuristic(Rows):
    """Honest: it finds the second best and doesn't call it optimal."""

    traits = Traits(exact=False)

    def pick(self, values):
        return self.states[values.argsort()[-2:][0]]


class Dice(Rows):
    """Honest: it promises nothing but a state."""

    traits = Traits(exact=False, deterministic=False)

    def solve(self, state, theta, request):
        return self.states[np.random.default_rng().integers(len(self.states))]


class HoldsTheGil(Rows):
    """Honest: each row has its own scratch space in the worker's state."""

    def init(self):
        return np.zeros(self.problem.shape)

    def solve(self, state, theta, request):
        state[:] = theta
        time.sleep(0)
        return self.pick(self.values(state))


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize(
    "solver", [Rows, Batch, testing.BruteForce, Heuristic, Dice, HoldsTheGil], ids=lambda s: s.__name__
)
def test_honest_solvers_pass(solver, problem):
    testing.check_solver(solver, problem)


def outsider(problem):
    size = problem.states()[0].numel()
    vectors = torch.cat([torch.eye(size), torch.ones(1, size)]).reshape(-1, *problem.shape)
    return vectors[~problem.contains(vectors)][0].double()


class Outsider(Rows):
    def pick(self, values):
        return outsider(self.problem).numpy()


class OutsiderBatch(Batch):
    def pick(self, values):
        return outsider(self.problem).expand(len(values), *self.problem.shape)


class SecondBest(Rows):
    def pick(self, values):
        return self.states[values.argsort()[-2]]


class SecondBestBatch(Batch):
    def pick(self, values):
        return self.states[values.topk(2).indices[:, 1]]


class Minimiser(Rows):
    def pick(self, values):
        return super().pick(-values)


class MinimiserBatch(Batch):
    def pick(self, values):
        return super().pick(-values)


class Rememberer(Rows):
    """Starts from its last answer, and leaves it only for one that is much better."""

    def __init__(self, problem):
        super().__init__(problem)
        self.last = 0

    def pick(self, values):
        if values.max() > values[self.last] + 0.3 * np.ptp(values):
            self.last = values.argmax()
        return self.states[self.last]


class RemembererHeuristic(Rememberer):
    traits = Traits(exact=False)


class RemembererBatch(Batch):
    """Keeps its first answers, by a key that is too coarse."""

    def __init__(self, problem):
        super().__init__(problem)
        self.known = {}

    def solve(self, theta):
        z = super().solve(theta)
        keys = [int((row > 0).sum()) for row in theta]
        return torch.stack([self.known.setdefault(key, answer) for key, answer in zip(keys, z, strict=True)])


class Racer(Rows):
    def __init__(self, problem):
        super().__init__(problem)
        self.theta = np.zeros(problem.shape)

    def solve(self, state, theta, request):
        self.theta = theta
        return self.pick(self.values(self.theta))


class ScratchRacer(Rows):
    """Shares one buffer, written in place."""

    def __init__(self, problem):
        super().__init__(problem)
        self.found = np.zeros(len(self.states))

    def solve(self, state, theta, request):
        np.matmul(self.states.reshape(len(self.states), -1), theta.ravel(), out=self.found)
        return self.pick(self.found)


class RacerBatch(Batch):
    def solve(self, theta):
        self.theta = theta
        return self.pick(self.values(self.theta))


class Gambler(Rows):
    def solve(self, state, theta, request):
        return self.states[np.random.default_rng().integers(len(self.states))]


class GamblerBatch(Batch):
    def pick(self, values):
        return self.states[torch.randint(len(self.states), (len(values),))]


class GamblingHeuristic(Gambler):
    traits = Traits(exact=False)


class Halves(Rows):
    def pick(self, values):
        return self.states[values.argsort()[-2:]].mean(0)


class HalvesBatch(Batch):
    def pick(self, values):
        return self.states[values.topk(2).indices].mean(1)


class Rounder(Rows):
    def values(self, theta):
        return super().values(theta.round(3))


class SinglePrecision(Rows):
    def values(self, theta):
        return super().values(theta.astype(np.float32))


class HalfPrecisionBatch(Batch):
    def values(self, theta):
        return super().values(theta.half())


class FirstForAll(Batch):
    def pick(self, values):
        return super().pick(values)[:1].expand(len(values), *self.problem.shape)


class FirstForAllHeuristic(FirstForAll):
    traits = Traits(exact=False)


DISHONEST = [
    (Outsider, "feasible"),
    (OutsiderBatch, "feasible"),
    (SecondBest, "optimal"),
    (SecondBestBatch, "optimal"),
    (Minimiser, "optimal"),
    (MinimiserBatch, "optimal"),
    (Rememberer, "history_free"),
    (RemembererHeuristic, "history_free"),
    (RemembererBatch, "history_free"),
    (Racer, "threads_equal_serial"),
    (ScratchRacer, "threads_equal_serial"),
    (RacerBatch, "threads_equal_serial"),
    (Gambler, "deterministic"),
    (GamblerBatch, "deterministic"),
    (GamblingHeuristic, "deterministic"),
    (Halves, "feasible"),
    (HalvesBatch, "feasible"),
    (Rounder, "optimal"),
    (SinglePrecision, "optimal"),
    (HalfPrecisionBatch, "optimal"),
    (FirstForAll, "batch_equals_rows"),
    (FirstForAllHeuristic, "batch_equals_rows"),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize(("solver", "law"), DISHONEST, ids=lambda value: getattr(value, "__name__", value))
def test_dishonest_solvers_are_rejected(solver, law, problem):
    with pytest.raises(mapgrad.ConformanceError, match=f"{solver.__name__} on .* breaks the law '{law}'") as broken:
        getattr(testing, f"check_{law}")(solver, problem)
    assert broken.value.law == law


@pytest.mark.parametrize(("solver", "law"), DISHONEST, ids=lambda value: getattr(value, "__name__", value))
def test_check_solver_names_the_law(solver, law):
    with pytest.raises(mapgrad.ConformanceError) as broken:
        testing.check_solver(solver, mapgrad.KSubset(5, 2))
    assert broken.value.law == law


def test_threads_are_left_as_they_were():
    interval, tracer = sys.getswitchinterval(), threading.gettrace()
    with pytest.raises(mapgrad.ConformanceError):
        testing.check_threads_equal_serial(Racer, PROBLEMS[0])
    assert (sys.getswitchinterval(), threading.gettrace()) == (interval, tracer)


class AnswersTheFirstTask(ThreadPoolExecutor):
    """Gives every task the result of the first."""

    first = None

    def submit(self, *task):
        self.first = self.first or super().submit(*task)
        return self.first


def test_an_executor_is_held_to_the_same_answers():
    with ThreadPoolExecutor(2) as honest:
        testing.check_threads_equal_serial(Rows, PROBLEMS[0], workers=honest)
    with (
        AnswersTheFirstTask(2) as dishonest,
        pytest.raises(mapgrad.ConformanceError, match=r"the law 'threads_equal_serial'"),
    ):
        testing.check_threads_equal_serial(Rows, PROBLEMS[0], workers=dishonest)


class Sorts(InstanceSolver):
    def solve(self, state, theta, request):
        z = np.zeros(len(theta))
        z[np.argsort(theta)[-20:]] = 1
        return z


def test_large_problems_are_refused_where_enumeration_is_needed():
    problem = mapgrad.KSubset(40, 20)
    testing.check_feasible(Sorts, problem)
    with pytest.raises(mapgrad.ProblemError, match="too many to enumerate"):
        testing.check_solver(Sorts, problem)
