"""A network learns to read terrain from routes alone: the core of `mapgrad demo`, on one page.

The demo also turns and mirrors the land, averages the network over steps, and takes the best epoch by validation.

pip install 'mapgrad[networkx,plot]' && python learn_terrain.py
"""

import argparse

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from matplotlib.colors import LightSource
from torch import nn

import mapgrad

CELLS, PIXELS = 12, 4  # a crop has 12 × 12 cells of 4 × 4 pixels
SIDE = CELLS * PIXELS


def terrain(rows):
    """Some rows of a map: what one sees of the land (hill-shade), its heights (metres) and its slopes (degrees)."""
    with get_sample_data("jacksboro_fault_dem.npz") as model:
        metres, spacing = model["elevation"][rows].astype(float), 111_195 * float(model["dy"])
    image = LightSource(azdeg=315, altdeg=45).hillshade(metres, dx=spacing, dy=spacing)
    slope = np.degrees(np.arctan(np.hypot(*np.gradient(metres, spacing))))
    return image, metres, slope


def crops(rows, count, rng):
    """Cut crops at random from some rows of the map: noisy images, and the minutes that each cell costs."""
    image, metres, slope = terrain(rows)
    images, costs = [], []
    for _ in range(count):
        top, left = (rng.integers(edge - SIDE + 1) for edge in image.shape)
        window = (slice(top, top + SIDE), slice(left, left + SIDE))
        height, steep = (part[window].reshape(CELLS, PIXELS, CELLS, PIXELS).mean((1, 3)) for part in (metres, slope))
        images.append(image[window] + 0.03 * rng.standard_normal((SIDE, SIDE)))
        costs.append(5 * 2 ** ((height - height.min()) / 100) * (1 + steep / 10))
    return torch.tensor(np.array(images)[:, None]).float(), torch.tensor(np.array(costs)).float()


class CostNetwork(nn.Sequential):
    """From an image to positive costs of mean one."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 16, 5, stride=2, padding=2, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(32, 1, 1),
            nn.Flatten(),
            nn.Softmax(dim=1),
            nn.Unflatten(1, (CELLS, CELLS)),
        )

    def forward(self, images):
        return CELLS**2 * super().forward((images - 0.6) / 0.15)


def regret(routes, costs, experts):
    """Return how much longer the routes take than the expert's, on average, as a share."""
    taken, best = ((each * costs).sum((1, 2)) for each in (routes, experts))
    return (taken / best - 1).mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--crops", type=int, default=4000)
    parser.add_argument("--solver", default="networkx.shortest_path")
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    images, costs = crops(slice(0, 264), arguments.crops, rng)
    test_images, test_costs = crops(slice(264, 344), 300, rng)  # not one pixel of the others

    solver = mapgrad.get_solver(arguments.solver, mapgrad.GridShortestPath(CELLS, CELLS))
    experts, test_experts = solver(-costs), solver(-test_costs)  # solvers maximise ⟨θ, z⟩, so θ = -costs

    network = CostNetwork()
    # to both sides: without noise, IMLE() would step to one
    estimator = mapgrad.IMLE(target=mapgrad.RelativeStep(0.5), symmetric=True)
    layer = mapgrad.MAPLayer(solver, estimator, minimize=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
    steps = arguments.epochs * -(-arguments.crops // 32)
    # begins slowly: a first step of full length may leave a softmax that no later one comes back from
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.1)

    straight = torch.eye(CELLS).expand(len(test_images), CELLS, CELLS)
    print(f"straight line     regret {regret(straight, test_costs, test_experts):.1%}")
    for epoch in range(arguments.epochs):
        for chosen in torch.randperm(len(images)).split(32):
            routes = layer(network(images[chosen]))
            loss = (routes - experts[chosen]).square().sum((1, 2)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            routes = layer(network(test_images))
        print(f"after epoch {epoch + 1}     regret {regret(routes, test_costs, test_experts):.1%}")


if __name__ == "__main__":
    main()
