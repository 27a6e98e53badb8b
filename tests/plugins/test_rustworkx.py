"""What is particular to matchings by rustworkx: integers, parallel edges, forbidden ones, what doesn't pay."""

from itertools import combinations

import numpy as np
import pytest
import rustworkx as rx
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mapgrad
from mapgrad import Status
from mapgrad.testing import parametrize_with_checks
from mapgrad_networkx._matching import Blossom as NetworkXBlossom
from mapgrad_rustworkx._matching import Blossom

Edges = list[tuple[int, int]]

PARALLEL = [(0, 1), (1, 0), (0, 1), (1, 2), (2, 1), (2, 3), (3, 0), (1, 3)]
COMPLETE = [*combinations(range(16), 2)]
CHAIN = [(node, node + 1) for node in range(15)]
KINDS = [{}, {"cardinality": "maximum"}, {"perfect": True}]
FEW_VALUES = st.sampled_from([-np.inf, -0.5, -1e-9, -0.0, 0.0, 1e-9, 0.5])
ANY_VALUES = st.floats(-0.99, 0.99) | st.just(-np.inf)


def solved(problem: mapgrad.Matching, theta: NDArray[np.float64]) -> mapgrad.Block:
    """A block of rows [m, E] with −inf where an entry is forbidden, answered without the road around it."""
    forbidden = theta == -np.inf
    finite = np.where(forbidden, 0.0, theta)
    finite.flags.writeable = False
    block = mapgrad.Block(finite, forbidden=forbidden if forbidden.any() else None)
    solver = Blossom(problem)
    solver.solve_rows(solver.init(), block)
    return block


def answers(problem: mapgrad.Matching, *theta: list[float]) -> list[list[float]]:
    return solved(problem, np.array(theta) * 1.0).z.tolist()


@st.composite
def matchings(draw: st.DrawFn) -> tuple[mapgrad.Matching, NDArray[np.float64]]:
    """A problem of up to nine edges between up to six nodes, and utilities."""
    num_nodes = draw(st.integers(2, 6))
    edges = draw(st.lists(st.sampled_from([*combinations(range(num_nodes), 2)]), min_size=1, max_size=9))
    edges = [(v, u) if draw(st.booleans()) else (u, v) for u, v in edges]
    try:
        problem = mapgrad.Matching(num_nodes, edges, **draw(st.sampled_from(KINDS)))
    except mapgrad.InfeasibleError:
        assume(False)
    values = draw(st.sampled_from([FEW_VALUES, ANY_VALUES]))
    return problem, np.array(draw(st.lists(values, min_size=len(edges), max_size=len(edges))))


@parametrize_with_checks(
    [
        (Blossom, mapgrad.Matching(4, PARALLEL)),
        (Blossom, mapgrad.Matching(4, PARALLEL, perfect=True)),
        (Blossom, mapgrad.Matching(5, [(0, 1), (0, 2), (0, 3), (3, 4), (1, 0)], cardinality="maximum")),
    ]
)
def test_conformance(check) -> None:
    check()


@settings(deadline=None, derandomize=True, max_examples=300)
@given(matchings())
def test_brute_force_agrees(case: tuple[mapgrad.Matching, NDArray[np.float64]]) -> None:
    problem, theta = case
    states = np.asarray(problem.states())
    best = np.where(states == 0, 0, theta).sum(axis=1).max()
    block = solved(problem, theta[None])
    if best == -np.inf:
        assert block.status == Status.INFEASIBLE
        assert np.isnan(block.z).all()
    else:
        assert block.status == Status.OPTIMAL
        assert problem.contains(torch.as_tensor(block.z))
        assert np.where(block.z == 0, 0, theta).sum() == pytest.approx(best, abs=1e-14)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("edges", [COMPLETE, 2 * COMPLETE[::5] + CHAIN], ids=len)
def test_middling_matchings_are_worth_as_much_as_those_of_networkx(edges: Edges, kind: dict) -> None:
    problem = mapgrad.Matching(16, edges, **kind)
    rng = np.random.default_rng(0)
    shape = 6, len(edges)
    kinds = rng.standard_normal(shape), rng.integers(-2, 3, shape), -rng.random(shape), 1e9 * rng.random(shape)
    theta = torch.as_tensor(np.concatenate((*kinds, 1e-9 * rng.standard_normal(shape), np.zeros((1, len(edges))))))
    ours, theirs = (mapgrad.get_solver(solver, problem).solve(theta) for solver in (Blossom, NetworkXBlossom))
    assert problem.contains(ours.z).all()
    assert ((ours.objective - theirs.objective).abs() <= 1e-12 * theta.abs().amax(dim=1)).all()


def test_what_does_not_pay_is_left_out_unless_as_many_as_can_be_must_match() -> None:
    square = [(0, 1), (1, 2), (2, 3), (3, 0)]
    theta, costs = [-0.1, -0.6, 0.5, -0.6], [-0.6, -0.5, -0.6, -0.5]
    assert answers(mapgrad.Matching(4, square), theta, costs) == [[0, 0, 1, 0], [0, 0, 0, 0]]
    assert answers(mapgrad.Matching(4, square, perfect=True), theta, costs) == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_the_best_of_parallel_edges_is_matched_the_first_of_equals() -> None:
    problem = mapgrad.Matching(4, PARALLEL)
    assert answers(problem, [0.1, 0.3, 0.3, 0, 0, 0.5, 0, 0], [-np.inf, -0.1, 0.1, 0, 0, 0.5, 0.7, 0]) == [
        [0, 1, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0],
    ]
    assert answers(mapgrad.Matching(4, PARALLEL, perfect=True), [-np.inf, 0, 0, 0, 0, 0.5, 0, 0]) == [
        [0, 1, 0, 0, 0, 1, 0, 0]
    ]


def test_forbidden_edges_leave_no_matching_of_the_size_that_is_asked_for() -> None:
    problem = mapgrad.Matching(5, [(0, 1), (1, 2), (2, 3), (2, 4), (1, 0)], cardinality="maximum")
    theta = torch.tensor([[-torch.inf, 0.9, -torch.inf, -0.3, -0.6], [0, 0, -torch.inf, -torch.inf, 0]])
    with pytest.raises(mapgrad.InfeasibleError) as refused:
        mapgrad.get_solver("rustworkx.matching", problem)(theta)
    assert refused.value.rows == (1,)
    assert refused.value.solutions.z[0].tolist() == [0, 0, 0, 1, 1]


def test_utilities_a_billionth_of_a_billionth_apart_are_told_apart() -> None:
    star = mapgrad.Matching(4, [(0, 1), (0, 2), (0, 3)])
    assert answers(star, [2e-18, 0, 1e-18], [1e-18, 2e-18, 0], [0, 0, 1e-18]) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_rustworkx_has_room_for_far_more_than_our_weights() -> None:
    """A path of three edges, where the middle one is worth one unit more or less than its neighbours together."""
    graph = rx.PyGraph()
    graph.extend_from_weighted_edge_list([(0, 1, 0), (1, 2, 1), (2, 3, 2)])
    for exponent in (61, 64, 100, 120):
        unit = 2**exponent
        for more, size in ((1, 1), (-1, 2)):
            weights = [unit, 2 * unit + more, unit]
            assert len(rx.max_weight_matching(graph, weight_fn=weights.__getitem__, verify_optimum=True)) == size


def test_a_model_keeps_nothing_of_the_rows_before() -> None:
    problem = mapgrad.Matching(6, [*combinations(range(6), 2)], cardinality="maximum")
    rows = np.random.default_rng(0).integers(-2, 3, (30, 15)) / 4
    rows[::3, :4] = -np.inf
    fresh = [answers(problem, row)[0] for row in rows]
    assert answers(problem, *rows) == fresh
    assert answers(problem, *rows[::-1]) == fresh[::-1]


def test_threads_do_not_help_and_no_option_is_known() -> None:
    assert Blossom.traits == mapgrad.Traits(releases_gil=False, masks=True)
    with pytest.raises(TypeError, match="Blossom has no option 'method'"):
        Blossom(mapgrad.Matching(2, [(0, 1)]), method="slow")
