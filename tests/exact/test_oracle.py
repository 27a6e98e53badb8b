"""The exact oracles against enumeration, whichever is picked, and large ones against what is known otherwise."""

import logging
import math

import pytest
import torch
from scipy.stats import chi2

import mapgrad
from mapgrad import (
    Arborescence,
    Assignment,
    GridShortestPath,
    InfeasibleError,
    IntegerProgram,
    Knapsack,
    KSubset,
    ProblemError,
    Ranking,
    ShortestPath,
    SpanningTree,
    UnsupportedProblemError,
    exact,
)
from mapgrad.exact import _chunks
from mapgrad.exact._enumeration import Enumeration

INF = torch.inf


def complete(num_nodes):
    return [(i, j) for j in range(num_nodes) for i in range(j)]


def grid(side):
    """Monotone paths from corner to corner."""
    right = [(side * i + j, side * i + j + 1) for i in range(side) for j in range(side - 1)]
    down = [(side * i + j, side * (i + 1) + j) for i in range(side - 1) for j in range(side)]
    return ShortestPath(side * side, right + down, 0, side * side - 1)


CASES = [
    ("one-hot", KSubset(5, 1)),
    ("k-subset", KSubset(6, 3)),
    ("k-subset", KSubset(4, 4)),
    ("star-mesh", SpanningTree(5, complete(5))),
    ("star-mesh", SpanningTree(4, [(0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (3, 2), (0, 3)])),  # parallel, and a loop
    ("star-mesh", SpanningTree(2, [(0, 1), (0, 1)])),
    ("star-mesh", SpanningTree(1, [(0, 0)])),
    ("star-mesh", Arborescence(4, [(0, 1), (1, 0), (2, 0), (2, 1), (0, 3), (3, 1), (1, 3), (3, 2), (2, 3), (0, 1)], 2)),
    # parallel edges, a dead end, a node that isn't reached, edges across layers
    ("paths", ShortestPath(6, [(0, 1), (0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (0, 3), (3, 4), (5, 3), (1, 4)], 0, 3)),
    ("paths", ShortestPath(2, [(0, 1)], 0, 0)),
    ("permanent", Assignment(4)),
    ("permanent", Assignment(2, 4)),
    ("permanent", Assignment(4, 3)),
    ("permanent", Assignment(1)),
    ("permanent", Ranking(4)),
    ("diagram", Knapsack([3, 4, 5, 6], 9)),
    ("diagram", IntegerProgram(A_ub=[[2, -3, 1, 1]], b_ub=[-2], decision=[2, 0], fixed=[-0.5, 0.7])),
    ("enumeration", GridShortestPath(2, 3)),
    (
        "enumeration",
        IntegerProgram(A_ub=[[1, 1, 1, 1]], b_ub=[3], upper=[2, 1, 3, 1], decision=[2, 0], fixed=[0.5, -0.25]),
    ),
]
PROBLEMS = [problem for _, problem in CASES]
each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: repr(problem)[:50])


def random(problem, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, *problem.shape, generator=generator, dtype=torch.float64)


def by_states(problem, theta, temperature):
    """Log-partition, marginals and entropy from all states, by torch's own functions."""
    states = problem.states().flatten(1)
    others = torch.as_tensor(problem.completion_values(states.reshape(-1, *problem.shape).numpy()))
    scores = theta.flatten(-len(problem.shape)).unsqueeze(-2)
    scores = (torch.where(states == 0, 0.0, states * scores).sum(dim=-1) + others) / temperature
    chances = scores.softmax(dim=-1)
    entropy = torch.special.entr(chances).sum(dim=-1)
    return scores.logsumexp(dim=-1), (chances @ states).reshape(theta.shape), entropy


@pytest.mark.parametrize(("name", "problem"), CASES, ids=lambda case: repr(case)[:50])
def test_the_oracle_that_fits_is_picked_and_named(name, problem, caplog):
    exact._choice._oracles.clear()
    with caplog.at_level(logging.INFO, "mapgrad"):
        assert exact.oracle(problem).name == name
    assert caplog.messages == [repr(exact.oracle(problem))]


@each_problem
@pytest.mark.parametrize("scale", [1e-9, 1.0, 20.0, 1e4])
def test_all_of_it_agrees_with_the_states(problem, scale):
    theta = scale * random(problem, 2, 3)
    partition, means, entropy = by_states(problem, theta, 0.7)
    tolerance = {"rtol": 1e-12, "atol": 2e-14 * max(scale, 1) + 1e-12}
    torch.testing.assert_close(exact.log_partition(problem, theta, 0.7), partition, **tolerance)
    torch.testing.assert_close(exact.marginals(problem, theta, 0.7), means, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(exact.entropy(problem, theta, 0.7), entropy, **tolerance)
    count = math.log(len(problem.states()))
    assert exact.oracle(problem).log_num_states == pytest.approx(count, abs=1e-12)
    torch.testing.assert_close(exact.kl_to_uniform(problem, theta, 0.7), count - entropy, **tolerance)


@each_problem
def test_derivatives_are_those_of_the_states(problem):
    theta = random(problem, 3).requires_grad_()
    weights = random(problem, 3, seed=1)
    truth = by_states(problem, theta, 0.7)
    found = [ask(problem, theta, 0.7) for ask in (exact.log_partition, exact.marginals, exact.entropy)]
    for one, other in zip(found, truth, strict=True):
        scale = weights if one.ndim == weights.ndim else weights.flatten(1)[:, 0]
        slopes = [torch.autograd.grad((each * scale).sum(), theta, retain_graph=True)[0] for each in (one, other)]
        torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)
    theta = theta[:1].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: exact.marginals(problem, t, 0.8), theta, fast_mode=True)
    assert torch.autograd.gradcheck(lambda t: exact.kl_to_uniform(problem, t, 0.8), theta, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda t: exact.log_partition(problem, t, 0.8), theta, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda t: exact.marginals(problem, t, 0.8), theta, fast_mode=True)


@each_problem
def test_forbidden_entries_leave_the_other_states(problem):
    theta = random(problem, 4, 3, seed=2)
    mask = torch.rand(theta.shape, generator=torch.Generator().manual_seed(3)) < 0.3
    theta = theta.masked_fill(mask, -INF)
    partition = by_states(problem, theta, 0.7)[0].flatten()
    empty = partition.isneginf().nonzero().flatten().tolist()
    if empty:
        for ask in (exact.log_partition, exact.marginals, exact.entropy, lambda *rows: exact.sample(*rows, 2)):
            with pytest.raises(InfeasibleError, match="forbids in row") as failure:
                ask(problem, theta)
            assert failure.value.rows == tuple(empty)
    theta = theta.reshape(12, *problem.shape)[[row for row in range(12) if row not in empty]].requires_grad_()
    partition, means, entropy = by_states(problem, theta.detach(), 0.7)
    torch.testing.assert_close(exact.log_partition(problem, theta, 0.7).detach(), partition)
    torch.testing.assert_close(exact.marginals(problem, theta, 0.7).detach(), means, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(exact.entropy(problem, theta, 0.7).detach(), entropy)
    barred = theta.detach().isneginf()
    assert not exact.marginals(problem, theta, 0.7)[barred].any()
    for ask in (exact.log_partition, exact.marginals, exact.entropy):
        (slope,) = torch.autograd.grad(ask(problem, theta, 0.7).square().sum(), theta)
        assert slope.isfinite().all()
        assert not slope[barred].any()
    assert not exact.sample(problem, theta, 20)[:, barred].any()


@each_problem
def test_samples_pass_a_chi_square(problem):
    theta, states, draws = random(problem, 2, 1), problem.states(), 4000
    z = exact.sample(problem, theta, draws, 1.5, generator=torch.Generator().manual_seed(3))
    assert z.shape == (draws, 2, 1, *problem.shape)
    chances = exact.probabilities(problem, theta, 1.5)[:, 0]
    for row in range(2):
        same = (z[:, row].flatten(1)[:, None] == states.flatten(1)).all(dim=2)
        counts, expected = same.sum(dim=0).double(), draws * chances[row]
        assert counts.sum() == draws
        rare = expected < 5  # together they are one more cell
        counts = torch.cat((counts[~rare], counts[rare].sum()[None]))
        expected = torch.cat((expected[~rare], expected[rare].sum()[None]))
        statistic = ((counts - expected).square() / expected.clamp(min=1e-9)).sum()
        assert statistic <= chi2.ppf(0.9999, max(len(counts) - 1, 1))


@each_problem
def test_results_do_not_depend_on_the_rows_taken_together(problem, monkeypatch):
    theta = random(problem, 7).requires_grad_()

    def everything(oracle):
        partition, means = oracle.log_partition(theta), oracle.marginals(theta)
        (slope,) = torch.autograd.grad(partition.square().sum() + means.pow(3).sum(), theta, create_graph=True)
        twice = torch.autograd.grad(slope.square().sum(), theta, allow_unused=True)[0]
        samples = oracle.sample(theta, 9, generator=torch.Generator().manual_seed(1))
        return partition, means, slope, torch.zeros(()) if twice is None else twice, samples

    oracle = exact.oracle(problem)
    together = everything(oracle)
    monkeypatch.setattr(_chunks, "_TOGETHER", 1)
    monkeypatch.setattr(oracle, "max_bytes", 3 * oracle._row_bytes)
    for one, other in zip(together, everything(oracle), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@each_problem
def test_the_estimate_of_a_row_s_memory_is_not_too_small(problem):
    """Storages that autograd keeps for the marginals of a row."""
    oracle, kept = exact.oracle(problem), {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = tensor, storage.nbytes()  # the tensor lives, so that its address stays its own
        return tensor

    theta = random(problem, 100).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        oracle.marginals(theta)
    assert sum(size for _, size in kept.values()) <= 100 * oracle._row_bytes + 10_000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@each_problem
def test_shapes_and_dtypes(problem, dtype):
    theta = random(problem, 2, 1).to(dtype)
    for ask in (exact.marginals, exact.log_partition, exact.entropy, exact.kl_to_uniform):
        assert torch.equal(ask(problem, theta), ask(problem, theta.double()).to(dtype))
    assert exact.sample(problem, theta, 3).dtype == dtype
    empty = theta[:0]
    assert exact.marginals(problem, empty).shape == empty.shape
    assert exact.entropy(problem, empty).shape == (0, 1)
    assert exact.sample(problem, empty, 3).shape == (3, *empty.shape)
    assert exact.sample(problem, theta, 0).shape == (0, *theta.shape)
    assert exact.log_partition(problem, theta[0, 0]).shape == ()


@each_problem
def test_func_grad(problem):
    theta = random(problem)
    slope = torch.func.grad(lambda t: exact.log_partition(problem, t, 0.5))(theta)
    torch.testing.assert_close(0.5 * slope, exact.marginals(problem, theta, 0.5), rtol=1e-10, atol=1e-13)


def test_subsets_of_a_thousand():
    theta = random(KSubset(1000, 300), 2)
    torch.testing.assert_close(exact.marginals(KSubset(1000, 300), theta).sum(dim=1), torch.full((2,), 300.0).double())
    assert exact.oracle(KSubset(1000, 300)).log_num_states == pytest.approx(math.log(math.comb(1000, 300)), rel=1e-12)
    assert bool((exact.sample(KSubset(1000, 300), theta, 3).sum(dim=-1) == 300).all())


def test_subsets_with_values_worlds_apart():
    problem, theta = KSubset(4, 2), torch.tensor([1e30, 1.0, 2, 3], dtype=torch.float64)
    rest = theta[1:].softmax(dim=0).tolist()
    assert exact.marginals(problem, theta).tolist() == pytest.approx([1, *rest])


@pytest.mark.parametrize("num_nodes", [3, 12, 40])
def test_trees_of_a_complete_graph(num_nodes):
    """Cayley's formula, and by symmetry 2/n of all trees hold an edge."""
    problem = SpanningTree(num_nodes, complete(num_nodes))
    assert exact.oracle(problem).log_num_states == pytest.approx((num_nodes - 2) * math.log(num_nodes), rel=1e-13)
    means = exact.marginals(problem, torch.zeros(problem.shape, dtype=torch.float64))
    torch.testing.assert_close(means, torch.full_like(means, 2 / num_nodes), rtol=1e-12, atol=0)
    steep = 1000 * random(problem, 3)
    torch.testing.assert_close(exact.marginals(problem, steep).sum(dim=1), torch.full((3,), num_nodes - 1.0).double())
    z = exact.sample(problem, steep, 2)
    assert problem.contains(z).all()


def test_trees_of_a_steep_path_keep_their_digits():
    """A cycle with weights e^(20 i): the determinant of the matrix-tree theorem is worth nothing here."""
    problem = SpanningTree(8, [(i, (i + 1) % 8) for i in range(8)])
    theta = 20.0 * torch.arange(8, dtype=torch.float64)
    missing = (-theta).softmax(dim=0)  # a tree lacks one edge
    torch.testing.assert_close(1 - exact.marginals(problem, theta), missing, rtol=1e-9, atol=1e-15)


def test_paths_of_a_grid_are_counted_by_binomials():
    problem = grid(20)
    count = math.comb(38, 19)
    assert exact.oracle(problem).log_num_states == pytest.approx(math.log(count), rel=1e-14)
    means = exact.marginals(problem, torch.zeros(problem.shape, dtype=torch.float64))
    assert float(means.sum()) == pytest.approx(38)
    assert float(means[0]) == pytest.approx(0.5)
    assert problem.contains(exact.sample(problem, random(problem, 2), 5)).all()


def test_permanents_of_twelve():
    ones = torch.zeros(12, 12, dtype=torch.float64)
    assert float(exact.log_partition(Assignment(12), ones)) == pytest.approx(math.lgamma(13), rel=1e-14)
    torch.testing.assert_close(exact.marginals(Assignment(12), ones), torch.full_like(ones, 1 / 12))
    assert exact.oracle(Assignment(5, 20)).log_num_states == pytest.approx(math.log(math.perm(20, 5)), rel=1e-14)
    assert Assignment(12).contains(exact.sample(Assignment(12), ones, 4)).all()


@pytest.mark.parametrize(
    ("problem", "size"),
    [(KSubset(10**6, 10**5), r"5,\d{3},\d{3},\d{3},\d{3}"), (Assignment(40), r"1,583,296,743,997,440")],
)
def test_what_does_not_fit_is_refused_with_its_size(problem, size):
    with pytest.raises(ProblemError, match=rf"takes {size} bytes for a single row, and the budget is 1,073,741,824"):
        exact.marginals(problem, torch.zeros(problem.shape))
    with pytest.raises(ProblemError, match="the budget is 1,000: allow as many by max_bytes="):
        exact.oracle(KSubset(30, 5), max_bytes=1000)


def test_nothing_fits():
    program = IntegerProgram(A_ub=[[1, 1]], b_ub=[1], integrality=[1, 0])
    with pytest.raises((ProblemError, UnsupportedProblemError), match=r"no exact oracle fits: .* Nor does a diagram: "):
        exact.oracle(program)
    with pytest.raises(TypeError, match=r"problem must be a problem, such as .* got 'KSubset'"):
        exact.oracle("KSubset")


@each_problem
def test_refusals(problem):
    theta = random(problem, 2)
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be positive and finite"):
            exact.marginals(problem, theta, temperature)
    with pytest.raises(ValueError, match="at most 1e280"):
        exact.log_partition(problem, 1e300 + theta)
    with pytest.raises(mapgrad.NonFiniteError, match="row 1"):
        exact.entropy(problem, torch.cat((theta[:1], theta[1:] * math.nan)))
    with pytest.raises(mapgrad.ShapeError):
        exact.sample(problem, theta.flatten()[:0], 2)
    for count in (-1, 1.5, True):
        with pytest.raises((TypeError, ValueError), match="count must be an int"):
            exact.sample(problem, theta, count)


def test_top_k_marginals_in_chunks_and_within_a_budget(monkeypatch):
    theta = random(KSubset(6, 2), 3).requires_grad_()
    weights = random(KSubset(6, 2), 3, seed=1)

    def both(**budget):
        means = exact.topk_marginals(theta, 2, mapgrad.Gumbel(), 0.7, **budget)
        return means, torch.autograd.grad((means * weights).sum(), theta)[0]

    whole = both()
    monkeypatch.setattr(_chunks, "_TOGETHER", 100_000)
    for one, other in zip(whole, both(max_bytes=200_000), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    with pytest.raises(ProblemError, match=r"takes .* bytes for a single row"):
        exact.topk_marginals(theta, 2, mapgrad.Gumbel(), max_bytes=100)


def test_expectations_in_chunks_have_the_gradient_of_what_f_depends_on(monkeypatch):
    theta = random(KSubset(6, 2), 5).requires_grad_()
    cost = random(KSubset(6, 2), seed=1).requires_grad_()

    def both():
        mean = exact.expectation(KSubset(6, 2), theta, lambda z: z @ cost)
        return mean, *torch.autograd.grad(mean.square().sum(), (theta, cost))

    whole = both()
    monkeypatch.setattr("mapgrad.exact._enumeration.MAX_BYTES", 1)
    for one, other in zip(whole, both(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_an_enumeration_agrees_with_what_is_picked():
    problem = Assignment(3)
    theta = random(problem, 2)
    torch.testing.assert_close(Enumeration(problem, 2**20).marginals(theta), exact.marginals(problem, theta))


def test_oracles_of_many_problems_are_kept():
    generator = torch.Generator().manual_seed(0)
    problems = [
        *(Knapsack(torch.randint(3, 9, (1, 8), generator=generator).tolist(), [15]) for _ in range(40)),
        *(KSubset(6, k) for k in range(1, 6)),
        *(GridShortestPath(2, width) for width in range(2, 7)),
        Assignment(3),
        grid(3),
    ]
    first = [exact.oracle(problem) for problem in problems]
    assert all(exact.oracle(problem) is found for problem, found in zip(problems, first, strict=True))
    for found in first:
        assert found.held_bytes > 0
    large, small = exact.oracle(Assignment(8)), exact.oracle(Assignment(3))
    assert large.held_bytes > 10 * small.held_bytes
