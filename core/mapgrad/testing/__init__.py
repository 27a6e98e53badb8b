"""The conformance kit for plugin authors: laws that every solver keeps, checked against enumeration.

::

    mapgrad.testing.check_solver("my_plugin", mapgrad.KSubset(5, 2))

Three doors lead to one list: `check_solver` raises at the first broken law, `iter_checks` yields the checks one by
one, and `parametrize_with_checks` makes a pytest test of each. Every law is also a function of its own. All of them
are held to truth by enumeration, so that they want small problems; `example_problems` has some.
"""

from mapgrad.testing._doors import check_solver, iter_checks, parametrize_with_checks
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
    check_theta_unwritten,
    check_threads_equal_serial,
    check_ties,
    check_time_limit,
    check_unbatched,
    check_wrong_shape_refused,
)
from mapgrad.testing._problems import example_problems
from mapgrad.testing._reference import BruteForce

__all__ = [
    "BruteForce",
    "check_batch_equals_rows",
    "check_deterministic",
    "check_empty_batch",
    "check_feasible",
    "check_gradient",
    "check_history_free",
    "check_infeasible",
    "check_non_contiguous",
    "check_non_finite_refused",
    "check_optimal",
    "check_per_row_problems",
    "check_reuse",
    "check_scale_invariant",
    "check_shape_dtype_device",
    "check_solver",
    "check_theta_unwritten",
    "check_threads_equal_serial",
    "check_ties",
    "check_time_limit",
    "check_unbatched",
    "check_wrong_shape_refused",
    "example_problems",
    "iter_checks",
    "parametrize_with_checks",
]
