"""Layers whose solver works while the caller goes on: `submit` and `pipelined` give what calls give."""

import copy
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

import mapgrad

PROBLEM = mapgrad.KSubset(6, 2)


def layer_of(**arguments):
    estimator = copy.deepcopy(arguments.pop("estimator", None)) or mapgrad.IMLE(samples=3)
    return mapgrad.MAPLayer(mapgrad.get_solver("topk", PROBLEM), estimator, seed=7, **arguments)


def output_and_gradient(ask, theta):
    leaf = theta.clone().requires_grad_()
    z = ask(leaf)
    (z * torch.arange(z.numel(), dtype=z.dtype).reshape(z.shape)).sum().backward()
    return z.detach(), leaf.grad


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"reduction": "none"},
        {"minimize": True},
        {"estimator": mapgrad.AdaptiveIMLE(samples=2)},
        {"estimator": mapgrad.StraightThrough()},
        {"estimator": mapgrad.IMLE(mapgrad.Gumbel(), mapgrad.Step(2.0))},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("training", [True, False])
def test_submit_is_the_call(arguments, dtype, training):
    theta = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)
    called, submitted = layer_of(**arguments).train(training), layer_of(**arguments).train(training)
    for _ in range(2):
        expected = output_and_gradient(called, theta)
        got = output_and_gradient(lambda leaf: submitted.submit(leaf, rows=[*range(5)]).result(), theta)
        for one, other in zip(expected, got, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
    assert torch.equal(submitted.last.z, called.last.z)


def test_without_seed_the_noise_is_that_of_the_order_of_calls():
    theta = torch.zeros(4, 6)
    layer = mapgrad.MAPLayer(mapgrad.get_solver("topk", PROBLEM))
    torch.manual_seed(1)
    expected = [layer(theta), layer(theta)]
    torch.manual_seed(1)
    pending = [layer.submit(theta), layer.submit(theta)]
    assert all(torch.equal(one, other.result()) for one, other in zip(expected, pending, strict=True))
    assert not torch.equal(*expected)


class Gated:
    """A function that waits for leave, and notes what it is asked."""

    problem = PROBLEM

    def __init__(self):
        self.leave, self.asked = threading.Event(), []

    def __call__(self, theta):
        assert self.leave.wait(30)
        self.asked.append(float(theta[0, 0]))
        return torch.zeros_like(theta).index_fill(1, torch.tensor([0, 1]), 1.0)


def test_the_caller_goes_on_and_answers_come_in_order():
    function = Gated()
    layer = mapgrad.MAPLayer(function).eval()
    pending = [layer.submit(torch.full((2, 6), float(number))) for number in range(5)]
    assert not any(each.done() for each in pending)
    function.leave.set()
    last = pending[-1].result()
    assert all(each.done() for each in pending)
    assert function.asked == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert pending[-1].result() is last


def test_a_result_whose_wait_was_interrupted_can_be_waited_for_again():
    def interrupt(number, frame):
        raise KeyboardInterrupt

    function, handler = Gated(), signal.signal(signal.SIGALRM, interrupt)
    pending = mapgrad.MAPLayer(function).eval().submit(torch.ones(2, 6))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            pending.result()
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert not pending.done()
    threading.Timer(0.2, function.leave.set).start()
    assert pending.result().sum() == 4


@pytest.mark.parametrize("has_begun", [False, True])
def test_an_interrupt_as_the_thread_is_started_costs_that_answer_alone(has_begun, monkeypatch):
    start = threading.Thread.start

    def interrupted(thread):
        if has_begun:
            start(thread)
        raise KeyboardInterrupt

    function = Gated()
    layer = mapgrad.MAPLayer(function).eval()
    before = layer.submit(torch.zeros(2, 6))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt) as kept:
            layer.submit(torch.ones(2, 6))
    after = layer.submit(torch.full((2, 6), 2.0))
    function.leave.set()
    assert after.result().sum() == 4
    assert before.done()
    assert function.asked[-1] == 2
    del kept


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_waits_for_nothing_of_its_parent(in_child):
    function = Gated()
    layer = mapgrad.MAPLayer(function).eval()
    function.leave.set()
    ended = layer.submit(torch.ones(2, 6))
    assert ended.result().sum() == 4
    function.leave.clear()
    pending = layer.submit(torch.ones(2, 6))

    def child():
        function.leave.set()
        assert layer.submit(torch.ones(2, 6)).result().sum() == 4
        assert pending.done()
        with pytest.raises(RuntimeError, match="submit θ in this process"):
            pending.result()
        assert ended.result().sum() == 4

    in_child(child)
    function.leave.set()
    assert pending.result().sum() == 4


def test_errors_of_rows_come_with_the_result_each_time():
    pending = layer_of().submit(torch.tensor([[1.0, float("nan"), 0, 0, 0, 0], [1.0, 2, 3, 4, 5, 6]]))
    for _ in range(2):
        with pytest.raises(mapgrad.NonFiniteError) as caught:
            pending.result()
        assert caught.value.rows == (0,)


@pytest.mark.parametrize("training", [True, False])
def test_rows_that_are_written_to_before_the_result_are_an_error(training):
    """Whether the answer is that of θ before or after is a matter of chance."""
    layer, theta = layer_of().train(training), torch.randn(5, 6)
    pending = layer.submit(theta)
    theta.zero_()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="θ was written to while it was being solved"):
            pending.result()
    assert layer.last is None
    pending = layer.submit(theta.clone())
    theta[:, 0] = 1
    expected = pending.result()
    theta.zero_()
    assert torch.equal(pending.result(), expected)


def test_rows_in_inference_mode_are_taken():
    layer = layer_of().eval()
    with torch.inference_mode():
        theta = torch.randn(5, 6)
        assert torch.equal(layer.submit(theta).result(), layer(theta))


def test_what_a_function_raises_comes_with_the_result():
    def broken(theta):
        raise RuntimeError("no licence")

    with pytest.raises(mapgrad.SolverCrashError, match="no licence"):
        mapgrad.MAPLayer(broken).submit(torch.zeros(2, 3)).result()


def test_wrong_arguments_are_told_at_once():
    with pytest.raises(mapgrad.ShapeError):
        layer_of().submit(torch.zeros(2, 5))
    with pytest.raises(TypeError, match="context"):
        layer_of().submit(torch.zeros(2, 6), "context")


def test_traces_are_refused():
    with pytest.raises(RuntimeError, match=r"torch\.vmap"):
        torch.vmap(lambda row: layer_of().submit(row).result(), randomness="different")(torch.zeros(2, 6))


def test_a_gradient_is_recorded_as_where_it_was_submitted():
    theta = torch.zeros(2, 6, requires_grad=True)
    with torch.no_grad():
        pending = layer_of().submit(theta)
    assert not pending.result().requires_grad
    pending = layer_of().submit(theta)
    with torch.no_grad():
        z = pending.result()
    assert z.requires_grad


def test_context_reaches_the_function_and_autocast_does_not():
    seen = []

    def function(theta, capacity):
        seen.append((capacity, torch.is_autocast_enabled("cpu")))
        return torch.zeros_like(theta)

    layer = mapgrad.MAPLayer(function).eval()
    with torch.autocast("cpu", torch.bfloat16):
        layer.submit(torch.zeros(2, 3), 5).result()
    layer.submit(torch.zeros(2, 3), capacity=6).result()
    assert seen == [(5, False), (6, False)]


def test_pipelined_is_the_loop_with_the_network_ahead():
    inputs = list(torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0)))
    events, results = [], []
    for ahead in (None, 1, 3):
        torch.manual_seed(0)
        network, layer = torch.nn.Linear(4, 6), layer_of()
        events.clear()

        def noting(x, network=network):
            events.append("network")
            return network(x)

        pairs = ((x, layer(network(x))) for x in inputs)
        if ahead is not None:
            pairs = mapgrad.pipelined(noting, layer, iter(inputs), ahead=ahead)
        answers = []
        for x, z in pairs:
            events.append("answer")
            (z * x.sum()).sum().backward()
            answers.append(z.detach())
        if ahead is not None:
            assert events.index("answer") == ahead + 1
        results.append((torch.stack(answers), network.weight.grad))
    for result in results[1:]:
        assert torch.equal(result[0], results[0][0])
        assert torch.allclose(result[1], results[0][1])


@pytest.mark.parametrize("ahead", [1, 2])
def test_weights_that_change_while_the_network_is_ahead_are_no_silent_fault(ahead):
    network = torch.nn.Linear(4, 6)
    optimizer = torch.optim.SGD(network.parameters())
    for loop in range(2):
        pairs = mapgrad.pipelined(network, layer_of(), torch.randn(5, 3, 4), ahead=ahead)
        for x, z in pairs:
            (z * x.sum()).sum().backward()
            if loop:
                break
        optimizer.step()
    with pytest.raises(RuntimeError, match="let the optimizer step after the loop"):
        next(pairs)


def test_pipelined_wants_a_layer():
    with pytest.raises(TypeError, match="takes a MAPLayer, got Solver"):
        mapgrad.pipelined(torch.nn.Identity(), layer_of().solver, [])


@pytest.mark.parametrize("ahead", [0, -1, 1.5, True])
def test_pipelined_refuses(ahead):
    with pytest.raises((TypeError, ValueError), match="ahead"):
        mapgrad.pipelined(torch.nn.Identity(), layer_of(), [], ahead=ahead)


def test_nothing_is_kept_of_answers_that_nobody_waits_for():
    layer = layer_of()
    before = threading.active_count()
    for _ in range(20):
        layer.submit(torch.zeros(2, 6))
    layer.submit(torch.zeros(2, 6)).result()
    assert threading.active_count() <= before + 1


@pytest.mark.parametrize(
    ("engine", "workers"), [("highs", 1), ("ortools.cp_sat", 2), ("ortools.mip", 1), ("pulp.cbc", 2)]
)
def test_a_program_may_end_before_what_it_submitted(engine, workers):
    script = f"""
import torch, mapgrad
program = mapgrad.IntegerProgram(A_ub=[[3, 2, 4, 5, 1, 6]], b_ub=[9])
layer = mapgrad.MAPLayer(mapgrad.get_solver({engine!r}, program, workers={workers}), mapgrad.IMLE())
layer(torch.randn(2, 6))
pending = layer.submit(torch.randn(3000, 6))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_submit_says_that_it_takes_no_problems():
    with pytest.raises(TypeError, match=r"submit takes no problems=.*: call the layer itself"):
        layer_of().submit(torch.zeros(2, 6), problems=[PROBLEM, PROBLEM])
