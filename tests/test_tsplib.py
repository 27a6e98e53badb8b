"""Tours have the lengths that TSPLIB lists for its instances up to 52 nodes, and two engines proved for ours."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import mapgrad

INSTANCES = (
    "ulysses16",
    "gr21",
    "ulysses22",
    "fri26",
    "bayg29",
    "dantzig42",
    "swiss42",
    "att48",
    "gr48",
    "hk48",
    "eil51",
    "berlin52",
)

OURS = Path(__file__).parent / "data"


def distances(points):
    tails, heads = np.triu_indices(len(points), 1)
    return np.hypot(*(points[tails] - points[heads]).T)


def lengths(path):
    """Read a TSPLIB file: the number of nodes, and the length of each edge."""
    text = path.read_text()
    head = dict(re.findall(r"^(\w+) *: *(.*?) *$", text, re.MULTILINE))
    n = int(head["DIMENSION"])
    edges = tails, heads = np.triu_indices(n, 1)
    section = re.search(r"^(EDGE_WEIGHT|NODE_COORD)_SECTION\s+([-\d\s.e+]+)", text, re.MULTILINE)
    assert section is not None
    numbers = np.array(section[2].split(), dtype=np.float64)
    if head["EDGE_WEIGHT_TYPE"] == "EXPLICIT":
        filled = {
            "FULL_MATRIX": (slice(None), slice(None)),
            "LOWER_DIAG_ROW": np.tril_indices(n),
            "UPPER_ROW": edges,
        }[head["EDGE_WEIGHT_FORMAT"]]
        matrix = np.zeros((n, n))
        matrix[filled] = numbers.reshape(n, n) if len(numbers) == n * n else numbers
        return n, np.maximum(matrix, matrix.T)[edges]
    points = numbers.reshape(n, 3)[:, 1:]
    if head["EDGE_WEIGHT_TYPE"] == "EUC_2D":
        return n, np.rint(distances(points))
    if head["EDGE_WEIGHT_TYPE"] == "ATT":
        return n, np.ceil(distances(points) / np.sqrt(10))
    assert head["EDGE_WEIGHT_TYPE"] == "GEO"
    degrees = np.trunc(points)
    latitude, longitude = (3.141592 * (degrees + 5 * (points - degrees) / 3) / 180).T
    q1, q2, q3 = (
        np.cos(longitude[tails] - longitude[heads]),
        np.cos(latitude[tails] - latitude[heads]),
        np.cos(latitude[tails] + latitude[heads]),
    )
    return n, np.trunc(6378.388 * np.arccos(((1 + q1) * q2 - (1 - q1) * q3) / 2) + 1)


def listed(path, name):
    return int(re.search(rf"^{name}\s*:\s*(\d+)", path.read_text(), re.MULTILINE)[1])


def require_a_shortest_tour(path, shortest):
    n, length = lengths(path)
    problem = mapgrad.TravelingSalesman(n)
    solutions = mapgrad.get_solver("auto", problem).solve(-torch.as_tensor(length))
    assert problem.contains(solutions.z)
    assert float(solutions.objective) == -shortest


@pytest.mark.parametrize("name", INSTANCES)
def test_auto_finds_a_shortest_tour(data, name):
    require_a_shortest_tour(data("tsplib") / f"{name}.tsp", listed(data("tsplib") / "solutions", name))


@pytest.mark.parametrize("path", sorted(OURS.glob("tours/*.tsp")), ids=lambda path: path.stem)
def test_auto_finds_a_shortest_tour_of_ours(path):
    require_a_shortest_tour(path, listed(OURS / "optima.txt", path.stem))


def test_one_matrix_is_read_from_each_format():
    full, upper, lower = (lengths(OURS / "tours" / f"{kind}16.tsp")[1] for kind in ("full", "upper", "lower"))
    assert np.array_equal(full, upper)
    assert np.array_equal(full, lower)
