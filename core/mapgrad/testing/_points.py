"""Points and rows that the laws on problems look at, and how messages show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.problems import box_points

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import Problem

_WHOLE: Final = 2**13  # integer points of a box that are all looked at
_NEAR: Final = 2**11  # points that are looked at in a larger one
_VALUES_SHOWN: Final = 16


def near_misses(problem: Problem, states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return all integer points of the box, or of a large one some that differ little from states, [N, *shape]."""
    points = box_points(problem, _WHOLE)
    if points is not None:
        return points
    rng = np.random.default_rng(0)
    near = flat(states)[rng.integers(len(states), size=_NEAR)]
    number = np.arange(_NEAR)
    first = rng.integers(near.shape[1], size=_NEAR)
    # a place that holds something else
    second = np.where(near == near[number, first, None], -1.0, rng.random(near.shape)).argmax(axis=1)
    near[number, first], near[number, second] = near[number, second], near[number, first]
    for some, place in ((number[::2], first[::2]), (number[::3], second[::3])):
        near[some, place] += rng.choice((-1.0, 1.0), size=len(some))
    return near.reshape(-1, *problem.shape)


def odd_points(problem: Problem, states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points that differ from the first state in one coordinate, which isn't whole or outside the box."""
    fractions = [_moved(states[0], place, states[0][place] + by) for place in _places(problem) for by in (0.25, 1e-3)]
    return np.concatenate((np.stack(fractions), outside_points(problem, states)))


def outside_points(problem: Problem, states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points that differ from the first state in one coordinate, which is outside the box."""
    lower, upper = problem.box
    return np.stack(
        [
            _moved(states[0], place, value)
            for place in _places(problem)
            for value in (lower[place] - 1, upper[place] + 1, np.nan, np.inf, -np.inf)
        ]
    )


def _places(problem: Problem) -> list[tuple[int, ...]]:
    return [*np.ndindex(*problem.shape)]


def _moved(state: NDArray[np.float64], place: tuple[int, ...], value: float) -> NDArray[np.float64]:
    point = state.copy()
    point[place] = value
    return point


def sample_thetas(problem: Problem) -> NDArray[np.float64]:
    """Return rows of the problem's domain, [26, *shape].

    They are generic, some with ties and zeros; one of zeros; and the last two of ones, and of minus ones.
    """
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(24, *problem.shape))
    theta[8:16] = theta[8:16].round()
    theta[12:20] *= rng.random(theta[12:20].shape) < 0.5
    theta[20:] = -np.abs(theta[20:])
    theta[0] = 0
    ones = np.ones((1, *problem.shape))
    return problem.domain.clip(np.concatenate((theta, ones, -ones)))


def steps(problem: Problem, states: NDArray[np.float64], most: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return points of the box that are one step from states in one coordinate, at most so many, [N, *shape]."""
    rows, (lower, upper) = flat(states), (bound.ravel() for bound in problem.box)
    places = rng.permutation(rows.shape[1])[: max(most // (2 * len(rows)), 1)]
    moved = np.repeat(rows, 2 * len(places), axis=0)
    every = np.arange(len(moved))
    column = np.tile(np.repeat(places, 2), len(rows))
    moved[every, column] += np.tile((1.0, -1.0), len(moved) // 2)
    fine = (moved[every, column] >= lower[column]) & (moved[every, column] <= upper[column])
    return moved[fine].reshape(-1, *problem.shape)


def mixtures(states: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return points each coordinate of which is that of one of two states, [count, *shape]."""
    first, second = (states[rng.integers(len(states), size=count)] for _ in range(2))
    from_first = rng.random((count, *states.shape[1:])) < 0.5
    return np.where(from_first, first, second)


def is_among(states: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    known = {state.tobytes() for state in states}
    return np.array([point.tobytes() in known for point in points + 0.0])  # no negative zeros


def flat(rows: NDArray[Any]) -> NDArray[Any]:
    return rows.reshape(len(rows), -1)


def show(rows: NDArray[np.float64]) -> str:
    """Return the first of some rows as text; that of no numbers where there is none."""
    values = rows[0].ravel() if len(rows) else np.empty(0)
    shown = ", ".join(f"{value:.12g}" for value in values[:_VALUES_SHOWN])
    return f"[{shown}{', …' if len(values) > _VALUES_SHOWN else ''}]"
