"""What runs on a CUDA device: the road, noise, layers and oracles give there what they give on the CPU."""

import copy

import pytest
import torch

import mapgrad
from mapgrad import exact
from mapgrad.batching import _arrivals
from mapgrad.batching._host import to_device, to_host
from mapgrad.gradients._counter import counter_noise, mix

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CPU = torch.device("cpu")
GPU = torch.device("cuda")
EDGES = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (3, 4), (2, 4)]
SOLVERS = {
    "topk": mapgrad.KSubset(12, 4),
    "topk.ranking": mapgrad.Ranking(9),
    "networkx.shortest_path": mapgrad.ShortestPath(5, EDGES, 0, 4),
    "networkx.matching": mapgrad.Matching(5, EDGES),
    "scipy.shortest_path": mapgrad.GridShortestPath(4, 4),
    "torch.shortest_path": mapgrad.GridShortestPath(4, 4),
    "scipy.assignment": mapgrad.Assignment(4),
    "scipy.milp": mapgrad.Knapsack([[2.0, 3.0, 4.0, 5.0]], [7.0]),
}
LAWS = [
    mapgrad.Gumbel(),
    mapgrad.Gaussian(),
    mapgrad.Logistic(),
    mapgrad.Laplace(),
    mapgrad.SumOfGamma(5.0),
    mapgrad.Centred(mapgrad.SumOfGamma(0.7)),
]
ESTIMATORS = {
    "default": mapgrad.IMLE,
    "samples": lambda: mapgrad.IMLE(samples=3),
    "one side": lambda: mapgrad.IMLE(target=mapgrad.Step(2.0), symmetric=False, samples=2),
    "gumbel": lambda: mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Combinatorial(), target_temperature=0.5),
    "adaptive": mapgrad.AdaptiveIMLE,
    "blackbox": lambda: mapgrad.Blackbox(5.0),
    "straight through": mapgrad.StraightThrough,
}


def _solver(name, **options):
    pytest.importorskip(name.split(".")[0]) if not name.startswith("topk") else None
    return mapgrad.get_solver(name.removesuffix(".ranking"), SOLVERS[name], **options)


def _utilities(name, *batch, dtype=torch.float32, seed=0):
    problem = SOLVERS[name]
    theta = torch.randn(*batch, *problem.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return (theta if problem.domain is mapgrad.Domain.REAL else -theta.abs()).to(dtype)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("workers", [None, 2])
def test_a_solver_answers_on_the_device_as_on_the_cpu(name, dtype, workers):
    theta = _utilities(name, 5, 7, dtype=dtype)
    with _solver(name, workers=workers) as solver:
        there, here = solver.solve(theta.to(GPU)), solver.solve(theta)
    assert (there.z.device.type, there.z.dtype, there.z.shape) == ("cuda", dtype, theta.shape)
    assert torch.equal(there.z.cpu(), here.z)
    for values in (there.status, there.objective, there.bound):
        assert values.device.type == "cuda"
    assert torch.equal(there.status.cpu(), here.status)
    torch.testing.assert_close(there.objective.cpu(), here.objective, equal_nan=True)


@pytest.mark.parametrize("name", SOLVERS)
def test_forbidden_entries_are_so_on_the_device(name):
    theta = _utilities(name, 40)
    flat = theta.view(40, -1)
    flat[torch.rand(flat.shape, generator=torch.Generator().manual_seed(1)) < 0.15] = -torch.inf
    found = []
    for device in (GPU, CPU):
        try:
            found.append(_solver(name).solve(theta.to(device)))
        except mapgrad.InfeasibleError as error:
            found.append(error.solutions)
    there, here = found
    assert there.z.device.type == "cuda"
    assert torch.equal(there.status.cpu(), here.status)
    torch.testing.assert_close(there.z.cpu(), here.z, rtol=0, atol=0, equal_nan=True)


def test_rows_that_fail_are_named():
    solver = mapgrad.get_solver("topk", mapgrad.KSubset(4, 3))
    theta = torch.zeros(3, 4, device=GPU)
    theta[1, :2] = -torch.inf
    with pytest.raises(mapgrad.InfeasibleError) as error:
        solver(theta)
    assert error.value.rows == (1,)
    theta[2, 0] = torch.nan
    with pytest.raises(mapgrad.NonFiniteError, match="row 2"):
        solver(theta)


def test_each_row_may_have_its_own_problem():
    problems = [mapgrad.KSubset(6, k) for k in (1, 2, 3, 2)]
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    solver = mapgrad.get_solver("topk", None)
    assert torch.equal(solver(theta.to(GPU), problems).cpu(), solver(theta, problems))
    layer = mapgrad.MAPLayer(solver, seed=3)
    there = theta.to(GPU).requires_grad_()
    z = layer(there, problems=problems)
    z.square().sum().backward()
    assert z.sum(dim=1).tolist() == [1, 2, 3, 2]
    assert there.grad is not None


@pytest.mark.parametrize("noise", LAWS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_the_same_up_to_rounding(noise, dtype):
    shape = (3, 50, 2000)  # more than one block of a device
    rows = torch.randint(-(2**62), 2**62, (50,), generator=torch.Generator().manual_seed(0))
    for ids in (None, rows):
        there, here = (
            counter_noise(noise, mix(1, 2), shape, event_ndim=1, dtype=dtype, device=device, rows=ids)
            for device in (GPU, CPU)
        )
        assert there.device.type == "cuda"
        torch.testing.assert_close(there.cpu(), here, rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=1e-9)


def test_what_a_generator_of_the_device_draws_is_of_the_law():
    for noise in [*LAWS, mapgrad.SumOfGamma(5.0, terms=10)]:
        generator = torch.Generator(GPU).manual_seed(0)
        drawn = noise.sample((200_000,), generator=generator, dtype=torch.float64, device=GPU)
        assert drawn.device.type == "cuda"
        assert abs(drawn.mean().item() - noise.mean) < 6 * noise.std / 200_000**0.5
        assert abs(drawn.std().item() / noise.std - 1) < 0.02


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_layer_gives_on_the_device_what_it_gives_on_the_cpu(name, estimator):
    theta = _utilities(name, 6, 3, seed=2)
    weight = torch.randn(theta.shape, generator=torch.Generator().manual_seed(3))
    rows = torch.arange(18).reshape(6, 3) * 7 + 5
    found = []
    for device in (GPU, CPU):
        layer = mapgrad.MAPLayer(_solver(name), ESTIMATORS[estimator](), seed=0).to(device)
        for _ in range(3):  # what adapts moves
            leaf = theta.clone().to(device).requires_grad_()
            z = layer(leaf, rows=rows.to(device))
            (z * weight.to(device)).sum().backward()
        assert z.device.type == leaf.grad.device.type == device.type
        assert layer.last.z.device.type == device.type
        found.append((z.detach().cpu(), leaf.grad.cpu(), layer.stats))
    (z, gradient, stats), (expected, expected_gradient, expected_stats) = found
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)
    for count in ("improvable", "dead", "rows", "clipped", "clipped_backward", "failed"):
        assert stats[count] == expected_stats[count]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("minimize", [False, True])
def test_dtypes_reductions_and_senses(dtype, reduction, minimize):
    found = []
    for device in (GPU, CPU):
        solver = mapgrad.get_solver("topk", mapgrad.KSubset(50, 5))
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(samples=4), seed=0, reduction=reduction, minimize=minimize)
        theta = torch.randn(9, 50, generator=torch.Generator().manual_seed(0)).to(device, dtype).requires_grad_()
        z = layer(theta)
        weight = torch.linspace(-1, 1, z.numel()).reshape(z.shape).to(device)
        (z.float() * weight).sum().backward()
        assert z.dtype == theta.grad.dtype == dtype
        layer.eval()
        found.append((z.detach().cpu(), theta.grad.cpu(), layer(theta).detach().cpu()))
    torch.testing.assert_close(*found, rtol=1e-2 if dtype.itemsize == 2 else 1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(300, 1000), (40, 20000)])
def test_large_batches_of_many_parts(size):
    found = []
    for device in (GPU, CPU):
        solver = mapgrad.get_solver("topk", mapgrad.KSubset(size[1], 10))
        layer = mapgrad.MAPLayer(solver, mapgrad.IMLE(samples=3), seed=0)
        theta = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
        z = layer(theta)
        (z * torch.linspace(-1, 1, size[1], device=device)).sum().backward()
        found.append((z.detach().cpu(), theta.grad.cpu()))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["topk", "scipy.assignment"])
def test_a_side_stream_needs_no_synchronisation(name):
    solver = _solver(name, merge=False)
    theta = _utilities(name, 300).to(GPU)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late = theta * 2
        z = solver(late)
        total = z * 3
        late.zero_()
    stream.synchronize()
    assert torch.equal(total.cpu(), 3 * solver(theta.cpu()))


def test_staging_goes_and_comes_back():
    rows = torch.randn(1000, 7, device=GPU)
    values = to_host(rows)
    assert values.device.type == "cpu"
    assert torch.equal(values, rows.cpu())
    back = to_device(values.double().numpy(), rows)
    assert (back.device, back.dtype) == (rows.device, rows.dtype)
    assert torch.equal(back, rows)
    assert to_host(rows[:0]).shape == (0, 7)
    assert torch.equal(to_host(rows.t()), rows.t().cpu())


@pytest.mark.parametrize("workers", [None, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_arrive_in_many_chunks_are_solved_as_at_once(monkeypatch, workers, dtype):
    theta = _utilities("scipy.assignment", 1000, dtype=dtype)
    monkeypatch.setattr(_arrivals, "_CHUNK_BYTES", 1 << 10)
    assert len(_arrivals.cut(theta.to(GPU), 1)) > 3
    with _solver("scipy.assignment", workers=workers, merge=False) as solver:
        here = solver(theta)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)
            late = theta.to(GPU, non_blocking=True) * 2
            there = solver(late)
            late.zero_()
        stream.synchronize()
    assert torch.equal(there.cpu(), here)


def test_a_batch_is_cut_by_bytes_and_workers():
    rows = torch.empty(10_000, 1000, device=GPU)  # 40 MB
    assert [len(part) for part in _arrivals.cut(rows, 1)[:2]] == [1048, 1048]
    assert sum(map(len, _arrivals.cut(rows, 1))) == 10_000
    assert len(_arrivals.cut(rows, 32)[0]) == 2048
    assert _arrivals.cut(rows[:100], 1) == [range(100)]


def test_transforms_agree_with_loops():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(8, 3)), mapgrad.Blackbox(3.0))
    theta = torch.randn(4, 5, 8, device=GPU, generator=torch.Generator(GPU).manual_seed(0))
    assert torch.equal(torch.vmap(layer)(theta), torch.stack([layer(each) for each in theta]))

    def loss(each):
        return (layer(each) * torch.arange(8.0, device=GPU)).sum()

    expected = torch.stack([torch.func.grad(loss)(each) for each in theta])
    assert torch.equal(torch.vmap(torch.func.grad(loss))(theta), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_layer_agrees_with_eager(backend):
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(8, 3)), mapgrad.IMLE(samples=2), seed=0)
    theta = torch.randn(5, 8, device=GPU, generator=torch.Generator(GPU).manual_seed(0))
    found = []
    for call in (torch.compile(copy.deepcopy(layer), backend=backend, fullgraph=True), copy.deepcopy(layer)):
        leaf = theta.clone().requires_grad_()
        z = call(leaf)
        (z * torch.arange(8.0, device=GPU)).sum().backward()
        found.append((z.detach(), leaf.grad))
    torch.testing.assert_close(*found)


def test_a_checkpoint_repeats_its_noise():
    found = []
    for repeats in (False, True):
        layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(8, 3)), seed=0)
        theta = torch.linspace(-1, 1, 8, device=GPU).expand(5, 8).clone().requires_grad_()
        call = layer
        if repeats:
            call = lambda x: torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)  # noqa: E731, B023
        (call(theta) * torch.arange(8.0, device=GPU)).sum().backward()
        found.append(theta.grad)
    assert torch.equal(*found)


def test_autocast_and_saved_state():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(8, 3)), mapgrad.AdaptiveIMLE(), seed=0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), layer).to(GPU)
    x = torch.randn(6, 4, device=GPU)
    for _ in range(2):
        with torch.autocast("cuda", dtype=torch.bfloat16):
            model(x).float().square().sum().backward()
    twin = copy.deepcopy(model)
    other = torch.nn.Sequential(torch.nn.Linear(4, 8), copy.deepcopy(layer)).to(GPU)
    other.load_state_dict(model.state_dict())
    expected = model(x)
    assert torch.equal(twin(x), expected)
    assert torch.equal(other(x), expected)


def test_a_gradient_that_is_not_finite_fails_its_row_alone():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(8, 3)), mapgrad.IMLE(samples=2), seed=0)
    theta = torch.randn(5, 8, device=GPU).requires_grad_()
    z = layer(theta)
    weight = torch.ones_like(z)
    weight[3, 1] = torch.inf
    z.backward(weight)
    assert theta.grad.isnan().all(dim=1).tolist() == [False, False, False, True, False]


def test_no_second_derivative():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(8, 3)))
    theta = torch.randn(5, 8, device=GPU).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(theta).square().sum(), theta, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


def test_a_distribution_draws_on_the_device():
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", mapgrad.KSubset(8, 3)), mapgrad.IMLE(samples=5), seed=0)
    law = layer.distribution(torch.zeros(2, 8, device=GPU))
    z = law.rsample((7,))
    assert (z.shape, z.device.type) == ((7, 2, 8), "cuda")
    assert (z.sum(dim=-1) == 3).all()
    assert law.mean.device.type == law.mode.device.type == "cuda"


def test_oracles_agree_with_the_cpu():
    problem = mapgrad.KSubset(6, 2)
    theta = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    for oracle in (exact.marginals, exact.probabilities, exact.log_partition, exact.map_state):
        there = oracle(problem, theta.to(GPU))
        assert there.device.type == "cuda"
        torch.testing.assert_close(there.cpu(), oracle(problem, theta))
    for noise in (mapgrad.Gumbel(), mapgrad.SumOfGamma(2.0)):
        there = exact.topk_marginals(theta.to(GPU), 2, noise)
        torch.testing.assert_close(there.cpu(), exact.topk_marginals(theta, 2, noise), rtol=1e-4, atol=1e-5)
    assert problem.contains(exact.map_state(problem, theta.to(GPU))).all()


def test_all_rows_on_the_gpu_are_recorded_also_where_a_kernel_would_add_the_noise(tmp_path):
    estimator = mapgrad.IMLE(mapgrad.Gumbel(), samples=3)
    layer = mapgrad.MAPLayer(_solver("topk"), estimator, seed=0)
    with mapgrad.record(tmp_path, failing=False) as recorder:
        layer(_utilities("topk", 5).to(GPU))
    assert recorder.written == 15
    for path in tmp_path.glob("*.json"):
        again = mapgrad.replay(path)
        assert again.is_same
        assert again.has_same_state


def test_true_states_are_looked_at_there():
    solver = mapgrad.get_solver("topk", SOLVERS["topk"])
    loss = mapgrad.losses.FenchelYoung(solver, None)
    pred = _utilities("topk", 8).to(GPU)
    z_true = solver(pred)
    for rows in (z_true, z_true.flip(0)):
        assert loss(pred, rows).device == pred.device
    z_true[3] = 0
    with pytest.raises(mapgrad.ProblemError, match=r"row 3 \(1 of 8\)"):
        loss(pred, z_true)
