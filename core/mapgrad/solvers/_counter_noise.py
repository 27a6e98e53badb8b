"""Noise as numbers that make it: for solvers that add it to θ themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class CounterNoise:
    """The noise τε of S samples of B rows, for `BatchSolver.solve_perturbed`.

    Entry i of the row that goes by number b has in sample s, all counted from 0, the 64 bits

        mix(mix(key + (s + 1) · 0xD1342543DE82EF95 + (b + 1) · 0x9E3779B97F4A7C15) + (i + 1) · 0x9E3779B97F4A7C15)

    modulo 2⁶⁴, where mix is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): three times
    x ← (x ⊕ x >> r) · f, with r = 30, 27, 31 and f = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 1. Their first 52 make the
    uniform number u = (bits >> 12 + ½) · 2⁻⁵², and ε is its quantile: with v = min(u, 1 − u) as float32, negative where
    u > ½, the first 13 bits of v are the number of a row a, b, c, d of `quantiles`, its last 23 are m, and

        t = m · 2⁻²³ − ½,    ε = a + t (b + t (c + t d)).

    Attributes:
        key: Between 0 and 2⁶³ − 1.
        samples: S.
        temperature: τ > 0.
        quantiles: [6113, 4] float32 on θ's device.
        rows: [B] int64 on θ's device, what stands for the rows; None for `first`, `first` + 1 and so on.
        first: See `rows`.
    """

    key: int
    samples: int
    temperature: float
    quantiles: Tensor
    rows: Tensor | None = None
    first: int = 0
