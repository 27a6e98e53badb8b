"""One problem a row: batches, ragged lists, and gradients through the layer."""

import copy
import pickle
import time

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.batching import _works
from mapgrad.testing import BruteForce

SMALL, LARGE = mapgrad.KSubset(5, 2), mapgrad.KSubset(7, 3)
GRID = mapgrad.GridShortestPath(2, 3)


def ragged(*problems, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [-torch.rand(problem.shape, generator=generator) for problem in problems]


@pytest.mark.parametrize(
    ("solver", "options", "error", "message"),
    [
        ("topq", {}, mapgrad.UnknownSolverError, r"did you mean 'topk'\?"),
        ("topk", {"worker": 2}, TypeError, r"^topk \(.*\) has no option 'worker': .* did you mean 'workers'\?"),
        (torch.nn.Softmax(-1), {"gap": 0.1}, TypeError, r"Softmax takes no options, got gap"),
        (3, {}, TypeError, r"a solver is a name, 'auto', .*; got 3"),
    ],
)
def test_what_no_problem_could_help_is_refused_at_once(solver, options, error, message):
    with pytest.raises(error, match=message):
        mapgrad.get_solver(solver, None, **options)


def test_ragged_rows_come_back_as_a_list():
    problems = [SMALL, GRID, LARGE, SMALL]
    theta = ragged(*problems)
    solver = mapgrad.get_solver("auto", None)
    z = solver(theta, problems=problems)
    assert isinstance(z, list)
    for row, problem, answer in zip(theta, problems, z, strict=True):
        assert torch.equal(answer, mapgrad.get_solver(BruteForce, problem)(row))
        assert answer.dtype == row.dtype
    solutions = solver.solve(theta, problems=problems)
    assert solutions.status.tolist() == [1] * 4
    assert solutions.objective.tolist() == pytest.approx([float((a * b).sum()) for a, b in zip(theta, z, strict=True)])
    assert solver.stats["rows"] == 8


def test_a_tensor_of_rows_with_problems_of_one_shape():
    problems = [mapgrad.KSubset(6, k) for k in (1, 2, 3, 2)]
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    z = mapgrad.get_solver("topk", mapgrad.KSubset(6, 5))(theta, problems=problems)
    assert z.shape == theta.shape
    assert z.sum(-1).tolist() == [1, 2, 3, 2]


def test_native_models_are_kept_for_the_last_problems(monkeypatch):
    monkeypatch.setattr(_works, "_PROBLEMS_KEPT", 2)
    made, closed = [], []

    class Counting(mapgrad.InstanceSolver):
        def init(self):
            made.append(self.problem)
            return self.problem

        def solve(self, state, theta, request):
            z = theta * 0
            z[: self.problem.k] = 1
            return z

        def close(self, state):
            closed.append(state)

    one, two, three = (mapgrad.KSubset(4, k) for k in (1, 2, 3))
    with mapgrad.get_solver(Counting, None) as solver:
        for problems in ([one, two], [one, two], [three, one]):
            solver(torch.zeros(2, 4), problems=problems)
        assert made == [one, two, three, one]
        assert closed == [one, two]
        assert solver.stats["rows"] == 6
    assert closed == [one, two, three, one]


def test_counts_outlast_the_problems_kept(monkeypatch):
    monkeypatch.setattr(_works, "_PROBLEMS_KEPT", 2)
    problems = [mapgrad.KSubset(5, 1 + k) for k in range(5)]
    with mapgrad.get_solver("topk", None) as solver:
        for _ in range(2):
            solver(torch.rand(5, 5), problems=problems)
        assert solver.stats["rows"] == 10


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("train", [False, True])
def test_rows_that_the_solver_does_not_take_fail_alone_wherever_they_stand(order, train):
    program = mapgrad.IntegerProgram(A_ub=[[3, 5, 7]], b_ub=[20], upper=3, integrality=1)
    problems = [program, program.replace(upper=np.inf), mapgrad.Knapsack([[3, 5, 7]], [20])][::order]
    solver = mapgrad.get_solver("search", None)
    ask = mapgrad.MAPLayer(solver).train(train) if train else solver
    with pytest.raises(mapgrad.RowsError, match="its variables reach inf, more than 10000") as caught:
        ask(torch.ones(3, 3), problems=problems)
    assert caught.value.rows == (1,)
    assert caught.value.solutions.status.tolist() == [1, mapgrad.Status.ERROR, 1]
    with pytest.raises(mapgrad.UnsupportedProblemError, match="its variables reach inf"):
        ask(torch.ones(1, 3), problems=problems[1:2])


def test_failures_name_rows_of_the_whole_batch():
    class Never(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            if self.problem == LARGE:
                return mapgrad.Solution(None, mapgrad.Status.INFEASIBLE)
            z = theta * 0
            z[: self.problem.k] = 1
            return z

    problems = [LARGE, SMALL, LARGE, SMALL]
    with pytest.raises(mapgrad.InfeasibleError, match=r"rows 0, 2 \(2 of 4\)") as caught:
        mapgrad.get_solver(Never, None)(ragged(*problems), problems=problems)
    assert caught.value.rows == (0, 2)
    assert caught.value.solutions.status.tolist() == [3, 1, 3, 1]
    assert caught.value.solutions.z[1].sum() == 2


@pytest.mark.parametrize(
    ("theta", "problems", "error", "message"),
    [
        (torch.zeros(3, 5), [SMALL] * 2, mapgrad.ShapeError, "2 problems for 3 rows"),
        (
            torch.zeros(2, 5),
            [SMALL, LARGE],
            mapgrad.ShapeError,
            r"row 1 of θ has shape \(5,\), but its problem is KSubset",
        ),
        (torch.zeros(2, 5), [SMALL, "topk"], TypeError, r"problems\[1\] must be a problem"),
        (torch.tensor(1.0), [SMALL], mapgrad.ShapeError, "single number"),
    ],
)
def test_bad_arguments(theta, problems, error, message):
    with pytest.raises(error, match=message):
        mapgrad.get_solver("topk", None)(theta, problems=problems)


def test_without_a_problem_each_call_must_bring_some():
    solver = mapgrad.get_solver("topk", None)
    with pytest.raises(TypeError, match=r"made without a problem: pass problems="):
        solver(torch.zeros(2, 5))
    assert solver(torch.zeros(0, 5), problems=[]).shape == (0, 5)
    assert solver([], problems=[]) == []
    assert solver.problem is None
    assert solver.spec is None
    assert "topk" in repr(solver)


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies(twin_of):
    twin = twin_of(mapgrad.get_solver("topk", None))
    assert twin(torch.zeros(1, 5), problems=[SMALL]).sum() == 2


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_layer_and_its_gradient_equal_those_of_single_layers(reduction):
    problems = [SMALL, GRID, LARGE, SMALL, GRID]
    theta = [row.requires_grad_() for row in ragged(*problems)]
    options = {"estimator": mapgrad.IMLE(noise=None), "reduction": reduction}
    layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", None), **options)
    z = layer(theta, problems=problems)
    sum((answer * torch.arange(answer.numel()).reshape(answer.shape)).sum() for answer in z).backward()
    for row, problem, answer in zip(theta, problems, z, strict=True):
        single = row.detach().clone().requires_grad_()
        expected = mapgrad.MAPLayer(mapgrad.get_solver("auto", problem), **options)(single)
        assert torch.equal(answer, expected)
        (expected * torch.arange(expected.numel()).reshape(expected.shape)).sum().backward()
        assert torch.equal(row.grad, single.grad)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_tensor_through_the_layer(reduction):
    problems = [mapgrad.KSubset(6, k) for k in (1, 2, 3, 2)]
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    layer = mapgrad.MAPLayer(
        mapgrad.get_solver("topk", None), mapgrad.AdaptiveIMLE(samples=3), reduction=reduction, seed=0, minimize=True
    )
    z = layer(theta, problems=problems)
    assert z.shape == ((3, 4, 6) if reduction == "none" else (4, 6))
    torch.testing.assert_close(z.sum(-1), torch.tensor([1.0, 2, 3, 2]).expand(z.shape[:-1]))
    z.pow(2).sum().backward()
    assert (theta.grad.abs().sum(-1) > 0).any()
    assert not torch.equal(layer(theta, problems=problems), z)
    assert torch.equal(
        layer.eval()(theta, problems=problems), mapgrad.get_solver("topk", None)(-theta, problems=problems)
    )


def test_functions_have_one_problem_only():
    with pytest.raises(TypeError, match=r"problems= needs a solver from mapgrad\.get_solver"):
        mapgrad.MAPLayer(lambda theta: theta)(torch.zeros(2, 5), problems=[SMALL, SMALL])


def test_non_finite_rows_of_all_problems_are_named_by_their_numbers():
    problems = [mapgrad.KSubset(6, 2), mapgrad.KSubset(6, 3), mapgrad.KSubset(6, 2), mapgrad.KSubset(6, 3)]
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    theta[2, 0] = theta[3, 1] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError, match=r"rows 2, 3 \(2 of 4\)") as caught:
        mapgrad.get_solver("topk", None)(theta, problems=problems)
    assert caught.value.rows == (2, 3)


def test_each_row_of_a_list_keeps_its_dtype():
    theta = [torch.randn(6, dtype=dtype) for dtype in (torch.float16, torch.float32, torch.float64)]
    problems = [mapgrad.KSubset(6, 2)] * 3
    solver = mapgrad.get_solver("topk", None)
    assert [z.dtype for z in solver(theta, problems=problems)] == [row.dtype for row in theta]
    assert [z.dtype for z in mapgrad.MAPLayer(solver)(theta, problems=problems)] == [row.dtype for row in theta]


@pytest.mark.parametrize("problems", [mapgrad.KSubset(6, 2), iter([])])
def test_problems_that_are_no_list(problems):
    with pytest.raises(TypeError, match="problems must be a list of problems"):
        mapgrad.get_solver("topk", None)(torch.zeros(1, 6), problems=problems)


def test_one_problem_for_all_rows_belongs_to_get_solver():
    with pytest.raises(TypeError, match="where it is that of all rows, give it to get_solver in place of problems="):
        mapgrad.get_solver("topk", None)(torch.zeros(1, 6), problems=mapgrad.KSubset(6, 2))


def test_problems_under_a_map_are_refused():
    solver = mapgrad.get_solver("topk", None)
    with pytest.raises(RuntimeError, match="problems= can't be traced"):
        torch.vmap(lambda theta: solver(theta, problems=[mapgrad.KSubset(6, 2)]))(torch.zeros(3, 1, 6))


def test_variables_are_those_of_each_row_s_program():
    small = mapgrad.IntegerProgram(A_ub=[[1, 1, -2]], b_ub=[0], decision=[0, 1], fixed=[-0.01])
    large = mapgrad.IntegerProgram(A_ub=[[1, 1, -1, -1]], b_ub=[0], decision=[0, 1], fixed=[-0.01, -0.02])
    theta = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    solver = mapgrad.get_solver("auto", None)
    variables = solver.solve(theta, problems=[small, large, small]).variables
    assert [row.tolist() for row in variables] == [[1, 0, 1], [1, 1, 1, 1], [0, 0, 0]]
    assert solver.solve(theta, problems=[small] * 3).variables.tolist() == [[1, 0, 1], [1, 1, 1], [0, 0, 0]]
    first, second, third = solver.solve(theta, problems=[small, mapgrad.KSubset(2, 1), small]).variables
    assert (first.tolist(), second, third.tolist()) == ([1, 0, 1], None, [0, 0, 0])
    assert solver.solve(theta, problems=[mapgrad.KSubset(2, 1)] * 3).variables is None


def test_more_problems_than_a_large_batch_has_are_kept():
    made = []

    class Counting(mapgrad.InstanceSolver):
        def init(self):
            made.append(self.problem)

        def solve(self, state, theta, request):
            return np.eye(len(theta))[0]

    problems = [mapgrad.IntegerProgram(A_eq=[[1, 1, number]], b_eq=[1]) for number in range(500)]
    with mapgrad.get_solver(Counting, None) as solver:
        for _ in range(2):
            solver(torch.zeros(500, 3), problems=problems)
    assert made == problems


def test_what_building_solvers_takes_is_counted():
    class Slow(mapgrad.InstanceSolver):
        def __init__(self, problem):
            time.sleep(0.1)
            super().__init__(problem)

        def solve(self, state, theta, request):
            return np.ones(theta.shape)

    with mapgrad.get_solver(Slow, None) as solver:
        solutions = solver.solve(torch.zeros(2, 5), problems=[mapgrad.KSubset(5, 5), mapgrad.KSubset(5, 5)])
        assert solutions.stats["seconds"] == solutions.seconds > 0.1
        assert solver.stats["seconds"] > 0.1
