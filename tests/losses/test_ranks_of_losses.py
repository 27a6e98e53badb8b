"""Losses on two ranks of DistributedDataParallel, whose batches are uneven."""

import pytest
import torch

LEARNING = """
import torch
from torch.nn.parallel import DistributedDataParallel

import mapgrad
import mapgrad.losses
from mapgrad.pool import StatePool

SUBSET = mapgrad.KSubset(6, 2)

class Learner(torch.nn.Module):
    def __init__(self, head, wanted):
        super().__init__()
        self.head, self.wanted = head, wanted

    def forward(self, x, true):
        return self.wanted(self.head(x), true)

class ByState(torch.nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, theta, true):
        return self.loss(theta, self.loss.solver(true))

def make(kind):
    torch.manual_seed(0)
    solver, pool = mapgrad.get_solver("topk", SUBSET), StatePool(SUBSET)
    how = {"reduction": "sum"}
    wanted = {
        "SPO+": lambda: mapgrad.losses.SPOPlus(solver, **how),
        "Fenchel-Young": lambda: ByState(mapgrad.losses.FenchelYoung(solver, None, **how)),
        "CaVE": lambda: ByState(mapgrad.losses.CaVE(solver, **how)),
        "NCE": lambda: ByState(mapgrad.losses.NoiseContrastive(solver, pool, **how)),
        "listwise": lambda: mapgrad.losses.ListwiseRanking(solver, pool, **how),
    }[kind]()
    return Learner(torch.nn.Linear(6, 6), wanted), pool

KINDS = ("SPO+", "Fenchel-Young", "CaVE", "NCE", "listwise")
COUNTS = [(3, 1), (3, 3), (3, 0)]  # rows of each rank; the last batches are uneven

def learn(model, take, ranks):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    found = []
    for number, counts in enumerate(COUNTS):
        data = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(number))
        x, true = data[:, take(counts)]
        optimizer.zero_grad()
        (model(x, true) * ranks).backward()  # DistributedDataParallel takes the mean over ranks
        found += [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
    return found
"""
NAMES = {}
exec(LEARNING, NAMES)


@pytest.fixture(scope="module")
def uneven(on_two_ranks, tmp_path_factory):
    script = f"""
{LEARNING}
result = {{}}
for kind in KINDS:
    model, pool = make(kind)
    take = lambda counts: slice(0, 3) if rank == 0 else slice(3, 3 + counts[1])
    result[kind] = learn(DistributedDataParallel(model), take, 2)
    result[kind, "pool"] = pool.states
for how in ("no_sync", "join"):
    model, pool = make("listwise")
    parallel = DistributedDataParallel(model)
    with getattr(parallel, how)():
        for number in range(4 - 3 * rank):
            x, true = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(number))
            parallel(x, true).backward()
    result[how] = pool.states
"""
    return on_two_ranks(script, tmp_path_factory.mktemp("uneven"))


@pytest.mark.parametrize("kind", NAMES["KINDS"])
def test_two_ranks_with_uneven_batches_learn_what_one_does(uneven, kind):
    model, pool = NAMES["make"](kind)
    expected = NAMES["learn"](model, lambda counts: slice(0, 3 + counts[1]), 1)
    assert any(gradient.any() for gradient in expected)
    assert len(pool) > 4 or kind in ("SPO+", "Fenchel-Young", "CaVE")
    for found in uneven:
        torch.testing.assert_close(found[kind], expected)
        assert all(map(torch.equal, found[kind], uneven[0][kind]))
        assert torch.equal(found[kind, "pool"], pool.states)


def test_under_no_sync_and_join_the_pools_of_losses_wait_for_nobody(uneven):
    for kind in ("no_sync", "join"):
        first, second = (found[kind] for found in uneven)
        assert len(first) > len(second) > 0
