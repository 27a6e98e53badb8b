"""A linear model trained through each estimator: regret on its rows falls by a stated factor."""

from functools import partial

import pytest
import torch

import mapgrad

SUBSET = mapgrad.KSubset(12, 3)

ESTIMATORS = {
    "default": lambda: None,
    "IMLE": mapgrad.IMLE,
    "IMLE, one side": partial(mapgrad.IMLE, mapgrad.Gumbel(), mapgrad.RelativeStep(1.0), samples=2, symmetric=False),
    "IMLE, published step": partial(mapgrad.IMLE, mapgrad.SumOfGamma(3), mapgrad.Step(10.0), samples=10),
    "IMLE, combinatorial": partial(mapgrad.IMLE, None, mapgrad.Combinatorial()),
    "AdaptiveIMLE": partial(mapgrad.AdaptiveIMLE, samples=2),
    "Blackbox": partial(mapgrad.Blackbox, 60.0),
    "Identity": partial(mapgrad.gradients.Identity, "both"),
    "StraightThrough": partial(mapgrad.StraightThrough, mapgrad.Gumbel(), samples=4),
    "Perturbed": mapgrad.Perturbed,
    "Perturbed, relative": partial(mapgrad.Perturbed, temperature=mapgrad.Relative(0.5)),
    "FrankWolfe": mapgrad.FrankWolfe,
    "Line": mapgrad.Line,
    "Pooled": partial(mapgrad.Pooled, SUBSET),
    "Pooled, derivative": partial(mapgrad.Pooled, SUBSET, derivative=True, draws=64),
    "TwoSided": mapgrad.TwoSided,
    "TwoSided, fresh noise": partial(mapgrad.TwoSided, draws=9),
    "MultiFidelity": partial(mapgrad.MultiFidelity, SUBSET),
    "Exact": partial(mapgrad.Exact, SUBSET),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_regret_falls_to_a_fifth(name):  # by straight-through, which points elsewhere, to the half
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator)
    utilities = x @ torch.randn(4, 12, generator=generator)
    solver = mapgrad.get_solver("topk", SUBSET)
    best = solver.solve(utilities).objective
    torch.manual_seed(0)
    model, layer = torch.nn.Linear(4, 12), mapgrad.MAPLayer(solver, ESTIMATORS[name](), seed=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    @torch.no_grad()
    def regret():
        return float((best - (utilities * solver(model(x))).sum(dim=1)).mean())

    before = regret()
    for _ in range(60):
        optimizer.zero_grad()
        (best - (utilities * layer(model(x))).sum(dim=1)).mean().backward()
        optimizer.step()
    assert regret() < before / (2 if name == "StraightThrough" else 5)
