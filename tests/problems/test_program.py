from __future__ import annotations

import itertools
import pickle
import re
import sys
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult
from scipy.sparse import csr_array

from mapgrad.errors import InfeasibleError, MissingDependencyError, ProblemError, UndecidedError
from mapgrad.problems import Domain, IntegerProgram, SparseRows

if TYPE_CHECKING:
    from collections.abc import Callable

    Maximise = Callable[[IntegerProgram, np.ndarray], tuple[float, np.ndarray] | None]

coefficient = st.integers(-3, 3)


@st.composite
def programs(draw: st.DrawFn, *, priced: bool) -> IntegerProgram:
    """Small programs whose last variable may be continuous and unbounded, and isn't priced then."""
    n = draw(st.integers(1, 4))
    lower = [draw(st.integers(-2, 1)) for _ in range(n)]
    upper = [low + draw(st.integers(0, 3)) for low in lower]
    integrality = [1] * n
    decision = draw(st.permutations(range(n)))
    if not priced:
        decision = [column for column in decision[: draw(st.integers(1, n))] if column != n - 1] or [0]
        if n - 1 > 0:
            integrality[-1] = draw(st.integers(0, 1))
            lower[-1] = draw(st.sampled_from([lower[-1], -np.inf])) if not integrality[-1] else lower[-1]
            upper[-1] = draw(st.sampled_from([upper[-1], np.inf])) if not integrality[-1] else upper[-1]
    row = st.tuples(st.lists(coefficient, min_size=n, max_size=n), st.integers(-4, 6))
    rows = {"ub": draw(st.lists(row, max_size=3)), "eq": draw(st.lists(row, max_size=1))}
    given = {f"A_{kind}": [a for a, _ in some] for kind, some in rows.items() if some}
    given |= {f"b_{kind}": [b for _, b in some] for kind, some in rows.items() if some}
    return IntegerProgram(**given, lower=lower, upper=upper, integrality=integrality, decision=decision)


def points_of(program: IntegerProgram) -> Any:
    columns = program.decision.tolist()
    return itertools.product(*(range(int(program.lower[j]), int(program.upper[j]) + 1) for j in columns))


def quotient(number: float, divisor: int) -> float | Fraction:
    return number / divisor if np.isinf(number) else Fraction(int(number), divisor)


def completable(program: IntegerProgram, z: tuple[int, ...]) -> bool:
    """Decide membership exactly: try the other integer variables, and keep the interval of a continuous one."""
    whole = [j for j in program.others.tolist() if program.integrality[j]]
    free = next((j for j in program.others.tolist() if not program.integrality[j]), None)
    ranges = (range(int(program.lower[j]), int(program.upper[j]) + 1) for j in whole)
    for values in itertools.product(*ranges):
        x = dict(zip([*program.decision.tolist(), *whole], [*z, *values], strict=True))
        least, most = (0, 0) if free is None else (program.lower[free], program.upper[free])
        for row, *sides in zip(program.matrix.toarray(), program.row_lower, program.row_upper, strict=True):
            low, high = (side - sum(int(row[j]) * value for j, value in x.items()) for side in sides)
            slope = 0 if free is None else int(row[free])
            if slope:
                low, high = sorted((quotient(low, slope), quotient(high, slope)))
                least, most = max(least, low), min(most, high)
            elif not low <= 0 <= high:
                least, most = 1, 0
        if least <= most:
            return True
    return False


@given(programs(priced=True))
@settings(max_examples=80, deadline=None)
def test_states_of_integer_programs_are_all_points_that_keep_the_rows(program: IntegerProgram) -> None:
    points = np.array(list(points_of(program)))
    x = np.zeros((len(points), program.num_vars))
    x[:, program.decision] = points
    activity = x @ program.matrix.toarray().T
    truth = ((activity >= program.row_lower) & (activity <= program.row_upper)).all(axis=1)
    assert program.contains(torch.as_tensor(points)).tolist() == truth.tolist()
    if truth.any():
        assert program.states().tolist() == points[truth].tolist()
    else:
        with pytest.raises(InfeasibleError, match=r"has no state: its constraints contradict each other"):
            program.states()


@given(programs(priced=False))
@settings(max_examples=80, deadline=None)
def test_a_state_is_what_some_values_of_the_other_variables_complete(program: IntegerProgram) -> None:
    points = list(points_of(program))
    truth = [completable(program, point) for point in points]
    assert program.contains(torch.tensor(points)).tolist() == truth
    if any(truth):
        assert program.states().tolist() == [list(point) for point, true in zip(points, truth, strict=True) if true]


@pytest.mark.parametrize("seed", range(30))
def test_the_best_state_is_the_optimum_of_the_full_program(seed: int, maximise: Maximise) -> None:
    rng = np.random.default_rng(seed)
    n, m = 7, 4
    program = IntegerProgram(
        A_ub=rng.integers(-3, 6, (m, n)),
        b_ub=rng.integers(2, 12, m),
        A_eq=rng.integers(-1, 2, (1, n)),
        b_eq=[1],
        upper=rng.integers(1, 4, n),
        integrality=rng.permutation([1, 1, 1, 1, 1, 1, 0]) if seed % 2 else 1,
    )
    whole = np.flatnonzero(program.integrality)
    program = IntegerProgram(
        **{name: getattr(program, name) for name in ("A_ub", "b_ub", "A_eq", "b_eq", "lower", "upper", "integrality")},
        decision=rng.permutation(whole)[:4],
        shape=(2, 2),
    )
    theta = rng.normal(size=(1, 2, 2))
    answer = maximise(program.full(), program.embed(theta)[0])
    if answer is None:
        with pytest.raises(InfeasibleError):
            program.states()
        return
    states = program.states()
    best, x = answer
    assert (states * torch.as_tensor(theta[0])).sum((1, 2)).max().item() == pytest.approx(best, abs=1e-9)
    assert program.contains(torch.as_tensor(program.extract(x[None]))).all()


def test_attributes_of_a_program() -> None:
    program = IntegerProgram(
        A_ub=[[1, 0, 2, 0], [3, 3, 3, 3]],
        b_ub=[4, np.inf],
        A_eq=[[0, 1, 0, -1]],
        b_eq=[0.5],
        lower=[-1.5, -np.inf, 0, 0],
        upper=[np.inf, 2.5, 1, 0.25],
        integrality=[1, 0, 1, 0],
        decision=[2, 0],
        fixed=[0.25, -3],
        shape=(2, 1),
    )
    assert program.num_vars == 4
    assert program.matrix.shape == (2, 4)
    assert program.matrix.toarray().tolist() == [[1, 0, 2, 0], [0, 1, 0, -1]]
    assert program.row_lower.tolist() == [-np.inf, 0.5]
    assert program.row_upper.tolist() == [4, 0.5]
    assert program.lower.tolist() == [-1, -np.inf, 0, 0]
    assert program.upper.tolist() == [np.inf, 2.5, 1, 0.25]
    assert program.integrality.tolist() == [True, False, True, False]
    assert (program.decision.tolist(), program.others.tolist()) == ([2, 0], [1, 3])
    assert program.fixed.tolist() == [0.25, -3]
    assert program.shape == (2, 1)
    assert [bound.tolist() for bound in program.bounds] == [[[0], [-1]], [[1], [np.inf]]]
    assert program.largest == 1
    assert program.domain is Domain.REAL
    assert program.to_ilp() is program
    assert (program.objective, program.offset) == (None, 0)
    arrays = [program.row_lower, program.row_upper, program.lower, program.upper, program.decision, program.others]
    for array in (*arrays, program.integrality, program.fixed, program.b_ub, program.b_eq):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_full_form_prices_every_variable() -> None:
    program = IntegerProgram(
        A_ub=[[1, 2, 3]],
        b_ub=[4],
        upper=[1, 2, np.inf],
        integrality=[1, 1, 0],
        decision=[2, 0],
        fixed=[5],
        shape=(1, 2),
    )
    full = program.full()
    assert full == IntegerProgram(A_ub=[[1, 2, 3]], b_ub=[4], upper=[1, 2, np.inf], integrality=[1, 1, 0])
    assert full.full() is full
    assert full.shape == (3,)
    theta = np.array([[[1.0, 2.0]], [[3.0, 4.0]]])
    assert program.embed(theta).tolist() == [[2, 5, 1], [4, 5, 3]]
    assert program.extract(program.embed(theta)).tolist() == theta.tolist()
    assert program.embed(np.empty((0, 1, 2))).shape == (0, 3)
    assert program.extract(np.empty((0, 3))).shape == (0, 1, 2)
    assert IntegerProgram(lower=[0, 0], shape=(2, 1)).full().shape == (2,)
    assert IntegerProgram(lower=[0, 0], decision=[1, 0]).full().decision.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("program", "kappa"),
    [
        (IntegerProgram(lower=np.zeros(10)), 5),
        (IntegerProgram(lower=np.zeros(10), decision=[3, 4, 5]), 1.5),
        (IntegerProgram(lower=np.zeros(4), upper=[1, 2, 3, 1]), 1),
        (IntegerProgram(lower=np.zeros(4), integrality=0), 1),
        (IntegerProgram(lower=[-0.5], upper=[1.5]), 1),
    ],
    ids=repr,
)
def test_kappa_is_half_the_priced_binary_variables(program: IntegerProgram, kappa: float) -> None:
    assert program.kappa == kappa


def test_tolerances_are_relative_to_the_terms_of_a_row() -> None:
    def holds(row: list[float], bound: float, z: list[float], **kinds: Any) -> bool:
        return bool(IntegerProgram(A_ub=[row], b_ub=[bound], upper=np.inf, **kinds).contains(torch.tensor(z).double()))

    for scale in (1e-9, 1.0, 1e9):
        assert holds([scale, scale], scale, [0.5, 0.5 + 5e-7], integrality=0)
        assert not holds([scale, scale], scale, [0.5, 0.5 + 5e-6], integrality=0)
        assert holds([0.1 * scale, 0.2 * scale], 0.3 * scale, [1, 1])
        assert not holds([0.1 * scale, 0.2 * scale], (0.3 - 1e-8) * scale, [1, 1])
        assert holds([scale, -scale], 0, [1000, 1000 - 5e-4], integrality=0)
    assert not holds([1, 1e10], 1e10, [1, 1])
    assert holds([1, 1e10], 1e10 + 1, [1, 1])
    assert holds([1, 1], 2, [1 + 5e-7, 1 - 5e-7])
    assert not holds([1, 1], 5, [1 + 5e-6, 1])
    assert holds([1, 1], 5, [-5e-7, 1], integrality=0)
    assert not holds([1, 1], 5, [-5e-6, 1], integrality=0)
    assert not holds([1, 1], 5, [np.inf, 1])
    assert not holds([1, 1], 5, [np.nan, 1], integrality=0)


def test_pickle_keeps_what_a_file_said_beside_the_constraints() -> None:
    program = IntegerProgram(A_ub=[[1, 2]], b_ub=[2], decision=[1])
    vars(program).update(objective=np.array([1.0, 2.0]), offset=3.0)
    twin = pickle.loads(pickle.dumps(program))
    for again in (twin, twin.full()):
        assert again.objective.tolist() == [1, 2]
        assert again.offset == 3
        with pytest.raises(ValueError, match="read-only"):
            again.objective[0] = 5
    assert twin == program == IntegerProgram(A_ub=[[1, 2]], b_ub=[2], decision=[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "how many variables there are can't be told: give one of A_ub, A_eq, lower, upper, integrality an entry"),
        ({"A_ub": np.empty((0, 0)), "b_ub": []}, "A_ub has shape (0, 0): a program needs at least one variable"),
        ({"lower": []}, "lower has shape (0,): a program needs at least one variable"),
        ({"A_ub": [1, 2], "b_ub": [1]}, "A_ub must have shape [rows, variables] with at least one variable, got (2,)"),
        ({"A_ub": [[1, 2]]}, "A_ub came without b_ub: give both or neither"),
        ({"A_ub": [[1, 2]], "b_eq": [1], "b_ub": [1]}, "b_eq came without A_eq: give both or neither"),
        ({"A_ub": [[1, 2], [3]], "b_ub": [1, 1]}, "A_ub must be numbers in a rectangular array, got [[1, 2], [3]]"),
        ({"A_ub": [["a", "b"]], "b_ub": [1]}, "A_ub must hold real numbers, got dtype <U1"),
        ({"A_ub": [[1j, 0]], "b_ub": [1]}, "A_ub must hold real numbers, got dtype complex128"),
        ({"A_ub": [[1, np.nan]], "b_ub": [1]}, "A_ub must hold numbers, got NaN at [0, 1]"),
        ({"A_ub": [[1, np.inf]], "b_ub": [1]}, "A_ub: entry inf at row 0, column 1 is not finite, as every entry must"),
        ({"A_ub": csr_array([[1, np.nan]]), "b_ub": [1]}, "A_ub must hold numbers, got NaN at [1]"),
        ({"A_ub": [[1, 2]], "b_ub": [1, 2]}, "b_ub must hold one number for each of 1 rows, got (2,)"),
        ({"A_ub": [[1, 2]], "b_ub": [np.nan]}, "b_ub must hold numbers, got NaN at [0]"),
        ({"A_ub": [[1, 2]] * 2, "b_ub": [0, -np.inf]}, "b_ub is -inf in row 1: no x meets that row"),
        ({"A_eq": [[1, 2]] * 2, "b_eq": [0, np.inf]}, "b_eq is inf in row 1: no x meets that row"),
        ({"A_ub": [[1, 2]], "b_ub": [1], "A_eq": [[1]], "b_eq": [1]}, "A_eq has 1 columns, but there are 2 variables"),
        (
            {"A_ub": SparseRows([], [], [0, 0], (1, 2)), "b_ub": [1], "lower": [0, 0, 0]},
            "lower must be one number or one for each of 2 variables, got shape (3,)",
        ),
        ({"lower": [0, 0], "upper": [[1, 1]]}, "upper must be one number or one for each of 2 variables, got shape (1"),
        ({"lower": [0, None]}, "lower must hold real numbers, got dtype object (use numpy.inf for no bound)"),
        ({"lower": [0, np.nan]}, "lower must hold numbers, got NaN at [1]"),
        ({"lower": [0], "upper": np.nan}, "upper must hold numbers, got NaN"),
        (
            {"lower": [0, 2], "upper": 1, "integrality": 0},
            "no number lies within the bounds of variable 1, lower=2 and upper=1",
        ),
        (
            {"lower": [0, 0.2], "upper": 0.8},
            "no integer lies within the bounds of variable 1, lower=0.2 and upper=0.8",
        ),
        ({"lower": [np.inf], "upper": np.inf}, "no integer lies within the bounds of variable 0, lower=inf and upper="),
        ({"lower": [0, 0], "integrality": [0, 2]}, "integrality must be 0 (continuous) or 1 (integer), got 2 for vari"),
        ({"lower": [0, 0], "integrality": 3}, "semi-continuous and semi-integer variables have a 1 in semicontinuous"),
        ({"lower": [0, 0], "integrality": [1]}, "integrality must be one number or one for each of 2 variables, got"),
        ({"lower": [0, 0], "decision": []}, "decision must be a list of at least one column, got shape (0,) and dtype"),
        ({"lower": [0, 0], "decision": [True, False]}, "at least one column, got shape (2,) and dtype bool"),
        ({"lower": [0, 0], "decision": 1}, "decision must be a list of at least one column, got shape () and dtype"),
        ({"lower": [0, 0], "decision": [1, 2]}, "decision must hold columns in 0..1, got 2"),
        ({"lower": [0, 0], "decision": [-1]}, "decision must hold columns in 0..1, got -1"),
        ({"lower": [0, 0], "decision": [1, 0, 1]}, "decision must hold distinct columns, got 1 more than once"),
        ({"lower": [0, 0], "fixed": [1]}, "fixed must hold one utility for each of 0 variables, got shape (1,)"),
        ({"lower": [0, 0], "decision": [1], "fixed": 3}, "fixed must hold one utility for each of 1 variables, got sh"),
        ({"lower": [0, 0], "decision": [1], "fixed": [np.inf]}, "fixed must hold finite utilities, got inf"),
        ({"lower": [0, 0], "shape": (3,)}, "shape is (3,), but θ prices 2 variables: the product of its lengths must"),
        ({"lower": [0], "shape": ()}, "shape is (), but θ prices 1 variables: the product of its lengths must be that"),
        ({"lower": [0, 0], "shape": (-1, -2)}, "each length of shape must be an integer ≥ 1, got -1 (int)"),
        ({"lower": [0, 0], "shape": 2.0}, "each length of shape must be an integer ≥ 1, got 2.0 (float)"),
    ],
)
def test_malformed_programs_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(message)):
        IntegerProgram(**arguments)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (IntegerProgram(lower=[0, 0], integrality=[1, 0]), "prices continuous variables: its states can't be enumer"),
        (IntegerProgram(lower=[0, 0], upper=[1, np.inf]), "prices variables without bounds: its states can't be enum"),
        (IntegerProgram(lower=np.zeros(20)), r"has more than 100,000 states: too many to enumerate"),
        (IntegerProgram(lower=[0, 0], upper=1e9), "takes more than 10,000,000 steps to enumerate: make it smaller"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value),
)
def test_sets_that_are_no_small_lists_are_refused(program: IntegerProgram, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        program.states()


def test_long_searches_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mapgrad.problems._base._STATES_STEPS", 12_345)
    with pytest.raises(
        ProblemError, match=r"b_eq=\[31.0\]\) takes more than 12,345 steps to enumerate: make it smaller"
    ):
        IntegerProgram(A_eq=[[2] * 40], b_eq=[31]).states()
    with pytest.raises(ProblemError, match="takes more than 12,345 steps"):
        IntegerProgram(A_ub=[[1, 1, 1, 1, -1]], b_ub=[4], decision=range(4)).states()


def test_rows_keep_the_search_small() -> None:
    """Of 2⁴⁰ points one row leaves 41, another one 40."""
    program = IntegerProgram(A_ub=[np.ones(40), -np.arange(40)], b_ub=[1, 0])
    assert len(program.states()) == 41
    program = IntegerProgram(A_ub=[np.ones(40)], b_ub=[1], A_eq=[np.ones(40)], b_eq=[1])
    assert len(program.states()) == 40


def test_continuous_variables_are_members_too() -> None:
    program = IntegerProgram(A_eq=[[1, 1]], b_eq=[1], integrality=[1, 0], upper=[2, 1])
    z = torch.tensor([[1, 0.0], [0.5, 0.5], [0, 1], [2, -1], [1, 0.25]])
    assert program.contains(z).tolist() == [True, False, True, False, False]
    program = IntegerProgram(A_eq=[[1, 1]], b_eq=[1], integrality=0)
    assert program.contains(z).tolist() == [True, True, True, False, False]


def test_membership_of_a_projection_needs_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    program = IntegerProgram(A_ub=[[1, -1]], b_ub=[0], upper=[1, 5_000], decision=[0])
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    message = r"variables that θ doesn't price, a program needs scipy: pip install 'mapgrad\[scipy\]'"
    with pytest.raises(MissingDependencyError, match=message):
        program.contains(torch.tensor([1]))
    assert program.contains(torch.tensor([2])).item() is False
    assert program.full().contains(torch.tensor([[1, 1], [1, 0]])).tolist() == [True, False]


def test_an_error_of_presolve_is_no_answer() -> None:
    """With presolve, HiGHS 1.12 ends this completion with «Solve error»."""
    program = IntegerProgram(
        A_ub=[[1, 3, -2], [1, 3, -3]],
        b_ub=[0, 3],
        lower=[1, -1, -np.inf],
        upper=[3, -1, np.inf],
        integrality=[1, 1, 0],
        decision=[1],
    )
    assert program.contains(torch.tensor([-1])).item() is True


def test_a_search_that_gives_up_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    gave_up = OptimizeResult(x=None, status=1, message="node limit reached")
    monkeypatch.setattr("scipy.optimize.milp", lambda *_, **__: gave_up)
    with pytest.raises(UndecidedError, match="whether z can be completed isn't known: SciPy's milp says 'node limit"):
        IntegerProgram(A_ub=[[1, -1]], b_ub=[0], upper=[1, 5_000], decision=[0]).contains(torch.tensor([1]))


@pytest.mark.parametrize("bits", [0, 10])
def test_rows_scaled_to_one_magnitude_are_the_same_rows(bits: int) -> None:
    program = IntegerProgram(
        A_ub=[[3, -0.1, 0], [0, 0, 0], [1e-9, 0, 2 / 3 * 1e-12]], b_ub=[5, 1, 3e-9], A_eq=[[0, 7e8, 1]], b_eq=[2]
    )
    scaled = program.scaled(bits)
    rows, sides = scaled.matrix.toarray(), scaled.row_upper
    largest = np.abs(rows).max(axis=1)
    assert largest[1] == 0
    assert ((largest[[0, 2, 3]] >= 2**bits) & (largest[[0, 2, 3]] < 2 ** (bits + 1))).all()
    in_integers = np.array([[30, -1, 0], [0, 0, 0], [1e-9, 0, 2 / 3 * 1e-12], [0, 7e8, 1]])
    ratio = sides / np.array([50, 1, 3e-9, 2])
    np.testing.assert_array_equal(np.log2(ratio), np.log2(ratio).round())
    np.testing.assert_array_equal(rows, ratio[:, None] * in_integers)
    np.testing.assert_array_equal(scaled.row_lower, np.array([-np.inf, -np.inf, -np.inf, sides[3]]))


@pytest.mark.parametrize("seed", range(12))
def test_the_size_of_rows_says_nothing(seed: int) -> None:
    """The same set, whatever its rows are multiplied by: unpriced variables are found for the same states."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-30, 31, (2, 5)) / 10
    sides = matrix @ np.append(rng.integers(0, 2, 2), rng.random(3)) + rng.choice([0, 0.01, 0.3], 2)
    kind = "eq" if seed % 2 else "ub"
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]])
    found = set[tuple[bool, ...]]()
    for factor in (1.0, 1e-4, 1e-7, 1e-12, 1e12):
        rows: Any = {f"A_{kind}": matrix * factor, f"b_{kind}": sides * factor}
        program = IntegerProgram(
            **rows, upper=1, integrality=[1, 1, 0, 0, seed % 3 == 0], decision=[0, 1], fixed=rng.random(3)
        )
        inside = program.contains_rows(corners)
        found.add(tuple(inside.tolist()))
        states = np.concatenate([part.reshape(-1, 2) for part in program.iterate_states()]).tolist()
        assert states == corners[inside].tolist()
        program.completion_values(corners[inside])
    assert len(found) == 1


@pytest.mark.parametrize("size", [1e8, 1e9, 1e12])
@pytest.mark.parametrize("most", [1, 5_000])
def test_a_large_coefficient_of_an_unpriced_variable_gives_no_room(size: float, most: int) -> None:
    """Few values are all tried, of many an engine finds the best: the answers are the same."""
    points = np.array([[2.0], [3.0]])
    packed = IntegerProgram(A_ub=[[1, size]], b_ub=[2], upper=[3, most], decision=[0])
    assert packed.contains_rows(points).tolist() == [True, False]
    switched = IntegerProgram(A_ub=[[1, -size], [0, 1]], b_ub=[0, 0], upper=[3, most], decision=[0])
    assert switched.contains_rows(points).tolist() == [False, False]
    assert switched.contains_rows(np.zeros((1, 1))).all()


@pytest.mark.parametrize("size", [1e-300, 1e-9, 1.0, 1e20, 1e300])
@pytest.mark.parametrize("copies", [1, 4])
def test_the_worth_of_a_completion_whatever_its_size(size: float, copies: int) -> None:
    weights, worths = [5, 4, 3] * copies, np.array([5, 4, 3] * copies) * size
    program = IntegerProgram(A_ub=[[1, *weights]], b_ub=[8], decision=[0], fixed=worths)
    assert program.completion_values(np.array([[0.0], [1.0]])).tolist() == pytest.approx(
        [8 * size, 7 * size], rel=1e-12
    )


def test_a_tight_row_leaves_a_completion_its_rounding() -> None:
    rows = [[1 / 3, 1e-7, 0.1, np.pi]]
    program = IntegerProgram(A_ub=rows, b_ub=[0.1 + np.pi + 1e-7], upper=[1, 1, 3, 1], decision=[0, 2, 3], fixed=[5.0])
    assert program.completion_values(np.array([[0.0, 1, 1]])).tolist() == [5]


def test_contains_takes_tensors() -> None:
    with pytest.raises(TypeError, match="contains takes a tensor, got ndarray: contains_rows takes arrays"):
        IntegerProgram(lower=[0]).contains(np.zeros((1, 1)))  # pyright: ignore[reportArgumentType]


def test_many_unpriced_variables_of_one_value_each() -> None:
    program = IntegerProgram(A_ub=[np.ones(101)], b_ub=[100], lower=[0] + [1] * 100, decision=[0], fixed=np.ones(100))
    assert program.contains_rows(np.array([[0.0], [1.0], [1e-7]])).tolist() == [True, False, True]
    assert program.completion_values(np.array([[1e-7]])).tolist() == [100]
