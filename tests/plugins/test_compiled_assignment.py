"""The compiled Hungarian: as good as enumeration, certified by its prices, and alike in any block."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mapgrad
from mapgrad import Status
from mapgrad.testing import parametrize_with_checks
from mapgrad_compiled import _assignment
from mapgrad_compiled._assignment import Hungarian
from mapgrad_scipy._assignment import LinearSumAssignment

FEW_VALUES = st.sampled_from([-np.inf, -1.0, -0.5, -0.0, 0.0, 1e-9, 0.5])
ANY_VALUES = st.floats(-1, 1) | st.just(-np.inf)

STRUCTURES = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "few values": lambda rng, shape: rng.integers(-2, 3, shape),
    "equal": lambda rng, shape: np.zeros(shape),
    "equal rows": lambda rng, shape: np.zeros(shape) + rng.random(shape[1]),
    "products": lambda rng, shape: -rng.random((shape[0], 1)) * rng.random(shape[1]),
    "distances": lambda rng, shape: -np.abs(rng.random((shape[0], 1)) - rng.random(shape[1])),
    "magnitudes": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.integers(-16, 1, shape),
    "mostly forbidden": lambda rng, shape: np.where(rng.random(shape) < 0.9, -np.inf, rng.random(shape)),
}


def solved(theta: NDArray[np.float64]) -> mapgrad.Block:
    """A block of rows [m, rows, cols] with −inf where an entry is forbidden, answered without the road around it."""
    forbidden = theta == -np.inf
    finite = np.where(forbidden, 0.0, theta).reshape(len(theta), -1)
    finite.flags.writeable = False
    block = mapgrad.Block(finite, forbidden=forbidden.reshape(finite.shape) if forbidden.any() else None)
    solver = Hungarian(mapgrad.Assignment(*theta.shape[1:]))
    solver.init()
    solver.solve_rows(None, block)
    return block


def worth(theta: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """⟨θ, z⟩ of each row; −inf if it holds a forbidden entry."""
    return np.where(z == 0, 0, theta.reshape(z.shape)).sum(axis=-1)


def solutions(solver: type, problem: mapgrad.Problem, theta: torch.Tensor) -> mapgrad.Solutions:
    try:
        return mapgrad.get_solver(solver, problem).solve(theta)
    except mapgrad.InfeasibleError as error:
        return error.solutions


@parametrize_with_checks([(Hungarian, mapgrad.Assignment(*shape)) for shape in [(4, 4), (3, 5), (5, 3)]])
def test_conformance(check) -> None:
    check()


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.data())
def test_brute_force_agrees(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    values = data.draw(st.sampled_from([FEW_VALUES, ANY_VALUES]))
    theta = np.array(data.draw(st.lists(values, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])))
    problem = mapgrad.Assignment(*shape)
    states = np.asarray(problem.states()).reshape(-1, theta.size)
    best = max(worth(np.tile(theta, (len(states), 1)), states))
    block = solved(theta.reshape(1, *shape))
    if best == -np.inf:
        assert block.status == Status.INFEASIBLE
        assert np.isnan(block.z).all()
    else:
        assert block.status == Status.OPTIMAL
        assert problem.contains(torch.as_tensor(block.z.reshape(1, *shape)))
        assert worth(theta[None], block.z) == pytest.approx(best, abs=1e-14)


@pytest.mark.parametrize("shape", [(60, 60), (40, 70), (70, 40), (1, 50), (200, 200)])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_large_assignments_are_worth_as_much_as_those_of_scipy(shape: tuple[int, int], structure: str) -> None:
    rng = np.random.default_rng(0)
    problem = mapgrad.Assignment(*shape)
    theta = torch.as_tensor(np.stack([STRUCTURES[structure](rng, shape) for _ in range(3)]) * 1.0)
    ours, theirs = (solutions(solver, problem, theta) for solver in (Hungarian, LinearSumAssignment))
    assert torch.equal(ours.status, theirs.status)
    torch.testing.assert_close(ours.objective, theirs.objective, rtol=0, atol=1e-11, equal_nan=True)


@pytest.mark.parametrize("shape", [(80, 80), (50, 90)])
@pytest.mark.parametrize("structure", [name for name in STRUCTURES if name != "mostly forbidden"])
def test_prices_prove_an_assignment_optimal(shape: tuple[int, int], structure: str) -> None:
    """c_ij − v_j is smallest at each person's job, and free jobs, if there are any, have the highest price, 0."""
    people, jobs = shape
    cost = -STRUCTURES[structure](np.random.default_rng(1), shape) * 1.0
    price = cost.min(axis=0) if people == jobs else np.zeros(jobs)
    person_of, job_of = np.full(jobs, -1), np.full(people, -1)
    distance, open_price, settled_at = np.empty((3, jobs))
    came_from, settled, waiting = np.empty((3, jobs), dtype=np.int64)
    count = _assignment._bid(cost, price, person_of, job_of, distance, waiting)
    for person in waiting[:count]:
        assert _assignment._search(
            person, cost, price, person_of, job_of, distance, came_from, open_price, settled, settled_at
        )
    assert person_of[job_of].tolist() == list(range(people))
    reduced = cost - price
    assert reduced[range(people), job_of] == pytest.approx(reduced.min(axis=1), abs=1e-13)
    if people < jobs:
        assert price.max() <= 1e-13
        assert not price[person_of < 0].any()


def test_too_few_columns_for_some_rows_are_noticed() -> None:
    inf = -np.inf
    fits = [[inf, inf, 1], [inf, 3, 4], [5, 6, 7]]
    crowded = [[1, 2, inf], [3, 4, inf], [5, 6, inf]]  # nobody takes the last column
    two_of_one = [[inf, inf, 1], [inf, inf, 4], [5, 6, 7]]
    alone = [[inf, inf, inf], [3, 4, 1], [5, 6, 7]]
    theta = torch.tensor([fits, crowded, two_of_one, alone, fits], dtype=torch.float64)
    with pytest.raises(mapgrad.InfeasibleError) as refused:
        mapgrad.get_solver("compiled.assignment", mapgrad.Assignment(3))(theta)
    assert refused.value.rows == (1, 2, 3)
    solutions = refused.value.solutions
    assert solutions.z[[0, 4]].tolist() == [[[0, 0, 1], [0, 1, 0], [1, 0, 0]]] * 2
    assert solutions.objective[[0, 4]].tolist() == [9, 9]


@pytest.mark.parametrize("shape", [(6, 6), (4, 7), (7, 4)])
def test_a_row_is_answered_alike_alone_and_in_company(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    theta = np.concatenate([[structure(rng, shape) * 1.0 for structure in STRUCTURES.values()] for _ in range(5)])
    together, alone = solved(theta), [solved(row[None]) for row in theta]
    assert np.array_equal(together.z, np.concatenate([block.z for block in alone]), equal_nan=True)
    assert np.array_equal(together.status, np.concatenate([block.status for block in alone]))
    assert {Status.OPTIMAL, Status.INFEASIBLE} == set(together.status)


@pytest.mark.parametrize("magnitude", [1e-300, 1e-9, 1e9, 1e300])
def test_rows_of_any_magnitude_have_the_same_optimum(magnitude: float) -> None:
    theta = torch.randn(20, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solver = mapgrad.get_solver("compiled.assignment", mapgrad.Assignment(9))
    assert torch.equal(solver(theta * magnitude), solver(theta))


def test_threads_help_and_no_option_is_known() -> None:
    assert Hungarian.traits == mapgrad.Traits(releases_gil=True, masks=True)
    with pytest.raises(TypeError, match="Hungarian has no option 'method'"):
        Hungarian(mapgrad.Assignment(2), method="slow")
