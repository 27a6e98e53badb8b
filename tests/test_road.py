"""θ's way from a layer to a solver and back: the stages in their order, and nothing twice but the host."""

import sys
from pathlib import Path

import numpy as np
import torch

import mapgrad

STAGES = [
    "layer",
    "gradients/_function",
    "gradients/_pass",
    "gradients/estimators/_imle",
    "gradients/_sampler",
    "batching/_at_work",
    "batching/_theta",
    "batching/_proofs",
    "batching/_host",
    "workers/_workers",
    "the solver",
    "batching/_host",
    "batching/_policy",
]


class TopTwo(mapgrad.InstanceSolver):
    def solve(self, state, theta, request):
        z = np.zeros_like(theta)
        z[np.argsort(-theta)[:2]] = 1
        return z


class NeverProves(mapgrad.InstanceSolver):
    def solve(self, state, theta, request):
        return mapgrad.Solution(np.eye(6)[0] + np.eye(6)[1], mapgrad.Status.TIME_LIMIT)


def functions_called(run):
    """The functions that take θ on, each with its file, in the order in which they begin."""
    core = str(Path(mapgrad.__file__).parent)
    calls = []

    def note(frame, event, _argument):
        if event == "call":
            path = frame.f_code.co_filename
            file = path.removeprefix(core + "/").removesuffix(".py") if path.startswith(core) else path
            calls.append((file if path != __file__ else "the solver", frame.f_code.co_name))

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


TAKES_THETA_ON = {
    "layer": "forward",
    "gradients/_function": "sample",
    "gradients/_pass": "forward",
    "gradients/estimators/_imle": "forward",
    "gradients/_sampler": "perturb",
    "batching/_at_work": "try_to_solve",
    "batching/_theta": "admit",
    "batching/_proofs": "solve_unproved",
    "workers/_workers": "solve",
    "the solver": "solve",
    "batching/_policy": "failed_rows",
}


def test_each_stage_takes_theta_on_once_and_the_host_twice():
    solver = mapgrad.get_solver(NeverProves, mapgrad.KSubset(6, 2), on_error="incumbent")
    layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(mapgrad.Gumbel()))
    theta = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    calls = functions_called(lambda: layer(theta))
    way = [
        file
        for file, function in calls
        if TAKES_THETA_ON.get(file) == function or (file == "batching/_host" and function in ("__init__", "answers"))
    ]
    assert way == STAGES


def test_a_batch_in_which_nothing_fails_asks_no_policy():
    layer = mapgrad.MAPLayer(mapgrad.get_solver(TopTwo, mapgrad.KSubset(6, 2)), mapgrad.IMLE(None))
    calls = functions_called(lambda: layer(torch.randn(5, 6, generator=torch.Generator().manual_seed(0))))
    assert "batching/_policy" not in {file for file, _ in calls}
