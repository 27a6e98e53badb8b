"""The estimator and the target that CONTRIBUTING.md shows work as they stand there."""

import re
from pathlib import Path

import pytest
import torch

import mapgrad

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def names_of(heading):
    _, section = GUIDE.read_text(encoding="utf-8").split(f"\n## {heading}\n")
    (code,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    names = {}
    exec(compile(code, GUIDE.name, "exec"), names)
    return names


class Unsaid:
    """Gaussian noise of an author who doesn't say its standard deviation."""

    def sample(self, shape, *, generator, dtype, device):
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)


@pytest.mark.parametrize("noise", [mapgrad.Gaussian(), Unsaid(), None])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_target_of_the_guide(noise, symmetric):
    estimator = mapgrad.IMLE(noise, names_of("Write a target")["Sign"](1.0), samples=3, symmetric=symmetric)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(5, 2)), estimator, seed=0)
    theta = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (layer(theta) @ torch.tensor([-1.0, -1, 0, 1, 1])).sum().backward()
    slope = theta.grad.mean(0)
    assert slope[:2].max() < 0 < slope[3:].min()


def test_the_estimator_of_the_guide():
    names = names_of("Write an estimator")
    problem = mapgrad.KSubset(5, 2)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), names["Antithetic"](3.0), seed=0)
    theta = torch.randn(200, 2, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cost = torch.arange(5.0)
    z = layer(theta)
    assert torch.equal(z.sum(-1), torch.full((200, 2), 2.0))
    assert (z == 0.5).any()
    (z @ cost).sum().backward()
    slope = theta.grad.mean((0, 1))
    assert slope[:2].max() < 0 < slope[2:].min()  # what costs more is wanted less
    assert slope.sum().abs() < 1e-5


def test_the_noise_law():
    names = names_of("Write a noise law")
    law, layer = names["Uniform"](), names["layer"]
    drawn = law.sample((50_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
    assert abs(drawn.std() - law.std) < 0.01
    theta = torch.randn(4, 6)
    rows = torch.arange(4)
    again = mapgrad.MAPLayer(layer.solver, layer.estimator, seed=0)
    assert torch.equal(layer(theta, rows=rows)[[2, 0]], again(theta[[2, 0]], rows=rows[[2, 0]]))
