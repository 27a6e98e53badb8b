"""Stands in for tests/conftest.py, which PyEPO's test files import and its sdist lacks: made from what they ask for.

It builds everything by PyEPO's own names, so it serves the shim and PyEPO itself.
"""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pyepo
import pytest
import torch
from torch import nn

_MODULES = """data data.dataset func func.blackbox func.cave func.contrastive func.perturbed func.rank func.regularized
func.runtime func.surrogate func.utils metric metric._common metric.metrics metric.mse metric.regret metric.unambregret
model model._common model.grb model.grb.knapsack model.grb.shortestpath model.grb.tsp model.opt model.ort
model.ort.knapsack model.ort.shortestpath model.utils twostage twostage.autosklearnpred utils"""
_NOT_COUNTED = """_EPS _HAS_AUTO autoSklearnPred bind_runtime_state create_solver_pool init_runtime init_solution_pool
normalize_processes normalize_regret optMpaxModel portfolio predefined regret_from_objective validate_constraint
validate_numpy_cost_batches validate_objective_shape"""


def _spread():
    """Make submodules of the shim's one module, with the names that test files import for what doesn't count."""
    for name in _NOT_COUNTED.split():
        setattr(pyepo, name, SimpleNamespace(genData=None))
    pyepo._EPS, pyepo._HAS_AUTO = 1e-8, False
    for name in _MODULES.split():
        module = ModuleType(f"pyepo.{name}")
        vars(module).update({key: each for key, each in vars(pyepo).items() if not key.startswith("__")})
        sys.modules[module.__name__] = module
    for name in _MODULES.split():
        if name.partition(".")[0] != "metric" or name == "metric":
            owner, _, last = f"pyepo.{name}".rpartition(".")
            setattr(sys.modules[owner], last, sys.modules[f"pyepo.{name}"])


if hasattr(pyepo, "__version__"):  # PyEPO itself, without Gurobi's licence: OR-Tools' models of the same problems do
    from pyepo.model.ort import knapsack, shortestpath

    sys.modules |= {"pyepo.model.grb.knapsack": knapsack, "pyepo.model.grb.shortestpath": shortestpath}
else:
    _spread()
F = importlib.import_module("pyepo.func")
_dataset = importlib.import_module("pyepo.data.dataset")
_ort_knapsack = importlib.import_module("pyepo.model.ort.knapsack")
_ort_paths = importlib.import_module("pyepo.model.ort.shortestpath")

NUM_DATA, NUM_FEAT, GRID, BATCH = 32, 3, (3, 3), 16
_HAS_GUROBI = True  # or what stands in for it
_HAS_COPT = _HAS_PYOMO = _HAS_MPAX = _HAS_FLAX = _HAS_CUDA = False


def _requires(name, there=False):
    return pytest.mark.skipif(not there, reason=f"no {name} here")


requires_gurobi = requires_ortools = requires_clarabel = _requires("this", there=True)
requires_copt, requires_mpax, requires_jax, requires_cuda = map(_requires, ("COPT", "MPAX", "JAX", "CUDA"))

_FEW, _FEW_SMALL = {"n_samples": 3, "sigma": 1.0}, {"n_samples": 3, "sigma": 0.5}
_OPTIONS = {
    "DBB": ("cp", {"lambd": 10}),
    "NID": ("cp", {}),
    "DPO": ("cp", _FEW),
    "DPOMul": ("cp", _FEW_SMALL),
    "IMLE": ("cp", _FEW),
    "AIMLE": ("cp", _FEW),
    "RFWO": ("cp", {"lambd": 1.0, "max_iter": 50}),
    "SPOPlus": ("cp,c,w,z", {}),
    "PG": ("cp,c", {"sigma": 1.0}),
    "PFY": ("cp,w", _FEW),
    "PFYMul": ("cp,w", _FEW_SMALL),
    "RFY": ("cp,w", {"lambd": 1.0, "max_iter": 50}),
}
FD_LOSSES = {"NCE": "cp,w", "CMAP": "cp,w", "lsLTR": "cp,c", "prLTR": "cp,c", "ptLTR": "cp,c"}
SOLUTION_OPS = [name for name, (sig, _) in _OPTIONS.items() if sig == "cp"]
LOSS_OPS = [name for name in [*_OPTIONS, *FD_LOSSES] if name not in SOLUTION_OPS]
OP_SPECS = [*SOLUTION_OPS, *LOSS_OPS]


def _entry(name):
    sig, options = _OPTIONS.get(name) or (FD_LOSSES[name], {})
    kind = "solution" if name in SOLUTION_OPS else "loss"

    def build(optmodel, dataset, reduction):
        more = {"dataset": dataset} if name in FD_LOSSES else {}
        more |= {"reduction": reduction} if kind == "loss" else {}
        return getattr(F, name)(optmodel, processes=1, **options, **more)

    return SimpleNamespace(kind=kind, sig=sig, build=build)


LOSS_REGISTRY = {name: _entry(name) for name in OP_SPECS}


class LinearPred(nn.Module):
    def __init__(self, num_feat, num_cost):
        super().__init__()
        self.linear = nn.Linear(num_feat, num_cost)

    def forward(self, x):
        return self.linear(x)


def call_op(op, sig, cp, c, w, z):
    given = {"cp": cp, "c": c, "w": w, "z": z}
    return op(*(given[name] for name in sig.split(",")))


def take_batch(loader, rows=4):
    return tuple(each[:rows] for each in next(iter(loader)))


def to_np(values):
    return np.asarray(values)


def solver_atol(optmodel):
    return 1e-4


def finite_diff_grad(function, at, step=1e-3):
    gradient = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        shift = np.zeros_like(at)
        shift[place] = step
        gradient[place] = (function(at + shift) - function(at - shift)) / (2 * step)
    return gradient


def fw_knapsack():
    """Any two of four items."""
    return _ort_knapsack.knapsackModel(weights=np.ones((1, 4)), capacity=np.array([2.0]))


def max_knapsack():
    return _ort_knapsack.knapsackModel(weights=np.array([[3.0, 4.0, 5.0, 6.0]]), capacity=np.array([10.0]))


def partial_dsl_model():
    pytest.skip("needs PyEPO's modelling language")


def _data(model, x, c, kind=_dataset.optDataset):
    dataset = kind(model, x, c)
    return model, dataset, _dataset.optDataLoader(dataset, batch_size=BATCH)


def _paths(rows=NUM_DATA, kind=_dataset.optDataset):
    x, c = pyepo.data.shortestpath.genData(rows, NUM_FEAT, GRID, seed=42)
    return _data(_ort_paths.shortestPathModel(grid=GRID), x, c, kind)


@pytest.fixture(scope="module")
def sp_data():
    return _paths()


@pytest.fixture(scope="module")
def ks_data():
    weights, x, c = pyepo.data.knapsack.genData(NUM_DATA, NUM_FEAT, 4, seed=42)
    return _data(_ort_knapsack.knapsackModel(weights=weights, capacity=[10.0]), x, c)


sp_truth = pytest.fixture(scope="module")(lambda: _paths())
sp_pipeline = pytest.fixture(scope="module")(lambda: _paths())
ks_pipeline = pytest.fixture(scope="module")(lambda ks_data: ks_data)


@pytest.fixture(scope="module")
def sp_constrs_data():
    return _paths(8, _dataset.optDatasetConstrs)


class _Torch:
    """What the tests of both of PyEPO's front ends ask of PyTorch."""

    registry = LOSS_REGISTRY
    forward = staticmethod(call_op)

    @staticmethod
    def inputs(c, w, z):
        return (1.2 * c).requires_grad_(), c, w, z

    @staticmethod
    def grad(op, sig, cp, c, w, z):
        (gradient,) = torch.autograd.grad(call_op(op, sig, cp, c, w, z).sum(), cp)
        return gradient

    @staticmethod
    def shape(values):
        return tuple(values.shape)

    @staticmethod
    def ndim(values):
        return values.ndim

    @staticmethod
    def to_np(values):
        return values.detach().numpy()

    @staticmethod
    def finite(values):
        return bool(values.isfinite().all())


@pytest.fixture
def contract_backend():
    return _Torch()
