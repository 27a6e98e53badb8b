"""Exact oracles: what estimators are measured against, and Gibbs laws to learn with.

`oracle` picks what fits a problem: dynamic programs, elimination, decision diagrams or enumeration. All are computed in
float64 on θ's device and returned in θ's dtype; all but states are differentiable in θ.
"""

from mapgrad.exact._choice import entropy, kl_to_uniform, log_partition, marginals, oracle, sample
from mapgrad.exact._diagram import Diagram
from mapgrad.exact._enumeration import enumerate_states, expectation, gradient, map_state, probabilities
from mapgrad.exact._oracle import Oracle
from mapgrad.exact._perturbed import topk_marginals, topk_probabilities

__all__ = [
    "Diagram",
    "Oracle",
    "entropy",
    "enumerate_states",
    "expectation",
    "gradient",
    "kl_to_uniform",
    "log_partition",
    "map_state",
    "marginals",
    "oracle",
    "probabilities",
    "sample",
    "topk_marginals",
    "topk_probabilities",
]
