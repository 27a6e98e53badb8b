"""Gradient estimators, a file each: what is solved in the forward pass, and which gradient comes back."""

from mapgrad.gradients.estimators._adaptive_imle import AdaptiveIMLE
from mapgrad.gradients.estimators._blackbox import Blackbox
from mapgrad.gradients.estimators._checks import require_same_problem
from mapgrad.gradients.estimators._default import default_for
from mapgrad.gradients.estimators._estimator import Estimator, Forward, Solve
from mapgrad.gradients.estimators._exact import Exact
from mapgrad.gradients.estimators._frank_wolfe import FrankWolfe
from mapgrad.gradients.estimators._identity import Identity
from mapgrad.gradients.estimators._imle import IMLE
from mapgrad.gradients.estimators._line import Line
from mapgrad.gradients.estimators._log_density import LogDensity
from mapgrad.gradients.estimators._multi_fidelity import MultiFidelity
from mapgrad.gradients.estimators._perturbed import Perturbed
from mapgrad.gradients.estimators._pooled import Pooled
from mapgrad.gradients.estimators._straight_through import StraightThrough
from mapgrad.gradients.estimators._two_sided import TwoSided

__all__ = [
    "IMLE",
    "AdaptiveIMLE",
    "Blackbox",
    "Estimator",
    "Exact",
    "Forward",
    "FrankWolfe",
    "Identity",
    "Line",
    "LogDensity",
    "MultiFidelity",
    "Perturbed",
    "Pooled",
    "Solve",
    "StraightThrough",
    "TwoSided",
    "default_for",
    "require_same_problem",
]
