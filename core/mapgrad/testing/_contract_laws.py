"""The laws on how a plugin answers the core, checked on the plugin's own object: θ, blocks of rows, limits."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mapgrad.errors import SolveTimeoutError
from mapgrad.solutions import Status
from mapgrad.solvers import BatchSolver, Block, InstanceSolver, Request
from mapgrad.testing._case import law
from mapgrad.testing._requests import attributes_read, overrides
from mapgrad.testing._sample_rows import generic_rows
from mapgrad.testing._threads import run_at_once

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from mapgrad.testing._case import Case

_TOLERANCE: Final = 1e-9


@law
def check_plain_rows(case: Case) -> None:
    """The plugin answers plain rows, of whatever lies between, without an exception."""
    rows = case.native_rows(generic_rows(case.problem, case.rows))
    plugin = case.plugin
    if not isinstance(plugin, InstanceSolver):
        theta = torch.as_tensor(rows).reshape(-1, *case.lowering.native.shape)
        with case.no_exceptions("solve", " on plain rows"), torch.no_grad():
            plugin.solve(theta)
        return
    for method in _methods(plugin):
        with case.no_exceptions("init"):
            state = case.new_state()
        with case.no_exceptions(method, " on a plain row"):
            _answer(plugin, state, Block(rows.copy(), exact=plugin.traits.exact), method)


@law
def check_theta_unwritten(case: Case) -> None:
    """θ is after S(θ) what it was before, wherever it is handed over: to the plugin, whole or by rows, and to the core.

    NumPy keeps a plugin from writing to a read-only θ, but not one that writes through a pointer, and torch's version
    counter misses what is written through another view of the memory. So θ is compared as well, and rows come read-only
    and writable. What raises where θ is writable too isn't about writes: `check_plain_rows` tells it.
    """
    rows = case.native_rows(generic_rows(case.problem, case.rows))
    if isinstance(case.plugin, InstanceSolver):
        for method in _methods(case.plugin):
            _require_unwritten_rows(case, rows, method)
    else:
        _require_unwritten_batch(case, case.plugin, rows)
    for dtype in (torch.float32, torch.float64):
        theta = generic_rows(case.problem, case.rows).to(dtype)
        before = theta.clone()
        z = case.solver(theta)
        changed = (theta != before).flatten(1).sum(1)
        case.require_rows(changed == 0, before, z, "the solver wrote to θ, in {} coordinates", changed)


def _methods(solver: InstanceSolver[Any, Any]) -> list[str]:
    return ["solve", "solve_rows"] if overrides(solver, "solve") else ["solve_rows"]


@contextmanager
def _answers_expected(case: Case, method: str) -> Generator[None]:
    """End the law's check where the plugin raises."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (a solver under test may raise anything)
        case.not_applicable(f"{method} raises {type(error).__name__} on plain rows, whether it may write to θ or not")


def _require_unwritten_rows(case: Case, rows: NDArray[np.float64], method: str) -> None:
    for writable in (True, False):
        block = Block(rows.copy(), exact=case.plugin.traits.exact)
        block.theta.flags.writeable = writable
        raising = case.no_exceptions(f"{method}, given θ read-only,")
        with _answers_expected(case, method) if writable else raising:
            _answer(case.instance_solver, case.new_state(), block, method)
        changed = int((block.theta != rows).sum())
        case.require(changed == 0, f"{method} wrote to θ, in {changed} coordinates of {len(rows)} rows")


def _require_unwritten_batch(case: Case, plugin: BatchSolver[Any], rows: NDArray[np.float64]) -> None:
    for dtype in (torch.float32, torch.float64):
        before = torch.as_tensor(rows).reshape(-1, *case.lowering.native.shape).to(dtype)
        theta = before.clone()
        version = theta._version  # noqa: SLF001 (torch's way to tell that a tensor was written to)
        with _answers_expected(case, "solve"), torch.no_grad():
            plugin.solve(theta)
        changed = int((theta != before).sum())
        case.require(changed == 0, f"solve wrote to θ, in {changed} coordinates of {len(rows)} rows")
        case.require(theta._version == version, "solve wrote to θ, though no value changed")  # noqa: SLF001 (as above)


def _answer(solver: InstanceSolver[Any, Any], state: Any, block: Block, method: str) -> None:
    """Solve the rows of a block one at a time, by one of the solver's two methods."""
    shape = solver.problem.shape
    for row, theta in enumerate(block.theta.reshape(-1, *shape)):
        if method == "solve_rows":
            solver.solve_rows(state, block.part(row, row + 1))
        else:
            block.put(row, solver.solve(state, theta, block.request(row, shape)), shape)


@law
def check_solve_rows(case: Case) -> None:
    """`solve_rows` writes for each row of a block what `solve` answers to it, and nothing outside the block.

    Blocks of 1, 2 and 7 rows lie within larger arrays; they come without limit and start, and with both and reuse.
    A row whose z isn't written has no answer. Where there is no `solve`, blocks are held to those of one row.
    """
    solver = case.instance_solver
    if not overrides(solver, "solve_rows"):
        case.not_applicable("the solver takes one row at a time: it doesn't override solve_rows")
    state, rows = case.new_state(), case.native_rows(generic_rows(case.problem, 11, seed=9))
    last = len(rows) - 1  # a row beside every block, so that a solver that writes too far does no harm
    method = "solve" if overrides(solver, "solve") else "solve_rows"
    if method == "solve":
        asked = {"start", "seconds", "reuse", "forbidden", "limits"} & attributes_read(solver, state, rows, by="solve")
        for name in sorted(asked - attributes_read(solver, state, rows, by="solve_rows")):
            case.fail(f"solve looks at request.{name}, but solve_rows never at block.{name}")
    rows.flags.writeable = False
    start = None
    for seconds in (None, 600.0):
        alone = Block(rows, start=start, seconds=seconds, reuse=start is not None, exact=solver.traits.exact)
        with case.no_exceptions(f"{method} of one row"):
            _answer(solver, state, alone.part(0, last), method)
        for first, count in ((1, 1), (0, 2), (3, 7)):
            whole = Block(rows, start=start, seconds=seconds, reuse=start is not None, exact=solver.traits.exact)
            with case.no_exceptions(f"solve_rows of {count} rows"):
                solver.solve_rows(state, whole.part(first, first + count))
            _require_untouched(case, whole, first, first + count)
            _require_equal(case, whole.part(first, first + count), alone.part(first, first + count))
        start = alone.z.copy()
        start[::3] = np.nan
        start.flags.writeable = False


def _require_untouched(case: Case, block: Block, first: int, stop: int) -> None:
    outside = np.delete(np.arange(len(block)), range(first, stop))
    for name in ("z", "status", "objective", "bound"):
        found, blank = getattr(block, name), getattr(Block(block.theta, exact=case.plugin.traits.exact), name)
        fine = np.array_equal(found[outside], blank[outside], equal_nan=True)
        case.require(fine, f"solve_rows of rows {first} to {stop - 1} wrote to {name} of a row beside the block")


def _require_equal(case: Case, block: Block, alone: Block) -> None:
    found, expected = (case.lowering.states(part.z.reshape(-1, *case.lowering.native.shape)) for part in (block, alone))
    fit = (Status.OPTIMAL, Status.FEASIBLE)
    unwritten = np.isin(block.status, fit) & ~np.isfinite(block.z).all(axis=1)
    row = int(unwritten.argmax())
    case.require(not unwritten.any(), f"in a block of {len(block)}, row {row} was left without an answer")
    case.require_states(torch.as_tensor(expected), torch.as_tensor(found))
    if not case.repeatable:
        case.left_out.append("equal answers, which a heuristic that isn't deterministic doesn't promise")
        return
    differs = (found != expected).reshape(len(block), -1).any(axis=1)
    _, exponents = np.frexp(np.abs(block.theta).max(axis=1))
    for name in ("z", "status", "objective", "bound"):
        if name == "status":
            differs = block.status != alone.status
        elif name != "z":
            one, other = (_filled(part, name) for part in (block, alone))
            differs = ~np.isclose(one, other, rtol=0.0, atol=np.ldexp(_TOLERANCE, exponents), equal_nan=True)
        if differs.any():
            row = int(differs.argmax())
            values = ", alone ".join(_shown(part, name, row) for part in (block, alone))
            case.fail(f"in a block of {len(block)}, row {row} has another {name} than alone: {values}")


def _shown(block: Block, name: str, row: int) -> str:
    """Return one of the answers of a row as text; a status by its name, with what the row raised."""
    value = getattr(block, name)[row]
    if name != "status":
        return str(value)
    cause = block.causes.get(row)
    return Status(int(value)).name + ("" if cause is None else f" ({type(cause).__name__}: {cause})")


def _filled(block: Block, name: str) -> NDArray[np.float64]:
    """Return objectives or bounds with what the core puts where a solver leaves NaN."""
    value = (block.theta * block.z).sum(axis=1)
    objective = np.where(np.isnan(block.objective), value, block.objective)
    if name == "objective":
        return objective
    return np.where(np.isnan(block.bound) & (block.status == Status.OPTIMAL), objective, block.bound)


@law
def check_patience(case: Case) -> None:
    """A row that the solver gives up has no state, and all others have the answer that they get in any time.

    Rows are asked for without an end of patience, and again with next to none.
    """
    if not case.plugin.traits.gives_up:
        case.not_applicable("the solver's traits don't say gives_up: it takes the time that a row needs")
    solver = case.instance_solver
    state, rows = case.new_state(), case.native_rows(generic_rows(case.problem, case.rows, seed=11))
    if "patience" not in attributes_read(solver, state, rows):
        case.fail("the solver's traits say gives_up, but it never looks at patience")
    for method in _methods(solver):
        patient, hurried = (Block(rows, patience=patience, exact=solver.traits.exact) for patience in (None, 1e-12))
        for block in (patient, hurried):
            with case.no_exceptions(method, f" with patience={block.patience}"):
                _answer(solver, state, block, method)
        given_up = hurried.status == Status.TIME_LIMIT
        differs = ~given_up & (hurried.status != patient.status)
        value, expected = (_filled(block, "objective") for block in (hurried, patient))
        _, exponents = np.frexp(np.abs(rows).max(axis=1))
        fine = np.isclose(value, expected, rtol=0.0, atol=np.ldexp(_TOLERANCE, exponents), equal_nan=True)
        differs |= ~given_up & ~fine
        for wrong, message in (
            (patient.status == Status.TIME_LIMIT, "is given up by {} where patience is None"),
            (given_up & ~np.isnan(hurried.z).all(axis=1), "is given up by {} with a state, which has no use"),
            (differs, "is neither given up nor answered as with patience by {} where there is none"),
        ):
            case.require(not wrong.any(), f"row {int(wrong.argmax())} {message.format(method)}")


@law
def check_limits_apart(case: Case) -> None:
    """Limits of two Solvers over one object don't mix: each row is asked and answered under those of its own Solver.

    First the object is asked through another that notes what comes with each row; then by two threads, one of them in
    a great hurry, which change turns at every line of the solver's own code. The other one must notice nothing.
    """
    plugin = case.instance_solver
    rows = case.native_rows(generic_rows(case.problem, case.rows, seed=10))
    theta = torch.as_tensor(rows).reshape(-1, *plugin.problem.shape)
    _require_own_requests(case, _recorder(plugin), rows)

    status, objective = _patient(case.over(plugin), theta)
    ended = threading.Event()
    hurried, patient = case.over(plugin, time_limit=1e-9, reuse=True), case.over(plugin, time_limit=600.0)

    def hurry() -> None:
        while not ended.is_set():
            try:
                hurried.solve(theta)
            except SolveTimeoutError:
                continue

    def take_time() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        try:
            return _patient(patient, theta)
        finally:
            ended.set()

    _, answers = run_at_once([hurry, take_time], case.packages)
    assert answers is not None
    met, value = answers
    row = int((met != status).argmax())
    message = f"row {row} has status {Status(int(met[row])).name} where another Solver of the object is short of time"
    case.require(bool((met == status).all()), message)
    if case.plugin.traits.exact:
        _, exponents = np.frexp(np.abs(rows).max(axis=1))
        fine = np.abs(value - objective) <= np.ldexp(_TOLERANCE, exponents)
        case.require(bool(fine.all()), f"row {int((~fine).argmax())} is answered otherwise while another Solver works")
    if not attributes_read(plugin, case.new_state(), rows) & {"seconds", "reuse", "start"}:
        case.not_applicable("the solver looks at nothing of what it is asked beside θ")


def _patient(solver: Any, theta: torch.Tensor) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return statuses and objectives [N], solved row by row."""
    try:
        found = [solver.solve(row) for row in theta]
    except SolveTimeoutError as error:
        status = Status.TIME_LIMIT if error.solutions is None else int(error.solutions.status)
        return np.full(len(theta), status), np.full(len(theta), np.nan)
    return np.array([int(each.status) for each in found]), np.array([float(each.objective) for each in found])


class _Recorder(InstanceSolver[Any, Any]):
    """Hands all to another solver's object and notes what comes with each row."""

    def __init__(self, inner: InstanceSolver[Any, Any]) -> None:
        super().__init__(inner.problem)
        self._inner = inner
        self.asked: list[tuple[bytes, float | None, bool]] = []

    def init(self) -> Any:
        return self._inner.init()

    def solve(self, state: Any, theta: NDArray[np.float64], request: Request) -> Any:
        self.asked.append((theta.tobytes(), request.seconds, request.reuse))
        return self._inner.solve(state, theta, request)

    def solve_rows(self, state: Any, block: Block) -> None:
        self.asked += [(row.tobytes(), block.seconds, block.reuse) for row in block.theta]
        self._inner.solve_rows(state, block)

    def close(self, state: Any) -> None:
        self._inner.close(state)


def _recorder(plugin: InstanceSolver[Any, Any]) -> _Recorder:
    return type(type(plugin).__qualname__, (_Recorder,), {"traits": plugin.traits})(plugin)


def _require_own_requests(case: Case, recorder: _Recorder, rows: NDArray[np.float64]) -> None:
    shape = recorder.problem.shape
    parts = np.array_split(rows, 2)
    settings: tuple[dict[str, Any], ...] = ({"time_limit": 1.0, "reuse": True}, {"time_limit": 9.0, "reuse": False})
    own = {row.tobytes(): number for number, part in enumerate(parts) for row in part}

    def ask(number: int) -> None:
        solver, theta = case.over(recorder, **settings[number]), torch.as_tensor(parts[number]).reshape(-1, *shape)
        for row in theta:
            try:
                solver.solve(row)
            except SolveTimeoutError:
                continue

    run_at_once([lambda: ask(0), lambda: ask(1)], case.packages | {"mapgrad"})
    asked = [(settings[own[row]], seconds, reuse) for row, seconds, reuse in recorder.asked if row in own]
    case.require(len(asked) >= len(rows), f"of {len(rows)} rows the object was asked for {len(asked)}")
    for setting, seconds, reuse in asked:
        fine = seconds is not None and setting["time_limit"] - 1 < seconds <= setting["time_limit"]
        message = f"a row of a Solver with {setting} came with seconds={seconds} and reuse={reuse}"
        case.require(fine and reuse == setting["reuse"], message)
