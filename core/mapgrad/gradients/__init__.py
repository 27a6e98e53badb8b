"""Which gradient: noise, targets, estimators, and the one autograd function."""

from mapgrad.gradients._engine import Engine
from mapgrad.gradients._estimators import IMLE, AdaptiveIMLE, Blackbox, Estimator, StraightThrough
from mapgrad.gradients._noise import Gaussian, Gumbel, Laplace, Logistic, Noise, StandardNoise, SumOfGamma
from mapgrad.gradients._ops import ForwardPass
from mapgrad.gradients._targets import AdaptiveStep, Combinatorial, RelativeStep, Step, Target

__all__ = [
    "IMLE",
    "AdaptiveIMLE",
    "AdaptiveStep",
    "Blackbox",
    "Combinatorial",
    "Engine",
    "Estimator",
    "ForwardPass",
    "Gaussian",
    "Gumbel",
    "Laplace",
    "Logistic",
    "Noise",
    "RelativeStep",
    "StandardNoise",
    "Step",
    "StraightThrough",
    "SumOfGamma",
    "Target",
]
