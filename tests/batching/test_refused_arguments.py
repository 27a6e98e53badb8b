"""What can't be meant is refused where it is given, in words, by all that take it."""

from functools import partial

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import exact, losses
from mapgrad.pool import StatePool

PACKING = mapgrad.Knapsack([[1, 2, 3]], [4])
ROWS = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])


def solver():
    return mapgrad.get_solver("search", PACKING)


TAKERS = {
    "solver": lambda theta: solver()(theta),
    "solve": lambda theta: solver().solve(theta),
    "layer": lambda theta: mapgrad.MAPLayer(solver())(theta),
    "marginals": lambda theta: exact.marginals(PACKING, theta),
    "map_state": lambda theta: exact.map_state(PACKING, theta),
    "diagram": lambda theta: exact.Diagram(PACKING).map(theta),
    "distribution": lambda theta: mapgrad.PerturbAndMAP(mapgrad.MAPLayer(solver()), theta),
    "fenchel_young": lambda theta: losses.FenchelYoung(solver())(theta, torch.ones(2, 3)),
    "spo_plus": lambda theta: losses.SPOPlus(solver())(theta, ROWS),
    "regret": lambda theta: losses.regret(solver(), theta, ROWS),
    "tune": lambda theta: mapgrad.tune(PACKING, theta, seconds=0.1),
    "pool": lambda theta: StatePool(PACKING).best(theta),
}


@pytest.mark.parametrize("taker", TAKERS.values(), ids=TAKERS)
@pytest.mark.parametrize(
    ("theta", "words"),
    [
        (ROWS.to_sparse, "dense tensor, got torch.sparse_coo"),
        (lambda: ROWS.to("meta"), "on the meta device"),
        (lambda: ROWS.to(torch.float8_e4m3fn), "got torch.float8_e4m3fn: convert it"),
        (ROWS.int, "got torch.int32: convert it"),
        (lambda: ROWS + 0j, "got torch.complex64: convert it"),
        (lambda: torch.nested.as_nested_tensor([*ROWS], layout=torch.jagged), "dense tensor, got torch.jagged"),
        (lambda: torch.nested.as_nested_tensor([*ROWS]), "a nested one: pad it"),
    ],
    ids=["sparse", "meta", "float8", "int", "complex", "jagged", "nested"],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_theta_that_holds_no_plain_numbers(taker, theta, words):
    given = theta()
    with pytest.raises(mapgrad.ShapeError, match=words):
        taker(given)


@pytest.mark.parametrize("taker", TAKERS.values(), ids=TAKERS)
@pytest.mark.parametrize("theta", [ROWS.tolist(), ROWS.numpy(), None], ids=["list", "array", "None"])
def test_theta_that_is_no_tensor(taker, theta):
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor, got"):
        taker(theta)


@pytest.mark.parametrize("name", ["reuse", "merge"])
@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_switch_is_true_or_false(name, value):
    with pytest.raises(TypeError, match=f"{name} must be True or False, got {value!r}"):
        mapgrad.get_solver("search", PACKING, **{name: value})


@pytest.mark.parametrize("value", ["a", None, -1, float("nan"), True, [1]])
def test_seconds_and_counts(value):
    with pytest.raises(ValueError, match="seconds must be a positive number of seconds, got"):
        mapgrad.tune(PACKING, ROWS, seconds=value)
    with pytest.raises(ValueError, match="max_seconds must be a positive number of seconds, got"):
        exact.Diagram(PACKING, max_seconds=value)
    with pytest.raises((TypeError, ValueError), match="max_nodes must be an int of at least 1"):
        mapgrad.get_solver("diagram", PACKING, max_nodes=value)(ROWS)


@pytest.mark.parametrize("value", ["a", None, 2.0**20, float("nan"), True])
def test_bytes_are_whole(value):
    with pytest.raises(TypeError, match="max_bytes must be an int of at least 1, got"):
        exact.Diagram(PACKING, max_bytes=value)
    with pytest.raises(TypeError, match="max_bytes must be an int of at least 1, got"):
        exact.oracle(PACKING, max_bytes=value)


def test_integers_of_numpy_are_integers():
    two = np.int64(2)
    layer = mapgrad.MAPLayer(solver(), mapgrad.IMLE(samples=two), seed=two)
    assert layer(ROWS).shape == ROWS.shape
    assert exact.Diagram(PACKING, max_nodes=np.int32(99)).sample(ROWS, two).shape == (2, *ROWS.shape)


@pytest.mark.parametrize("kind", [np.int8, np.int64])
def test_narrow_integers_of_numpy_don_t_overflow(kind):
    """Products of int8 do, and torch takes none of NumPy's for sizes."""
    many = kind(100)
    law = mapgrad.MAPLayer(solver(), mapgrad.IMLE(mapgrad.Gaussian()), seed=0).distribution(ROWS)
    assert law.expectation(lambda z: z.sum(-1), many).shape == ROWS.shape[:1]
    assert law.atoms(many).states.shape[1:] == ROWS.shape
    gumbel = mapgrad.Gumbel()
    assert torch.equal(exact.topk_marginals(ROWS, kind(2), gumbel), exact.topk_marginals(ROWS, 2, gumbel))
    states = mapgrad.KSubset(3, 2).states()[:, None].expand(3, *ROWS.shape)
    found = exact.topk_probabilities(ROWS, states, kind(2), gumbel)
    assert torch.equal(found, exact.topk_probabilities(ROWS, states, 2, gumbel))
    assert mapgrad.SumOfGamma(5, terms=kind(127)) == mapgrad.SumOfGamma(5, terms=127)
    assert mapgrad.SumOfGamma(5, terms=kind(127)).mean == mapgrad.SumOfGamma(5, terms=127).mean


@pytest.mark.parametrize("kind", [np.int8, np.int64])
def test_tasks_take_narrow_integers_of_numpy(kind):
    task = mapgrad.data.ShortestPathTask(height=kind(20), width=kind(20), degree=kind(6), seed=kind(1))
    same = mapgrad.data.ShortestPathTask(height=20, width=20, degree=6, seed=1)
    assert repr(task) == repr(same)
    assert torch.equal(task.draw(kind(3))[1], same.draw(3)[1])


def test_fuzzing_takes_numbers_of_numpy():
    report = mapgrad.testing.fuzz_solver("highs", np.int64(2), seed=np.int8(1), time_limit=np.float32(5))
    assert report.total(mapgrad.testing.Verdict.RIGHT) == 2


@pytest.mark.parametrize(("count", "seed", "error"), [(-1, 0, ValueError), (2.5, 0, TypeError), (2, -1, ValueError)])
def test_fuzzing_counts_in_integers(count, seed, error):
    with pytest.raises(error, match="must be an int of at least 0, got"):
        mapgrad.testing.fuzz_solver("highs", count, seed=seed)


def test_the_lab_takes_numbers_of_numpy():
    effort = mapgrad.bench.LabEffort(rows=np.int8(20), draws=np.int64(200), count=np.int8(1))
    settings = [mapgrad.bench.Setting("τ = 1", np.float32(1))]
    run = partial(mapgrad.bench.lab, PACKING, {"default": mapgrad.IMLE}, settings=settings, effort=effort)
    one, other = (run(budgets=[kind(6)], earlier=kind(4), seed=kind(3)) for kind in (int, np.int64))
    assert one.rows[0].extra["cosine"] == other.rows[0].extra["cosine"]


@pytest.mark.parametrize("wrong", [{"budgets": [0]}, {"budgets": [6.5]}, {"earlier": -1}, {"seed": "3"}])
def test_the_lab_counts_in_integers(wrong):
    with pytest.raises((TypeError, ValueError), match="must be an int of at least"):
        mapgrad.bench.lab(PACKING, {"default": mapgrad.IMLE}, **wrong)
    with pytest.raises(ValueError, match="draws must be an int of at least 2, got 1"):
        mapgrad.bench.LabEffort(draws=1)


@pytest.mark.parametrize(
    "seconds",
    [np.float32(60), np.int64(60), torch.tensor(60.0), 10**400, float("inf")],
    ids=["float32", "int64", "tensor", "huge", "infinite"],
)
@pytest.mark.parametrize(
    "name", ["search", "diagram", "highs", "scipy.milp", "ortools.mip", "ortools.cp_sat", "pulp.cbc"]
)
def test_all_numbers_of_seconds_are_taken(name, seconds):
    best = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    limited = mapgrad.get_solver(name, PACKING, time_limit=seconds, deadline=seconds)
    assert torch.equal(limited(ROWS), best)
    assert torch.equal(limited.solve(ROWS, deadline=seconds).z, best)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_arrays_of_one_number_are_numbers(kind):
    """NumPy makes no float of one that has a dimension."""
    half = kind([0.5])
    assert mapgrad.IMLE(mapgrad.Gaussian(), temperature=half).temperature == 0.5
    assert mapgrad.Step(half, alpha=half).alpha == 0.5
    assert mapgrad.AdaptiveStep(initial=half, decay=half).decay == 0.5
    assert mapgrad.Pooled(PACKING, gate=half).gate == 0.5
    assert mapgrad.losses.PairwiseRanking(solver(), solve_ratio=half).solve_ratio == 0.5


def test_seconds_of_numpy_are_seconds():
    assert exact.Diagram(PACKING, max_seconds=np.float32(60)).num_states == 6
    assert mapgrad.tune(PACKING, ROWS, seconds=np.float32(0.1)).solver(ROWS).tolist() == [[1, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    "value",
    [np.bool_(True), np.float64("nan"), np.int64(0), 1j, np.complex128(60), np.str_("60"), torch.tensor(True)],
    ids=repr,
)
@pytest.mark.parametrize("name", ["time_limit", "deadline"])
def test_limits_are_positive_seconds(name, value):
    with pytest.raises(ValueError, match=f"{name} must be None or a positive number of seconds, got"):
        mapgrad.get_solver("search", PACKING, **{name: value})


@pytest.mark.parametrize("value", [0, -1, np.int64(0)])
def test_bytes_are_positive(value):
    for oracle in (exact.Diagram, exact.oracle):
        with pytest.raises(ValueError, match="max_bytes must be an int of at least 1, got"):
            oracle(PACKING, max_bytes=value)
    with pytest.raises(ValueError, match="max_bytes must be an int of at least 1, got"):
        exact.topk_marginals(ROWS, 2, mapgrad.Gumbel(), max_bytes=value)


def test_workers_may_be_integers_of_numpy():
    with mapgrad.get_solver("highs", PACKING, workers=np.int64(2)) as threaded:
        assert threaded(ROWS).tolist() == [[1, 0, 1], [1, 1, 0]]
    assert repr(mapgrad.Workers(np.int64(2))) == "Workers(2)"
    with pytest.raises(ValueError, match="a number of threads of at least 1"):
        mapgrad.get_solver("highs", PACKING, workers=np.int64(0))


def test_tune_needs_a_problem():
    with pytest.raises(TypeError, match="problem must be a problem, such as"):
        mapgrad.tune(None, ROWS)


def test_a_distribution_of_a_solver_alone():
    with pytest.raises(TypeError, match=r"layer must be a mapgrad\.MAPLayer, got Solver"):
        mapgrad.PerturbAndMAP(solver(), ROWS)
