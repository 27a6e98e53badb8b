"""Every solver installed keeps every law on every class of problems that it accepts."""

import mapgrad
from mapgrad.testing import example_problems, parametrize_with_checks

SOLVERS = [info for info in mapgrad.list_solvers() if info.distribution == "mapgrad"]
CASES = [(info.name, problem) for info in SOLVERS for problem in example_problems(info.name)]


@parametrize_with_checks(CASES)
def test_conformance(check):
    check()


def test_the_table_is_whole():
    assert {info.name: info.status for info in SOLVERS} == {
        "networkx.assignment": "ok",
        "networkx.matching": "ok",
        "networkx.shortest_path": "ok",
        "networkx.spanning_tree": "ok",
        "topk": "ok",
    }
    for info in SOLVERS:
        assert {type(problem) for name, problem in CASES if name == info.name} == set(info.accepts)
