"""How a batch is solved: rows, workers, staging and what happens to a row that fails."""

from mapgrad.batching._bound import Known
from mapgrad.batching._per_row import group_rows
from mapgrad.batching._rows import compute_dtype, require_finite, require_float, require_representable
from mapgrad.batching._solver import Solver, get_solver

__all__ = [
    "Known",
    "Solver",
    "compute_dtype",
    "get_solver",
    "group_rows",
    "require_finite",
    "require_float",
    "require_representable",
]
