"""Lanes: order within a lane, turns between them."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence

from workers.lanes import Lanes


def test_each_lane_keeps_its_order_and_has_one_thread_at_a_time() -> None:
    seen: defaultdict[str, list[int]] = defaultdict(list)
    inside: defaultdict[str, int] = defaultdict(int)
    overlaps = []

    def work(items: Sequence[tuple[str, int]]) -> None:
        lane = items[0][0]
        inside[lane] += 1
        overlaps.append(inside[lane])
        time.sleep(0.001)
        seen[lane] += [number for _, number in items]
        inside[lane] -= 1

    lanes = Lanes(work, threads=4, most=10_000, name="test")
    for number in range(100):
        for lane in "abcdef":
            lanes.add(lane, [(lane, number)])
    while lanes.held:
        time.sleep(0.001)
    lanes.close()
    assert seen == {lane: list(range(100)) for lane in "abcdef"}
    assert set(overlaps) == {1}


def test_what_waits_is_handed_over_together() -> None:
    go_on, batches = threading.Event(), []

    def work(items: Sequence[int]) -> None:
        batches.append(list(items))
        go_on.wait(10.0)

    lanes = Lanes(work, threads=2, most=100, name="test")
    lanes.add("a", [0, 1])
    while not batches:
        time.sleep(0.001)
    for number in (2, 3, 4):
        lanes.add("a", [number])
    go_on.set()
    while lanes.held:
        time.sleep(0.001)
    lanes.close()
    assert batches == [[0, 1], [2, 3, 4]]


def test_idle_is_when_nothing_is_held() -> None:
    go_on, idle = threading.Event(), threading.Event()
    lanes = Lanes(lambda _items: go_on.wait(10.0) and None, threads=1, most=10, name="test")
    lanes.wait_until_idle()
    lanes.add("a", [1])
    waiting = threading.Thread(target=lambda: (lanes.wait_until_idle(), idle.set()))
    waiting.start()
    assert not idle.wait(0.05)
    go_on.set()
    waiting.join(10.0)
    assert idle.is_set()
    lanes.close()


def test_too_many_wait_outside() -> None:
    go_on = threading.Event()
    lanes = Lanes(lambda _items: go_on.wait(10.0) and None, threads=1, most=2, name="test")
    lanes.add("a", [1])
    lanes.add("b", [2])
    outside = threading.Thread(target=lanes.add, args=("c", [3]))
    outside.start()
    outside.join(0.05)
    assert outside.is_alive()
    go_on.set()
    outside.join(10.0)
    assert not outside.is_alive()
    lanes.close()
    assert lanes.held <= 1  # what had no turn yet is dropped
