"""A run that is killed at any point and goes on from its last checkpoint ends where an uninterrupted one does."""

import pytest
import torch

RUN = """
import os
import signal
import sys
from pathlib import Path

import torch

import mapgrad

folder, step_of_death, place_of_death = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
SUBSET, GRID = mapgrad.KSubset(6, 2), mapgrad.GridShortestPath(2, 3)
IDS = torch.tensor([5, 2**35, -1, 77, 3])


def die_at(step, place):
    if (step, place) == (step_of_death, place_of_death):
        os.kill(os.getpid(), signal.SIGKILL)


def make_layer(kind):
    solver = mapgrad.get_solver("topk", SUBSET)
    threaded = mapgrad.get_solver("scipy.shortest_path", GRID, workers=2)
    return {
        "default": lambda: mapgrad.MAPLayer(solver),
        "threads": lambda: mapgrad.MAPLayer(threaded, minimize=True),
        "seeded": lambda: mapgrad.MAPLayer(solver, mapgrad.IMLE(mapgrad.Gumbel(), samples=2), seed=5),
        "perturbed": lambda: mapgrad.MAPLayer(solver, mapgrad.Perturbed(mapgrad.Gaussian(), samples=2), seed=5),
        "adaptive": lambda: mapgrad.MAPLayer(solver, mapgrad.AdaptiveIMLE(samples=2, step=0.1, decay=0.5), seed=6),
        "adaptive, drawn": lambda: mapgrad.MAPLayer(solver, mapgrad.AdaptiveIMLE(step=0.1)),
        "pooled": lambda: mapgrad.MAPLayer(solver, mapgrad.Pooled(SUBSET, samples=2), seed=7),
        "multi-fidelity": lambda: mapgrad.MAPLayer(solver, mapgrad.MultiFidelity(SUBSET), seed=8),
    }[kind]()


class Model(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.linear, self.layer = torch.nn.Linear(4, 6), make_layer(kind)
        self.named = {} if kind in ("default", "threads", "adaptive, drawn") else {"rows": IDS}

    def forward(self, x):
        theta = self.linear(x)
        return self.layer(theta.abs().reshape(-1, 2, 3) if self.layer.minimize else theta, **self.named)


KINDS = ("default", "threads", "seeded", "perturbed", "adaptive", "adaptive, drawn", "pooled", "multi-fidelity")
torch.manual_seed(0)
models = torch.nn.ModuleDict({kind.replace(", ", "_"): Model(kind) for kind in KINDS})
optimizer = torch.optim.SGD(models.parameters(), lr=0.02, momentum=0.9)
losses = {name: [] for name in models}
first = 0
if (folder / "checkpoint.pt").exists():
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    models.load_state_dict(saved["models"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["generator"])
    losses, first = saved["losses"], saved["step"]

for step in range(first, 4):
    optimizer.zero_grad()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
    for name, model in models.items():
        z = model(x)
        if name == "adaptive":
            z.register_hook(lambda gradient, step=step: die_at(step, "backward"))
        loss = ((z.flatten(1) - 0.3) ** 2 * torch.arange(1.0, 7.0)).sum()
        loss.backward()
        losses[name].append(float(loss.detach()))
    optimizer.step()
    die_at(step, "before the checkpoint")
    saved = {"models": models.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
    torch.save(saved | {"generator": torch.get_rng_state(), "step": step + 1}, folder / "part.pt")
    die_at(step, "before its rename")
    (folder / "part.pt").replace(folder / "checkpoint.pt")
    die_at(step, "after the checkpoint")
"""
PLACES = ("backward", "before the checkpoint", "before its rename", "after the checkpoint")


EACH = [*enumerate(PLACES)]
ALL = [(step, place) for step in range(4) for place in PLACES]


@pytest.fixture(scope="module")
def end_of(run_program, tmp_path_factory):
    """Return a function from the places where a run is killed, and started anew, to its last checkpoint."""

    def run(deaths):
        folder = tmp_path_factory.mktemp("run")
        for step, place in deaths:
            assert run_program(RUN, folder, step, place).returncode == -9
        done = run_program(RUN, folder, -1, "never")
        assert done.returncode == 0, done.stderr
        return torch.load(folder / "checkpoint.pt", weights_only=True)

    return run


@pytest.fixture(scope="module")
def uninterrupted(end_of):
    return end_of([])


@pytest.mark.parametrize("deaths", [EACH, pytest.param(ALL, marks=pytest.mark.slow)], ids=["a few", "all"])
def test_a_killed_run_ends_where_an_uninterrupted_one_does(deaths, end_of, uninterrupted):
    killed = end_of(deaths)
    assert killed["losses"] == uninterrupted["losses"]
    assert torch.equal(killed["generator"], uninterrupted["generator"])
    assert killed["models"].keys() == uninterrupted["models"].keys()
    for name, value in uninterrupted["models"].items():
        assert torch.equal(killed["models"][name], value), name


def test_the_runs_learn_and_their_states_move(uninterrupted):
    state, losses = uninterrupted["models"], uninterrupted["losses"]
    assert all(len(set(each)) > 1 for each in losses.values())
    assert state["seeded.layer._extra_state"].tolist() == [5, 4]
    assert float(state["adaptive.layer.estimator.target.beta"]) != 1.0
    assert float(state["adaptive_drawn.layer.estimator.target.beta"]) != 1.0
    for kind in ("pooled", "multi-fidelity"):
        assert len(state[f"{kind}.layer.estimator.pool._extra_state"]) > 1
