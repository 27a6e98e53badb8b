"""Random integer programs whose optimum is known: by construction, by complementary slackness or in exact arithmetic.

All numbers are drawn as integers, so that a kind, a seed and a number name the same program on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.solutions import Status
from mapgrad.testing._known_programs import (
    TOLERANCE,
    KnownProgram,
    by_slackness,
    draw_coefficients,
    draw_flags,
    draw_int,
    draw_ints,
    draw_scaled,
    hangs_on_last_digits,
    program_of,
    solved_exactly,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import NDArray

    from mapgrad.testing._known_programs import Flags, Integers


def known_program(kind: str, seed: int, number: int) -> KnownProgram:
    """Return a program of a kind, one of `KINDS`; the same for the same arguments."""
    rng = np.random.Generator(np.random.PCG64([seed, number, *kind.encode()]))
    while True:
        known = KINDS[kind](rng)
        if known is not None:
            return known


def _box(rng: Generator, count: int, low: int, high: int) -> tuple[Integers, Integers]:
    """Return bounds: powers of ten, of the order given, some variables of one sign only."""
    size = 10 ** draw_ints(rng, low, high, ()) * np.ones(count, dtype=np.int64)
    if draw_flags(rng, 30, ()):
        size = 10 ** draw_ints(rng, low, high, count)
    return np.where(draw_flags(rng, 30, count), 0, -size), size


def _free_lp(rng: Generator) -> KnownProgram:
    """Linear programs with free variables; unique or degenerate, more or fewer rows than variables."""
    width = draw_int(rng, 2, 5)
    matrix = draw_coefficients(rng, (draw_int(rng, 1, width + 4), width), (9, 99)[draw_int(rng, 0, 1)])
    x = draw_ints(rng, -20, 20, width)
    sides = draw_ints(rng, 0, 5, width)  # 0 to 3: free; 4: bounded below; 5: above
    sides[draw_int(rng, 0, width - 1)] = 0
    gap = np.where(draw_flags(rng, 50, width), 0, draw_ints(rng, 1, 30, width))
    lower, upper = np.where(sides == 4, x - gap, -np.inf), np.where(sides == 5, x + gap, np.inf)
    return by_slackness(rng, matrix, x, lower, upper, np.zeros(width, dtype=np.bool_))


def _point_in(rng: Generator, lower: Integers, upper: Integers, grain: int) -> Integers:
    """Return a point of a box, in parts of `grain`: near 0, anywhere or at bounds."""
    near = np.clip(draw_ints(rng, -100 * grain, 100 * grain, len(lower)), grain * lower, grain * upper)
    anywhere = rng.integers(grain * lower, grain * upper + 1)
    bound = np.where(draw_flags(rng, 50, len(lower)), lower, upper) * grain
    choice = draw_ints(rng, 0, 3, len(lower))
    return np.select([choice <= 1, choice == 2], [near, anywhere], bound)


def _boxed_lp(rng: Generator) -> KnownProgram | None:
    """Linear programs of two decimals in boxes from 1 to 1e8."""
    width = draw_int(rng, 2, 5)
    matrix = draw_coefficients(rng, (draw_int(rng, 1, width + 2), width), 9999)
    lower, upper = _box(rng, width, 0, 8)
    x = _point_in(rng, lower, upper, 100)
    none = np.zeros(width, dtype=np.bool_)
    if draw_flags(rng, 50, ()):
        return _around(rng, matrix, x // 100 * 100, lower, upper, none)
    equal = 20 if upper.max() <= 10_000 else 0
    known = by_slackness(rng, matrix, x, lower, upper, none, unit=100, grain=100, equal=equal)
    return None if hangs_on_last_digits(known, x / 100) else known


def _around(
    rng: Generator, matrix: Integers, x: Integers, lower: Integers, upper: Integers, integrality: Flags
) -> KnownProgram | None:
    """Return a program of two decimals whose rows hold at a point in hundredths, with utilities from nowhere."""
    tight = (20, 60, 100)[draw_int(rng, 0, 2)]
    beyond = np.where(draw_flags(rng, tight, len(matrix)), 0, draw_ints(rng, 0, 10 ** draw_int(rng, 2, 7), len(matrix)))
    theta = np.where(draw_flags(rng, 15, len(x)), 0, draw_ints(rng, -9999, 9999, len(x)))
    if draw_flags(rng, 10, ()):
        theta[:] = 0
    none = np.zeros(len(matrix), dtype=np.bool_)
    sides = (matrix @ x + beyond) / 1e4
    program = program_of(matrix / 100, sides, none, lower=lower, upper=upper, integrality=integrality)
    return solved_exactly(program, draw_scaled(rng, theta, exactly=False))


def _boxed_mixed(rng: Generator) -> KnownProgram | None:
    """Mixed programs of two decimals or fewer in boxes from 1 to 1e8."""
    width = draw_int(rng, 2, 6)
    grain, size = ((1, 9999), (10, 999), (100, 99), (100, 10_000))[draw_int(rng, 0, 3)]
    matrix = grain * draw_coefficients(rng, (draw_int(rng, 1, width + 2), width), size)
    lower, upper = _box(rng, width, *((2, 5), (0, 8))[draw_int(rng, 0, 1)])
    if draw_flags(rng, 50, ()):
        shrunk = draw_flags(rng, 70, (2, width))
        lower = np.where(shrunk[0], rng.integers(lower, 1), lower)
        upper = np.where(shrunk[1], rng.integers(0, upper + 1), upper)
    integrality = np.arange(width) < draw_int(rng, 1, width - 1)
    x = np.where(integrality, 100 * _point_in(rng, lower, upper, 1), _point_in(rng, lower, upper, 100))
    order = rng.permutation(width)
    return _around(rng, matrix, x[order], lower[order], upper[order], integrality[order])


def _slivers(rng: Generator) -> KnownProgram | None:
    """Mixed programs of two decimals between planes that lie close together, in boxes of 1e3 to 1e5."""
    width, count, size = 5, draw_int(rng, 2, 7), 10 ** draw_int(rng, 3, 5)
    matrix = draw_coefficients(rng, (count, width), 9999)
    opposite = draw_int(rng, 1, count // 2)
    matrix[count - opposite :] = -matrix[:opposite]
    integrality = np.arange(width) < draw_int(rng, 2, width)
    x = draw_ints(rng, -10 * size, 10 * size, width)
    x = np.where(integrality, x // 100 * 100, x)
    box = np.full(width, size)
    return _around(rng, matrix, x, -box, box, integrality)


def _mixed(rng: Generator) -> KnownProgram:
    """Mixed programs of decimals that few root nodes settle: sums of integers are to be near numbers."""
    width, most = ((draw_int(rng, 7, 10), 1), (draw_int(rng, 3, 4), draw_int(rng, 3, 9)))[draw_int(rng, 0, 1)]
    count, unit = draw_int(rng, 1, 2), (1, 100, 100)[draw_int(rng, 0, 2)]
    matrix = draw_ints(rng, 10 * unit, 99 * unit, (count, width))
    sides = matrix.sum(axis=1) * most // 2 + draw_ints(rng, -unit, unit, count)
    grid = _grid(width, most)
    prices, weights = draw_ints(rng, 0, 2, width) * unit, draw_ints(rng, 1, 9, count)
    value = -int((np.abs(grid @ matrix.T - sides) @ weights + grid @ prices).min())
    sign = np.eye(count, dtype=np.int64) * unit
    integers = np.concatenate((-prices, -weights * unit, -weights * unit))
    theta = draw_scaled(rng, integers, exactly=True)
    largest = float(np.abs(theta).max())
    integrality = np.arange(width + 2 * count) < width
    program = program_of(
        np.hstack((matrix, sign, -sign)) / unit,
        sides / unit,
        np.ones(count, dtype=np.bool_),
        upper=np.where(integrality, most, matrix.sum() * most / unit),
        integrality=integrality,
    )
    optimum = value * largest / int(np.abs(integers).max())
    gain = TOLERANCE * largest * int(sides.sum()) / unit
    return KnownProgram(program, theta, Status.OPTIMAL, optimum, -optimum, gain)


def _big_m(rng: Generator) -> KnownProgram | None:
    """Fixed charges: flows of decimals that a binary switches on, at most a large number each, of a given sum."""
    count = draw_int(rng, 2, 4)
    large = 10 ** draw_int(rng, 1, 6)
    demand = draw_ints(rng, 1, 100 * min(large, 1000), ())
    limits = np.where(draw_flags(rng, 50, count), large, draw_ints(rng, 1, large, count))
    eye = np.eye(count, dtype=np.int64)
    switches = np.hstack((eye, -np.diag(limits)))
    least = draw_ints(rng, 1, 500, count) * draw_flags(rng, 30, ())
    starts = np.hstack((-100 * eye, np.diag(least))) / 100
    total = np.concatenate((np.ones(count), np.zeros(count)))
    rows = np.vstack((switches, starts, total))
    sides = np.concatenate((np.zeros(2 * count), [demand / 100]))
    equal = np.arange(len(rows)) == len(rows) - 1
    theta = -np.concatenate((draw_ints(rng, 0, 999, count), draw_ints(rng, 0, 99999, count)))
    upper = np.concatenate((np.full(count, float(large)), np.ones(count)))
    program = program_of(rows, sides, equal, upper=upper, integrality=np.arange(2 * count) >= count)
    return solved_exactly(program, draw_scaled(rng, theta, exactly=False))


def _knapsack_equality(rng: Generator) -> KnownProgram:
    """One or two equalities of integers, which enumeration solves; some have no solution."""
    width, most = draw_int(rng, 3, 6), draw_int(rng, 1, 4)
    count = draw_int(rng, 1, 2)
    matrix = draw_ints(rng, 1, (20, 999)[draw_int(rng, 0, 1)], (count, width))
    matrix = np.where(draw_flags(rng, 15, matrix.shape), -matrix, matrix)
    sides = matrix @ draw_ints(rng, 0, most, width) + (draw_ints(rng, -2, 2, count) if draw_flags(rng, 30, ()) else 0)
    integers = np.where(draw_flags(rng, 10, width), 0, draw_ints(rng, -99, 99, width))
    return _enumerated(rng, matrix, sides, np.ones(count, dtype=np.bool_), most, integers)


def _integer(rng: Generator) -> KnownProgram:
    """Rows of integers on a few integers each, which enumeration solves."""
    width, most, count = draw_int(rng, 3, 6), draw_int(rng, 1, 4), draw_int(rng, 1, 4)
    matrix = draw_coefficients(rng, (count, width), (5, 99)[draw_int(rng, 0, 1)])
    equal = draw_flags(rng, 10, count)
    beyond = np.where(equal | draw_flags(rng, 30, count), 0, draw_ints(rng, -5, 50, count))
    sides = matrix @ draw_ints(rng, 0, most, width) + beyond
    integers = np.where(draw_flags(rng, 10, width), 0, draw_ints(rng, -99, 99, width))
    return _enumerated(rng, matrix, sides, equal, most, integers)


def _grid(width: int, most: int) -> Integers:
    """Return all points of 0 … most."""
    digits: Integers = np.arange((most + 1) ** width, dtype=np.int64)[:, None]
    places: Integers = np.power(most + 1, np.arange(width, dtype=np.int64))
    return digits // places % (most + 1)


def _enumerated(
    rng: Generator, matrix: Integers, sides: Integers, equal: Flags, most: int, integers: Integers
) -> KnownProgram:
    grid = _grid(len(integers), most)
    activity = grid @ matrix.T
    held = np.where(equal, activity == sides, activity <= sides).all(axis=1)
    theta = draw_scaled(rng, integers, exactly=True)
    program = program_of(matrix, sides, equal, upper=most)
    if not held.any():
        return KnownProgram(program, theta, Status.INFEASIBLE)
    return KnownProgram(program, theta, Status.OPTIMAL, float((grid[held] @ theta).max()))


def _rayed(rng: Generator) -> tuple[Integers, Integers, Integers, NDArray[Any], NDArray[Any], Flags]:
    """Return rows, a point, a ray, bounds that the ray may go along for ever, and integrality."""
    width = draw_int(rng, 2, 5)
    ray = np.where(draw_flags(rng, 40, width), 0, draw_ints(rng, -9, 9, width))
    ray[draw_int(rng, 0, width - 1)] = (-1) ** draw_int(rng, 0, 1) * draw_int(rng, 1, 9)
    matrix = draw_coefficients(rng, (draw_int(rng, 1, width + 1), width), (9, 99)[draw_int(rng, 0, 1)])
    matrix = np.where((matrix @ ray > 0)[:, None], -matrix, matrix)
    x = draw_ints(rng, -10, 10, width)
    bounded = draw_flags(rng, 60, (2, width))
    gap = np.where(draw_flags(rng, 30, (2, width)), 0, 10 ** draw_ints(rng, 0, 4, (2, width)))
    lower = np.where((ray < 0) | ~bounded[0] & (ray != 0), -np.inf, x - gap[0])
    upper = np.where((ray > 0) | ~bounded[1] & (ray != 0), np.inf, x + gap[1])
    return matrix, x, ray, lower, upper, draw_flags(rng, (0, 50, 100)[draw_int(rng, 0, 2)], width)


def _ray(rng: Generator) -> KnownProgram | None:
    """Programs with a point and a ray along which the utility grows: unbounded."""
    matrix, x, ray, lower, upper, integrality = _rayed(rng)
    integers = np.where(draw_flags(rng, 40, len(ray)), 0, draw_ints(rng, -9, 9, len(ray)))
    integers *= np.sign(integers @ ray)
    if integers @ ray == 0:
        return None
    along = matrix @ ray == 0
    sides = matrix @ x + np.where(along | draw_flags(rng, 50, len(matrix)), 0, draw_ints(rng, 1, 50, len(matrix)))
    program = program_of(matrix, sides, along, lower=lower, upper=upper, integrality=integrality)
    return KnownProgram(program, draw_scaled(rng, integers, exactly=True), Status.UNBOUNDED)


def _flat_ray(rng: Generator) -> KnownProgram:
    """Programs with a ray, and an optimum that complementary slackness proves: no ray is worth anything."""
    matrix, x, ray, lower, upper, integrality = _rayed(rng)
    matrix = np.where((matrix @ ray == 0)[:, None] | draw_flags(rng, 70, (len(matrix), 1)), matrix, 0)
    return by_slackness(rng, matrix, x, lower, upper, integrality, equal=0)


def _open_mixed(rng: Generator) -> KnownProgram | None:
    """Small mixed programs of which some variables lack bounds: optimal, unbounded or infeasible."""
    width = draw_int(rng, 2, 4)
    matrix = draw_coefficients(rng, (draw_int(rng, 1, width + 1), width), 9)
    lower = np.where(draw_flags(rng, 50, width), -np.inf, -draw_ints(rng, 0, 10, width))
    upper = np.where(draw_flags(rng, 50, width), np.inf, draw_ints(rng, 0, 10, width))
    integrality = np.arange(width) < draw_int(rng, 1, width)
    theta = draw_scaled(rng, draw_ints(rng, -20, 20, width), exactly=True)
    none = np.zeros(len(matrix), dtype=np.bool_)
    sides = draw_ints(rng, -20, 20, len(matrix))
    return solved_exactly(program_of(matrix, sides, none, lower=lower, upper=upper, integrality=integrality), theta)


def _network(rng: Generator) -> KnownProgram:
    """Flows of integers that meet supplies, some of no utility, whose optimum potentials prove."""
    nodes, arcs = draw_int(rng, 2, 6), draw_int(rng, 3, 12)
    tails = draw_ints(rng, 0, nodes - 1, arcs)
    heads = (tails + draw_ints(rng, 1, nodes - 1, arcs)) % nodes
    matrix = np.zeros((nodes, arcs), dtype=np.int64)
    matrix[tails, np.arange(arcs)] -= 1
    matrix[heads, np.arange(arcs)] += 1
    lower = np.where(draw_flags(rng, 20, arcs), draw_ints(rng, 1, 3, arcs), 0)
    upper = lower + draw_ints(rng, 0, (1, 3, 100)[draw_int(rng, 0, 2)], arcs)
    flow = rng.integers(lower, upper + 1)
    copies = draw_ints(rng, 0, nodes - 1, draw_int(rng, 0, 2))
    matrix = np.vstack((matrix, matrix[copies] * draw_ints(rng, -3, 3, (len(copies), 1))))
    integrality = draw_flags(rng, (100, 100, 50)[draw_int(rng, 0, 2)], arcs)
    equal = (100, 100, 70)[draw_int(rng, 0, 2)]
    known = by_slackness(rng, matrix, flow, 1.0 * lower, 1.0 * upper, integrality, equal=equal)
    return KnownProgram(known.program, np.zeros(arcs), Status.OPTIMAL, 0.0) if draw_flags(rng, 30, ()) else known


def _degenerate(rng: Generator) -> KnownProgram:
    """Many rows through one point: copies, sums of others, empty ones, ones that always hold; fixed variables."""
    width = draw_int(rng, 2, 5)
    base = draw_coefficients(rng, (draw_int(rng, 1, 4), width), (1, 9)[draw_int(rng, 0, 1)])
    mixes = np.where(draw_flags(rng, 60, (draw_int(rng, 1, 5), len(base))), 0, draw_ints(rng, -2, 3, ()))
    matrix = np.vstack((base, mixes @ base, np.zeros((1, width), dtype=np.int64), base[:1]))
    x = draw_ints(rng, -5, 5, width)
    gap = np.where(draw_flags(rng, 50, (2, width)), 0, draw_ints(rng, 1, 10, (2, width)))
    lower, upper = 1.0 * (x - gap[0]), 1.0 * (x + gap[1])
    if draw_flags(rng, 30, ()):
        lower, upper = (
            np.where(draw_flags(rng, 30, width), -np.inf, lower),
            np.where(draw_flags(rng, 30, width), np.inf, upper),
        )
    return by_slackness(rng, matrix, x, lower, upper, draw_flags(rng, 50, width), tight=90)


def _infeasible(rng: Generator) -> KnownProgram:
    """Rows that contradict each other: multipliers, a divisor or bounds prove it."""
    width = draw_int(rng, 2, 5)
    integers = draw_ints(rng, -99, 99, width) * (not draw_flags(rng, 20, ()))
    proof = draw_int(rng, 0, 2)
    theta = draw_scaled(rng, integers, exactly=False)
    if proof == 0:  # a positive sum of rows says 0 ≤ -margin
        matrix = draw_coefficients(rng, (draw_int(rng, 1, 4), width), 20)
        y = draw_ints(rng, 1, 4, len(matrix))
        sides = draw_ints(rng, -50, 50, len(matrix))
        matrix, sides = np.vstack((matrix, -y @ matrix)), np.append(sides, -y @ sides - draw_int(rng, 1, 5))
        size = (np.inf, 10.0 ** draw_int(rng, 0, 6))[draw_int(rng, 0, 1)]
        none = np.zeros(len(matrix), dtype=np.bool_)
        integrality = draw_flags(rng, 50, width)
        program = program_of(matrix, sides, none, lower=-size, upper=size, integrality=integrality)
    elif proof == 1:  # a row whose coefficients a number divides, and not its right side
        divisor = draw_int(rng, 2, 7)
        matrix = divisor * draw_ints(rng, 1, 9, (1, width)) * (2 * draw_ints(rng, 0, 1, (1, width)) - 1)
        sides = matrix @ draw_ints(rng, 0, 3, width) + draw_int(rng, 1, divisor - 1)
        others = draw_coefficients(rng, (draw_int(rng, 0, 2), width), 9)
        equal = np.arange(1 + len(others)) == 0
        room = np.abs(others).sum(axis=1)
        program = program_of(
            np.vstack((matrix, others)), np.concatenate((sides, room)), equal, upper=draw_int(rng, 1, 4)
        )
    else:  # a chain x0 ≥ x1 + 1 ≥ … that the box is too short for
        step = -np.eye(width, dtype=np.int64)[:-1] + np.eye(width, dtype=np.int64)[1:]
        size = float(draw_int(rng, 1, 50))
        fall = np.append(draw_ints(rng, 1, 50, width - 1), 0)
        short = int(2 * size) - int(fall.sum())
        fall[0] += max(0, short + draw_int(rng, 1, 3))
        none = np.zeros(width - 1, dtype=np.bool_)
        program = program_of(step, -fall[:-1], none, lower=-size, upper=size, integrality=draw_flags(rng, 50, width))
    return KnownProgram(program, theta, Status.INFEASIBLE)


def _near_half(rng: Generator) -> KnownProgram | None:
    """Coefficients such as .499999999, which tolerances take for halves."""
    width = draw_int(rng, 2, 4)
    matrix = (
        np.where(draw_flags(rng, 30, (draw_int(rng, 1, 3), width)), 0, draw_ints(rng, -3, 3, (1, width))) * 500_000_000
    )
    matrix += draw_ints(rng, -1, 1, matrix.shape) * 10 ** draw_ints(rng, 0, 3, matrix.shape)
    x = draw_ints(rng, 0, 20, width)
    sides = 500_000_000 * ((matrix @ x) // 500_000_000 + draw_ints(rng, 0, 1, len(matrix)))
    integrality = np.arange(width) < draw_int(rng, 1, width)
    none = np.zeros(len(matrix), dtype=np.bool_)
    program = program_of(matrix / 1e9, sides / 1e9, none, upper=draw_int(rng, 20, 100), integrality=integrality)
    return solved_exactly(program, draw_scaled(rng, draw_ints(rng, -5, 5, width), exactly=False))


KINDS: Final[dict[str, Callable[[Generator], KnownProgram | None]]] = {
    "free_lp": _free_lp,
    "boxed_lp": _boxed_lp,
    "boxed_mixed": _boxed_mixed,
    "slivers": _slivers,
    "mixed": _mixed,
    "big_m": _big_m,
    "integer": _integer,
    "knapsack_equality": _knapsack_equality,
    "ray": _ray,
    "flat_ray": _flat_ray,
    "open_mixed": _open_mixed,
    "network": _network,
    "degenerate": _degenerate,
    "infeasible": _infeasible,
    "near_half": _near_half,
}
"""What draws a program of each kind, or None where what it drew can't be judged."""
