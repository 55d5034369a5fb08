"""Calls in threads ahead of need, results in order, bounded in number and in bytes. Knows nothing of what is called."""

import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

LOOKS_FOR_STOP_SECONDS = 0.1


def run_ahead(
    call: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    ahead: int,
    stop: threading.Event | None = None,
    room: Callable[[int, list[Result]], bool] = lambda waiting, done: True,
) -> Generator[Result, None, None]:
    """call(item) for each item, in the items' order, at most `ahead` of them begun and not yet taken.

    room(waiting, done) is asked before one more is begun while others are: how many calls have no result yet, and the results nobody has taken. Once stop is set the
    stream ends within LOOKS_FOR_STOP_SECONDS, what was begun is thrown away. An exception of call is raised in its place in the order.
    items is read in the consumer's thread.
    """
    stop = stop or threading.Event()
    begun: deque[Future[Result]] = deque()
    pending = iter(items)
    exhausted = False
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prelabel-ahead")
    try:
        while not stop.is_set():
            while not exhausted and len(begun) < ahead and (not begun or _has_room(room, begun)):
                try:
                    begun.append(pool.submit(call, next(pending)))
                except StopIteration:
                    exhausted = True
            if not begun:
                return
            wait([begun[0]], timeout=LOOKS_FOR_STOP_SECONDS)
            if begun[0].done():
                yield begun.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _has_room(room: Callable[[int, list[Result]], bool], begun: Collection[Future[Result]]) -> bool:
    done = [call for call in begun if call.done()]
    return room(len(begun) - len(done), [call.result() for call in done if call.exception() is None])
