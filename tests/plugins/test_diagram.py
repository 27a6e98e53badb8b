"""The plugin `diagram`: one answer from numba, NumPy and torch, and what is said of a program before it is compiled."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mapgrad
import mapgrad_diagram
import mapgrad_topk
from mapgrad import IntegerProgram, Knapsack, KSubset, Status, UnsupportedProblemError
from mapgrad.exact import _compiler
from mapgrad.exact import _diagram as exact_diagram
from mapgrad.exact._binary_rows import binary_rows
from mapgrad_diagram import _diagram, _size

WEIGHTS = np.random.default_rng(5).integers(1, 100, (2, 16))
KNAPSACK = Knapsack(WEIGHTS, WEIGHTS.sum(axis=1) // 2)


def random_program(seed, largest=8):
    generator = np.random.default_rng(seed)
    num_rows, count = generator.integers(1, 4), generator.integers(1, 12)
    matrix = generator.integers(-3, largest, (num_rows, count)) * (generator.random((num_rows, count)) < 0.7)
    low = np.where(generator.random(num_rows) < 0.5, matrix.sum(axis=1) // 4, -np.inf)
    high = np.where(np.isinf(low) | (generator.random(num_rows) < 0.5), matrix.sum(axis=1) // 2 + 2, np.inf)
    return IntegerProgram.from_rows(matrix, low, np.maximum(high, low))


def rows(problem, count, seed=0):
    generator = np.random.default_rng(seed)
    theta = generator.integers(-2, 3, (count, *problem.shape)) * 10.0 ** generator.integers(-9, 10, (count, 1))
    theta += (generator.random((count, 1)) < 0.5) * generator.normal(size=theta.shape)
    theta[generator.random(theta.shape) < 0.1] = -np.inf
    return torch.tensor(theta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(st.integers(0, 2**32 - 1), st.integers(1, 19))
@settings(deadline=None, max_examples=60)
def test_the_kernel_finds_the_bits_of_the_sweep_without_it(dtype, seed, count):
    solver = _diagram.Diagram(random_program(seed))
    theta = rows(solver.problem, count, seed).to(dtype)
    here, there = solver.solve(theta), solver._diagram.solve(theta)
    if not isinstance(here, mapgrad.Solutions):
        here = mapgrad.Solutions(here, torch.full((count,), int(mapgrad.Status.OPTIMAL)))
    assert here.z.dtype == there.z.dtype == dtype
    torch.testing.assert_close(here.z, there.z, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(here.status, there.status)


def test_huge_utilities_do_not_overflow():
    theta = torch.randn(9, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solver = mapgrad.get_solver("diagram", KNAPSACK)
    assert torch.equal(solver(theta * 2.0**1020), solver(theta))
    assert torch.equal(solver(theta * 2.0**-1000), solver(theta))


def test_without_numba_answers_are_the_same(monkeypatch):
    theta = rows(KNAPSACK, 20)
    expected = mapgrad.get_solver("diagram", KNAPSACK)(theta)
    monkeypatch.setitem(sys.modules, "numba", None)  # which makes its import fail
    monkeypatch.delitem(sys.modules, "mapgrad_diagram._lanes")
    monkeypatch.delattr(mapgrad_diagram, "_lanes")
    _diagram._kernel.cache_clear()
    try:
        assert _diagram._kernel() is None
        assert torch.equal(mapgrad.get_solver("diagram", KNAPSACK)(theta), expected)
    finally:
        _diagram._kernel.cache_clear()


def test_threads_share_a_solver():
    solver, theta = mapgrad.get_solver("diagram", KNAPSACK), rows(KNAPSACK, 200)
    expected = solver(theta)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(z, expected) for z in pool.map(solver, [theta] * 20))


def test_a_layer_learns_through_it():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("diagram", KNAPSACK), mapgrad.IMLE(), seed=0)
    theta = torch.randn(32, 16, requires_grad=True, generator=torch.Generator().manual_seed(0))
    layer(theta)[:, 0].sum().backward()
    assert theta.grad.abs().sum() > 0


def test_what_does_not_fit_is_refused_when_the_solver_is_made():
    weights = np.random.default_rng(0).integers(1, 1000, (5, 40))
    problem = Knapsack(weights, weights.sum(axis=1) // 2)
    with pytest.raises(UnsupportedProblemError, match=r"in \d+ of 40 layers"):
        mapgrad.get_solver("diagram", problem, max_nodes=5000)
    with pytest.raises(TypeError, match="max_nodes"):
        mapgrad.get_solver("diagram", problem, most=5)


def test_an_empty_program_is_infeasible_row_by_row():
    solver = mapgrad.get_solver("diagram", IntegerProgram(A_eq=[[2, 4]], b_eq=[3]))
    with pytest.raises(mapgrad.InfeasibleError) as failure:
        solver(torch.zeros(3, 2))
    assert failure.value.rows == (0, 1, 2)
    assert failure.value.solutions.status.tolist() == [Status.INFEASIBLE] * 3


def test_what_is_supported_is_told_without_compiling(monkeypatch):
    monkeypatch.setattr(exact_diagram, "compile_nodes", lambda *_: pytest.fail("compiled"))
    for problem, reason in (
        (IntegerProgram(A_ub=[[1, 1]], b_ub=[1], integrality=[1, 0]), "variable 1 .* is a continuous one"),
        (IntegerProgram(A_ub=[[1, 1]], b_ub=[1], upper=[1, 3]), "variable 1 .* an integer one between 0 and 3"),
        (KSubset(20_000, 3), "20,000 variables"),
    ):
        assert "diagram" not in {info.name for info in mapgrad.list_solvers(problem)}
        with pytest.raises(UnsupportedProblemError, match=reason):
            mapgrad.get_solver("diagram", problem)
    started = time.process_time()
    assert "diagram" in {info.name for info in mapgrad.list_solvers(Knapsack(np.ones((100, 1000)), np.ones(100)))}
    assert time.process_time() - started < 5


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 8, 1000]))
@settings(deadline=None, max_examples=150)
def test_the_bound_on_states_holds(seed, largest):
    program = binary_rows(random_program(seed, largest))
    order = np.arange(program.may_be.shape[1])
    layers = _compiler._layers(program, order, 2**20, np.inf)
    states = 1 + sum(int(np.stack(layer).max(initial=-1)) + 1 for layer in layers)
    assert states <= _size.states_at_most(program.program) * (1 + 1e-9)


def test_a_low_cost_is_claimed_only_where_the_program_is_sure_to_fit():
    wide = np.random.default_rng(0).integers(1, 1000, (5, 40))
    sure = [KNAPSACK, KSubset(1000, 10), mapgrad.Assignment(8), Knapsack(WEIGHTS[0], 400)]
    unsure = [
        Knapsack(wide, wide.sum(axis=1) // 2),
        mapgrad.Assignment(30),
        Knapsack(np.ones((3000, 1000)), np.ones(3000)),
    ]
    assert all(_size.cost(problem.to_ilp()) < 1e-3 for problem in sure)
    assert all(_size.cost(problem.to_ilp()) >= 1 for problem in unsure)
    # a dedicated solver comes first, and costs less
    (topk,) = mapgrad_topk.mapgrad_solvers()
    assert topk.cost(KSubset(1000, 10)) < _size.cost(KSubset(1000, 10).to_ilp())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_finds_the_bits_of_the_cpu():
    theta, solver = rows(KNAPSACK, 300), _diagram.Diagram(KNAPSACK)
    here, there = solver.solve(theta), solver.solve(theta.cuda())
    assert there.z.device.type == there.status.device.type == "cuda"
    torch.testing.assert_close(there.z.cpu(), here.z, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(there.status.cpu(), here.status)


@pytest.mark.parametrize("weights", [[1 / 3, 1e-9, 2**0.5 * 1e5], [1e200, 1, 1], [1e-300, 1e-300, 1], [1e-15, 1, 1]])
def test_auto_passes_over_diagrams_of_rows_that_are_no_integers(weights):
    problem = mapgrad.IntegerProgram(A_ub=[weights], b_ub=[max(weights)])
    with pytest.raises(mapgrad.UnsupportedProblemError, match="need more: round them to fewer digits"):
        mapgrad.get_solver("diagram", problem)
    assert mapgrad.get_solver("auto", problem).name != "diagram"


def test_auto_compiles_no_diagram_for_a_row_of_its_own():
    pytest.importorskip("numba")
    generator = np.random.default_rng(0)
    problems = [Knapsack(generator.integers(3, 20, (1, 10)), [40.0]) for _ in range(3)]
    theta = torch.rand(3, 10)
    solver = mapgrad.get_solver("auto", None)
    assert {work.factory.name for work, _ in solver.works_on(theta, problems)} == {"search"}
    assert {mapgrad.get_solver("auto", problem).name for problem in problems} == {"diagram"}
    z = solver(theta, problems)
    for row, problem, answer in zip(theta, problems, z, strict=True):
        assert torch.equal(answer, mapgrad.exact.map_state(problem, row))
