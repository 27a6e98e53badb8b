"""What is solved: frozen, solver-neutral descriptions of feasible sets."""

from mapgrad.problems._base import STATES_LIMIT, Domain, Problem, batch_shape

__all__ = ["STATES_LIMIT", "Domain", "Problem", "batch_shape"]
