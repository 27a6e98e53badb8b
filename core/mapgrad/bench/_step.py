"""Suite `step`: a whole training step beside the bare kernel that it calls twice."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from mapgrad.bench._cases import SEED, STEPS, Case, auto, bare_kernel, estimator, layer_of, rows_of_step, step
from mapgrad.bench._clock import Effort, interleave
from mapgrad.bench._report import Row, Spread
from mapgrad.bench._suites import Suite
from mapgrad.layer import MAPLayer

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCHES: Final = 32, 512


def measure(case: Case, effort: Effort) -> Iterator[Row]:
    """Yield a row for each number of rows."""
    problem = case.make()
    for count in (4,) if effort.is_quick else BATCHES:
        solver, theta = auto(problem), case.theta(count)
        rows = rows_of_step(solver, case, theta)
        times = interleave(
            {
                "kernel": bare_kernel(solver.name, problem, rows),
                "solver": lambda solver=solver, rows=rows: [solver(each) for each in rows],
                "no noise": partial(step, MAPLayer(solver, estimator(None), minimize=case.minimize), theta),
                "step": partial(step, layer_of(solver, case), theta),
                "seeded": partial(step, layer_of(solver, case, seed=SEED), theta),
            },
            effort,
        )
        per_solve = {name: Spread.of(each.cpu).times(1e6 / (2 * count)) for name, each in times.items()}
        yield Row(
            case.name,
            "step",
            {"B": count, "n": theta[0].numel()},
            value=per_solve["step"],
            unit="µs a solve",
            ratio=Spread.of_ratios(times["step"].cpu, times["kernel"].cpu),
            against="2 kernels",
            extra={f"{name}, µs": per_solve[name].median for name in ("kernel", "solver", "no noise", "seeded")},
            note=solver.name,
        )


SUITE: Final = Suite(
    "A step of I-MLE, forward and backward, S = 1, as a multiple of the bare kernel on the same rows",
    {case.name: partial(measure, case) for case in STEPS},
    quick=("path 5×5", "k-subset 1000/10"),
)
