"""Which depots open: a network predicts what deliveries cost, and the program's other variables say what that means.

θ prices who delivers to whom. To open a depot has a price of its own, and whether it opens isn't part of z: the answers
hold it among all variables of the program.

pip install 'mapgrad[all]' && python facility_location.py
"""

import numpy as np
import torch

import mapgrad

CUSTOMERS, DEPOTS = 6, 4
OPENING = [1.0, 0.8, 1.2, 0.9]

# x[c, d]: depot d delivers to customer c, priced by θ; after them y[d]: depot d opens, at its price
deliveries = CUSTOMERS * DEPOTS
to_customer = np.kron(np.eye(CUSTOMERS), np.ones(DEPOTS))
of_depot = np.kron(np.ones((CUSTOMERS, 1)), np.eye(DEPOTS))
problem = mapgrad.IntegerProgram(
    A_ub=np.hstack([np.eye(deliveries), -of_depot]),  # only an open depot delivers
    b_ub=np.zeros(deliveries),
    A_eq=np.hstack([to_customer, np.zeros((CUSTOMERS, DEPOTS))]),  # each customer gets one delivery
    b_eq=np.ones(CUSTOMERS),
    decision=range(deliveries),
    fixed=[-price for price in OPENING],
    shape=(CUSTOMERS, DEPOTS),
)
solver = mapgrad.get_solver("auto", problem)
layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(), minimize=True)


def depots(solutions: mapgrad.Solutions) -> torch.Tensor:
    """Return which depots open, bool [*batch, DEPOTS]."""
    return solutions.variables[..., torch.tensor(problem.others)].round().bool()


def main(epochs: int = 20) -> tuple[float, float]:
    # Days with their traffic, and deliveries that a planner chose who knew what they would cost.
    torch.manual_seed(0)
    days = torch.randn(160, 3)
    costs = (days @ torch.randn(3, deliveries)).exp().unflatten(1, problem.shape)
    planned = solver.solve(-costs)
    network = torch.nn.Sequential(torch.nn.Linear(3, deliveries), torch.nn.Unflatten(1, problem.shape))

    def share() -> float:
        """Return on how many of the new days exactly the planner's depots open."""
        layer.eval()(network(days[80:]))
        return (depots(layer.last) == depots(planned)[80:]).all(dim=1).float().mean().item()

    before = share()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(epochs):
        for some in torch.randperm(80).split(20):
            loss = (layer.train()(network(days[some])) - planned.z[some]).square().sum((1, 2)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = share()
    for day in range(80, 83):
        print(
            f"day {day}: depots {depots(planned)[day].nonzero().flatten().tolist()} open, "
            f"the network opens {depots(layer.last)[day - 80].nonzero().flatten().tolist()}"
        )
    print(f"the planner's depots open on {before:.0%} of the new days, trained on {after:.0%}")
    return before, after


if __name__ == "__main__":
    main()
