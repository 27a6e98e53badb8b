"""Semi-continuous variables, special ordered sets and indicator rows: against enumeration, and without them."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import mapgrad
from mapgrad.errors import InfeasibleError, ProblemError, UnsupportedProblemError
from mapgrad.problems import IntegerProgram, SparseRows
from mapgrad.solvers import Lowering, lower

if TYPE_CHECKING:
    from pathlib import Path

FEATURES = ("semicontinuous", "sos", "indicators")
SUBSETS = [frozenset(some) for count in range(4) for some in itertools.combinations(FEATURES, count)]
coefficient = st.integers(-2, 2)


@st.composite
def programs(draw: st.DrawFn, *, integer: bool = True) -> IntegerProgram:
    """Small programs with any features, whose first variable is 0/1; some of the others are continuous on demand."""
    n = draw(st.integers(2, 4))
    ends = [(0, 1), *(sorted(draw(st.tuples(*2 * [st.integers(-2, 3)]))) for _ in range(n - 1))]
    row = st.lists(coefficient, min_size=n, max_size=n)
    sides = st.tuples(st.sampled_from([-np.inf, -2, -1, 0]), st.sampled_from([0, 1, 3, np.inf]))
    rows = draw(st.lists(st.tuples(row, sides), max_size=2))
    columns = st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True)
    sos = [
        (kind, some, draw(st.permutations(range(len(some)))))
        for kind, some in draw(st.lists(st.tuples(st.integers(1, 2), columns), max_size=2))
    ]
    indicator = st.builds(lambda value, row, sides: (0, value, row, *sides), st.integers(0, 1), row, sides)
    return IntegerProgram.from_rows(
        np.array([row for row, _ in rows]).reshape(-1, n),
        [low for _, (low, _) in rows],
        [high for _, (_, high) in rows],
        lower=[low for low, _ in ends],
        upper=[high for _, high in ends],
        integrality=[1] * n if integer else [1, *(draw(st.integers(0, 1)) for _ in range(n - 1))],
        semicontinuous=[0, *(draw(st.integers(0, 1)) for _ in range(n - 1))],
        sos=sos,
        indicators=draw(st.lists(indicator, max_size=2)),
    )


def points_of(program: IntegerProgram) -> np.ndarray:
    """Return all integer points with 0 between the bounds of semi-continuous variables."""
    ends = zip(program.lower, program.upper, program.semicontinuous, strict=True)
    ranges = (
        range(int(min(low, 0) if semi else low), int(max(high, 0) if semi else high) + 1) for low, high, semi in ends
    )
    return np.array(list(itertools.product(*ranges)), dtype=float)


def is_state(program: IntegerProgram, x: np.ndarray) -> bool:
    """Decide by the words of the definitions."""
    for value, low, high, semi in zip(x, program.lower, program.upper, program.semicontinuous, strict=True):
        if not (low <= value <= high or (semi and value == 0)):
            return False
    for kind, columns, weights in program.sos:
        order = [column for _, column in sorted(zip(weights, columns, strict=True))]
        used = [place for place, column in enumerate(order) if x[column] != 0]
        if len(used) > kind or (len(used) == 2 and used[1] - used[0] > 1):
            return False
    rows = [*zip(program.matrix.toarray(), program.row_lower, program.row_upper, strict=True)]
    rows += [(row.toarray()[0], low, high) for j, value, row, low, high in program.indicators if x[j] == value]
    return all(low <= row @ x <= high for row, low, high in rows)


def states_of(program: IntegerProgram) -> list[list[float]]:
    return [point.tolist() for point in points_of(program) if is_state(program, point)]


def found(program: IntegerProgram) -> list[list[float]]:
    try:
        return program.state_rows().tolist()
    except InfeasibleError:
        return []


@given(programs())
@settings(max_examples=150, deadline=None)
def test_states_are_what_the_words_say(program: IntegerProgram) -> None:
    truth = states_of(program)
    points = points_of(program)
    assert points[program.contains_rows(points)].tolist() == truth
    assert found(program) == truth
    lower, upper = program.box
    assert ((points >= lower) & (points <= upper)).all()
    assert not program.contains_rows(np.vstack((lower - 1, upper + 1))).any()


@given(programs(), st.sampled_from(SUBSETS))
@settings(max_examples=150, deadline=None)
def test_a_reformulation_has_the_same_states(program: IntegerProgram, native: frozenset[str]) -> None:
    again = program.reformulated(native)
    assert again.features == program.features & native
    assert again is program.reformulated(native)
    assert again.decision.tolist() == program.decision.tolist()
    extended = again.full()
    kept = sorted({tuple(point[: program.num_vars]) for point in found(extended)})
    assert [list(point) for point in kept] == states_of(program)


@given(programs(integer=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_continuous_variables_are_members_alike(program: IntegerProgram) -> None:
    assume(program.features)
    points = points_of(program)
    points = np.vstack((points, points[: len(points) // 2] + 0.5 * ~program.integrality))[::3]
    truth = [is_state(program, point) for point in points]
    assert program.contains_rows(points).tolist() == truth
    assert program.reformulated().contains_rows(points).tolist() == truth


@given(programs(), st.data())
@settings(max_examples=60, deadline=None)
def test_other_variables_complete_a_state(program: IntegerProgram, data: st.DataObject) -> None:
    columns = data.draw(st.permutations(range(program.num_vars)))[: data.draw(st.integers(1, program.num_vars))]
    fixed = data.draw(st.lists(st.integers(-2, 2), min_size=(size := program.num_vars - len(columns)), max_size=size))
    part = program.replace(decision=columns, fixed=fixed)
    states = np.array(states_of(program)).reshape(-1, program.num_vars)
    worth: dict[tuple[float, ...], float] = {}
    for x in states:
        z = tuple(x[columns])
        worth[z] = max(worth.get(z, -np.inf), float(part.fixed @ x[part.others]))
    points = np.unique(points_of(program)[:, columns], axis=0)
    assert part.contains_rows(points).tolist() == [tuple(point) in worth for point in points]
    assert sorted(map(tuple, found(part))) == sorted(worth)
    if worth:
        assert part.completion_values(np.array([*worth])) == pytest.approx([*worth.values()])


@given(programs(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_solvers_find_the_best_state(program: IntegerProgram, seed: int) -> None:
    states = torch.tensor(states_of(program), dtype=torch.float64)
    theta = torch.tensor(np.random.default_rng(seed).normal(size=(3, program.num_vars)))
    for name in ("highs", "scipy.milp", "ortools.cp_sat"):
        solver = mapgrad.get_solver(name, program)
        if not len(states):
            with pytest.raises(InfeasibleError):
                solver.solve(theta)
            continue
        solutions = solver.solve(theta)
        assert solutions.objective.tolist() == pytest.approx((theta @ states.T).amax(dim=1).tolist()), name
        assert program.contains(solutions.z).all(), name


@given(programs(integer=False))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_again(tmp_path: Path, program: IntegerProgram) -> None:
    path = tmp_path / "program.mps"
    if (program.semicontinuous & ((program.lower < 0) | (program.upper == 0))).any():
        with pytest.raises(
            ProblemError, match="negative lower bound or the upper bound 0, for which MPS files have no"
        ):
            program.to_mps(path)
        return
    program.to_mps(path)
    assert IntegerProgram.from_mps(path) == program


def example(**changes: Any) -> IntegerProgram:
    given = {
        "A_ub": [[1, 1, 1, 1]],
        "b_ub": [9],
        "lower": [0, 2, -3, 0],
        "upper": [1, 4, -1.5, 5],
        "integrality": [1, 0, 0, 1],
        "semicontinuous": [0, 1, 1, 0],
        "sos": [(2, [3, 1, 0], [5, 7, 6.5])],
        "indicators": [(0, 1, [0, 2, 0, -1], -np.inf, 3)],
    }
    return IntegerProgram(**given | changes)


def test_a_program_keeps_its_features() -> None:
    program = example()
    assert program.features == set(FEATURES)
    assert program.semicontinuous.tolist() == [False, True, True, False]
    assert program.sos == ((2, (3, 0, 1), (5.0, 6.5, 7.0)),)
    assert program.indicators == ((0, 1, SparseRows([2, -1], [1, 3], [0, 2], (1, 4)), -np.inf, 3.0),)
    assert [bound.tolist() for bound in program.hull] == [[0, 0, -3, 0], [1, 4, 0, 5]]
    assert [bound.tolist() for bound in program.box] == [[0, 0, -3, 0], [1, 4, 0, 5]]
    assert IntegerProgram(lower=[1, 1], semicontinuous=1).kappa == 1
    for twin in (
        pickle.loads(pickle.dumps(program)),
        copy.deepcopy(program),
        program.replace(),
        eval(repr(program), NAMES),
    ):
        assert (twin, hash(twin), repr(twin), twin.features) == (
            program,
            hash(program),
            repr(program),
            program.features,
        )
    assert example(decision=[1, 0], fixed=[1, 2]).full() == program
    assert example(indicators=[(0, 1, [1, 1, 1, 1], -np.inf, np.inf)], sos=()).features == {"semicontinuous"}
    assert example(indicators=[(0, 1, SparseRows([2, -1], [1, 3], [0, 2], (1, 4)), -np.inf, 3)]) == program


NAMES = {"IntegerProgram": IntegerProgram, "inf": np.inf, "array": np.array}


def test_features_tell_programs_apart() -> None:
    program = example()
    others = [
        program.replace(semicontinuous=None),
        program.replace(sos=()),
        program.replace(indicators=()),
        program.replace(sos=[(1, [3, 1, 0], [5, 7, 6.5])]),
        program.replace(sos=[(2, [3, 1, 0], [5, 6.5, 7])]),
        program.replace(indicators=[(0, 0, [0, 2, 0, -1], -np.inf, 3)]),
        program.replace(indicators=[(0, 1, [0, 2, 0, -1], -np.inf, 4)]),
    ]
    assert len({program, *others}) == len({each.structure for each in (program, *others)}) == 8
    assert program.replace(sos=()) == example(sos=())
    assert program.replace(upper=[1, 4, -1, 6]).structure == program.structure


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"semicontinuous": [0, 1]},
            "semicontinuous must be one number or one for each of 4 variables, got shape (2,)",
        ),
        ({"semicontinuous": [0, 1, 2, 0]}, "semicontinuous must hold 0 or 1 for each variable, got 2 for 2"),
        ({"sos": 3}, "sos must be a list of tuples, got 3"),
        ({"sos": [(1, [0, 1])]}, "sos 0 must be (type, columns, weights), got (1, [0, 1])"),
        ({"sos": [(3, [0, 1], [1, 2])]}, "the type of sos 0 must be an integer from 1 to 2, got 3 (int)"),
        (
            {"sos": [(1, [0, 1], [1])]},
            "sos 0 must have a list of columns and as many weights, got shapes (2,) and (1",
        ),
        ({"sos": [(1, [0.0, 1.0], [1, 2])]}, "a column of sos 0 must be an integer from 0 to 3, got 0.0 (float)"),
        ({"indicators": 3}, "indicators must be a list of tuples, got 3"),
        ({"sos": [(1, [], [])]}, "sos 0 must have a list of columns and as many weights, got shapes (0,) and (0,)"),
        ({"sos": [(1, [0, 4], [1, 2])]}, "a column of sos 0 must be an integer from 0 to 3, got 4 (int)"),
        ({"sos": [(1, [0, 0], [1, 2])]}, "sos 0 must have distinct columns, got [0, 0]"),
        ({"sos": [(2, [0, 1], [1, 1])]}, "sos 0 must have finite weights, distinct ones for type 2, got [1, 1]"),
        (
            {"sos": [(1, [0, 1], [1, np.inf])]},
            "sos 0 must have finite weights, distinct ones for type 2, got [1.0",
        ),
        (
            {"indicators": [(0, 1, [1, 1])]},
            "indicator 0 must be (variable, value, row, lower, upper), got (0, 1, ",
        ),
        (
            {"indicators": [(1, 1, [1] * 4, 0, 1)]},
            "indicator 0 asks for variable 1, which must be integer with bound",
        ),
        (
            {"indicators": [(3, 1, [1] * 4, 0, 1)]},
            "indicator 0 asks for variable 3, which must be integer with bound",
        ),
        ({"indicators": [(4, 1, [1] * 4, 0, 1)]}, "the variable of indicator 0 must be an integer from 0 to 3, got 4"),
        (
            {"indicators": [(0, 2, [1] * 4, 0, 1)]},
            "the value of indicator 0 must be an integer from 0 to 1, got 2",
        ),
        ({"indicators": [(0, 1, [1, 1], 0, 1)]}, "indicator 0 must have one row of 4 coefficients, got shape (1, 2)"),
        ({"indicators": [(0, 1, [1] * 4, 2, 1)]}, "indicator 0: row_lower is 2.0 and row_upper is 1.0 in row 0: no"),
        ({"upper": [2, 4, -1.5, 5]}, "indicator 0 asks for variable 0, which must be integer with bounds 0 and 1"),
        (
            {"sos": [(1, torch.tensor([0.0], requires_grad=True), [1])]},
            "sos 0: columns requires grad, but gradients ",
        ),
        ({"semicontinuous": torch.ones(4, requires_grad=True)}, "semicontinuous requires grad, but gradients reach θ"),
        (
            {"indicators": [(0, 1, torch.ones(4, requires_grad=True), 0, 1)]},
            "indicator 0: row requires grad, but gradients reach θ only",
        ),
    ],
)
def test_malformed_features_are_refused(changes: dict[str, Any], message: str) -> None:
    for make in (example, example().replace):
        with pytest.raises(ProblemError, match=re.escape(message)):
            make(**changes)


UNBOUNDED = [
    (
        {"upper": [1, np.inf, -1, 5]},
        "variable 1 has the upper bound inf, but rows can stand for semicontinuous only",
    ),
    (
        {"lower": [0, 2, -np.inf, 0]},
        "variable 2 has the lower bound -inf, but rows can stand for semicontinuous only",
    ),
    (
        {"upper": [1, 4, -1, np.inf]},
        "only where it is finite: give the variable a finite upper bound",
    ),
    (
        {"lower": [0, 2, -2, -np.inf], "sos": ()},
        "variable 3 has the lower bound -inf, but rows can stand for indicators",
    ),
]


@pytest.mark.parametrize(("changes", "message"), UNBOUNDED)
def test_bounds_that_rows_need_are_asked_for_by_name(changes: dict[str, Any], message: str) -> None:
    program = example(**changes)
    with pytest.raises(UnsupportedProblemError, match=re.escape(message)):
        program.reformulated()
    assert program.reformulated(FEATURES) is program
    for name in ("highs", "scipy.milp", "auto"):
        with pytest.raises(UnsupportedProblemError, match=re.escape(message)):
            mapgrad.get_solver(name, program)
    with pytest.raises(UnsupportedProblemError):
        mapgrad.get_solver("auto", program)


def test_bounds_that_rows_do_not_need_may_be_infinite() -> None:
    program = IntegerProgram(
        lower=[-2, 1, 0],
        upper=np.inf,
        integrality=[0, 1, 1],
        semicontinuous=1,
        sos=[(1, [0], [1]), (2, [0, 1], [1, 2])],
        indicators=[],
    )
    again = program.reformulated()
    assert (again.num_vars, again.lower.tolist()) == (3, [-2, 0, 0])


@pytest.mark.parametrize(
    ("sides", "value", "rows"),
    [
        ((-np.inf, 3), 1, [([2, -3, 5], -np.inf, 8)]),  # 2x - 3y ≤ 8 by their bounds, and ≤ 3 where b is 1
        ((-np.inf, 3), 0, [([2, -3, -5], -np.inf, 3)]),
        ((-np.inf, 8), 1, []),
        ((-4, 9), 1, [([2, -3, -2], -6, np.inf)]),
    ],
)
def test_big_numbers_are_as_small_as_the_bounds_allow(sides: tuple[float, float], value: int, rows: list) -> None:
    program = IntegerProgram(upper=[4, 2, 1], integrality=[0, 0, 1], indicators=[(2, value, [2, -3, 0], *sides)])
    again = program.reformulated()
    assert [
        (row.tolist(), low, high)
        for row, low, high in zip(again.matrix.toarray(), again.row_lower, again.row_upper, strict=True)
    ] == rows


def test_a_lowering_cuts_off_what_was_added() -> None:
    program = example(decision=[2, 1], fixed=[1, -1])
    lowering = lower(program, (IntegerProgram,), ("sos",))
    native = lowering.native
    assert isinstance(native, IntegerProgram)
    assert native.features == {"sos"}
    assert native.num_vars == native.shape[0] == 6
    assert not lowering.is_restated
    theta = np.array([[3.0, 4.0]])
    assert lowering.rows(theta).tolist() == [[1, 4, 3, -1, 0, 0]]
    assert lowering.variables(np.arange(6.0)[None]).tolist() == [[0, 1, 2, 3]]
    assert lowering.states(np.arange(6.0)[None]).tolist() == [[2, 1]]
    assert lowering.forbidden(np.array([[True, True]])).tolist() == [[False, True, True, False, False, False]]
    np.testing.assert_array_equal(lowering.start(theta), [[np.nan, 4, 3, np.nan, np.nan, np.nan]])
    assert lower(program, None).native == program.full()
    assert isinstance(lower(program, (IntegerProgram,), FEATURES), Lowering)


def test_a_class_that_is_given_itself_gets_rows_for_features() -> None:
    class Seen(mapgrad.InstanceSolver[IntegerProgram, None]):
        def solve(self, state: None, theta: np.ndarray, request: Any) -> np.ndarray:
            assert not self.problem.features
            return np.zeros(self.problem.shape)

    program = IntegerProgram(lower=[2, 2], upper=5, semicontinuous=1)
    assert mapgrad.get_solver(Seen, program)(torch.tensor([-1.0, -2.0])).tolist() == [0, 0]


def test_a_forbidden_entry_may_be_semicontinuous() -> None:
    program = IntegerProgram(lower=[2, 2, 0], upper=[5, 4, 3], semicontinuous=[1, 1, 0], A_ub=[[1, 1, 1]], b_ub=[7])
    theta = torch.tensor([[-torch.inf, 1.0, 0.5], [3.0, -torch.inf, 0.5]], dtype=torch.float64)
    for name in ("highs", "scipy.milp", "ortools.cp_sat"):
        solutions = mapgrad.get_solver(name, program).solve(theta)
        assert solutions.z.tolist() == [[0, 4, 3], [5, 0, 2]], name


FILE = """\
NAME features
ROWS
 N cost
 L c1
 G c2
COLUMNS
 m 'MARKER' 'INTORG'
 b cost 1 c1 1
 k c1 1
 m 'MARKER' 'INTEND'
 x cost 2 c1 1
 x c2 1
 y c2 -1
RHS
 rhs c1 8 c2 1
RANGES
 rng c2 3
BOUNDS
 UP bnd b 1
 SC bnd x 4
 LO bnd x 2
 SI bnd k 9
{y}SOS
 S1 SOS first
 SOS b 1
 SOS k 2
 S2 second
 x 3
 y 1
 b 2
INDICATORS
 IF c2 b 0
ENDATA
"""


@pytest.mark.parametrize(
    ("line", "upper", "semicontinuous"),
    [("", np.inf, False), (" SC bnd y 1e30\n", np.inf, True), (" UP bnd y 7\n", 7, False)],
)
def test_files_hold_features(tmp_path: Path, line: str, upper: float, semicontinuous: bool) -> None:
    path = tmp_path / "features.mps"
    path.write_text(FILE.format(y=line))
    expected = IntegerProgram(
        A_ub=[[1, 1, 1, 0]],
        b_ub=[8],
        lower=[0, 0, 2, 0],
        upper=[1, 9, 4, upper],
        integrality=[1, 1, 0, 0],
        semicontinuous=[0, 1, 1, semicontinuous],
        sos=[(1, [0, 1], [1, 2]), (2, [2, 3, 0], [3, 1, 2])],
        indicators=[(0, 0, [0, 0, 1, -1], 1, 4)],
    )
    program = IntegerProgram.from_mps(path)
    assert program == expected
    program.to_mps(tmp_path / "again.mps")
    assert IntegerProgram.from_mps(tmp_path / "again.mps") == expected


def test_a_set_that_begins_like_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.mps"
    path.write_text(re.sub(r"\bk\b", "S1", FILE.format(y="")))
    with pytest.raises(ProblemError, match=r"line 24: 'S1' begins a set, but is a column too: give it another name"):
        IntegerProgram.from_mps(path)
