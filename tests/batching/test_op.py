"""A bare solver under torch.vmap, torch.compile, torch.func and torch.export: its op is opaque to all of them."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import mapgrad

SUBSET = mapgrad.KSubset(6, 2)
GRID = mapgrad.GridShortestPath(2, 3)
COMPILED = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles


def top2(theta):
    return torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1)


class Fussy(mapgrad.InstanceSolver):
    """Finds nothing where the first entry is positive."""

    def solve(self, state, theta, request):
        if theta[0] > 0:
            return mapgrad.Solution(None, mapgrad.Status.INFEASIBLE)
        z = theta * 0
        z[theta.argsort()[-2:]] = 1
        return z


SOLVERS = {
    "batch": (lambda: mapgrad.get_solver("topk", SUBSET), (6,)),
    "host": (lambda: mapgrad.get_solver("networkx.shortest_path", GRID), (2, 3)),
    "function": (lambda: mapgrad.get_solver(top2, SUBSET), (6,)),
}


@pytest.fixture(params=SOLVERS)
def solver(request):
    return SOLVERS[request.param][0]()


@pytest.fixture
def theta(solver):
    """[4, 3, *shape], no row optimal in two ways."""
    return -torch.rand(4, 3, *solver.problem.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def compiled(function):
    return torch.compile(function, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("in_dim", [0, 1, 2])
def test_vmap_over_any_dimension(solver, theta, in_dim):
    expected = solver(theta)
    moved = theta.movedim(0, in_dim)
    assert torch.equal(torch.vmap(solver, in_dims=in_dim)(moved), expected)
    assert torch.equal(torch.vmap(solver, in_dims=in_dim, out_dims=-1)(moved), expected.movedim(0, -1))


def test_nested_vmap(solver, theta):
    expected = solver(theta)
    assert torch.equal(torch.vmap(torch.vmap(solver))(theta), expected)
    assert torch.equal(torch.vmap(torch.vmap(solver), in_dims=-1, out_dims=1)(theta.movedim(1, -1)), expected)


def test_a_map_is_one_batch(solver, theta):
    torch.vmap(solver)(theta)
    assert solver.stats["rows"] == 12


def test_a_function_is_called_once_an_element_of_a_map():
    seen = []

    def choose(theta):
        seen.append(theta.clone())
        return top2(theta)

    theta = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    solver = mapgrad.get_solver(choose, SUBSET)
    assert torch.equal(torch.vmap(torch.vmap(solver))(theta), top2(theta))
    assert torch.equal(torch.stack(seen), theta.flatten(0, 1))


def test_a_function_without_a_problem_has_the_shape_of_an_element():
    solver = mapgrad.MAPLayer(top2).solver
    theta = torch.randn(3, 4, 2, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.vmap(solver)(theta), top2(theta))
    assert torch.equal(torch.vmap(torch.vmap(torch.vmap(solver)))(theta), top2(theta))


@COMPILED
def test_compiled_equals_eager(solver, theta):
    assert torch.equal(compiled(solver)(theta), solver(theta))
    assert torch.equal(compiled(lambda rows: solver(rows * 2) + rows)(theta), solver(theta * 2) + theta)
    assert torch.equal(compiled(torch.vmap(torch.vmap(lambda row: solver(row))))(theta), solver(theta))


@COMPILED
def test_a_loss_around_a_solver(solver, theta):
    def regret(rows):
        z = solver(rows + 0.01 * torch.arange(rows[0].numel()).reshape(rows[0].shape))
        return (rows * (solver(rows) - z)).sum()

    gradient = torch.func.grad(regret)
    expected = torch.stack([gradient(rows) for rows in theta])
    leaf = theta.clone().requires_grad_()
    sum(map(regret, leaf)).backward()
    assert torch.equal(leaf.grad, expected)
    assert torch.equal(torch.vmap(gradient)(theta), expected)
    assert torch.equal(compiled(torch.vmap(gradient))(theta), expected)
    leaf = theta[0].clone().requires_grad_()
    compiled(regret)(leaf).backward()
    assert torch.equal(leaf.grad, expected[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@COMPILED
def test_dtypes(solver, theta, dtype):
    rows = theta.to(dtype)
    expected = solver(rows)
    for answer in (torch.vmap(solver)(rows), compiled(solver)(rows)):
        assert answer.dtype == dtype
        assert torch.equal(answer, expected)


class Both(torch.nn.Module):
    def __init__(self, solver):
        super().__init__()
        self.solver = solver

    def forward(self, theta):
        return self.solver(theta * 2) + theta


@COMPILED
@pytest.mark.parametrize("strict", [True, False])
def test_export(solver, theta, strict):
    expected = Both(solver)(theta.flip(0))
    program = torch.export.export(Both(solver), (theta,), strict=strict)
    assert torch.equal(program.module()(theta.flip(0)), expected)
    assert ("mapgrad.solve" in program.graph_module.code) == (solver.name != "topk")  # of tensor operations


def test_make_fx(solver, theta):
    traced = make_fx(Both(solver))(theta)
    assert torch.equal(traced(theta.flip(0)), Both(solver)(theta.flip(0)))
    assert "mapgrad.solve" in traced.code


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("mapped", [0, 1])
def test_opcheck(solver, theta, mapped, requires_grad):
    handle = solver.at_work().handle
    torch.library.opcheck(torch.ops.mapgrad.solve.default, (theta.requires_grad_(requires_grad), mapped, handle))


def test_a_solver_that_is_gone_says_so():
    handle = mapgrad.get_solver("topk", SUBSET).at_work().handle
    with pytest.raises(RuntimeError, match=f"what stood behind handle {handle} is gone: keep a reference"):
        torch.ops.mapgrad.solve(torch.zeros(2, 6), 0, handle)


@COMPILED
def test_errors_reach_the_caller_of_a_traced_call():
    solver = mapgrad.get_solver(Fussy, SUBSET)
    for run in (compiled(solver), compiled(torch.vmap(lambda rows: solver(rows))), torch.vmap(solver)):
        theta = -torch.rand(4, 3, 6, generator=torch.Generator().manual_seed(0))
        expected = solver(theta)
        assert torch.equal(run(theta), expected)
        theta[1, 2, 0] = 1.0
        with pytest.raises(mapgrad.InfeasibleError, match=r"row 5 \(index \(1, 2\)\) \(1 of 12\)") as caught:
            run(theta)
        assert caught.value.rows == (5,)
        assert torch.equal(caught.value.solutions.z.reshape(4, 3, 6)[2:], expected[2:])
        theta[1, 2, 0] = torch.nan
        with pytest.raises(mapgrad.NonFiniteError, match=r"row 5 \(index \(1, 2\)\) \(1 of 12\)"):
            run(theta)
