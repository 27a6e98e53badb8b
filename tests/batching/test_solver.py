"""Batches through `Solver`: shapes, dtypes, merging, scaling, domain, failures, life cycle."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad.testing import BruteForce

SUBSET = mapgrad.KSubset(6, 2)


class Recorder(mapgrad.InstanceSolver):
    """An honest top-k solver that keeps every row it was given."""

    def __init__(self, problem):
        super().__init__(problem)
        self.rows = []

    def solve(self, state, theta, request):
        self.rows.append(theta.copy())
        z = np.zeros_like(theta)
        z[np.argsort(-theta, kind="stable")[: self.problem.k]] = 1
        return z


class Moody(Recorder):
    """Answers by the first entry's sign: negative entries fail in some way."""

    def solve(self, state, theta, request):
        kind = int(np.argmax(theta))
        z = super().solve(state, theta, request)
        if kind == 0:
            return mapgrad.Solution(None, mapgrad.Status.INFEASIBLE)
        if kind == 1:
            raise ArithmeticError("the pivot vanished")
        if kind == 2:
            return mapgrad.Solution(z, mapgrad.Status.TIME_LIMIT)
        if kind == 3:
            return mapgrad.Solution(None, mapgrad.Status.UNBOUNDED)
        return z


def one_hot_rows(*numbers):
    return torch.eye(6)[list(numbers)] + 0.1 * torch.arange(6) / 6


def random_rows(*batch, seed=0):
    return torch.randn(*batch, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("factory", [Recorder, BruteForce])
@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3), (0,), (3, 0), (1, 1, 1)])
def test_any_batch_dimensions(factory, batch):
    theta = random_rows(*batch)
    solver = mapgrad.get_solver(factory, SUBSET)
    z = solver(theta)
    assert z.shape == theta.shape
    solutions = solver.solve(theta)
    assert solutions.status.shape == solutions.objective.shape == solutions.bound.shape == batch
    assert (solutions.status == mapgrad.Status.OPTIMAL).all()
    torch.testing.assert_close(solutions.objective, (theta.double() * z.double()).sum(-1))
    assert torch.equal(solutions.bound, solutions.objective)
    for row, answer in zip(theta.reshape(-1, 6), z.reshape(-1, 6), strict=True):
        assert torch.equal(answer.topk(2).indices.sort().values, row.topk(2).indices.sort().values)


@pytest.mark.parametrize("factory", [Recorder, BruteForce])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_comes_back(factory, dtype):
    theta = random_rows(5).to(dtype)
    z = mapgrad.get_solver(factory, SUBSET)(theta)
    assert z.dtype == dtype
    assert torch.equal(z.double(), mapgrad.get_solver(factory, SUBSET)(theta.double()))


def test_theta_is_neither_written_nor_attached():
    theta = random_rows(4).requires_grad_()
    before = theta.detach().clone()
    z = mapgrad.get_solver(Recorder, SUBSET)(theta)
    assert torch.equal(theta.detach(), before)
    assert not z.requires_grad


def test_non_contiguous_rows():
    theta = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)).T
    solver = mapgrad.get_solver(Recorder, SUBSET)
    assert torch.equal(solver(theta), solver(theta.contiguous()))
    expanded = theta[:1].expand(7, 6)
    assert torch.equal(solver(expanded), solver(theta[:1]).expand(7, 6))


def test_rows_arrive_scaled_in_float64():
    solver = mapgrad.get_solver(recorder := Recorder(SUBSET), SUBSET)
    theta = torch.tensor([[3e-9, 1e-9, 0, -0.0, -2e-9, 5e-10], [1e9, 3e8, 5e8, 0, -1, 2]], dtype=torch.float64)
    solver(theta)
    for row, given in zip(theta.numpy(), recorder.rows, strict=True):
        assert given.dtype == np.float64
        assert 0.5 <= np.abs(given).max() < 1
        assert not np.signbit(given[given == 0]).any()
        ratio = np.abs(row).max() / np.abs(given).max()
        assert np.log2(ratio) == round(np.log2(ratio))
        np.testing.assert_array_equal(given * ratio, row)


def test_objectives_are_those_of_the_unscaled_row():
    class Reporter(Recorder):
        def solve(self, state, theta, request):
            z = super().solve(state, theta, request)
            return mapgrad.Solution(z, objective=float(theta @ z), bound=float(theta @ z) + 0.5)

    theta = 1000 * random_rows(3).double()
    solutions = mapgrad.get_solver(Reporter, SUBSET).solve(theta)
    torch.testing.assert_close(solutions.objective, theta.topk(2).values.sum(-1))
    scale = torch.exp2(torch.frexp(theta.abs().amax(-1)).exponent)
    torch.testing.assert_close(solutions.bound, solutions.objective + 0.5 * scale)


def test_equal_rows_are_solved_once():
    recorder = Recorder(SUBSET)
    solver = mapgrad.get_solver(recorder, SUBSET)
    distinct = random_rows(3)
    theta = distinct[[0, 1, 0, 2, 2, 0]]
    z = solver(theta)
    assert len(recorder.rows) == 3
    assert torch.equal(z, solver(distinct)[[0, 1, 0, 2, 2, 0]])
    assert solver.stats["rows"] == 9
    assert solver.stats["solves"] == 6
    assert solver.stats["equal"] == 3


def test_equal_rows_are_solved_apart_on_request_and_for_random_solvers():
    class Random(Recorder):
        traits = mapgrad.Traits(deterministic=False)

    theta = random_rows(1).expand(4, 6)
    for recorder, merge in ((Recorder(SUBSET), False), (Random(SUBSET), True)):
        mapgrad.get_solver(recorder, SUBSET, merge=merge)(theta)
        assert len(recorder.rows) == 4


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("factory", [Recorder, BruteForce])
def test_non_finite_rows_are_named_before_any_solver_runs(factory, bad):
    solver = mapgrad.get_solver(factory, SUBSET)
    theta = random_rows(2, 3)
    theta[0, 1, 2] = theta[1, 2, 0] = bad
    with pytest.raises(
        mapgrad.NonFiniteError, match=r"rows 1 \(index \(0, 1\)\), 5 \(index \(1, 2\)\) \(2 of 6\)"
    ) as caught:
        solver(theta)
    assert caught.value.rows == (1, 5)
    assert solver.stats["solves"] == 0


@pytest.mark.parametrize("shape", [(5,), (6, 5), (4, 7), ()])
def test_wrong_shape(shape):
    with pytest.raises(mapgrad.ShapeError, match=r"θ has shape .* needs \[\*batch, 6\]"):
        mapgrad.get_solver(Recorder, SUBSET)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("theta", "error", "message"),
    [
        (torch.zeros(6, dtype=torch.int64), mapgrad.ShapeError, r"got torch.int64: convert it"),
        (torch.zeros(6, dtype=torch.complex64), mapgrad.ShapeError, r"got torch.complex64"),
        (np.zeros(6), TypeError, r"torch.Tensor, got ndarray: wrap it in torch.as_tensor"),
        ([0.0] * 6, TypeError, r"torch.Tensor, got list"),
    ],
)
def test_wrong_type(theta, error, message):
    with pytest.raises(error, match=message):
        mapgrad.get_solver(Recorder, SUBSET)(theta)


def test_states_that_a_dtype_cannot_hold_are_refused():
    solver = mapgrad.get_solver("topk", mapgrad.Ranking(600))
    theta = torch.randn(600, generator=torch.Generator().manual_seed(0))
    assert solver(theta.half()).max() == 599
    with pytest.raises(
        mapgrad.ShapeError, match=r"reach 599, but torch.bfloat16 holds integers exactly only up to 256"
    ):
        solver(theta.bfloat16())
    layer = mapgrad.MAPLayer(solver)
    with pytest.raises(mapgrad.ShapeError, match=r"torch.bfloat16"):
        layer(theta.bfloat16())


def test_domain_is_clipped_once_and_counted_or_refused():
    problem = mapgrad.GridShortestPath(2, 2, neighbors=4)
    theta = -torch.tensor([[[1.0, 2.0], [3.0, 1.0]], [[1.0, -2.0], [3.0, 1.0]], [[1.0, 2.0], [-3.0, 1.0]]])
    solver = mapgrad.get_solver(BruteForce, problem)
    solutions = solver.solve(theta)
    assert torch.equal(solutions.z, torch.tensor([[[1.0, 1], [0, 1]], [[1, 1], [0, 1]], [[1, 0], [1, 1]]]))
    assert solutions.objective.tolist() == [-4, -2, -2]
    assert solutions.stats["clipped"] == 2
    strict = mapgrad.get_solver(BruteForce, problem, domain="raise")
    with pytest.raises(mapgrad.DomainError, match=r"θ ≤ 0 only, and rows 1, 2 \(2 of 3\) lie outside") as caught:
        strict(theta)
    assert caught.value.rows == (1, 2)
    assert strict(theta[:1]).sum() == 3


def test_failing_rows_are_named_and_the_others_keep_their_answers():
    theta = one_hot_rows(4, 0, 5, 0, 4)
    solver = mapgrad.get_solver(Moody, SUBSET)
    with pytest.raises(mapgrad.InfeasibleError, match=r"Moody.* rows 1, 3 \(2 of 5\).*row 1: INFEASIBLE") as caught:
        solver(theta)
    error = caught.value
    assert error.rows == (1, 3)
    assert error.solutions.status.tolist() == [1, 3, 1, 3, 1]
    assert error.solutions.z[[1, 3]].isnan().all()
    assert torch.equal(error.solutions.z[[0, 2, 4]].sum(-1), torch.full((3,), 2.0))
    assert solver.stats["failed"] == 2


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (1, mapgrad.SolverCrashError, r"ERROR.*ArithmeticError: the pivot vanished"),
        (2, mapgrad.SolveTimeoutError, r"TIME_LIMIT.*raise time_limit"),
        (3, mapgrad.UnboundedError, r"UNBOUNDED"),
    ],
)
@pytest.mark.parametrize("workers", [None, 2])
def test_each_failure_has_its_error(kind, error, message, workers):
    with (
        mapgrad.get_solver(Moody, SUBSET, workers=workers) as solver,
        pytest.raises(error, match=message) as caught,
    ):
        solver(one_hot_rows(4, 5, kind))
    assert caught.value.rows == (2,)
    if kind == 1:
        assert isinstance(caught.value.__cause__, ArithmeticError)


def test_incumbents_are_taken_only_on_request():
    theta = one_hot_rows(4, 2)
    solutions = mapgrad.get_solver(Moody, SUBSET, on_error="incumbent").solve(theta)
    assert solutions.status.tolist() == [mapgrad.Status.OPTIMAL, mapgrad.Status.TIME_LIMIT]
    assert solutions.z.sum(-1).tolist() == [2, 2]
    assert solutions.bound[1] == torch.inf
    with pytest.raises(mapgrad.InfeasibleError):
        mapgrad.get_solver(Moody, SUBSET, on_error="incumbent")(one_hot_rows(0))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.zeros(5), r"shape \(5,\) where \(6,\) was expected"),
        (np.zeros((6, 1)), r"shape \(6, 1\) where \(6,\) was expected"),
        (np.zeros(5, dtype=np.int64), r"shape \(5,\) where \(6,\) was expected"),
        (mapgrad.Solution(np.zeros((2, 3))), r"shape \(2, 3\) where \(6,\) was expected"),
        (np.zeros(6, dtype=complex), r"numbers of dtype complex128"),
        (np.full(6, np.nan), r"NaN or infinite"),
        ("nonsense", r"where an array of real numbers was expected"),
        (mapgrad.Solution(None), r"OPTIMAL without a state"),
    ],
)
def test_an_answer_that_is_no_answer(answer, message):
    class Broken(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            return answer

    with pytest.raises(mapgrad.SolverCrashError, match=message):
        mapgrad.get_solver(Broken, SUBSET)(random_rows(2))


def test_batch_solver_failures():
    class Wrong(mapgrad.BatchSolver):
        def solve(self, theta):
            return theta[:, :3]

    class Raising(mapgrad.BatchSolver):
        def solve(self, theta):
            raise ArithmeticError("no kernel")

    with pytest.raises(mapgrad.SolverCrashError, match=r"shape \(2, 3\) where \(2, 6\)") as caught:
        mapgrad.get_solver(Wrong, SUBSET)(random_rows(2))
    assert caught.value.rows == (0, 1)

    class Malformed(mapgrad.BatchSolver):
        def solve(self, theta):
            every = torch.ones(1)
            return mapgrad.Solutions(torch.zeros_like(theta), every.long(), every, every)

    with pytest.raises(
        mapgrad.SolverCrashError, match=r"the solver's status must be a tensor of shape \(2,\), got shape \(1,\)"
    ):
        mapgrad.get_solver(Malformed, SUBSET)(random_rows(2))
    with pytest.raises(mapgrad.SolverCrashError, match="no kernel"):
        mapgrad.get_solver(Raising, SUBSET)(random_rows(2))


def test_heuristic_answers_are_feasible_and_accepted():
    class Heuristic(Recorder):
        traits = mapgrad.Traits(exact=False)

    solutions = mapgrad.get_solver(Heuristic, SUBSET).solve(random_rows(2))
    assert solutions.status.tolist() == [mapgrad.Status.FEASIBLE] * 2
    assert (solutions.bound == torch.inf).all()


class Counting(Recorder):
    """Counts its native models, and refuses one that two threads use at a time."""

    made = 0
    closed = 0

    def init(self):
        type(self).made += 1
        return threading.Lock()

    def solve(self, state, theta, request):
        assert state.acquire(blocking=False)
        try:
            return super().solve(state, theta, request)
        finally:
            state.release()

    def close(self, state):
        type(self).closed += 1


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_native_models_are_built_once_a_worker_and_closed(workers):
    Counting.made = Counting.closed = 0
    with mapgrad.get_solver(Counting, SUBSET, workers=workers) as solver:
        expected = mapgrad.get_solver(Recorder, SUBSET)(random_rows(64))
        for _ in range(3):
            assert torch.equal(solver(random_rows(64)), expected)
        assert 1 <= Counting.made <= (workers or 1)
        assert Counting.closed == 0
    assert Counting.closed == Counting.made
    assert torch.equal(solver(random_rows(64)), expected)
    solver.close()
    assert Counting.closed == Counting.made


def test_native_models_are_freed_with_the_solver():
    Counting.made = Counting.closed = 0
    solver = mapgrad.get_solver(Counting, SUBSET)
    solver(random_rows(2))
    gone = weakref.ref(solver)
    del solver
    gc.collect()
    assert gone() is None
    assert Counting.closed == Counting.made == 1


def test_a_model_that_raised_is_replaced():
    class Fragile(Counting):
        def solve(self, state, theta, request):
            if np.argmax(theta) == 0:
                raise ArithmeticError("broken model")
            return super().solve(state, theta, request)

    Counting.made = Counting.closed = Fragile.made = Fragile.closed = 0
    with (
        mapgrad.get_solver(Fragile, SUBSET) as solver,
        pytest.raises(mapgrad.SolverCrashError, match="broken model"),
    ):
        solver(one_hot_rows(4, 0, 5))
    assert Fragile.made == Fragile.closed == 2


def test_one_solver_may_be_called_from_many_threads():
    solver = mapgrad.get_solver(Counting, SUBSET)
    expected = mapgrad.get_solver(Recorder, SUBSET)(random_rows(32))
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(solver(random_rows(32)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(torch.equal(z, expected) for z in answers)
    assert solver.stats["rows"] == 8 * 32
    solver.close()


def test_pickle_and_deepcopy_keep_the_settings():
    solver = mapgrad.get_solver("topk", SUBSET, domain="raise", on_error="incumbent")
    theta = random_rows(4)
    for twin in (pickle.loads(pickle.dumps(solver)), copy.deepcopy(solver)):
        assert twin is not solver
        assert twin.problem == SUBSET
        assert twin.name == "topk"
        assert torch.equal(twin(theta), solver(theta))
        assert twin._settings == solver._settings


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"workers": 0}, ValueError, r"at least 1.*got 0"),
        ({"workers": "threads:2"}, ValueError, r'"processes:n".*got \'threads:2\''),
        ({"workers": True}, TypeError, r"got True"),
        ({"workers": 2.0}, TypeError, r"got 2.0"),
        ({"on_error": "ignore"}, ValueError, r"on_error must be 'raise', 'incumbent', .* got 'ignore'"),
        ({"domain": "wrap"}, ValueError, r"domain must be one of 'clip', 'raise', got 'wrap'"),
        ({"gap": 0.1}, TypeError, r"Recorder.*gap"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        mapgrad.get_solver(Recorder, SUBSET, **arguments)


def test_a_function_may_stand_for_the_name():
    solver = mapgrad.get_solver(lambda theta: torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1), SUBSET)
    theta = random_rows(2, 2)
    assert torch.equal(solver(theta), mapgrad.get_solver("topk", SUBSET)(theta))


def test_statistics_of_a_call_and_of_the_solver():
    solver = mapgrad.get_solver(Recorder, SUBSET)
    first = solver.solve(random_rows(4))
    second = solver.solve(random_rows(2, seed=1))
    assert first.stats["rows"] == 4
    assert first.seconds > 0
    assert solver.stats["rows"] == 6
    assert solver.stats["seconds"] == pytest.approx(first.seconds + second.seconds)


def test_equal_rows_of_small_integers_are_found():
    recorder = Recorder(mapgrad.KSubset(40, 3))
    rows = torch.randint(0, 3, (256, 40), generator=torch.Generator().manual_seed(0)).double()
    mapgrad.get_solver(recorder, recorder.problem)(rows.repeat(2, 1))
    assert len(recorder.rows) == 256


def test_what_a_failing_row_wrote_beside_its_state_is_dropped():
    class Reports(Recorder):
        def solve(self, state, theta, request):
            z = super().solve(state, theta, request)
            return mapgrad.Solution(z * torch.nan if theta[0] > 0 else z, objective=3.0, bound=4.0)

    with pytest.raises(mapgrad.SolverCrashError) as caught:
        mapgrad.get_solver(Reports, SUBSET).solve(torch.eye(6)[:2] * 2 - 1)
    solutions = caught.value.solutions
    assert caught.value.rows == (0,)
    assert solutions.objective[0].isnan()
    assert solutions.bound[0] == torch.inf
    assert solutions.objective[1] == 6  # 3 in units of the scaled row
