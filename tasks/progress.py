"""How far a long piece of work is: a bar with images/s and the time left on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LOG_EVERY_SECONDS = 15.0

Item = TypeVar("Item")
Advance = Callable[[], None]  # one image more is through; may be called from any thread


def announce(what: str) -> None:
    """Says on standard error what takes a while now and cannot be counted."""
    print(f"{what} …", file=sys.stderr, flush=True)


@contextmanager
def show_progress(what: str, total: int | None) -> Iterator[Advance]:
    """A counter of images on standard error, shown until the block ends. total None: not known beforehand."""
    with _bar(what, total) if sys.stderr.isatty() else _log_lines(what, total) as advance:
        yield advance


def show_listing(listed: Iterable[Item]) -> Iterator[Item]:
    """The items, counted on standard error as they pass."""
    with show_progress("listing", None) as advance:
        for item in listed:
            advance()
            yield item


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:.1f} images/s" if rate else "– images/s", style="progress.data.speed")


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)


@contextmanager
def _log_lines(what: str, total: int | None) -> Iterator[Advance]:
    started = last_line = time.monotonic()
    done = 0
    lock = Lock()

    def line(now: float) -> str:
        rate = done / max(now - started, 1e-9)
        if total is None:
            return f"{what}: {done} images, {rate:.1f} images/s"
        left = f", about {(total - done) / rate:.0f} s left" if 0 < done < total else ""
        return f"{what}: {done} of {total} images, {rate:.1f} images/s{left}"

    def advance() -> None:
        nonlocal done, last_line
        with lock:
            done += 1
            now = time.monotonic()
            if now - last_line < LOG_EVERY_SECONDS:
                return
            last_line = now
            text = line(now)
        print(text, file=sys.stderr, flush=True)

    try:
        yield advance
    finally:
        print(line(time.monotonic()), file=sys.stderr, flush=True)
