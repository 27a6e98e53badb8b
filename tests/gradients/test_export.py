"""Programs of torch.export that are saved, and loaded elsewhere: a layer in eval mode with a solver of tensors."""

import io

import pytest
import torch

import mapgrad

PROBLEMS = {"k-subset": mapgrad.KSubset(6, 2), "ranking": mapgrad.Ranking(6)}
OPTIONS = {"utilities": {}, "costs": {"minimize": True}, "normalized": {"normalize": True, "reduction": "none"}}
BATCH = torch.export.Dim("batch")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it exports


def make_layer(problem="k-subset", **options):
    return mapgrad.MAPLayer(mapgrad.get_solver("topk", PROBLEMS[problem]), **options).eval()


def saved(program):
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def loaded(layer, theta, *, strict=False, dynamic=True):
    shapes = ({0: BATCH},) if dynamic else None
    program = torch.export.export(layer, (theta,), strict=strict, dynamic_shapes=shapes)
    return torch.export.load(io.BytesIO(saved(program))).module()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_loaded_program_answers_as_the_layer(problem, options, strict):
    layer = make_layer(problem, **OPTIONS[options])
    draw = torch.Generator().manual_seed(0)
    run = loaded(layer, torch.randn(3, 6, generator=draw), strict=strict)
    theta = torch.randn(8, 6, generator=draw)
    theta[:4] = theta[:4].round()  # ties
    assert torch.equal(run(theta), layer(theta))
    del layer
    assert run(theta).shape == (8, 6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_dtypes_and_dimensions(dtype, batch):
    layer = make_layer()
    theta = torch.randn(*batch, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    z = loaded(layer, torch.zeros_like(theta), dynamic=False)(theta)
    assert z.dtype == dtype
    assert torch.equal(z, layer(theta))


def test_rows_that_the_layer_refuses_are_nan():
    layer = make_layer(minimize=True)
    run = loaded(layer, torch.zeros(2, 6))
    costs = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    costs[0, 3] = torch.nan
    costs[1, 2] = -torch.inf
    costs[2, :4] = torch.inf  # two are left
    costs[3, :5] = torch.inf  # one is
    z = run(costs)
    assert z[[0, 1, 3]].isnan().all()
    assert torch.equal(z[[2, 4, 5]], layer(costs[[2, 4, 5]]))
    for row, error in ((0, mapgrad.NonFiniteError), (1, mapgrad.NonFiniteError), (3, mapgrad.InfeasibleError)):
        with pytest.raises(error):
            layer(costs[row])


def test_a_bare_solver_is_exported_too():
    solver = mapgrad.get_solver("topk", PROBLEMS["ranking"])

    class Choose(torch.nn.Module):
        def forward(self, theta):
            return solver(theta) * theta

    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(Choose(), torch.zeros(2, 6))(theta), Choose()(theta))


def test_a_program_has_no_gradient():
    theta = torch.zeros(2, 6, requires_grad=True)
    z = loaded(make_layer(), theta.detach())(theta)
    with pytest.raises(RuntimeError, match="has no gradient of a MAP layer that was in eval mode"):
        (z + theta).sum().backward()


class Shown(mapgrad.BatchSolver):
    """A solver that can't be exported."""

    def solve(self, theta):
        return torch.zeros_like(theta).scatter_(-1, theta.topk(2).indices, 1)


def test_other_processes(tmp_path, run_program):
    theta = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    layer = make_layer()
    other = mapgrad.MAPLayer(mapgrad.get_solver(Shown, PROBLEMS["k-subset"])).eval()
    model = torch.nn.Sequential(layer)
    (tmp_path / "with").write_bytes(saved(torch.export.export(model, (theta,))))
    with torch.no_grad():
        program = torch.export.export(model, (theta,))
    assert "mapgrad" not in program.graph_module.code
    program = torch.export.export(other, (theta,))
    assert torch.equal(program.module()(theta), other(theta))  # where the solver is
    (tmp_path / "other").write_bytes(saved(program))
    torch.save((theta, layer(theta)), tmp_path / "expected")
    done = run_program(
        """
import sys, torch, mapgrad
theta, expected = torch.load(f"{sys.argv[1]}/expected")
assert torch.equal(torch.export.load(f"{sys.argv[1]}/with").module()(theta), expected)
try:
    torch.export.load(f"{sys.argv[1]}/other").module()(theta)
except RuntimeError as error:
    assert "that another process loads has none: export a layer in eval mode with a solver of tensor" in str(error)
else:
    raise AssertionError
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
