"""PuLP's models as problems, of either major version: what θ prices, what stays, what is refused, training."""

import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pulp
import pytest
import torch

import mapgrad
import mapgrad_pulp


def shop(sense: int = pulp.LpMaximize) -> tuple[pulp.LpProblem, list[list[pulp.LpVariable]]]:
    """Open shops and sell there at most what is delivered: each delivery costs 0.5, the first shop earns 7."""
    model = pulp.LpProblem("shop", sense)
    opened = [[model.add_variable(f"open_{i}_{j}", cat="Binary") for j in range(3)] for i in range(2)]
    delivered = model.add_variable("delivered", 0, 4, "Integer")
    spare = model.add_variable("spare", None, 2.5)
    model += pulp.lpSum(opened[0]) + pulp.lpSum(opened[1]) - delivered <= 0
    model += pulp.lpSum(opened[0]) + 2 >= 3
    model += spare - delivered == -1
    model += (-0.5 if sense == pulp.LpMaximize else 0.5) * delivered + 7 * opened[0][0] + 100
    return model, opened


def test_the_given_variables_are_priced_in_their_order_and_the_objective_keeps_the_others() -> None:
    model, opened = shop()
    program = mapgrad_pulp.from_model(model, [opened[1], opened[0]])
    names = [variable.name for variable in model.variables()]
    assert program.shape == (2, 3)
    assert [names[column] for column in program.decision] == [f"open_{i}_{j}" for i in (1, 0) for j in range(3)]
    assert dict(zip([names[column] for column in program.others], program.fixed, strict=True)) == {
        "delivered": -0.5,
        "spare": 0,
    }
    at = {name: column for column, name in enumerate(names)}
    assert program.integrality[at["delivered"]]
    assert not program.integrality[at["spare"]]
    assert (program.lower[at["spare"]], program.upper[at["spare"]]) == (-np.inf, 2.5)
    assert (program.lower[at["delivered"]], program.upper[at["delivered"]]) == (0, 4)
    assert program.matrix.shape == (3, 8)
    assert program.matrix.toarray()[1].sum() == 3
    assert program.row_lower.tolist() == [-np.inf, 1, -1]
    assert program.row_upper.tolist() == [0, np.inf, -1]


def test_what_a_model_minimises_counts_as_a_loss() -> None:
    program, minimised = (mapgrad_pulp.from_model(*shop(sense)) for sense in (pulp.LpMaximize, pulp.LpMinimize))
    assert program == minimised


def test_any_nested_shape_will_do() -> None:
    model, opened = shop()
    expected = mapgrad_pulp.from_model(model, opened)
    rows = {"first": opened[0], "second": opened[1]}
    for variables in (
        tuple(map(tuple, opened)),
        np.array(opened, dtype=object),
        rows,
        {name: dict(enumerate(row)) for name, row in rows.items()},
        (row for row in opened),
    ):
        assert mapgrad_pulp.from_model(model, variables) == expected
    flat = mapgrad_pulp.from_model(model, {(i, j): opened[i][j] for i in (1, 0) for j in range(3)})
    assert flat.shape == (6,)
    assert flat.decision.tolist() == [*expected.decision[3:], *expected.decision[:3]]


def test_a_model_without_objective_prices_what_theta_does() -> None:
    model = pulp.LpProblem("plain")
    x = [model.add_variable(f"x{i}", 0, 1, "Integer") for i in range(3)]
    model += x[0] + x[1] + x[2] <= 1
    program = mapgrad_pulp.from_model(model, x[:2])
    assert program.fixed.tolist() == [0]
    assert mapgrad.get_solver("highs", program)(torch.tensor([[-1.0, 2.0], [-1.0, -2.0]])).tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize("solver", ["highs", "pulp.cbc", "pulp.highs"])
def test_solvers_weigh_what_theta_does_not_price(solver: str) -> None:
    program = mapgrad_pulp.from_model(*shop())
    theta = torch.tensor([[[2.0, -1.0, -1.0], [0.75, 0.25, -1.0]], [[-3.0, -2.0, -4.0], [0.25, 0.25, 0.25]]])
    solutions = mapgrad.get_solver(solver, program).solve(theta)
    assert solutions.z.tolist() == [[[1, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 0, 0]]]
    assert solutions.objective.tolist() == pytest.approx([2.75 - 1, -2 - 0.5])


def test_the_model_is_left_as_it_was_and_may_change() -> None:
    model, opened = shop()
    before = str(model)
    program = mapgrad_pulp.from_model(model, opened)
    assert str(model) == before
    digest = program.digest
    model += pulp.lpSum(opened[0]) <= 2
    assert program.digest == digest
    assert mapgrad_pulp.from_model(model, opened) != program


def test_what_is_no_variable_of_the_model_is_refused() -> None:
    model, opened = shop()
    other, others = shop()
    other.name = "other"
    with pytest.raises(mapgrad.ProblemError, match=r"variable open_0_0 isn't in model 'shop': give variables of"):
        mapgrad_pulp.from_model(model, others)
    with pytest.raises(
        mapgrad.ProblemError, match=r"must be distinct, but variable \d of the model is there 2 times: open_0_1"
    ):
        mapgrad_pulp.from_model(model, [*opened[0], opened[0][1]])
    with pytest.raises(TypeError, match=r"neither expressions nor names: got "):
        mapgrad_pulp.from_model(model, [opened[0][0], 2 * opened[0][1]])
    with pytest.raises(
        TypeError, match=r"neither expressions nor names: got (-1, as expressions such as 1 - x|.*open_0_1)"
    ):
        mapgrad_pulp.from_model(model, [opened[0][0], 1 - opened[0][1]])
    with pytest.raises(mapgrad.ProblemError, match=r"variables must be a list, an array or a dictionary.*got open_0_0"):
        mapgrad_pulp.from_model(model, opened[0][0])
    with pytest.raises(TypeError, match=r"neither expressions nor names: got 'open_0_0'"):
        mapgrad_pulp.from_model(model, ["open_0_0"])
    with pytest.raises(TypeError, match=r"the model must be a pulp.LpProblem, got list"):
        mapgrad_pulp.from_model(opened, opened)  # pyright: ignore[reportArgumentType] (that is the point)


def test_a_variable_that_the_model_never_mentions_is_priced_within_its_bounds() -> None:
    model, opened = shop()
    idle = model.add_variable("idle", -2, 3.5, "Integer")
    slack = model.add_variable("slack", None, 1.5)
    program = mapgrad_pulp.from_model(model, [idle, slack, opened[0][1]])
    assert program.lower[program.decision].tolist() == [-2, -np.inf, 0]
    assert program.upper[program.decision].tolist() == [3, 1.5, 1]
    assert program.integrality[program.decision].tolist() == [True, False, True]
    assert program.num_vars == 10
    theta = torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]])
    for solver in ("highs", "pulp.cbc", "pulp.highs"):
        solutions = mapgrad.get_solver(solver, program).solve(theta)
        assert solutions.z.tolist() == [[3, 1.5, 1], [-2, 1.5, 0]]
    with pytest.raises(mapgrad.UnboundedError, match="row 0: UNBOUNDED"):
        mapgrad.get_solver("highs", program).solve(-theta[:1])
    with pytest.raises(mapgrad.ProblemError, match=r"must be distinct"):
        mapgrad_pulp.from_model(model, [idle, idle])
    foreign, others = shop()
    foreign.name = "foreign"
    with pytest.raises(mapgrad.ProblemError, match=r"variable open_1_2 isn't in model 'shop'"):
        mapgrad_pulp.from_model(model, [idle, others[1][2]])


def test_a_model_without_constraints_is_the_box_of_its_variables() -> None:
    model = pulp.LpProblem("box")
    x = [model.add_variable(f"x{i}", -i, i + 1, "Integer") for i in range(3)]
    program = mapgrad_pulp.from_model(model, x)
    assert len(program.states()) == 2 * 4 * 6
    assert mapgrad.get_solver("highs", program)(torch.tensor([1.0, -1.0, 1.0])).tolist() == [1, -1, 3]


def test_irregular_and_empty_shapes_are_refused() -> None:
    model, opened = shop()
    with pytest.raises(mapgrad.ProblemError, match=r"got parts of shapes \(2,\) and \(3,\) side by side"):
        mapgrad_pulp.from_model(model, [opened[0], opened[1][:2]])
    for empty in ([], {}, [[]]):
        with pytest.raises(mapgrad.ProblemError, match=r"at least one variable, got none"):
            mapgrad_pulp.from_model(model, empty)


def add_set(lp_problem: pulp.LpProblem, kind: int, members: dict[pulp.LpVariable, float]) -> None:
    model: Any = lp_problem  # PuLP 3 and 4 differ here
    if hasattr(model, "add_sos_group"):
        from pulp import _rustcore  # pyright: ignore[reportAttributeAccessIssue] (PuLP 3 doesn't get here)

        model.add_sos_group(getattr(_rustcore.SosKind, f"Sos{kind}"), f"set {kind}", members)
    else:
        getattr(model, f"sos{kind}")[f"set {kind}"] = members


def test_special_ordered_sets_are_read() -> None:
    model = pulp.LpProblem("sets", pulp.LpMaximize)
    x = [model.add_variable(f"x{i}", -1 if i == 1 else 0, 2, "Integer") for i in range(5)]
    model += x[0] + x[1] + x[2] >= 0
    model += x[3] + x[1] <= 2
    model += x[0] + 0.5 * x[4]
    add_set(model, 1, {x[0]: 1.0, x[3]: 2.0})
    add_set(model, 2, {x[2]: 3.0, x[0]: 1.0, x[1]: 2.0, x[4]: 4.0})
    program = mapgrad_pulp.from_model(model, x[:4])
    assert [kind for kind, _, _ in program.sos] == [1, 2]
    expected: dict[tuple[int, ...], float] = {}
    for values in product(range(3), range(-1, 3), range(3), range(3), range(3)):
        a, b, c, d, e = values
        used = [place for place, value in enumerate((a, b, c, e)) if value]
        holds = a + b + c >= 0 and d + b <= 2 and not (a and d)
        if holds and (not used or used[-1] - used[0] < 2):
            expected[values[:4]] = max(expected.get(values[:4], 0), 0.5 * e)
    assert {tuple(state) for state in program.states().tolist()} == set(expected)
    theta = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    best = [max(np.dot(row, z) + value for z, value in expected.items()) for row in theta.tolist()]
    assert mapgrad.get_solver("highs", program).solve(theta).objective.tolist() == pytest.approx(best)


def test_the_variables_of_a_set_may_be_there_alone() -> None:
    model = pulp.LpProblem("alone")
    x = [model.add_variable(f"x{i}", 0, 2, "Integer") for i in range(3)]
    add_set(model, 1, {x[2]: 1.0, x[0]: 2.0})
    program = mapgrad_pulp.from_model(model, x)
    assert len(program.states()) == 3 * 5
    add_set(model, 2, {x[2]: 1.0, x[0]: 1.0})
    with pytest.raises(mapgrad.ProblemError, match="distinct ones for type 2"):
        mapgrad_pulp.from_model(model, x)


def test_a_model_is_trained_through_with_the_gradient_of_enumeration() -> None:
    program = mapgrad_pulp.from_model(*shop())
    full = program.full()
    ranges = [np.arange(max(low, -1), high + 1) for low, high in zip(full.lower, full.upper, strict=True)]
    box = torch.tensor(list(product(*ranges)))
    states = box[full.contains(box)]  # what is spare follows from what is delivered, and is whole

    def enumerate_states(theta: torch.Tensor) -> torch.Tensor:
        utilities = torch.as_tensor(program.embed(np.asarray(theta, dtype=np.float64)))
        best = states[(utilities @ states.T).argmax(dim=1)]
        return torch.as_tensor(program.extract(np.asarray(best))).to(theta)

    layers = [
        mapgrad.MAPLayer(mapgrad.get_solver(solver, program), mapgrad.IMLE(samples=2), seed=0)
        for solver in ("highs", enumerate_states)
    ]
    target = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    theta = torch.zeros(2, 3, requires_grad=True)
    losses = []
    for _ in range(25):
        each = [(layer(theta) - target).square().sum() for layer in layers]
        gradients = [torch.autograd.grad(loss, theta)[0] for loss in each]
        torch.testing.assert_close(*gradients)
        losses.append(each[0].item())
        with torch.no_grad():
            theta -= 0.2 * gradients[0]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2


def test_importing_the_plugin_imports_neither_pulp_nor_an_engine() -> None:
    code = "import sys, mapgrad_pulp, mapgrad_highs; print({'pulp', 'highspy', 'cbcbox', 'scipy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
