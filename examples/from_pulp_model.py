"""An existing PuLP model inside a network: a bakery's plan for the day, learnt from the plans its baker made.

The model knows the ovens and what it costs to set up for a product. What a batch earns on a day isn't written down
anywhere: a network says it, from the weather and the weekday, so that the model's plans become the baker's.

pip install 'mapgrad[all]' && python from_pulp_model.py
"""

import pulp
import torch

import mapgrad
import mapgrad_pulp

# The model as it was: batches of each product, and whether the bakery sets up for it at all.
oven_hours = {"bread": 2.0, "rolls": 1.0, "cake": 3.0, "tarts": 1.5, "buns": 1.0}
products = list(oven_hours)
plan = pulp.LpProblem("bakery", pulp.LpMaximize)
batches = plan.add_variable_dicts("batches", products, 0, 3, cat="Integer")
set_up = plan.add_variable_dicts("set_up", products, cat="Binary")
plan += -0.5 * pulp.lpSum(set_up[p] for p in products)
plan += pulp.lpSum(oven_hours[p] * batches[p] for p in products) <= 10
plan += pulp.lpSum(set_up[p] for p in products) <= 3
for p in products:
    plan += batches[p] <= 3 * set_up[p]

# The model as a layer: θ prices the batches, in the dictionary's order; what setting up costs stays as it was.
problem = mapgrad_pulp.from_model(plan, batches)
solver = mapgrad.get_solver("auto", problem)  # or "pulp.cbc", "highs", "ortools.cp_sat", …
layer = mapgrad.MAPLayer(solver, mapgrad.IMLE())

# What θ doesn't price is among all variables of the program, in the model's order. (Not list.index: PuLP's == makes
# a constraint, which counts as true.)
column_of = {variable.name: column for column, variable in enumerate(plan.variables())}
set_up_columns = [column_of[set_up[p].name] for p in products]


def products_set_up(solutions: mapgrad.Solutions) -> torch.Tensor:
    """Return for which products the bakery sets up, bool [*batch, 5]."""
    return solutions.variables[..., set_up_columns].round().bool()


def main(epochs: int = 10) -> tuple[float, float]:
    # Days and the baker's plans for them, made up here by a rule that the network doesn't see.
    torch.manual_seed(0)
    days = torch.randn(200, 4)
    plans = solver(torch.tensor([2.0, 1.0, 3.0, 1.5, 1.0]) + days @ torch.randn(4, 5))
    network = torch.nn.Linear(4, 5)

    def difference() -> float:
        """Return by how many batches a plan differs from the baker's, on days that aren't trained on."""
        return (solver(network(days[100:])) - plans[100:]).abs().sum(dim=1).mean().item()

    before = difference()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(epochs):
        for some in torch.randperm(100).split(20):
            loss = (layer(network(days[some])) - plans[some]).square().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = difference()
    print(f"{solver.name}: a new day's plan differs from the baker's by {before:.2f} batches, trained by {after:.2f}")
    chosen = products_set_up(solver.solve(network(days[-1]))).tolist()
    names = [product for product, is_chosen in zip(products, chosen, strict=True) if is_chosen]
    print(f"on the last day it sets up for {', '.join(names)}")
    return before, after


if __name__ == "__main__":
    main()
