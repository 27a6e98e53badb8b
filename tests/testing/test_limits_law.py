"""The law on bounds and sides that differ by row rejects who forgets them, and accepts who heeds them."""

import numpy as np
import pytest

import mapgrad
from mapgrad import InstanceSolver, Request, Solution, Status, Traits, testing

PROGRAM = mapgrad.IntegerProgram(A_ub=[[1, 2, 3], [-1, -1, 0]], b_ub=[7, -1], lower=[-2, -1, 0], upper=[3, 4, 2])
MATCHING = mapgrad.Matching(4, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)])
INDICATOR = mapgrad.IntegerProgram.from_rows(
    [[1, 1, 1, 0]], [1], [3], upper=[2, 2, 2, 1], indicators=[(3, 1, [1, -1, 0, 0], 1, np.inf)]
)


class Heeds(InstanceSolver):
    """Honest: enumerates the points within the bounds and sides of the row."""

    traits = Traits(limits=True, masks=True)

    def init(self):
        return []

    def limits(self, state, request):
        return request.limits

    def solve(self, state, theta, request):
        limits = self.limits(state, request)
        program = self.problem if limits is None else self.problem.replace(**limits._asdict())
        try:
            points = program.state_rows()
        except mapgrad.InfeasibleError:
            return Solution(None, Status.INFEASIBLE)
        if request.forbidden is not None:
            points = points[~points[:, request.forbidden].any(axis=1)]
        return points[(points @ theta).argmax()] if len(points) else Solution(None, Status.INFEASIBLE)


class HeedsBlocks(Heeds):
    """Honest, for a block of rows."""

    def solve_rows(self, state, block):
        for row, theta in enumerate(block.theta):
            block.put(row, self.solve(state, theta, block.request(row, theta.shape)))


class KnowsNoMasks(Heeds):
    """Honest: forbidden entries come as a θ so low that they aren't chosen."""

    traits = Traits(limits=True)


@pytest.mark.parametrize("solver", [Heeds, HeedsBlocks, KnowsNoMasks, "highs", "scipy.milp", "ortools.cp_sat"])
def test_honest_solvers_pass(solver):
    assert testing.check_limits_by_row(solver, PROGRAM).result == "kept"


@pytest.mark.parametrize("solver", ["highs", "scipy.milp", "ortools.cp_sat"])
@pytest.mark.parametrize("problem", [MATCHING, INDICATOR], ids=["matching", "indicator"])
def test_programs_that_stand_for_problems_count(solver, problem):
    assert testing.check_limits_by_row(solver, problem).result == "kept"


class LooksAway(Heeds):
    """Says that it heeds limits, and never looks at them."""

    def limits(self, state, request):
        return None


class ForgetsSides(Heeds):
    def limits(self, state, request):
        if request.limits is None:
            return None
        return request.limits._replace(row_lower=self.problem.row_lower, row_upper=self.problem.row_upper)


class ForgetsBounds(Heeds):
    def limits(self, state, request):
        if request.limits is None:
            return None
        return request.limits._replace(lower=self.problem.lower, upper=self.problem.upper)


class PutsNothingBack(Heeds):
    """Keeps the limits of the row before where a row has none."""

    def limits(self, state, request):
        if request.limits is not None:
            state[:] = [request.limits]
        return state[0] if state else None


class OnlyTightens(Heeds):
    def limits(self, state, request):
        if request.limits is None:
            return None
        _, upper, _, most = request.limits
        return request.limits._replace(
            upper=np.minimum(upper, self.problem.upper), row_upper=np.minimum(most, self.problem.row_upper)
        )


class FirstOfTheBlock(HeedsBlocks):
    """Takes the limits of the block's middle row for all."""

    def solve_rows(self, state, block):
        limits = block.request(len(block) // 2, self.problem.shape).limits
        for row, theta in enumerate(block.theta):
            request = block.request(row, theta.shape)
            block.put(row, self.solve(state, theta, Request(forbidden=request.forbidden, limits=limits)))


@pytest.mark.parametrize(
    "solver",
    [LooksAway, ForgetsSides, ForgetsBounds, PutsNothingBack, OnlyTightens, FirstOfTheBlock],
    ids=lambda solver: solver.__name__,
)
def test_dishonest_solvers_are_rejected(solver):
    with pytest.raises(mapgrad.ConformanceError, match="beside rows of other bounds and sides, the") as broken:
        testing.check_limits_by_row(solver, PROGRAM)
    assert broken.value.law == "limits_by_row"


def test_it_does_not_apply_to_who_makes_no_such_promise():
    outcome = testing.check_limits_by_row(testing.BruteForce, PROGRAM)
    assert outcome.result.startswith("doesn't apply: the solver's traits don't say limits")


class TooTrusting(HeedsBlocks):
    """Solves in blocks, where its `solve_rows` never looks at limits."""

    def solve_rows(self, state, block):
        for row, theta in enumerate(block.theta):
            block.put(row, self.solve(state, theta, Request()))


def test_blocks_are_asked_for_limits_where_rows_are():
    with pytest.raises(mapgrad.ConformanceError, match="solve looks at request"):
        testing.check_solve_rows(TooTrusting, PROGRAM)
