"""The script beside a row's program: solves it without mapgrad."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mapgrad.solvers import SolverFactory

_HIGHS: Final = """\
import highspy
engine = highspy.Highs()
engine.readModel(path)
engine.run()
print(engine.modelStatusToString(engine.getModelStatus()), engine.getInfo().objective_function_value)"""
"""For solvers that aren't engines of integer programs, or don't say."""


def script_of(factory: SolverFactory, facts: Mapping[str, Any]) -> str:
    """Return a script that solves the file in MPS format of its own name, and prints what comes.

    Args:
        factory: Made the solver: its spec's `script` is taken.
        facts: Of the row.
    """
    solver, objective = facts["solver"], facts["objective"]
    said = [f"{facts['status']}", *(facts["cause"].splitlines()[:1])]
    said += [] if objective is None else [f"the objective {objective!r}, of which the file has the negative"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    notes = [
        f"# {solver['label']}, options {json.dumps(solver['options'])}, time limit {solver['time_limit']}",
        f"# answered {', '.join(said)}",
        f"# under {versions}",
    ]
    lines = [
        *("".join(char if char.isprintable() else ascii(char)[1:-1] for char in note) for note in notes),
        'path = __file__.removesuffix(".py") + ".mps"',
    ]
    own = factory.spec.script if factory.spec is not None else ""
    if not own:
        lines.append("# HiGHS solves the file here, as the solver has no script of its own")
    return "\n".join([*lines, own or _HIGHS, ""])
