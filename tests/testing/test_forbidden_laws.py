"""The law on forbidden entries rejects who takes −inf for something else, and accepts who keeps these entries at 0."""

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import BatchSolver, InstanceSolver, Status, Traits, testing

PROBLEMS = [
    mapgrad.KSubset(5, 2),
    mapgrad.Ranking(3),
    mapgrad.GridShortestPath(3, 3),
    mapgrad.Matching(4, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]),
]


class Penalised(InstanceSolver):
    """Honest, and knows nothing of masks."""

    def __init__(self, problem):
        super().__init__(problem)
        self.states = problem.state_rows().reshape(-1, np.prod(problem.shape))

    def allowed(self, request):
        return self.states

    def solve(self, state, theta, request):
        states = self.allowed(request)
        if len(states) == 0:
            return mapgrad.Solution(None, Status.INFEASIBLE)
        return states[(states @ theta.ravel()).argmax()].reshape(theta.shape)


class Masked(Penalised):
    """Honest: looks among the states that are allowed."""

    traits = Traits(masks=True)

    def allowed(self, request):
        if request.forbidden is None:
            return self.states
        return self.states[~self.states[:, request.forbidden.ravel()].any(axis=1)]


class MaskedBlock(Masked):
    """Honest, for a block of rows."""

    def solve_rows(self, state, block):
        for row, theta in enumerate(block.theta):
            block.put(row, self.solve(state, theta, block.request(row, theta.shape)))


class MaskedBatch(BatchSolver):
    """Honest: −inf stays what it is."""

    traits = Traits(masks=True)

    def solve(self, theta):
        states = self.problem.states().flatten(1)
        values = torch.stack([torch.where(states == 0, 0.0, states * row.double()).sum(1) for row in theta.flatten(1)])
        return states[values.argmax(1)].reshape(theta.shape)


class Heuristic(Penalised):
    """Honest: of three states drawn for the row it takes the best, and doesn't call it optimal."""

    traits = Traits(exact=False)

    def solve(self, state, theta, request):
        drawn = np.random.default_rng(abs(hash(theta.tobytes()))).integers(len(self.states), size=3)
        states = self.states[drawn]
        return states[(states @ theta.ravel()).argmax()].reshape(theta.shape)


HONEST = [Penalised, Masked, MaskedBlock, MaskedBatch, Heuristic]


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("solver", HONEST, ids=lambda solver: solver.__name__)
def test_honest_solvers_pass(solver, problem):
    assert testing.check_forbidden_entries(solver, problem).result == "kept"


class LooksAway(Penalised):
    """Says that it knows masks, and never looks at them."""

    traits = Traits(masks=True)


class ForgivesPenalties(Penalised):
    """Takes θ beyond the scale for 0."""

    def solve(self, state, theta, request):
        return super().solve(state, np.where(theta < -1, 0.0, theta), request)


class GivesUp(Masked):
    """Calls each row infeasible in which an entry is forbidden."""

    def allowed(self, request):
        return self.states if request.forbidden is None else self.states[:0]


class SecondBest(Masked):
    """Takes the second best where an entry is forbidden."""

    def solve(self, state, theta, request):
        states = self.allowed(request)
        if request.forbidden is None or len(states) < 2:
            return super().solve(state, theta, request)
        return states[(states @ theta.ravel()).argsort()[-2]].reshape(theta.shape)


class PutsNothingBack(Masked):
    """Keeps entries forbidden for the rows that follow."""

    def init(self):
        return []

    def solve(self, state, theta, request):
        if request.forbidden is not None:
            state[:] = [request]
        return super().solve(state, theta, state[0] if state else request)


class FirstOfTheBlock(MaskedBlock):
    """Takes the first row's mask for all."""

    def solve_rows(self, state, block):
        for row, theta in enumerate(block.theta):
            block.put(row, self.solve(state, theta, block.request(len(block) // 2, theta.shape)))


class ZeroForInfinity(MaskedBatch):
    """Takes −inf for 0."""

    def solve(self, theta):
        return super().solve(theta.nan_to_num(neginf=0.0))


class SureHeuristic(Heuristic):
    """Calls what it draws optimal."""

    def solve(self, state, theta, request):
        return mapgrad.Solution(super().solve(state, theta, request), Status.OPTIMAL)


DISHONEST = [
    LooksAway,
    ForgivesPenalties,
    GivesUp,
    SecondBest,
    PutsNothingBack,
    FirstOfTheBlock,
    ZeroForInfinity,
    SureHeuristic,
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("solver", DISHONEST, ids=lambda solver: solver.__name__)
def test_dishonest_solvers_are_rejected(solver, problem):
    with pytest.raises(mapgrad.ConformanceError, match=f"{solver.__name__} on .* breaks the law 'forbidden_entries'"):
        testing.check_forbidden_entries(solver, problem)


def test_it_does_not_apply_where_nothing_may_be_forbidden():
    program = mapgrad.IntegerProgram(lower=[-1, 1], upper=[1, 2])
    outcome = testing.check_forbidden_entries("highs", program)
    assert outcome.result == (
        "doesn't apply: no entry of the problem has the lower bound 0, so that none may be forbidden"
    )
    mixed = mapgrad.IntegerProgram(lower=[-1, 0], upper=[1, 2])
    assert testing.check_forbidden_entries("highs", mixed).applies
    for bounds in (program, mixed):
        testing.check_non_finite_refused("highs", bounds)


class TooTrusting(Masked):
    """Solves in blocks, where its `solve_rows` never looks at the mask."""

    def solve_rows(self, state, block):
        for row, theta in enumerate(block.theta):
            block.put(row, self.solve(state, theta, mapgrad.Request()))


def test_blocks_are_asked_for_masks_where_rows_are():
    with pytest.raises(mapgrad.ConformanceError, match=r"solve looks at request.forbidden, but solve_rows never at"):
        testing.check_solve_rows(TooTrusting, PROBLEMS[0])


class RaisesOnMasks(mapgrad.BatchSolver):
    """Raises where the first entry is forbidden."""

    traits = mapgrad.Traits(masks=True)

    def solve(self, theta):
        if theta[:, 0].isneginf().any():
            raise ZeroDivisionError("no first item")
        return testing.BruteForce(self.problem).solve(theta)


def test_what_a_row_raised_is_told():
    with pytest.raises(mapgrad.ConformanceError, match=r"the status is ERROR \(ZeroDivisionError: no first item\)"):
        testing.check_forbidden_entries(RaisesOnMasks, mapgrad.KSubset(5, 2))
