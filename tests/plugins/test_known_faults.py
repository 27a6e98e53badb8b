"""Small programs on which engines were seen to be wrong, with the right status and value of each, on every engine."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import mapgrad
from mapgrad import Status

INF = float("inf")
ENGINES = ["highs", "scipy.milp", "ortools.mip", "pulp.cbc", "pulp.highs"]
UNPROVED = {("SCIP: UNBOUNDED", "pulp.cbc")}
"""CBC finds the optimum and searches on for ever: no integer has a bound."""
SLOW = {("HiGHS by SciPy: a search of a minute without a bound", "pulp.cbc")}


@dataclass(frozen=True)
class Fault:
    """What an engine was seen to say, of which program, and what is right."""

    seen: str
    rows: dict
    theta: list
    value: float | None
    status: Status = Status.OPTIMAL

    def __str__(self):
        return self.seen.replace(" ", "_")


SPREAD = {
    "A_ub": [
        [0, 0, 0, 9, 6, 0, 0, 0, 8, 6, -4, 0, 0],
        [0, 0, 0, -1, 3, -4, 0, -3, 7, 0, 0, 4, 9],
        [-9, 0, -5, 8, 0, 9, 0, 0, 0, -4, 9, 0, -3],
        [0, -2, 3, 0, 0, 0, 0, -6, -4, 0, -5, 0, -3],
        [0, 3, 0, 0, 0, 0, 0, 3, 0, 0, -4, 0, 0],
        [-3, 0, 0, 0, 3, 4, 9, 0, -1, 0, 0, 8, 0],
        [0, 0, 1, -3, 9, 0, -2, 0, 0, -9, 0, -7, 2],
    ],
    "b_ub": [12.27, 18.19, 16.5, 1.69, 3.38, 16.07, 8.88],
}


def utilities(least):
    """Utilities of three variables of `SPREAD` that may all be chosen; the others have none."""
    return np.eye(13)[4] + 7e7 * np.eye(13)[9] + least * np.eye(13)[12]


FAULTS = [
    Fault(
        "GLOP: UNBOUNDED where costs are large",
        {"A_ub": [[3, 8, -1], [5, -5, -6]], "b_ub": [5, -66], "lower": -INF, "upper": INF, "integrality": 0},
        [19, 14, -15],
        -117,
    ),
    Fault(
        "GLOP: ABNORMAL",
        {
            "A_ub": [[31.31, -92.8], [13.1, -76.96], [-87.03, 41.95]],
            "b_ub": [-1139.74, -255.8, 4421.5],
            "lower": -1e6,
            "upper": 1e6,
            "integrality": 0,
        },
        [0, -1],
        5.799891019994881,
    ),
    Fault(
        "SCIP: UNBOUNDED",
        {
            "A_ub": [[4, 9, -4], [-1, -3, -5], [-7, 0, -5]],
            "b_ub": [5, 14, -11],
            "lower": -INF,
            "upper": INF,
            "integrality": [1, 1, 0],
        },
        [-16, -6, -20],
        4,
    ),
    Fault(
        "CBC: OPTIMAL at a bound that the ray doesn't have",
        {
            "A_ub": [[0, 54, -37], [2, 0, -35]],
            "b_ub": [0, 0],
            "lower": [-INF, -1e4, -1e4],
            "upper": 1e4,
            "integrality": [0, 1, 0],
        },
        [-1, 1, 0],
        None,
        Status.UNBOUNDED,
    ),
    Fault(
        "CBC: OPTIMAL of 6e12",
        {
            "A_ub": [[-1, -9, -5], [1, -9, 9]],
            "b_ub": [13, 9],
            "lower": [-INF, -10, -10],
            "upper": [INF, INF, 10],
            "integrality": [1, 0, 0],
        },
        [3, -3, 1],
        None,
        Status.UNBOUNDED,
    ),
    Fault(
        "SCIP: OPTIMAL of 5e19",
        {"A_ub": [[3, 9], [2, 9], [7, 3]], "b_ub": [12, 2, 7], "lower": -INF, "upper": [INF, 10]},
        [-1, 0],
        None,
        Status.UNBOUNDED,
    ),
    Fault(
        "CBC: nothing that PuLP understands",
        {"A_ub": [[-99, -46]], "b_ub": [0], "lower": -100, "upper": [100, INF]},
        [-1, 1],
        None,
        Status.UNBOUNDED,
    ),
    Fault(
        "HiGHS: INFEASIBLE by presolving",
        {
            "A_ub": [
                [96.55, 0, -32.45, 88.78],
                [-3.14, -78.02, 0, 0],
                [0, 11.8, -21.94, 0],
                [0, 0, 91.59, -10.58],
                [79.17, 1.73, 0, -73.23],
                [-10.61, -94.66, 0, 76.88],
            ],
            "b_ub": [1216.06, -50.5404, 3.422, -35.25, 411.403, 195.69],
            "lower": -100,
            "upper": 100,
            "integrality": [0, 0, 1, 1],
        },
        [24, -5, -7.4, -9],
        175.91,
    ),
    Fault(
        "HiGHS: INFEASIBLE by presolving a small coefficient",
        {"A_ub": [[-0.999999999, 1e-8]], "b_ub": [-1], "upper": 48, "integrality": [1, 0]},
        [-2, 4],
        188,
    ),
    Fault(
        "SCIP: a row of a mixed program missed by 8e-4",
        {
            "A_ub": [[73.09, 90.88, -99.38], [-27.44, 95.42, 57.73], [88.42, 0, 95.2]],
            "b_ub": [-34932.5708, 2898.451, 2046.0154],
            "lower": -1e4,
            "upper": 1e4,
            "integrality": [0, 1, 0],
        },
        [0.05418, 0.0762, 0],
        -15.525905581,
    ),
    Fault(
        "SCIP: a second best by presolving two rows of two variables",
        {"A_ub": [[1, -4], [7, -1]], "b_ub": [18, 19], "lower": [0, -INF], "upper": INF},
        [5, -14],
        66,
    ),
    Fault(
        "SCIP: a second best between almost parallel rows",
        {"A_ub": [[0.5, -1.500000001], [0.5, -1.499999999]], "b_ub": [-21.5, -21], "upper": 75, "integrality": [1, 0]},
        [4, -2],
        221.3333333857778,
    ),
    Fault(
        "CBC: a second best in a box of 1000",
        {
            "A_ub": [[56.28, -7.69, -51.9, -39.44, 0], [-56.28, 7.69, 51.9, 39.44, 0]],
            "b_ub": [-16.93, 43.3878],
            "lower": -1000,
            "upper": 1000,
        },
        [0, 0, 0, 0.29, -3.316],
        3606,
    ),
    Fault(
        "CBC: INFEASIBLE without propagating bounds",
        {
            "A_ub": [[-8, 4, 0], [0, 3, -6], [1, 5, 6], [-5, -5, 0]],
            "b_ub": [8, 5, -20, -4],
            "lower": -INF,
            "upper": [INF, 3, INF],
            "integrality": [1, 1, 0],
        },
        [-8, -11, 13],
        None,
        Status.UNBOUNDED,
    ),
    Fault(
        "HiGHS: a search without end between close planes",
        {
            "A_ub": [
                [87.3, 7.7, 0, 78.87],
                [86.23, -19.28, 47.79, 94.84],
                [-87.3, -7.7, 0, -78.87],
                [-86.23, 19.28, -47.79, -94.84],
            ],
            "b_ub": [265123.5882, 70220.768, -265123.291, -70220.6459],
            "lower": -1e5,
            "upper": 1e5,
            "integrality": [1, 1, 1, 0],
        },
        [0.8665, -0.765, 0.764, -0.2877],
        171577.27371445796,
    ),
    Fault(
        "CBC: a second best where a coefficient is almost a half",
        {"A_ub": [[1e-9, -1.5], [0, -1.5000001]], "b_ub": [-1.5, -1.5], "upper": 46},
        [3e-8, -5e-8],
        1.28e-6,
    ),
    Fault(
        "HiGHS: a coefficient of 1e-9 dropped",
        {"A_ub": [[-1.4999999, 0], [1e-9, 1e-8], [-1.50000001, 1.5]], "b_ub": [-1.5, 0.5, 7], "upper": 59},
        [-2, -4],
        -4,
    ),
    Fault(
        "HiGHS: nothing where a fixed charge is almost worth its gain",
        {"A_ub": [[1, -1e6]], "b_ub": [0], "upper": [1e6, 1], "integrality": [0, 1]},
        [1, -999999],
        1,
    ),
    Fault(
        "CBC: nothing where fixed charges are almost worth their gain",
        {
            "A_ub": [[1, 0, -1e6, 0], [0, 1, 0, -1e6], [1, 1, 0, 0]],
            "b_ub": [0, 0, 1.5e6],
            "upper": [1e6, 1e6, 1, 1],
            "integrality": [0, 0, 1, 1],
        },
        [8, 6, -7999997, -6000001],
        3,
    ),
    Fault(
        "HiGHS: OPTIMAL where a small utility has no end",
        {"lower": [-1, -INF], "upper": [1, INF], "integrality": [0, 1]},
        [1, -1e-9],
        None,
        Status.UNBOUNDED,
    ),
    Fault(
        "CBC: a search without end of what two doesn't divide",
        {"A_eq": [[6, 10, -14]], "b_eq": [5], "lower": -1e5, "upper": 1e5},
        [1, 1, 1],
        None,
        Status.INFEASIBLE,
    ),
    Fault(
        "CBC: a second best of a program that it scales",
        {"A_ub": [[-1.50000001, 0.499999, -1.5], [-1.5, 0.50000001, -1.500001]], "b_ub": [-30.5, -30.5], "upper": 56},
        [-2, 3, -3],
        89,
    ),
    Fault(
        "HiGHS: OPTIMAL too far away to be checked",
        {
            "A_ub": [[-52, 5, -29], [-47, 65, -91]],
            "b_ub": [377, 906],
            "lower": [-INF, -INF, -4],
            "upper": INF,
        },
        [-936, 90, -522],
        6786,
    ),
    Fault(
        "HiGHS by SciPy: a search of a minute without a bound",
        {
            "A_ub": [[-36, -73, 60, 0]],
            "b_ub": [-279],
            "lower": [-1010, -INF, -INF, -12],
            "upper": [INF, 10003, INF, 998],
        },
        [-540, -1095, 900, 0],
        -4185,
    ),
    *(
        Fault(
            f"HiGHS: presolves the best away beside a utility of {least:g}", SPREAD, utilities(least), 7e7 + 1 + least
        )
        for least in (0, 6e-9, 6e-6, 6e-4, 6e-2, 6)
    ),
    Fault(
        "HiGHS: a second best of large integers",
        {
            "A_ub": [[1.49, 0.69, 1.19, 0.63, 5.18], [0, 1.97, 0.64, 0, 0], [0, 1.63, 0, 0, 0], [4.29, 0, 0, 0, 0]],
            "b_ub": [213.36, -6.64, -4.78, 618.87],
            "lower": [0, -3, -3, 0, -2],
            "upper": [150, 1, -2, 3, 0],
        },
        [-10, 100, -1e4, 1e-4, 1e3],
        29700.0003,
    ),
    Fault("HiGHS: breaks a row of 1 beside 1e12", {"A_ub": [[-1e12, 1]], "b_ub": [0], "upper": [1, 16]}, [-1, 1], 15),
    Fault("HiGHS: breaks a row of 1e-9 beside 1", {"A_ub": [[0, 1, 1e-9]], "b_ub": [0]}, [1, 1, 1], 1),
    Fault("HiGHS: the same, with room for one", {"A_ub": [[1e-9, 1, 1e-9]], "b_ub": [1e-9]}, [1, 3, 2], 2),
    Fault("HiGHS: an empty row holds", {"A_ub": [[0, 0]], "b_ub": [-1e-12]}, [1, 1], None, Status.INFEASIBLE),
    Fault("HiGHS: an empty equation holds", {"A_eq": [[0, 0]], "b_eq": [1e-15]}, [1, 1], None, Status.INFEASIBLE),
    Fault("HiGHS: a sum of less than 0", {"A_ub": [[1, 1]], "b_ub": [-1e-12]}, [1, 1], None, Status.INFEASIBLE),
]


def cases():
    for fault in FAULTS:
        for name in ENGINES:
            marks = pytest.mark.slow if (fault.seen, name) in SLOW else ()
            yield pytest.param(fault, name, marks=marks, id=f"{fault}-{name}")


@pytest.mark.parametrize(("fault", "name"), [*cases()])
def test_the_answer_is_right(fault, name):
    program = mapgrad.IntegerProgram(**fault.rows)
    theta = torch.tensor(fault.theta, dtype=torch.float64)
    is_proved = (fault.seen, name) not in UNPROVED
    with mapgrad.get_solver(name, program, time_limit=120 if is_proved else 2) as solver:
        try:
            solutions = solver.solve(theta)
        except mapgrad.RowsError as error:
            solutions = error.solutions
    assert Status(int(solutions.status)) is (fault.status if is_proved else Status.TIME_LIMIT)
    if fault.value is None:
        return
    z = solutions.z.numpy()
    assert program.contains(solutions.z)
    terms = max(np.abs(theta.numpy() * z).sum(), np.abs(theta.numpy()).max())
    assert abs(float(theta.numpy() @ z) - fault.value) <= 1e-9 * terms
