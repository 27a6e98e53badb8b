"""The pool of states: distinct, bounded, the best of them, and kept with a model."""

import copy
import io
import itertools
import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_swa_multi_avg_fn

import mapgrad
from mapgrad.pool import StatePool

SUBSET = mapgrad.KSubset(6, 2)
STATES = SUBSET.states().float()


def pool_of(*states, max_bytes=1 << 20, problem=SUBSET):
    pool = StatePool(problem, max_bytes=max_bytes)
    for each in states:
        pool.add(each)
    return pool


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 14), max_size=6), max_size=6), st.integers(1, 20))
def test_it_is_a_bounded_set_that_forgets_what_was_not_added_for_longest(batches, capacity):
    pool = pool_of(max_bytes=capacity * 24)
    places = {tuple(state): place for place, state in enumerate(STATES.tolist())}
    used, kept = {}, []
    for number, batch in enumerate(batches):
        known = pool.add(STATES[torch.tensor(batch, dtype=torch.int64)])
        assert known.tolist() == [place in kept for place in batch]
        used.update(dict.fromkeys(batch, number))
        found = [places[tuple(state)] for state in pool.states.tolist()]
        every = set(batch) | set(kept)
        assert len(found) == len(set(found)) == (len(every) if len(every) <= capacity else capacity - capacity // 8)
        gone = every - set(found)
        assert max((used[place] for place in gone), default=-1) <= min((used[place] for place in found), default=99)
        assert [place for place in kept if place in found] == [place for place in found if place in kept]
        kept = found
    assert pool.contains(STATES).tolist() == [place in kept for place in range(15)]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 14), max_size=6), min_size=2, max_size=8), st.integers(1, 20))
def test_a_saved_pool_goes_on_as_the_unsaved_one(batches, capacity):
    pool, other = (StatePool(SUBSET, max_bytes=capacity * 24) for _ in range(2))
    for number, batch in enumerate(batches):
        if number == len(batches) // 2:
            other.load_state_dict(pool.state_dict())
        for each in (pool, other):
            each.add(STATES[torch.tensor(batch, dtype=torch.int64)])
    assert torch.equal(pool.states, other.states)


def memory_of(pool):
    """Bytes of all distinct memory that a pool holds for itself and for its versions."""
    tensors = [pool._held.memory, *pool._past.values()]
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}.values())


def test_versions_share_their_memory_and_stay_as_they_were():
    pool = StatePool(mapgrad.Ranking(64))
    before = []
    for number in range(200):
        pool.add(torch.arange(5 * number, 5 * number + 5.0)[:, None].expand(5, 64))
        before.append((pool.version, pool.states.clone()))
    assert len(pool) == 1000
    for version, states in before:
        assert torch.equal(pool.at(version), states)
    assert sum(states.nbytes for _, states in before) > 20 * (1 << 20)
    assert memory_of(pool) <= 3 * pool.states.nbytes


def test_a_full_pool_remembers_its_latest_versions_alone(monkeypatch):
    monkeypatch.setattr("mapgrad.pool._pool._PAST_BYTES", 1 << 10)
    pool = StatePool(mapgrad.Ranking(8), max_bytes=32 * 100)
    versions = []
    for number in range(500):
        pool.add(torch.full((1, 8), float(number)))
        versions.append((pool.version, pool.states.clone()))
        assert memory_of(pool) <= 2 * 32 * 100
    for version, states in versions[-12:]:
        assert torch.equal(pool.at(version), states)
    with pytest.raises(RuntimeError, match=r"needs the pool of Ranking\(n=8\) as it was .* let too many states go"):
        pool.at(versions[0][0])


def test_states_that_autograd_saved_may_be_added_to():
    pool, weight = pool_of(STATES[:3]), torch.ones(6, requires_grad=True)
    value = (pool.states @ weight).square().sum()
    pool.add(STATES[3])
    value.backward()
    torch.testing.assert_close(weight.grad, 4.0 * STATES[:3].sum(dim=0))


def test_states_come_in_inference_mode_and_outside_of_it():
    pool = pool_of()
    for number in range(4):
        with torch.inference_mode(number % 2 == 0):
            pool.add(STATES[number])
    assert torch.equal(pool.states, STATES[:4])
    assert not pool.states.is_inference()


def test_copies_take_no_more_than_the_states():
    problem = mapgrad.Ranking(1000)
    pool = StatePool(problem)
    for number in range(9):
        pool.add(torch.full((1, 1000), float(number)))
    assert len(pickle.dumps(pool)) < 2.5 * pool.states.nbytes
    other = pickle.loads(pickle.dumps(pool))
    for each in (pool, other, copy.deepcopy(pool)):
        each.add(torch.full((1, 1000), 9.0))
        assert len(each) == 10


@pytest.mark.parametrize("order", [*itertools.permutations(range(4))][::5])
def test_what_is_kept_does_not_depend_on_the_order_within_a_batch(order):
    pools = [pool_of(STATES[:3], STATES[list(each)], max_bytes=24 * 4) for each in ((0, 1, 2, 3), order)]
    assert torch.equal(pools[0].states, pools[1].states)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("lead", [(), (3,), (2, 0), (2, 3)])
def test_the_best_is_that_of_enumeration(dtype, lead):
    pool = pool_of(STATES[:9])
    theta = torch.randn(*lead, 6).to(dtype)
    value, place = pool.best(theta)
    scores = theta.to(value.dtype) @ pool.states.to(value.dtype).T
    assert value.shape == place.shape == lead
    torch.testing.assert_close(value, scores.amax(dim=-1))
    torch.testing.assert_close(scores.gather(-1, place[..., None])[..., 0], value)


def test_forbidden_entries_are_kept_out():
    pool = pool_of(STATES)
    theta = torch.tensor([[9.0, 8, 1, 2, 0, 0], [9.0, 8, 1, 2, 0, 0]])
    theta[0, 0] = -torch.inf
    theta[1, :5] = -torch.inf
    value, place = pool.best(theta)
    assert value.tolist() == [10, -torch.inf]
    assert pool.states[place[0]].tolist() == [0, 1, 0, 1, 0, 0]


def test_an_empty_pool_has_no_best():
    value, place = pool_of().best(torch.ones(3, 6))
    assert value.tolist() == [-torch.inf] * 3
    assert place.tolist() == [0] * 3
    assert pool_of().contains(STATES[:2]).tolist() == [False, False]


def test_many_rows_are_scored_in_blocks(monkeypatch):
    monkeypatch.setattr("mapgrad.pool._pool._BLOCK", 40)
    pool, theta = pool_of(STATES), torch.randn(50, 6)
    value, _ = pool.best(theta)
    torch.testing.assert_close(value, theta.topk(2).values.sum(1))


def test_states_of_several_dimensions_and_of_any_numbers():
    problem = mapgrad.Assignment(3)
    pool = pool_of(problem.states(), problem=problem)
    theta = torch.randn(2, 5, 3, 3)
    z = pool.states[pool.best(theta)[1]]
    assert torch.equal(z, mapgrad.get_solver("auto", problem)(theta))
    ranking = mapgrad.Ranking(4)
    pool = pool_of(ranking.states(), ranking.states()[:5] + 0.5, problem=ranking)
    assert len(pool) == 29
    pool.add(torch.tensor([[-0.0, 1, 2, 3], [0.0, 1, 2, 3]]))
    assert len(pool) == 29


def test_rows_without_a_state_are_left_out():
    z = STATES[:3].clone()
    z[1] = torch.nan
    assert len(pool_of(z)) == 2


def test_it_is_saved_copied_and_cast_with_a_model():
    pool = pool_of(STATES[:4])
    model = torch.nn.ModuleDict({"pool": pool})
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = torch.nn.ModuleDict({"pool": StatePool(SUBSET)})
    other.load_state_dict(torch.load(file, weights_only=True))
    for each in (other["pool"], copy.deepcopy(pool), pool.half()):
        assert torch.equal(each.states, pool.states)
        assert each.states.dtype == torch.float32
        each.add(STATES[:5])
        assert len(each) == 5


def test_its_text():
    assert repr(pool_of(STATES[:4])) == "StatePool(KSubset(n=6, k=2), 4 states)"


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
def test_it_is_in_torchs_checkpoints(full):
    model, other = (torch.nn.ModuleDict({"pool": StatePool(SUBSET), "linear": torch.nn.Linear(1, 1)}) for _ in range(2))
    model["pool"].add(STATES[:4])
    options = StateDictOptions(full_state_dict=full, cpu_offload=full)
    saved = get_model_state_dict(torch.compile(model), options=options)
    assert saved.keys() == model.state_dict().keys()
    set_model_state_dict(torch.compile(other), saved, options=options)
    assert torch.equal(other["pool"].states, model["pool"].states)


@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_an_average_of_models_keeps_its_pool(decay):
    model = torch.nn.ModuleDict({"pool": pool_of(STATES[:4]), "linear": torch.nn.Linear(1, 1)})
    averages = [
        AveragedModel(model, use_buffers=True, avg_fn=get_ema_avg_fn(decay)),
        AveragedModel(model, use_buffers=True, multi_avg_fn=get_swa_multi_avg_fn()),
    ]
    for average in averages:
        for _ in range(3):
            average.update_parameters(model)
        other = AveragedModel(torch.nn.ModuleDict({"pool": StatePool(SUBSET), "linear": torch.nn.Linear(1, 1)}))
        other.load_state_dict(average.state_dict())
        assert torch.equal(other.module["pool"].states, model["pool"].states)


@pytest.mark.parametrize("strict", [True, False])
def test_what_stands_for_no_problem_is_refused(strict):
    pool = pool_of(STATES[:4])
    other, saved = StatePool(SUBSET), pool.state_dict()
    name = "_problem._extra_state"
    for wrong in (torch.zeros(3), saved[name].to("meta"), "text"):
        with pytest.raises(RuntimeError, match=r"_problem.*: a saved pool has 32 bytes there .*, got .*damaged"):
            other.load_state_dict({**saved, name: wrong}, strict=strict)
        assert len(other) == 0
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"_problem._extra_state\""):
        StatePool(SUBSET).load_state_dict({"_extra_state": saved["_extra_state"]})
    other.load_state_dict({"_extra_state": saved["_extra_state"]}, strict=False)
    assert torch.equal(other.states, pool.states)


def test_bad_states_and_sizes_are_refused():
    pool = pool_of()
    with pytest.raises(mapgrad.ShapeError, match=r"states must be \[\*batch, 6\], got \(2, 5\)"):
        pool.add(torch.zeros(2, 5))
    with pytest.raises(mapgrad.ShapeError, match=r"θ must be \[\*batch, 6\], got \(5,\)"):
        pool.best(torch.zeros(5))
    with pytest.raises(ValueError, match="max_bytes must be an int of at least 1, got 0"):
        StatePool(SUBSET, max_bytes=0)


def test_a_saved_pool_that_cannot_be_is_refused():
    pool = pool_of()
    pool.add(STATES[:3])
    saved = pool.get_extra_state()
    assert sorted(saved[:, 0].tolist()) == [0, 1, 2]
    wrong = [
        (saved.index_fill(0, torch.tensor(1), bad), "NaN or infinity for state 1") for bad in (math.nan, -math.inf)
    ]
    wrong += [((saved.double() + 0.1).mul(1e300), "NaN or infinity for state 0")]
    wrong += [(saved + torch.eye(7)[0] * by, f"ages from {by:g} to") for by in (-1, 0.5, 1)]
    wrong += [(torch.cat([saved[:, :1] * 0, saved[:, 1:]], dim=1), "ages from 0 to 0")]
    wrong += [(torch.cat([saved[:, :1], saved[:1, 1:].expand(3, -1)], dim=1), "states that are equal")]
    for state, came in wrong:
        with pytest.raises(ValueError, match=rf"a saved pool of 3 states has finite ones.*, got {came}.*damaged\?"):
            pool.load_state_dict({**pool.state_dict(), "_extra_state": state})
        assert torch.equal(pool.get_extra_state(), saved)
    pool.load_state_dict({**pool.state_dict(), "_extra_state": torch.nn.Parameter(saved)})
    assert torch.equal(pool.get_extra_state(), saved)
    many = StatePool(mapgrad.KSubset(14, 7))
    many.add(many.problem.states().float())
    assert len(many) == 3432
    state = {name: value.half() for name, value in many.state_dict().items()}  # has no odd numbers beyond 2048
    other = StatePool(many.problem)
    other.load_state_dict(state)
    assert torch.equal(other.states, many.states)


def test_states_are_rounded_to_float32():
    pool = pool_of()
    state = torch.full((1, 6), 1 / 3, dtype=torch.float64)
    pool.add(state)
    pool.add(state.float())
    assert len(pool) == 1
    assert pool.contains(state).all()
    assert torch.equal(pool.states, state.float())


def test_autocast_makes_no_value_less_precise():
    pool = StatePool(mapgrad.KSubset(6, 2))
    pool.add(pool.problem.states())
    theta = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 1000
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pool.scores(theta), *pool.best(theta)
    assert all(map(torch.equal, found, (pool.scores(theta), *pool.best(theta))))


@pytest.fixture
def eager_threads():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_threads_share_a_pool():
    problem = mapgrad.KSubset(10, 3)
    every = problem.states().float()
    small, whole = StatePool(problem, max_bytes=40 * 20), StatePool(problem)
    loss = mapgrad.losses.MAPContrastive(mapgrad.get_solver("topk", problem), small)

    def use(seed):
        generator = torch.Generator().manual_seed(seed)
        for rows in every.split(1)[seed::4]:
            whole.add(rows)
            whole.contains(every)
            loss(torch.randn(1, 10, generator=generator), rows)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(4)))
    assert small.capacity * 7 // 8 <= len(small) <= small.capacity
    assert small.contains(small.states).all()
    assert len(whole) == len(every)
    assert whole.contains(every).all()
