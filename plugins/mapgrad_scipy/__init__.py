"""Plugin ``scipy``: assignments, shortest paths, spanning trees, arborescences and integer programs by SciPy.

`scipy.assignment` and `scipy.milp` release the GIL; `scipy.sparse.csgraph`, behind the others, holds it.
"""

import math
from functools import partial
from typing import Final

import mapgrad

__all__ = ["mapgrad_solvers"]


_SCRIPT: Final = """\
import highspy  # reads the file; SciPy's own HiGHS solves it
from scipy import optimize, sparse
reader = highspy.Highs()
reader.readModel(path)
lp = reader.getLp()
columns = (lp.a_matrix_.value_, lp.a_matrix_.index_, lp.a_matrix_.start_)
rows = optimize.LinearConstraint(sparse.csc_array(columns, (lp.num_row_, lp.num_col_)), lp.row_lower_, lp.row_upper_)
box, integer = optimize.Bounds(lp.col_lower_, lp.col_upper_), [int(kind) for kind in lp.integrality_]
print(optimize.milp(lp.col_cost_, integrality=integer or None, bounds=box, constraints=rows))"""


@mapgrad.hookimpl
def mapgrad_solvers() -> list[mapgrad.SolverSpec]:
    """Return this plugin's solvers."""
    spec = partial(mapgrad.SolverSpec, requires=("scipy",), install="pip install 'mapgrad[scipy]'")
    return [
        spec(
            name="assignment",
            factory="mapgrad_scipy._assignment:LinearSumAssignment",
            accepts=(mapgrad.Assignment,),
            cost=_assignment_cost,
        ),
        spec(
            name="shortest_path",
            factory="mapgrad_scipy._shortest_path:Dijkstra",
            accepts=(mapgrad.GridShortestPath, mapgrad.ShortestPath),
            cost=_shortest_path_cost,
        ),
        spec(
            name="spanning_tree",
            factory="mapgrad_scipy._spanning_tree:Kruskal",
            accepts=(mapgrad.SpanningTree,),
            cost=_spanning_tree_cost,
        ),
        spec(
            name="arborescence",
            factory="mapgrad_scipy._arborescence:Edmonds",
            accepts=(mapgrad.Arborescence,),
            cost=_arborescence_cost,
        ),
        spec(
            name="milp",
            factory="mapgrad_scipy._milp:Milp",
            accepts=(mapgrad.IntegerProgram,),
            cost=_milp_cost,
            script=_SCRIPT,
        ),
    ]


# Seconds a row, fitted to the best of many runs on one core of an AMD EPYC server, for up to some thousand entries.


def _assignment_cost(problem: mapgrad.Assignment) -> float:
    return 1e-6 + 2.6e-8 * math.prod(problem.shape)


def _shortest_path_cost(problem: mapgrad.GridShortestPath | mapgrad.ShortestPath) -> float:
    if problem.domain is mapgrad.Domain.REAL:
        return 1e-6 + 2e-8 * math.prod(
            problem.shape
        )  # in batches of some dozen rows; one alone takes four times as long
    seconds_per_entry = 1.3e-7 if isinstance(problem, mapgrad.GridShortestPath) else 8e-8
    return 3e-5 + seconds_per_entry * math.prod(problem.shape)


def _spanning_tree_cost(problem: mapgrad.SpanningTree) -> float:
    return 4e-5 + 1.6e-7 * math.prod(problem.shape)


def _arborescence_cost(problem: mapgrad.Arborescence) -> float:
    return 2e-4 + 4e-6 * math.prod(problem.shape)


def _milp_cost(program: mapgrad.IntegerProgram) -> float:
    if not program.integrality.any():
        return 1e-3 + 1e-6 * len(program.matrix.data)
    return 8e-3 + 4e-5 * len(program.matrix.data)
