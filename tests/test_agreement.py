"""Whatever takes the same problem finds the same objective."""

from itertools import combinations

import pytest
import torch

import mapgrad
from mapgrad.testing import BruteForce, example_problems

PROBLEMS = list(dict.fromkeys(problem for info in mapgrad.list_solvers() for problem in example_problems(info.name)))


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_solvers_agree_on_200_random_rows(problem):
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(200, *problem.shape, generator=generator, dtype=torch.float64)
    theta[50:100] = theta[50:100].round()  # ties and zeros
    theta[100:150] *= 10.0 ** torch.randint(-9, 10, (50, *(1,) * len(problem.shape)), generator=generator)
    names = [info.name for info in mapgrad.list_solvers(problem) if info.status == "ok"]
    assert names
    scale = theta.abs().flatten(1).amax(1)
    objectives = {name: mapgrad.get_solver(name, problem).solve(theta).objective for name in [*names, BruteForce]}
    for one, other in combinations(objectives, 2):
        assert ((objectives[one] - objectives[other]).abs() <= 1e-9 * scale).all(), (one, other)
