"""The law on what `Problem.to_ilp` and `Problem.repair` promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mapgrad.errors import InfeasibleError, MissingDependencyError, ProblemError
from mapgrad.problems import Domain
from mapgrad.testing._points import flat, is_among, mixtures, near_misses, sample_thetas, show, steps
from mapgrad.testing._problem_law import is_enumerated, law, program_of, require_in_box, solved, states_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import IntegerProgram, Problem
    from mapgrad.testing._problem_law import Require

_EXACT, _OF_ENGINES = 1e-9, 1e-6  # tolerances of what is enumerated, and of what a solver finds
_ASKED: Final = 24
_FAR: Final = 4
_NEIGHBOURS: Final = 512
_PRODUCTS: Final = 2**25
"""How many rows a solver is asked for, far ones among them, and neighbours a program, and how many numbers are
multiplied, at most."""


@law
def check_problem_program(problem: Problem, require: Require) -> None:
    """max ⟨θ, z⟩ over C = max ⟨θ, x⟩ over Q, and ∀ x ∈ Q: repair(x) ∈ C with ⟨θ, repair(x)⟩ ≥ ⟨θ, x⟩.

    Q is the set of `to_ilp`, and θ any row of the problem's domain, among them those at which a state that Q lacks is
    the best; what variables add that θ doesn't price counts on both sides. Where C or Q can't be enumerated, the
    solutions that a solver finds, some of them far from the others, stand for Q, and for C what `contains` accepts of
    their neighbours and of points between them.
    """  # noqa: D403 (a formula)
    program = program_of(problem)
    require(program.shape == problem.shape, f"the program has shape {program.shape}, not {problem.shape}")
    theta = sample_thetas(problem)
    try:
        points, is_whole = _enumerated(program), True
        if points is None:
            points, is_whole = _far_apart(problem, program, theta), False
    except InfeasibleError:
        return require(False, "its program has no solution")
    tolerance = _EXACT if is_whole else _OF_ENGINES
    repaired = _repaired(problem, points, require)
    if is_enumerated(problem):
        states = states_of(problem)
        missing = states[~is_among(points, states)]
    else:
        near = _around(problem, repaired)
        taken = near[problem.contains_rows(near)]
        lower, upper = problem.box
        outside = flat((taken < lower) | (taken > upper)).any(axis=1)
        require(not outside.any(), f"contains accepts {show(taken[outside])}, which lies outside the box")
        states = np.concatenate((repaired, taken))
        if is_whole:
            missing = taken[~is_among(points, taken)]
        else:
            near, taken = near[:_NEIGHBOURS], taken[:_NEIGHBOURS]
            _repaired(problem, near[program.contains_rows(near)], require)
            missing = taken[~program.contains_rows(taken)]
    most = max(_PRODUCTS // ((len(states) + len(points)) * states[0].size), 1) if is_whole else _ASKED
    theta = np.concatenate((theta, _directions(problem, _some(missing, most))))
    values = _values(problem, states, theta)
    best, state = values.max(axis=1), states[values.argmax(axis=1)]
    if is_whole:
        values = _values(program, points, theta)
        found, solution = values.max(axis=1), points[values.argmax(axis=1)]
    else:
        found, points = solved(program, theta)
        solution, repaired = points, _repaired(problem, points, require)
    off = best - found if not is_enumerated(problem) else np.abs(best - found)
    row = int((off - tolerance * (1 + np.abs(best))).argmax())
    message = (
        f"at θ = {show(theta[row:])} the best state, {show(state[row:])}, is worth {best[row]:.12g}, but the program's "
        f"best solution, {show(solution[row:])}, is worth {found[row]:.12g}"
    )
    require(off[row] <= tolerance * (1 + abs(best[row])), message)
    worse = flat(repaired - points)
    if problem.domain is Domain.REAL:
        worse = np.abs(worse)  # whatever changes is worse for some θ
    lost = (worse > _OF_ENGINES).any(axis=1)
    lost |= problem.completion_values(repaired) < program.completion_values(points) - tolerance
    message = f"repair makes the solution {show(points[lost])} worse for some θ of the domain: it becomes "
    return require(not lost.any(), f"{message}{show(repaired[lost])}")


def _enumerated(program: IntegerProgram) -> NDArray[np.float64] | None:
    try:
        return program.state_rows()
    except InfeasibleError:
        raise
    except (ProblemError, MissingDependencyError):
        return None


def _repaired(problem: Problem, points: NDArray[np.float64], require: Require) -> NDArray[np.float64]:
    """Return the states that `repair` makes of solutions, once they are known to be states."""
    before, repaired = points.copy(), problem.repair(points)
    require(np.array_equal(points, before), "repair writes to its argument")
    require(repaired.shape == points.shape, f"repair gives shape {repaired.shape} for {points.shape}")
    require_in_box(problem, points, repaired)
    lost = ~problem.contains_rows(repaired)
    message = f"repair makes {show(repaired[lost])} of the solution {show(points[lost])}, and that isn't a state"
    require(not lost.any(), message)
    return repaired


def _far_apart(problem: Problem, program: IntegerProgram, theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return solutions at θ and, in front of them, some that lie as far as possible from the mean of those, or near."""
    points = solved(program, theta)[1]
    away = points[-_FAR:] - points.mean(axis=0)
    return np.concatenate((solved(program, problem.domain.clip(np.concatenate((away, -away))))[1], points[::-1]))


def _around(problem: Problem, states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points near states and between them; those near the first come first, so that they are looked at."""
    rng = np.random.default_rng(0)
    first = states[: 2 * _FAR + 2]  # the far ones, and the solutions at θ = −1 and 1
    parts = (
        steps(problem, first, _NEIGHBOURS // 4, rng),
        mixtures(states, _NEIGHBOURS // 4, rng),
        _some(near_misses(problem, states), 4 * _NEIGHBOURS),
    )
    return np.concatenate(parts)


def _some(points: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    return points[np.random.default_rng(0).permutation(len(points))[:most]]


def _directions(problem: Problem, states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows of the domain at which these states are the best ones, if any are: of 0/1 states, no other is."""
    centre = 0.5 if np.isin(states, (0, 1)).all() else states.mean(axis=0)
    return problem.domain.clip(2 * (states - centre))


def _values(problem: Problem, z: NDArray[np.float64], theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what states z are worth at θ, [θ, z]."""
    return flat(theta) @ flat(z).T + problem.completion_values(z)
