"""What is written of a row, beside its problem."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mapgrad.problems import IntegerProgram
from mapgrad.recording._values import encoded
from mapgrad.solvers import FunctionSolver, lower
from mapgrad.workers import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions, Status
    from mapgrad.solvers import Lowering, SolverFactory


@dataclass(frozen=True)
class Asked:
    """Who was asked for rows, and how.

    Attributes:
        factory: Makes the solver.
        options: Its options.
        problems: What was solved: one for all rows, or one for each; None where it isn't known.
        time_limit: Seconds for a row, or None.
        deadline: Seconds for a batch, or None.
        workers: Who ran them.
    """

    factory: SolverFactory
    options: Mapping[str, Any]
    problems: Sequence[Problem | None]
    time_limit: float | None
    deadline: float | None
    workers: object


@dataclass(frozen=True)
class Found:
    """What came of them.

    Attributes:
        rows: θ as it was solved, [N, *shape].
        solutions: Their answers, before anything is filled in.
        numbers: Those to be written.
        seconds: That the batch took.
    """

    rows: Tensor
    solutions: Solutions
    numbers: Sequence[int]
    seconds: float


def facts_of_solver(asked: Asked, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return who was asked and how; arrays among the options are added to those given."""
    factory, options, left_out = asked.factory, dict[str, Any](), dict[str, str]()
    for name, value in asked.options.items():
        try:
            options[name] = encoded(value, arrays)
        except TypeError:
            left_out[name] = repr(value)
    workers = asked.workers if isinstance(asked.workers, int | str | None) else repr(asked.workers)
    facts = {"name": _path_of(factory), "label": factory.label, "options": options, "options_left_out": left_out}
    facts |= {"time_limit": asked.time_limit, "deadline": asked.deadline, "workers": workers}
    return {"solver": facts}


def _path_of(factory: SolverFactory) -> str:
    """Return a solver's name or, for a class, an object or a function of a user's, where that is."""
    if factory.spec is not None:
        return factory.name
    solver: Any = factory.factory
    solver = solver.function if isinstance(solver, FunctionSolver) else solver
    kind = solver if hasattr(solver, "__qualname__") else cast("Any", type(solver))
    if kind.__module__.startswith("mapgrad."):  # what stands for a solver that doesn't take the problem
        return factory.name
    return f"{kind.__module__}:{kind.__qualname__}"


def facts_of_answer(
    found: Found, number: int, status: Status, theta: NDArray[Any], arrays: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    """Return what came of a row; its state is added to the arrays."""
    solutions = found.solutions
    z: NDArray[Any] = solutions.z[number].detach().to("cpu", found.rows.dtype).numpy()
    objective = None
    if np.isfinite(z).all():
        arrays["z"] = z
        given: Any = solutions.objective
        objective = float("nan") if given is None else float(given[number])
        if np.isnan(objective):
            priced = np.where(np.isneginf(theta), 0.0, theta.astype(np.float64))
            objective = float(np.vdot(priced, z.astype(np.float64)))
    cause = solutions.causes.get(number)
    return {
        "status": status.name,
        "cause": "" if cause is None else text_of(cause),
        "objective": encoded(objective, arrays),
        "row": number,
        "rows": len(found.rows),
        "seconds_of_all_rows": round(found.seconds, 6),
    }


def program_of(factory: SolverFactory, problem: Problem) -> Lowering:
    """Return how a problem becomes an integer program: that of the solver, if it gets one.

    Raises:
        UnsupportedProblemError: it has none.
    """
    lowering = factory.lowering(problem)
    return lowering if isinstance(lowering.native, IntegerProgram) else lower(problem, (IntegerProgram,))


def utilities(lowering: Lowering, theta: NDArray[Any]) -> NDArray[np.float64]:
    """Return the utilities of a program's variables, −inf for those that must be 0."""
    entries = np.isneginf(theta)[None]
    rows = lowering.rows(np.where(entries, 0.0, theta[None]).astype(np.float64))
    return np.where(lowering.forbidden(entries), -np.inf, rows).reshape(lowering.native.shape)


def versions(factory: SolverFactory) -> dict[str, str]:
    """Return the versions of Python, mapgrad and what the solver needs."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("mapgrad", "torch", "numpy", *(factory.spec.requires if factory.spec is not None else ())):
        found |= _versions_of(package)
    return found


@cache
def _versions_of(package: str) -> dict[str, str]:
    """Return the versions of the distributions that a package is from, by their names."""
    found: dict[str, str] = {}
    for name in _distributions().get(package, [package]):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return packages_distributions()
