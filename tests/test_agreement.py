"""Every solver on every problem that it takes: equal to brute force on small sizes, to each other on middling ones."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mapgrad
from mapgrad import IntegerProgram, Status
from mapgrad.testing import example_problems
from mapgrad.testing._reference import Enumeration

DAG = [(0, 1), (0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (0, 4), (4, 5), (3, 5)]
KNOTTED = [(0, 1), (1, 0), (0, 1), (1, 2), (2, 1), (2, 3), (3, 0), (1, 3), (3, 3)]
PETERSEN = [pair for i in range(5) for pair in ((i, (i + 1) % 5), (i, i + 5), (i + 5, (i + 2) % 5 + 5))]
SMALL = [
    mapgrad.KSubset(7, 3),
    mapgrad.Ranking(4),
    mapgrad.GridShortestPath(3, 3),
    mapgrad.GridShortestPath(3, 4, start=(2, 0), goal=(0, 3), neighbors=4),
    mapgrad.ShortestPath(6, DAG, 0, 5),
    mapgrad.ShortestPath(4, KNOTTED, 0, 3),
    mapgrad.ShortestPath(4, KNOTTED, 3, 2, directed=False),
    mapgrad.Assignment(4),
    mapgrad.Assignment(2, 5),
    mapgrad.Matching(5, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4)]),
    mapgrad.Matching(10, PETERSEN, perfect=True),
    mapgrad.Matching(6, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (3, 5), (1, 0)], cardinality="maximum"),
    mapgrad.SpanningTree(4, KNOTTED),
    mapgrad.Arborescence(4, KNOTTED, 1),
    mapgrad.Knapsack([[5, 4, 3, 7, 2], [1, 6, 4, 2, 3]], [11, 9]),
    mapgrad.TravelingSalesman(5),
    mapgrad.AsymmetricTravelingSalesman(5),
    *(problem for problem in example_problems("scipy.milp") if isinstance(problem, IntegerProgram)),
    # coefficients that floats only come near to: 0.1 + 0.2 + 0.3 exceeds 0.6 by rounding alone, and is allowed
    IntegerProgram(A_ub=[[0.1, 0.2, 0.3, 0.7]], b_ub=[0.6]),
]


def random_edges(num_nodes, count, seed):
    """A ring through all nodes and random edges, parallel ones among them."""
    ring = [(node, (node + 1) % num_nodes) for node in range(num_nodes)]
    pairs = np.random.default_rng(seed).integers(num_nodes, size=(count, 2)).tolist()
    return [*ring, *((u, v) for u, v in pairs if u != v)]


def cover(sets, elements, seed):
    """Sets to choose, such that each element is in one of them."""
    holds = np.random.default_rng(seed).random((elements, sets)) < 0.25
    return IntegerProgram(A_ub=-1.0 * holds[holds.any(1)], b_ub=-np.ones(holds.any(1).sum()))


def packing(items, bins, seed):
    """Items, each in one bin at most, within the bins' capacities: the generalised assignment problem."""
    weights = np.random.default_rng(seed).integers(5, 25, (bins, items))
    loads = np.zeros((bins, items, bins))
    loads[np.arange(bins), :, np.arange(bins)] = weights
    once = np.repeat(np.eye(items)[:, :, None], bins, axis=2)
    return IntegerProgram(
        A_ub=np.concatenate((loads, once)).reshape(bins + items, -1),
        b_ub=[*(weights.sum(1) // (2 * bins)), *[1] * items],
        shape=(items, bins),
    )


WEIGHTS = np.random.default_rng(3).integers(3, 30, (2, 30))
MIDDLING = [
    mapgrad.KSubset(60, 12),
    mapgrad.Ranking(9),
    mapgrad.GridShortestPath(12, 12),
    mapgrad.ShortestPath(30, random_edges(30, 90, 0), 0, 17),
    mapgrad.ShortestPath(30, random_edges(30, 90, 1), 20, 5, directed=False),
    mapgrad.Assignment(10),
    mapgrad.Assignment(8, 12),
    mapgrad.Matching(20, random_edges(20, 50, 2)),
    mapgrad.Matching(20, random_edges(20, 50, 2), perfect=True),
    mapgrad.Matching(21, random_edges(21, 20, 6)[1:], cardinality="maximum"),
    mapgrad.SpanningTree(30, random_edges(30, 50, 3)),
    mapgrad.Arborescence(20, random_edges(20, 40, 7), 5),
    mapgrad.Knapsack(WEIGHTS, WEIGHTS.sum(1) // 3),
    mapgrad.TravelingSalesman(8),
    mapgrad.AsymmetricTravelingSalesman(7),
    cover(30, 40, 4),
    packing(12, 4, 5),
]


def is_compiled(problem):
    """Whether a program fits into a diagram, which isn't known before it is compiled."""
    try:
        mapgrad.get_solver("diagram", problem)
    except mapgrad.UnsupportedProblemError:
        return False
    return True


def solvers(problem):
    """The full names of our solvers that take a problem, dedicated ones first."""
    infos = [info for info in mapgrad.list_solvers(problem) if info.distribution == "mapgrad" and info.status == "ok"]
    infos = [info for info in infos if info.name != "diagram" or is_compiled(problem)]
    infos.sort(key=lambda info: IntegerProgram in info.accepts)
    return [info.name if "." in info.name else f"{info.plugin}.{info.name}" for info in infos]


def rows(problem, count, seed=0):
    """Normal θ, θ of few values, negative and sparse ones, constants and zeros; three in four at a scale of its own."""
    generator = np.random.default_rng(seed)
    theta = np.empty((count, *problem.shape))
    for number in range(count):
        normal, few = generator.normal(size=problem.shape), generator.integers(-2, 3, problem.shape)
        sparse = np.where(generator.random(problem.shape) < 0.3, normal, 0)
        constant = np.full(problem.shape, generator.integers(-1, 2))
        kinds = (normal, few, -np.abs(normal), sparse, -np.abs(few), constant)
        theta[number] = kinds[number % len(kinds)]
        if number % 4:
            theta[number] *= 10 ** generator.uniform(-9, 9)
    return torch.tensor(theta)


def masked(theta, problem):
    """Rows in which none, few, most or all entries are forbidden that may be."""
    generator = torch.Generator().manual_seed(7)
    shares = torch.tensor([0.1, 0.3, 0.0, 0.8, 1.0]).repeat(len(theta))[: len(theta)]
    chosen = torch.rand(theta.shape, generator=generator) < shares.reshape(-1, *[1] * len(problem.shape))
    return theta.masked_fill(chosen & torch.as_tensor(problem.box[0] == 0), -torch.inf)


def require_best(problem, name, theta, best):
    """Each answer is a state, called optimal, and worth `best` within 1e-9 of the largest utility."""
    with mapgrad.get_solver(name, problem) as solver:
        solutions = solver.solve(theta)
    require_best_answers(problem, name, theta, solutions, best)


def require_best_answers(problem, name, theta, solutions, best):
    assert solutions.status.tolist() == [Status.OPTIMAL] * len(theta)
    assert problem.contains(solutions.z).all()
    assert not solutions.z[theta.isneginf()].any()
    prices = problem.domain.clip(theta).nan_to_num(neginf=0.0).flatten(1)
    fixed = np.abs(problem.fixed).max(initial=0) if isinstance(problem, IntegerProgram) else 0
    scale = prices.abs().amax(1).clamp(min=max(fixed, 1e-300))
    reported = {"objective": solutions.objective, "bound": solutions.bound}
    if not fixed:
        reported["worth"] = (prices * solutions.z.flatten(1)).sum(1)
    for what, values in reported.items():
        off = ((values - best) / scale).abs()
        row = int(off.argmax())
        assert off[row] <= 1e-9, f"{name}: {what} {values[row]}, but {best[row]} is best; θ = {theta[row].tolist()}"


@pytest.mark.parametrize(("problem", "name"), [(p, name) for p in SMALL for name in solvers(p)], ids=str)
def test_brute_force_agrees(problem, name):
    theta = rows(problem, 24)[:: 5 if name == "pulp.cbc" else 1]
    require_best(problem, name, theta, Enumeration(problem).values(problem.domain.clip(theta)).amax(1))


@pytest.mark.parametrize(("problem", "name"), [(p, name) for p in SMALL for name in solvers(p)], ids=str)
def test_brute_force_agrees_where_entries_are_forbidden(problem, name):
    theta = masked(rows(problem, 20, seed=2), problem)[:: 3 if name == "pulp.cbc" else 1]
    states = Enumeration(problem)
    values = states.values(problem.domain.clip(theta).nan_to_num(neginf=0.0))
    for row, entries in enumerate(theta.isneginf().flatten(1)):
        values[row, states.states.flatten(1)[:, entries].any(dim=1)] = -torch.inf
    best = values.amax(1)
    has_state = best > -torch.inf
    refused = ()
    with mapgrad.get_solver(name, problem) as solver:
        try:
            solutions = solver.solve(theta)
        except mapgrad.InfeasibleError as error:
            solutions, refused = error.solutions, error.rows
    assert list(refused) == (~has_state).nonzero().flatten().tolist()
    assert (solutions.status == Status.INFEASIBLE).equal(~has_state)
    assert solutions.z[~has_state].isnan().all()
    if theta.isinf().any():
        assert solutions.forbidden.equal(theta.isneginf())
    parts = solutions.z, solutions.status, solutions.objective, solutions.bound
    good = mapgrad.Solutions(*(part[has_state] for part in parts))
    require_best_answers(problem, name, theta[has_state], good, best[has_state])


@pytest.mark.parametrize("problem", MIDDLING, ids=lambda problem: type(problem).__name__)
def test_solvers_agree_where_brute_force_ends(problem):
    theta = rows(problem, 24, seed=1)
    first, *others = solvers(problem)
    best = mapgrad.get_solver(first, problem).solve(theta).objective
    for name in others:
        part = slice(None, None, 5 if name in ENGINES else 1)
        require_best(problem, name, theta[part], best[part])


ENGINES = solvers(IntegerProgram(lower=[0, 0]))


@st.composite
def programs(draw, *, prices_continuous=False):
    """Programs of up to five variables, many of them without a point; some variables may be continuous or unbounded."""
    size = draw(st.integers(1, 5))
    priced = draw(st.integers(1, size))

    def numbers(low, high, count=size):
        return np.array(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)), dtype=np.float64)

    order = draw(st.permutations(range(size)))
    less, equal = (draw(st.integers(0, most)) for most in (3, 1))
    integrality, lower, widths = numbers(0, 1), numbers(-3, 1), numbers(0, 4)
    if not prices_continuous:
        integrality[order[:priced]] = 1
    widths[(integrality == 0) & (widths == 4)] = np.inf
    factor = draw(st.sampled_from([1, 0.25, 1.5]))
    return IntegerProgram(
        A_ub=factor * numbers(-4, 4, less * size).reshape(less, size),
        b_ub=factor * numbers(-6, 9, less),
        A_eq=factor * numbers(-4, 4, equal * size).reshape(equal, size),
        b_eq=factor * numbers(-3, 6, equal),
        lower=lower,
        upper=lower + widths,
        integrality=integrality,
        decision=order[:priced],
        fixed=numbers(-4, 4, size - priced) / 8,
    )


def endings(name, program, theta):
    """How each row ends, and the objectives."""
    with mapgrad.get_solver(name, program) as solver:
        try:
            solutions = solver.solve(theta)
        except mapgrad.RowsError as error:
            solutions = error.solutions
    return [Status(status).name for status in solutions.status.tolist()], solutions.objective


# the examples are programs on which one engine or another errs, and its plugin has to see to it
@settings(max_examples=30, deadline=None, derandomize=True)
@given(programs(), st.integers(0, 1000))
@example(IntegerProgram(A_eq=[[0]], b_eq=[0], upper=[0]), 0)
@example(IntegerProgram(A_eq=[[1, 2, 2]], b_eq=[1], upper=[0, 0, 2]), 0)
@example(
    IntegerProgram(
        A_ub=[[0, -1, -1]],
        b_ub=[0],
        lower=[0, 0, -1],
        upper=[0, 1, np.inf],
        integrality=[1, 1, 0],
        decision=[0, 1],
        fixed=[0.125],
    ),
    0,
)
def test_brute_force_agrees_on_random_programs(program, seed):
    theta = rows(program, 4, seed)
    try:
        best, ending = Enumeration(program).values(theta).amax(1), Status.OPTIMAL
    except mapgrad.InfeasibleError:
        ending = Status.INFEASIBLE
    except mapgrad.ProblemError:  # what θ doesn't price is worth more than any number
        ending = Status.UNBOUNDED
    for name in solvers(program):
        if ending is Status.OPTIMAL:
            require_best(program, name, theta, best)
        else:
            assert endings(name, program, theta)[0] == [ending.name] * 4, name


@settings(max_examples=25, deadline=None, derandomize=True)
@given(programs(prices_continuous=True), st.integers(0, 1000))
@example(
    IntegerProgram(
        A_ub=[[4, -4, 1], [-2, -4, 0], [-1, 4, -4]],
        b_ub=[0, 1, 6],
        A_eq=[[-1, 4, -2]],
        b_eq=[1],
        lower=[1, 0, 0],
        upper=[1, 3, np.inf],
        integrality=[1, 0, 0],
    ),
    0,
)
def test_solvers_agree_on_random_mixed_programs(program, seed):
    theta = rows(program, 4, seed)
    first, *others = solvers(program)
    expected, best = endings(first, program, theta)
    scale = theta.abs().amax(1).clamp(min=max(np.abs(program.fixed).max(initial=0), 1e-300))
    for name in others:
        found, objective = endings(name, program, theta)
        assert found == expected, (first, name)
        assert (((objective - best) / scale).abs().nan_to_num() <= 1e-9).all(), (first, name)


OPEN = IntegerProgram(A_ub=[[1, -2]], b_ub=[1], upper=[np.inf, np.inf])  # contains the ray (2, 1)


@pytest.mark.parametrize("name", solvers(OPEN))
def test_rows_without_a_best_answer_are_named(name):
    theta = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [2.0, -3.0], [1.0, -2.0], [0.0, 0.0], [-1.0, 0.5]])
    with pytest.raises(mapgrad.UnboundedError) as refused:
        mapgrad.get_solver(name, OPEN)(theta)
    assert refused.value.rows == (1, 2, 5)
    assert refused.value.solutions.objective[[0, 3, 4]].tolist() == [0, 1, 0]
