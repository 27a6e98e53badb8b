"""θ = −inf forbids an entry: z is 0 there, whoever solves, and a row that can't do without is infeasible."""

import heapq

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import InstanceSolver, IntegerProgram, KSubset, Status, Traits
from mapgrad.testing import BruteForce
from mapgrad.testing._reference import Enumeration

INF = torch.inf
SUBSET = KSubset(5, 2)


def masked_rows(problem, count, share=0.3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(count, *problem.shape, generator=generator, dtype=dtype)
    return theta.masked_fill(torch.rand(theta.shape, generator=generator) < share, -INF)


def best_values(problem, theta):
    """What the best state is worth that holds no forbidden entry, −inf without one."""
    states = problem.states().flatten(1)
    finite = problem.domain.clip(theta).nan_to_num(neginf=0.0).flatten(1)
    values = finite.double() @ states.T
    for row, entries in enumerate(theta.isneginf().flatten(1)):
        values[row, states[:, entries].any(dim=1)] = -INF
    return values.amax(1)


def endings(solver, theta, problems=None):
    """The solutions, and the rows that were refused."""
    try:
        return solver.solve(theta, problems), ()
    except mapgrad.RowsError as error:
        return error.solutions, error.rows


def installed(name, problem):
    """A solver, where its package is."""
    try:
        return mapgrad.get_solver(name, problem)
    except mapgrad.MissingDependencyError as error:
        pytest.skip(str(error))


class Honest(InstanceSolver):
    """Knows nothing of masks, and keeps the rows that it was given."""

    def __init__(self, problem):
        super().__init__(problem)
        self.states = problem.state_rows().reshape(-1, np.prod(problem.shape))
        self.rows = []

    def solve(self, state, theta, request):
        assert np.isfinite(theta).all()
        assert request.forbidden is None
        self.rows.append(theta)
        return self.states[(self.states @ theta.ravel()).argmax()].reshape(theta.shape)


def test_good_rows_beside_infeasible_ones():
    theta = torch.tensor(
        [[1.0, 2, 3, -INF, 4], [-INF, -INF, -INF, -INF, 9], [-5.0, -6, -INF, -INF, -INF], [5, 4, 3, 2, 1]]
    )
    for name in ("topk", "highs", BruteForce, Honest):
        solver = mapgrad.get_solver(name, SUBSET)
        with pytest.raises(
            mapgrad.InfeasibleError, match=r"row 1 \(1 of 4\).*which entries θ = −inf forbids"
        ) as refused:
            solver(theta)
        assert refused.value.rows == (1,)
        found = refused.value.solutions
        assert found.z[[0, 2, 3]].tolist() == [[0, 0, 1, 0, 1], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0]]
        assert found.z[1].isnan().all()
        assert found.status.tolist() == [1, Status.INFEASIBLE, 1, 1]
        assert found.objective[[0, 2, 3]].tolist() == [7, -11, 9]
        assert found.bound[[0, 2, 3]].tolist() == [7, -11, 9]
        assert found.objective[1].isnan()
        assert found.forbidden.equal(theta.isneginf())


def test_without_a_mask_nothing_is_forbidden():
    assert mapgrad.get_solver("topk", SUBSET).solve(torch.randn(2, 5)).forbidden is None


def test_batch_dimensions():
    theta = masked_rows(SUBSET, 6, share=0.2).reshape(2, 3, 5)
    solutions = mapgrad.get_solver("highs", SUBSET).solve(theta)
    assert solutions.forbidden.equal(theta.isneginf())
    torch.testing.assert_close(solutions.objective.flatten(), best_values(SUBSET, theta.reshape(6, 5)))
    alone = mapgrad.get_solver("highs", SUBSET).solve(theta[0, 1])
    assert alone.forbidden.equal(theta[0, 1].isneginf())
    assert alone.z.equal(solutions.z[0, 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["topk", "highs", BruteForce, Honest])
def test_dtypes(name, dtype):
    theta = masked_rows(SUBSET, 20, dtype=dtype)
    best = best_values(SUBSET, theta)
    solutions, refused = endings(mapgrad.get_solver(name, SUBSET), theta)
    assert solutions.z.dtype == dtype
    assert list(refused) == best.isneginf().nonzero().flatten().tolist()
    good = best.isfinite()
    torch.testing.assert_close(solutions.objective[good], best[good], rtol=0, atol=1e-6)


def test_an_entry_that_its_lower_bound_keeps_from_0_is_named():
    program = IntegerProgram(A_ub=[[1] * 4], b_ub=[9], lower=[0, 0, 0, 2], upper=3, shape=(2, 2))
    theta = torch.zeros(3, 2, 2)
    theta[1:, 1, 1] = -INF
    solver = mapgrad.get_solver("highs", program)
    for solve in (solver, mapgrad.MAPLayer(solver), lambda rows: solver(rows, problems=[program] * 3)):
        with pytest.raises(mapgrad.NonFiniteError, match=r"θ\[1, 1\] is −inf, but its lower bound is 2$") as refused:
            solve(theta)
        assert refused.value.rows == (1, 2)


@pytest.mark.parametrize("value", [torch.nan, INF, -INF])
def test_what_forbids_nothing_is_refused_by_row(value):
    program = IntegerProgram(A_ub=[[1, 1, 1]], b_ub=[3], lower=[0, 1, -2], upper=3)
    theta = torch.zeros(2, 3, 3)
    theta[0, 1, 1] = theta[1, 2, 2] = value
    theta[:, 0, 0] = -INF
    for solve in (mapgrad.get_solver("highs", program), mapgrad.MAPLayer(mapgrad.get_solver("highs", program))):
        named = (
            r"rows 1 \(index \(0, 1\)\), 5 \(index \(1, 2\)\) \(2 of 6\), .* only −inf is allowed .* lower bound is 0"
        )
        with pytest.raises(mapgrad.NonFiniteError, match=named) as refused:
            solve(theta)
        assert refused.value.rows == (1, 5)
    with pytest.raises(mapgrad.NonFiniteError, match=r"row 1 \(1 of 2\)") as refused:
        mapgrad.get_solver("highs", None)(theta[0, :2], problems=[program, program])
    assert refused.value.rows == (1,)
    assert mapgrad.get_solver("highs", program)(theta[:, 0]).tolist()[0][0] == 0


def test_functions_get_finite_numbers():
    given = []

    def largest_two(theta):
        given.append(theta)
        return torch.zeros_like(theta).scatter_(1, theta.topk(2).indices, 1)

    theta = torch.tensor([[1.0, -INF, 3, 2, -INF], [-INF] * 4 + [1], [1, 2, 3, 4, 5]])
    for solver in (mapgrad.Solver.of_function(largest_two), mapgrad.get_solver(largest_two, SUBSET)):
        solutions, refused = endings(solver, theta)
        assert refused == (1,)
        assert solutions.z[[0, 2]].tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
        assert given[-1].tolist() == [[1, -13, 3, 2, -13], [-3] * 4 + [1], [1, 2, 3, 4, 5]]
        assert mapgrad.MAPLayer(solver).eval()(theta[:1]).tolist() == [[0, 0, 1, 1, 0]]


def test_ranges_of_variables_count_in_what_a_solver_gets():
    program = IntegerProgram(A_ub=[[1, 1, 1]], b_ub=[6], upper=[2, 5, 4])
    solver = mapgrad.get_solver(Honest, program, merge=False)
    z = solver(torch.tensor([[0.75, -0.25, -INF]]))
    assert z.tolist() == [[2, 0, 0]]
    assert solver.at_work().plugin.rows[0].tolist() == [0.75, -0.25, -(2 * (2 * 0.75 + 5 * 0.25) + 1)]


def test_equal_rows_are_solved_once_and_known_ones_not_at_all():
    theta = torch.tensor([[1.0, -INF, 2, 3, 4]]).repeat(4, 1)
    theta[3, 0] = 9
    for name in (Honest, "highs"):
        solver = mapgrad.get_solver(name, SUBSET)
        solutions = solver.solve(theta)
        assert solutions.stats["equal"] == 2
        assert solutions.z[0].tolist() == [0, 0, 0, 1, 1]
        layer = mapgrad.MAPLayer(mapgrad.get_solver(name, SUBSET), mapgrad.Blackbox(1.0))
        leaf = theta.clone().requires_grad_()
        (layer(leaf) * torch.tensor([[0.0], [1.0], [0.0], [0.0]])).sum().backward()
        assert layer.stats["known"] == 3  # and in the second one the step lowers what is chosen


def test_problems_of_their_own():
    problems = [SUBSET, KSubset(4, 1), KSubset(4, 4)]
    rows = [torch.tensor([1.0, 2, -INF, 3, 4]), torch.tensor([-INF, -INF, 1.0, 2]), torch.tensor([1.0, 2, 3, -INF])]
    solver = mapgrad.get_solver("highs", None)
    solutions, refused = endings(solver, rows, problems)
    assert refused == (2,)
    assert [z.tolist() for z in solutions.z[:2]] == [[0, 0, 0, 1, 1], [0, 0, 0, 1]]
    assert [entries.tolist() for entries in solutions.forbidden] == [row.isneginf().tolist() for row in rows]
    assert solutions.objective[:2].tolist() == [7, 2]
    theta = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, -INF]])
    stacked = solver.solve(theta, [KSubset(4, 1), KSubset(4, 2)])
    assert stacked.forbidden.equal(theta.isneginf())
    assert stacked.z.tolist() == [[0, 0, 0, 1], [0, 1, 1, 0]]
    assert solver.solve(theta[:1], [KSubset(4, 1)]).forbidden is None


@pytest.mark.parametrize(("name", "workers"), [("highs", 2), ("highs", "processes:2"), ("scipy.assignment", 2)])
def test_workers(name, workers):
    problem = mapgrad.Assignment(4)
    theta = masked_rows(problem, 30)
    expected, refused = endings(mapgrad.get_solver(name, problem), theta)
    with mapgrad.get_solver(name, problem, workers=workers) as solver:
        found, also = endings(solver, theta)
    assert 0 < len(refused) < 30
    assert also == refused
    assert torch.equal(found.z.nan_to_num(-1), expected.z.nan_to_num(-1))


def test_walls_in_a_grid():
    problem = mapgrad.GridShortestPath(9, 11, neighbors=4)
    generator = torch.Generator().manual_seed(1)
    theta = -torch.rand(24, 9, 11, generator=generator, dtype=torch.float64)
    walls = torch.rand(24, 9, 11, generator=generator) < 0.25
    walls[:, 0, 0] = walls[:, -1, -1] = False
    walls[20, 0, 0] = walls[21, -1, -1] = walls[22, :, 4] = walls[23] = True  # start, goal, all across, everything
    theta[walls] = -INF
    costs = torch.tensor([cheapest(-row.numpy()) for row in theta])
    assert 6 <= costs.isfinite().sum() <= 18
    for name in ("networkx.shortest_path", "scipy.shortest_path", "highs", "scipy.milp"):
        solutions, refused = endings(mapgrad.get_solver(name, problem), theta)
        assert list(refused) == costs.isinf().nonzero().flatten().tolist()
        good = costs.isfinite()
        torch.testing.assert_close(-solutions.objective[good], costs[good], rtol=0, atol=1e-9)
        assert problem.contains(solutions.z[good]).all()
        assert not solutions.z[good][walls[good]].any()


def cheapest(costs):
    """Dijkstra's algorithm by hand: cells around share a side, and both ends count."""
    height, width = costs.shape
    queue, done = [(costs[0, 0], 0, 0)], set()
    while queue:
        cost, row, column = heapq.heappop(queue)
        if (row, column) in done or np.isinf(cost):
            continue
        done.add((row, column))
        if (row, column) == (height - 1, width - 1):
            return cost
        for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            if 0 <= row + down < height and 0 <= column + right < width:
                heapq.heappush(queue, (cost + costs[row + down, column + right], row + down, column + right))
    return np.inf


def test_positive_utilities_are_clipped_and_walls_stay():
    problem = mapgrad.GridShortestPath(3, 3)
    theta = torch.tensor([[-1.0, -1, -1], [2, -INF, -1], [-1, 3, -1]])
    for domain in ("clip", "raise"):
        solver = mapgrad.get_solver("scipy.shortest_path", problem, domain=domain)
        if domain == "raise":
            with pytest.raises(mapgrad.DomainError, match="row 0"):
                solver(theta)
        else:
            assert solver(theta).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
            assert solver.stats["clipped"] == 1


def test_missing_edges_are_as_a_graph_without_them():
    edges = [(0, 1), (0, 1), (0, 2), (1, 2), (2, 1), (1, 3), (2, 3), (3, 4), (2, 4)]
    kept = [1, 2, 3, 5, 7]
    whole, part = (mapgrad.ShortestPath(5, [edges[edge] for edge in of], 0, 4) for of in (range(9), kept))
    theta = -torch.rand(20, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    missing = torch.ones(9, dtype=torch.bool)
    missing[kept] = False
    for name in ("scipy.shortest_path", "networkx.shortest_path", "highs", "ortools.cp_sat", "pulp.highs"):
        z = mapgrad.get_solver(name, whole)(theta.masked_fill(missing, -INF))
        assert torch.equal(z[:, kept], mapgrad.get_solver(name, part)(theta[:, kept]))
        assert not z[:, missing].any()


def test_forbidden_pairs():
    pairs = [(i, j) for i in range(6) for j in range(i)]
    kept = [number for number in range(15) if number % 4]
    for perfect in (False, True):
        whole, part = (mapgrad.Matching(6, [pairs[n] for n in of], perfect=perfect) for of in (range(15), kept))
        theta = torch.randn(20, 15, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        theta[:, ::4] = -INF
        for name in ("networkx.matching", "highs", "ortools.mip"):
            assert torch.equal(
                mapgrad.get_solver(name, whole)(theta)[:, kept], mapgrad.get_solver(name, part)(theta[:, kept])
            )


@pytest.mark.parametrize("name", ["highs", "scipy.milp", "ortools.mip", "ortools.cp_sat", "pulp.cbc", "pulp.highs"])
def test_only_some_variables_are_priced(name):
    program = IntegerProgram(
        A_ub=[[1, 1, 1, 1]], b_ub=[3], upper=[2, 1, 3, 1], decision=[2, 0], fixed=[0.5, -0.25], shape=(2, 1)
    )
    theta = torch.tensor([[1.0, 2], [-INF, 2], [1, -INF], [-INF, -INF]], dtype=torch.float64).unsqueeze(2)
    states = Enumeration(program)
    values = states.values(theta)
    assert values.amax(1).tolist() == [5, 4.5, 3, 0.5]
    z = [[1, 2], [0, 2], [3, 0], [0, 0]]
    assert mapgrad.get_solver(BruteForce(program), program)(theta).flatten(1).tolist() == z
    solutions = installed(name, program).solve(theta)
    assert solutions.objective.tolist() == [5, 4.5, 3, 0.5]
    assert solutions.z.flatten(1).tolist() == z
    assert solutions.variables[:, [0, 2]].tolist() == [[2, 1], [2, 0], [0, 3], [0, 0]]


class Programs(mapgrad.BatchSolver):
    """Takes whole batches of programs."""

    masks = False

    def __init__(self, problem):
        super().__init__(problem)
        self.states = problem.states()

    def solve(self, theta):
        assert theta.isfinite().all() or self.masks
        values = [torch.where(self.states == 0, 0.0, self.states * row.double()).sum(1) for row in theta]
        return self.states[torch.stack(values).argmax(1)]


class MaskedPrograms(Programs):
    traits = Traits(masks=True)
    masks = True


def test_batch_solvers_of_programs():
    program = IntegerProgram(
        A_ub=[[1, 1, 1, 1]], b_ub=[3], upper=[2, 1, 3, 1], decision=[2, 0], fixed=[0.5, -0.25], shape=(2, 1)
    )
    theta = torch.tensor([[1.0, 2], [-INF, 2], [1, -INF], [-INF, -INF]]).unsqueeze(2)
    for solver in (Programs, MaskedPrograms):
        solutions = mapgrad.get_solver(solver, program).solve(theta)
        assert solutions.z.flatten(1).tolist() == [[1, 2], [0, 2], [3, 0], [0, 0]]
        assert solutions.objective.tolist() == [5, 4.5, 3, 0.5]


@pytest.mark.parametrize(
    "name", ["highs", "ortools.cp_sat", "ortools.mip", "pulp.cbc", "scipy.milp", "networkx.shortest_path"]
)
def test_a_bound_that_keeps_a_variable_from_zero_makes_a_row_infeasible(name):
    problem = mapgrad.GridShortestPath(2, 3)  # whose program demands both ends
    theta = -torch.ones(3, 2, 3)
    theta[0, 0, 0] = theta[1, -1, -1] = theta[2, 0, 1] = -INF
    solutions, refused = endings(installed(name, problem), theta)
    assert refused == (0, 1)
    assert solutions.status.tolist() == [3, 3, 1]
    assert solutions.z[2].tolist() == [[1, 0, 0], [0, 1, 1]]


def continuous(upper=(1.5, 2.0, 1.0, 3.0)):
    return IntegerProgram(A_ub=[[1, 2, 1, 1], [3, 1, 0, 2]], b_ub=[4, 5], upper=upper, integrality=[0, 1, 0, 0])


@pytest.mark.parametrize("name", ["highs", "scipy.milp", "ortools.mip", "pulp.cbc", "pulp.highs"])
def test_continuous_variables(name):
    theta = masked_rows(continuous(), 24, share=0.4)
    expected = []
    for row in theta:
        upper = np.where(row.isneginf().numpy(), 0.0, [1.5, 2, 1, 3])
        expected.append(mapgrad.get_solver("highs", continuous(upper)).solve(row.nan_to_num(neginf=0.0)).objective)
    solutions = installed(name, continuous()).solve(theta)
    assert not solutions.z[theta.isneginf()].any()
    torch.testing.assert_close(solutions.objective, torch.stack(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["highs", "scipy.milp", "pulp.highs"])
def test_continuous_variables_without_a_bound(name):
    assert installed(name, continuous([np.inf] * 4))(torch.tensor([-INF, 1.0, 1, 1.0]))[0] == 0


class Unmasked(InstanceSolver):
    """Solves programs by another solver, and takes no masks."""

    def init(self):
        return mapgrad.get_solver("highs", self.problem)

    def solve(self, state, theta, request):
        return state(torch.tensor(theta)).numpy()


class UnmaskedBatch(mapgrad.BatchSolver):
    def solve(self, theta):
        return mapgrad.get_solver("highs", self.problem)(theta)


@pytest.mark.parametrize("solver", [Unmasked, UnmaskedBatch])
def test_rows_that_no_finite_number_makes_right_fail_alone(solver):
    theta = torch.tensor([[-INF, 1, 1, 1], [1, -INF, 1, 1], [1, 1, 1, 1]])
    solutions, refused = endings(mapgrad.get_solver(solver, continuous()), theta)
    assert refused == (0,)
    assert solutions.z[0].isnan().all()
    assert torch.equal(solutions.z[1:], mapgrad.get_solver("highs", continuous())(theta[1:]))
    cause = solutions.causes[0]
    assert isinstance(cause, mapgrad.UnsupportedProblemError)
    assert "take a solver whose traits say masks=True, such as 'highs'" in str(cause)
    unbounded = IntegerProgram(A_ub=[[1, 1]], b_ub=[3], upper=[1, np.inf])
    theta = torch.tensor([[-INF, 1], [-INF, 0], [1, -INF]])
    solutions, refused = endings(mapgrad.get_solver(solver, unbounded), theta)
    assert refused == (0,)
    assert solutions.z[1:, 0].tolist() == [0, 1]
    assert solutions.z[2, 1] == 0


class FractionalSet(mapgrad.Problem):
    """All z in [0, 1]² with z_1 + z_2 ≤ 1, fractions included."""

    def __init__(self):
        pass

    shape = (2,)
    kappa = 1.0

    def in_box(self, z):
        return ((z >= 0) & (z <= 1)).all(axis=1)

    def are_states(self, z):
        return z.sum(axis=1) <= 1


def test_a_set_of_fractions_needs_a_solver_that_knows_masks():
    solver = mapgrad.get_solver(lambda theta: (theta == theta.amax(1, keepdim=True)).to(theta), FractionalSet())
    with pytest.raises(mapgrad.SolverCrashError, match=r"row 0 \(1 of 2\).*masks=True") as refused:
        solver(torch.tensor([[-INF, 1], [1, 2]]))
    assert isinstance(refused.value.__cause__, mapgrad.UnsupportedProblemError)


class SecondBest(Honest):
    """A heuristic that takes the second best state."""

    traits = Traits(exact=False)

    def solve(self, state, theta, request):
        return self.states[(self.states @ theta.ravel()).argsort()[-2]]


def test_a_heuristic_that_finds_no_allowed_state_fails():
    theta = torch.tensor([[-INF, -INF, -INF, 1.0, 1], [1, 2, 3, 4, 5.5]])
    with pytest.raises(
        mapgrad.SolverCrashError, match=r"row 0 .*only a state that holds an entry which θ = −inf"
    ) as refused:
        mapgrad.get_solver(SecondBest, SUBSET)(theta)
    assert refused.value.solutions.status.tolist() == [Status.ERROR, Status.FEASIBLE]
    assert refused.value.solutions.z[1].tolist() == [0, 0, 1, 0, 1]


def test_a_function_that_answers_with_a_forbidden_entry_is_told_what_may_be_wrong():
    def first_two(theta):
        return torch.zeros_like(theta).index_fill(1, torch.tensor([0, 1]), 1)

    theta = torch.tensor([[1.0, 2, 3, -INF, 4], [1, -INF, 2, 3, 4]])
    message = r"row 1: INFEASIBLE.* answered with an entry that θ = −inf forbids.* make it a mapgrad\.BatchSolver"
    with pytest.raises(mapgrad.InfeasibleError, match=message) as refused:
        mapgrad.MAPLayer(first_two)(theta)
    assert refused.value.rows == (1,)

    class FirstTwo(mapgrad.BatchSolver):
        traits = Traits(exact=False)

        def solve(self, theta):
            return first_two(theta)

    with pytest.raises(mapgrad.SolverCrashError, match=r"row 1 .*hasn't proved that each does"):
        mapgrad.get_solver(FirstTwo, SUBSET)(theta)


class Hurried(Honest):
    """Runs out of time with its first state."""

    def solve(self, state, theta, request):
        return mapgrad.Solution(self.states[0], Status.TIME_LIMIT, bound=9.0)


def test_an_incumbent_that_holds_a_forbidden_entry_is_none():
    solver = mapgrad.get_solver(Hurried, SUBSET, on_error="incumbent")
    first = torch.as_tensor(SUBSET.state_rows()[0])
    theta = torch.stack([torch.where(first == 1, -INF, 1.0), torch.where(first == 1, 1.0, -INF)])
    with pytest.raises(mapgrad.SolveTimeoutError, match="row 0") as refused:
        solver(theta)
    assert refused.value.rows == (0,)
    assert refused.value.solutions.status.tolist() == [Status.TIME_LIMIT] * 2
    assert torch.equal(refused.value.solutions.z[1], first)


class Starts(InstanceSolver):
    """Keeps the starts that it was given."""

    traits = Traits(masks=True)

    def __init__(self, problem):
        super().__init__(problem)
        self.starts = []

    def solve(self, state, theta, request):
        self.starts.append((request.start, request.forbidden))
        allowed = self.problem.state_rows()
        if request.forbidden is not None:
            assert not request.forbidden.flags.writeable
            assert not theta[request.forbidden].any()
            allowed = allowed[~allowed[:, request.forbidden].any(axis=1)]
        return allowed[(allowed @ theta).argmax()]


def test_starts_hold_no_forbidden_entry():
    solver = mapgrad.get_solver(Starts, SUBSET, reuse=True)
    theta = torch.tensor([[1.0, -INF, 3, 4, 5], [1, 2, 3, 4, 5]])
    work = solver.at_work()
    known = mapgrad.batching.Known(theta + 1, torch.tensor([[0.0, 1, 0, 0, 1]]).repeat(2, 1), torch.ones(2).long())
    work.solve(theta, known)
    (first, mask), (second, none) = work.plugin.starts
    assert first.tolist() == [0, 0, 0, 0, 1]
    assert second.tolist() == [0, 1, 0, 0, 1]
    assert mask.tolist() == [False, True, False, False, False]
    assert none is None


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("name", ["highs", "ortools.mip", "ortools.cp_sat", "pulp.highs", "scipy.milp"])
def test_training_steps_with_starts(name, reuse):
    problem = mapgrad.Knapsack([[5, 4, 3, 7, 2, 6]], [13])
    theta = masked_rows(problem, 6, share=0.2, seed=5)
    layer, reference = (
        mapgrad.MAPLayer(mapgrad.get_solver(each, problem, reuse=reuse), mapgrad.Blackbox(2.0))
        for each in (name, BruteForce(problem))
    )
    for step in range(3):
        weights = torch.randn(6, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        leaf, other = theta.clone().requires_grad_(), theta.clone().requires_grad_()
        (layer(leaf) * weights).sum().backward()
        (reference(other) * weights).sum().backward()
        assert torch.equal(leaf.grad, other.grad)
        theta = theta + 0.3 * weights


def test_a_subset_of_500():
    theta = masked_rows(KSubset(500, 60), 4, share=0.5)
    best = theta.topk(60).values.sum(1)
    for name in ("highs", "topk"):
        found = mapgrad.get_solver(name, KSubset(500, 60)).solve(theta).objective
        torch.testing.assert_close(found, best, rtol=0, atol=1e-9)


def test_a_knapsack_of_500():
    generator = np.random.default_rng(0)
    weights, capacity = generator.integers(5, 60, 500), 900
    problem = mapgrad.Knapsack(weights, capacity)
    theta = masked_rows(problem, 2, share=0.4)
    best = [packed(row.numpy(), weights, capacity) for row in theta]
    for name in ("highs", "ortools.knapsack"):
        found = mapgrad.get_solver(name, problem).solve(theta)
        assert not found.z[theta.isneginf()].any()
        torch.testing.assert_close(found.objective, torch.tensor(best), rtol=0, atol=1e-9)


def packed(theta, weights, capacity):
    """Bellman's table of what each capacity is worth."""
    best = np.zeros(capacity + 1)
    for utility, weight in zip(theta, weights, strict=True):
        if utility > 0:
            best[weight:] = np.maximum(best[weight:], best[:-weight] + utility)
    return best[-1]


def assignment(size, kept, seed):
    """An assignment in which a share of all pairs is allowed, a perfect one among them."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(size, size, generator=generator, dtype=torch.float64)
    allowed = torch.rand(size, size, generator=generator) < kept
    allowed[torch.arange(size), torch.randperm(size, generator=generator)] = True
    return theta.masked_fill(~allowed, -INF)


@pytest.mark.parametrize(("name", "size"), [("scipy.assignment", 300), ("highs", 22), ("scipy.milp", 22)])
def test_assignments_with_nine_tenths_forbidden(name, size):
    from scipy.optimize import linear_sum_assignment

    problem = mapgrad.Assignment(size)
    theta = torch.stack([assignment(size, 0.1 if size == 300 else 0.3, seed) for seed in range(3)])
    best = [row[linear_sum_assignment(row.numpy(), maximize=True)].sum() for row in theta]
    solutions = mapgrad.get_solver(name, problem).solve(theta)
    assert not solutions.z[theta.isneginf()].any()
    torch.testing.assert_close(solutions.objective, torch.stack(best), rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e6, 1e-30, 3.4e38])
def test_sorting_takes_any_magnitude(scale):
    problem = KSubset(8, 3)
    theta = masked_rows(problem, 40, share=0.4, seed=8)
    theta = (scale * theta.clamp(-1, 1)).masked_fill(theta.isinf(), -INF).float()
    theta[0] = torch.tensor([torch.finfo(torch.float32).min] * 3 + [-INF] * 5)
    found, refused = endings(mapgrad.get_solver("topk", problem), theta)
    too_few = theta.isfinite().sum(1) < 3
    assert list(refused) == too_few.nonzero().flatten().tolist()
    assert found.z[0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    best = theta.double().topk(3).values.sum(1)
    torch.testing.assert_close(found.objective[~too_few], best[~too_few], rtol=1e-12, atol=0)
    ranks, refused = endings(mapgrad.get_solver("topk", mapgrad.Ranking(8)), theta)
    assert list(refused) == (theta.isinf().sum(1) > 1).nonzero().flatten().tolist()
    one = theta.isinf().sum(1) == 1
    assert one.any()
    assert (ranks.z[one][theta[one].isinf()] == 0).all()


def test_a_million_entries():
    problem = KSubset(10**6, 1000)
    theta = torch.randn(10**6, generator=torch.Generator().manual_seed(0))
    theta[::3] = -INF
    z = mapgrad.get_solver("topk", problem)(theta)
    assert z.sum() == 1000
    assert theta[z == 1].min() >= theta[z == 0].max()


def test_scale_free_solvers_of_rows():
    problem = mapgrad.SpanningTree(4, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)])
    theta = torch.tensor(
        [[1.0, -INF, 3, 4, -5], [-INF, 1, 2, -INF, -INF], [1, -INF, -INF, 1, -INF]], dtype=torch.float64
    )
    for scale in (1e-300, 1.0, 1e300):
        for name in ("networkx.spanning_tree", "scipy.spanning_tree"):
            solutions, refused = endings(mapgrad.get_solver(name, problem), scale * theta)
            assert refused == (1, 2)
            assert solutions.z[0].tolist() == [1, 0, 1, 1, 0]
