"""Plugin ``highs``: integer and linear programs by HiGHS, on models that are kept from row to row."""

from functools import partial
from typing import Final

import mapgrad

__all__ = ["mapgrad_solvers"]

_SCRIPT: Final = """\
import highspy
engine = highspy.Highs()
engine.readModel(path)
engine.run()
print(engine.modelStatusToString(engine.getModelStatus()), engine.getInfo().objective_function_value)"""


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's solvers."""
    spec = partial(mapgrad.SolverSpec, requires=("highspy",), install="pip install 'mapgrad[highs]'")
    return [
        spec(
            name="highs",
            factory="mapgrad_highs._program:HiGHS",
            accepts=(mapgrad.IntegerProgram,),
            cost=_program_cost,
            script=_SCRIPT,
        ),
        spec(
            name="tsp",
            factory="mapgrad_highs._tours:BranchAndCut",
            accepts=(mapgrad.TravelingSalesman, mapgrad.AsymmetricTravelingSalesman),
            cost=_tour_cost,
        ),
    ]


# Seconds a row: medians of processor time on one core of an AMD EPYC server, for programs that branch little.


def _program_cost(program: mapgrad.IntegerProgram) -> float:
    if not program.integrality.any():
        return 2e-4 + 4e-7 * len(program.matrix.data)
    if _is_network(program):
        return 1e-3 + 2e-5 * program.num_vars
    return 1e-3 + 6e-5 * program.num_vars + 1e-5 * len(program.matrix.data)


def _is_network(program: mapgrad.IntegerProgram) -> bool:
    """Tell whether entries are like those of graphs, two of ±1 a column: mostly, linear programs are enough there."""
    matrix = program.matrix
    return len(matrix.data) <= 2 * program.num_vars and bool((abs(matrix.data) == 1).all())


def _tour_cost(problem: mapgrad.TravelingSalesman | mapgrad.AsymmetricTravelingSalesman) -> float:
    seconds_per_triple = 3e-7 if isinstance(problem, mapgrad.TravelingSalesman) else 3e-6
    return 3e-4 + seconds_per_triple * problem.n**3
