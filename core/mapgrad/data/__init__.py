"""Data sets of the predict-then-optimise kind: features, costs, and the optimal states of the costs.

Example:
    >>> import torch, mapgrad
    >>> from mapgrad.data import OptDataset, ShortestPathTask
    >>> task = ShortestPathTask(height=5, width=5, features=5, degree=4, noise=0.5, seed=0)
    >>> solver = mapgrad.get_solver("auto", task.problem)
    >>> train = OptDataset(solver, *task.draw(100, "train"), minimize=task.minimize)
    >>> test = OptDataset(solver, *task.draw(50, "test"), minimize=task.minimize)
    >>> batch = next(iter(torch.utils.data.DataLoader(train, batch_size=20)))
    >>> batch.features.shape, batch.costs.shape, batch.states.shape, batch.values.shape
    (torch.Size([20, 5]), torch.Size([20, 40]), torch.Size([20, 40]), torch.Size([20]))
    >>> torch.allclose((batch.costs * batch.states).sum(dim=1), batch.values)
    True
"""

from mapgrad.data._dataset import Examples, OptDataset
from mapgrad.data._neighbors import neighbor_costs
from mapgrad.data._tasks import (
    KnapsackTask,
    Part,
    PolynomialTask,
    PortfolioTask,
    ShortestPathTask,
    TravelingSalesmanTask,
)

__all__ = [
    "Examples",
    "KnapsackTask",
    "OptDataset",
    "Part",
    "PolynomialTask",
    "PortfolioTask",
    "ShortestPathTask",
    "TravelingSalesmanTask",
    "neighbor_costs",
]
