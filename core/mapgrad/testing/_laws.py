"""The laws that every solver keeps, each a free function: it returns, or raises ConformanceError with the numbers.

All take the same arguments. `solver` is whatever `mapgrad.get_solver` takes in place of a name; `problem` is small
enough to enumerate; `options` go to `get_solver`, except that the kit sets ``merge``, ``on_error`` and ``domain``
itself, as it does ``time_limit`` and ``reuse`` in the laws on them, and that ``workers`` concerns
`check_threads_equal_serial` alone. A solver that declares a cost of more than a millisecond gets fewer rows. Below,
S(θ) is the solver's answer, C the problem's set and ⟨θ, z⟩ what is maximised, plus ⟨fixed, y⟩ where a program has it.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import torch

from mapgrad.batching import get_solver
from mapgrad.errors import InfeasibleError, NonFiniteError, ShapeError, SolveTimeoutError
from mapgrad.gradients import IMLE, Gumbel, RelativeStep
from mapgrad.layer import MAPLayer
from mapgrad.problems import Domain
from mapgrad.solvers import Status
from mapgrad.testing._problems import contradictions, neighbors_of
from mapgrad.testing._racing import THREADS, ask_at_once
from mapgrad.testing._reference import BruteForce
from mapgrad.testing._rows import close_rows, generic_rows, tied_rows, wide_rows
from mapgrad.testing._trial import Trial

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.batching import Solver
    from mapgrad.problems import Problem
    from mapgrad.solvers import SolverLike

# θ is exact in each of these, but a solver of batches gets the first three as float32 and may compute in it.
_TOLERANCES: Final = {torch.float16: 1e-6, torch.bfloat16: 1e-6, torch.float32: 1e-6, torch.float64: 1e-9}
_GRADIENT_TOLERANCE: Final = 1e-9


def check_shape_dtype_device(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """S(θ) is optimal and has θ's shape, dtype and device, for float16, bfloat16, float32 and float64."""
    with Trial("shape_dtype_device", solver, problem, options) as trial:
        batch = (2, 3 * trial.rows // 8)
        rows = close_rows(trial.truth, math.prod(batch)).reshape(*batch, *problem.shape)
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            for dtype, tolerance in _TOLERANCES.items():
                if problem.largest > 2 / torch.finfo(dtype).eps:
                    continue  # the core refuses a dtype that can't hold the states
                theta = rows.to(device, dtype)
                solutions = trial.solver.solve(theta)
                expected, found = _kind(theta), _kind(solutions.z)
                trial.require(found == expected, f"θ is {expected}, but z is {found}")
                for name in ("status", "objective", "bound"):
                    shape = tuple(getattr(solutions, name).shape)
                    trial.require(shape == batch, f"θ is {expected}, but {name} has shape {shape}, not {batch}")
                trial.require_optimal(theta, solutions, tolerance)


def check_feasible(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """S(θ) ∈ C: whole numbers within the bounds that `Problem.contains` accepts."""
    with Trial("feasible", solver, problem, options) as trial:
        for theta in (wide_rows(problem, trial.rows), tied_rows(problem, trial.rows)):
            trial.require_states(theta, trial.solver(theta))


def check_optimal(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """⟨θ, S(θ)⟩ = max over z ∈ C of ⟨θ, z⟩, also where the second best is as close as 1e-8 of max |θ|.

    A heuristic owes it only where it says OPTIMAL. Objective and bound are what they are reported to be.
    """
    with Trial("optimal", solver, problem, options) as trial:
        close = close_rows(trial.truth, 2 * trial.rows)
        for theta in (generic_rows(problem, trial.rows), wide_rows(problem, trial.rows), close):
            trial.require_optimal(theta, trial.solver.solve(theta))


def check_ties(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """⟨θ, S(θ)⟩ is optimal for rows of zeros, constant rows and rows of few values; any of the optima will do."""
    with Trial("ties", solver, problem, options) as trial:
        theta = tied_rows(problem, trial.rows)
        trial.require_optimal(theta, trial.solver.solve(theta))


def check_batch_equals_rows(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """S(θ)[b] = S(θ[b])."""
    with Trial("batch_equals_rows", solver, problem, options) as trial:
        theta = generic_rows(problem, trial.rows)
        alone = torch.cat([trial.solver(row[None]) for row in theta.unbind()])
        trial.require_same(theta, trial.another()(theta), alone, "a batch isn't answered as its rows alone are")
        folded = theta.reshape(-1, 2, *problem.shape)
        trial.require_same(folded, trial.solver(folded), alone, "batch dimensions change the answers")


def check_unbatched(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """S(θ) for θ without batch dimensions = S(θ[None])[0], and its status and objective are scalars."""
    with Trial("unbatched", solver, problem, options) as trial:
        theta = generic_rows(problem, 1)
        solutions = trial.solver.solve(theta[0])
        shape = tuple(solutions.status.shape)
        trial.require(shape == (), f"θ has no batch dimensions, but the status has shape {shape}")
        trial.require_same(theta[0], solutions.z, trial.solver(theta), "a row alone isn't answered as in a batch")


def check_empty_batch(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """S(θ) of no rows is no rows: [0, *shape] and [2, 0, *shape] come back as they are."""
    with Trial("empty_batch", solver, problem, options) as trial:
        for batch in ((0,), (2, 0)):
            theta = torch.empty(*batch, *problem.shape)
            solutions = trial.solver.solve(theta)
            expected, found = _kind(theta), _kind(solutions.z)
            trial.require(found == expected, f"θ is {expected}, but z is {found}")
            shape = tuple(solutions.status.shape)
            trial.require(shape == batch, f"θ is {expected}, but the status has shape {shape}, not {batch}")


def check_non_contiguous(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """S(θ) is that of a contiguous copy for strided, transposed, reversed-in-memory and expanded θ."""
    with Trial("non_contiguous", solver, problem, options) as trial:
        theta = generic_rows(problem, trial.rows)
        z = trial.solver(theta)

        def batches(rows: Tensor) -> Tensor:
            return rows.reshape(4, -1, *problem.shape).transpose(0, 1)

        views = {
            "with every second row": (theta[::2], z[::2]),
            "with batch dimensions transposed": (batches(theta), batches(z)),
            "with every second entry": (torch.stack([theta, -theta], dim=-1)[..., 0], z),
            "with its last dimension first in memory": (theta.movedim(-1, 0).contiguous().movedim(0, -1), z),
            "expanded from one row": (theta[:1].expand(3, *problem.shape), z[:1].expand(3, *problem.shape)),
        }
        for name, (view, expected) in views.items():
            trial.require_same(view, trial.solver(view), expected, f"θ {name} isn't answered as its contiguous copy")


def check_theta_unwritten(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """θ is after S(θ) what it was before."""
    with Trial("theta_unwritten", solver, problem, options) as trial:
        for dtype in (torch.float32, torch.float64):
            theta = generic_rows(problem, trial.rows).to(dtype)
            before = theta.clone()
            z = trial.solver(theta)
            changed = (theta != before).flatten(1).sum(1)
            trial.require_rows(changed == 0, before, z, "the solver wrote to θ, in {} coordinates", changed)


def check_non_finite_refused(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """NaN or ±∞ in θ raises NonFiniteError with the numbers of the rows, counted over the flattened batch."""
    with Trial("non_finite_refused", solver, problem, options) as trial:
        for value in (torch.nan, torch.inf, -torch.inf):
            theta = generic_rows(problem, 6)
            theta.flatten(1)[[1, 4], -1] = value
            try:
                trial.solver(theta.reshape(2, 3, *problem.shape))
            except NonFiniteError as error:
                rows = error.rows
            else:
                rows = ()
            trial.require(rows == (1, 4), f"rows 1 and 4 of θ have {value}, but the rows refused are {rows}")


def check_wrong_shape_refused(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """Trailing dimensions of θ other than the problem's shape raise ShapeError."""
    with Trial("wrong_shape_refused", solver, problem, options) as trial:
        for shape in ((*problem.shape[:-1], problem.shape[-1] + 1), ()):
            try:
                trial.solver(torch.zeros(shape))
            except ShapeError:
                continue
            trial.require(False, f"θ of shape {shape} was taken")


def check_scale_invariant(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """S(s θ) = S(θ) for s from 2^-30 to 2^30, about 1e-9 to 1e9; where the second best is close, by its objective."""
    with Trial("scale_invariant", solver, problem, options) as trial:
        theta = generic_rows(problem, trial.rows)
        z = trial.solver(theta)
        close = close_rows(trial.truth, 2 * trial.rows)
        for exponent in (-30, 30) if trial.is_slow else (-30, -20, -10, 10, 20, 30):
            scale = 2.0**exponent  # of powers of two the product is exact
            scaled = scale * theta
            solutions = trial.solver.solve(scaled)
            if not trial.truth.fixed.any():  # else what θ doesn't price counts for more, or for less
                trial.require_same(scaled, solutions.z, z, f"θ times 2^{exponent} isn't answered as θ")
            trial.require_optimal(scaled, solutions)
            trial.require_optimal(scale * close, trial.solver.solve(scale * close))


def check_deterministic(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """θ[a] = θ[b] ⇒ S(θ)[a] = S(θ)[b], within a batch and from a solver made anew."""
    with Trial("deterministic", solver, problem, options) as trial:
        theta = generic_rows(problem, trial.rows)
        z = trial.solver(theta)
        trial.require_same(theta, trial.another()(theta), z, "made anew, the solver answers otherwise")
        twice, expected = theta.repeat_interleave(2, dim=0), z.repeat_interleave(2, dim=0)
        trial.require_same(twice, trial.another()(twice), expected, "equal rows of a batch are answered otherwise")


def check_history_free(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """S(θ)[b] doesn't depend on what was solved before: asked again, and in another order."""
    with Trial("history_free", solver, problem, options) as trial:
        theta = generic_rows(problem, trial.rows)
        z = trial.solver(theta)
        trial.require_same(theta, trial.solver(theta), z, "asked again, the solver answers otherwise")
        shuffled = torch.randperm(len(theta), generator=torch.Generator().manual_seed(0))
        for asked, order in ((trial.solver, shuffled.flip(0)), (trial.another(), shuffled)):
            rows = theta[order]
            trial.require_same(rows, asked(rows), z[order], "in another order, rows are answered otherwise")


def check_threads_equal_serial(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """S(θ) is the same from one thread and from many, while several threads ask for different rows at once.

    Threads change turns at every line of the solver's own code, so that two of them meet wherever they share what a row
    changes. No process is started; an executor given as ``workers`` is held to the same answers.
    """
    with Trial("threads_equal_serial", solver, problem, options) as trial:
        theta = generic_rows(problem, trial.rows, seed=3)
        z = trial.solver(theta)
        for workers in (THREADS, *trial.workers):
            shared = trial.another(workers=workers)
            for answers in (*ask_at_once(shared, theta, trial.packages), shared(theta)):
                trial.require_same(theta, answers, z, f"with workers={workers!r} answers aren't those of one thread")


def check_gradient(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """The I-MLE gradient through `MAPLayer`, mean over s of (S(θ + ε_s) − S(θ' + ε_s)) / p, is that of enumeration.

    A heuristic has to equal its own answers, with and without row merging.
    """
    with Trial("gradient", solver, problem, options) as trial:
        if trial.solver.traits.exact:
            reference = get_solver(BruteForce(problem), problem)
        else:
            reference = trial.solver if trial.repeatable else None
        _require_gradient(trial, trial.another(merge=True), reference, generic_rows(problem, trial.rows // 2, seed=4))


def check_reuse(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """With ``reuse=True`` answers are worth what they are without it: S(θ_t) is optimal for rows that drift slowly.

    Between two steps, as in training, the backward pass of `MAPLayer` starts from the forward pass's answers.
    """
    with Trial("reuse", solver, problem, options) as trial:
        reusing = trial.another(reuse=True, merge=True)
        reference = get_solver(BruteForce(problem), problem) if trial.solver.traits.exact else None
        theta, drift = (generic_rows(problem, trial.rows // 4, seed=seed) for seed in (6, 7))
        for _ in range(4):
            trial.require_optimal(theta, reusing.solve(theta))
            _require_gradient(trial, reusing, reference, theta)
            theta = theta + 0.2 * drift  # where θ ≤ 0 is asked for, both are
        tied = tied_rows(problem, trial.rows // 4)
        trial.require_optimal(tied, reusing.solve(tied))


def check_per_row_problems(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """With ``problems=[…]``, S(θ)[b] is the answer of the b-th problem to θ[b], as when that problem is alone.

    The other problems are the kit's own that the solver takes; a solver without a name gets copies of this one.
    """
    with Trial("per_row_problems", solver, problem, options) as trial, ExitStack() as others:
        beside = (Trial("per_row_problems", solver, other, options) for other in neighbors_of(solver, problem))
        trials = [trial, *map(others.enter_context, beside)]
        rows = [generic_rows(each.problem, 3, seed=8) for each in trials]
        theta = [row for together in zip(*rows, strict=True) for row in together]
        problems = [each.problem for each in trials] * 3
        for asked in (trial.another(), trial.without_problem()):
            z = asked(theta, problems)
            for number, (each, own) in enumerate(zip(trials, rows, strict=True)):
                message = (
                    f"beside rows of {len(trials) - 1} other problems, the rows of a problem are answered otherwise"
                )
                each.require_same(own, torch.stack(z[number :: len(trials)]), each.solver(own), message)


def check_time_limit(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """However short the time limit, a row is called OPTIMAL only where it is; one that isn't reached changes nothing.

    Rows that run into it have status TIME_LIMIT or FEASIBLE, and a state or none: `SolveTimeoutError` names them all
    or, with ``on_error="incumbent"``, those without a state. A solver that knows no limit just finishes.
    """
    with Trial("time_limit", solver, problem, options) as trial:
        theta = generic_rows(problem, trial.rows // 4)
        for limit in (1e-9, 1e-3):
            for policy in ("raise", "incumbent"):
                hurried = trial.another(time_limit=limit, on_error=policy)
                try:
                    solutions, refused = hurried.solve(theta), ()
                except SolveTimeoutError as error:
                    solutions, refused = error.solutions, error.rows
                trial.require_partial(theta, solutions, refused, incumbents=policy == "incumbent")
        trial.require_optimal(theta, trial.another(time_limit=600.0).solve(theta))


def check_infeasible(solver: SolverLike, problem: Problem, **options: Any) -> None:
    """A solver of integer programs raises InfeasibleError with the numbers of the rows where their set is empty.

    The set is that of the problem's program with two constraints more that contradict each other, and with one more
    that only fractions meet. Other solvers are never asked, nor are objects and functions, which have one problem.
    """
    with Trial("infeasible", solver, problem, options) as trial:
        for program in () if trial.program is None else contradictions(trial.program):
            with Trial("infeasible", solver, program, options) as each:
                try:
                    solutions = each.solver.solve(wide_rows(program, 6).reshape(2, 3, *program.shape))
                except InfeasibleError as error:
                    solutions = error.solutions
                count = 0 if solutions is None else int((solutions.status == Status.INFEASIBLE).sum())
                each.require(count == 6, f"the set is empty, but of 6 rows {count} end with status INFEASIBLE")


LAWS: Final = (
    check_feasible,
    check_theta_unwritten,
    check_deterministic,
    check_batch_equals_rows,
    check_history_free,
    check_optimal,
    check_ties,
    check_scale_invariant,
    check_shape_dtype_device,
    check_unbatched,
    check_empty_batch,
    check_non_contiguous,
    check_non_finite_refused,
    check_wrong_shape_refused,
    check_threads_equal_serial,
    check_gradient,
    check_reuse,
    check_per_row_problems,
    check_time_limit,
    check_infeasible,
)
"""All laws, in the order in which `mapgrad.testing.check_solver` tries them."""


def _require_gradient(trial: Trial, solver: Solver, reference: Solver | None, theta: Tensor) -> None:
    z, gradient = _imle(solver, theta)
    finite = gradient.isfinite().flatten(1).all(1)
    trial.require_rows(finite, theta, z, "the gradient has NaN or infinite entries")
    if reference is not None:
        error = (gradient - _imle(reference, theta)[1]).abs().flatten(1).amax(1)
        message = "the I-MLE gradient is off by {} in its worst coordinate"
        trial.require_rows(error <= _GRADIENT_TOLERANCE, theta, z, message, error)


def _imle(solver: Solver, theta: Tensor) -> tuple[Tensor, Tensor]:
    assert solver.problem is not None
    # No noise and weights above zero keep every row that is solved inside a domain of θ ≤ 0: what the core clips has
    # ties, where two exact solvers may rightly differ.
    noise = Gumbel() if solver.problem.domain is Domain.REAL else None
    layer = MAPLayer(solver, IMLE(noise, RelativeStep(2.0), samples=2), seed=0)
    leaf = theta.clone().requires_grad_()
    weight = 0.1 + torch.rand(theta.shape, generator=torch.Generator().manual_seed(5), dtype=theta.dtype)
    z = layer(leaf)
    return z.detach(), torch.autograd.grad((weight * z).sum(), leaf)[0]


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device.type}"
