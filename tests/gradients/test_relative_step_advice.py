"""What users of the default step see where their problem has few states: enough live rows, and advice that is new."""

import re
import warnings

import pytest
import torch

import mapgrad

KNAPSACKS = [mapgrad.Knapsack([3, 2, 4, 1, 5], 7), mapgrad.Knapsack([2, 7, 1, 8, 2, 8], 12)]
FEW_STATES = [*KNAPSACKS, mapgrad.KSubset(6, 1), mapgrad.Assignment(3)]


def train(problem, estimator):
    """The share of rows without a gradient, of those that could improve, in 120 steps on uniform θ and values."""
    layer = mapgrad.MAPLayer(mapgrad.get_solver("auto", problem), estimator, seed=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        theta, values = torch.rand(2, 16, *problem.shape, generator=generator)
        (layer(theta.requires_grad_()) * -values).sum().backward()
    return layer.stats["dead"] / layer.stats["improvable"]


@pytest.mark.parametrize("problem", FEW_STATES, ids=lambda problem: repr(problem)[:36])
def test_n6_the_default_moves_most_rows_without_a_warning(problem):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train(problem, mapgrad.IMLE()) < 0.5


@pytest.mark.parametrize("problem", KNAPSACKS, ids=lambda problem: repr(problem)[:36])
@pytest.mark.parametrize(
    ("lam", "named"), [(None, r"λ = 0\.5: pass target=RelativeStep\(1\.0\)"), (0.05, "λ than 0.05")]
)
def test_n6_a_warning_doesnt_advise_the_target_in_use(problem, lam, named):
    estimator = mapgrad.IMLE(mapgrad.Gaussian(), mapgrad.RelativeStep(lam), symmetric=False, temperature=0.1)
    with pytest.warns(UserWarning, match=f"{named}.*symmetric=True") as caught:
        assert train(problem, estimator) > 0.5
    assert not re.search(rf"RelativeStep\({lam}\)|AdaptiveIMLE", str(caught[0].message))
