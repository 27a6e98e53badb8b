"""How good one backward pass is: length and cosine of the mean gradient against the exact one.

Run by hand: ``python tests/benchmarks/bench_gradients.py [--rows 2000]``. Each row of the tables is a problem and a
rule; each column something that users feed a layer: θ as it is, small, or shifted; ∂L/∂z shifted, tiny, or with an
infinite entry in another row, as where mixed precision overflows; a third of the entries masked by −1e9 or by −inf.
Shown are cosine, × length, and, where it isn't 0, the share of rows without a gradient; an error's name where the pass
failed. The rules are a step as long as θ, to one side, as before, and the relative step of this library, to one side
and, as by default, to both sides. Gaussian noise of temperature 1, a linear loss, the same noise for all.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING

import torch

import mapgrad
from mapgrad.bench._report import text_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Cell = tuple[float, float, float] | str
"""Cosine, relative length, and the share of rows without a gradient; or why there are none."""

MASKED = 1 / 3
SEEDS = range(3)


class AsLongAsTheta(mapgrad.Target):
    """θ′ = θ − (‖θ‖ / ‖g̃‖) g̃ for each row."""

    def forward(self, theta: Tensor, gradient: Tensor, context: mapgrad.Context) -> tuple[Tensor, Tensor]:
        """Return (θ′, divisor)."""
        dims = tuple(range(-context.event_ndim, 0))
        size = theta.square().sum(dims, keepdim=True).sqrt()
        step = torch.where(size == 0, 1.0, size) / gradient.square().sum(dims, keepdim=True).sqrt()
        return theta - step * gradient, step


RULES: dict[str, Callable[[], mapgrad.IMLE]] = {
    "before: ‖θ‖, one side": lambda: mapgrad.IMLE(mapgrad.Gaussian(), AsLongAsTheta(), symmetric=False),
    "relative 1, one side": lambda: mapgrad.IMLE(mapgrad.Gaussian(), mapgrad.RelativeStep(1.0), symmetric=False),
    "relative 1, both": lambda: mapgrad.IMLE(mapgrad.Gaussian(), mapgrad.RelativeStep(1.0)),
    "default: relative .5, both": lambda: mapgrad.IMLE(mapgrad.Gaussian()),
}
COLUMNS = ["plain", "θ · 1e-3", "θ + 1000", "g + 10", "third −1e9", "third −inf", "AMP overflow", "g · 1e-40"]
PROBLEMS = {
    "k-subset 12, 4": mapgrad.KSubset(12, 4),
    "one-hot 8": mapgrad.KSubset(8, 1),
    "assignment 4": mapgrad.Assignment(4),
    "tree 5": mapgrad.SpanningTree(5, [(i, j) for i in range(5) for j in range(i)]),
    "knapsack 10": mapgrad.Knapsack([[3.0, 5, 2, 7, 4, 6, 3, 5, 8, 4]], [23.0]),
}


def solver_of(problem: mapgrad.Problem) -> mapgrad.Solver:
    """Return the solver that scores all states of a batch."""
    states = problem.states().flatten(1)

    class Enumeration(mapgrad.BatchSolver):
        def solve(self, theta: Tensor) -> Tensor:
            """Return the best of all states; 0 · −inf is NaN, so a forbidden entry counts as very bad."""
            rows = theta.flatten(1).clamp(min=-1e30)
            return states.to(theta)[(rows @ states.T.to(theta)).argmax(1)].reshape(theta.shape)

    return mapgrad.get_solver(Enumeration, problem)


def exact_gradient(problem: mapgrad.Problem, theta: Tensor, slope: Tensor, draws: int) -> Tensor:
    """Return the gradient of E⟨slope, MAP(θ + ε)⟩, with each entry's noise integrated given that of the others."""
    states, theta, slope = problem.states().flatten(1), theta.flatten(), slope.flatten()
    generator = torch.Generator().manual_seed(1)
    perturbed = theta + torch.randn(draws, len(theta), generator=generator, dtype=torch.float64)
    values, scores, found = states @ slope, perturbed @ states.T, torch.zeros_like(theta)
    for entry in range(len(theta)):
        chosen = states[:, entry] == 1
        inside = (scores[:, chosen] - perturbed[:, entry, None]).max(1)
        outside = scores[:, ~chosen].max(1)
        threshold = outside.values - inside.values - theta[entry]
        density = (-threshold.square() / 2).exp() / (2 * math.pi) ** 0.5
        found[entry] = (density * (values[chosen][inside.indices] - values[~chosen][outside.indices])).mean()
    return found


def visible(problem: mapgrad.Problem, gradient: Tensor) -> Tensor:
    """Return a gradient [*shape] less what the problem can't see."""
    gradient = gradient.reshape(problem.shape)
    for _ in range(30):
        for axes in problem.constant_sums:
            gradient = gradient - gradient.mean(axes, keepdim=True)
    return gradient.flatten()


def masked_third(problem: mapgrad.Problem, generator: torch.Generator) -> Tensor:
    """Return about a third of the entries, [*shape] bool, without which at least four states remain."""
    states = problem.states().flatten(1)
    for _ in range(1000):
        chosen = torch.randperm(states.shape[1], generator=generator)[: round(MASKED * states.shape[1])]
        if (states[:, chosen].sum(1) == 0).sum() >= min(4, len(states) - 1):
            mask = torch.zeros(states.shape[1], dtype=torch.bool)
            mask[chosen] = True
            return mask.reshape(problem.shape)
    raise ValueError(f"{problem!r} has no third of entries to spare")


def measure(
    problem: mapgrad.Problem, column: str, make: Callable[[], mapgrad.IMLE], seed: int, rows: int
) -> tuple[float, float, float]:
    """Return cosine and relative length of the mean gradient, and the share of rows without one."""
    generator = torch.Generator().manual_seed(seed)
    theta, slope = torch.randn(2, *problem.shape, generator=generator, dtype=torch.float64).unbind()
    if not problem.constant_sums:
        theta = theta.abs()
    size, mask = 1.0, masked_third(problem, generator)
    if column == "θ · 1e-3":
        theta = theta * 1e-3
    if column.startswith("third"):
        theta = theta.masked_fill(mask, -1e9)
    truth = visible(problem, exact_gradient(problem, theta, slope, 2 * rows))
    if column == "third −inf":
        theta = theta.masked_fill(mask, -math.inf)
    if column == "θ + 1000":
        theta = theta + 1000
    if column == "g + 10":
        slope = slope + 10
    if column == "g · 1e-40":
        size = 1e-40
    layer = mapgrad.MAPLayer(solver_of(problem), make(), seed=seed)
    leaf = theta.float().expand(rows, *problem.shape).clone().requires_grad_()
    gradient = (slope * size).float().expand(rows, *problem.shape).clone()
    overflown = int(column == "AMP overflow")
    gradient[:overflown].flatten(1)[:, 0] = math.inf
    layer(leaf).backward(gradient)
    assert leaf.grad is not None
    if not (leaf.grad[:overflown].isnan().all() and leaf.grad[overflown:].isfinite().all()):
        raise RuntimeError("the rows that overflowed, and only these, must have a NaN gradient")
    found = leaf.grad.double()[overflown:] / size
    dead = (found == 0).flatten(1).all(1).double().mean().item()
    mean = visible(problem, found.mean(0))
    return torch.cosine_similarity(mean, truth, dim=0).item(), (mean.norm() / truth.norm()).item(), dead


def cell(problem: mapgrad.Problem, column: str, make: Callable[[], mapgrad.IMLE], rows: int) -> Cell:
    """Return the means over the seeds, that of the length geometric; or why there is none."""
    if column in ("θ + 1000", "g + 10") and not problem.constant_sums:
        return "visible"
    try:
        found = [measure(problem, column, make, seed, rows) for seed in SEEDS]
    except mapgrad.MapgradError as error:
        return type(error).__name__
    cosine, length, dead = zip(*found, strict=True)
    size = math.exp(sum(math.log(max(value, 1e-300)) for value in length) / len(length))
    return sum(cosine) / len(cosine), size, sum(dead) / len(dead)


def text(found: Cell) -> str:
    """Return what a cell shows."""
    if isinstance(found, str):
        return found
    cosine, length, dead = found
    return f"{cosine:.2f} ×{length:.2g}" + (f" {dead:.0%}" if dead >= 0.005 else "")


def extremes(rule: str, cells: list[Cell]) -> list[str]:
    """Return a row of the last table: from where to where a rule's figures reach."""
    cosine, length, dead = zip(*(found for found in cells if not isinstance(found, str)), strict=True)
    errors = sum(isinstance(found, str) and found != "visible" for found in cells)
    return [rule, *(f"{min(x):.2g} to {max(x):.2g}" for x in (cosine, length, dead)), str(errors)]


def show(title: str, header: list[str], table: list[list[str]]) -> None:
    """Print a table."""
    sys.stdout.write(f"{title}\n\n{text_table(header, table)}\n\n")


def main() -> None:
    """Measure all and show a table for each problem, and one for all."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2000, help="rows whose gradients are averaged")
    rows = parser.parse_args().rows
    everywhere: dict[str, list[Cell]] = {rule: [] for rule in RULES}
    for name, problem in PROBLEMS.items():
        table: list[list[str]] = []
        for rule, make in RULES.items():
            cells = [cell(problem, column, make, rows) for column in COLUMNS]
            everywhere[rule] += cells
            table.append([rule, *map(text, cells)])
        show(f"{name}: cosine × length, rows without a gradient", ["rule", *COLUMNS], table)
    header = ["rule", "cosine", "length", "rows without a gradient", "errors"]
    show("All of these", header, [extremes(*each) for each in everywhere.items()])


if __name__ == "__main__":
    main()
