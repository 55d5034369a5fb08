"""The way into an engine: drains a blocking stream of requests in a thread, prepares each there, and hands out what is ready. Knows no engine."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import numpy as np

from model.engines.base import Generation, Request

Prepared = TypeVar("Prepared")

AHEAD = 8  # prepared and waiting: a 2,560-cell image is up to 48 MB of patches, so few, but more than leave a batch in one step


class Feed(Generic[Prepared]):
    """Requests, prepared ahead of need by a thread of its own. At most `ahead` wait prepared. Any thread may take; close must be called."""

    def __init__(
        self, requests: Iterable[Request], prepare: Callable[[Request], Prepared], *, ahead: int = AHEAD
    ) -> None:
        """prepare turns a request into what take gives; an exception it raises is raised by take, like one raised by requests."""
        self._requests = requests
        self._prepare = prepare
        self._ahead = ahead
        self._ready: deque[Prepared] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        threading.Thread(target=self._drain, name="engine-feed", daemon=True).start()

    @property
    def exhausted(self) -> bool:
        """Nothing is ready and nothing will be."""
        with self._changed:
            return (self._ended or self._closed) and not self._ready

    def take(self, *, wait_seconds: float | None = 0.0) -> Prepared | None:
        """The next prepared request, waiting for it at most wait_seconds (None: as long as it takes). None: not ready in time, or exhausted.

        Raises what requests or prepare raised, at once: what was ready before it is not handed out any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended or self._closed, wait_seconds)
            if self._error is not None:
                raise self._error
            if not self._ready:
                return None
            self._changed.notify_all()
            return self._ready.popleft()

    def close(self) -> None:
        """Hands out nothing more and lets the thread end: at once, or when the request it is waiting for comes."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()

    def _drain(self) -> None:
        iterator = iter(self._requests)
        try:
            for request in iterator:
                if self._closed or not self._offer(self._prepare(request)):
                    break
        except BaseException as error:  # noqa: BLE001  whatever it is belongs to the thread that asked, where take raises it
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            # A generator is left where it stands by a break; closing it lets it release what it holds.
            if (close := getattr(iterator, "close", None)) is not None:
                close()

    def _offer(self, prepared: Prepared) -> bool:
        """Waits for room. False: closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._ahead or self._closed)
            if self._closed:
                return False
            self._ready.append(prepared)
            self._changed.notify_all()
            return True


def check_request(request: Request, prompt_ids: list[int], *, cell: int, context_length: int) -> int:
    """Tokens the model would read. Raises ValueError for an image that is not at the model's input size, or a prompt that leaves no room to answer."""
    image = request.image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image is {image.dtype} of shape {image.shape}, not uint8 (height, width, 3)")
    height, width = int(image.shape[0]), int(image.shape[1])
    if height % cell or width % cell or not height or not width:
        raise ValueError(
            f"the image is {width}×{height} pixels, not at the model's input size: sides must be multiples of {cell}"
        )
    tokens = len(prompt_ids) - 1 + (height // cell) * (width // cell)
    if tokens >= context_length:
        raise ValueError(f"image and prompt take {tokens} tokens and the engine's context holds {context_length}")
    return tokens


def refusal(request: Request, reason: str) -> Generation:
    """The answer to a request that the engine cannot take: no tokens, and why."""
    return Generation(request.request_id, np.empty(0, np.int32), None, "error", 0, 0.0, reason)
