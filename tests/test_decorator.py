"""The decorator, on functions and on methods."""

import copy
import dataclasses
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


def test_options_are_the_layers():
    def top2(theta):
        return torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1)

    options = {"minimize": True, "reduction": "none", "normalize": True, "seed": 4}
    function = mapgrad.differentiable(mapgrad.IMLE(mapgrad.Gumbel(), samples=2), **options)(top2)
    layer = mapgrad.MAPLayer(top2, mapgrad.IMLE(mapgrad.Gumbel(), samples=2), **options)
    assert function.normalize
    theta = 1e4 * torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    found = []
    for run in (function, layer):
        leaf = theta.clone().requires_grad_()
        z = run(leaf)
        (z * torch.arange(5.0)).sum().backward()
        found.append((z, leaf.grad))
    assert all(map(torch.equal, *found))
    assert found[0][1].any()


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


def choose(k, theta):
    return torch.zeros_like(theta).scatter_(-1, theta.topk(k).indices, 1)


class Parent:
    k = 2

    @mapgrad.differentiable()
    def pick(self, theta):
        return choose(self.k, theta)


class ParentModule(torch.nn.Module):
    k = 2

    @mapgrad.differentiable(mapgrad.AdaptiveIMLE(None))
    def pick(self, theta):
        return choose(self.k, theta)


THETA = torch.tensor([[0.0, 3.0, 1.0, 2.0]])


@pytest.mark.parametrize("make", [Parent, ParentModule])
def test_a_shallow_copy_solves_with_its_own_state(make):
    one = make()
    one.pick(THETA)
    one.pick.eval()
    twin = copy.copy(one)
    twin.k = 3
    for _ in range(2):
        assert twin.pick(THETA).tolist() == [[0, 1, 1, 1]]
        assert one.pick(THETA).tolist() == [[0, 1, 0, 1]]
        assert not twin.pick.training
    assert twin.pick.estimator is one.pick.estimator


def test_a_replica_solves_with_its_own_state_and_goes_on_with_the_noise():
    class Noisy(torch.nn.Module):
        k = 2

        @mapgrad.differentiable(mapgrad.IMLE(mapgrad.Gumbel()), seed=3)
        def pick(self, theta):
            return choose(self.k, theta)

    model = Noisy()
    replica = model._replicate_for_data_parallel()
    replica.k = 3
    replica.pick(THETA)
    assert model.eval().pick(THETA).sum() == 2
    assert replica.eval().pick(THETA).sum() == 3
    assert model.state_dict()["pick._extra_state"].tolist() == [3, 1]


@pytest.mark.parametrize("parent", [Parent, ParentModule])
@pytest.mark.parametrize("decorate", [mapgrad.differentiable(), lambda function: function], ids=["decorated", "plain"])
def test_an_override_calls_its_parents_layer(parent, decorate):
    class Child(parent):
        @decorate
        def pick(self, theta):
            return 10 * super().pick(theta)

    class Grandchild(Child):
        @decorate
        def pick(self, theta):
            return 1 + super().pick(theta)

    for child, expected in ((Child(), [[0, 10, 0, 10]]), (Grandchild(), [[1, 11, 1, 11]])):
        assert child.pick(THETA).tolist() == expected
        assert child.pick(THETA).tolist() == expected
    assert parent().pick(THETA).tolist() == [[0, 1, 0, 1]]
    theta = THETA.clone().requires_grad_()
    (Child().pick(theta) * torch.arange(4.0)).sum().backward()
    assert theta.grad.abs().sum() > 0


def test_a_decorated_override_asks_its_parents_function_alone():
    class Child(ParentModule):
        @mapgrad.differentiable(mapgrad.IMLE(None), minimize=True)
        def pick(self, theta):
            return 10 * super().pick(theta)

    child = Child()
    assert child.pick(THETA).tolist() == [[10, 0, 10, 0]]
    assert [name for name, _ in child.named_children()] == ["pick"]


def test_a_parents_layer_is_a_submodule_from_the_start():
    class Child(ParentModule):
        def pick(self, theta):
            return 10 * super().pick(theta)

    one = Child()
    before = list(one.state_dict())
    assert "pick_super.estimator.target.beta" in before
    one.pick(THETA)
    assert list(one.state_dict()) == before
    Child().load_state_dict(one.state_dict())
    assert one.eval().pick(THETA).tolist() == [[0, 10, 0, 10]]


def test_a_method_of_a_frozen_dataclass():
    @dataclasses.dataclass(frozen=True)
    class Frozen:
        k: int = 2

        @mapgrad.differentiable()
        def pick(self, theta):
            return choose(self.k, theta)

    one = Frozen()
    assert one.pick(THETA).tolist() == [[0, 1, 0, 1]]
    assert one.pick is one.pick
    assert one == Frozen()
    assert dataclasses.replace(one, k=1).pick(THETA).tolist() == [[0, 1, 0, 0]]


def test_slots_are_refused_with_a_remedy():
    class Slotted:
        __slots__ = ("k",)

        @mapgrad.differentiable()
        def pick(self, theta):
            return choose(2, theta)

    with pytest.raises(TypeError, match=r'Slotted has __slots__ and no __dict__, .* \'pick\' .*add "__dict__" to'):
        Slotted().pick(THETA)


@pytest.mark.parametrize("base", [object, torch.nn.Module])
def test_a_method_that_comes_after_the_class(base):
    class Late(base):
        k = 2

    Late.pick = mapgrad.differentiable()(lambda self, theta: choose(self.k, theta))
    one, other = Late(), Late()
    other.k = 1
    assert one.pick(THETA).tolist() == [[0, 1, 0, 1]]
    assert other.pick(THETA).tolist() == [[0, 1, 0, 0]]
    assert "Late.pick" in repr(one.pick)


def test_static_and_class_methods():
    class Chooser:
        @staticmethod
        @mapgrad.differentiable()
        def pick(theta):
            return choose(2, theta)

    assert Chooser.pick(THETA).tolist() == Chooser().pick(THETA).tolist() == [[0, 1, 0, 1]]
    with pytest.raises(TypeError, match="write @staticmethod above"):
        mapgrad.differentiable()(staticmethod(choose))
    with pytest.raises(TypeError, match="not a class's: decorate a function"):
        mapgrad.differentiable()(classmethod(choose))


def test_with_minimize_the_function_gets_utilities():
    seen = []

    @mapgrad.differentiable(mapgrad.IMLE(None), minimize=True)
    def cheapest(utilities):
        seen.append(utilities.tolist())
        return choose(1, utilities)

    assert cheapest(THETA).tolist() == [[1, 0, 0, 0]]
    assert seen == [[[0, -3, -1, -2]]]


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
