"""Every solver installed keeps every law: dedicated ones on all classes they take, engines on a choice of programs."""

import pytest

import mapgrad
from mapgrad.testing import BruteForce, check_solver, example_problems

SOLVERS = [info for info in mapgrad.list_solvers() if info.distribution == "mapgrad"]
ENGINES = {info.name for info in SOLVERS if mapgrad.IntegerProgram in info.accepts} - {"diagram"}  # 0/1 variables only


EXAMPLES = example_problems(mapgrad.SolverSpec(name="any", factory=BruteForce, accepts=(mapgrad.Problem,)))
TAKEN = [(problem, {info.name for info in mapgrad.list_solvers(problem)}) for problem in EXAMPLES]


def cases(name):
    problems = [problem for problem, names in TAKEN if name in names]
    if name not in ENGINES:
        return problems
    # the table of agreement has the others, which are too many for all laws
    programs = [problem for problem in problems if isinstance(problem, mapgrad.IntegerProgram)]
    chosen = [each for each in programs if len(each.features) == 3 or not (each.integrality.all() or each.features)]
    return [*chosen, mapgrad.GridShortestPath(3, 3)]


CASES = [(info.name, problem) for info in SOLVERS if info.status == "ok" for problem in cases(info.name)]


# laws on what a solver may do without: all others apply to every solver
OF_SOME_ENGINES = {"patience", "solve_rows", "reuse", "limits_by_row", "engine_answers", "releases_gil", "stop"}
OF_SOME_SOLVERS = OF_SOME_ENGINES | {"time_limit", "limits_apart", "infeasible", "ends_in_time"}


ONE_OF_THREE = {"pulp.cbc": 0, "ortools.mip": 1, "scipy.milp": 2, "pulp.highs": 2}
"""The slow engines, and which of their programs they get by default: among them, they get all three."""


def parameters():
    for name in dict.fromkeys(name for name, _ in CASES):
        for place, case in enumerate(case for case in CASES if case[0] == name):
            is_slow = ONE_OF_THREE.get(name, place) != place
            yield pytest.param(*case, marks=[pytest.mark.slow] * is_slow)


@pytest.mark.parametrize(
    ("name", "problem"), [*parameters()], ids=lambda each: each if isinstance(each, str) else type(each).__name__
)
def test_conformance(name, problem):
    skipped = {outcome.law for outcome in check_solver(name, problem) if not outcome.applies}
    takes_slow_program = name in ENGINES - {"search"}
    assert skipped <= (OF_SOME_ENGINES if takes_slow_program else OF_SOME_SOLVERS)


def test_the_table_is_whole():
    assert {info.name: info.status for info in SOLVERS} == {
        "clarabel.portfolio": "ok",
        "compiled.arborescence": "ok",
        "compiled.assignment": "ok",
        "compiled.shortest_path": "ok",
        "compiled.spanning_tree": "ok",
        "diagram": "ok",
        "highs": "ok",
        "highs.tsp": "ok",
        "networkx.assignment": "ok",
        "networkx.matching": "ok",
        "networkx.shortest_path": "ok",
        "networkx.spanning_tree": "ok",
        "ortools.cp_sat": "ok",
        "ortools.knapsack": "ok",
        "ortools.mip": "ok",
        "pulp.cbc": "ok",
        "pulp.highs": "ok",
        "rustworkx.matching": "ok",
        "scipy.arborescence": "ok",
        "scipy.assignment": "ok",
        "scipy.milp": "ok",
        "scipy.shortest_path": "ok",
        "scipy.spanning_tree": "ok",
        "search": "ok",
        "topk": "ok",
        "torch.shortest_path": "ok",
    }
    for info in SOLVERS:
        if info.name not in ENGINES | {"diagram", "clarabel.portfolio"}:  # no portfolios can be enumerated
            assert {type(problem) for name, problem in CASES if name == info.name} == set(info.accepts)


def test_engines_take_every_class():
    every_class = {type(problem) for problem in EXAMPLES}
    assert len(every_class) == 12
    for name in ENGINES:
        assert {type(problem) for problem in example_problems(name)} == every_class
