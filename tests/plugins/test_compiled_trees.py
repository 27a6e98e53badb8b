"""The compiled trees and arborescences: as good as enumeration, ties by index, and alike in any block."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mapgrad
from mapgrad import Status
from mapgrad.testing import parametrize_with_checks
from mapgrad_compiled._arborescence import Edmonds
from mapgrad_compiled._spanning_tree import Boruvka
from mapgrad_scipy._arborescence import Edmonds as SciPyEdmonds
from mapgrad_scipy._spanning_tree import Kruskal

Edges = list[tuple[int, int]]

KNOTTED = [(0, 1), (1, 0), (0, 1), (1, 2), (2, 1), (2, 3), (3, 0), (1, 3), (3, 3)]
FEW_VALUES = st.sampled_from([-np.inf, -1.0, -0.5, -0.0, 0.0, 1e-9, 0.5])
ANY_VALUES = st.floats(-1, 1) | st.just(-np.inf)


def solved(solver: mapgrad.InstanceSolver, theta: NDArray[np.float64]) -> mapgrad.Block:
    """A block of rows [m, E] with −inf where an entry is forbidden, answered without the road around it."""
    forbidden = theta == -np.inf
    finite = np.where(forbidden, 0.0, theta)
    finite.flags.writeable = False
    block = mapgrad.Block(finite, forbidden=forbidden if forbidden.any() else None)
    solver.solve_rows(solver.init(), block)
    return block


def require_best(solver: mapgrad.InstanceSolver, theta: NDArray[np.float64]) -> None:
    """A row's answer is worth as much as the best of all states; the row is infeasible if each is forbidden."""
    states = np.asarray(solver.problem.states())
    best = np.where(states == 0, 0, theta).sum(axis=1).max()
    block = solved(solver, theta[None])
    if best == -np.inf:
        assert block.status == Status.INFEASIBLE
        assert np.isnan(block.z).all()
    else:
        assert block.status == Status.OPTIMAL
        assert solver.problem.contains(torch.as_tensor(block.z))
        assert np.where(block.z == 0, 0, theta).sum() == pytest.approx(best, abs=1e-14)


def random_edges(num_nodes: int, count: int) -> Edges:
    """A chain of all nodes and random edges, loops and parallel ones among them."""
    pairs = np.random.default_rng(count).integers(0, num_nodes, (count, 2)).tolist()
    return [*((node, node + 1) for node in range(num_nodes - 1)), *((u, v) for u, v in pairs)]


def kruskal(num_nodes: int, edges: Edges, theta: NDArray[np.float64]) -> list[int]:
    """The tree that takes edges by θ, the first of equals first."""
    label, tree = list(range(num_nodes)), [0] * len(edges)
    for edge in np.argsort(-theta, kind="stable").tolist():
        u, v = (label[node] for node in edges[edge])
        if u != v and theta[edge] > -np.inf:
            tree[edge] = 1
            label = [u if name == v else name for name in label]
    return tree


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, Edges, NDArray[np.float64]]:
    """Number of nodes, up to nine edges between them, and their utilities."""
    num_nodes = draw(st.integers(1, 5))
    node = st.integers(0, num_nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), min_size=1, max_size=9))
    values = draw(st.sampled_from([FEW_VALUES, ANY_VALUES]))
    return num_nodes, edges, np.array(draw(st.lists(values, min_size=len(edges), max_size=len(edges))))


@parametrize_with_checks(
    [
        (Boruvka, mapgrad.SpanningTree(4, KNOTTED)),
        (Edmonds, mapgrad.Arborescence(4, KNOTTED, 1)),
        (Edmonds, mapgrad.Arborescence(4, [*permutations(range(4), 2)], 2)),
    ]
)
def test_conformance(check) -> None:
    check()


@settings(deadline=None, derandomize=True, max_examples=300)
@given(graphs())
def test_brute_force_agrees_on_trees(graph: tuple[int, Edges, NDArray[np.float64]]) -> None:
    num_nodes, edges, theta = graph
    try:
        problem = mapgrad.SpanningTree(num_nodes, edges)
    except mapgrad.InfeasibleError:
        assume(False)
    require_best(Boruvka(problem), theta)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(graphs(), st.integers(0, 4))
def test_brute_force_agrees_on_arborescences(graph: tuple[int, Edges, NDArray[np.float64]], root: int) -> None:
    num_nodes, edges, theta = graph
    edges = [*((root % num_nodes, node) for node in range(num_nodes)), *edges]
    theta = np.concatenate((np.full(num_nodes, -np.inf if theta[0] > 0 else -0.7), theta))
    require_best(Edmonds(mapgrad.Arborescence(num_nodes, edges, root % num_nodes)), theta)


@pytest.mark.parametrize(
    ("num_nodes", "edges"),
    [(12, [*combinations(range(12), 2)]), (60, random_edges(60, 300)), (200, random_edges(200, 150))],
    ids=["complete", "dense", "sparse"],
)
def test_the_tree_is_the_one_that_takes_the_first_of_equal_edges(num_nodes: int, edges: Edges) -> None:
    rng = np.random.default_rng(0)
    normal, few = rng.standard_normal((10, len(edges))), rng.integers(-2, 1, (10, len(edges))) * 1.0
    few[5:][few[5:] == 0] = -0.0
    theta = np.concatenate((normal, few, np.zeros((1, len(edges)))))
    problem = mapgrad.SpanningTree(num_nodes, edges)
    assert solved(Boruvka(problem), theta).z.tolist() == [kruskal(num_nodes, edges, row) for row in theta]
    with mapgrad.get_solver(Kruskal, problem) as other:
        assert torch.equal(mapgrad.get_solver(Boruvka, problem)(torch.as_tensor(theta)), other(torch.as_tensor(theta)))


def test_forbidden_edges_part_a_tree() -> None:
    inf = torch.inf
    theta = torch.tensor([[-inf, 1, 2, -5], [1, -inf, 2, -inf], [-inf, -inf, 3, 2], [2, 2, -inf, -inf]])
    with pytest.raises(mapgrad.InfeasibleError) as refused:
        mapgrad.get_solver("compiled.spanning_tree", mapgrad.SpanningTree(3, [(0, 1), (1, 0), (1, 2), (2, 0)]))(theta)
    assert refused.value.rows == (3,)
    assert refused.value.solutions.z[:3].tolist() == [[0, 1, 1, 0], [1, 0, 1, 0], [0, 0, 1, 1]]


def test_forbidden_arcs_leave_no_way_to_a_node() -> None:
    problem = mapgrad.Arborescence(3, [(0, 1), (1, 2), (2, 1), (0, 2)], 0)
    inf = torch.inf
    theta = torch.tensor([[-inf, 1.0, 1, -5], [-inf, 1, 1, -inf], [1, 1, -inf, -inf], [1, -inf, 1, -inf]])
    with pytest.raises(mapgrad.InfeasibleError) as refused:
        mapgrad.get_solver("compiled.arborescence", problem)(theta)
    assert refused.value.rows == (1, 3)
    assert refused.value.solutions.z[[0, 2]].tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]


def test_cycles_within_cycles_are_entered_where_it_costs_least() -> None:
    problem = mapgrad.Arborescence(5, [(0, 1), (1, 2), (2, 1), (2, 3), (3, 4), (4, 1), (0, 4), (1, 3), (0, 1)], 0)
    far, near = [-9, 9, 9, 1, 5, 8, -6, 0, -8], [-9, 9, 9, 1, 5, 8, -6, 0, -2]
    assert solved(Edmonds(problem), np.array([far, near]) * 1.0).z.tolist() == [
        [0, 1, 0, 1, 0, 1, 1, 0, 0],
        [0, 1, 0, 1, 1, 0, 0, 0, 1],
    ]


def nested_cycles(num_nodes: int) -> tuple[Edges, NDArray[np.float64]]:
    """Arcs to the next and the last node, back, and from the root: each cycle holds the one before."""
    arcs, theta = [(0, node) for node in range(1, num_nodes)], [-100.0 + node for node in range(1, num_nodes)]
    for node in range(1, num_nodes - 1):
        arcs += [(node, node + 1), (node + 1, 1)]
        theta += [50.0 - node, 50.5 - node]
    return arcs, np.array(theta)


@pytest.mark.parametrize("root", [0, 7])
@pytest.mark.parametrize(
    ("num_nodes", "arcs"),
    [(25, [*permutations(range(25), 2)]), (60, random_edges(60, 400)), (150, random_edges(150, 300))],
    ids=["complete", "dense", "sparse"],
)
def test_large_arborescences_are_worth_as_much_as_those_of_scipy(num_nodes: int, arcs: Edges, root: int) -> None:
    arcs = [*arcs, *((v, u) for u, v in arcs)]
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((4, len(arcs))), rng.integers(-2, 3, (4, len(arcs))), np.zeros((1, len(arcs)))
    problem, theta = mapgrad.Arborescence(num_nodes, arcs, root), torch.as_tensor(np.concatenate(kinds))
    ours, theirs = (mapgrad.get_solver(solver, problem).solve(theta) for solver in (Edmonds, SciPyEdmonds))
    assert problem.contains(ours.z).all()
    torch.testing.assert_close(ours.objective, theirs.objective, rtol=0, atol=1e-12 * num_nodes)


def test_each_cycle_may_hold_the_one_before() -> None:
    arcs, theta = nested_cycles(40)
    problem = mapgrad.Arborescence(40, arcs, 0)
    ours, theirs = (solved(solver(problem), theta[None]).z for solver in (Edmonds, SciPyEdmonds))
    assert problem.contains(torch.as_tensor(ours)).all()
    assert ours @ theta == theirs @ theta


@pytest.mark.parametrize(
    "solver", [Boruvka(mapgrad.SpanningTree(4, KNOTTED)), Edmonds(mapgrad.Arborescence(4, KNOTTED, 1))]
)
def test_a_row_is_answered_alike_alone_and_in_company(solver: mapgrad.InstanceSolver) -> None:
    rng = np.random.default_rng(0)
    theta = np.concatenate((rng.standard_normal((30, len(KNOTTED))), rng.integers(-1, 2, (30, len(KNOTTED)))))
    theta[rng.random(theta.shape) < 0.2] = -np.inf
    together, alone = solved(solver, theta), [solved(solver, row[None]) for row in theta]
    assert np.array_equal(together.z, np.concatenate([block.z for block in alone]), equal_nan=True)
    assert np.array_equal(together.status, np.concatenate([block.status for block in alone]))
    assert {Status.OPTIMAL, Status.INFEASIBLE} == set(together.status)


def test_threads_help_and_no_option_is_known() -> None:
    assert Boruvka.traits == mapgrad.Traits(releases_gil=True, scale_free=True, masks=True)
    assert Edmonds.traits == mapgrad.Traits(releases_gil=True, masks=True)
    for solver in (Boruvka, Edmonds):
        with pytest.raises(TypeError, match=f"{solver.__name__} has no option 'method'"):
            solver(mapgrad.SpanningTree(2, [(0, 1)]), method="slow")
