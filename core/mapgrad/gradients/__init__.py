"""Which gradient: noise, targets, estimators, and the autograd function around a pass."""

from mapgrad.gradients._adaptive_step import AdaptiveStep
from mapgrad.gradients._callbacks import Callback
from mapgrad.gradients._calls import at_work_on, require_no_context
from mapgrad.gradients._centred import Centred
from mapgrad.gradients._context import Context
from mapgrad.gradients._first_order import first_order
from mapgrad.gradients._function import next_key, prepared, sample, submit
from mapgrad.gradients._laws import Gaussian, Gumbel, Laplace, Logistic
from mapgrad.gradients._noise import Noise, StandardNoise, SumOfGamma, has_functions, log_mean, scores
from mapgrad.gradients._observed import Observed
from mapgrad.gradients._owner import Owner
from mapgrad.gradients._pending import Pending
from mapgrad.gradients._problems import sample_problems
from mapgrad.gradients._row_ids import first_id, require_row_ids
from mapgrad.gradients._sampler import Sampler
from mapgrad.gradients._scale import require_scalable, row_scale
from mapgrad.gradients._steps import KeyStream, seed_of_path
from mapgrad.gradients._targets import Combinatorial, RelativeStep, Step, Target
from mapgrad.gradients._temperature import Relative, Temperature, require_multiplier, scale_for
from mapgrad.gradients._widened import widened
from mapgrad.gradients.estimators import (
    IMLE,
    AdaptiveIMLE,
    Blackbox,
    Estimator,
    Exact,
    Forward,
    FrankWolfe,
    Identity,
    Line,
    LogDensity,
    MultiFidelity,
    Perturbed,
    Pooled,
    StraightThrough,
    TwoSided,
    default_for,
    require_same_problem,
)

__all__ = [
    "IMLE",
    "AdaptiveIMLE",
    "AdaptiveStep",
    "Blackbox",
    "Callback",
    "Centred",
    "Combinatorial",
    "Context",
    "Estimator",
    "Exact",
    "Forward",
    "FrankWolfe",
    "Gaussian",
    "Gumbel",
    "Identity",
    "KeyStream",
    "Laplace",
    "Line",
    "LogDensity",
    "Logistic",
    "MultiFidelity",
    "Noise",
    "Observed",
    "Owner",
    "Pending",
    "Perturbed",
    "Pooled",
    "Relative",
    "RelativeStep",
    "Sampler",
    "StandardNoise",
    "Step",
    "StraightThrough",
    "SumOfGamma",
    "Target",
    "Temperature",
    "TwoSided",
    "at_work_on",
    "default_for",
    "first_id",
    "first_order",
    "has_functions",
    "log_mean",
    "next_key",
    "prepared",
    "require_multiplier",
    "require_no_context",
    "require_row_ids",
    "require_same_problem",
    "require_scalable",
    "row_scale",
    "sample",
    "sample_problems",
    "scale_for",
    "scores",
    "seed_of_path",
    "submit",
    "widened",
]
