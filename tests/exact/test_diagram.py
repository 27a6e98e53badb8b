"""Diagrams against enumeration: their states, best ones, marginals, samples and derivatives."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from mapgrad import (
    Assignment,
    GridShortestPath,
    InfeasibleError,
    IntegerProgram,
    Knapsack,
    KSubset,
    Matching,
    NonFiniteError,
    Ranking,
    ShapeError,
    ShortestPath,
    Status,
    UnsupportedProblemError,
    exact,
)
from mapgrad.exact import _chunks, _compiler, _diagram, _host_sweep, _sweeps
from mapgrad.exact._enumeration import Enumeration

WEIGHTS = np.random.default_rng(5).integers(1, 100, (2, 16))
KNAPSACK = Knapsack([[5, 4, 3, 7, 2], [1, 6, 4, 2, 3]], [11, 9])
PROBLEMS = [
    KNAPSACK,
    KSubset(7, 3),
    Assignment(3),
    Assignment(2, 4),
    Matching(5, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4)]),
    ShortestPath(4, [(0, 1), (0, 1), (0, 2), (1, 2), (1, 3), (2, 3)], 0, 3),
    # no state holds the first entry, and each holds the second
    IntegerProgram(A_eq=[[1, 0, 1, 1]], b_eq=[1], lower=[0, 1, 0, 0], upper=[0, 1, 1, 1]),
    # what the other two variables add is the best of 0, -0.5, 0.7 and 0.2, as far as it is allowed
    IntegerProgram(A_ub=[[2, -3, 1, 1]], b_ub=[-2], decision=[2, 0], fixed=[-0.5, 0.7]),
    # at most one of the first two, neighbours of the last three, and the first only with the last
    IntegerProgram(
        A_ub=[[1.0] * 5], b_ub=[3], sos=[(1, [0, 1], [1, 2]), (2, [2, 3, 4], [1, 2, 3])], indicators=[
            (0, 1, [0, 0, 0, 0, 1], 1, math.inf)
        ]
    ),
]  # fmt: skip


def random_theta(problem, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, *problem.shape, generator=generator, dtype=torch.float64)


@st.composite
def programs(draw):
    """Small programs of 0/1 variables: any signs and sides, integers and decimals, unpriced and fixed variables."""
    count = draw(st.integers(1, 7))
    num_rows = draw(st.integers(0, 3))
    scale = draw(st.sampled_from([1, 1, 10, 3]))
    numbers = st.lists(st.integers(-6, 9), min_size=count, max_size=count)
    matrix = np.array([draw(numbers) for _ in range(num_rows)], dtype=float).reshape(num_rows, count)
    low, high = np.full((2, num_rows), np.inf)
    for row in range(num_rows):
        first = draw(st.integers(-8, 14))
        kind = draw(st.sampled_from(["<=", ">=", "==", "two"]))
        low[row] = -np.inf if kind == "<=" else first
        high[row] = np.inf if kind == ">=" else first if kind in ("<=", "==") else first + draw(st.integers(0, 6))
    fixed = draw(st.lists(st.sampled_from([(0, 1)] * 6 + [(0, 0), (1, 1)]), min_size=count, max_size=count))
    order = draw(st.permutations(range(count)))
    decision = order[: draw(st.integers(1, count))]
    return IntegerProgram.from_rows(
        matrix / scale,
        low / scale,
        high / scale,
        lower=[lower for lower, _ in fixed],
        upper=[upper for _, upper in fixed],
        decision=decision,
        fixed=draw(
            st.lists(st.sampled_from([0.0, 0.0, 0.5, -1.25]), min_size=len(order) - len(decision), max_size=7)
        )[: len(order) - len(decision)],
    )  # fmt: skip


def states_of(program):
    try:
        return exact.enumerate_states(program)
    except InfeasibleError:
        return None


def rows_without_state(program, theta):
    try:
        exact.map_state(program, theta)
    except InfeasibleError as error:
        return error.rows
    return ()


@given(programs(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=100)
def test_all_of_it_agrees_with_enumeration(program, seed):
    diagram, states = exact.Diagram(program), states_of(program)
    theta = random_theta(program, 3, seed=seed)
    if states is None:
        assert diagram.num_states == 0
        for ask in (diagram.map, diagram.log_partition, diagram.marginals, lambda rows: diagram.sample(rows, 2)):
            with pytest.raises(InfeasibleError):
                ask(theta)
        assert diagram.solve(theta).status.tolist() == [Status.INFEASIBLE] * 3
        return
    assert diagram.num_states == len(states)
    torch.testing.assert_close(diagram.map(theta), exact.map_state(program, theta), rtol=0, atol=0)
    partition, means = (
        Enumeration(program, 2**30).log_partition(theta, 0.7),
        Enumeration(program, 2**30).marginals(theta, 0.7),
    )
    torch.testing.assert_close(diagram.log_partition(theta, 0.7), partition, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(diagram.marginals(theta, 0.7), means, rtol=1e-11, atol=1e-11)
    assert program.contains(diagram.sample(theta, 5)).all()


@given(programs(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=100)
def test_forbidden_entries_leave_the_other_states(program, seed):
    if states_of(program) is None:
        return
    generator = torch.Generator().manual_seed(seed)
    theta = random_theta(program, 4, seed=seed)
    may = torch.as_tensor(program.box[0] == 0)
    theta = theta.masked_fill((torch.rand(theta.shape, generator=generator) < 0.3) & may, -torch.inf)
    diagram = exact.Diagram(program)
    empty = rows_without_state(program, theta)
    if empty:
        solutions = diagram.solve(theta)
        assert (solutions.status == Status.INFEASIBLE).nonzero().flatten().tolist() == list(empty)
        assert solutions.z[list(empty)].isnan().all()
        for ask in (diagram.map, diagram.log_partition, diagram.marginals, lambda rows: diagram.sample(rows, 2)):
            with pytest.raises(InfeasibleError) as failure:
                ask(theta)
            assert failure.value.rows == empty
        return
    assert torch.equal(diagram.map(theta), exact.map_state(program, theta))
    theta.requires_grad_()
    partition, means = diagram.log_partition(theta), diagram.marginals(theta)
    torch.testing.assert_close(partition, Enumeration(program, 2**30).log_partition(theta), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(means, Enumeration(program, 2**30).marginals(theta), rtol=1e-11, atol=1e-11)
    (slope,) = torch.autograd.grad(partition.sum(), theta)
    torch.testing.assert_close(slope, means.detach(), rtol=1e-11, atol=1e-11)
    (curvature,) = torch.autograd.grad(means.square().sum(), theta)
    (expected,) = torch.autograd.grad(Enumeration(program, 2**30).marginals(theta).square().sum(), theta)
    torch.testing.assert_close(curvature, expected, rtol=1e-9, atol=1e-11)
    assert not ((diagram.sample(theta, 9) != 0) & theta.isneginf()).any()


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_problems_of_many_classes(problem):
    diagram, theta = exact.Diagram(problem), random_theta(problem, 2, 3)
    assert diagram.num_states == len(exact.enumerate_states(problem))
    assert torch.equal(diagram.map(theta), exact.map_state(problem, theta))
    for temperature in (1.0, 0.3):
        partition, means = (
            ask(theta, temperature)
            for ask in (Enumeration(problem, 2**30).log_partition, Enumeration(problem, 2**30).marginals)
        )
        torch.testing.assert_close(diagram.log_partition(theta, temperature), partition, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(diagram.marginals(theta, temperature), means, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_derivatives_are_finite_differences(problem):
    diagram, theta = exact.Diagram(problem), random_theta(problem, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: diagram.log_partition(t, 0.8), theta)
    assert torch.autograd.gradcheck(lambda t: diagram.marginals(t, 0.8), theta)
    assert torch.autograd.gradgradcheck(lambda t: diagram.log_partition(t, 0.8), theta, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda t: diagram.marginals(t, 0.8), theta, fast_mode=True)


def test_derivatives_at_zero_where_every_entry_is_at_the_kink_of_its_shift():
    theta = torch.zeros(2, 5, dtype=torch.float64, requires_grad=True)
    diagram = exact.Diagram(KNAPSACK)
    (slope,) = torch.autograd.grad(diagram.log_partition(theta).sum(), theta)
    torch.testing.assert_close(slope, exact.enumerate_states(KNAPSACK).mean(dim=0).expand(2, -1))
    assert torch.autograd.gradcheck(diagram.marginals, theta)


def test_samples_pass_a_chi_square():
    diagram, states = exact.Diagram(KNAPSACK), exact.enumerate_states(KNAPSACK)
    theta, draws = random_theta(KNAPSACK, 2), 20_000
    z = diagram.sample(theta, draws, 1.5, generator=torch.Generator().manual_seed(3))
    assert z.shape == (draws, 2, 5)
    chances = exact.probabilities(KNAPSACK, theta, 1.5)
    for row in range(2):
        counts = torch.tensor([float((z[:, row] == state).all(dim=1).sum()) for state in states])
        assert counts.sum() == draws
        statistic = ((counts - draws * chances[row]).square() / (draws * chances[row])).sum()
        assert statistic < chi2.ppf(0.999, len(states) - 1)


def test_samples_of_two_rows_are_independent():
    diagram = exact.Diagram(KSubset(2, 1))
    z = diagram.sample(torch.zeros(2, 2), 10_000, generator=torch.Generator().manual_seed(0))[:, :, 0]
    assert abs(float(torch.corrcoef(z.T)[0, 1])) < 0.04


def test_a_generator_s_state_decides_the_samples_whatever_is_taken_together(monkeypatch):
    theta = random_theta(KNAPSACK, 7)
    first, second = (
        exact.Diagram(KNAPSACK).sample(theta, 50, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, second)
    monkeypatch.setattr(_chunks, "_TOGETHER", 1)
    assert torch.equal(first, exact.Diagram(KNAPSACK).sample(theta, 50, generator=torch.Generator().manual_seed(1)))


def test_results_do_not_depend_on_the_rows_taken_together(monkeypatch):
    theta = random_theta(KNAPSACK, 7).requires_grad_()
    diagram = exact.Diagram(KNAPSACK)

    def everything():
        partition, means = diagram.log_partition(theta), diagram.marginals(theta)
        slopes = torch.autograd.grad((partition * partition).sum() + means.pow(3).sum(), theta)
        return diagram.map(theta), partition, means, *slopes

    together = everything()
    monkeypatch.setattr(_chunks, "_TOGETHER", 1)
    diagram.max_bytes = 3 * diagram._row_bytes
    assert all(torch.equal(one, other) for one, other in zip(together, everything(), strict=True))


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e3, 1e9, 1e290, 1e307])
def test_magnitudes(scale):
    theta = random_theta(KNAPSACK, 8)
    diagram = exact.Diagram(KNAPSACK)
    assert torch.equal(diagram.map(theta * scale), diagram.map(theta))
    if scale <= 1e9:
        scaled = theta * scale
        torch.testing.assert_close(
            diagram.log_partition(scaled), Enumeration(KNAPSACK, 2**30).log_partition(scaled), rtol=1e-12, atol=1e-12
        )
        torch.testing.assert_close(
            diagram.marginals(scaled), Enumeration(KNAPSACK, 2**30).marginals(scaled), rtol=1e-9, atol=1e-9
        )
    if scale == 1e9:
        assert torch.equal(diagram.marginals(theta * scale), diagram.map(theta))


def test_tiny_differences_beside_huge_entries_keep_their_digits():
    """Σ θ is 1e9 + 1e-6, of which float64 holds the last part to seven digits; the chances hang on it alone."""
    theta = torch.tensor([1e9, 1e-6, 0.0], dtype=torch.float64)
    problem = IntegerProgram(A_eq=[[0, 1, 1]], b_eq=[1])
    odds = exact.Diagram(problem).marginals(theta, 1e-6)
    torch.testing.assert_close(odds[1], torch.sigmoid(torch.tensor(1.0, dtype=torch.float64)), rtol=1e-12, atol=0)


def test_a_temperature_that_is_too_small_is_refused():
    diagram = exact.Diagram(KNAPSACK)
    for temperature in (1e-300, 0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            diagram.log_partition(1e9 * random_theta(KNAPSACK), temperature)


def test_ties_go_to_the_first_entries():
    theta = torch.zeros(3, 7)
    theta[1, 5] = 1
    theta[2] = torch.tensor([0.0, 0, 1, 1, 1, 1, 0])
    expected = [[1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1, 0], [0, 0, 1, 1, 1, 0, 0]]
    assert exact.Diagram(KSubset(7, 3)).map(theta).tolist() == expected
    assert torch.equal(exact.Diagram(Assignment(4)).map(torch.zeros(4, 4)), torch.eye(4))


def test_counts_of_states_are_exact_whatever_their_size():
    assert exact.Diagram(KSubset(100, 10)).num_states == math.comb(100, 10)
    assert exact.Diagram(Assignment(8)).num_states == math.factorial(8)
    assert exact.Diagram(KSubset(200, 100)).num_states == math.comb(200, 100)
    free = exact.Diagram(IntegerProgram(A_ub=[[1.0] + [0.0] * 299], b_ub=[0]))
    assert free.num_states == 2**299
    assert free.num_nodes == 301


def test_variables_in_no_row_are_one_node_each():
    program = IntegerProgram(A_ub=[[0, 1, 0, 1, 0]], b_ub=[1])
    diagram, theta = exact.Diagram(program), torch.tensor([[1.0, 2, -1, 3, 0]])
    assert diagram.map(theta).tolist() == [[1, 0, 0, 1, 1]]
    torch.testing.assert_close(diagram.marginals(theta)[:, [0, 2, 4]], torch.sigmoid(theta[:, [0, 2, 4]]))


def test_large_diagrams_agree_with_what_is_known_otherwise():
    theta = random_theta(KSubset(60, 9), 4)
    diagram = exact.Diagram(KSubset(60, 9))
    torch.testing.assert_close(diagram.marginals(theta), exact.marginals(KSubset(60, 9), theta), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(diagram.log_partition(theta), exact.log_partition(KSubset(60, 9), theta))
    # the permanent of a matrix, by Ryser's formula
    weights = random_theta(Assignment(6), seed=2)
    subsets = itertools.chain.from_iterable(itertools.combinations(range(6), size) for size in range(1, 7))
    matrix = weights.exp()
    permanent = sum((-1) ** (6 - len(chosen)) * matrix[:, list(chosen)].sum(dim=1).prod() for chosen in subsets)
    torch.testing.assert_close(exact.Diagram(Assignment(6)).log_partition(weights), permanent.log())


@pytest.mark.parametrize(
    ("row", "side", "count"),
    [
        ([0.1, 0.2, 0.3, 0.7], 0.6, 8),  # 0.1 + 0.2 + 0.3 exceeds 0.6 by rounding alone
        ([0.1, 0.2, 0.3, 0.7], 0.59, 7),
        ([1 / 3, 1 / 3, 1 / 3], 1.0, 8),
        ([1e-9, 1.0, 1.0], 1.0, 6),  # 1 + 1e-9 is within what rows of a program may be missed by
        ([1e15, 1e15 + 1, 1.0], 1e15, 3),
        ([0.123456789012345, 0.3, math.pi], 3.5, 7),
    ],
)  # fmt: skip
def test_rows_mean_what_the_program_says(row, side, count):
    program = IntegerProgram(A_ub=[row], b_ub=[side])
    assert exact.Diagram(program).num_states == len(exact.enumerate_states(program)) == count


@given(st.integers(1, 9), st.integers(1, 2), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_weights_of_all_digits(items, num_rows, seed):
    weights = np.random.default_rng(seed).random((num_rows, items))
    problem = Knapsack(weights, weights.sum(axis=1) * 0.4)
    diagram, theta = exact.Diagram(problem), random_theta(problem, 3, seed=seed)
    assert diagram.num_states == len(exact.enumerate_states(problem))
    assert torch.equal(diagram.map(theta), exact.map_state(problem, theta))


@pytest.mark.parametrize(("name", "value"), [("_SUMS", 1), ("_SUMS", 3), ("_KEYS", 2), ("_KEYS", 50), ("_ROUNDS", ())])
def test_limits_inside_the_compiler_change_no_answer(monkeypatch, name, value):
    """Sums of a row too many to tell activities apart by them, states too many for one number, one round alone."""
    monkeypatch.setattr(_compiler, name, value)
    _diagram._compiled.clear()
    for seed in range(15):
        generator = np.random.default_rng(seed)
        matrix = generator.integers(-4, 9, (3, 7))
        low = matrix.sum(axis=1) // 3 - 4
        problem = IntegerProgram.from_rows(matrix, low, low + generator.integers(0, 9, 3))
        states = states_of(problem)
        assert exact.Diagram(problem).num_states == (0 if states is None else len(states))
    for problem in PROBLEMS:
        diagram, theta = exact.Diagram(problem), random_theta(problem, 3)
        assert diagram.num_states == len(exact.enumerate_states(problem))
        assert torch.equal(diagram.map(theta), exact.map_state(problem, theta))
    _diagram._compiled.clear()


def test_an_order_of_its_own_keeps_few_rows_open():
    """Three variables in each of 40 rows, all first ones before all second ones: 2^40 states in the order given."""
    program = IntegerProgram(A_ub=np.tile(np.eye(40), 3), b_ub=np.full(40, 2.0))
    diagram = exact.Diagram(program)
    assert diagram.num_states == 7**40
    assert diagram.num_nodes < 500
    assert sorted(diagram.nodes.order.tolist()) == list(range(120))


def test_what_a_budget_refuses_says_how_far_it_came():
    generator = np.random.default_rng(0)
    weights = generator.integers(1, 1000, (5, 40))
    problem = Knapsack(weights, weights.sum(axis=1) // 2)
    with pytest.raises(UnsupportedProblemError, match=r"5×40 array.* of 10,000 nodes: .* nodes in \d+ of 40 layers"):
        exact.Diagram(problem, max_nodes=10_000)
    with pytest.raises(UnsupportedProblemError, match=r"after 1e-09 seconds.*by max_seconds="):
        exact.Diagram(problem, max_seconds=1e-9)
    for wrong in ({"max_nodes": 0}, {"max_nodes": 2**31}, {"max_seconds": 0}, {"max_seconds": math.nan}):
        with pytest.raises(ValueError, match="must be"):
            exact.Diagram(KNAPSACK, **wrong)


def test_what_is_no_program_of_0_1_variables_is_refused():
    for problem, reason in (
        (
            IntegerProgram(A_ub=[[1, 1]], b_ub=[1], integrality=[1, 0]),
            "variable 1 .* is a continuous one between 0 and",
        ),
        (IntegerProgram(A_ub=[[1, 1]], b_ub=[1], upper=[1, 3]), "variable 1 .* is an integer one between 0 and 3"),
        (Ranking(4), "an integer one between 0 and 3"),
        (GridShortestPath(3, 3), "right for θ ≤ 0 only"),
        (ShortestPath(3, [(0, 1), (1, 0), (1, 2)], 0, 2), "right for θ ≤ 0 only"),
        (IntegerProgram(A_ub=[[1e300, 1.0, 1e-300]], b_ub=[1]), "coefficients of row 0"),
        (
            IntegerProgram(A_ub=[[1, 1, 1]], b_ub=[2], decision=[0], fixed=[1.7e308, 1.7e308]),
            "utilities of variables that θ doesn't price overflow .* scale `fixed` down",
        ),
    ):
        with pytest.raises(UnsupportedProblemError, match=reason):
            exact.Diagram(problem)


def test_a_row_that_cannot_be_met_leaves_no_state():
    diagram = exact.Diagram(IntegerProgram(A_eq=[[2, 4, 6]], b_eq=[3]))
    assert (diagram.num_states, diagram.num_nodes) == (0, 0)
    with pytest.raises(InfeasibleError):
        diagram.map(torch.zeros(3))


def test_shapes_dtypes_and_what_is_not_finite():
    diagram = exact.Diagram(Assignment(2, 3))
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        theta = random_theta(Assignment(2, 3), 2, 1).to(dtype)
        for answer in (diagram.map(theta), diagram.marginals(theta), diagram.sample(theta, 4)[0]):
            assert (answer.shape, answer.dtype) == (theta.shape, dtype)
        assert (diagram.log_partition(theta).shape, diagram.log_partition(theta).dtype) == ((2, 1), dtype)
    empty = torch.empty(0, 2, 3)
    assert diagram.map(empty).shape == diagram.marginals(empty).shape == (0, 2, 3)
    assert diagram.log_partition(empty).shape == (0,)
    assert diagram.sample(empty, 2).shape == (2, 0, 2, 3)
    for ask in (diagram.map, diagram.log_partition, diagram.marginals, lambda rows: diagram.sample(rows, 1)):
        with pytest.raises(ShapeError):
            ask(torch.zeros(3, 2))
        with pytest.raises(NonFiniteError):
            ask(torch.full((2, 3), torch.nan))


def test_theta_is_not_written_to():
    theta = random_theta(KNAPSACK, 3)
    copy, diagram = theta.clone(), exact.Diagram(KNAPSACK)
    diagram.map(theta), diagram.marginals(theta), diagram.log_partition(theta), diagram.sample(theta, 2)
    assert torch.equal(theta, copy)


def test_what_inference_mode_left_behind_is_fit_for_autograd():
    diagram = exact.Diagram(KNAPSACK)
    with torch.inference_mode():
        diagram.marginals(random_theta(KNAPSACK))
    theta = random_theta(KNAPSACK).requires_grad_()
    diagram.marginals(theta)[0].backward()
    assert theta.grad.abs().sum() > 0


@given(programs(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_numpy_and_torch_find_the_same_bits(program, seed):
    diagram, generator = exact.Diagram(program), np.random.default_rng(seed)
    theta = generator.integers(-2, 3, (program.shape[0], 6)) * 10.0 ** generator.integers(-9, 10, 6)
    theta[generator.random(theta.shape) < 0.2] = -np.inf
    levels, factor = diagram._levels_on(torch.device("cpu")), np.ones(6)
    here = _host_sweep.best(levels, theta, factor)
    there = _sweeps.best(levels, torch.tensor(theta), torch.tensor(factor))
    assert all(np.array_equal(one, other.numpy()) for one, other in zip(here, there, strict=True))


def test_the_same_program_is_compiled_to_the_same_arrays():
    problem = Knapsack(WEIGHTS, WEIGHTS.sum(axis=1) // 2)
    first = exact.Diagram(problem)
    _diagram._compiled.clear()
    second = exact.Diagram(problem)
    assert first.nodes is not second.nodes
    assert all(np.array_equal(one, other) for one, other in zip(first.nodes, second.nodes, strict=True))
    assert not any(array.flags.writeable for array in first.nodes)
    assert repr(first) == f"<Diagram of {problem!r}: {first.num_nodes:,} nodes>"


def test_sweeps_stay_on_the_device_of_theta():
    """A "meta" device has shapes without numbers, and refuses to be mixed with the CPU as any other does."""
    meta = torch.device("meta")
    levels = _sweeps.levels_of(exact.Diagram(KNAPSACK).nodes, meta)
    theta = torch.empty(5, 3, dtype=torch.float64, device=meta)
    z, value = _sweeps.best(levels, theta, theta[0])
    weights = _sweeps.weigh(levels, theta, 1.0)
    (means, leaf), samples = (
        _sweeps.marginals(levels, weights),
        _sweeps.sample(levels, weights, theta.expand(4, -1, -1)),
    )
    shapes = [tuple(each.shape) for each in (z, value, weights.total, means, leaf, samples)]
    assert shapes == [(5, 3), (3,), (3,), (5, 3), (3,), (4, 5, 3)]
    assert {each.device for each in (z, value, weights.total, means, leaf, samples)} == {meta}


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("together", [2**29, 1])
def test_a_cuda_device_gives_what_the_cpu_gives(problem, together, monkeypatch):
    monkeypatch.setattr(_chunks, "_TOGETHER_ON_DEVICE", together)
    diagram, theta = exact.Diagram(problem), random_theta(problem, 9)
    there = theta.cuda().requires_grad_()
    assert torch.equal(diagram.map(there).cpu(), diagram.map(theta))
    assert torch.equal(diagram.map(torch.zeros_like(there)).cpu(), diagram.map(torch.zeros_like(theta)))
    partition, means = diagram.log_partition(there), diagram.marginals(there)
    torch.testing.assert_close(partition.cpu(), diagram.log_partition(theta), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(means.cpu(), diagram.marginals(theta), rtol=1e-11, atol=1e-12)
    (slope,) = torch.autograd.grad(partition.sum() + means.pow(2).sum(), there)
    here = theta.requires_grad_()
    (expected,) = torch.autograd.grad(diagram.log_partition(here).sum() + diagram.marginals(here).pow(2).sum(), here)
    torch.testing.assert_close(slope.cpu(), expected, rtol=1e-10, atol=1e-11)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    samples = [diagram.sample(rows, 20, generator=g) for rows, g in zip((there, here), generators, strict=True)]
    assert torch.equal(samples[0].cpu(), samples[1])
    own = diagram.sample(there, 20, generator=torch.Generator("cuda").manual_seed(3))
    assert own.device.type == "cuda"
    assert problem.contains(own).all()
