"""Quantiles of noise laws as float32 cubics, for kernels that make their own noise."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mapgrad.gradients._centred import Centred
from mapgrad.gradients._laws import Gaussian, Gumbel, Laplace, Logistic
from mapgrad.gradients._noise import SumOfGamma

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_SMOOTH: Final = (Gumbel, Gaussian, Logistic, Laplace, SumOfGamma)
"""Laws whose quantiles have no kinks but at ½, so that cubics are right to float32's rounding."""

_CELLS: Final = 16
"""For each factor of 2 of v."""

_FIRST, _LAST = (127 - 53) * _CELLS, (127 - 1) * _CELLS
"""The cells that start at v = 2⁻⁵³, the least, and ½; the bias of float32's exponents is 127."""

_SIGN: Final = 256 * _CELLS
_NODES: Final = np.cos(np.pi * (np.arange(4) + 0.5) / 4) / 2


def quantiles(law: Any, device: torch.device) -> Tensor | None:
    """Return `CounterNoise.quantiles` of a law; None for one that cubics may miss, or that can only be sampled."""
    inner = law.noise if type(law) is Centred else law
    if type(inner) not in _SMOOTH or not inner.invertible:
        return None
    return _table(law, device)


@lru_cache(maxsize=32)
def _table(law: Any, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return _table(law, torch.device("cpu")).to(device)
    cells = np.arange(_FIRST, _LAST + 1)
    table = np.zeros((_SIGN + _LAST + 1, 4), np.float32)
    low = np.ldexp(1 + cells % _CELLS / _CELLS, cells // _CELLS - 127)
    width = np.ldexp(1 / _CELLS, cells // _CELLS - 127)
    v = low[:, None] + width[:, None] * (_NODES + 0.5)
    # only odd multiples of 2⁻⁵³ occur, which float64 holds at both ends
    v = (2 * np.rint((v * 2.0**53 - 1) / 2) + 1) * 2.0**-53
    t = np.frexp(v)[0] * 2 - 1.5
    # a cell with fewer such numbers than nodes gets a polynomial of lower degree
    powers = np.linalg.pinv(t[:, :, None] ** np.arange(4))
    for sign, u in ((0, v), (_SIGN, 1 - v)):
        table[sign + cells] = np.einsum("cij,cj->ci", powers, _quantiles_of(law, u))
    with torch.inference_mode(mode=False):
        return torch.as_tensor(table, device="cpu")


def _quantiles_of(law: Any, u: NDArray[np.float64]) -> NDArray[np.float64]:
    return law.icdf(torch.as_tensor(u, device="cpu")).numpy()
