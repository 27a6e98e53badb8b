"""The conformance kit for plugin authors: laws that every solver keeps, checked against enumeration.

::

    mapgrad.testing.check_solver("my_plugin", mapgrad.KSubset(5, 2))

There are three ways in. `check_solver` raises at the first broken law and returns what became of each; `iter_checks`
yields the checks one by one; `parametrize_with_checks` makes a pytest test of each. Every law is also a function of its
own, ``check_<law>(solver, problem, **options)``, which raises `ConformanceError` with the numbers or returns an
`Outcome`. All compare with enumeration, so that they want small problems; `example_problems` has some.

`fuzz_solver` is for solvers of integer programs: it tries random ones of many kinds, whose optimum is known without any
solver, and says how often the answer was right.

What doesn't apply to a solver, such as limits to one that knows none, is never passed in silence: the outcome says
``doesn't apply`` or ``kept; left out``, with the reason, and pytest shows a law that doesn't apply as skipped.
"""

from mapgrad.testing._case import Law
from mapgrad.testing._check_solver import check_solver, iter_checks, parametrize_with_checks
from mapgrad.testing._contract_laws import (
    check_limits_apart,
    check_patience,
    check_plain_rows,
    check_solve_rows,
    check_theta_unwritten,
)
from mapgrad.testing._engine_law import check_engine_answers
from mapgrad.testing._forbidden_laws import check_forbidden_entries
from mapgrad.testing._fuzz import FuzzOutcome, FuzzReport, Verdict, fuzz_solver, iter_fuzz, report_of
from mapgrad.testing._known_programs import KnownProgram
from mapgrad.testing._laws import (
    check_batch_equals_rows,
    check_deterministic,
    check_empty_batch,
    check_feasible,
    check_gradient,
    check_history_free,
    check_infeasible,
    check_non_contiguous,
    check_non_finite_refused,
    check_optimal,
    check_per_row_problems,
    check_reuse,
    check_scale_invariant,
    check_shape_dtype_device,
    check_threads_equal_serial,
    check_ties,
    check_time_limit,
    check_unbatched,
    check_wrong_shape_refused,
)
from mapgrad.testing._limits_law import check_limits_by_row
from mapgrad.testing._outcome import Outcome
from mapgrad.testing._problem_laws import check_problem
from mapgrad.testing._problems import example_problems
from mapgrad.testing._reference import BruteForce
from mapgrad.testing._thread_laws import check_ends_in_time, check_releases_gil, check_stop

__all__ = [
    "BruteForce",
    "FuzzOutcome",
    "FuzzReport",
    "KnownProgram",
    "Law",
    "Outcome",
    "Verdict",
    "check_batch_equals_rows",
    "check_deterministic",
    "check_empty_batch",
    "check_ends_in_time",
    "check_engine_answers",
    "check_feasible",
    "check_forbidden_entries",
    "check_gradient",
    "check_history_free",
    "check_infeasible",
    "check_limits_apart",
    "check_limits_by_row",
    "check_non_contiguous",
    "check_non_finite_refused",
    "check_optimal",
    "check_patience",
    "check_per_row_problems",
    "check_plain_rows",
    "check_problem",
    "check_releases_gil",
    "check_reuse",
    "check_scale_invariant",
    "check_shape_dtype_device",
    "check_solve_rows",
    "check_solver",
    "check_stop",
    "check_theta_unwritten",
    "check_threads_equal_serial",
    "check_ties",
    "check_time_limit",
    "check_unbatched",
    "check_wrong_shape_refused",
    "example_problems",
    "fuzz_solver",
    "iter_checks",
    "iter_fuzz",
    "parametrize_with_checks",
    "report_of",
]
