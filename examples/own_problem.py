"""A feasible set of one's own, solved by five engines and a solver of one's own, inside a network.

Masts that are close to each other mustn't send on the same frequency: those that do are an independent set. What a mast
is worth on a day isn't known; a network learns it from the choices of somebody who knew.

pip install 'mapgrad[all]' && python own_problem.py
"""

import sys
import time

import numpy as np
import torch

import mapgrad


class IndependentSet(mapgrad.Problem):
    """All sets of nodes without two that an edge joins, as 0/1 vectors over the nodes.

    Args:
        num_nodes: Number of nodes.
        edges: [E, 2], two different nodes each.
    """

    def __init__(self, num_nodes, edges):
        self.num_nodes = num_nodes
        self.edges = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
        ends = self.edges.T
        if (ends < 0).any() or (ends >= num_nodes).any() or (ends[0] == ends[1]).any():
            raise mapgrad.ProblemError(f"edges must join different nodes from 0 to {num_nodes - 1}, got {edges!r}")

    @property
    def shape(self):
        """(num_nodes,), one entry for each node."""
        return (self.num_nodes,)

    @property
    def kappa(self):
        """As many nodes as a random independent set has at least, by Turán."""
        return self.num_nodes / (1 + 2 * len(self.edges) / self.num_nodes)

    def are_states(self, z):
        """Tell for each row of z [N, num_nodes] whether at most one end of each edge is chosen."""
        return (z[:, self.edges].sum(axis=2) <= 1).all(axis=1)

    def to_ilp(self):
        """Return the program with a row for each edge."""
        rows = np.zeros((len(self.edges), self.num_nodes))
        np.put_along_axis(rows, self.edges, 1, axis=1)
        return mapgrad.IntegerProgram(A_ub=rows, b_ub=np.ones(len(rows)))


class Branching(mapgrad.InstanceSolver):
    """Takes the node of the largest θ that is left, or leaves it out, while what is left can still win."""

    def init(self):
        """Return each node's neighbours."""
        neighbours = [set() for _ in range(self.problem.num_nodes)]
        for one, other in self.problem.edges.tolist():
            neighbours[one].add(other)
            neighbours[other].add(one)
        return neighbours

    def solve(self, state, theta, request):
        """Return the set of the largest ⟨θ, z⟩."""
        best, chosen = 0.0, ()
        stack = [(0.0, (), [node for node in theta.argsort()[::-1].tolist() if theta[node] > 0])]
        while stack:
            value, nodes, left = stack.pop()
            if value > best:
                best, chosen = value, nodes
            if left and value + theta[left].sum() > best:
                node, *rest = left
                stack.append((value, nodes, rest))
                apart = [other for other in rest if other not in state[node]]
                stack.append((value + theta[node], (*nodes, node), apart))
        z = np.zeros(theta.shape)
        z[list(chosen)] = 1
        return z


@mapgrad.hookimpl
def mapgrad_solvers():
    """Return this plugin's one solver."""
    return [
        mapgrad.SolverSpec(
            name="independent_set",
            factory=Branching,
            accepts=(IndependentSet,),
            cost=lambda problem: 1e-5 * 1.2**problem.num_nodes,  # as measured
        )
    ]


def main(epochs: int = 20) -> tuple[float, float]:
    mapgrad.register(sys.modules[__name__], "independent_set")
    places = np.random.default_rng(0).random((12, 2))
    distances = np.hypot(*(places[:, None] - places).T)
    problem = IndependentSet(12, np.argwhere(np.triu(distances < 0.4, 1)))
    mapgrad.testing.check_problem(problem)

    torch.manual_seed(0)
    days = torch.randn(200, 4)
    worth = days @ torch.randn(4, 12)
    for name in ("highs", "scipy.milp", "ortools.mip", "ortools.cp_sat", "pulp.cbc", "auto"):
        solver = mapgrad.get_solver(name, problem)
        solver(worth[:1])  # the first call builds the native model
        started = time.perf_counter()
        value = solver.solve(worth[:10]).objective.mean()
        print(f"  {solver.name:16} {value:.6f}   {(time.perf_counter() - started) / 10 * 1e6:7.0f} µs a row")

    chosen = solver(worth)
    layer, network = mapgrad.MAPLayer(solver, mapgrad.IMLE()), torch.nn.Linear(4, 12)

    def regret() -> float:
        """Return what is lost on days that aren't trained on, as a share of what could be had."""
        return 1 - ((solver(network(days[100:])) * worth[100:]).sum() / (chosen * worth)[100:].sum()).item()

    before = regret()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(epochs):
        for some in torch.randperm(100).split(20):
            loss = (layer(network(days[some])) - chosen[some]).square().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = regret()
    print(
        f"on new days the untrained network loses {before:.0%} of what the masts are worth, the trained one {after:.0%}"
    )
    return before, after


if __name__ == "__main__":
    main()
