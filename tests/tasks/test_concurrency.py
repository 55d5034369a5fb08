import threading
import time
from collections.abc import Iterator

import pytest

from tasks.concurrency import run_ahead


def test_results_come_in_order_and_in_parallel():
    together = threading.Barrier(4, timeout=30)

    def call(number: int) -> int:
        if number < 4:
            together.wait()  # four at once, or it breaks
            time.sleep(0.01 * (4 - number))
        return number * number

    assert list(run_ahead(call, range(50), threads=4, ahead=8)) == [number * number for number in range(50)]


def test_never_more_than_ahead_are_begun():
    pulled = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        for number in range(100):
            pulled += 1
            yield number

    stream = run_ahead(lambda number: number, items(), threads=4, ahead=7)
    for taken in range(50):
        assert next(stream) == taken
        assert pulled <= taken + 1 + 7


def test_room_bounds_what_waits():
    most = 0

    def room(waiting: int, done: list[bytes]) -> bool:
        nonlocal most
        held = waiting + len(done)
        most = max(most, held)
        return held < 3

    assert len(list(run_ahead(bytes, range(40), threads=4, ahead=100, room=room))) == 40
    assert most <= 3


def test_without_room_one_is_still_begun():
    assert list(run_ahead(str, range(5), threads=2, ahead=4, room=lambda waiting, done: False)) == [
        "0",
        "1",
        "2",
        "3",
        "4",
    ]


def test_stop_ends_it_while_a_call_hangs():
    stop, release = threading.Event(), threading.Event()

    def call(number: int) -> int:
        if number == 3:
            stop.set()
            release.wait(30)
        return number

    try:
        assert list(run_ahead(call, range(1000), threads=2, ahead=4, stop=stop))[:3] in ([0, 1, 2], [0, 1], [0], [])
    finally:
        release.set()


def test_an_exception_comes_in_its_place():
    def call(number: int) -> int:
        if number == 2:
            raise TimeoutError("the call's own")
        return number

    stream = run_ahead(call, range(5), threads=3, ahead=5)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(TimeoutError, match="own"):
        next(stream)


def test_nothing():
    assert list(run_ahead(str, [], threads=1, ahead=1)) == []
