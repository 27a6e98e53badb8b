"""Programs whose parameters are drawn from a distribution, whose gradient is the score function's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from mapgrad.arguments import positive, whole_number
from mapgrad.batching import (
    Record,
    Solver,
    describe_failed,
    error_of,
    name_rows,
    require_float,
    require_minimize,
    row_numbers,
)
from mapgrad.distribution._expectation import mean_of, require_draws, values_of, weights_of
from mapgrad.errors import InfeasibleError, ProblemError, RowsError, ShapeError
from mapgrad.gradients import first_order
from mapgrad.problems import Problem
from mapgrad.solutions import Solutions, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.distribution._expectation import Baseline

    Program = Callable[[Any, int], Problem | None]


class RandomProgram:
    """The law of a program's best state, where parameters of the program are drawn from a distribution.

    Any parameter may be drawn, and any solver serves: θ, and whatever else makes a problem, such as coefficients, right
    sides and bounds of an `IntegerProgram`. The gradient of an `expectation` is the score function's, and reaches what
    the distribution depends on, such as a network's predictions (Silvestri, Berden, Signorelli, Mandi, Mahmutoğulları,
    Amos, Guns and Lombardi, Score function gradient estimation to widen the applicability of decision-focused
    learning, 2023, arXiv 2307.05213).

    Args:
        solver: A `Solver` from `get_solver`, made with the problem None where `program` is given.
        parameters: The law of the parameters y, of batch shape [*batch], a row each, and of any event shape: wrap
            ``Normal(mean, std)`` in `torch.distributions.Independent`. It needs a `log_prob`.
        theta: [*batch, *shape], utilities (costs if `minimize`), or a function of y [*sample, *batch, *event] that
            returns those, [*sample, *batch, *shape].
        program: From y of one draw and row, a float64 NumPy array of the event shape, and the row's number in the
            flattened batch to a problem; or to None where there is none, as where bounds cross: such a draw is
            infeasible. None where all draws have the solver's own problem.
        minimize: Whether θ are costs, to be minimised.

    Raises:
        TypeError: an argument isn't of its kind.

    Example:
        >>> import torch, mapgrad
        >>> weights = mapgrad.distribution.floored_normal(torch.tensor([2.0, 3.0]), torch.zeros(2), floor=0.1)
        >>> law = mapgrad.distribution.RandomProgram(
        ...     mapgrad.get_solver("highs", None),
        ...     weights,
        ...     theta=torch.tensor([1.0, 2.0]),
        ...     program=lambda y, row: mapgrad.IntegerProgram(A_ub=[y], b_ub=[4.0]),
        ... )
        >>> law.solve(weights.mean).z
        tensor([0., 1.])
    """

    def __init__(
        self,
        solver: Solver,
        parameters: Distribution,
        *,
        theta: Tensor | Callable[[Tensor], Tensor],
        program: Program | None = None,
        minimize: bool = False,
    ) -> None:
        if not isinstance(solver, Solver):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"solver must be a mapgrad.Solver, as get_solver makes it, got {solver!r}")
        if not isinstance(parameters, Distribution):  # pyright: ignore[reportUnnecessaryIsInstance] (as above)
            raise TypeError(f"parameters must be a torch.distributions.Distribution, got {parameters!r}")
        if not (isinstance(theta, Tensor) or callable(theta)):
            raise TypeError(f"theta must be a tensor or a function of the parameters, got {theta!r}")
        if program is not None and not callable(program):
            raise TypeError(f"program must be a function of a draw and a row's number, or None, got {program!r}")
        self.solver = solver
        self.parameters = parameters
        self.theta = theta
        self.program = program
        self.minimize = require_minimize(minimize)

    def solve(self, y: Tensor) -> Solutions:
        """Solve the programs of given parameters, such as ``parameters.mean``; no gradient flows.

        Args:
            y: [*sample, *batch, *event].

        Returns:
            z, status, objective and bound, [*sample, *batch, …]. A draw without a feasible state has the status
            INFEASIBLE and NaN in z; the others keep their answers.

        Raises:
            ShapeError: `y` or θ doesn't fit the distribution or the problem.
            ProblemError: `program` raised one, which is chained to it.
            TypeError: `program` returned something else than a problem or None.
            RowsError: a draw failed otherwise; `rows` are the batch's, whichever draw it was.
        """
        batch, event = tuple(self.parameters.batch_shape), tuple(self.parameters.event_shape)
        split = y.ndim - len(batch) - len(event)
        if split < 0 or y.shape[split:] != (*batch, *event):
            raise ShapeError(
                f"parameters must have shape [*sample, *batch, *event] with [*batch, *event] = {(*batch, *event)}, got "
                f"{tuple(y.shape)}"
            )
        lead = tuple(y.shape[: split + len(batch)])
        with torch.no_grad():
            rows = self._utilities(y.detach(), lead)
        flat = rows.reshape(-1, *rows.shape[len(lead) :])
        return self._solved(flat, self._problems(y.detach()), lead, batch)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> tuple[Tensor, Solutions]:
        """Draw parameters y [*sample, *batch, *event], and `solve` them."""
        with torch.no_grad():
            y = self.parameters.sample(torch.Size(sample_shape))
        return y, self.solve(y)

    def expectation(
        self,
        f: Callable[[Tensor, Tensor], Any],
        samples: int = 10,
        *,
        recourse: float | Tensor | None = None,
        baseline: Baseline = "loo",
        standardize: bool = False,
    ) -> Tensor:
        """Return a Monte Carlo estimate of E f(z(y), y), with the score function's gradient for the distribution.

        That is (1/S) Σ_s (f_s − baseline_s) ∇ log p(y_s), unbiased whatever f, the program and the solver are; what f
        depends on besides gets its own gradient.

        Args:
            f: From z [S, *batch, *shape] and y [S, *batch, *event], both without a gradient, to costs (or rewards)
                [S, *batch], as a tensor, an array or a list: what a decision z is worth in truth, what it takes to mend
                one that turns out infeasible included. It doesn't see infeasible draws: in the place of each it gets a
                feasible one, of the same row if there is one, and the value doesn't count. Where all draws are
                infeasible it isn't called.
            samples: S.
            recourse: What an infeasible draw costs, one number or [*batch]. None refuses such draws.
            baseline: ``"loo"`` for the mean of the other draws' costs, so that a constant in f changes no gradient and
                no bias is added; it needs S > 1. None for none.
            standardize: Whether the gradient of each row is divided by the standard deviation of its costs, so that
                rows of large and of small costs count alike. It is then biased; the value isn't touched.

        Returns:
            [*batch] of the costs' dtype.

        Raises:
            InfeasibleError: draws are infeasible, and no `recourse` is stated.
            ShapeError, TypeError: f or the recourse doesn't fit.
            ValueError: `samples` or `baseline` can't be.
            MapgradError: As for `solve`.
        """
        samples = require_draws(samples, baseline)
        if standardize and samples < 2:
            raise ValueError(f"standardize=True needs samples of at least 2, got {samples}")
        y, found = self.sample((samples,))
        y = y.detach()
        batch = tuple(self.parameters.batch_shape)
        infeasible = found.status == Status.INFEASIBLE
        lost = bool(infeasible.any())
        if lost and recourse is None:
            raise self._failure(found, batch, "state what such a draw costs, as recourse=…")
        if lost and bool(infeasible.all()):
            values = found.z.new_zeros(infeasible.shape)
        else:
            # not 0 and a mask: f may have no derivative there, and NaN times 0 is NaN
            z, seen = (_of_feasible(each, infeasible) if lost else each for each in (found.z, y))
            values = values_of(f, z, seen, batch=batch)
        if recourse is not None:
            values = torch.where(infeasible, self._recourse(recourse, values, batch), values)
        log_density = first_order(_log_prob(self.parameters, y), "an expectation")
        return mean_of(weights_of(log_density, baseline), values, standardize=standardize)

    def _utilities(self, y: Tensor, lead: tuple[int, ...]) -> Tensor:
        """Return θ of draws, [*lead, *shape], as utilities."""
        theta = require_float(self.theta(y) if callable(self.theta) else self.theta)
        batch = lead[len(lead) - len(self.parameters.batch_shape) :]
        expected = lead if callable(self.theta) else batch
        if tuple(theta.shape[: len(expected)]) != expected:
            raise ShapeError(
                f"theta must begin with the dimensions {expected} of the parameters' "
                f"{'draws and ' if callable(self.theta) else ''}batch, got {tuple(theta.shape)}: wrap the distribution "
                f"in torch.distributions.Independent, if its batch shape {tuple(batch)} holds a row's own dimensions"
            )
        theta = theta.detach()
        theta = theta.expand(*lead, *theta.shape[len(expected) :])
        return -theta if self.minimize else theta

    def _problems(self, y: Tensor) -> list[Problem | None] | None:
        """Return one problem a draw, None for an infeasible one; None for all that is the solver's own."""
        if self.program is None:
            return None
        event = tuple(self.parameters.event_shape)
        count = self.parameters.batch_shape.numel()
        draws = y.double().cpu().numpy().reshape(-1, *event)
        problems: list[Problem | None] = []
        for number, draw in enumerate(draws):
            row = number % count
            try:
                problem = self.program(draw, row)
            except ProblemError as error:
                raise ProblemError(
                    f"draw {number // count} of row {row} leaves no problem: {error}. Let program return None there: "
                    "the draw is infeasible then, and costs the recourse"
                ) from error
            if not isinstance(problem, Problem | None):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
                raise TypeError(f"program must return a mapgrad.Problem, or None for none, got {problem!r}")
            problems.append(problem)
        return problems

    def _solved(
        self, theta: Tensor, problems: list[Problem | None] | None, lead: tuple[int, ...], batch: tuple[int, ...]
    ) -> Solutions:
        """Return the answers to all draws, [*lead]."""
        kept = range(len(theta)) if problems is None else [i for i, each in enumerate(problems) if each is not None]
        given = None if problems is None else [each for each in problems if each is not None]
        z = torch.full_like(theta, torch.nan)
        status = torch.full((len(theta),), int(Status.INFEASIBLE), device=theta.device)
        values = torch.full((2, len(theta)), torch.nan, dtype=torch.float64, device=theta.device)
        places = torch.tensor(list(kept), dtype=torch.int64, device=theta.device)
        if len(kept):
            try:
                found = self.solver.solve(theta[places], given) if given is not None else self.solver.solve(theta)
            except RowsError as error:
                found = self._answers(error, kept, given, batch)
            z[places], status[places] = found.z, found.status
            values[:, places] = torch.stack((found.objective, found.bound))
        objective, bound = values.reshape(2, *lead)
        return Solutions(z.reshape(*lead, *theta.shape[1:]), status.reshape(lead), objective, bound)

    def _answers(
        self, error: RowsError, kept: range | list[int], problems: list[Problem] | None, batch: tuple[int, ...]
    ) -> Solutions:
        """Return what an error carries where all its rows are infeasible; else raise it, by the batch's rows."""
        found, count = error.solutions, torch.Size(batch).numel()
        numbers, solved = [number % count for number in kept], problems or [self.solver.problem]
        if found is None:
            record = Record(batch)
            if not record.fail(error, numbers, self.solver.name, solved):
                raise error
            raise record.error() from error
        failed = [row for row in error.rows if int(found.status[row]) != Status.INFEASIBLE]
        if failed:
            described = describe_failed(failed, found, self.solver.name, solved)
            of_rows = {numbers[row]: each for row, each in described.items()}
            raise error_of(of_rows, batch, found) from error
        return found

    def _failure(self, found: Solutions, batch: tuple[int, ...], advice: str) -> RowsError:
        rows = found.status.eq(Status.INFEASIBLE).reshape(-1, torch.Size(batch).numel())
        bad = row_numbers(rows.any(dim=0))
        return InfeasibleError(
            f"{int(rows.sum())} of {rows.numel()} drawn programs are infeasible, in {name_rows(bad, batch)}: {advice}",
            rows=bad,
            solutions=found,
        )

    def _recourse(self, recourse: float | Tensor | None, values: Tensor, batch: tuple[int, ...]) -> Tensor:
        cost = torch.as_tensor(recourse, device=values.device).to(values.dtype)
        if cost.ndim and tuple(cost.shape) != batch:
            raise ShapeError(f"recourse must be one number or [*batch] = {batch}, got {tuple(cost.shape)}")
        if not bool(cost.isfinite().all()):
            raise ValueError(f"recourse must be finite, got {recourse!r}")
        return cost

    def __repr__(self) -> str:
        return f"RandomProgram({self.solver!r}, {self.parameters!r}, minimize={self.minimize})"


def _log_prob(law: Distribution, y: Tensor) -> Tensor:
    """Return a law's log-density of draws; torch's `Independent` can't sum those of no rows."""
    if y.numel() or not isinstance(law, Independent):
        return law.log_prob(y)
    dims = tuple(range(-law.reinterpreted_batch_ndims, 0))
    base = cast("Distribution", law.base_dist)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)
    each = _log_prob(base, y)
    return each.sum(dim=dims) if dims else each


def _of_feasible(drawn: Tensor, infeasible: Tensor) -> Tensor:
    """Return draws with a feasible one in the place of each infeasible one, of the same row if there is one.

    Args:
        drawn: [S, *batch, *].
        infeasible: [S, *batch] bool, not all of them.
    """
    lost = infeasible.reshape(len(infeasible), -1)
    rows = drawn.reshape(*lost.shape, *drawn.shape[infeasible.ndim :])
    has_one, first = (~lost).max(dim=0)
    row = torch.where(has_one, torch.arange(len(has_one), device=drawn.device), has_one.int().argmax())
    filled = torch.where(lost.reshape(*lost.shape, *(1 for _ in rows.shape[2:])), rows[first[row], row], rows)
    return filled.reshape(drawn.shape)


def floored_normal(mean: Tensor, raw: Tensor, *, floor: float, event_ndim: int = 1) -> Independent[Normal]:
    """Return independent normal parameters, of means and of standard deviations floor + softplus(raw).

    A score is of size 1/σ: without a floor, σ learnt to 0 leaves no draw that differs, and gradients without a bound.

    Args:
        mean: [*batch, *event].
        raw: What broadcasts to it; any real numbers.
        floor: The least σ, > 0, in units of the parameters.
        event_ndim: How many dimensions a row's parameters have.

    Raises:
        TypeError: `floor` isn't a number, or `event_ndim` isn't an int.
        ValueError: `floor` isn't positive and finite, or `event_ndim` is negative.
        ShapeError: the mean has fewer dimensions than `event_ndim`, or raw doesn't broadcast to it.
    """
    floor = positive("floor", floor)
    event_ndim = whole_number("event_ndim", event_ndim, 0)
    if mean.ndim < event_ndim:
        raise ShapeError(
            f"mean must have {event_ndim} dimensions or more, those of event_ndim, got {tuple(mean.shape)}"
        )
    try:
        std = floor + F.softplus(raw).expand(mean.shape)
    except RuntimeError as error:
        raise ShapeError(f"raw must broadcast to mean's shape {tuple(mean.shape)}, got {tuple(raw.shape)}") from error
    return Independent(Normal(mean, std), event_ndim)
