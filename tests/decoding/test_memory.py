"""A block under a ceiling cannot reserve more memory than allowed, and the limit ends with the block."""

import resource
import threading

import numpy as np
import pytest

from emotion_detection.decoding.memory import ENFORCED, memory_ceiling

pytestmark = pytest.mark.skipif(not ENFORCED, reason="only Linux limits the memory")
MEGABYTE = 1 << 20


def soft_limit():
    return resource.getrlimit(resource.RLIMIT_AS)[0]


def test_allocation_beyond_the_ceiling_fails():
    before = soft_limit()
    with memory_ceiling(200 * MEGABYTE):
        assert np.zeros(100 * MEGABYTE, np.uint8).size
        with pytest.raises(MemoryError):
            np.zeros(300 * MEGABYTE, np.uint8)
    assert soft_limit() == before
    assert np.zeros(300 * MEGABYTE, np.uint8).size


def test_limit_ends_after_an_error():
    before = soft_limit()
    with pytest.raises(ValueError, match="inside"), memory_ceiling(MEGABYTE):
        raise ValueError("inside")
    assert soft_limit() == before


def test_blocks_at_the_same_time_share_the_sum():
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with memory_ceiling(400 * MEGABYTE):
            entered.set()
            leave.wait(10)

    before = soft_limit()
    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    with memory_ceiling(MEGABYTE):
        assert np.zeros(200 * MEGABYTE, np.uint8).size
        with pytest.raises(MemoryError):
            np.zeros(800 * MEGABYTE, np.uint8)
    leave.set()
    thread.join()
    assert soft_limit() == before


def test_own_limit_of_a_person_is_not_raised(monkeypatch):
    limits = [(1 << 50, resource.RLIM_INFINITY)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.append(both))
    with memory_ceiling(1 << 60):
        assert limits[-1][0] == 1 << 50
    assert limits[-1][0] == 1 << 50
