"""Suite `peers`: a step of other libraries beside one of this one, all solving the same problem.

Each peer takes part where it is installed, and its row says so where it isn't:

- PyEPO with its OR-Tools back-end, as it comes: GLOP for paths, SCIP for knapsacks, Sum-of-Gamma noise of its own.
- torch-imle around this library's solver, which it has none of.
- cvxpylayers, on the linear relaxation with a small quadratic term: another gradient of another problem, which is what
  its users have.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.batching import get_solver
from mapgrad.bench._cases import (
    KAPPA,
    LAM,
    Case,
    auto,
    knapsack,
    knapsack_data,
    layer_of,
    path,
    step,
)
from mapgrad.bench._clock import YARDSTICK, Effort, Work, interleave, yardstick
from mapgrad.bench._report import Row, Spread
from mapgrad.bench._suites import Suite
from mapgrad.errors import MissingDependencyError
from mapgrad.gradients import IMLE, Step, SumOfGamma
from mapgrad.layer import MAPLayer
from mapgrad.problems import IntegerProgram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from mapgrad.batching import Solver

OURS: Final = "mapgrad"
BATCHES: Final = 32, 512
_CURVATURE: Final = 0.01


@dataclass(frozen=True)
class Peered:
    """A case that peers know too.

    Attributes:
        case: The problem.
        model: PyEPO's name of it, with the arguments.
        engine: Which of OR-Tools' engines PyEPO asks for it.
    """

    case: Case
    model: tuple[Any, ...]
    engine: str


def path_peered(size: int) -> Peered:
    """A path on a grid, which PyEPO knows too."""
    return Peered(path(size), ("shortestPathModel", (size, size)), "glop")


CASES: Final = (
    path_peered(5),
    path_peered(12),
    Peered(knapsack(16, 2), ("knapsackModel", *knapsack_data(16, 2)), "scip"),
)


def measure(peered: Peered, effort: Effort) -> Iterator[Row]:
    """Yield our rows and the peers' for each number of rows."""
    for count in (2,) if effort.is_quick else BATCHES:
        yield from steps(peered, count, effort)


def steps(peered: Peered, count: int, effort: Effort) -> Iterator[Row]:
    """Yield our row, those of ours with another engine or estimator, and those of the peers."""
    case = peered.case
    solver, theta = auto(case.make()), case.theta(count)
    size = {"B": count, "n": theta[0].numel()}
    candidates: dict[str, Work] = {OURS: partial(step, layer_of(solver, case), theta)}
    missing: dict[str, str] = {}
    for name, make in {
        "mapgrad, to both sides": partial(_both_sides, solver, case),
        "mapgrad, PyEPO's engine": partial(_same_engine, peered),
        "PyEPO": partial(_pyepo, peered),
        "torch-imle": partial(_torch_imle, solver, case),
        "cvxpylayers": partial(_cvxpylayers, case),
    }.items():
        try:
            layer = make()
            step(layer, theta[:2])
            candidates[name] = partial(step, layer, theta)
        except MissingDependencyError as error:
            missing[name] = str(error)
        except Exception as error:  # noqa: BLE001 (a peer that fails is a row that says so)
            missing[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    times = interleave({**candidates, YARDSTICK: yardstick}, effort)
    for name in candidates:
        others, against = (times[YARDSTICK], YARDSTICK) if name == OURS else (times[OURS], OURS)
        yield Row(
            case.name,
            name,
            size,
            value=Spread.of(times[name].cpu).times(1e6 / (2 * count)),
            unit="µs a solve",
            ratio=Spread.of_ratios(times[name].cpu, others.cpu),
            against=against,
            note=solver.name if name == OURS else "",
            judged=name == OURS,
        )
    for name, reason in missing.items():
        yield Row(case.name, name, size, note=reason, judged=False)


def _both_sides(solver: Solver, case: Case) -> MAPLayer:
    """Return the layer with this library's default: two backward solves a sample."""
    return MAPLayer(solver, IMLE(SumOfGamma(KAPPA), Step(LAM)), minimize=case.minimize)


def _same_engine(peered: Peered) -> MAPLayer:
    """Return the layer with PyEPO's formulation and engine, whose model is kept from row to row as PyEPO keeps it."""
    program = peered.case.make().to_ilp()
    if peered.engine == "glop":
        program = IntegerProgram.from_rows(
            program.matrix, program.row_lower, program.row_upper, integrality=0, shape=program.shape
        )
    return layer_of(get_solver("ortools.mip", program, engine=peered.engine, reuse=True), peered.case)


def _pyepo(peered: Peered) -> Callable[[Tensor], Tensor]:
    _require("pyepo")
    name, *arguments = peered.model
    model = getattr(importlib.import_module("pyepo.model"), name)(*arguments, backend="ortools")
    functions: Any = importlib.import_module("pyepo.func")
    return functions.implicitMLE(model, n_samples=1, sigma=1.0, lambd=LAM, processes=1)


def _torch_imle(solver: Solver, case: Case) -> Callable[[Tensor], Tensor]:
    _require("imle")
    wrapper, noise, target = (importlib.import_module(f"imle.{name}") for name in ("wrapper", "noise", "target"))
    imle: Any = wrapper.imle

    def cheapest(costs: Tensor) -> Tensor:
        return solver(-costs)

    return imle(
        cheapest if case.minimize else solver,
        target_distribution=target.TargetDistribution(alpha=1.0, beta=LAM),
        noise_distribution=noise.SumOfGammaNoiseDistribution(k=KAPPA, nb_iterations=10),
        nb_samples=1,
    )


def _cvxpylayers(case: Case) -> Callable[[Tensor], Tensor]:
    _require("cvxpylayers")
    cvxpy: Any = importlib.import_module("cvxpy")
    layers: Any = importlib.import_module("cvxpylayers.torch")
    program = case.make().to_ilp()
    rows, n = program.matrix.toarray(), program.num_vars
    z, theta = cvxpy.Variable(n), cvxpy.Parameter(n)
    lower, upper = program.row_lower, program.row_upper
    equal, above, below = lower == upper, np.isfinite(upper), np.isfinite(lower)
    sides = [
        rows[equal] @ z == upper[equal],
        rows[above & ~equal] @ z <= upper[above & ~equal],
        rows[below & ~equal] @ z >= lower[below & ~equal],
    ]
    constraints = [z >= program.lower, z <= program.upper, *(side for side in sides if side.size)]
    goal = theta @ z if case.minimize else -theta @ z
    problem = cvxpy.Problem(cvxpy.Minimize(goal + _CURVATURE * cvxpy.sum_squares(z)), constraints)
    layer = layers.CvxpyLayer(problem, parameters=[theta], variables=[z])
    return lambda costs: layer(costs)[0]


def _require(package: str) -> None:
    if find_spec(package) is None:
        raise MissingDependencyError(f"{package} isn't installed")


SUITE: Final = Suite(
    "A step of I-MLE, forward and backward, S = 1: other libraries and this one",
    {peered.case.name: partial(measure, peered) for peered in CASES},
    quick=("path 5×5", "knapsack 16×2"),
)
