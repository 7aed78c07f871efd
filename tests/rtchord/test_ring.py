from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from rtchord.audio.ring import MonoMix, RingBuffer


def ramp(start: int, count: int) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.float32)


def read(ring: RingBuffer, most: int) -> np.ndarray:
    out = np.full(most, np.nan, np.float32)
    return out[: ring.read_into(out)]


@pytest.mark.parametrize(("asked", "got"), [(1, 1), (5, 8), (8, 8), (44_100, 65_536)])
def test_capacity_is_the_next_power_of_two(asked: int, got: int) -> None:
    assert RingBuffer(asked).capacity == got


def test_capacity_must_be_positive() -> None:
    with pytest.raises(ValueError, match="0"):
        RingBuffer(0)


def test_samples_come_out_once_and_in_order_across_the_wrap() -> None:
    ring = RingBuffer(8)
    for start in range(0, 60, 6):
        assert ring.write(ramp(start, 6)) == 6
        np.testing.assert_array_equal(read(ring, 100), ramp(start, 6))
    assert read(ring, 100).size == 0


def test_a_small_reader_gets_the_rest_later() -> None:
    ring = RingBuffer(8)
    ring.write(ramp(0, 7))
    assert [read(ring, 3).tolist(), read(ring, 3).tolist(), read(ring, 3).tolist()] == [[0, 1, 2], [3, 4, 5], [6]]


def test_what_does_not_fit_is_dropped_from_the_end_and_counted() -> None:
    ring = RingBuffer(8)
    assert ring.write(ramp(0, 5)) == 5
    assert ring.write(ramp(5, 5)) == 3
    assert ring.write(ramp(10, 4)) == 0
    assert ring.dropped == 6
    np.testing.assert_array_equal(read(ring, 100), ramp(0, 8))


def test_a_block_longer_than_the_ring_fills_it() -> None:
    ring = RingBuffer(4)
    assert ring.write(ramp(0, 11)) == 4
    assert ring.dropped == 7


def test_writing_allocates_no_sample_memory() -> None:
    import tracemalloc

    ring, block = RingBuffer(1 << 16), ramp(0, 1 << 14)
    ring.write(block)
    tracemalloc.start()
    ring.write(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < block.nbytes // 8


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns every 10 us in place of every 5 ms: thousands of changes, at any instruction."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("capacity", [512, 1 << 14])
def test_two_threads_lose_and_reorder_nothing(capacity: int) -> None:
    """The writer offers again what found no room, so every sample must come out, once and in order."""
    ring, total = RingBuffer(capacity), 100_000
    sizes = np.random.default_rng(1).integers(1, 700, 4096)

    def produce() -> None:
        sent = turn = 0
        while sent < total:
            sent += ring.write(ramp(sent, min(int(sizes[turn % sizes.size]), total - sent)))
            turn += 1

    writer = threading.Thread(target=produce)
    writer.start()
    parts, got = [], 0
    while got < total and (writer.is_alive() or len(ring)):
        parts.append(read(ring, 513))
        got += parts[-1].size
    writer.join()
    np.testing.assert_array_equal(np.concatenate(parts), ramp(0, total))


@pytest.mark.usefixtures("restless")
def test_a_writer_that_does_not_wait_drops_whole_tails_and_counts_them() -> None:
    """As a driver does: what comes out is in order, and with the dropped count accounts for every sample."""
    ring, total, size = RingBuffer(256), 100_000, 100

    def produce() -> None:
        for start in range(0, total, size):
            ring.write(ramp(start, size))

    writer = threading.Thread(target=produce)
    writer.start()
    parts = []
    while writer.is_alive() or len(ring):
        parts.append(read(ring, 64))
    writer.join()
    heard = np.concatenate(parts)
    assert (np.diff(heard) > 0).all()
    assert heard.size + ring.dropped == total
    assert ring.dropped > 0


def test_mix_is_the_mean_of_the_chosen_channels() -> None:
    block = np.array([[1, 2, 6], [0, 4, -2]], np.float32)
    assert MonoMix((0, 1, 2), 8).mix(block).tolist() == pytest.approx([3, 2 / 3])
    assert MonoMix((2,), 8).mix(block).tolist() == [6, -2]
    assert MonoMix((2, 0), 8).mix(block).tolist() == [3.5, -1]


def test_mixing_allocates_no_sample_memory() -> None:
    import tracemalloc

    mix, block = MonoMix((0, 1, 2, 3), 1 << 14), np.ones((1 << 14, 4), np.float32)
    mix.mix(block)
    tracemalloc.start()
    mix.mix(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < block.nbytes // 16


def test_mix_needs_a_channel() -> None:
    with pytest.raises(ValueError, match="channel"):
        MonoMix((), 8)
