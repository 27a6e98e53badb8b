"""The decorator, on functions and on methods."""

import copy
import pickle
import sys

import pytest
import torch

import mapgrad


@mapgrad.differentiable(mapgrad.IMLE(noise=mapgrad.Gumbel(), samples=10))
def pick(theta):
    """Pick the largest entry."""
    return torch.nn.functional.one_hot(theta.argmax(-1), theta.shape[-1])


class Chooser:
    def __init__(self, k):
        self.k = k

    @mapgrad.differentiable(minimize=True)
    def cheapest(self, costs_as_utilities):
        """Choose k entries."""
        return torch.zeros_like(costs_as_utilities).scatter_(-1, costs_as_utilities.topk(self.k).indices, 1)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 5)

    @mapgrad.differentiable(mapgrad.AdaptiveIMLE(), seed=0)
    def select(self, theta):
        return torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1)

    def forward(self, x):
        return self.select(self.head(x))


def test_a_function():
    theta = torch.zeros(3, 5, requires_grad=True)
    z = pick(theta)
    assert z.shape == (3, 5)
    torch.testing.assert_close(z.sum(-1), torch.ones(3))
    z[:, 0].sum().backward()
    assert theta.grad.abs().sum() > 0
    assert pick.__name__ == "pick"
    assert pick.__doc__ == "Pick the largest entry."


def test_a_method_gives_each_object_a_layer():
    one, two = Chooser(1), Chooser(2)
    costs = torch.tensor([[3.0, 1.0, 2.0]])
    assert one.cheapest(costs).tolist() == [[0, 1, 0]]
    assert two.cheapest(costs).tolist() == [[0, 1, 1]]
    assert one.cheapest is one.cheapest
    assert one.cheapest is not two.cheapest


def test_a_method_of_a_module():
    model = Model()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    model(x).pow(2).sum().backward()
    assert model.head.weight.grad.abs().sum() > 0
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), model(x))


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies(twin_of, monkeypatch):
    # pytest's import mode leaves test modules out of sys.modules, where pickle looks for classes
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())
    chooser = Chooser(2)
    chooser.cheapest(torch.zeros(1, 3))
    twin = twin_of(chooser)
    twin.k = 1
    costs = torch.tensor([[3.0, 1.0, 2.0]])
    assert twin.cheapest(costs).tolist() == [[0, 1, 0]]
    assert chooser.cheapest(costs).tolist() == [[0, 1, 1]]
    assert twin_of(pick) is pick


def _this_module():
    module = type(sys)(__name__)
    module.__dict__.update(globals())
    return module


def test_parentheses_are_needed():
    with pytest.raises(TypeError, match=r"@mapgrad.differentiable\(\), with parentheses"):

        @mapgrad.differentiable
        def forgotten(theta):
            return theta


def test_only_functions_are_decorated():
    with pytest.raises(TypeError, match="decorates a function of θ, got 3"):
        mapgrad.differentiable()(3)


def test_the_example_of_the_docstring():
    import doctest

    results = doctest.testmod(sys.modules["mapgrad.decorator"])
    assert results.attempted > 0
    assert results.failed == 0
