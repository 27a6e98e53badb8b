"""One problem, every solver that takes it, by name: they agree, and a layer works with each.

pip install 'mapgrad[all]' && python swap_solvers.py
"""

import time

import torch

import mapgrad

PROBLEMS = [
    mapgrad.KSubset(20, 5),
    mapgrad.GridShortestPath(8, 8),
    mapgrad.Assignment(8),
    mapgrad.SpanningTree(8, [(i, j) for i in range(8) for j in range(i)]),
    mapgrad.Matching(8, [(i, j) for i in range(8) for j in range(i)], perfect=True),
]


def main():
    torch.manual_seed(0)
    for problem in PROBLEMS:
        theta = -torch.rand(32, *problem.shape)
        weights = torch.randn(problem.shape)
        print(problem)
        objectives = []
        for info in mapgrad.list_solvers(problem):
            if info.status != "ok":
                print(f"  {info.name:24} {info.status}: {info.detail}")
                continue
            with mapgrad.get_solver(info.name, problem) as solver:
                solver(theta[:1])  # the first call builds the native model
                started = time.perf_counter()
                solutions = solver.solve(theta)
                microseconds = (time.perf_counter() - started) / len(theta) * 1e6
                leaf = theta.clone().requires_grad_()
                (mapgrad.MAPLayer(solver, mapgrad.IMLE(noise=None))(leaf) * weights).sum().backward()
            objectives.append(solutions.objective)
            print(f"  {info.name:24} {microseconds:8.0f} µs a row   ‖gradient‖ {leaf.grad.norm():.4f}")
        spread = max(float((other - objectives[0]).abs().max()) for other in objectives)
        assert spread < 1e-6, f"objectives differ by {spread}"
        print(f"  {len(objectives)} solvers agree, 'auto' takes {mapgrad.get_solver('auto', problem).name}\n")


if __name__ == "__main__":
    main()
