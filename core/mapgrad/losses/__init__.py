"""Losses for a network that predicts θ: from true costs or true states to a number with a gradient, and regret.

Each loss is a module around a `Solver`, whose work it has done on the same road as a layer, and its gradient is exact:
the solver's states are constants of a piecewise linear function of θ.
"""

from mapgrad.losses._directional_gradient import DirectionalGradient
from mapgrad.losses._fenchel_young import FenchelYoung
from mapgrad.losses._loss import Loss
from mapgrad.losses._regret import Regret, normalized_regret, regret
from mapgrad.losses._spo_plus import SPOPlus
from mapgrad.losses._structured_svm import StructuredSVM

__all__ = [
    "DirectionalGradient",
    "FenchelYoung",
    "Loss",
    "Regret",
    "SPOPlus",
    "StructuredSVM",
    "normalized_regret",
    "regret",
]
