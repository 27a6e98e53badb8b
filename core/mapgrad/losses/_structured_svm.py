"""The loss of structured support vector machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapgrad.arguments import positive
from mapgrad.batching import name_problem
from mapgrad.errors import UnsupportedProblemError
from mapgrad.losses._loss import Loss
from mapgrad.losses._true_states import are_whole
from mapgrad.losses._values import require_finite, require_like

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.problems import Problem


class StructuredSVM(Loss):
    """The structured hinge loss with margin rescaling (Tsochantaridis, Joachims, Hofmann and Altun, JMLR 2005).

    max_z δ(z, z*) + w ⟨θ, z − z*⟩, where δ(z, z*) = ⟨δ, z − z*⟩ for a vector δ of margins, so that a solver finds the
    maximum. Its subgradient in θ is w (z − z*). With w = 2, minimised costs and their true values as δ it is SPO+; with
    δ = 0, the Fenchel–Young loss without noise.

    Args:
        solver: See `Loss`, as for the others.
        weight: w > 0.
        minimize: Whether predictions are costs; margins aren't, and are what the loss asks for in either case.
        reduction: "mean", "sum" or "none".
        return_solution: Whether the maximiser z comes back too.

    Raises:
        ValueError: `weight` isn't positive and finite.
    """

    takes_nan = True

    def __init__(
        self,
        solver: SolverOrFunction,
        *,
        weight: float = 1.0,
        minimize: bool = False,
        reduction: Reduction = "mean",
        return_solution: bool = False,
    ) -> None:
        super().__init__(solver, minimize=minimize, reduction=reduction, return_solution=return_solution)
        self.weight = positive("weight", weight)
        self._is_binary = _is_binary(self.solver.problem)  # asked here, as a compiler can't trace it

    def forward(
        self, pred: Tensor, z_true: Tensor, margin: Tensor | None = None, *, problems: Sequence[Problem] | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss.

        Args:
            pred: [*batch, *shape], predicted utilities (costs if `minimize`), any float dtype and device.
            z_true: Of the same shape, the true states.
            margin: Of the same shape, δ, in units of θ; None for 1 − 2z*, with which δ(z, z*) is the Hamming distance
                of states of zeros and ones.
            problems: One problem a row, in place of the solver's own; pred is then [B, *shape].

        Returns:
            [] or, without a reduction, [*batch], at least float32 and on pred's device.

        Raises:
            TypeError, ShapeError: an argument isn't a tensor, or doesn't fit.
            UnsupportedProblemError: `margin` is None, and states may be other than zeros and ones.
            NonFiniteError: rows have NaN or infinite entries, other than forbidden ones in `pred`.
            DomainError: wθ + δ lies outside of the problem's domain.
            ProblemError: a row of `z_true` isn't a state.
            RowsError: a row has no acceptable answer.
        """
        theta = self.utilities(pred, problems)
        z_true = self.true_states(z_true, theta, problems)
        if margin is None:
            if not (self._is_binary if problems is None else all(map(_is_binary, problems))):
                raise UnsupportedProblemError(
                    "the Hamming distance is linear for states of zeros and ones only, which those of "
                    f"{name_problem(self.solver.problem)} aren't known to be: give margins, as margin="
                )
            margin = 1 - 2 * z_true
        else:
            margin = require_finite("margin", require_like("margin", margin, theta), self.split(theta, problems))
        rows = self.weight * theta + margin
        z = self.solve(rows, "weight · pred + margin", problems)
        return self.result(self.excess(rows, z, z_true, problems), z)


def _is_binary(problem: Problem | None) -> bool:
    if problem is None or not are_whole(problem):
        return False
    return not ((problem.box[0] < 0).any() or (problem.box[1] > 1).any())
