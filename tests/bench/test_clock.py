"""Times: who takes turns with whom, and what is counted."""

import gc
import subprocess
import sys
import time

import pytest
import torch

from mapgrad.bench import Spread
from mapgrad.bench._clock import QUICK, Effort, cpu_clock, interleave, one_thread, seconds_of

BURN = "import time\nuntil = time.process_time() + 0.1\nwhile time.process_time() < until: pass"


def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_work_of_twice_the_time_has_a_ratio_of_two():
    times = interleave({"one": lambda: burn(2e-3), "two": lambda: burn(4e-3)}, Effort(0.05, 5))
    assert len(times["one"].cpu) == len(times["two"].wall) >= 5
    ratio = Spread.of_ratios(times["two"].cpu, times["one"].cpu)
    assert 1.8 < ratio.median < 2.2
    assert ratio.low <= ratio.median <= ratio.high


def test_candidates_take_turns_in_changing_order():
    calls = []
    names = ("a", "b", "c")
    interleave({name: lambda name=name: (calls.append(name), burn(3e-3)) for name in names}, Effort(0.0, 3))
    assert "".join(calls[-9:]) == "abcbcacab"


def test_a_quick_candidate_fills_a_sample_with_many_calls():
    calls = []
    times = interleave({"quick": lambda: calls.append(0)}, QUICK)
    assert len(calls) > 1000
    assert max(times["quick"].cpu) < 1e-5


def test_sleep_takes_no_cpu_time():
    cpu, wall = seconds_of(lambda: time.sleep(0.05))
    assert cpu < 0.02 < 0.04 < wall


def test_children_count():
    before = cpu_clock()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert cpu_clock() - before > 0.1


def test_torch_has_its_threads_back():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_quartiles_of_one_value_are_that_value():
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)
    assert Spread.of([1, 2, 3, 4, 5]) == Spread(3, 2, 4)


def test_no_garbage_is_collected_amid_what_is_timed():
    seen = []
    seconds_of(lambda: seen.append(gc.isenabled()))
    assert (seen, gc.isenabled()) == ([False], True)
    with pytest.raises(KeyError):
        seconds_of({}.popitem)
    assert gc.isenabled()
