"""How a batch is solved: one road of named stages, from a user's tensor to a solver and back."""

from mapgrad.batching._at_work import SolverAtWork
from mapgrad.batching._byte_cache import ByteCache
from mapgrad.batching._clock import Clock, thread_state
from mapgrad.batching._exported import exported, without_gradient
from mapgrad.batching._families import group_rows
from mapgrad.batching._get_solver import get_solver
from mapgrad.batching._handles import find, new_handle
from mapgrad.batching._host import Staged
from mapgrad.batching._op import define
from mapgrad.batching._policy import ErrorPolicy, FailedRow, describe_failed, error_of
from mapgrad.batching._proofs import Known, row_hashes
from mapgrad.batching._record import Record
from mapgrad.batching._saved import is_readable, text_of_saved
from mapgrad.batching._settings import require_bool, require_minimize, require_seconds
from mapgrad.batching._solver import Solver
from mapgrad.batching._theta import (
    Culprit,
    admit,
    are_finite,
    compute_dtype,
    full_precision,
    has_forbidden,
    name_problem,
    name_rows,
    non_finite_error,
    require_float,
    row_numbers,
    to_list,
)
from mapgrad.batching._tracing import (
    hides_values,
    is_differentiated,
    is_in_backward,
    is_in_compiled_autograd,
    is_mapped,
    is_traced,
    may_be_repeated,
    without_transforms,
)
from mapgrad.batching._users_level import users_level

__all__ = [
    "ByteCache",
    "Clock",
    "Culprit",
    "ErrorPolicy",
    "FailedRow",
    "Known",
    "Record",
    "Solver",
    "SolverAtWork",
    "Staged",
    "admit",
    "are_finite",
    "compute_dtype",
    "define",
    "describe_failed",
    "error_of",
    "exported",
    "find",
    "full_precision",
    "get_solver",
    "group_rows",
    "has_forbidden",
    "hides_values",
    "is_differentiated",
    "is_in_backward",
    "is_in_compiled_autograd",
    "is_mapped",
    "is_readable",
    "is_traced",
    "may_be_repeated",
    "name_problem",
    "name_rows",
    "new_handle",
    "non_finite_error",
    "require_bool",
    "require_float",
    "require_minimize",
    "require_seconds",
    "row_hashes",
    "row_numbers",
    "text_of_saved",
    "thread_state",
    "to_list",
    "users_level",
    "without_gradient",
    "without_transforms",
]
