"""What can go wrong between an image and its bytes, by what it means for the image, and jittered retries for clients that have none of their own."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

ATTEMPTS = 4
FIRST_DELAY_SECONDS = 0.25  # at most 0.25 + 0.5 + 1 s of waiting in all: a shard's neighbours wait for this image


class StorageError(Exception):
    """An image could not be read from storage; the message says why in a sentence and does not repeat its key."""


class Vanished(StorageError):
    """The object is gone."""

    def __init__(self) -> None:
        super().__init__("gone since it was listed")


class Changed(StorageError):
    """The object is no longer the listed version; the next run will find and label the new one."""

    def __init__(self) -> None:
        super().__init__("changed since it was listed")


class Unaddressable(StorageError):
    """No source can ask for such a key; says nothing of storage."""


class TooLarge(StorageError):
    """The object has more bytes than were asked for at most; size_bytes of them are known of."""

    def __init__(self, size_bytes: int, max_bytes: int) -> None:
        super().__init__(f"{size_bytes:,} bytes, more than the limit of {max_bytes:,}")
        self.size_bytes = size_bytes


class AccessDenied(StorageError):
    """Storage answers, and refuses."""


class TransientStorageError(StorageError):
    """Storage did not answer properly, after every retry; it may tomorrow."""


class StorageUnavailable(RuntimeError):
    """Storage as a whole cannot be read, which says nothing about the images: the work is undone and must be tried again."""


class SourceError(RuntimeError):
    """What the job names as its source cannot be listed; the message says what to do."""


class EmptySource(SourceError):
    """A prefix under which nothing is stored: mistyped, or nothing has arrived yet."""


def first_line(error: BaseException) -> str:
    """An error's own words without the dump that some clients append, and never empty."""
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__


def os_error_meaning(error: OSError) -> StorageError:
    """What an error of the operating system means for one file. All but a missing file and a lacking permission is taken as transient: EIO, ESTALE, EMFILE …"""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return Vanished()
    if isinstance(error, PermissionError):
        return AccessDenied(f"access denied: {error.strerror}")
    return TransientStorageError(f"storage failed: {error.strerror or first_line(error)}")


def retry_transient(call: Callable[[], Result], *, wait: Callable[[float], object] = time.sleep) -> Result:
    """call()'s result, tried again after a TransientStorageError with full jitter, ATTEMPTS times in all; any other exception is raised at once.

    Not for obstore, which retries by itself: the tries would multiply.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except TransientStorageError:
            wait(random.uniform(0, FIRST_DELAY_SECONDS * 2 ** (attempt - 1)))
    return call()
