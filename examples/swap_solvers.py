"""One problem, every solver that takes it, swapped by name: their answers, gradients and speed side by side.

Your own solver joins them under a name of its own, here a textbook Dijkstra.

pip install 'mapgrad[all]' && python swap_solvers.py
"""

import heapq
import time

import numpy as np
import torch

import mapgrad

MOVES = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


class HeapDijkstra(mapgrad.InstanceSolver):
    """Solves one row at a time; mapgrad makes the batches."""

    def solve(self, state, theta, request):
        goal, cost, came_from = self.problem.goal, -theta, {}
        queue = [(0.0, self.problem.start, None)]
        while goal not in came_from:
            minutes, cell, previous = heapq.heappop(queue)
            if cell not in came_from:
                came_from[cell] = previous
                for down, right in MOVES:
                    row, column = cell[0] + down, cell[1] + right
                    if 0 <= row < self.problem.height and 0 <= column < self.problem.width:
                        heapq.heappush(queue, (minutes + cost[row, column], (row, column), cell))
        z, cell = np.zeros_like(theta), goal
        while cell is not None:
            z[cell] = 1
            cell = came_from[cell]
        return z


class Plugin:
    @mapgrad.hookimpl
    def mapgrad_solvers(self):
        eight_neighbors = lambda problem: None if problem.neighbors == 8 else "it only knows 8 neighbors"  # noqa: E731
        return [mapgrad.SolverSpec("heap", HeapDijkstra, (mapgrad.GridShortestPath,), supports=eight_neighbors)]


def main():
    mapgrad.register(Plugin(), "mine")
    problem = mapgrad.GridShortestPath(12, 12)
    torch.manual_seed(0)
    costs = torch.rand(16, *problem.shape, dtype=torch.float64)
    wanted = mapgrad.get_solver("auto", problem)(-torch.rand_like(costs))

    print(f"{problem}, {len(costs)} rows")
    objectives, gradients = [], []
    for info in mapgrad.list_solvers(problem):
        if info.status != "ok":
            print(f"  {info.name:24} {info.status}: {info.detail}")
            continue
        try:
            solver = mapgrad.get_solver(info.name, problem)
        except mapgrad.UnsupportedProblemError:  # a diagram shows its size when it is built
            print(f"  {info.name:24} isn't for a problem of this size")
            continue
        with solver:
            solver(-costs[:1])  # the first call builds the native model
            started = time.perf_counter()
            objectives.append(solver.solve(-costs).objective)
            microseconds = (time.perf_counter() - started) / len(costs) * 1e6

            predicted = costs.clone().requires_grad_()
            routes = mapgrad.MAPLayer(solver, mapgrad.IMLE(), minimize=True)(predicted)
            loss = (routes - wanted).square().sum((1, 2)).mean()
            loss.backward()
            gradients.append(predicted.grad)
        print(f"  {info.name:24} {microseconds:6.0f} µs a row   loss {loss:.4f}")

    for name, values in (("objectives", objectives), ("gradients", gradients)):
        print(f"{name} differ by {max(float((each - values[0]).abs().max()) for each in values):.1e} at most")
    assert len(objectives) >= 2
    assert all(torch.allclose(each, objectives[0], rtol=0, atol=1e-9) for each in objectives)


if __name__ == "__main__":
    main()
