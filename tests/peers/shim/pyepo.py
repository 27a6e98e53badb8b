# ruff: noqa: B008, E401, E701, E731, I001, N801, N802, N815, N816, RUF012, TRY004 (PyEPO's names, in 300 lines)
# fmt: off
"""PyEPO's interface in mapgrad's terms, as far as its test functions that count ask for it; see README.md beside."""
import copy, math, mapgrad, numpy as np, torch
from functools import partialmethod
from numbers import Integral, Real
from types import SimpleNamespace
from sklearn.metrics import make_scorer
from sklearn.multioutput import MultiOutputRegressor as sklearnPred  # noqa: F401 (one of PyEPO's names)
from torch.utils.data import DataLoader, Dataset
from mapgrad import losses
from mapgrad.data import KnapsackTask, OptDataset, ShortestPathTask, TravelingSalesmanTask
from mapgrad.gradients._projection import along_face, nearest
from mapgrad.losses._cones import Cones, _interior
from mapgrad.pool import StatePool
EPO = SimpleNamespace(MINIMIZE=1, MAXIMIZE=-1)
def require(name, value, low=0.0, high=math.inf, *, whole=False, strict=False):
    ok = isinstance(value, Integral if whole else Real) and not isinstance(value, bool) and math.isfinite(value)
    if not ok or not low <= value <= high or (strict and value == low): raise ValueError(f"{name} can't be {value!r}")
def is_minimize(model):
    if model.modelSense not in (EPO.MINIMIZE, EPO.MAXIMIZE): raise ValueError("Invalid modelSense")
    return model.modelSense == EPO.MINIMIZE

class optModel:  # a problem of mapgrad, and the costs that are set; or a model that a test brings
    modelSense, problem, _extra_constrs = EPO.MINIMIZE, None, ()
    num_cost = property(lambda self: len(self.x))
    def __init__(self): self._model, self.x = self._getModel()
    def maximizer(self, workers=1):
        return mapgrad.get_solver("auto", self.problem, workers=workers) if self.problem else self._each
    def _each(self, theta):
        solved = [(self.setObj(cost), self.solve())[1] for cost in -self.modelSense * theta.numpy()]
        return torch.stack([torch.as_tensor(z) for z, _ in solved]).to(theta)
class _Model(optModel):
    arcs = property(lambda self: self.problem.edges.tolist())
    def __init__(self, *values, **named):
        self.__dict__ |= copy.deepcopy(dict(zip(self.fields, values, strict=False)) | named)
        super().__init__()
    def _getModel(self):
        self.problem = self.kind(*(getattr(self, name) for name in self.fields))
        return None, range(self.problem.shape[0])
    def _vector(self, values):
        values = torch.as_tensor(values, dtype=torch.float64).clone()
        if values.shape != (self.num_cost,):
            raise ValueError(f"{self.num_cost} numbers must be one-dimensional, got {values.shape}")
        return values
    def setObj(self, c): self._c = self._vector(c)
    def solve(self):
        try:
            z = self.maximizer()(-self.modelSense * self._c)
        except mapgrad.InfeasibleError as error: raise RuntimeError("infeasible") from error
        return z.numpy(), float(self._c @ z)
    def addConstr(self, coefs, rhs):
        row, program, other = self._vector(coefs).numpy(), self.problem.to_ilp(), copy.copy(self)
        other._extra_constrs = (*self._extra_constrs, (row, rhs))
        rows, lower, upper = program.matrix.toarray(), [*program.row_lower, -np.inf], [*program.row_upper, rhs]
        other.problem = mapgrad.IntegerProgram.from_rows(np.vstack([rows, row]), lower, upper)
        return other
    def relax(self):
        if isinstance(self, knapsackModelRel): raise RuntimeError("it is relaxed already")
        other = copy.copy(self)
        other.__class__, other.problem = knapsackModelRel, self.problem.to_ilp().replace(integrality=0)
        return other
    copy = rebuild = partialmethod(copy.deepcopy)
def _paths(grid):
    try:
        return ShortestPathTask(**dict(zip(("height", "width"), grid, strict=True))).problem
    except (TypeError, ValueError) as error: raise ValueError(f"grid {grid!r}: {error}") from error
def _model(kind, *fields, base=_Model, sense=EPO.MINIMIZE):
    return type(kind.__name__, (base,), {"kind": staticmethod(kind), "fields": fields, "modelSense": sense})
shortestPathModel = shortestPathCpModel = _model(_paths, "grid")
knapsackModel = knapsackCpModel = _model(mapgrad.Knapsack, "weights", "capacity", sense=EPO.MAXIMIZE)
knapsackModelRel = _model(mapgrad.Knapsack, "weights", "capacity", base=knapsackModel, sense=EPO.MAXIMIZE)
tspDFJModel = _model(mapgrad.TravelingSalesman, "num_nodes")

def _generator(task, *names):
    def genData(num_data, num_features, *sizes, deg=1, noise_width=0, seed=135, **more):
        require("deg", deg, 1, whole=True)
        require("noise_width", noise_width)
        more |= zip(names, sizes[0] if isinstance(sizes[0], tuple) else sizes, strict=True)
        law = task(**more, features=num_features, degree=deg, noise=noise_width, seed=seed)
        x, c = (each.numpy() for each in law.draw(num_data))
        return (law.problem.weights, x, c) if isinstance(law, KnapsackTask) else (x, c)
    return SimpleNamespace(genData=genData)
shortestpath, tsp = _generator(ShortestPathTask, "height", "width"), _generator(TravelingSalesmanTask, "nodes")
knapsack = _generator(lambda dim=1, **more: KnapsackTask(dimensions=dim, **more), "items")

class optDataset(Dataset):
    __len__ = lambda self: len(self.costs)
    def __init__(self, model, feats, costs):
        self._take(model, feats, costs)
        self.sols, self.objs = self._solved(self.feats, self.costs)
    def _take(self, model, feats, costs):
        if not isinstance(model, optModel): raise TypeError(f"model must be an optModel, got {model!r}")
        if len(feats) != len(costs): raise ValueError("feats and costs must have the same number of instances")
        self.model, self.feats, self.costs = model, *(torch.as_tensor(x, dtype=torch.float32) for x in (feats, costs))
    def _solved(self, feats, costs):
        found = OptDataset(self.model.maximizer(), feats, costs, minimize=is_minimize(self.model))
        return found.states, found.values[:, None]
    def __getitem__(self, index): return self.feats[index], self.costs[index], self.sols[index], self.objs[index]
class optDatasetKNN(optDataset):
    def __init__(self, model, feats, costs, k=10, weight=0.5):
        self._take(model, feats, costs)
        require("k, a positive integer with 1 <= k < num_data,", k, 1, len(feats) - 1, whole=True)
        require("weight", weight, 0, 1)
        self.k, self.weight = k, weight
        near = self._get_knn()
        found = self._solved(self.feats.repeat_interleave(k, dim=0), near.mT.flatten(0, 1))
        self.costs, self.sols, self.objs = near.mean(dim=2), *(each.unflatten(0, (-1, k)).mean(dim=1) for each in found)
    def _get_knn(self):
        feats, costs = torch.as_tensor(self.feats), torch.as_tensor(self.costs)
        places = torch.cdist(feats, feats).fill_diagonal_(torch.inf).topk(self.k, largest=False).indices
        return self.weight * costs[..., None] + (1 - self.weight) * costs[places].mT
def collate_tight_constraints(batch):
    *rest, normals = zip(*batch, strict=True)
    return *map(torch.stack, rest), torch.nn.utils.rnn.pad_sequence(normals, batch_first=True)
class optDatasetConstrs(optDataset):
    collate_fn = staticmethod(collate_tight_constraints)
    def __init__(self, model, feats, costs):
        super().__init__(model, feats, costs)
        cones, unit = Cones(model.problem), np.eye(model.num_cost)
        rows = cones.program.matrix.toarray()
        normals = torch.as_tensor(np.concatenate([rows, -rows, unit, -unit]), dtype=torch.float32)
        self.ctrs = [normals[cones._reached(z)] for z in self.sols.numpy()]
    def __getitem__(self, index): return *super().__getitem__(index), self.ctrs[index]
class optDataLoader(DataLoader):
    def __init__(self, dataset, *args, **named):
        own = {"collate_fn": dataset.collate_fn} if len(args) < 6 and hasattr(dataset, "collate_fn") else {}
        super().__init__(dataset, *args, **own | named)

class sumGammaDistribution:
    def __init__(self, kappa, n_iterations=10, seed=135):
        require("kappa", kappa, strict=True)
        require("n_iterations", n_iterations, 1, whole=True)
        self.law, self.generator = mapgrad.SumOfGamma(kappa, n_iterations), torch.Generator().manual_seed(seed)
    def sample(self, size, *, device=None, dtype=torch.float32):
        drawn = self.law.sample(size, generator=self.generator, dtype=dtype)
        return drawn if device else drawn.numpy()
class _Noise:  # PyEPO's, which is drawn as [B, S, n] and added to costs
    log_prob, log_mgf = mapgrad.Gaussian().log_prob, mapgrad.Gaussian().log_mgf
    def __init__(self, op, draw=None, *, multiplicative=False):
        generator = torch.Generator().manual_seed(op.seed)
        self.draw = draw or (lambda size, **like: torch.randn(size, generator=generator, **like))
        self.sign = 1 if multiplicative else -op.optmodel.modelSense
    def sample(self, shape, *, generator, dtype, device):
        return self.sign * self.draw((shape[1], shape[0], shape[2]), dtype=dtype, device=device).transpose(0, 1)

_COUNT, _SHARE, _MORE = {"low": 1, "whole": True}, {"high": 1}, {x: {"strict": True} for x in ("lambd", "sigma")}
_LIMITS = {"n_samples": _COUNT, "max_iter": _COUNT, "solve_ratio": _SHARE, "inner_ratio": _SHARE, "tol": {}, **_MORE}
class _Op(torch.nn.Module):
    solpool, build = property(lambda self: self.pool.states), None
    alpha = property(lambda self: self.inner.estimator.stats["beta"])
    def __init__(self, optmodel, processes=1, *, solve_ratio=1.0, reduction="mean", dataset=None, seed=135, **options):
        super().__init__()
        if not isinstance(optmodel, optModel): raise TypeError(f"optmodel must be an optModel, got {optmodel!r}")
        self.__dict__ |= self.defaults | options | {"optmodel": optmodel, "solve_ratio": solve_ratio, "seed": seed}
        for name, limits in _LIMITS.items(): require(name, getattr(self, name, 1), **limits)
        self.solver = self.solve = optmodel.maximizer(processes)
        self.how = {"minimize": is_minimize(optmodel), "reduction": reduction}
        if dataset is not None:
            self.pool = StatePool(optmodel.problem)
            self.pool.add(dataset.sols)
        elif solve_ratio < 1 and type(self) is not CaVE: raise TypeError("solve_ratio below 1 needs an optDataset")
        if solve_ratio < 1: self.solve = self._solve_or_pool
        made = self.build() if self.build else None
        is_layer = isinstance(made, mapgrad.Estimator)
        self.inner = mapgrad.MAPLayer(self.solve, made, minimize=is_minimize(optmodel)) if is_layer else made
    def _solve_or_pool(self, theta):
        if torch.rand(()) < self.solve_ratio: self.pool.add(self.solver(theta))
        return self.pool.states[self.pool.best(theta)[1]].to(theta)
    def theta(self, pred): return -pred if is_minimize(self.optmodel) else pred
    def forward(self, pred, *true):
        self.inner.minimize, self.inner.solve_ratio = is_minimize(self.optmodel), self.solve_ratio
        return self.inner(pred, *true[:2])
    def reduced(self, values):
        return values if self.how["reduction"] == "none" else getattr(values, self.how["reduction"])()
def _op(build, **defaults): return type("_Made", (_Op,), {"build": build, "defaults": defaults})
def _perturbed(self, made, *, multiplicative=False, **more):
    how = {"samples": self.n_samples, "temperature": self.sigma, "multiplicative": multiplicative}
    return made(_Noise(self, multiplicative=multiplicative), **how, **more)
def _fenchel_young(self, **more):
    return _perturbed(self, lambda noise, **how: losses.FenchelYoung(self.solve, noise, **how), **more, **self.how)
def _imle(self):
    noise = _Noise(self, (self.distribution or sumGammaDistribution(kappa=5)).sample)
    target = mapgrad.Step(self.lambd) if "lambd" in self.defaults else mapgrad.AdaptiveStep(norm="batch")
    return mapgrad.IMLE(noise, target, samples=self.n_samples, temperature=self.sigma, symmetric=self.two_sides)
_DRAWS, _STEP = {"n_samples": 10, "sigma": 1.0}, {"two_sides": False, "distribution": None}
DBB = blackboxOpt = _op(lambda self: mapgrad.Blackbox(self.lambd), lambd=10)
NID = negativeIdentity = _op(lambda self: mapgrad.StraightThrough())
DPO = perturbedOpt = _op(lambda self: _perturbed(self, mapgrad.Perturbed), **_DRAWS)
DPOMul = perturbedOptMul = _op(lambda self: _perturbed(self, mapgrad.Perturbed, multiplicative=True), **_DRAWS)
IMLE, AIMLE = implicitMLE, adaptiveImplicitMLE = _op(_imle, lambd=10, **_DRAWS, **_STEP), _op(_imle, **_DRAWS, **_STEP)
PFY = perturbedFenchelYoung = _op(_fenchel_young, **_DRAWS)
PFYMul = _op(lambda self: _fenchel_young(self, multiplicative=True), **_DRAWS)
SPOPlus = _op(lambda self: losses.SPOPlus(self.solve, **self.how))
_pg = lambda self: losses.DirectionalGradient(self.solve, width=self.sigma, central=self.two_sides, **self.how)
PG = _op(_pg, sigma=0.1, two_sides=False)
NCE, CMAP, lsLTR, prLTR, ptLTR = (
    _op(lambda self, loss=getattr(losses, name): loss(self.solver, self.pool, **self.how))
    for name in ("NoiseContrastive", "MAPContrastive", "ListwiseRanking", "PairwiseRanking", "PointwiseRanking"))
noiseContrastiveEstimation, listwiseLearningToRank = NCE, lsLTR

class RFWO(_Op):
    defaults = {"lambd": 1.0, "max_iter": 10000, "tol": 1e-6}
    def _nearest(self, theta):
        limits = {"tolerance": max(self.tol, 1e-12), "max_solves": self.max_iter + 1}
        found, solve = nearest(theta.double(), self.solver.solve, None, **limits), self.solver.solve
        return found, lambda g: along_face(g.double(), *found[1:4], solve, **limits).to(theta)
    def _frank_wolfe(self, theta):
        found, used = (near := self._nearest(theta)[0]), near.used[..., None]
        states, mean = (torch.cat([x, torch.ones_like(x[..., :1])], dim=-1) for x in (found.states, found.mean))
        weights = torch.linalg.lstsq((states * used).mT, mean[..., None], driver="gelsd").solution[..., 0] * found.used
        return found.mean.to(theta), found.states.to(theta), weights.to(theta)
    def compute_regularization(self, y): return self.lambd / 2 * y.square().sum(dim=-1)
    def forward(self, pred):
        theta = self.theta(pred) / self.lambd
        found, vjp = self._nearest(theta.detach())
        if theta.requires_grad: theta.register_hook(vjp)
        return found.mean.to(pred) + (theta - theta.detach())
class RFY(RFWO):
    forward, build = _Op.forward, lambda self: losses.FenchelYoung(
        self.solve, losses.Quadratic(), temperature=self.lambd, **self.how)
    def _frank_wolfe(self, theta): return super()._frank_wolfe(theta)[0]
regularizedFrankWolfeOpt, regularizedFrankWolfeFenchelYoung = RFWO, RFY
def _clarabel_project_batch(theta, normals, max_iter):
    rows = zip(theta.detach().double().numpy(), normals.double().numpy(), strict=True)
    return torch.as_tensor(np.stack([_interior(max_iter)(row, cone[cone.any(axis=1)]) for row, cone in rows])).to(theta)
class CaVE(_Op):
    defaults, _sign = {"max_iter": 3, "inner_ratio": 0.2}, property(lambda self: -self.optmodel.modelSense)
    def forward(self, pred, normals):
        projected = _clarabel_project_batch(self.theta(pred), normals, self.max_iter)
        return self.reduced(1 - torch.cosine_similarity(self.theta(pred), projected))

def _solve_batch(costs, optmodel, processes, pool):
    z = optmodel.maximizer()(-optmodel.modelSense * costs)
    return z, (costs * z).sum(dim=1)
def _solve_or_cache(costs, module): return _solve_batch(costs, module.optmodel, 1, None)
def _pool(*states):  # of any numbers
    pool = StatePool(mapgrad.IntegerProgram(lower=np.full(states[-1].shape[1], -9.0), upper=9.0))
    for each in states: pool.add((each * 1e4).round() / 1e4)
    return pool
def _cache_in_pass(costs, optmodel, states):
    sign = -1 if is_minimize(optmodel) else 1
    value, place = _pool(states).best(sign * costs, states)
    return states[place], sign * value, states
def _update_solution_pool(z, states): return _pool(*(() if states is None else (states,)), z).states
def _check_sol(costs, z, values): assert torch.allclose((costs * z).sum(dim=1), values.flatten(), rtol=1e-3)

def _checked(pred, true, width=None, ndim=2):
    try:
        pred, true = (torch.as_tensor(x if isinstance(x, torch.Tensor) else np.asarray(x)) for x in (pred, true))
    except TypeError as error: raise ValueError("costs must be numerical") from error
    for is_wrong, what in (
        (pred.is_complex() or true.is_complex(), "numerical"),
        ({pred.ndim, true.ndim} != {ndim}, ("one-dimensional", "two-dimensional")[ndim - 1]),
        (pred.shape != true.shape, "of one shape: that of the prediction does not match"),
        (len(pred) == 0, "rows, and must not be empty"),
        (width not in (None, pred.shape[-1]), "as many as num_cost"),
        (not (pred.isfinite().all() and true.isfinite().all()), "finite")):
        if is_wrong: raise ValueError(f"costs must be {what}")
    return pred.double(), true.double()
def _predicted(predmodel, loader, width=None):
    was_training, _ = predmodel.training, predmodel.eval()
    try:
        with torch.no_grad():
            batches = [(*_checked(predmodel(x), c, width), *more[:2]) for x, c, *more in loader]
    finally: predmodel.train(was_training)
    return [torch.cat(each) for each in zip(*batches, strict=True)]
def MSE(predmodel, loader): return torch.nn.functional.mse_loss(*_predicted(predmodel, loader)[:2]).item()
def regret(predmodel, optmodel, loader, processes=1, reduction="normalized"):
    if reduction not in ("normalized", "sum", "mean", "none"): raise ValueError(f"there is no reduction {reduction!r}")
    if not isinstance(predmodel, torch.nn.Module):
        function, predmodel = predmodel, torch.nn.Identity()
        predmodel.forward = lambda x: torch.as_tensor(function(x.numpy()))
    pred, true, z, _ = _predicted(predmodel, loader, optmodel.num_cost)
    if reduction == "normalized": return SPOError(pred, true, optmodel, workers=processes)
    lost = losses.regret(optmodel.maximizer(processes), pred, true, z.double(), minimize=is_minimize(optmodel))
    return lost.numpy() if reduction == "none" else getattr(lost, reduction)().item()
def SPOError(pred, true, optmodel, which=losses.normalized_regret, workers=1):
    pred, true = _checked(pred, true, optmodel.num_cost)
    return which(optmodel.maximizer(workers), pred, true, minimize=is_minimize(optmodel)).item()
def makeSkScorer(model): return make_scorer(lambda c, pred: SPOError(pred, c, model), greater_is_better=False)
def calRegret(optmodel, pred, true, true_obj):
    require("true_obj", true_obj, -math.inf)
    pred, true = _checked(pred, true, optmodel.num_cost, ndim=1)
    return SPOError(pred[None], true[None], optmodel, losses.regret)
def calUnambRegret(optmodel, pred, true, true_obj, tolerance=1e-5, max_iter=10):
    require("tolerance", tolerance, strict=True)
    require("max_iter", max_iter, -math.inf, whole=True)
    if max_iter < 1: raise RuntimeError("Max iterations")
    require("true_obj", true_obj, -math.inf)
    (pred, true), sense = _checked(pred, true, optmodel.num_cost, ndim=1), optmodel.modelSense
    optmodel.setObj(pred)
    worst = optmodel.addConstr(sense * pred, sense * optmodel.solve()[1] + tolerance)
    worst.setObj(-true)
    return float(sense * (true.numpy() @ worst.solve()[0] - true_obj))
def unambRegret(predmodel, optmodel, loader, tolerance=1e-5, max_iter=10):
    if loader is None: return calUnambRegret(None, None, None, None, tolerance, max_iter)
    pred, true, _, z = _predicted(predmodel, loader, optmodel.num_cost)
    rows = zip(pred, true, z.flatten().tolist(), strict=True)
    return sum(calUnambRegret(optmodel, *row, tolerance, max_iter) for row in rows) / z.abs().sum().item()
