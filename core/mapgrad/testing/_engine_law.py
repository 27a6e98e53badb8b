"""The law on what an engine of integer programs says of its points."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from mapgrad.solutions import Status
from mapgrad.solvers import EngineCall, ProgramSolver
from mapgrad.testing._case import law
from mapgrad.testing._points import show
from mapgrad.testing._sample_rows import generic_rows

if TYPE_CHECKING:
    from mapgrad.testing._case import Case

_TOLERANCE: Final = 1e-9
_ROWS: Final = 8


@law
def check_engine_answers(case: Case) -> None:
    """The first way of an engine on `ProgramSolver` finds points x worth the objective ⟨θ, x⟩ and the bound it gives.

    What isn't so makes the base ask again in another way, which takes twice the time and is told by nothing else. The
    engine is asked by itself, for plain rows; a few of them may be beyond its tolerances, and most may not.
    """
    plugin: Any = case.plugin
    if not isinstance(plugin, ProgramSolver):
        case.not_applicable("the solver isn't a ProgramSolver, which is asked for objectives and bounds")
    solver = cast("ProgramSolver[Any]", plugin)
    program, theta = solver.problem, case.native_rows(generic_rows(case.problem, _ROWS, seed=14))
    with case.no_exceptions("build"):
        model = solver.build(program.scaled(solver.row_bits))
    faults: list[str] = []
    try:
        for row in theta:
            with case.no_exceptions("maximize", " on a plain row"):
                answer = solver.maximize(model, EngineCall(row, 0, Event()))
            asked = f"at θ = {show(row[None])} maximize says {answer.status.name}"
            if answer.status is not Status.OPTIMAL or answer.x is None:
                faults.append(f"{asked} {'without a point ' * (answer.x is None)}({answer.text})")
                continue
            x = np.where(program.integrality, np.round(answer.x), answer.x)
            value, terms = float(row @ x), float(np.abs(row) @ np.abs(x))
            slack = _TOLERANCE * (float(np.abs(row).max()) + terms)
            for name, said in (("objective", answer.objective), ("bound", answer.bound)):
                if said is not None and not abs(said - value) <= slack:
                    faults.append(f"{asked} with {name} {said:.12g}, but x = {show(x[None])} is worth {value:.12g}")
                    break
    finally:
        solver.free(model)
    case.require(2 * len(faults) <= len(theta), f"{len(faults)} of {len(theta)} rows: {''.join(faults[:1])}")
