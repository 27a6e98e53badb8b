"""A decorated method of an `nn.Module` is a submodule from the start."""

import copy
import dataclasses
import pickle
import sys
from typing import ClassVar

import pytest
import torch

import mapgrad


class Base(torch.nn.Module):
    def __init__(self, k=2):
        super().__init__()
        self.head = torch.nn.Linear(3, 5)
        self.k = k

    @mapgrad.differentiable(mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), step=0.25), seed=0)
    def select(self, theta, bonus=0.0):
        return torch.zeros_like(theta).scatter_(-1, (theta + bonus).topk(self.k).indices, 1)

    @mapgrad.differentiable(mapgrad.IMLE(None), minimize=True)
    def reject(self, theta):
        return torch.zeros_like(theta).scatter_(-1, theta.topk(self.k).indices, 1)

    def forward(self, x):
        return self.select(self.head(x))


class Derived(Base):
    def __init__(self):
        super().__init__(k=1)
        self.tail = torch.nn.Linear(5, 1)


class Overriding(Base):
    def reject(self, theta):
        return theta


class WithoutConstructor(torch.nn.Module):
    @mapgrad.differentiable(mapgrad.AdaptiveIMLE(None))
    def select(self, theta):
        return theta.sign()


class Mixin:
    @mapgrad.differentiable(mapgrad.IMLE(None))
    def pick(self, theta):
        return theta.sign()


class Mixed(Mixin, torch.nn.Module):
    pass


class MixedLast(torch.nn.Module, Mixin):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 5)


@dataclasses.dataclass(eq=False)
class Late(torch.nn.Module):
    k: int = 1

    def __post_init__(self):
        super().__init__()

    @mapgrad.differentiable(mapgrad.IMLE(None))
    def select(self, theta):
        return theta.sign()


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    # pytest's import mode leaves test modules out of sys.modules, where pickle looks for classes
    module = type(sys)(__name__)
    module.__dict__.update(globals())
    monkeypatch.setitem(sys.modules, __name__, module)


def x(seed=0):
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))


def train(model, steps=3):
    for step in range(steps):
        model(x(step)).pow(2).sum().backward()
    return model


def test_it_is_there_before_its_first_use():
    model = Base()
    assert isinstance(model._modules["select"], mapgrad.MAPLayer)
    assert model.select is model._modules["select"]
    assert [name for name, _ in model.named_children()] == ["head", "select", "reject"]
    assert {name.partition(".")[0] for name in model.state_dict()} == {"head", "select", "reject"}
    assert len(list(model.parameters())) == 2
    assert sum(1 for _ in model.modules()) == len(set(model.modules()))
    assert [name for name, _ in Derived().named_children()] == ["head", "select", "reject", "tail"]
    assert [name for name, _ in Overriding().named_children()] == ["head", "select", "reject_super"]
    assert [name for name, _ in WithoutConstructor().named_children()] == ["select"]
    assert "select" in repr(model)
    assert "Base.select" in repr(model)


def test_g6_train_and_eval_reach_it():
    model = Base()
    model.eval()
    assert not model.select.training
    theta = torch.randn(4, 5)
    assert torch.equal(model.select(theta), mapgrad.exact.map_state(mapgrad.KSubset(5, 2), theta))
    model.train()
    assert model.select.training
    model.select.training = False
    assert Base().select.training


def test_g6_state_dict_has_beta_seed_and_step():
    model = train(Base())
    state = model.state_dict()
    assert state["select._extra_state"].tolist() == [0, 3]
    assert state["select.estimator.target.beta"] != 1.0
    fresh = Base()
    assert fresh.state_dict()["select.estimator.target.beta"] == 1.0
    fresh.load_state_dict(state)
    assert torch.equal(fresh(x(9)), model(x(9)))
    assert fresh.state_dict()["select.estimator.target.beta"] == state["select.estimator.target.beta"]


def test_to_reaches_it():
    model = Base().to(torch.float64)
    assert model.select.estimator.target.beta.dtype == torch.float64


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("make", [Base, Derived])
def test_copies_have_layers_of_their_own(twin_of, make):
    model = train(make())
    twin = twin_of(model)
    assert twin.select is not model.select
    assert twin.select.estimator is not model.select.estimator
    assert torch.equal(twin(x(7)), model(x(7)))
    model.eval()
    assert twin.select.training
    twin.eval()
    twin.k = 4
    assert twin(x()).sum(1).tolist() == [4.0] * 4
    assert model(x()).sum(1).tolist() == [float(model.k)] * 4
    assert list(twin.state_dict()) == list(model.state_dict())


def test_objects_of_one_class_adapt_apart():
    one, two = train(Base()), Base()
    assert one.select.stats["beta"] != 1.0
    assert two.select.stats["beta"] == 1.0


def test_context_reaches_the_method():
    model = Base().eval()
    bonus = torch.tensor([0.0, 9.0, 0.0, 0.0, 8.0])
    assert model.select(torch.zeros(2, 5), bonus=bonus).tolist() == [[0, 1, 0, 0, 1]] * 2


def test_a_constructor_that_comes_later_has_it_from_the_first_use_on():
    model = Late()
    model.eval()
    assert not model.select.training
    assert "select" in dict(model.named_children())
    model.train()
    assert model.select.training


@pytest.mark.parametrize("make", [Mixed, MixedLast])
def test_a_method_that_is_mixed_in_is_there_from_the_start(make):
    class Derived(make):
        pass

    for kind in (make, Derived):
        assert "pick._extra_state" in kind().state_dict()
        assert mapgrad.seed_layers(kind(), 0) == 1
        assert isinstance(kind().pick, mapgrad.MAPLayer)
    assert isinstance(Mixin().pick, mapgrad.MAPLayer)


def test_mixing_in_keeps_what_the_class_does_to_its_subclasses():
    class Registering:
        names: ClassVar = []

        def __init_subclass__(cls, *, title, **named):
            super().__init_subclass__(**named)
            cls.names.append(title)

        @mapgrad.differentiable()
        def pick(self, theta):
            return theta.sign()

    class Model(Registering, torch.nn.Module, title="a model"):
        pass

    assert Registering.names == ["a model"]
    assert "pick._extra_state" in Model().state_dict()


def test_what_a_user_puts_in_its_place_stays():
    model = Base()
    model.select = torch.nn.Identity()
    assert model.select is dict(model.named_children())["select"]
    assert torch.equal(model(x()), model.head(x()))


def test_constructors_keep_their_arguments_and_names():
    assert Base(k=3).k == 3
    assert Base.__init__.__qualname__ == "Base.__init__"
    with pytest.raises(TypeError, match="unexpected keyword"):
        Base(depth=3)
