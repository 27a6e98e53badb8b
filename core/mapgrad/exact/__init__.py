"""Exact oracles for small problems, k-subsets and decision diagrams: what estimators and solvers are measured against.

All are computed in float64 on θ's device and returned in θ's dtype; all but states are differentiable in θ.
"""

from mapgrad.exact._diagram import Diagram
from mapgrad.exact._enumeration import (
    enumerate_states,
    expectation,
    gradient,
    log_partition,
    map_state,
    marginals,
    probabilities,
)
from mapgrad.exact._perturbed import topk_marginals

__all__ = [
    "Diagram",
    "enumerate_states",
    "expectation",
    "gradient",
    "log_partition",
    "map_state",
    "marginals",
    "probabilities",
    "topk_marginals",
]
