"""Rows whose programs differ in bounds and sides alone: one native model, and the answers of each alone."""

from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import mapgrad

NAMES = [
    info.name
    for info in mapgrad.list_solvers()
    if info.distribution == "mapgrad" and info.status == "ok" and mapgrad.IntegerProgram in info.accepts
    if info.name != "diagram"  # which takes 0/1 variables alone
]

MATRIX = np.array([[3, 5, 2, 4, 1, 2], [1, 2, 4, 1, 3, 1], [1, 1, 1, 1, 1, 1]])
FIRST = mapgrad.IntegerProgram.from_rows(MATRIX, [-np.inf, -np.inf, 1], [9, 6, 4], upper=2)


def siblings(count: int) -> list[mapgrad.IntegerProgram]:
    """Programs of other sides and bounds: tighter, looser, of another kind, open to one side."""
    rng = np.random.default_rng(1)
    changes: list[dict[str, Any]] = [
        {"row_upper": [5, 6, 4]},
        {"row_lower": [2, -np.inf, 3], "row_upper": [9, 6, 3]},
        {"upper": [1, 0, 2, 2, 1, 2]},
        {"lower": [0, 0, 0, 0, 0, 1], "upper": 1},
        {"row_upper": [np.inf, 6, 4]},
        {"row_lower": -np.inf, "row_upper": [7, np.inf, 2]},
    ]
    changes += [{"row_upper": rng.integers([3, 3, 2], [15, 12, 6])} for _ in range(count)]
    return [FIRST.replace(**change) for change in changes[:count]]


def rows(count: int) -> torch.Tensor:
    return torch.rand(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("workers", [None, 2])
def test_each_row_gets_its_own_programs_optimum(name: str, workers: int | None) -> None:
    problems, theta = siblings(12), rows(12)
    with mapgrad.get_solver(name, FIRST, workers=workers) as solver:
        found = solver.solve(theta, problems=problems)
        again = solver(theta[:1])
    for row, problem in enumerate(problems):
        states = problem.states()
        assert problem.contains(found.z[row])
        assert float(found.objective[row]) == pytest.approx(float((states @ theta[row]).max()), abs=1e-9)
    assert FIRST.contains(again).all(), "the first program's own sides hold again"
    assert float((again @ theta[0]).max()) == pytest.approx(float((FIRST.states() @ theta[0]).max()), abs=1e-9)


def test_processes_get_the_sides_too() -> None:
    problems, theta = siblings(9), rows(9)
    with mapgrad.get_solver("highs", FIRST, workers="processes:2") as solver:
        assert torch.equal(
            solver(theta, problems=problems), mapgrad.get_solver("highs", None)(theta, problems=problems)
        )


@pytest.mark.parametrize("name", ["highs", "search"])
def test_processes_forget_the_sides_of_the_batch_before(name: str) -> None:
    """Batches come in the same memory: what a model held last must not change with it."""
    program = mapgrad.IntegerProgram(A_ub=[[1, 1]], b_ub=[9], upper=9)
    theta = torch.tensor([[2.0, 1.0], [2.0, 1.0], [3.0, 1.0]])
    with mapgrad.get_solver(name, program, workers="processes:1") as solver:
        for sides in ([1, 2, 3], [5, 6, 5], [5, 1, 5], [4, 4, 4]):
            found = solver.solve(theta, problems=[program.replace(b_ub=[side]) for side in sides])
            assert found.objective.tolist() == [2 * sides[0], 2 * sides[1], 3 * sides[2]]
        assert solver.solve(theta).objective.tolist() == [18, 18, 27]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    from mapgrad_highs._program import HiGHS

    builds: list[int] = []
    build = HiGHS.build
    monkeypatch.setattr(HiGHS, "build", lambda self, program: (builds.append(1), build(self, program))[1])  # pyright: ignore[reportUnknownLambdaType]
    return builds


@pytest.mark.parametrize("problem", [FIRST, None])
def test_one_native_model_serves_all(counted: list[int], problem: mapgrad.IntegerProgram | None) -> None:
    solver = mapgrad.get_solver("highs", problem)
    solver(rows(20), problems=siblings(20))
    solver(rows(20), problems=siblings(20)[::-1])
    if problem is not None:
        solver(rows(3))
    assert len(counted) == 1
    assert solver.stats["solves"] == (43 if problem is not None else 40)


def test_other_coefficients_get_a_model_of_their_own(counted: list[int]) -> None:
    other = mapgrad.IntegerProgram.from_rows(MATRIX + 1, [-np.inf] * 3, [9, 6, 4], upper=2)
    solver = mapgrad.get_solver("highs", None)
    solver(rows(4), problems=[FIRST, other, *siblings(2)])
    assert len(counted) == 2


def test_equal_rows_of_different_programs_are_not_merged() -> None:
    theta = torch.ones(2, 6)
    problems = [FIRST.replace(row_upper=[9, 6, 1]), FIRST.replace(row_upper=[9, 6, 3])]
    assert mapgrad.get_solver("highs", None)(theta, problems=problems).sum(dim=1).tolist() == [1, 3]


def test_a_row_without_a_state_is_named_with_its_own_program() -> None:
    problems, theta = siblings(4), rows(4)
    problems[2] = FIRST.replace(row_lower=[20, -np.inf, 1], row_upper=[30, 6, 4], upper=1)
    with pytest.raises(mapgrad.InfeasibleError) as caught:
        mapgrad.get_solver("highs", FIRST)(theta, problems=problems)
    assert caught.value.rows == (2,)
    assert repr(problems[2]) in str(caught.value)
    assert caught.value.solutions is not None
    assert caught.value.solutions.status.tolist() == [1, 1, mapgrad.Status.INFEASIBLE, 1]


def test_forbidden_entries_are_kept_at_zero() -> None:
    problems, theta = siblings(3), rows(3).abs()
    theta[1, 4] = -torch.inf
    z = mapgrad.get_solver("highs", FIRST)(theta, problems=problems)
    states = problems[1].states()
    states = states[states[:, 4] == 0]
    assert z[1, 4] == 0
    assert float(z[1, [0, 1, 2, 3, 5]] @ theta[1, [0, 1, 2, 3, 5]]) == pytest.approx(
        float((states[:, [0, 1, 2, 3, 5]] @ theta[1, [0, 1, 2, 3, 5]]).max())
    )


def test_entries_may_be_forbidden_where_a_rows_own_lower_bound_is_0() -> None:
    theta = torch.ones(2, 6)
    theta[1, 2] = -torch.inf
    problems = [FIRST.replace(lower=-1), FIRST]
    solver = mapgrad.get_solver("highs", None)
    assert solver(theta, problems=problems)[1, 2] == 0
    with pytest.raises(mapgrad.NonFiniteError) as caught:
        solver(theta, problems=problems[::-1])
    assert caught.value.rows == (1,)


class KnowsNoMasks(mapgrad.InstanceSolver[mapgrad.IntegerProgram, None]):
    """Enumerates the points within a row's own limits."""

    traits = mapgrad.Traits(limits=True)

    def solve(self, state: None, theta: np.ndarray, request: mapgrad.Request) -> np.ndarray:
        limits = {} if request.limits is None else request.limits._asdict()
        points = np.asarray(self.problem.replace(**limits).states())
        return points[(points @ theta).argmax()]


def test_forbidden_entries_cost_enough_for_a_rows_own_bounds() -> None:
    narrow = mapgrad.IntegerProgram(A_eq=[[1, -10]], b_eq=[0], lower=[-1, 0], upper=[0, 1])
    wide = narrow.replace(lower=[-10, 0], upper=[20, 2])
    theta = torch.tensor([[1.0, 0.0], [1.0, -torch.inf]])
    for name in (KnowsNoMasks, "highs"):
        solver = mapgrad.get_solver(name, None)
        assert solver(theta, problems=[narrow, wide]).tolist() == [[0, 0], [0, 0]]
        assert solver(theta.flip(0), problems=[wide, narrow]).tolist() == [[0, 0], [0, 0]]


def test_only_some_variables_may_be_priced() -> None:
    first = FIRST.replace(decision=[1, 3], fixed=[0.5, -0.2, 0.3, 0.1])
    problems = [first.replace(row_upper=[upper, 6, 4]) for upper in (3, 5, 9)]
    theta = rows(3)[:, :2]
    found = mapgrad.get_solver("highs", first).solve(theta, problems=problems)
    for row, problem in enumerate(problems):
        alone = mapgrad.get_solver("highs", problem).solve(theta[row])
        assert torch.equal(found.z[row], alone.z)
        assert found.objective[row] == alone.objective


@pytest.mark.parametrize("samples", [1, 3])
def test_a_layer_gives_each_row_the_gradient_that_it_gets_alone(samples: int) -> None:
    problems = siblings(8)
    theta = rows(8).requires_grad_()
    weights = torch.rand(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def gradient(chosen: list[int]) -> torch.Tensor:
        solver = mapgrad.get_solver("highs", FIRST)
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(samples=samples), seed=3)
        z = layer(theta[chosen], problems=[problems[row] for row in chosen], rows=torch.tensor(chosen))
        (found,) = torch.autograd.grad((z * weights[chosen]).sum(), theta)
        return found[chosen]

    together = gradient(list(range(8)))
    assert together.abs().sum() > 0
    for row in range(8):
        assert torch.equal(gradient([row])[0], together[row])


def test_a_gradient_that_is_not_finite_costs_its_row_alone() -> None:
    problems, theta = siblings(6), rows(6).requires_grad_()
    layer = mapgrad.MAPLayer(mapgrad.get_solver("highs", FIRST), mapgrad.IMLE(), seed=3)
    weights = torch.rand(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def gradient(weights: torch.Tensor) -> torch.Tensor:
        layer.load_state_dict(state)
        z = layer(theta, problems=problems)
        return torch.autograd.grad((z * weights).sum(), theta)[0]

    state = {name: value.clone() for name, value in layer.state_dict().items()}
    whole = gradient(weights)
    broken = weights.clone()
    broken[2] = torch.nan
    found = gradient(broken)
    assert found[2].isnan().all()
    kept = [0, 1, 3, 4, 5]
    assert torch.equal(found[kept], whole[kept])


# one mixed, one of integers alone: with far bounds they are hard for an engine that is set for near ones
WIDE = [
    (
        mapgrad.IntegerProgram(
            A_eq=[[6, -9, -2], [5, 5, -6]], b_eq=[-51, 20], lower=-10, upper=10, integrality=[1, 0, 1]
        ),
        {"lower": -1e6, "upper": 1e6},
        [3.9749758995023354, -0.5270010307560303, -3.2092857435799025],
        -6.609981053392403,
    ),
    (
        mapgrad.IntegerProgram(
            A_ub=[[-2, 8, 9, -5], [-3, -5, -8, -2], [8, -6, -6, -2]],
            b_ub=[-11, 20, -47],
            lower=-10,
            upper=10,
            integrality=1,
        ),
        {"lower": -1e4, "upper": 1e5},
        [-1.129642357221096, 8.122321241055351, 9.011581467473963, -6.957646086797669],
        -22.21740535812569,
    ),
]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        pytest.param(name, row, marks=[pytest.mark.slow] * ((name, row) == ("pulp.cbc", 1)))  # takes CBC long
        for name, row in product(NAMES, range(len(WIDE)))
        if name != "ortools.cp_sat"  # whose settings no bound changes
        if (name, row) != ("search", 0)  # which takes no mixed programs
    ],
)
def test_a_row_of_far_wider_bounds_is_solved_as_it_is_alone(name: str, row: int) -> None:
    program, change, utilities, optimum = WIDE[row]
    wide, theta = program.replace(**change), torch.tensor([utilities], dtype=torch.float64)

    def outcome(solver: mapgrad.Solver, problems: list[mapgrad.IntegerProgram] | None = None) -> Any:
        try:
            return float(solver.solve(theta, problems=problems).objective[0])
        except (mapgrad.SolverCrashError, mapgrad.UnsupportedProblemError) as error:
            return type(error)

    with mapgrad.get_solver(name, program, time_limit=20) as first:
        beside = outcome(first, [wide])
    try:
        with mapgrad.get_solver(name, wide, time_limit=20) as own:
            alone = outcome(own)
    except mapgrad.UnsupportedProblemError:
        alone = mapgrad.UnsupportedProblemError
    assert beside == (alone if isinstance(alone, type) else pytest.approx(optimum, abs=2e-8))


@pytest.mark.parametrize("problem", [FIRST, None])
def test_a_row_beyond_a_solver_fails_alone(problem: mapgrad.IntegerProgram | None) -> None:
    problems = [FIRST, FIRST.replace(upper=1e6), FIRST.replace(upper=1e5, row_upper=[5, 6, 4]), FIRST]
    with (
        mapgrad.get_solver("search", problem) as solver,
        pytest.raises(mapgrad.RowsError, match=r"variables reach 1e\+06, more than 10000") as caught,
    ):
        solver(torch.ones(4, 6), problems=problems)
    assert caught.value.rows == (1, 2)
    assert caught.value.solutions is not None
    assert caught.value.solutions.objective[[0, 3]].tolist() == [4, 4]


def test_auto_takes_another_solver_for_bounds_beyond_the_first_ones_reach() -> None:
    program = mapgrad.IntegerProgram(A_ub=[[3, 5, 7]], b_ub=[20], upper=3, integrality=1)
    theta = torch.tensor([[2.0, 3.0, 5.0]]).expand(3, -1)
    problems = [program, program.replace(upper=np.inf), program.replace(upper=1e6, b_ub=[1e6])]
    for problem in (program, None):
        with mapgrad.get_solver("auto", problem) as solver:
            assert solver(theta, problems=problems).tolist() == [[2, 0, 2], [2, 0, 2], [0, 0, 142857]]


class PickyHiGHS(mapgrad.ProgramSolver[Any]):
    """Serves programs of as many finite right sides alone."""

    made: ClassVar[list[int]] = []

    def __init__(self, problem: mapgrad.IntegerProgram) -> None:
        super().__init__(problem)
        from mapgrad_highs._program import HiGHS

        self.made.append(self._finite(problem))
        self._highs = HiGHS(problem)

    @staticmethod
    def _finite(program: mapgrad.IntegerProgram) -> int:
        return int(np.isfinite(program.row_upper).sum())

    def serves(self, other: mapgrad.IntegerProgram) -> bool:
        return self._finite(other) == self._finite(self.problem)

    def build(self, program: mapgrad.IntegerProgram) -> Any:
        return self._highs.build(program)

    def maximize(self, model: Any, call: mapgrad.EngineCall) -> mapgrad.EngineAnswer:
        return self._highs.maximize(model, call)

    def set_bounds(self, model: Any, *bounds: Any) -> None:
        self._highs.set_bounds(model, *bounds)

    def set_sides(self, model: Any, *sides: Any) -> None:
        self._highs.set_sides(model, *sides)


@pytest.mark.parametrize("problem", [FIRST, None])
def test_programs_that_a_solver_does_not_serve_get_another_object(problem: mapgrad.IntegerProgram | None) -> None:
    PickyHiGHS.made.clear()
    problems, theta = siblings(12), rows(12)
    with mapgrad.get_solver(PickyHiGHS, problem) as solver:
        for _ in range(2):
            found = solver.solve(theta, problems=problems)
            for row, each in enumerate(problems):
                assert float(found.objective[row]) == pytest.approx(float((each.states() @ theta[row]).max()), abs=1e-9)
    assert sorted(PickyHiGHS.made) == [2, 3], "one for each count of finite sides"


@pytest.mark.parametrize("answer", [None, "yes", np.ones(2, dtype=bool), ValueError("boom"), SystemExit(3)], ids=str)
def test_a_solver_that_does_not_say_which_programs_it_serves_is_named(answer: object) -> None:
    class Unsure(PickyHiGHS):
        def serves(self, other: mapgrad.IntegerProgram) -> Any:
            if isinstance(answer, BaseException):
                raise answer
            return answer

    with pytest.raises(mapgrad.PluginError, match=r"serves\(\) of .*Unsure .*(boom|SystemExit|True or False, but)"):
        mapgrad.get_solver(Unsure, FIRST)(rows(2), problems=siblings(2))


@pytest.mark.parametrize("name", ["highs", "scipy.milp"])
def test_an_optimum_is_confirmed_where_the_rows_own_program_lacks_a_bound(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = type(mapgrad.get_solver(name, FIRST).at_work().plugin)
    runs: list[int] = []
    maximize = kind.maximize
    monkeypatch.setattr(kind, "maximize", lambda self, model, call: (runs.append(1), maximize(self, model, call))[1])
    bounded = FIRST.replace(upper=150)
    counts: dict[tuple[bool, bool], int] = {}
    for first in (bounded, bounded.replace(upper=np.inf)):
        for other in (bounded, bounded.replace(upper=np.inf)):
            runs.clear()
            mapgrad.get_solver(name, first)(rows(5).abs(), problems=[other] * 5)
            counts[first == bounded, other == bounded] = len(runs)
    assert counts[True, True] == counts[False, True] == 5
    assert counts[True, False] == counts[False, False] >= 10


def test_a_row_that_is_handed_over_goes_to_a_solver_that_takes_its_program() -> None:
    rng = np.random.default_rng(2)
    matrix = rng.integers(-9, 10, (1, 6)) + rng.integers(1, 90, (1, 6)) / np.array([9973, 9967, 9949, 997, 1, 1.0])
    most = rng.integers(-9, 20, 1).astype(float)
    near = mapgrad.IntegerProgram.from_rows(matrix, most - 1, most, lower=-1, upper=1)
    far = near.replace(lower=-700, upper=700)
    theta = torch.tensor(rng.normal(size=(2, 6)))
    expected = mapgrad.get_solver("highs", far).solve(theta).objective
    for problem in (near, None):
        solver = mapgrad.get_solver("auto", problem)
        found = solver.solve(theta, problems=[near, far])
        assert float(found.objective[1]) == pytest.approx(float(expected[1]), abs=1e-6)
