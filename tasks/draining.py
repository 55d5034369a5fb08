"""Stopping without losing work: the first Ctrl-C or SIGTERM asks for a drain, the second ends at once. What a drain means is up to whoever watches the event."""

import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def drain_on_signals() -> Iterator[threading.Event]:
    """An event set by the first SIGINT or SIGTERM; a second one raises KeyboardInterrupt. The former handlers come back on leaving.

    Inside another drain it is that one's event: a signal is heard by all of them, whenever it comes. Outside the main thread, where Python allows no handlers,
    the event is never set by a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event()
        return
    outer = signal.getsignal(signal.SIGINT)  # not SIGTERM's: Prefect takes that over as each flow begins
    drain = outer if isinstance(outer, _Drain) else _Drain()
    former = {number: signal.signal(number, drain) for number in _SIGNALS}
    try:
        yield drain.stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class _Drain:
    """A signal handler."""

    stop: threading.Event = field(default_factory=threading.Event)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        self.stop.set()
        print(
            f"{signal.Signals(number).name}: finishing what is in the engine and committing whole shards; again to stop at once",
            file=sys.stderr,
            flush=True,
        )


class Drained(Exception):
    """A drain was asked for before there was anything to keep."""


def until_stopped(stop: threading.Event, items: Iterable[Item]) -> Iterator[Item]:
    """The items, until the event is set: then Drained is raised, since half a listing must not be taken for a whole one."""
    for item in items:
        if stop.is_set():
            raise Drained
        yield item
