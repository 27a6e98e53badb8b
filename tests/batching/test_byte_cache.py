"""A function whose results are kept within a budget of bytes."""

import threading

import pytest

from mapgrad.batching import ByteCache


def test_results_used_last_are_kept_as_far_as_they_fit():
    made = []

    def make(key):
        made.append(key)
        return bytes(key)

    cache = ByteCache(make, len, 100_000)
    for key in (30_000, 30_001, 30_000, 20_000, 30_000):
        assert cache(key) == bytes(key)
    assert made == [30_000, 30_001, 20_000]
    cache(30_002)  # 30,001 was used longest ago
    assert [cache(key) and len(made) for key in (30_000, 30_002, 20_000)] == [4, 4, 4]
    cache(30_001)
    assert made[-1] == 30_001
    cache(200_000)  # the last one, whatever it takes
    assert len(cache) == 1
    cache(200_000)
    assert made[-1] == 200_000
    assert made.count(200_000) == 1
    cache.clear()
    assert len(cache) == 0
    cache(200_000)
    assert made.count(200_000) == 2


def test_many_small_results_are_kept_but_not_without_end():
    made = []
    cache = ByteCache(lambda key: made.append(key) or key, lambda _: 0, 2**20)
    for _ in range(2):
        for key in range(100):
            assert cache(key) == key
    assert made == [*range(100)]
    for key in range(10_000):
        cache(key)
    assert 100 < len(cache) < 1000


def test_nothing_is_kept_of_what_fails():
    asked = []

    def make(key):
        asked.append(key)
        raise ValueError(key)

    cache = ByteCache(make, len, 100)
    for _ in range(2):
        with pytest.raises(ValueError, match="7"):
            cache(7)
    assert asked == [7, 7]
    assert len(cache) == 0


def test_threads_may_share_it():
    cache = ByteCache(lambda key: bytes(key), len, 60_000)
    wrong = []

    def ask(first):
        for step in range(2000):
            key = (first + step * 7) % 40 + 1000
            if len(cache(key)) != key:
                wrong.append(key)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 0 < len(cache) <= 60_000 // (1000 + 4096)
