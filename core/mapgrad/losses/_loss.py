"""What all losses have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor, nn

from mapgrad.batching import (
    are_finite,
    has_forbidden,
    is_traced,
    name_problem,
    name_rows,
    non_finite_error,
    require_bool,
    require_float,
    require_minimize,
    row_numbers,
)
from mapgrad.errors import DomainError, NonFiniteError, ProblemError
from mapgrad.gradients import first_order, widened
from mapgrad.losses._true_states import require_states, warn_of_beaten
from mapgrad.losses._values import (
    inner,
    require_finite,
    require_like,
    require_priced,
    require_solver,
    saturated,
    unfilled,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.errors import RowsError
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.problems import Problem

Reduction = Literal["mean", "sum", "none"]


class Loss(nn.Module):
    """A loss whose value and gradient take solves; the base class of all that are here.

    θ are utilities inside. All solves are exact: rows outside of the problem's domain are refused, whatever the
    solver's own policy is. Computed in at least float32; a value beyond the range of its dtype is the dtype's largest
    number, and a gradient is finite, too. Works under autocast, torch.compile(fullgraph=True),
    torch.vmap and torch.func; a second derivative is refused. A loss is the same in training and in eval mode, but for
    what `PooledLoss` says.

    Each true state is looked at once, when it first comes, and an error names the rows that aren't states; but
    `SPOPlus`, `StructuredSVM` and `FenchelYoung` without a regulariser don't look where torch.compile, torch.vmap or
    torch.func traces them. A loss that gets the true values with the true states warns, once, of rows where it has
    found a better state: the sense is wrong, say, or the states are those of other rows.

    A row that a solve fails is an error, unless the solver's `on_error` says otherwise: with an incumbent or another
    solver's answer the loss goes on as with any other. Under ``"nan"``, `SPOPlus`, `StructuredSVM`,
    `DirectionalGradient` and `FenchelYoung` with noise or without smoothing are NaN for such a row, and so is its
    gradient; under ``"zero_grad"`` both are 0 there, and a mean still counts the row. A `PooledLoss` goes on with the
    states that it has, and the others raise under both. A deadline holds for each solve of a loss.

    Args:
        solver: A `Solver` from `get_solver`, or a function θ [B, *shape] → z [B, *shape], as for `MAPLayer`.
        minimize: Whether predictions and true values are costs, to be minimised, instead of utilities.
        reduction: "mean" or "sum" over the rows, or "none".
        return_solution: Whether a call returns the states too that its gradient comes from: (loss, z).

    Raises:
        TypeError: `solver` is neither a solver nor a function; or `minimize` or `return_solution` isn't a bool.
        ValueError: `reduction` is unknown.
        UnsupportedProblemError: the problem's states are worth more than ⟨θ, z⟩.
    """

    has_warned: bool = False
    """Whether a warning has told of true states that aren't optimal."""

    takes_nan: ClassVar[bool] = False
    """Whether rows whose states are NaN are NaN themselves, and change no other ones."""

    def __init__(
        self,
        solver: SolverOrFunction,
        *,
        minimize: bool = False,
        reduction: Reduction = "mean",
        return_solution: bool = False,
    ) -> None:
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')
        super().__init__()
        made = require_solver(solver).under("raise")
        self.solver = unfilled(made, takes_nan=self.takes_nan)
        self.drops = made.on_error.partition(":")[0] == "zero_grad" and self.takes_nan
        self.minimize = require_minimize(minimize)
        self.reduction: Reduction = reduction
        self.return_solution = require_bool("return_solution", return_solution)

    def utilities(self, pred: object, problems: Sequence[Problem] | None = None) -> Tensor:
        """Return θ of a prediction [*batch, *shape], at least float32.

        Raises:
            TypeError: it isn't a tensor.
            ShapeError: its shape or dtype doesn't fit the problem.
            UnsupportedProblemError: one of `problems` prices states by more than θ.
        """
        theta = widened(require_float(pred))
        if problems is None:
            theta = self.solver.at_work().require_theta(theta)
        else:
            require_priced(problems)
        theta = first_order(theta, "a loss of mapgrad.losses")
        return -theta if self.minimize else theta

    def true_utilities(self, true: object, theta: Tensor) -> Tensor:
        """Return θ of true values, like that of the prediction and without a gradient."""
        values = require_like("true", true, theta)
        return -values if self.minimize else values

    def true_states(self, z_true: object, theta: Tensor, problems: Sequence[Problem] | None = None) -> Tensor:
        """Return true states that a user gave, like θ.

        Raises:
            TypeError, ShapeError, NonFiniteError: they aren't a tensor, don't fit, or hold NaN or infinite entries.
            ProblemError: rows aren't states.
        """
        split, states = self.split(theta, problems), require_like("z_true", z_true, theta)
        require_finite("z_true", states, split)
        if isinstance(z_true, Tensor) and not is_traced(states):
            require_states(states, split, self.solver.problem, problems, dtype=z_true.dtype)
        return states

    def split(self, theta: Tensor, problems: Sequence[Problem] | None = None) -> int:
        """Return how many dimensions of θ are those of the batch."""
        return self.solver.at_work().lead_ndim(theta) if problems is None else 1

    def begin(self, key: int) -> None:
        """Begin a training step, which no loss here learns from; a call of one with random numbers does so."""

    def require_problem(self) -> Problem:
        """Return the solver's problem.

        Raises:
            ValueError: it isn't known.
        """
        if self.solver.problem is None:
            raise ValueError(
                f"{type(self).__qualname__} needs to know the problem, and {self.solver!r} has none: make the solver "
                f"by mapgrad.get_solver(solver, problem)"
            )
        return self.solver.problem

    def require_allowed(self, theta: Tensor, z_true: Tensor, problems: Sequence[Problem] | None = None) -> None:
        """Refuse θ that isn't finite but for forbidden entries, and true states that hold these.

        Raises:
            NonFiniteError: rows of θ [*batch, *shape] have NaN or +inf, or −inf where the lower bound isn't 0.
            ProblemError: rows of z* hold what −inf forbids.
        """
        split = self.split(theta, problems)
        rows = theta.detach().reshape(-1, *theta.shape[split:])
        try:
            is_masked = len(rows) > 0 and self._has_forbidden(rows, problems)
        except NonFiniteError as error:
            raise self.explained(error, "pred", theta, problems) from error
        if is_masked:
            bad = row_numbers((rows.isneginf() & (z_true.reshape(rows.shape) != 0)).flatten(1).any(dim=1))
            if bad:
                raise ProblemError(
                    f"z_true holds entries that pred forbids in {name_rows(bad, tuple(theta.shape[:split]))}"
                )

    def _has_forbidden(self, rows: Tensor, problems: Sequence[Problem] | None) -> bool:
        if problems is None or are_finite(rows):
            return has_forbidden(rows, self.solver.problem)
        bad: list[int] = []
        kept = ""
        for number, problem in enumerate(problems):
            try:
                has_forbidden(rows[number : number + 1], problem)
            except NonFiniteError as error:
                bad.append(number)
                kept = kept or error.kept
        if bad:
            raise non_finite_error(bad, (len(rows),), kept=kept)
        return True

    def solve(self, rows: Tensor, what: str, problems: Sequence[Problem] | None = None) -> Tensor:
        """Return the best states of rows [*batch, *shape].

        Args:
            rows: Utilities.
            what: What they are of a user's values, for messages.
            problems: One a row, in place of the solver's own.

        Raises:
            DomainError, NonFiniteError, RowsError: As for `Solver`.
        """
        try:
            return self.solver(rows.detach(), problems)
        except (DomainError, NonFiniteError) as error:
            raise self.explained(error, what, rows, problems) from error

    def explained(
        self, error: RowsError, what: str, theta: Tensor, problems: Sequence[Problem] | None = None
    ) -> RowsError:
        """Return a solver's error about rows of θ [*batch, *shape], in words of the loss; arguments as for `solve`."""
        name = type(self).__qualname__
        if isinstance(error, NonFiniteError):
            return NonFiniteError(f"{name} solves {what}: {error}", rows=error.rows, kept=error.kept)
        batch = tuple(theta.shape[: self.split(theta, problems)])
        problem = name_problem(self.solver.problem if problems is None else problems[error.rows[0]])
        return DomainError(
            f"{name} solves {what}, and {problem} isn't defined for {name_rows(list(error.rows), batch)}: clipping "
            f"would give a wrong value and gradient, so take a loss that stays inside the domain, such as FenchelYoung "
            f"without noise or with multiplicative noise, or a problem that is defined for all θ",
            rows=error.rows,
        )

    def excess(self, rows: Tensor, z: Tensor, z_true: Tensor, problems: Sequence[Problem] | None = None) -> Tensor:
        """Return ⟨rows, z − z*⟩: what the best states are worth more than the true ones.

        Args:
            rows: [..., *batch, *shape], differentiable.
            z: Their best states.
            z_true: [*batch, *shape].
            problems: One a row, in place of the solver's own.

        Returns:
            [..., *batch] float64.

        Raises:
            ProblemError: a value is infinite as z* holds a forbidden entry.
        """
        split = self.split(z_true, problems)
        difference = self.dropped(z - z_true, z_true, split)
        lead = rows.ndim - z_true.ndim + split
        values = inner(rows, difference, lead)
        if not is_traced(values) and bool(values.isinf().any()):
            for each in rows.reshape(-1, *z_true.shape):
                self.require_allowed(each, z_true, problems)
        return values

    def dropped(self, values: Tensor, like: Tensor, split: int) -> Tensor:
        """Return values with zeros in the rows that have NaN in any sample, where such rows count for nothing.

        Args:
            values: [..., *batch, *shape], made of states.
            like: [*batch, *shape].
            split: How many dimensions those of the batch are.
        """
        if not self.drops:
            return values
        failed = values.isnan().flatten(values.ndim - like.ndim + split).any(dim=-1)
        failed = failed.reshape(-1, *like.shape[:split]).any(dim=0)
        return values.masked_fill(failed.reshape(*failed.shape, *[1] * (like.ndim - split)), 0.0)

    def require_states(self, z_true: Tensor, problems: Sequence[Problem] | None = None) -> None:
        """Refuse true states [*batch, *shape] that aren't, where a trace kept `true_states` from it.

        Raises:
            ProblemError: rows aren't states.
        """
        require_states(z_true, self.split(z_true, problems), self.solver.problem, problems, dtype=z_true.dtype)

    def warn_of_beaten(self, rows: list[int], batch: tuple[int, ...]) -> None:
        """Warn, once, that true states of some rows of a batch aren't optimal for the true values."""
        if rows and not self.has_warned:
            self.has_warned = True
            warn_of_beaten(rows, batch, minimize=self.minimize)

    def result(self, values: Tensor, z: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return what a call does.

        Args:
            values: [*batch], one a row; finite, but for rows that failed.
            z: [*batch, *shape], the solution.
        """
        loss = values if self.reduction == "none" else values.mean() if self.reduction == "mean" else values.sum()
        loss = saturated(loss, z.dtype)
        z = z.nan_to_num(nan=0.0) if self.drops else z
        return (loss, z) if self.return_solution else loss

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.solver!r}, minimize={self.minimize}, reduction={self.reduction!r}"
