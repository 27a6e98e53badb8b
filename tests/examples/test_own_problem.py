"""A problem and a solver of one's own: the example runs, and its solver is exact."""

import sys

import pytest
import torch

import mapgrad

SQUARE = [(0, 1), (1, 2), (2, 3), (3, 0)]


@pytest.fixture
def example(load, monkeypatch):
    module = load("own_problem")
    monkeypatch.setitem(sys.modules, "own_problem", module)  # where pickle looks for its classes
    return module


@pytest.fixture
def registered(example):
    mapgrad.register(example, "independent_set")
    yield
    mapgrad.unregister("independent_set")


def test_a_network_learns_through_it(example, capsys):
    try:
        before, after = example.main(epochs=5)
    finally:
        mapgrad.unregister("independent_set")
    assert after < 0.3 * before
    *values, _ = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in values] == [
        "highs", "scipy.milp", "ortools.mip", "ortools.cp_sat", "pulp.cbc", "independent_set",
    ]  # fmt: skip
    assert len({line.split()[1] for line in values}) == 1


@pytest.mark.parametrize(
    ("num_nodes", "edges"), [(1, []), (5, []), (4, SQUARE), (6, [*SQUARE, (0, 2), (1, 3), (3, 4)]), (3, SQUARE[:2])]
)
def test_it_keeps_the_laws(example, registered, num_nodes, edges):
    problem = example.IndependentSet(num_nodes, edges)
    mapgrad.testing.check_problem(problem)
    states = problem.states()
    apart = [all(not (state[one] and state[other]) for one, other in edges) for state in states]
    assert all(apart)
    theta = torch.randn(20, num_nodes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    best = (theta @ states.T).max(dim=1).values
    torch.testing.assert_close(mapgrad.get_solver("auto", problem).solve(theta).objective, best)


@pytest.mark.parametrize("edges", [[(0, 0)], [(0, 4)], [(-1, 2)]])
def test_other_edges_are_refused(example, edges):
    with pytest.raises(mapgrad.ProblemError, match="edges must join different nodes from 0 to 3"):
        example.IndependentSet(4, edges)
