from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rtchord.audio.ring import RingBuffer


def ramp(start: int, count: int, channels: int = 1) -> np.ndarray:
    """(count, channels); channel `c` is the ramp plus c / 2."""
    return np.arange(start, start + count, dtype=np.float32)[:, None] + np.arange(channels, dtype=np.float32) / 2


def read(ring: RingBuffer, most: int) -> np.ndarray:
    out = np.full((ring.channels, most), np.nan, np.float32)
    return out[:, : ring.read_into(out)].T


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


def test_the_chosen_columns_become_channels_in_their_order() -> None:
    ring = RingBuffer(8, channels=2)
    for start in range(0, 60, 6):
        ring.write(ramp(start, 6, channels=3), columns=(2, 0))
        np.testing.assert_array_equal(read(ring, 100), ramp(start, 6, channels=3)[:, [2, 0]])


def test_a_small_reader_gets_the_rest_later() -> None:
    ring = RingBuffer(8)
    ring.write(ramp(0, 7))
    assert [read(ring, 3)[:, 0].tolist() for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]


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


def test_blocks_and_overflows_are_counted_and_the_newest_is_stamped() -> None:
    import time

    ring, before = RingBuffer(8), time.perf_counter()
    ring.write(ramp(0, 1))
    ring.write(ramp(1, 1), overflow=True)
    assert (ring.blocks, ring.overflows) == (2, 1)
    assert before <= ring.arrived <= time.perf_counter()


def test_silence_is_zeros_in_all_of_the_newest_frames() -> None:
    ring = RingBuffer(8, channels=2)
    ring.write(ramp(1, 3, channels=2), columns=(0, 1))
    ring.write(np.zeros((6, 2), np.float32), columns=(0, 1))
    assert ring.silent(5)
    assert not ring.silent(6)
    assert not ring.silent(100)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_sound_in_any_one_channel_is_no_silence(channel: int) -> None:
    ring, block = RingBuffer(8, channels=3), np.zeros((4, 3), np.float32)
    block[2, channel] = 1e-6
    ring.write(block, columns=(0, 1, 2))
    assert not ring.silent(4)
    assert ring.silent(1)


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


def offer_all(ring: RingBuffer, total: int) -> None:
    """Write a ramp; what finds no room is offered again."""
    sizes = np.random.default_rng(1).integers(1, 700, 4096)
    sent = turn = 0
    while sent < total:
        sent += ring.write(ramp(sent, min(int(sizes[turn % sizes.size]), total - sent)))
        turn += 1


def gather(ring: RingBuffer, total: int, writer: Any) -> np.ndarray:
    parts, got = [], 0
    while got < total and (writer.is_alive() or len(ring)):
        parts.append(read(ring, 513))
        got += len(parts[-1])
    writer.join()
    return np.concatenate(parts)


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("capacity", [512, 1 << 14])
def test_two_threads_lose_and_reorder_nothing(capacity: int) -> None:
    ring, total = RingBuffer(capacity), 100_000
    writer = threading.Thread(target=offer_all, args=(ring, total))
    writer.start()
    np.testing.assert_array_equal(gather(ring, total, writer), ramp(0, total))


def other_process(memory: Any, capacity: int, total: int) -> None:
    offer_all(RingBuffer(capacity, memory=memory), total)


def test_two_processes_lose_and_reorder_nothing() -> None:
    context, capacity, total = multiprocessing.get_context("spawn"), 1 << 12, 400_000
    memory = context.RawArray("b", RingBuffer.nbytes(capacity))
    writer = context.Process(target=other_process, args=(memory, capacity, total))
    writer.start()
    np.testing.assert_array_equal(gather(RingBuffer(capacity, memory=memory), total, writer), ramp(0, total))


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
        parts.append(read(ring, 64)[:, 0])
    writer.join()
    heard = np.concatenate(parts)
    assert (np.diff(heard) > 0).all()
    assert heard.size + ring.dropped == total
    assert ring.dropped > 0
