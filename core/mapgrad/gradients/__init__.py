"""Which gradient: noise, targets, estimators, and the autograd function around a pass."""

from mapgrad.gradients._adaptive_step import AdaptiveStep
from mapgrad.gradients._centred import Centred
from mapgrad.gradients._context import Context
from mapgrad.gradients._first_order import first_order
from mapgrad.gradients._function import next_key, sample, sample_each, submit
from mapgrad.gradients._laws import Gaussian, Gumbel, Laplace, Logistic
from mapgrad.gradients._monitor import Monitor
from mapgrad.gradients._noise import Noise, StandardNoise, SumOfGamma, log_mean
from mapgrad.gradients._pending import Pending
from mapgrad.gradients._row_ids import first_id, require_row_ids
from mapgrad.gradients._sampler import Sampler
from mapgrad.gradients._steps import KeyStream, seed_of_path
from mapgrad.gradients._targets import Combinatorial, RelativeStep, Step, Target
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
)

__all__ = [
    "IMLE",
    "AdaptiveIMLE",
    "AdaptiveStep",
    "Blackbox",
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
    "Monitor",
    "MultiFidelity",
    "Noise",
    "Pending",
    "Perturbed",
    "Pooled",
    "RelativeStep",
    "Sampler",
    "StandardNoise",
    "Step",
    "StraightThrough",
    "SumOfGamma",
    "Target",
    "first_id",
    "first_order",
    "log_mean",
    "next_key",
    "require_row_ids",
    "sample",
    "sample_each",
    "seed_of_path",
    "submit",
    "widened",
]
