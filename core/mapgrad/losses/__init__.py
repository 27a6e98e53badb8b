"""Losses for a network that predicts θ: from true costs or true states to a number with a gradient, and regret.

Each loss is a module around a `Solver`, whose work it has done on the same road as a layer, and its gradient is exact:
the states are constants of a function of θ.
"""

from mapgrad.losses._cave import CaVE
from mapgrad.losses._directional_gradient import DirectionalGradient
from mapgrad.losses._fenchel_young import FenchelYoung
from mapgrad.losses._lava import LAVA
from mapgrad.losses._listwise_ranking import ListwiseRanking
from mapgrad.losses._loss import Loss
from mapgrad.losses._map_contrastive import MAPContrastive
from mapgrad.losses._noise_contrastive import NoiseContrastive
from mapgrad.losses._pairwise_ranking import PairwiseRanking
from mapgrad.losses._pointwise_ranking import PointwiseRanking
from mapgrad.losses._pooled import PooledLoss
from mapgrad.losses._regret import Regret, normalized_regret, regret
from mapgrad.losses._regularisers import Gibbs, Quadratic, Regulariser
from mapgrad.losses._spo_plus import SPOPlus
from mapgrad.losses._structured_svm import StructuredSVM

__all__ = [
    "LAVA",
    "CaVE",
    "DirectionalGradient",
    "FenchelYoung",
    "Gibbs",
    "ListwiseRanking",
    "Loss",
    "MAPContrastive",
    "NoiseContrastive",
    "PairwiseRanking",
    "PointwiseRanking",
    "PooledLoss",
    "Quadratic",
    "Regret",
    "Regulariser",
    "SPOPlus",
    "StructuredSVM",
    "normalized_regret",
    "regret",
]
