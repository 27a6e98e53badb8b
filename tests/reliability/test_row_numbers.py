"""Errors name rows of the batch that the user passed: all of them, each once, whatever was made of the batch."""

import re

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import Status

SUBSET = mapgrad.KSubset(6, 2)
FULL = mapgrad.IntegerProgram(A_ub=[[1, 1, 1]], b_ub=[2])
EMPTY = mapgrad.IntegerProgram(A_ub=[[1, 1, 1]], b_ub=[-1])
NAMED = re.compile(r"rows? ((?:\d+(?: \(index \([^)]*\)\))?(?:, …|, )?)+) \((\d+) of (\d+)\)")


class Fussy(mapgrad.InstanceSolver):
    """Finds nothing where the first entry is the largest by far."""

    def solve(self, state, theta, request):
        flat = theta.reshape(-1)
        if np.abs(flat[1:]).max() < 0.5 * flat[0]:
            return mapgrad.Solution(None, Status.INFEASIBLE)
        z = np.zeros_like(flat)
        z[flat.argsort()[-2:]] = 1
        return z.reshape(theta.shape)


class FussyBatch(mapgrad.BatchSolver):
    def solve(self, theta):
        z = torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1)
        bad = theta[:, 1:].abs().amax(1) < 0.5 * theta[:, 0]
        return mapgrad.Solutions(z.masked_fill(bad[:, None], torch.nan), torch.where(bad, 3, 1))


def function(theta):
    return FussyBatch(SUBSET).solve(theta)


function.problem = SUBSET


def theta_with(bad, *batch):
    """Return θ [*batch, 6] of which Fussy doesn't like some rows."""
    theta = -torch.rand(*batch, 6, generator=torch.Generator().manual_seed(0)) - 0.1
    theta.view(-1, 6)[bad] = torch.tensor([9.0, 0, 1, 2, 1, 0])
    return theta


def failure(call, error=mapgrad.RowsError):
    with pytest.raises(error) as caught:
        call()
    return caught.value


def assert_names(error, rows, batch):
    """Check an error's numbers, and that its message says the same, with indices for several dimensions."""
    assert error.rows == tuple(rows)
    (named, count, total) = NAMED.search(str(error)).groups()
    assert [int(number) for number in re.findall(r"(?:^|, )(\d+)", re.sub(r" \(index \([^)]*\)\)", "", named))] == rows
    assert (int(count), int(total)) == (len(rows), torch.Size(batch).numel())
    indices = [tuple(map(int, each.split(", "))) for each in re.findall(r"index \(([^)]*)\)", named)]
    assert indices == ([tuple(map(int, np.unravel_index(row, batch))) for row in rows] if len(batch) > 1 else [])
    numbers = re.findall(r"row (\d+):", str(error))
    assert all(int(number) in rows for number in numbers)


BATCHES = [((5,), [1, 4]), ((2, 4), [0, 7]), ((3, 1, 2), [5])]
EACH_SOLVER = pytest.mark.parametrize("solver", [Fussy, FussyBatch, function])


def layer_of(solver, **options):
    estimator = mapgrad.IMLE(mapgrad.Gaussian(), mapgrad.Step(1.0), temperature=1e-3, **options)
    return mapgrad.MAPLayer(solver if solver is function else mapgrad.get_solver(solver, SUBSET), estimator, seed=0)


@EACH_SOLVER
@pytest.mark.parametrize(("batch", "bad"), BATCHES)
@pytest.mark.parametrize("samples", [1, 3])
def test_rows_that_fail_in_the_forward_pass(solver, batch, bad, samples):
    error = failure(lambda: layer_of(solver, samples=samples)(theta_with(bad, *batch)), mapgrad.InfeasibleError)
    assert_names(error, bad, batch)
    assert "backward" not in str(error)
    lead = batch if samples == 1 else (samples, *batch)
    solutions = error.solutions
    assert solutions.z.shape == (*lead, 6)
    assert solutions.status.shape == solutions.objective.shape == solutions.bound.shape == lead
    assert solutions.mask.shape == batch
    assert (~solutions.mask).flatten().nonzero().flatten().tolist() == bad
    status = solutions.status.reshape(samples, -1)
    assert (status[:, bad] == Status.INFEASIBLE).all()
    assert (status == Status.OPTIMAL).sum() == samples * (torch.Size(batch).numel() - len(bad))


@EACH_SOLVER
@pytest.mark.parametrize(("batch", "bad"), BATCHES)
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_of_theta_that_are_not_finite(solver, batch, bad, samples, value):
    theta = theta_with([], *batch)
    theta.view(-1, 6)[bad, 2] = value
    error = failure(lambda: layer_of(solver, samples=samples)(theta), mapgrad.NonFiniteError)
    assert_names(error, bad, batch)
    assert error.solutions is None


@EACH_SOLVER
@pytest.mark.parametrize(("batch", "bad"), BATCHES)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
def test_rows_that_fail_in_the_backward_pass(solver, batch, bad, symmetric, samples):
    theta = theta_with([], *batch).requires_grad_()
    z = layer_of(solver, samples=samples, symmetric=symmetric)(theta)
    gradient = torch.zeros(*batch, 6)
    gradient.view(-1, 6)[bad] = torch.tensor([-50.0, 0, 0, 0, 0, 0])  # θ′ likes the first entry, and the solver doesn't
    error = failure(lambda: z.backward(gradient), mapgrad.InfeasibleError)
    assert_names(error, bad, batch)
    assert str(error).startswith("in the backward pass, which solves θ′ = θ − step, ")
    assert error.solutions is None
    assert theta.grad is None


def test_f5_problems_of_a_layer():
    error = failure(
        lambda: mapgrad.MAPLayer(mapgrad.get_solver("highs", None))(
            torch.ones(4, 3), problems=[FULL, EMPTY, FULL, EMPTY]
        ),
        mapgrad.InfeasibleError,
    )
    assert_names(error, [1, 3], (4,))
    assert error.solutions.status.tolist() == [1, 3, 1, 3]
    assert error.solutions.mask.tolist() == [True, False, True, False]


def test_f5_and_n9_nan_with_several_samples():
    theta = torch.randn(4, 6)
    theta[2, 0] = torch.nan
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.IMLE(samples=3))
    assert_names(failure(lambda: layer(theta), mapgrad.NonFiniteError), [2], (4,))
    theta = torch.randn(2, 6)
    theta[1, 0] = torch.nan
    assert_names(failure(lambda: layer(theta), mapgrad.NonFiniteError), [1], (2,))


EMPTY_TOO = mapgrad.IntegerProgram(A_ub=[[1, 1]], b_ub=[-2])


@pytest.mark.parametrize("samples", [1, 2])
def test_all_groups_of_problems_are_tried(samples):
    solver = mapgrad.get_solver("highs", None)
    problems = [FULL, EMPTY_TOO, EMPTY, FULL, EMPTY_TOO, mapgrad.KSubset(4, 1)]
    theta = [torch.rand(problem.shape, generator=torch.Generator().manual_seed(0)).half() for problem in problems]
    layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(samples=samples))
    for call in (lambda: layer(theta, problems=problems), lambda: solver(theta, problems=problems)):
        error = failure(call, mapgrad.InfeasibleError)
        assert_names(error, [1, 2, 4], (6,))
        assert "of the whole batch" not in str(error)
        assert error.solutions.mask.tolist() == [True, False, False, True, False, True]
        assert [z.shape[-1] for z in error.solutions.z] == [3, 2, 3, 3, 2, 4]
        assert {z.dtype for z in error.solutions.z} == {torch.float16}
    theta[0][1] = theta[4][0] = torch.nan
    for call in (lambda: layer(theta, problems=problems), lambda: solver(theta, problems=problems)):
        assert_names(failure(call, mapgrad.NonFiniteError), [0, 4], (6,))


def test_all_groups_of_problems_are_tried_in_the_backward_pass():
    problems = [mapgrad.KSubset(6, k) for k in (1, 2, 1, 2, 3)]
    theta = theta_with([], 5).requires_grad_()
    layer = mapgrad.MAPLayer(mapgrad.get_solver(Fussy, None), mapgrad.Blackbox(1.0))
    z = layer(theta, problems=problems)
    gradient = torch.zeros(5, 6)
    gradient[[0, 1, 4], 0] = -50.0
    error = failure(lambda: z.backward(gradient), mapgrad.InfeasibleError)
    assert_names(error, [0, 1, 4], (5,))
    assert "backward pass" in str(error)


def test_rows_of_a_batch_that_is_cut_into_parts():
    count = 9000
    bad = [0, 4000, count - 1]
    theta = theta_with(bad, count)
    layer = layer_of(FussyBatch, samples=3)
    error = failure(lambda: layer(theta), mapgrad.InfeasibleError)
    assert_names(error, bad, (count,))
    assert error.solutions.z.shape == (3, count, 6)
    assert (~error.solutions.mask).nonzero().flatten().tolist() == bad
    leaf = theta_with([], count).requires_grad_()
    z = layer(leaf)
    gradient = torch.zeros(count, 6)
    gradient[bad, 0] = -50.0
    assert_names(failure(lambda: z.backward(gradient), mapgrad.InfeasibleError), bad, (count,))
    theta[bad] = torch.nan
    assert_names(failure(lambda: layer(theta), mapgrad.NonFiniteError), bad, (count,))


@pytest.mark.parametrize("samples", [1, 2])
def test_rows_outside_of_the_domain(samples):
    solver = mapgrad.get_solver("scipy.shortest_path", mapgrad.GridShortestPath(2, 3), domain="raise")
    layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(target=mapgrad.Step(1.0), samples=samples))
    theta = -torch.rand(2, 2, 2, 3, generator=torch.Generator().manual_seed(0)) - 0.1
    z = layer(theta.requires_grad_())
    gradient = torch.zeros_like(theta)
    gradient[1, 0] = -9.0
    error = failure(lambda: z.backward(gradient), mapgrad.DomainError)
    assert_names(error, [2], (2, 2))
    assert str(error).startswith("in the backward pass")
    outside = theta.detach().clone()
    outside[0, 1, 1, 1] = 1.0
    for call in (layer, solver):
        error = failure(lambda call=call: call(outside), mapgrad.DomainError)
        assert_names(error, [1], (2, 2))
        assert "keep the costs −θ non-negative" in str(error)


def test_an_overflow_of_the_step_does_not_blame_theta():
    theta = torch.randn(3, 6).requires_grad_()
    z = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), mapgrad.Blackbox(1e20))(theta)
    error = failure(lambda: z.backward(torch.tensor([[1.0], [1e30], [1.0]]).expand(3, 6)), mapgrad.NonFiniteError)
    assert_names(error, [1], (3,))
    assert "the step overflows" in str(error)
    assert "θ has" not in str(error)


def test_the_solver_names_indices_too():
    solver = mapgrad.get_solver(Fussy, SUBSET)
    theta = theta_with([1, 5], 2, 3)
    for call in (solver, solver.solve):
        error = failure(lambda call=call: call(theta), mapgrad.InfeasibleError)
        assert_names(error, [1, 5], (2, 3))
        assert error.solutions.status.shape == (2, 3)


def test_what_an_estimator_raises_on_its_own_passes_through():
    class Fails(mapgrad.StraightThrough):
        def gradient(self, forward, gradient):
            raise mapgrad.SolverCrashError("mine", rows=[7])

    z = mapgrad.MAPLayer(mapgrad.get_solver("topk", SUBSET), Fails())(torch.zeros(2, 6, requires_grad=True))
    error = failure(lambda: z.sum().backward())
    assert str(error) == "mine"
    assert error.rows == (7,)


def test_a_cause_is_the_rows_own():
    class Raises(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            if theta[0] < 0:
                raise ArithmeticError("pivot")
            return np.eye(6)[0] + np.eye(6)[1]

    layer = mapgrad.MAPLayer(mapgrad.get_solver(Raises, SUBSET), mapgrad.IMLE(None, samples=2))
    theta = torch.ones(2, 2, 6)
    theta[1, 0, 0] = -1.0
    error = failure(lambda: layer(theta), mapgrad.SolverCrashError)
    assert_names(error, [2], (2, 2))
    assert list(error.solutions.causes) == [2]
    assert isinstance(error.__cause__, ArithmeticError)
    assert "ArithmeticError: pivot" in str(error)
