"""An existing CP-SAT model inside a network: the order of a paint shop's jobs, learnt from a dispatcher's orders.

The model knows which orders the shop can run. How urgent a job is nobody wrote down: a network says it, from the job's
data, so that the model's orders become the dispatcher's.

pip install 'mapgrad[all]' && python from_cp_sat_model.py
"""

import torch
from ortools.sat.python import cp_model

import mapgrad
import mapgrad_ortools

# The model as it was: every job has a slot of its own.
JOBS = 6
model = cp_model.CpModel()
slot = [model.new_int_var(0, JOBS - 1, f"slot of job {job}") for job in range(JOBS)]
model.add_all_different(slot)
model.add(slot[0] < slot[4])  # a primer before its topcoat
model.add(slot[3] == slot[2] + 1)  # the same colour twice, one after the other

# The model as a layer: z holds the slots, and where ⟨θ, z⟩ is largest the jobs with the largest θ come last.
problem = mapgrad_ortools.from_cp_model(model, slot)
solver = mapgrad.get_solver("ortools.cp_sat", problem)
layer = mapgrad.MAPLayer(solver, mapgrad.IMLE())


def main(epochs: int = 10) -> tuple[float, float]:
    # Days of six jobs with four features each, and the dispatcher's orders, made up by a rule unknown to the network.
    torch.manual_seed(0)
    jobs = torch.randn(200, JOBS, 4)
    orders = solver(jobs @ torch.randn(4))
    network = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten())

    def share_of_equal_orders() -> float:
        """Return on how many of the days that aren't trained on the order is the dispatcher's."""
        return (solver(network(jobs[100:])) == orders[100:]).all(dim=1).float().mean().item()

    before = share_of_equal_orders()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(epochs):
        for some in torch.randperm(100).split(20):
            loss = (layer(network(jobs[some])) - orders[some]).square().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = share_of_equal_orders()
    print(f"{solver.name}: {before:.0%} of the new days get the dispatcher's order, trained {after:.0%}")
    return before, after


if __name__ == "__main__":
    main()
