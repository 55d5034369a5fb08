import errno

import pytest

from tasks.retrying import (
    ATTEMPTS,
    AccessDenied,
    Changed,
    StorageError,
    TransientStorageError,
    Vanished,
    first_line,
    os_error_meaning,
    retry_transient,
)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (errno.ENOENT, Vanished),
        (errno.ENOTDIR, Vanished),
        (errno.EISDIR, Vanished),
        (errno.EACCES, AccessDenied),
        (errno.EPERM, AccessDenied),
        (errno.EIO, TransientStorageError),
        (errno.ESTALE, TransientStorageError),
        (errno.EMFILE, TransientStorageError),
        (errno.ETIMEDOUT, TransientStorageError),
        (errno.ECONNRESET, TransientStorageError),
    ],
)
def test_what_errors_of_the_operating_system_mean(code: int, meaning: type[StorageError]):
    assert type(os_error_meaning(OSError(code, "words of the system"))) is meaning


@pytest.mark.parametrize("failures", range(ATTEMPTS))
def test_transient_errors_are_tried_again(failures: int):
    outcomes = iter([*[TransientStorageError("busy")] * failures, "data"])
    waits: list[float] = []
    assert retry_transient(lambda: _give(next(outcomes)), wait=waits.append) == "data"
    assert len(waits) == failures
    assert all(0 <= wait <= 0.25 * 2**place for place, wait in enumerate(waits))


def test_a_lasting_error_is_raised_at_last():
    waits: list[float] = []
    with pytest.raises(TransientStorageError, match="busy"):
        retry_transient(lambda: _give(TransientStorageError("busy")), wait=waits.append)
    assert len(waits) == ATTEMPTS - 1


@pytest.mark.parametrize("error", [Vanished(), Changed(), AccessDenied("no"), KeyError("a mistake of ours")])
def test_other_errors_are_raised_at_once(error: Exception):
    waits: list[float] = []
    with pytest.raises(type(error)):
        retry_transient(lambda: _give(error), wait=waits.append)
    assert waits == []


def test_first_line():
    assert first_line(ValueError("\n what happened \nDebug source: …")) == "what happened"
    assert first_line(ValueError()) == "ValueError"


def _give(outcome: object) -> object:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
