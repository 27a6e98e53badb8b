"""Exact functions under torch.func, torch.vmap and torch.compile, and under autocast."""

import pytest
import torch

import mapgrad
from mapgrad import exact

PROBLEMS = {
    "one-hot": mapgrad.KSubset(5, 1),
    "k-subset": mapgrad.KSubset(5, 2),
    "star-mesh": mapgrad.SpanningTree(4, [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)]),
    "paths": mapgrad.ShortestPath(4, [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)], 0, 3),
    "permanent": mapgrad.Assignment(3),
    "diagram": mapgrad.Knapsack([3, 4, 5, 6], 9),
    "enumeration": mapgrad.GridShortestPath(2, 3),
}
BY_PROBLEM = {
    "log_partition": lambda problem, theta: exact.log_partition(problem, theta, 0.7),
    "marginals": lambda problem, theta: exact.marginals(problem, theta, 0.7),
    "entropy": lambda problem, theta: exact.entropy(problem, theta, 0.7),
    "kl_to_uniform": lambda problem, theta: exact.kl_to_uniform(problem, theta, 0.7),
}


def first(states):
    return states.flatten(1)[:, 0]


BY_STATE = {
    "probabilities": lambda problem, theta: exact.probabilities(problem, theta, 0.7),
    "expectation": lambda problem, theta: exact.expectation(problem, theta, first, 0.7),
    "gradient": lambda problem, theta: exact.gradient(problem, theta, first, 0.7),
}
BY_NOISE = {
    "topk_marginals": lambda problem, theta: exact.topk_marginals(theta, 2, mapgrad.Gumbel()),
    "topk_probabilities": lambda problem, theta: exact.topk_probabilities(
        theta, torch.tensor([1.0, 1, 0, 0, 0]).expand(1, *theta.shape), 2, mapgrad.Gumbel()
    )[0],
}
CASES = [
    *((name, function) for name in PROBLEMS for function in BY_PROBLEM),
    *(("k-subset", function) for function in BY_STATE),
    *(pytest.param(("k-subset", function), marks=pytest.mark.slow) for function in BY_NOISE),
]
ONE_OF_EACH = [  # problems and functions, but not their products: each takes most of a second to compile
    *((name, "entropy") for name in PROBLEMS if name != "k-subset"),
    *(("k-subset", function) for function in (*BY_PROBLEM, *BY_STATE)),
    *CASES[-len(BY_NOISE) :],
]
COMPILED = pytest.mark.filterwarnings(  # torch's own, while it compiles and where a graph breaks
    "ignore::DeprecationWarning", "ignore:The .grad attribute of a Tensor that is not a leaf"
)


def rows(problem, *batch):
    return -torch.rand(*batch, *problem.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def case(request):
    name, function = request.param
    problem = PROBLEMS[name]
    return problem, lambda theta: {**BY_PROBLEM, **BY_STATE, **BY_NOISE}[function](problem, theta)


def weighted(run):
    def total(theta):
        values = run(theta)
        return (values * torch.arange(1, 1 + values.numel()).reshape(values.shape)).sum()

    return total


@pytest.mark.parametrize("case", CASES, indirect=True, ids="-".join)
def test_derivatives_and_maps(case):
    problem, run = case
    theta = rows(problem, 3, 2)
    torch.testing.assert_close(torch.vmap(run)(theta), run(theta))
    torch.testing.assert_close(torch.vmap(torch.vmap(run), in_dims=-1)(theta.movedim(0, -1)), run(theta))
    leaf = theta.clone().requires_grad_()
    (expected,) = torch.autograd.grad(weighted(run)(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(weighted(run))(theta), expected)
    each = torch.func.grad(weighted(run))
    torch.testing.assert_close(torch.vmap(each)(theta), torch.stack([each(part) for part in theta]))
    if problem.shape == (5,):
        hessian = torch.autograd.functional.hessian(weighted(run), theta[0, 0])
        torch.testing.assert_close(torch.func.jacrev(torch.func.jacrev(weighted(run)))(theta[0, 0]), hessian)


def test_states():
    problem = PROBLEMS["k-subset"]
    theta = rows(problem, 4, 3)
    assert torch.equal(torch.vmap(lambda part: exact.map_state(problem, part))(theta), exact.map_state(problem, theta))
    for run in (exact.Diagram(problem).map, lambda part: exact.sample(problem, part, 2)):
        with pytest.raises(RuntimeError, match="give the whole batch"):
            torch.vmap(run, randomness="different")(theta)
    for run in (exact.Diagram(problem).map, lambda part: exact.map_state(problem, part)):
        slope = torch.func.grad(lambda part, run=run: (part * run(part)).sum())(theta)
        assert torch.equal(slope, run(theta))


def test_each_problem_is_answered_as_its_name_says():
    assert {name: exact.oracle(problem).name for name, problem in PROBLEMS.items()} == {name: name for name in PROBLEMS}


@COMPILED
@pytest.mark.parametrize("case", ONE_OF_EACH, indirect=True, ids="-".join)
def test_compiled_calls_break_the_graph(case):
    torch._dynamo.reset()
    problem, run = case
    theta = rows(problem, 3)
    leaf, other = theta.clone().requires_grad_(), theta.clone().requires_grad_()
    value = torch.compile(lambda part: weighted(run)(2 * part), backend="aot_eager")(leaf)
    expected = weighted(run)(2 * other)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(leaf.grad, other.grad)


@COMPILED
def test_a_full_graph_is_refused():
    problem = PROBLEMS["k-subset"]
    for run in (lambda theta: exact.marginals(problem, theta), lambda theta: exact.map_state(problem, theta)):
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported, match="leave out fullgraph=True, or call them outside"):
            torch.compile(run, fullgraph=True, backend="aot_eager")(rows(problem, 3))


def test_bad_rows_are_named_under_a_map():
    problem = PROBLEMS["k-subset"]
    theta = rows(problem, 4, 3)
    theta[2, 1, 0] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError) as caught:
        torch.vmap(lambda part: exact.marginals(problem, part))(theta)
    assert caught.value.rows == (7,)
    theta[2, 1] = -torch.inf
    for each in (lambda part: exact.marginals(problem, part), lambda part: exact.map_state(problem, part)):
        with pytest.raises(mapgrad.InfeasibleError) as caught:
            torch.vmap(each)(theta)
        assert caught.value.rows == (7,)
    theta[2, 1, :2] = 0.0
    mapped = torch.vmap(torch.func.grad(lambda part: exact.marginals(problem, part)[:, 0].sum()))(theta)
    assert not mapped[2, 1].any()
    with pytest.raises(ValueError, match="at most 1e280"):
        torch.vmap(lambda part: exact.marginals(problem, part))(theta.masked_fill(theta.isneginf(), 0.0) - 1e290)


def test_a_derivative_beyond_the_budget_is_refused_by_torch_func_alone():
    problem = PROBLEMS["k-subset"]
    small = exact.oracle(problem, max_bytes=4000)
    theta = rows(problem, 40)
    leaf = theta.clone().requires_grad_()
    small.marginals(leaf).square().sum().backward()
    expected = torch.func.grad(lambda part: exact.marginals(problem, part).square().sum())(theta)
    torch.testing.assert_close(leaf.grad, expected)
    with pytest.raises(RuntimeError, match="split the batch, allow more by max_bytes"):
        torch.func.grad(lambda part: small.marginals(part).square().sum())(theta)


@pytest.mark.parametrize("case", CASES, indirect=True, ids="-".join)
def test_autocast_changes_nothing(case):
    problem, run = case
    theta = rows(problem, 3).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(theta)
    assert torch.equal(found, run(theta))
