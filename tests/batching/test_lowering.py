"""Problems on their way to a solver of integer programs: embedding, scaling, starts, limits."""

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.testing import BruteForce

# x0 + x1 + x2 + 2 y <= 3 and y >= x0: θ prices (x2, x0), the other variables x1 and y have utilities 0.5 and -0.25.
PROGRAM = mapgrad.IntegerProgram(
    A_ub=[[1, 1, 1, 2], [1, 0, 0, -1]], b_ub=[3, 0], decision=[2, 0], fixed=[0.5, -0.25], shape=(2, 1)
)


class Enumerating(mapgrad.InstanceSolver):
    """Solves programs in full form by enumeration, and keeps what it was given."""

    def __init__(self, problem):
        super().__init__(problem)
        assert isinstance(problem, mapgrad.IntegerProgram)
        assert problem.shape == (problem.num_vars,)
        self.points = problem.states().numpy()
        self.rows, self.starts, self.limits = [], [], []

    def solve(self, state, theta, request):
        self.rows.append(theta.copy())
        self.starts.append(request.start)
        self.limits.append((request.seconds, request.reuse))
        return self.points[np.argmax(self.points @ theta)]


def value(theta):
    """The best of ⟨θ, (x2, x0)⟩ + 0.5 x1 - 0.25 y, and its (x2, x0), by hand."""
    points = [(x2, x0, x1, y) for x0 in (0, 1) for x1 in (0, 1) for x2 in (0, 1) for y in (0, 1)]
    points = [p for p in points if p[1] + p[2] + p[0] + 2 * p[3] <= 3 and p[3] >= p[1]]
    return max((theta[0] * p[0] + theta[1] * p[1] + 0.5 * p[2] - 0.25 * p[3], p[:2]) for p in points)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_theta_and_fixed_utilities_are_scaled_together(scale):
    theta = scale * torch.randn(30, 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solver = mapgrad.get_solver(Enumerating, PROGRAM)
    solutions = solver.solve(theta)
    for row, z, objective in zip(theta, solutions.z, solutions.objective, strict=True):
        best, state = value(row.flatten().tolist())
        assert float(objective) == pytest.approx(best, rel=1e-12)
        assert tuple(z.flatten().tolist()) == state
    given = np.stack(solver.at_work().plugin.rows)
    assert given.shape[1] == 4
    assert (np.abs(given).max(1) >= 0.5).all()
    assert (np.abs(given).max(1) < 1).all()
    np.testing.assert_allclose(given[:, 1] / given[:, 3], -2.0)


def test_starts_are_the_forward_answers_and_only_under_reuse():
    theta = torch.randn(6, 2, 1, generator=torch.Generator().manual_seed(1)).requires_grad_()
    for reuse in (False, True):
        solver = mapgrad.get_solver(Enumerating, PROGRAM, reuse=reuse, time_limit=3.5)
        z = mapgrad.MAPLayer(solver, mapgrad.IMLE(noise=None))(theta)
        forward = len(solver.at_work().plugin.rows)
        (z * torch.tensor([[1.0], [-1.0]])).sum().backward()
        starts = solver.at_work().plugin.starts
        assert starts[:forward] == [None] * forward
        assert len(starts) > forward
        assert set(solver.at_work().plugin.limits) == {(3.5, reuse)}
        if reuse:
            states = {tuple(state.flatten().tolist()) for state in z.detach()}
            for start in starts[forward:]:
                assert np.isnan(start[[1, 3]]).all()
                assert tuple(start[[2, 0]]) in states
        else:
            assert starts[forward:] == [None] * (len(starts) - forward)


def test_objects_and_functions_get_what_they_were_made_for():
    theta = torch.randn(20, 2, 1, generator=torch.Generator().manual_seed(2))
    expected = mapgrad.get_solver(Enumerating, PROGRAM)(theta)
    assert torch.equal(mapgrad.get_solver(Enumerating(PROGRAM.full()), PROGRAM)(theta), expected)
    free = mapgrad.IntegerProgram(A_ub=[[1, 1]], b_ub=[1], shape=(2, 1))
    brute = mapgrad.get_solver(BruteForce(free), free)
    assert torch.equal(mapgrad.get_solver(lambda rows: brute(rows), free)(theta), brute(theta))
    with pytest.raises(mapgrad.UnsupportedProblemError, match="was made for"):
        mapgrad.get_solver(BruteForce(free), mapgrad.KSubset(3, 1))


def test_a_batch_solver_of_programs():
    class Batch(BruteForce):
        pass

    theta = torch.randn(20, 2, 1, generator=torch.Generator().manual_seed(3))
    solutions = mapgrad.get_solver(Batch, PROGRAM).solve(theta)
    expected = mapgrad.get_solver(Enumerating, PROGRAM).solve(theta)
    assert torch.equal(solutions.z, expected.z)
    torch.testing.assert_close(solutions.objective, expected.objective)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fixed", [[20_000_001.0, 20_000_000.0], [2e39, 1e39], [3e-46, 1e-46], [1 + 2**-26, 1.0]])
def test_a_batch_solver_of_programs_gets_what_they_add_to_theta_in_float64(fixed, dtype):
    program = mapgrad.IntegerProgram(A_eq=[[0, 1, 1], [1, -1, 0]], b_eq=[1, 0], decision=[0], fixed=fixed)
    for solver in ("auto", "diagram", "highs"):
        solutions = mapgrad.get_solver(solver, program).solve(torch.zeros(3, 1, dtype=dtype))
        assert solutions.z.tolist() == [[1]] * 3
        assert solutions.z.dtype == dtype
        assert solutions.objective.tolist() == fixed[:1] * 3


@pytest.mark.parametrize("limit", [0, -1.0, "1", float("nan")])
def test_bad_time_limits(limit):
    with pytest.raises(ValueError, match="time_limit must be None or a positive number of seconds"):
        mapgrad.get_solver("topk", mapgrad.KSubset(3, 1), time_limit=limit)


def test_detached_cycles_of_free_cells_are_repaired():
    problem = mapgrad.GridShortestPath(5, 5, neighbors=4)
    theta = -torch.rand(30, 5, 5, generator=torch.Generator().manual_seed(0)).sub(0.7).clamp(min=0)
    solutions = mapgrad.get_solver("scipy.milp", problem).solve(theta)
    assert problem.contains(solutions.z).all()
    expected = mapgrad.get_solver("networkx.shortest_path", problem).solve(theta)
    torch.testing.assert_close(solutions.objective, expected.objective)


def test_an_object_serves_solvers_of_different_settings_in_turn():
    shared = Enumerating(PROGRAM.full())
    hurried = mapgrad.get_solver(shared, PROGRAM, time_limit=0.5)
    patient = mapgrad.get_solver(shared, PROGRAM, reuse=True)
    for solver in (hurried, patient, hurried):
        solver(torch.ones(2, 1))
    assert shared.limits == [(0.5, False), (None, True), (0.5, False)]


def test_integers_that_a_dtype_cannot_hold_fail_their_row():
    most = 2**24 + 1  # the first integer that float32 has not
    program = mapgrad.IntegerProgram(A_ub=[[1, 0]], b_ub=[most], upper=[np.inf, most], integrality=[1, 0])
    theta = torch.tensor([[-1.0, 1.0], [1.0, 0.3]])
    assert mapgrad.get_solver("highs", program)(theta.double()).tolist() == [[0, most], [most, most]]
    for solve in (mapgrad.get_solver("highs", program), mapgrad.MAPLayer(mapgrad.get_solver("highs", program)).eval()):
        with pytest.raises(
            mapgrad.SolverCrashError, match=r"row 1.*float32 can't hold the integer 16777217"
        ) as refused:
            solve(theta)
        assert refused.value.rows == (1,)
        first, _ = refused.value.solutions.z.reshape(2, 2).tolist()
        assert first == [0, most - 1]  # of a continuous variable the nearest will do
        with pytest.raises(mapgrad.ShapeError, match=r"integer variables without a bound, but torch.bfloat16 holds"):
            solve(theta.bfloat16())


class EveryCell(mapgrad.InstanceSolver):
    """Runs out of time with every variable at 1: a program's solution only if asked to take any."""

    def solve(self, state, theta, request):
        return mapgrad.Solution(np.ones_like(theta), mapgrad.Status.TIME_LIMIT, bound=0.0)


class Plugin:
    @mapgrad.hookimpl
    def mapgrad_solvers(self):
        return [mapgrad.SolverSpec(name="every_cell", factory=EveryCell, accepts=(mapgrad.IntegerProgram,))]


def test_the_objective_of_a_repaired_incumbent_is_that_of_the_state():
    mapgrad.register(Plugin(), "lowering_test")
    try:
        grid = mapgrad.GridShortestPath(3, 3)
        solutions = mapgrad.get_solver("lowering_test", grid, on_error="incumbent").solve(-torch.ones(2, 3, 3))
    finally:
        mapgrad.unregister("lowering_test")
    assert torch.equal(solutions.z, torch.eye(3).expand(2, 3, 3))
    assert solutions.objective.tolist() == [-3, -3]
    assert solutions.bound.tolist() == [0, 0]
