"""Two ranks of torch.distributed: noise by ids is that of one rank, by default each has its own; AIMLE and pools under
DDP."""

import pytest
import torch

COMMON = """
import contextlib

import torch

import mapgrad

class Drawn:
    def sample(self, shape, *, generator, dtype, device):
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)

NOISE = {"gumbel": mapgrad.Gumbel(), "sum of gamma": mapgrad.SumOfGamma(2.0), "drawn": Drawn()}
SUBSET = mapgrad.KSubset(6, 2)

def make_layer(noise, problem=SUBSET, seed=5):
    estimator = mapgrad.IMLE(NOISE[noise], mapgrad.Step(2.0), samples=3)
    return mapgrad.MAPLayer(mapgrad.get_solver("topk", problem), estimator, reduction="none", seed=seed)

def steps(layer, theta, take, count=2, **how):
    found = []
    for number in range(count):
        leaf = (theta + number)[take].clone().requires_grad_()
        z = layer(leaf, **how)
        (z * torch.arange(6.0)).sum().backward()
        found.append((z.detach(), leaf.grad))
    return found

def gradients_of(model, losses, rate):
    # each loss is worked out with the weights of its step
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    found = []
    for loss in losses:
        loss.backward()
        found += [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
        optimizer.zero_grad()
    return found

THETA = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([5, 2**35, -1, 0, 77, 3, 9, 2**50, 12])
PROBLEMS = [mapgrad.KSubset(6, 1 + row % 3) for row in range(9)]
PLACES = [[0, 3, 4, 7, 8], [1, 2, 5, 6]]  # uneven, in no order
"""
NAMES = {}
exec(COMMON, NAMES)
NOISE, steps, make_layer = NAMES["NOISE"], NAMES["steps"], NAMES["make_layer"]


@pytest.fixture(scope="module")
def found(on_two_ranks, tmp_path_factory):
    script = f"""
{COMMON}
take = PLACES[rank]
result = {{}}
for noise in NOISE:
    result[noise, "ids"] = steps(make_layer(noise), THETA, take, rows=IDS[take])
    mine = [PROBLEMS[row] for row in take]
    result[noise, "problems"] = steps(make_layer(noise, None), THETA, take, rows=IDS[take], problems=mine)
    result[noise, "places"] = steps(make_layer(noise), THETA, take)
    result[noise, "places, problems"] = steps(make_layer(noise, None), THETA, take, problems=[SUBSET] * len(take))
    torch.manual_seed(0)
    result[noise, "unseeded"] = steps(make_layer(noise, seed=None), torch.zeros(9, 6), PLACES[1])
"""
    return on_two_ranks(script, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("kind", ["ids", "problems"])
def test_two_ranks_with_ids_are_one_with_the_whole_batch(found, noise, kind):
    layer = make_layer(noise, NAMES["SUBSET"] if kind == "ids" else None)
    how = {} if kind == "ids" else {"problems": NAMES["PROBLEMS"]}
    whole = steps(layer, NAMES["THETA"], slice(None), rows=NAMES["IDS"], **how)
    for number, (z, gradient) in enumerate(whole):
        assert gradient.abs().sum() > 0
        for rank, take in enumerate(NAMES["PLACES"]):
            mine = found[rank][noise, kind][number]
            assert torch.equal(mine[0], z[:, take])
            assert torch.equal(mine[1], gradient[take])


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("kind", ["places", "places, problems"])
def test_without_ids_a_rows_id_is_its_rank_and_place(found, noise, kind):
    for rank, take in enumerate(NAMES["PLACES"]):
        ids = torch.arange(len(take)) + rank * 2**32
        expected = steps(make_layer(noise), NAMES["THETA"], take, rows=ids)
        for mine, (z, gradient) in zip(found[rank][noise, kind], expected, strict=True):
            assert torch.equal(mine[0], z)
            assert torch.equal(mine[1], gradient)


@pytest.mark.parametrize("noise", NOISE)
def test_ranks_whose_generators_agree_draw_other_noise(found, noise):
    one, other = (results[noise, "unseeded"][0][0] for results in found)
    assert one.shape == other.shape
    assert not torch.equal(one, other)


MODELS = """
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

ADAPTIVE = {"step": 0.05, "momentum": 0.5, "decay": 0.5, "target": 2.5}

def seeded_model(kind):
    torch.manual_seed(0)
    estimator = {
        "adaptive": lambda problem: mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), samples=2, **ADAPTIVE),
        "adaptive, no noise": lambda problem: mapgrad.AdaptiveIMLE(None, **ADAPTIVE),
        "adaptive, checkpoint": lambda problem: mapgrad.AdaptiveIMLE(mapgrad.Gumbel(), samples=2, **ADAPTIVE),
        "pooled, no noise": lambda problem: mapgrad.Pooled(problem, None),
        "pooled": mapgrad.Pooled,
        "multi-fidelity": mapgrad.MultiFidelity,
        "default": lambda problem: None,
        "I-MLE": lambda problem: mapgrad.IMLE(mapgrad.Gumbel(), samples=2),
    }[kind.removesuffix(", twice").removesuffix(", problems")](SUBSET)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", None if "problems" in kind else SUBSET), estimator, seed=5)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.layer = torch.nn.Linear(6, 6).double(), layer

        def forward(self, x, rows):
            own = {"problems": [PROBLEMS[IDS.tolist().index(row)] for row in rows]} if "problems" in kind else {}
            answers = lambda x: self.layer(self.linear(x), rows=rows, **own)
            if "twice" in kind:
                return answers(x) + answers(-2 * x)
            return checkpoint(answers, x, use_reentrant=False) if "checkpoint" in kind else answers(x)

    return Model()

def learn(model, take, ranks, counts, first=0):
    def losses():
        for number, count in enumerate(counts, first):  # of 1 row, one rank has none
            mine = [row for row in take if row < count]
            x = torch.randn(9, 6, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
            z = model(x[mine], IDS[mine])
            yield (z * torch.arange(6.0)).sum() * ranks  # DistributedDataParallel takes the mean over ranks

    return gradients_of(model, losses(), 0.1)
"""
exec(MODELS, NAMES)
KINDS = ["pooled", "multi-fidelity", "default", "I-MLE", "adaptive", "adaptive, checkpoint"]
KINDS += ["pooled, problems", "I-MLE, problems", "adaptive, problems"]


@pytest.fixture(scope="module")
def learnt(on_two_ranks, tmp_path_factory):
    script = f"""
{COMMON}{MODELS}
result = {{}}
for kind in {KINDS}:
    model = seeded_model(kind)
    result[kind] = learn(DistributedDataParallel(model), PLACES[rank], 2, (9, 6, 9, 3, 1, 9))
    model(THETA.double(), IDS)  # takes in this rank's own
    if hasattr(model.layer.estimator, "pool"):
        result[kind, "pool"] = model.layer.estimator.pool.states
    model = seeded_model(kind)
    learn(DistributedDataParallel(model), PLACES[rank], 2, (9,))
    torch.save(model.state_dict(), f"{{folder}}/saved{{rank}}.pt")
    model = seeded_model(kind)
    model.load_state_dict(torch.load(f"{{folder}}/saved{{rank}}.pt", weights_only=True))
    result[kind, "resumed"] = learn(DistributedDataParallel(model), PLACES[rank], 2, (6, 9, 3, 1, 9), 1)
    model = DistributedDataParallel(seeded_model(kind))
    with model.join():
        result[kind, "uneven"] = len(learn(model, PLACES[rank], 2, (9,) * (6 - 3 * rank)))
"""
    return on_two_ranks(script, tmp_path_factory.mktemp("learnt"))


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_whose_batches_differ_learn_what_one_does(learnt, kind):
    expected = NAMES["learn"](NAMES["seeded_model"](kind), range(9), 1, (9, 6, 9, 3, 1, 9))
    assert all(gradient.any() for gradient in expected)
    for found in learnt:
        torch.testing.assert_close(found[kind], expected)
        assert all(map(torch.equal, found[kind], learnt[0][kind]))
        if kind in ("pooled", "multi-fidelity"):
            assert len(found[kind, "pool"]) > 9


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_that_are_resumed_go_on_as_uninterrupted_ones(learnt, kind):
    for found in learnt:
        assert len(found[kind, "resumed"]) == 10
        assert all(map(torch.equal, found[kind, "resumed"], found[kind][2:]))


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_with_more_batches_wait_for_nobody(learnt, kind):
    assert [found[kind, "uneven"] for found in learnt] == [12, 6]


STEPS = """
WHOLE = [0, 3, 4, 7, 8, 1, 2, 5, 6]
PARTS = [[0, 3], [4, 7], [8]], [[1, 2], [5, 6]]  # of it, one rank's and the other's

def loss_of(model, number, rows, ranks):
    data = torch.randn(9, 6, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    return (model(data[rows], IDS[rows]) * torch.arange(6.0)).sum() * ranks

def in_parts(model, ranks, parts):
    for number in range(6):
        with model.no_sync() if parts[1:] else contextlib.nullcontext():
            for part in parts[:-1]:
                loss_of(model, number, part, ranks).backward()
        yield loss_of(model, number, parts[-1], ranks)

def with_passes_beside(model, ranks, parts):
    for number in range(6):
        loss_of(model, 9 - number, parts[0], ranks)  # has no backward pass
        model.eval()
        with torch.no_grad():
            loss_of(model, number, parts[0], ranks)
            if len(parts) != 2:
                loss_of(getattr(model, "module", model), number, parts[0], ranks)
        model.train()
        yield loss_of(model, number, sum(parts, []), ranks)

def with_logs_of_one_rank(model, ranks, parts):
    def log():
        if 0 in parts[0]:
            getattr(model, "module", model).layer.distribution(THETA.double()).sample((2,))

    losses = in_parts(model, ranks, parts)
    for _ in range(6):
        log()
        loss = next(losses)
        log()
        yield loss

class Pipelined(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, parts):
        pairs = mapgrad.pipelined(self.model.linear, self.model.layer, parts)
        return sum((z * torch.arange(6.0)).sum() for _, z in pairs)

def in_a_pipeline(model, ranks, parts):
    for number in range(6):
        data = torch.randn(9, 6, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        yield model([data[part] for part in parts]) * ranks

def learn_by(kind, losses, parts, wrap=lambda model: model, ranks=1):
    model = seeded_model(kind)
    gradients = gradients_of(model, losses(wrap(model), ranks, parts), 0.1)
    estimator = model.layer.estimator
    return gradients, estimator.pool.states if hasattr(estimator, "pool") else torch.stack([*estimator.buffers()])
"""
exec(STEPS, NAMES)
CASES = [
    ("adaptive, no noise", "in_parts"),
    ("pooled, no noise", "in_parts"),
    ("adaptive, no noise, twice", "in_parts"),
    ("pooled, no noise, twice", "in_parts"),
    ("adaptive", "with_passes_beside"),
    ("pooled", "with_passes_beside"),
    ("adaptive, no noise", "with_logs_of_one_rank"),
    ("pooled, no noise", "with_logs_of_one_rank"),
]


@pytest.fixture(scope="module")
def stepped(on_two_ranks, tmp_path_factory):
    script = f"""
import warnings
from functools import partial
{COMMON}{MODELS}{STEPS}
result = {{}}
for broadcasts in (True, False):
    wrap = partial(DistributedDataParallel, broadcast_buffers=broadcasts)
    for kind, name in {CASES}:
        result[kind, name, broadcasts] = learn_by(kind, globals()[name], PARTS[rank], wrap, 2)
piped = lambda model: DistributedDataParallel(Pipelined(model))
result["piped"] = learn_by("adaptive, no noise", in_a_pipeline, PARTS[rank][:2], piped, 2)
model = seeded_model("adaptive")
parallel = DistributedDataParallel(model.linear)
try:
    mapgrad.pipelined(parallel, model.layer, [])
except ValueError as error:
    result["refused"] = str(error)
with torch.no_grad():
    result["evaluated"] = len([*mapgrad.pipelined(parallel, model.layer, [THETA.double()])])
for loads in (False, True):
    model = DistributedDataParallel(seeded_model("pooled, no noise"))
    gradients_of(model, in_parts(model, 2, PARTS[rank]), 0.1)
    if rank == 0 and loads:
        saved = seeded_model("pooled, no noise")
        gradients_of(saved, in_parts(saved, 1, [WHOLE[:3]]), 0.1)
        model.module.load_state_dict(saved.state_dict())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gradients_of(model, in_parts(model, 2, PARTS[rank]), 0.1)
    result["warned", loads] = [str(each.message) for each in caught]
result["alone"] = learn_by("adaptive", with_passes_beside, PARTS[rank])
"""
    return on_two_ranks(script, tmp_path_factory.mktemp("stepped"))


@pytest.mark.parametrize("broadcasts", [True, False])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_step_of_two_ranks_is_one_with_the_whole_batch(stepped, kind, name, broadcasts):
    gradients, state = NAMES["learn_by"](kind, NAMES[name], [NAMES["WHOLE"]])
    assert len(state) > 4 if "pooled" in kind else state[0] != 1.0
    for mine, mine_state in (found[kind, name, broadcasts] for found in stepped):
        torch.testing.assert_close(mine, gradients)
        assert torch.equal(mine_state, state)


def test_a_pipeline_belongs_into_the_wrapped_module(stepped):
    both = [one + other for one, other in zip(*(parts[:2] for parts in NAMES["PARTS"]), strict=True)]
    gradients, state = NAMES["learn_by"]("adaptive, no noise", NAMES["in_a_pipeline"], both, NAMES["Pipelined"])
    assert state[0] != 1.0
    for found in stepped:
        torch.testing.assert_close(found["piped"][0], gradients)
        assert torch.equal(found["piped"][1], state)
        assert "wrap a module whose forward pass has the loop" in found["refused"]
        assert found["evaluated"] == 1


def test_a_checkpoint_that_one_rank_loads_alone_is_noticed(stepped):
    for found in stepped:
        assert not found["warned", False]
        (message,) = found["warned", True]
        assert "let each rank load a checkpoint" in message


def test_ranks_without_ddp_adapt_by_themselves(stepped):
    for rank, found in enumerate(stepped):
        gradients, state = NAMES["learn_by"]("adaptive", NAMES["with_passes_beside"], NAMES["PARTS"][rank])
        assert all(map(torch.equal, found["alone"][0], gradients))
        assert torch.equal(found["alone"][1], state)
