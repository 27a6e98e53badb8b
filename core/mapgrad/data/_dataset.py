"""Rows of a predict-then-optimise task with their optimal states, in PyTorch's form of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.data import Dataset

from mapgrad.batching import Solver, admit, name_problem, name_rows, non_finite_error, require_bool, require_minimize
from mapgrad.data import _kept
from mapgrad.data._solving import solve_parts
from mapgrad.errors import DomainError, NonFiniteError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor

    from mapgrad.problems import Problem


class Examples(NamedTuple):
    """A row of an `OptDataset`, or a batch of them.

    Attributes:
        features: [*batch, …], what a network sees.
        costs: [*batch, *shape], what it is to predict.
        states: [*batch, *shape], z*(c), optimal for the costs.
        values: [*batch], the objective of that state.
    """

    features: Tensor
    costs: Tensor
    states: Tensor
    values: Tensor


class OptDataset(Dataset[Examples]):
    """Features, costs, and the costs' optimal states and values, solved when the data set is made.

    The solver's workers share the rows: ``get_solver(…, workers=4)``. What took longer than a tenth of a second is kept
    on disk, in the user's cache folder (at most 512 MB): in another one if ``MAPGRAD_CACHE_DIR`` names it, or nowhere
    if that is empty. An equal problem, costs, solver and version of the solver's distribution then find it. Kept are
    answers that are all proved optimal, of solvers found by name and of one problem of a class of mapgrad's own: what
    else may change without another name.

    Args:
        solver: A `Solver` from `get_solver`, or a function θ [N, *shape] → z of utilities, as for `MAPLayer`.
        features: [N, …], a tensor of any dtype and device, or what `torch.as_tensor` takes.
        costs: [N, *shape], a floating tensor on any device, or what `torch.as_tensor` takes; finite, but for entries
            that forbid, as for `MAPLayer`. No gradient flows.
        minimize: Whether the costs are to be minimised; else they are utilities, to be maximised.
        problems: One problem a row, in place of the solver's own.
        progress: Whether a bar on stderr shows how many rows are solved, which needs the package rich.

    Attributes:
        features: As given.
        costs: As given.
        states: [N, *shape], argmin ⟨c, z⟩, or argmax unless `minimize`, of the costs' dtype and device.
        values: [N], the optimum ⟨c, z⟩ of each row, of the costs' dtype and device; what variables of a program that
            the costs don't price add to it counts. Rows that fail under ``on_error="nan"`` or ``"zero_grad"`` have NaN
            here and in `states`: keep those of ``values.isfinite()``.
        minimize: As given.

    Raises:
        ShapeError: features and costs haven't one row each, or the costs' shape or dtype doesn't fit the problem.
        NonFiniteError: costs have NaN or infinite entries that forbid nothing.
        DomainError: costs lie outside of the problem's domain, such as negative ones of a path: nothing is clipped.
        RowsError: rows have no acceptable answer; the error carries their `rows` and the others' `solutions`.
        MissingDependencyError: `progress` without rich.
        TypeError: `solver` isn't a solver, or `minimize` or `progress` isn't a bool.

    Example:
        >>> import torch, mapgrad
        >>> solver = mapgrad.get_solver("topk", mapgrad.KSubset(3, 1))
        >>> data = mapgrad.data.OptDataset(solver, torch.zeros(2, 4), torch.eye(2, 3) + 1, minimize=True)
        >>> data.states, data.values
        (tensor([[0., 1., 0.],
                [1., 0., 0.]]), tensor([1., 1.]))
    """

    def __init__(
        self,
        solver: Solver | Callable[[Tensor], Tensor],
        features: Tensor | ArrayLike,
        costs: Tensor | ArrayLike,
        *,
        minimize: bool = False,
        problems: Sequence[Problem] | None = None,
        progress: bool = False,
    ) -> None:
        if not callable(solver) or isinstance(solver, type):
            raise TypeError(
                f"solver must be a mapgrad.Solver or a function of θ, got {solver!r}: make one with mapgrad.get_solver"
            )
        require_bool("progress", progress)
        solver = (solver if isinstance(solver, Solver) else Solver.of_function(solver)).under(blank=True)
        self.features = torch.as_tensor(features)
        self.costs = torch.as_tensor(costs)
        self.minimize = require_minimize(minimize)
        theta = self._utilities()
        _require_admissible(theta, _groups(solver, theta, problems))
        key = None if problems is not None else _kept.key_of(solver, theta)
        answers = None if key is None else _kept.load(key, theta)
        if answers is None:
            solutions = solve_parts(solver, theta, problems, progress=progress)
            answers = solutions.z, solutions.objective
            if key is not None:
                _kept.save(key, solutions)
        self.states, objective = answers
        self.values = (-objective if minimize else objective).to(theta.dtype)

    def _utilities(self) -> Tensor:
        """Return the rows to solve, [N, *shape].

        Raises:
            ShapeError: features and costs haven't one row each.
        """
        if self.features.ndim == 0 or self.costs.ndim < 2 or len(self.features) != len(self.costs):
            raise ShapeError(
                f"features [N, …] and costs [N, *shape] must have one row each for N rows, got the shapes "
                f"{tuple(self.features.shape)} and {tuple(self.costs.shape)}"
            )
        costs = self.costs.detach()
        return -costs if self.minimize else costs

    def __len__(self) -> int:
        return len(self.costs)

    def __getitem__(self, index: Any) -> Examples:
        """Return a row, or some of them.

        Args:
            index: An int, or whatever indexes the first dimension of a tensor: a slice, a list of ints, a bool tensor.
        """
        return Examples(self.features[index], self.costs[index], self.states[index], self.values[index])


def _groups(
    solver: Solver, theta: Tensor, problems: Sequence[Problem] | None
) -> list[tuple[Problem | None, Sequence[int]]]:
    """Return the problems of rows, each with the numbers of its rows.

    Raises:
        ShapeError: rows haven't their problem's shape or dtype, or there isn't a problem for each.
        TypeError: something in `problems` isn't a problem, or there is none at all.
    """
    if problems is not None:
        return [(work.problem, rows) for work, rows in solver.works_on(theta, problems)]
    work = solver.at_work()
    if work.lead_ndim(work.require_theta(theta)) != 1:
        assert work.problem is not None
        raise ShapeError(
            f"costs must be rows [N, *shape] of {name_problem(work.problem)}, whose shape is {work.problem.shape}, "
            f"got {tuple(theta.shape)}"
        )
    return [(work.problem, range(len(theta)))]


def _require_admissible(theta: Tensor, groups: list[tuple[Problem | None, Sequence[int]]]) -> None:
    """Refuse rows that have no optimal state, by their numbers, before any is solved.

    Raises:
        NonFiniteError: rows have NaN or infinite entries that forbid nothing.
        DomainError: rows lie outside of their problem's domain.
    """
    infinite: list[int] = []
    outside: list[int] = []
    kept = domain = ""
    for problem, rows in groups:
        part = theta if len(rows) == len(theta) else theta[list(rows)]
        try:
            admit(part, problem, "raise")
        except NonFiniteError as error:
            infinite += [rows[row] for row in error.rows]
            kept = kept or error.kept
        except DomainError as error:
            outside += [rows[row] for row in error.rows]
            assert problem is not None
            domain = domain or f"{name_problem(problem)} is defined for {problem.domain.value} only"
    if infinite:
        raise non_finite_error(sorted(infinite), (len(theta),), kept=kept)
    if outside:
        raise DomainError(
            f"{domain}, so that there is no optimal state of {name_rows(sorted(outside), (len(theta),))}: keep costs "
            "non-negative, and pass minimize=True with them",
            rows=sorted(outside),
        )
