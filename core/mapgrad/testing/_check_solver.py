"""Three ways to check all laws: a call, a generator and a pytest decorator."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mapgrad.errors import ConformanceError
from mapgrad.testing import _contract_laws, _engine_law, _forbidden_laws, _laws, _limits_law, _thread_laws
from mapgrad.testing._case import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import pytest

    from mapgrad.problems import Problem
    from mapgrad.solvers import SolverLike
    from mapgrad.testing._case import Law, Outcome

LAWS: Final[tuple[Law, ...]] = (
    _contract_laws.check_plain_rows,
    _contract_laws.check_theta_unwritten,
    _laws.check_feasible,
    _laws.check_deterministic,
    _laws.check_batch_equals_rows,
    _laws.check_history_free,
    _laws.check_optimal,
    _laws.check_ties,
    _laws.check_scale_invariant,
    _laws.check_shape_dtype_device,
    _laws.check_unbatched,
    _laws.check_empty_batch,
    _laws.check_non_contiguous,
    _laws.check_non_finite_refused,
    _forbidden_laws.check_forbidden_entries,
    _laws.check_wrong_shape_refused,
    _contract_laws.check_solve_rows,
    _laws.check_threads_equal_serial,
    _laws.check_gradient,
    _laws.check_reuse,
    _laws.check_per_row_problems,
    _limits_law.check_limits_by_row,
    _laws.check_time_limit,
    _contract_laws.check_limits_apart,
    _contract_laws.check_patience,
    _engine_law.check_engine_answers,
    _laws.check_infeasible,
    _thread_laws.check_releases_gil,
    _thread_laws.check_ends_in_time,
    _thread_laws.check_stop,
)
"""All laws, in the order in which `check_solver` tries them."""


def check_solver(solver: SolverLike, problem: Problem, **options: Any) -> list[Outcome]:
    """Check that a solver keeps every law on a problem; stop at the first that it breaks.

    Args:
        solver: A name, or a class or object in place of one.
        problem: A problem that the solver takes, small enough to enumerate.
        options: As for `mapgrad.get_solver`, except that the kit sets ``merge``, ``on_error`` and ``domain`` itself, as
            it does ``time_limit`` and ``reuse`` in the laws on them. ``workers`` concerns
            `check_threads_equal_serial` alone. ``slow_problem``, a problem of which a row takes the solver some
            seconds, is for `check_releases_gil`, `check_ends_in_time` and `check_stop`; solvers of integer programs do
            without.

    Returns:
        One outcome for each law: that it is kept, with what was left out, or that it doesn't apply, and why.

    Raises:
        ConformanceError: A law is broken; the message has the numbers, the attribute `law` its name.
        ProblemError: The problem has too many states to enumerate, so that nothing could be compared with the truth.
        MapgradError: As for `mapgrad.get_solver`.
    """
    return [check() for _, check in iter_checks(solver, problem, **options)]


def iter_checks(solver: SolverLike, problem: Problem, **options: Any) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    """Yield the name of each law and a function that checks it and returns the outcome.

    Nothing is solved or imported before it is called.

    Args:
        solver: As for `check_solver`.
        problem: As for `check_solver`.
        options: As for `check_solver`.
    """
    for law in LAWS:
        yield law.__name__.removeprefix("check_"), partial(law, solver, problem, **options)


def parametrize_with_checks(
    cases: Iterable[tuple[SolverLike, Problem]],
    expected_failures: Mapping[str, str] | None = None,
    **options: Any,
) -> pytest.MarkDecorator:
    """Give a test one check at a time: a pytest decorator.

    ::

        @parametrize_with_checks([("my_plugin", KSubset(5, 2)), (MySolver, KSubset(4, 4))])
        def test_conformance(check):
            check()

    A law that doesn't apply is a skipped test, with the reason. The tests are called ``solver-problem-law``, as in
    ``my_plugin-KSubset-feasible``; several problems of one class with one solver are numbered, as in ``KSubset2``.

    Args:
        cases: Solvers, each with a problem, as for `check_solver`.
        expected_failures: Laws that are known to be broken, each with the reason: the name of a law, or a pattern for
            the names of the tests in which ``*`` stands for any text. A check that passes all the same is reported as
            a failure.
        options: As for `check_solver`, the same for all cases.

    Raises:
        ValueError: There are no cases, or an expected failure is the name of no test.
    """
    import pytest

    failures = dict(expected_failures or {})
    unused = set(failures)
    numbers: Counter[tuple[str, str]] = Counter()
    parameters: list[Any] = []
    for solver, problem in cases:
        names = name_of(solver), type(problem).__name__
        numbers[names] += 1
        number = str(numbers[names]) if numbers[names] > 1 else ""
        for law, check in iter_checks(solver, problem, **options):
            name = f"{names[0]}-{names[1]}{number}-{law}"
            known = [key for key in failures if key == law or fnmatchcase(name, key)]
            unused.difference_update(known)
            marks = [pytest.mark.xfail(reason=failures[key], raises=ConformanceError, strict=True) for key in known[:1]]
            parameters.append(pytest.param(_or_skip(check), id=name, marks=marks))
    if not parameters:
        raise ValueError("there are no cases, so that pytest would run nothing: give solvers, each with a problem")
    if unused:
        raise ValueError(f"no test is called {', '.join(map(repr, sorted(unused)))}: correct the expected failures")
    return pytest.mark.parametrize("check", parameters)


def _or_skip(check: Callable[[], Outcome]) -> Callable[[], None]:
    import pytest

    def run() -> None:
        outcome = check()
        if not outcome.applies:
            pytest.skip(outcome.result)

    return run
