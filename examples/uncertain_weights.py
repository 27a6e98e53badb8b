"""A knapsack whose weights are predicted: learning from what a packing costs, instead of from the weights.

Whoever packs sees features of the items' weights, never the weights themselves, and pays for what is too heavy in the
end. Two-stage learning fits the weights by least squares, which takes an overload for as bad as an empty place. The
score function's gradient needs nothing but the cost of packings: weights are drawn around the prediction, a knapsack is
solved for each draw, and draws that cost little are made more likely (Silvestri et al., arXiv 2307.05213).

pip install 'mapgrad[highs]' && python uncertain_weights.py
"""

import copy

import torch
from torch import nn

import mapgrad
from mapgrad.distribution import RandomProgram, floored_normal

ITEMS, FEATURES, CAPACITY, OVERLOAD = 8, 4, 25.0, 10.0
solver = mapgrad.get_solver("highs", None)  # each draw has a knapsack of its own


def data(seed):
    """What items are worth, and features and weights: 40 rows to train on, 40 to choose settings by, 100 to test."""
    generator = torch.Generator().manual_seed(seed)
    values = 3 + 4 * torch.rand(ITEMS, generator=generator)
    mixture = 0.4 * torch.randn(FEATURES, ITEMS, generator=generator) / FEATURES**0.5
    features = torch.randn(180, FEATURES, generator=generator)
    weights = (1.4 + features @ mixture + 0.5 * torch.randn(180, ITEMS, generator=generator)).exp()
    return values, [*zip(features.split((40, 40, 100)), weights.split((40, 40, 100)), strict=True)]


def cost(packed, weights, values):
    """Return what is lost with a packing, [..., ITEMS] of each: what isn't worth, and each unit that is too heavy."""
    return OVERLOAD * ((packed * weights).sum(-1) - CAPACITY).clamp(min=0) - (packed * values).sum(-1)


def law(network, raw, features, values):
    """Return the law of the best packing, where weights are normal around what the network predicts."""
    weights = floored_normal(network(features), raw, floor=0.3)
    return RandomProgram(
        solver,
        weights,
        theta=values.expand(len(features), ITEMS),
        # weights below zero are no knapsack: such a draw packs nothing, which is its recourse
        program=lambda drawn, row: (
            mapgrad.IntegerProgram(A_ub=[drawn], b_ub=[CAPACITY]) if (drawn >= 0).all() else None
        ),
    )


def mean_cost(network, rows, values):
    """Return what packing by the predicted weights costs."""
    features, weights = rows
    with torch.no_grad():
        packings = law(network, torch.zeros(ITEMS), features, values)
        return cost(packings.solve(packings.parameters.mean).z, weights, values).mean().item()


def best_of(runs):
    """Return the network that costs least on the rows to choose by."""
    return min(runs, key=lambda run: run[0])[1]


def two_stage(values, train, chosen):
    """Train networks by least squares; yield their cost and a copy, now and then."""
    features, weights = train
    for rate in (0.03, 0.1):
        network = nn.Sequential(nn.Linear(FEATURES, ITEMS), nn.Softplus())
        network[0].bias.data += weights.mean(0)
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        for step in range(1, 101):
            loss = (network(features) - weights).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 50 == 0:
                yield mean_cost(network, chosen, values), copy.deepcopy(network)


def by_costs(begun, values, train, chosen):
    """Train networks further by what packings cost; yield their cost and a copy, now and then."""
    features, weights = train
    yield mean_cost(begun, chosen, values), begun
    for rate in (0.03, 0.1):
        network, raw = copy.deepcopy(begun), torch.zeros(ITEMS, requires_grad=True)
        optimizer = torch.optim.Adam([*network.parameters(), raw], lr=rate)
        for epoch in range(1, 5):
            for some in torch.randperm(len(features)).split(20):
                drawn = law(network, raw, features[some], values)
                true = weights[some]
                loss = drawn.expectation(lambda z, _, true=true: cost(z, true, values), samples=3, recourse=0.0).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if epoch % 2 == 0:
                yield mean_cost(network, chosen, values), copy.deepcopy(network)


def main(seeds=3):
    """Print and return the test costs of both, one pair a seed."""
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        values, (train, chosen, test) = data(seed)
        fitted = best_of(two_stage(values, train, chosen))
        learnt = best_of(by_costs(fitted, values, train, chosen))
        found.append((mean_cost(fitted, test, values), mean_cost(learnt, test, values)))
        print(f"seed {seed}: a packing costs {found[-1][0]:.2f} by least squares, {found[-1][1]:.2f} by its own cost")
    return found


if __name__ == "__main__":
    main()
