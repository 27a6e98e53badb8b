"""Suite `road`: what the way from θ to a solver and back costs, with solvers that do nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch

from mapgrad.batching import get_solver
from mapgrad.bench._cases import KAPPA, LAM, SEED, estimator, step
from mapgrad.bench._clock import Effort, Work, interleave, seconds_of
from mapgrad.bench._report import Row, Spread
from mapgrad.bench._suites import Suite
from mapgrad.gradients import Gumbel, SumOfGamma
from mapgrad.layer import MAPLayer
from mapgrad.problems import KSubset, Problem
from mapgrad.solvers import BatchSolver, Block, InstanceSolver, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.bench._clock import Times
    from mapgrad.gradients import Noise

_REQUEST: Final = Request()
_BUSY_SECONDS: Final = 1e-4
_LINES: Final = "20 lines of autograd"


class NullBatch(BatchSolver[Problem]):
    """Answers a batch with zeros."""

    def solve(self, theta: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(theta)


class NullInstance(InstanceSolver[Problem, None]):
    """Answers each row with an array that it keeps."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._answer = np.zeros(problem.shape)

    def solve(self, state: None, theta: NDArray[np.float64], request: Request) -> NDArray[np.float64]:
        """Return the array."""
        return self._answer


class NullBlock(InstanceSolver[Problem, None]):
    """Answers a block of rows with zeros."""

    def solve_rows(self, state: None, block: Block) -> None:
        """Write zeros."""
        block.z[:] = 0


class BusyInstance(NullInstance):
    """Takes a tenth of a millisecond a row."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._count = round(_BUSY_SECONDS / min(seconds_of(partial(_loop, 10_000))[0] for _ in range(21)) * 10_000)

    def solve(self, state: None, theta: NDArray[np.float64], request: Request) -> NDArray[np.float64]:
        """Return the array after a while."""
        _loop(self._count)
        return self._answer


class HandWritten(torch.autograd.Function):
    """The twenty lines that somebody without this library would write."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, solve: Callable[[Tensor], Tensor]) -> Any:
        """Return the solver's states."""
        z = solve(theta)
        ctx.save_for_backward(theta, z)
        ctx.solve = solve
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return what the step changes, over its length."""
        (gradient,) = gradients
        theta, z = ctx.saved_tensors
        return (z - ctx.solve(theta - LAM * gradient)) / LAM, None


def _by_hand(solve: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    return cast("Tensor", HandWritten.apply(theta, solve))  # pyright: ignore[reportUnknownMemberType] (untyped in torch)


def _loop(count: int) -> None:
    for _ in range(count):
        pass


def _theta(count: int, n: int) -> Tensor:
    return torch.randn((count, n), generator=torch.Generator().manual_seed(SEED))


def _layer(solver: Any, n: int, noise: Noise | None = None, samples: int = 1) -> MAPLayer:
    return MAPLayer(get_solver(solver, KSubset(n, 1)), estimator(noise, samples), seed=SEED)


def smallest_step(effort: Effort) -> Iterator[Row]:
    """A step at B = 1 beside the lines that one would write by hand."""
    n = 16
    theta, problem = _theta(1, n), KSubset(n, 1)
    batch, instance = NullBatch(problem), NullInstance(problem)

    def solve_row(row: Tensor) -> Tensor:
        answer = instance.solve(None, row.detach()[0].double().numpy(), _REQUEST)
        return torch.as_tensor(answer).to(row.dtype)[None]

    times = interleave(
        {
            "hand": partial(step, partial(_by_hand, batch.solve), theta),
            "hand, by row": partial(step, partial(_by_hand, solve_row), theta),
            "batch solver": partial(step, _layer(NullBatch, n), theta),
            "instance solver": partial(step, _layer(NullInstance, n), theta),
            "block solver": partial(step, _layer(NullBlock, n), theta),
        },
        effort,
    )
    for name, hand, against in (
        ("batch solver", "hand", _LINES),
        ("block solver", "hand, by row", f"{_LINES} around its solve"),
        ("instance solver", "hand, by row", f"{_LINES} around its solve"),
    ):
        yield _row("smallest step", name, {"B": 1, "n": n}, times[name], times[hand], against, 1, "µs a step")


def row_loop(effort: Effort) -> Iterator[Row]:
    """A batch of quick rows beside a bare loop over them."""
    count, n = 512, 16
    theta, problem = _theta(count, n), KSubset(n, 1)
    times = interleave(
        {
            "bare": _bare_loop(NullInstance(problem), theta),
            "solver": partial(get_solver(NullInstance, problem), theta),
        },
        effort,
    )
    yield _row("rows", "solver(θ)", {"B": count, "n": n}, times["solver"], times["bare"], "a bare loop", count)


def slow_rows(effort: Effort) -> Iterator[Row]:
    """A batch of rows of a tenth of a millisecond beside a bare loop over them."""
    count = 64
    for n in (16, 1000):
        theta, problem = _theta(count, n), KSubset(n, 1)
        busy = BusyInstance(problem)
        times = interleave(
            {"bare": _bare_loop(busy, theta), "solver": partial(get_solver(busy, problem), theta)}, effort
        )
        size = {"B": count, "n": n}
        yield _row("rows of 100 µs", "solver(θ)", size, times["solver"], times["bare"], "a bare loop", count)


def elements(effort: Effort) -> Iterator[Row]:
    """What a row and what an element of θ costs in a step, with noise and without."""
    shapes = ((64, 16), (64, 256)) if effort.is_quick else ((512, 16), (512, 1000), (64, 4096))
    for samples in (1, 8):
        noises: dict[str, Noise | None] = {"Gumbel": Gumbel(), "Sum-of-Gamma": SumOfGamma(KAPPA)}
        if samples == 1:
            noises = {"no noise": None, **noises}  # without noise, samples are all the same
        for count, n in shapes:
            theta = _theta(count, n)
            candidates: dict[str, Work] = {
                name: partial(step, _layer(NullBlock, n, noise, samples), theta) for name, noise in noises.items()
            }
            copies, null = theta.repeat(samples, 1), NullBatch(KSubset(n, 1))
            hand = partial(step, partial(_by_hand, null.solve), copies)
            times = interleave({**candidates, "hand": hand}, effort)
            for name in candidates:
                size = {"B": count, "S": samples, "n": n}
                row = _row("null step", name, size, times[name], times["hand"], _LINES, 2 * samples * count)
                assert row.value is not None
                yield replace(row, extra={**row.extra, "ns an element": row.value.median / n * 1e3})


def top_k(effort: Effort) -> Iterator[Row]:
    """A solver of whole batches beside the calls of torch that it makes."""
    count, n, k = (64, 100, 10) if effort.is_quick else (512, 1000, 10)
    theta = _theta(count, n)

    def bare() -> Tensor:
        return torch.zeros_like(theta).scatter_(-1, theta.topk(k).indices, 1.0)

    solver = get_solver("topk", KSubset(n, k))
    times = interleave({"bare": bare, "solver": partial(solver, theta)}, effort)
    size = {"B": count, "n": n}
    yield _row("k-subset", "topk", size, times["solver"], times["bare"], "torch.topk and scatter_", count)


def draws(effort: Effort) -> Iterator[Row]:
    """Noise by itself: Sum-of-Gamma beside Gumbel."""
    count, n = 512, 1000
    theta = _theta(count, n)

    def draw(noise: Any) -> Work:
        return lambda: noise.sample(theta.shape, generator=None, dtype=theta.dtype, device=theta.device)

    times = interleave({"Gumbel": draw(Gumbel()), "Sum-of-Gamma": draw(SumOfGamma(KAPPA))}, effort)
    size = {"B": count, "n": n}
    yield _row("draws", "Sum-of-Gamma", size, times["Sum-of-Gamma"], times["Gumbel"], "a draw of Gumbel", count)


def _bare_loop(solver: NullInstance, theta: Tensor) -> Work:
    block, z = theta.double().numpy(), np.empty(theta.shape)

    def work() -> None:
        for number, row in enumerate(block):
            z[number] = solver.solve(None, row, _REQUEST)

    return work


def _row(
    case: str,
    name: str,
    size: dict[str, int],
    times: Times,
    others: Times,
    against: str,
    count: int,
    unit: str = "µs a row",
) -> Row:
    per_row = Spread.of(times.cpu).times(1e6 / count)
    added = Spread.of([(one - other) / count for one, other in zip(times.cpu, others.cpu, strict=True)])
    return Row(
        case,
        name,
        size,
        value=per_row,
        unit=unit,
        ratio=Spread.of_ratios(times.cpu, others.cpu),
        against=against,
        extra={"added, µs": added.median * 1e6},
    )


SUITE: Final = Suite(
    "The road from θ to a solver and back, with solvers that do nothing",
    {
        "smallest step": smallest_step,
        "rows": row_loop,
        "rows of 100 µs": slow_rows,
        "null step": elements,
        "k-subset": top_k,
        "draws": draws,
    },
    quick=("smallest step", "null step", "k-subset"),
)
