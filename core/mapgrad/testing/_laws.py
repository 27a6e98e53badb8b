"""The laws on a solver's answers, as `get_solver` hands them to a user.

Each is a free function of a solver, a problem and options, as `Law` says; `law` makes it of one of a `Case`. A solver
that declares a cost of more than a millisecond gets fewer rows. Below, S(θ) is the solver's answer, C the problem's set
and ⟨θ, z⟩ what is maximised, plus ⟨fixed, y⟩ where a program has it.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import torch

from mapgrad.batching import get_solver
from mapgrad.errors import InfeasibleError, NonFiniteError, ShapeError, SolveTimeoutError
from mapgrad.gradients import IMLE, Gumbel, RelativeStep
from mapgrad.layer import MAPLayer
from mapgrad.problems import Domain
from mapgrad.solutions import Status
from mapgrad.testing._case import Case, law
from mapgrad.testing._problems import empty_programs
from mapgrad.testing._reference import BruteForce
from mapgrad.testing._requests import attributes_read
from mapgrad.testing._sample_rows import close_rows, generic_rows, tied_rows, wide_rows
from mapgrad.testing._threads import THREADS, ask_at_once

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.batching import Solver

# θ is exact in each of these, but a solver of batches gets the first three as float32 and may compute in it.
_TOLERANCES: Final = {torch.float16: 1e-6, torch.bfloat16: 1e-6, torch.float32: 1e-6, torch.float64: 1e-9}
_GRADIENT_TOLERANCE: Final = 1e-9


@law
def check_shape_dtype_device(case: Case) -> None:
    """S(θ) is optimal and has θ's shape, dtype and device, for float16, bfloat16, float32 and float64."""
    batch = (2, 3 * case.rows // 8)
    rows = close_rows(case.enumeration, math.prod(batch)).reshape(*batch, *case.problem.shape)
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    if len(devices) == 1:
        case.left_out.append("θ on a GPU: torch sees none")
    for device in devices:
        for dtype, tolerance in _TOLERANCES.items():
            if case.problem.largest > 2 / torch.finfo(dtype).eps:
                case.left_out.append(f"{dtype}, which can't hold all states and which the core refuses")
                continue
            theta = rows.to(device, dtype)
            solutions = case.solver.solve(theta)
            expected, found = _kind(theta), _kind(solutions.z)
            case.require(found == expected, f"θ is {expected}, but z is {found}")
            for name in ("status", "objective", "bound"):
                shape = tuple(getattr(solutions, name).shape)
                case.require(shape == batch, f"θ is {expected}, but {name} has shape {shape}, not {batch}")
            case.require_optimal(theta, solutions, tolerance)


@law
def check_feasible(case: Case) -> None:
    """S(θ) ∈ C: whole numbers within the bounds that `Problem.contains` accepts."""
    for theta in (wide_rows(case.problem, case.rows), tied_rows(case.problem, case.rows)):
        case.require_states(theta, case.solver(theta))


@law
def check_optimal(case: Case) -> None:
    """⟨θ, S(θ)⟩ = max over z ∈ C of ⟨θ, z⟩, also where the second best is as close as 1e-8 of max |θ|.

    A heuristic owes it only where it says OPTIMAL. Objective and bound are what they are reported to be.
    """
    close = close_rows(case.enumeration, 2 * case.rows)
    for theta in (generic_rows(case.problem, case.rows), wide_rows(case.problem, case.rows), close):
        case.require_optimal(theta, case.solver.solve(theta))
    case.require_claim()


@law
def check_ties(case: Case) -> None:
    """⟨θ, S(θ)⟩ is optimal for rows of zeros, constant rows and rows of few values; any of the optima will do."""
    theta = tied_rows(case.problem, case.rows)
    case.require_optimal(theta, case.solver.solve(theta))
    case.require_claim()


@law
def check_batch_equals_rows(case: Case) -> None:
    """S(θ)[b] = S(θ[b])."""
    theta = generic_rows(case.problem, case.rows)
    alone = torch.cat([case.solver(row[None]) for row in theta.unbind()])
    case.require_same(theta, case.another()(theta), alone, "a batch isn't answered as its rows alone are")
    folded = theta.reshape(-1, 2, *case.problem.shape)
    case.require_same(folded, case.solver(folded), alone, "batch dimensions change the answers")


@law
def check_unbatched(case: Case) -> None:
    """S(θ) for θ without batch dimensions = S(θ[None])[0], and its status and objective are scalars."""
    theta = generic_rows(case.problem, 1)
    solutions = case.solver.solve(theta[0])
    shape = tuple(solutions.status.shape)
    case.require(shape == (), f"θ has no batch dimensions, but the status has shape {shape}")
    case.require_same(theta[0], solutions.z, case.solver(theta), "a row alone isn't answered as in a batch")


@law
def check_empty_batch(case: Case) -> None:
    """S(θ) of no rows is no rows: [0, *shape] and [2, 0, *shape] come back as they are."""
    for batch in ((0,), (2, 0)):
        theta = torch.empty(*batch, *case.problem.shape)
        solutions = case.solver.solve(theta)
        expected, found = _kind(theta), _kind(solutions.z)
        case.require(found == expected, f"θ is {expected}, but z is {found}")
        shape = tuple(solutions.status.shape)
        case.require(shape == batch, f"θ is {expected}, but the status has shape {shape}, not {batch}")


@law
def check_non_contiguous(case: Case) -> None:
    """S(θ) is that of a contiguous copy for strided, transposed, reversed-in-memory and expanded θ."""
    theta = generic_rows(case.problem, case.rows)
    z = case.solver(theta)

    def batches(rows: Tensor) -> Tensor:
        return rows.reshape(4, -1, *case.problem.shape).transpose(0, 1)

    views = {
        "with every second row": (theta[::2], z[::2]),
        "with batch dimensions transposed": (batches(theta), batches(z)),
        "with every second entry": (torch.stack([theta, -theta], dim=-1)[..., 0], z),
        "with its last dimension first in memory": (theta.movedim(-1, 0).contiguous().movedim(0, -1), z),
        "expanded from one row": (theta[:1].expand(3, *case.problem.shape), z[:1].expand(3, *case.problem.shape)),
    }
    for name, (view, expected) in views.items():
        case.require_same(view, case.solver(view), expected, f"θ {name} isn't answered as its contiguous copy")


@law
def check_non_finite_refused(case: Case) -> None:
    """NaN or ±∞ in θ raises NonFiniteError with the numbers of the rows, counted over the flattened batch.

    But −∞ is allowed where the lower bound is 0: `check_forbidden_entries` is about that.
    """
    cases = [(torch.nan, -1), (torch.inf, -1)]
    cases += [(-torch.inf, int(entry)) for entry in case.problem.box[0].ravel().nonzero()[0][:1]]
    for value, entry in cases:
        theta = generic_rows(case.problem, 6)
        theta.flatten(1)[[1, 4], entry] = value
        try:
            case.solver(theta.reshape(2, 3, *case.problem.shape))
        except NonFiniteError as error:
            rows = error.rows
        else:
            rows = ()
        case.require(rows == (1, 4), f"rows 1 and 4 of θ have {value}, but the rows refused are {rows}")


@law
def check_wrong_shape_refused(case: Case) -> None:
    """Trailing dimensions of θ other than the problem's shape raise ShapeError."""
    for shape in ((*case.problem.shape[:-1], case.problem.shape[-1] + 1), ()):
        try:
            case.solver(torch.zeros(shape))
        except ShapeError:
            continue
        case.require(False, f"θ of shape {shape} was taken")


@law
def check_scale_invariant(case: Case) -> None:
    """S(s θ) = S(θ) for s from 2^-30 to 2^30, about 1e-9 to 1e9; where the second best is close, by its objective."""
    theta = generic_rows(case.problem, case.rows)
    z = case.solver(theta)
    close = close_rows(case.enumeration, 2 * case.rows)
    for exponent in (-30, 30) if case.is_slow else (-30, -20, -10, 10, 20, 30):
        scale = 2.0**exponent  # of powers of two the product is exact
        scaled = scale * theta
        solutions = case.solver.solve(scaled)
        if not case.enumeration.fixed.any():  # else what θ doesn't price counts for more, or for less
            case.require_same(scaled, solutions.z, z, f"θ times 2^{exponent} isn't answered as θ")
        case.require_optimal(scaled, solutions)
        case.require_optimal(scale * close, case.solver.solve(scale * close))


@law
def check_deterministic(case: Case) -> None:
    """θ[a] = θ[b] ⇒ S(θ)[a] = S(θ)[b], within a batch and from a solver made anew."""
    theta = generic_rows(case.problem, case.rows)
    z = case.solver(theta)
    case.require_same(theta, case.another()(theta), z, "made anew, the solver answers otherwise")
    twice, expected = theta.repeat_interleave(2, dim=0), z.repeat_interleave(2, dim=0)
    case.require_same(twice, case.another()(twice), expected, "equal rows of a batch are answered otherwise")


@law
def check_history_free(case: Case) -> None:
    """S(θ)[b] doesn't depend on what was solved before: asked again, and in another order."""
    theta = generic_rows(case.problem, case.rows)
    z = case.solver(theta)
    case.require_same(theta, case.solver(theta), z, "asked again, the solver answers otherwise")
    shuffled = torch.randperm(len(theta), generator=torch.Generator().manual_seed(0))
    for asked, order in ((case.solver, shuffled.flip(0)), (case.another(), shuffled)):
        rows = theta[order]
        case.require_same(rows, asked(rows), z[order], "in another order, rows are answered otherwise")


@law
def check_threads_equal_serial(case: Case) -> None:
    """S(θ) is the same from one thread and from many, while several threads ask for different rows at once.

    Threads change turns at every line of the solver's own code, so that two of them meet wherever they share what a row
    changes. No process is started; an executor given as ``workers`` is held to the same answers.
    """
    theta = generic_rows(case.problem, case.rows, seed=3)
    z = case.solver(theta)
    for workers in (THREADS, *case.workers):
        shared = case.another(workers=workers)
        for answers in (*ask_at_once(shared, theta, case.packages), shared(theta)):
            case.require_same(theta, answers, z, f"with workers={workers!r} answers aren't those of one thread")


@law
def check_gradient(case: Case) -> None:
    """The I-MLE gradient through `MAPLayer`, mean over s of (S(θ + ε_s) − S(θ' + ε_s)) / p, is that of enumeration.

    A heuristic has to equal its own answers, with and without row merging.
    """
    if case.solver.traits.exact:
        reference = get_solver(BruteForce(case.problem), case.problem)
    elif case.repeatable:
        reference = case.solver
    else:
        reference = None
        case.left_out.append("the gradient's value: a heuristic that isn't deterministic has none to equal")
    _require_gradient(case, case.another(merge=True), reference, generic_rows(case.problem, case.rows // 2, seed=4))


@law
def check_reuse(case: Case) -> None:
    """With ``reuse=True`` answers are worth what they are without it: S(θ_t) is optimal for rows that drift slowly.

    Between two steps, as in training, the backward pass of `MAPLayer` starts from the forward pass's answers.
    """
    solver = case.instance_solver
    reusing = case.another(reuse=True, merge=True)
    reference = get_solver(BruteForce(case.problem), case.problem) if case.solver.traits.exact else None
    theta, drift = (generic_rows(case.problem, case.rows // 4, seed=seed) for seed in (6, 7))
    for _ in range(4):
        case.require_optimal(theta, reusing.solve(theta))
        _require_gradient(case, reusing, reference, theta)
        theta = theta + 0.2 * drift  # where θ ≤ 0 is asked for, both are
    tied = tied_rows(case.problem, case.rows // 4)
    case.require_optimal(tied, reusing.solve(tied))
    if not attributes_read(solver, case.new_state(), case.native_rows(theta)) & {"reuse", "start"}:
        case.not_applicable("the solver looks neither at `reuse` nor at `start` of what it is asked")


@law
def check_per_row_problems(case: Case) -> None:
    """With ``problems=[…]``, S(θ)[b] is the answer of the b-th problem to θ[b], as when that problem is alone.

    The other problems are the kit's own that the solver takes; a solver without a name gets copies of this one.
    """
    others = case.other_problems
    if all(other == case.problem for other in others):
        case.left_out.append("other problems than this: the kit has none for a solver without a name")
    with ExitStack() as stack:
        cases = [case, *(stack.enter_context(case.on(other)) for other in others)]
        rows = [generic_rows(each.problem, 3, seed=8) for each in cases]
        theta = [row for together in zip(*rows, strict=True) for row in together]
        problems = [each.problem for each in cases] * 3
        for asked in (case.another(), case.without_problem()):
            z = asked(theta, problems)
            for number, (each, own) in enumerate(zip(cases, rows, strict=True)):
                message = f"beside rows of {len(others)} other problems, the rows of a problem are answered otherwise"
                each.require_same(own, torch.stack(z[number :: len(cases)]), each.solver(own), message)


@law
def check_time_limit(case: Case) -> None:
    """However short the time limit, a row is called OPTIMAL only where it is; one that isn't reached changes nothing.

    Rows that run into it have status TIME_LIMIT or FEASIBLE, and a state or none: `SolveTimeoutError` names them all
    or, with ``on_error="incumbent"``, those without a state. A solver that knows no limit just finishes. Rows as small
    as these may end before they are told to: that others do is `check_ends_in_time`.
    """
    solver = case.instance_solver
    theta = generic_rows(case.problem, case.rows // 4)
    for limit in (1e-9, 1e-3):
        for policy in ("raise", "incumbent"):
            hurried = case.another(time_limit=limit, on_error=policy)
            try:
                solutions, refused = hurried.solve(theta), ()
            except SolveTimeoutError as error:
                solutions, refused = error.solutions, error.rows
            case.require_partial(theta, solutions, refused, incumbents=policy == "incumbent")
    case.require_optimal(theta, case.another(time_limit=600.0).solve(theta))
    if "seconds" not in attributes_read(solver, case.new_state(), case.native_rows(theta)):
        case.not_applicable("the solver doesn't look at `seconds` of what it is asked: it knows no limit")


@law
def check_infeasible(case: Case) -> None:
    """A solver of integer programs raises InfeasibleError with the numbers of the rows where their set is empty.

    The set is that of the problem's program with two constraints more that contradict each other, and with one more
    that only fractions meet. Other solvers are never asked, nor are objects and functions, which have one problem.
    """
    for program in empty_programs(case.program):
        with case.on(program) as each:
            try:
                solutions = each.solver.solve(wide_rows(program, 6).reshape(2, 3, *program.shape))
            except InfeasibleError as error:
                solutions = error.solutions
            count = 0 if solutions is None else int((solutions.status == Status.INFEASIBLE).sum())
            each.require(count == 6, f"the set is empty, but of 6 rows {count} end with status INFEASIBLE")


def _require_gradient(case: Case, solver: Solver, reference: Solver | None, theta: Tensor) -> None:
    z, gradient = _imle(solver, theta)
    finite = gradient.isfinite().flatten(1).all(1)
    case.require_rows(finite, theta, z, "the gradient has NaN or infinite entries")
    if reference is not None:
        error = (gradient - _imle(reference, theta)[1]).abs().flatten(1).amax(1)
        message = "the I-MLE gradient is off by {} in its worst coordinate"
        case.require_rows(error <= _GRADIENT_TOLERANCE, theta, z, message, error)


def _imle(solver: Solver, theta: Tensor) -> tuple[Tensor, Tensor]:
    assert solver.problem is not None
    # No noise and weights above zero keep every row that is solved inside a domain of θ ≤ 0: what the core clips has
    # ties, where two exact solvers may rightly differ.
    noise = Gumbel() if solver.problem.domain is Domain.REAL else None
    layer = MAPLayer(solver, IMLE(noise, RelativeStep(2.0), samples=2, symmetric=False), seed=0)
    leaf = theta.clone().requires_grad_()
    weight = 0.1 + torch.rand(theta.shape, generator=torch.Generator().manual_seed(5), dtype=theta.dtype)
    z = layer(leaf)
    return z.detach(), torch.autograd.grad((weight * z).sum(), leaf)[0]


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device.type}"
