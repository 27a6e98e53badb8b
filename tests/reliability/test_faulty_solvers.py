"""Whatever a solver answers or raises costs its rows: the others keep their answers, and the next batch works."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import Solution, Solutions, Status

PROBLEM = mapgrad.KSubset(4, 1)
SICK = [1, 4]

ROWWISE = [
    (kind, workers)
    for kind in ("solve", "solve_rows", "solve_rows that names no row")
    for workers in (None, 2, "executor")
]
WHOLE = [("batch", None), ("function", None)]


def parametrize(ways):
    return pytest.mark.parametrize("way", ways, indirect=True, ids=lambda way: f"{way[0]}-{way[1]}")


each_way, each_rowwise_way, each_whole_way = parametrize(ROWWISE + WHOLE), parametrize(ROWWISE), parametrize(WHOLE)


@pytest.fixture
def way(request):
    """A kind of solver, and who runs it."""
    kind, workers = request.param
    way = SimpleNamespace(kind=kind, workers=workers, is_rowwise=kind not in ("batch", "function"))
    if workers != "executor":
        yield way
        return
    with ThreadPoolExecutor(2) as way.workers:
        yield way


def rows():
    """Return θ [7, 4] whose sick rows have their largest entry first, and no others."""
    theta = torch.rand(7, 4, generator=torch.Generator().manual_seed(0))
    theta[range(7), [2, 0, 1, 3, 0, 2, 3]] += 2.0
    return theta


def is_sick(row):
    return row.argmax() == 0


def right(theta):
    """Return the truth: the best of the four states, for each row."""
    states = PROBLEM.states().to(theta.dtype)
    return states[(theta @ states.T).argmax(dim=-1)]


def healthy(row):
    return np.eye(4)[row.argmax()]


def made(kind, answer):
    """Return a solver of a kind that answers to each row [4] with `answer(row)`."""

    class Instance(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            return answer(theta)

    class Rows(mapgrad.InstanceSolver):
        def solve_rows(self, state, block):
            for row in range(len(block)):
                if kind == "solve_rows":
                    block.row = row
                block.put(row, answer(block.theta[row]))

    class Batch(mapgrad.BatchSolver):
        def solve(self, theta):
            return function(theta)

    def function(theta):
        return torch.stack([torch.as_tensor(answer(row)) for row in theta.double().numpy()])

    function.problem = PROBLEM
    return {"solve": Instance, "batch": Batch, "function": function}.get(kind, Rows)


def solver_of(way, answer, **settings):
    """Return a Solver that asks for every row, equal ones too."""
    return mapgrad.get_solver(made(way.kind, answer), PROBLEM, workers=way.workers, merge=False, **settings)


def assert_costs_only(failed, solver, theta, match, error=mapgrad.SolverCrashError):
    """Check that a batch fails in these rows only, and that the solver goes on; return the error."""
    before = theta.clone()
    with pytest.raises(error, match=match) as caught:
        solver(theta)
    others = [row for row in range(len(theta)) if row not in failed]
    found = caught.value
    assert found.rows == tuple(failed)
    assert len(str(found)) < 4000
    assert torch.equal(found.solutions.z[others], right(theta[others]))
    assert found.solutions.z[failed].isnan().all()
    assert (found.solutions.status[others] == Status.OPTIMAL).all()
    assert torch.equal(theta, before)
    well = theta[~is_sick_each(theta)]
    assert torch.equal(solver(well), right(well))
    return found


def is_sick_each(theta):
    return theta.argmax(dim=-1) == 0


# -- NaN and infinities


BROKEN = {
    "nan": np.full(4, np.nan),
    "one nan": np.array([1.0, 0.0, np.nan, 0.0]),
    "inf": np.array([np.inf, 0.0, 0.0, 0.0]),
    "-inf": np.array([1.0, -np.inf, 0.0, 0.0]),
    "float32": np.array([np.nan, 0, 0, 0], dtype=np.float32),
}


@each_way
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_nan_and_infinities_fail_their_rows(way, broken):
    solver = solver_of(way, lambda row: broken if is_sick(row) else healthy(row).astype(broken.dtype))
    assert_costs_only(SICK, solver, rows(), "NaN or infinite")


@each_way
def test_nan_neither_reaches_a_loss_nor_a_gradient(way):
    """In the forward pass, and where only a backward row is sick."""
    solver = solver_of(way, lambda row: BROKEN["nan"] if is_sick(row) else healthy(row))
    layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(None, mapgrad.Step(100.0)))
    theta = rows().requires_grad_()
    with pytest.raises(mapgrad.SolverCrashError, match="NaN or infinite") as caught:
        layer(theta)
    assert caught.value.rows == tuple(SICK)
    well = rows()[[0, 2, 3, 5, 6]].requires_grad_()
    gradient = torch.zeros(5, 4)
    gradient[3, 0] = -1.0  # asks row 3 for the first entry
    z = layer(well)
    assert torch.equal(z, right(well.detach()))
    with pytest.raises(mapgrad.SolverCrashError, match="NaN or infinite") as caught:
        z.backward(gradient)
    assert 3 in caught.value.rows
    assert well.grad is None
    layer(well).backward(torch.zeros(5, 4))
    assert torch.equal(well.grad, torch.zeros(5, 4))


@pytest.mark.parametrize("status", [Status.OPTIMAL, Status.FEASIBLE, Status.TIME_LIMIT])
def test_nan_in_a_whole_batch_with_statuses_fails_its_rows(status):
    class Batch(mapgrad.BatchSolver):
        def solve(self, theta):
            z, statuses = right(theta), torch.full((len(theta),), int(Status.OPTIMAL))
            z[is_sick_each(theta), 2], statuses[is_sick_each(theta)] = torch.nan, int(status)
            return Solutions(z, statuses)

    assert_costs_only(SICK, mapgrad.get_solver(Batch, PROBLEM), rows(), "NaN or infinite")
    assert_costs_only(SICK, mapgrad.get_solver(Batch, PROBLEM, on_error="incumbent"), rows(), "NaN or infinite")


def test_a_failing_answer_of_any_strides_is_named_and_left_as_it_is():
    """Answers may be views: expanded, transposed, or a tensor that the solver keeps."""
    problem = mapgrad.Assignment(2)
    theta = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[2.0, 0.0], [0.0, 1.0]]])
    kept = torch.eye(2).repeat(3, 1, 1)
    kept[1, 0, 0] = torch.inf
    before = kept.clone()
    for answer, failed in (
        (kept, [1]),
        (kept.mT, [1]),
        (kept[1].expand(3, 2, 2), [0, 1, 2]),
        (kept.permute(1, 2, 0).contiguous().permute(2, 0, 1), [1]),
    ):

        def function(theta, answer=answer):
            return answer

        with pytest.raises(mapgrad.SolverCrashError, match="NaN or infinite") as caught:
            mapgrad.get_solver(function, problem)(theta)
        assert caught.value.rows == tuple(failed)
        assert caught.value.solutions.z[failed].isnan().all()
        well = [row for row in range(3) if row not in failed]
        assert torch.equal(caught.value.solutions.z[well], torch.eye(2).expand(len(well), 2, 2))
        assert torch.equal(kept, before)


# -- θ


@each_rowwise_way
def test_theta_of_a_row_can_not_be_written_to(way):
    def answer(row):
        if is_sick(row):
            row[:] = 0.0
        return healthy(row)

    for dtype in (torch.float32, torch.float64):
        theta = rows().to(dtype)
        assert_costs_only(SICK, solver_of(way, answer), theta, "read-only")
        assert_costs_only(SICK, scale_free(solver_of(way, answer)), theta, "read-only")


def scale_free(solver):
    """Have a solver get its rows as they are: nothing between it and the user's memory."""
    solver.close()
    work = solver.at_work()
    plugin = type(work.plugin)
    plugin.traits = mapgrad.Traits(scale_free=True)
    return mapgrad.get_solver(plugin, PROBLEM, workers=solver._settings.workers, merge=False)


WRITES = {
    "zero_": lambda theta: theta.zero_(),
    "one row": lambda theta: theta[1].neg_(),
    "a view": lambda theta: theta.view(-1)[:1].fill_(3.0),
    "out": lambda theta: torch.neg(theta, out=theta),
    "detached": lambda theta: theta.detach().add_(1.0),
}


@each_whole_way
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_whole_batch_that_writes_to_theta_fails(way, write):
    def function(theta):
        if is_sick_each(theta).any():
            write(theta)
        return torch.zeros_like(theta)

    class Batch(mapgrad.BatchSolver):
        def solve(self, theta):
            return function(theta)

    solver = mapgrad.get_solver(Batch if way.kind == "batch" else function, PROBLEM)
    for theta in (rows(), rows().double(), rows().half(), rows().requires_grad_()):
        with pytest.raises(mapgrad.SolverCrashError, match="wrote to θ") as caught:
            solver(theta)
        assert caught.value.rows == tuple(range(7))
    with torch.inference_mode():
        theta = rows()
        before = theta.clone()
        with pytest.raises(mapgrad.SolverCrashError, match="wrote to θ"):
            solver(theta)
        assert theta.shape == before.shape
    assert torch.equal(solver(rows()[[0]]), torch.zeros(1, 4))


def test_a_write_in_the_backward_pass_fails_it():
    def function(theta):
        if is_sick_each(theta).any():
            theta.zero_()
        return right(theta)

    function.problem = PROBLEM
    layer = mapgrad.MAPLayer(function, mapgrad.IMLE(None, mapgrad.Step(100.0)))
    theta = rows()[[0, 2]].requires_grad_()
    gradient = torch.tensor([[0.0] * 4, [-1.0, 0.0, 0.0, 0.0]])
    with pytest.raises(mapgrad.SolverCrashError, match="wrote to θ"):
        layer(theta).backward(gradient)
    assert torch.equal(theta.detach(), rows()[[0, 2]])
    assert theta.grad is None


RETURNS = {
    "itself": lambda theta: theta,
    "a view": lambda theta: theta.view_as(theta),
    "detached": lambda theta: theta.detach(),
    "its last row": lambda theta: theta[-1].expand_as(theta),
    "reversed strides": lambda theta: theta.T.contiguous().T if theta.shape[0] != theta.shape[1] else theta.T,
    "as_strided": lambda theta: theta.as_strided(theta.shape, (0, 1), storage_offset=4),
}


@pytest.mark.parametrize("returned", RETURNS.values(), ids=RETURNS)
@pytest.mark.parametrize("form", ["function", "batch", "solutions"])
def test_no_answer_shares_thetas_memory(returned, form):
    class Batch(mapgrad.BatchSolver):
        def solve(self, theta):
            z = returned(theta)
            return z if form == "batch" else Solutions(z, torch.ones(len(theta), dtype=torch.int64))

    solver = mapgrad.get_solver(returned if form == "function" else Batch, PROBLEM)
    for dtype in (torch.float32, torch.float64):
        theta = PROBLEM.states().to(dtype).flip(0).contiguous()
        expected = returned(theta).clone()
        for z in (solver(theta), solver.solve(theta).z, mapgrad.MAPLayer(solver).eval()(theta)):
            z.detach()[:] = 7.0
            assert torch.equal(theta, PROBLEM.states().to(dtype).flip(0))
        z = solver(theta)
        theta.zero_()
        assert torch.equal(z, expected)


@each_rowwise_way
def test_no_answer_of_a_row_shares_thetas_memory(way):
    theta = PROBLEM.states().double()
    for solver in (solver_of(way, lambda row: row), scale_free(solver_of(way, lambda row: row))):
        z = solver(theta)
        z[:] = 7.0
        assert torch.equal(theta, PROBLEM.states().double())


# -- statuses


@each_rowwise_way
@pytest.mark.parametrize("status", [99, -1, 6, 2**40, "optimal", None, 1.5, np.nan, np.int64(77), [1]], ids=repr)
def test_a_status_that_is_none_fails_its_row(way, status):
    solver = solver_of(way, lambda row: Solution(healthy(row), status) if is_sick(row) else healthy(row))
    assert_costs_only(SICK, solver, rows(), "status|Status")


@each_rowwise_way
@pytest.mark.parametrize("status", [1, np.int64(1), np.int32(1), np.array(1), True, 1.0], ids=repr)
def test_a_status_may_be_any_number_equal_to_one(way, status):
    assert torch.equal(solver_of(way, lambda row: Solution(healthy(row), status))(rows()), right(rows()))


@pytest.mark.parametrize("status", [99, -1, 6, 2**40])
@pytest.mark.parametrize("workers", [None, 2])
def test_a_status_that_a_block_writes_fails_its_row(status, workers):
    class Rows(mapgrad.InstanceSolver):
        def solve_rows(self, state, block):
            block.z[:] = right(torch.from_numpy(block.theta.copy())).numpy()
            block.status[block.theta.argmax(axis=1) == 0] = status

    solver = mapgrad.get_solver(Rows, PROBLEM, workers=workers, merge=False)
    assert_costs_only(SICK, solver, rows(), f"status {status}, which isn't")


@pytest.mark.parametrize(
    ("status", "dtype"),
    [(2**40, torch.int64), (-1, torch.int64), (99, torch.int32), (99, torch.int8), (-1, torch.int8), (6, torch.uint8)],
)
def test_a_status_that_a_batch_solver_returns_fails_its_row(status, dtype):
    class Batch(mapgrad.BatchSolver):
        def solve(self, theta):
            statuses = torch.full((len(theta),), int(Status.OPTIMAL), dtype=dtype)
            statuses[is_sick_each(theta)] = status
            return Solutions(right(theta), statuses)

    assert_costs_only(SICK, mapgrad.get_solver(Batch, PROBLEM), rows(), f"status {status}, which isn't")


# -- statuses and the rest of other types


FIELDS = {
    "float status": {"status": torch.ones(7)},
    "bool status": {"status": torch.ones(7, dtype=torch.bool)},
    "complex status": {"status": torch.ones(7, dtype=torch.complex64)},
    "numpy status": {"status": np.ones(7, dtype=np.int64)},
    "list status": {"status": [1] * 7},
    "int status": {"status": 1},
    "Status": {"status": Status.OPTIMAL},
    "None": {"status": None},
    "short status": {"status": torch.ones(6, dtype=torch.int64)},
    "column of statuses": {"status": torch.ones(7, 1, dtype=torch.int64)},
    "numpy objective": {"objective": np.ones(7)},
    "list objective": {"objective": [1.0] * 7},
    "short objective": {"objective": torch.ones(6)},
    "complex objective": {"objective": torch.ones(7, dtype=torch.complex128)},
    "float bound": {"bound": 1.0},
    "complex bound": {"bound": torch.ones(7, dtype=torch.complex128)},
    "wide bound": {"bound": torch.ones(7, 4)},
    "numpy z": {"z": np.zeros((7, 4))},
    "list z": {"z": [[0.0] * 4] * 7},
    "short z": {"z": torch.zeros(6, 4)},
    "complex z": {"z": torch.zeros(7, 4, dtype=torch.complex64)},
    "no z": {"z": None},
    "Solutions in Solutions": {"z": Solutions(torch.zeros(7, 4), torch.ones(7, dtype=torch.int64))},
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_solutions_with_fields_of_another_type_fail(fields):
    class Batch(mapgrad.BatchSolver):
        def solve(self, theta):
            proper = {"z": right(theta), "status": torch.ones(len(theta), dtype=torch.int64)}
            return Solutions(**(proper | (fields if len(theta) == 7 else {})))

    solver = mapgrad.get_solver(Batch, PROBLEM)
    for solve in (solver, solver.solve):
        with pytest.raises(mapgrad.SolverCrashError) as caught:
            solve(rows())
        assert caught.value.rows == tuple(range(7))
        assert any(name in str(caught.value) for name in (*fields, "tensor", "complex", "shape"))
    assert torch.equal(solver(rows()[:2]), right(rows()[:2]))


@pytest.mark.parametrize("answer", [None, 3, "z", [[0.0] * 4] * 7, np.zeros((7, 4)), (), object(), torch.zeros(4)])
@each_whole_way
def test_whole_answers_of_another_type_fail(way, answer):
    def function(theta):
        return answer if len(theta) == 7 else right(theta)

    class Batch(mapgrad.BatchSolver):
        def solve(self, theta):
            return function(theta)

    solver = mapgrad.get_solver(Batch if way.kind == "batch" else function, PROBLEM)
    with pytest.raises(mapgrad.SolverCrashError, match=r"where .* was expected") as caught:
        solver(rows())
    assert caught.value.rows == tuple(range(7))
    assert torch.equal(solver(rows()[:2]), right(rows()[:2]))


@each_rowwise_way
def test_masked_answers_fail_their_rows(way):
    hidden = np.ma.masked_equal([1.0, 0.0, 0.0, 0.0], 0.0)
    solver = solver_of(way, lambda row: hidden if is_sick(row) else healthy(row))
    assert_costs_only(SICK, solver, rows(), "MaskedArray where an array of real numbers was expected")


# -- complex answers


COMPLEX = {
    "complex128": np.eye(4, dtype=np.complex128)[0],
    "complex64": np.eye(4, dtype=np.complex64)[0],
    "imaginary": 1j * np.eye(4)[0],
}


@each_rowwise_way
@pytest.mark.parametrize("answer", [*COMPLEX.values(), [1j, 0, 0, 0], Solution(COMPLEX["complex128"])])
def test_complex_answers_fail_their_rows(way, answer):
    assert_costs_only(SICK, solver_of(way, lambda row: answer if is_sick(row) else healthy(row)), rows(), "complex")


@each_whole_way
@pytest.mark.parametrize("answer", COMPLEX.values(), ids=COMPLEX)
def test_complex_batches_fail(way, answer):
    solver = solver_of(way, lambda row: answer if is_sick(row) else healthy(row).astype(answer.dtype))
    with pytest.raises(mapgrad.SolverCrashError, match="complex") as caught:
        solver(rows())
    assert caught.value.rows == tuple(range(7))


# -- what is raised


class UnspeakableError(Exception):
    """Its words can't be had."""

    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


class SilentlyLeavingError(Exception):
    def __str__(self):
        raise SystemExit(3)


class WordlessError(Exception):
    """Its text isn't one."""

    def __str__(self):
        return None


class ClosedError(Exception):
    """Refuses all attributes."""

    def __setattr__(self, name, value):
        raise AttributeError(name)

    def add_note(self, note):
        raise AttributeError(note)


class TwoArgumentsError(Exception):
    """Can't be unpickled."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


RAISED = {
    "__str__ raises": UnspeakableError,
    "__str__ leaves": SilentlyLeavingError,
    "__str__ returns None": WordlessError,
    "refuses attributes": ClosedError,
    "two arguments": lambda: TwoArgumentsError(1, 2),
    "SystemExit": lambda: SystemExit(3),
    "SystemExit without a code": SystemExit,
    "GeneratorExit": GeneratorExit,
    "BaseException": lambda: BaseException("base"),
    "StopIteration": StopIteration,
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "group": lambda: BaseExceptionGroup("several", [UnspeakableError(), SystemExit(1)]),
    "UnicodeError": lambda: ValueError("\ud800"),
}


@each_way
@pytest.mark.parametrize("error", RAISED.values(), ids=RAISED)
def test_whatever_is_raised_costs_its_rows(way, error):
    def answer(row):
        if is_sick(row):
            raise error()
        return healthy(row)

    solver = solver_of(way, answer)
    failed = SICK if way.is_rowwise else list(range(7))
    found = assert_costs_only(failed, solver, rows(), f"row {failed[0]}: ERROR")
    assert type(found.__cause__) is type(error())
    assert sorted(found.solutions.causes) == failed
    with pytest.raises(mapgrad.SolverCrashError):
        mapgrad.MAPLayer(solver).eval()(rows())


def leave():
    import sys

    sys.exit(3)


@each_way
@pytest.mark.parametrize("quit_", [leave, exit])
def test_a_solver_can_not_end_the_program(way, quit_):
    def answer(row):
        if is_sick(row):
            quit_()
        return healthy(row)

    assert_costs_only(SICK if way.is_rowwise else list(range(7)), solver_of(way, answer), rows(), "SystemExit")


@parametrize([way for way in ROWWISE if way[1]])
def test_a_keyboard_interrupt_that_a_worker_raises_is_its_rows(way):
    main = threading.main_thread()

    def answer(row):
        if is_sick(row) and threading.current_thread() is not main:
            raise KeyboardInterrupt
        return healthy(row)

    theta = rows()
    with pytest.raises(mapgrad.SolverCrashError, match="KeyboardInterrupt") as caught:
        solver_of(way, answer)(theta)
    assert set(caught.value.rows) <= set(SICK)  # the caller may take rows of an executor back
    assert torch.equal(caught.value.solutions.z[[0, 2, 3, 5, 6]], right(theta[[0, 2, 3, 5, 6]]))


@parametrize([way for way in ROWWISE + WHOLE if way[1] is None])
def test_a_keyboard_interrupt_in_the_main_thread_goes_through(way):
    def answer(row):
        if is_sick(row):
            raise KeyboardInterrupt
        return healthy(row)

    solver = solver_of(way, answer)
    with pytest.raises(KeyboardInterrupt):
        solver(rows())
    assert torch.equal(solver(rows()[[0, 2]]), right(rows()[[0, 2]]))


# -- init and close


@pytest.mark.parametrize("workers", [None, 2, "executor"])
@pytest.mark.parametrize(
    "raised", [OSError("handle"), SystemExit(3), UnspeakableError()], ids=lambda error: type(error).__name__
)
def test_a_close_that_raises_is_logged_and_costs_nothing(workers, raised, caplog):
    class Closing(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            if is_sick(theta):
                raise ArithmeticError("pivot")
            return healthy(theta)

        def close(self, state):
            raise raised

    with ThreadPoolExecutor(2) as executor, caplog.at_level(logging.WARNING, "mapgrad"):
        solver = mapgrad.get_solver(Closing, PROBLEM, workers=executor if workers == "executor" else workers)
        assert_costs_only(SICK, solver, rows(), "ArithmeticError: pivot")
        assert "Closing.close raised" in caplog.text
        caplog.clear()
        solver.close()
        assert "Closing.close raised" in caplog.text
        assert torch.equal(solver(rows()[:1]), right(rows()[:1]))
        with solver:
            pass


@pytest.mark.parametrize("workers", [None, 2])
def test_an_init_that_raises_now_and_then_costs_the_rows_that_it_is_for(workers):
    class Licence(mapgrad.InstanceSolver):
        is_free = False

        def init(self):
            if not self.is_free:
                raise SystemExit("no licence")

        def solve(self, state, theta, request):
            return healthy(theta)

    solver = mapgrad.get_solver(Licence, PROBLEM, workers=workers)
    with pytest.raises(mapgrad.SolverCrashError, match="SystemExit: no licence") as caught:
        solver(rows())
    assert caught.value.rows == tuple(range(7))
    Licence.is_free = True
    assert torch.equal(solver(rows()), right(rows()))


# -- batch dimensions, and problems of their own


@each_way
def test_rows_are_counted_over_all_batch_dimensions(way):
    solver = solver_of(way, lambda row: BROKEN["inf"] if is_sick(row) else healthy(row))
    theta = torch.cat([rows(), rows()[:1]]).reshape(2, 4, 4)
    with pytest.raises(mapgrad.SolverCrashError) as caught:
        solver(theta)
    assert caught.value.rows == tuple(SICK)
    z = caught.value.solutions.z
    assert z.shape == theta.shape
    assert z.flatten(0, 1).isnan().any(dim=1).nonzero().flatten().tolist() == SICK


@pytest.mark.parametrize("workers", [None, 2, "executor"])
def test_problems_of_their_own_fail_by_the_row(workers):
    sick = mapgrad.KSubset(4, 1)
    problems = [sick if row in SICK else mapgrad.KSubset(4, 1 + row % 2) for row in range(7)]

    class Instance(mapgrad.InstanceSolver):
        def solve(self, state, theta, request):
            if self.problem == sick and is_sick(theta):
                return Solution(theta, 99)
            return (theta >= np.sort(theta)[-self.problem.k]).astype(float)

    with ThreadPoolExecutor(2) as executor:
        solver = mapgrad.get_solver(Instance, None, workers=executor if workers == "executor" else workers)
        with pytest.raises(mapgrad.SolverCrashError, match="Status") as caught:
            solver(rows(), problems=problems)
        assert caught.value.rows == tuple(SICK)
        answered = [row for row in range(7) if row not in SICK]
        sums = caught.value.solutions.z[answered].sum(dim=1).tolist()
        assert sums == [problems[row].k for row in answered]


@pytest.mark.parametrize(
    "make",
    [
        lambda function: mapgrad.MAPLayer(function).eval(),
        lambda function: mapgrad.MAPLayer(function, mapgrad.IMLE(None)),
        lambda function: mapgrad.get_solver(function, PROBLEM),
    ],
    ids=["eval", "train", "solver"],
)
def test_a_function_that_writes_through_numpy_leaves_the_users_theta(make):
    def function(theta):
        theta.detach().numpy()[:] = 0.0
        return torch.zeros_like(theta)

    for theta in (rows(), rows().double(), rows().requires_grad_()):
        before = theta.detach().clone()
        make(function)(theta)
        assert torch.equal(theta, before)
    with torch.inference_mode():
        theta = rows()
        make(function)(theta)
    assert torch.equal(theta, rows())
