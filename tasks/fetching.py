"""Images read and decoded ahead of the engine: in order, in threads, bounded in number and in memory. A bad image is a result with its reason; storage that is down is an exception."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from model.image_size import ImageLimits
from sinks.dataset.records import ImageRecord
from tasks.concurrency import run_ahead
from tasks.pictures import decode_image
from tasks.retrying import AccessDenied, StorageError, StorageUnavailable, TooLarge, TransientStorageError
from tasks.sources import ImageSource

# In memory at once; what is larger by itself is let in alone.
FILE_BYTES = 512 << 20  # files being read or decoded
DECODING_BYTES = 1 << 30  # whole decoded pictures
AHEAD_BYTES = 1 << 30  # pixels at the model's size, waiting for the engine
STORAGE_IS_DOWN_AFTER = 20  # reads in a row that storage failed


class FetchSettings(BaseModel):
    """How images are read and what is refused as one. Nothing here changes the pixels of an image that is not refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_pixels: int = Field(
        200_000_000, ge=1, description="larger pictures, by their header, are unreadable: never decoded"
    )
    max_bytes: int = Field(256 << 20, ge=1, description="larger files are unreadable: never read")
    threads: int = Field(16, ge=1, le=256, description="images read or decoded at once")
    ahead: int = Field(64, ge=1, description="images begun before the engine asks for them")


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """An image on its way to the model.

    etag: of what was read, or as listed where nothing was. status: None while all is well, else "unreadable" (the file) or "failed" (storage), with the error.
    width_px, height_px: the oriented picture as stored, None where no header could be read. pixels: (input_height_px, input_width_px, 3) uint8 RGB, or None.
    """

    record: ImageRecord
    etag: str
    status: Literal["unreadable", "failed"] | None
    error: str | None
    size_bytes: int
    width_px: int | None = None
    height_px: int | None = None
    pixels: NDArray[np.uint8] | None = None
    input_width_px: int | None = None
    input_height_px: int | None = None

    def without_pixels(self) -> "FetchedImage":
        return replace(self, pixels=None)


def fetch_images(
    records: Iterable[ImageRecord],
    source: ImageSource,
    limits: ImageLimits,
    settings: FetchSettings,
    stop: threading.Event,
) -> Iterator[FetchedImage]:
    """Each record's image at the model's size, in the records' order. Ends early, and promptly, once stop is set.

    records is read in the consumer's thread. Raises StorageUnavailable when STORAGE_IS_DOWN_AFTER reads in a row fail in storage: because it does not answer, or
    because it refuses and has not let a single image be read so far.
    """
    expected = limits.max_pixels * 3

    def room(waiting: int, done: list[_Attempt]) -> bool:
        held = sum(attempt.image.pixels.nbytes for attempt in done if attempt.image.pixels is not None)
        return held + (waiting + 1) * expected <= AHEAD_BYTES

    fetcher = _Fetcher(source, limits, settings, _Memory(FILE_BYTES), _Memory(DECODING_BYTES))
    attempts = run_ahead(fetcher.fetch, records, threads=settings.threads, ahead=settings.ahead, stop=stop, room=room)
    trouble: list[StorageError] = []
    read_any = False
    with closing(attempts):
        for attempt in attempts:
            if isinstance(attempt.failure, TransientStorageError | AccessDenied):
                trouble.append(attempt.failure)
                refused = any(isinstance(failure, AccessDenied) for failure in trouble)
                if len(trouble) >= STORAGE_IS_DOWN_AFTER and not (refused and read_any):
                    raise StorageUnavailable(
                        f"{len(trouble)} images in a row could not be read, the last one {attempt.image.record.key}: {attempt.failure}"
                    ) from attempt.failure
            else:
                trouble.clear()
                read_any = read_any or attempt.failure is None
            yield attempt.image


@dataclass(frozen=True, slots=True)
class _Attempt:
    image: FetchedImage
    failure: StorageError | None = None


@dataclass(frozen=True, slots=True)
class _Fetcher:
    """One image at a time, in any thread. files and decoding bound the memory of all threads together, taken in this order."""

    source: ImageSource
    limits: ImageLimits
    settings: FetchSettings
    files: "_Memory"
    decoding: "_Memory"

    def fetch(self, record: ImageRecord) -> _Attempt:
        if record.size_bytes > self.settings.max_bytes:
            return self._too_large(record, TooLarge(record.size_bytes, self.settings.max_bytes))
        with self.files.admit(record.size_bytes):
            try:
                data, etag = self.source.read(record, self.settings.max_bytes)
            except TooLarge as failure:  # a key list need not say the size
                return self._too_large(record, failure)
            except StorageError as failure:
                return _Attempt(FetchedImage(record, record.etag, "failed", str(failure), record.size_bytes), failure)
            return self._decode(record, etag, data)

    def _decode(self, record: ImageRecord, etag: str, data: bytes) -> _Attempt:
        picture = decode_image(data, self.limits, max_pixels=self.settings.max_pixels, admit=self.decoding.admit)
        height, width = picture.pixels.shape[:2] if picture.pixels is not None else (None, None)
        return _Attempt(
            FetchedImage(
                record,
                etag,
                "unreadable" if picture.error else None,
                picture.error,
                len(data),
                picture.width_px,
                picture.height_px,
                picture.pixels,
                input_width_px=width,
                input_height_px=height,
            )
        )

    def _too_large(self, record: ImageRecord, failure: TooLarge) -> _Attempt:
        return _Attempt(FetchedImage(record, record.etag, "unreadable", str(failure), failure.size_bytes))


class _Memory:
    """A bound on bytes in use at once. What is larger than all of it is let in alone."""

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self._used = 0
        self._freed = threading.Condition()

    @contextmanager
    def admit(self, size_bytes: int) -> Iterator[None]:
        with self._freed:
            self._freed.wait_for(lambda: self._used == 0 or self._used + size_bytes <= self._size)
            self._used += size_bytes
        try:
            yield
        finally:
            with self._freed:
                self._used -= size_bytes
                self._freed.notify_all()
