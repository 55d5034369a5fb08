"""Each kind of failure ends in its exit code and a sentence; only what nobody foresaw comes with a traceback."""

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError
from prefect.exceptions import TerminationSignal

from flows.failures import explain_failure
from flows.job import JobError
from model.engines.base import EngineError
from sinks.dataset.parquet import DamagedFileError
from sinks.dataset.plans import UnsafeStoreError
from tasks.draining import Drained
from tasks.retrying import StorageUnavailable


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (JobError("job.yaml cannot be run"), 2, "job.yaml cannot be run"),
        (UnsafeStoreError("the store ignores conditional writes"), 2, "conditional writes"),
        (PermissionDeniedError("denied\n\nDebug source:\nlong"), 2, "refuses the credentials: denied"),
        (GenericError("connection refused\n\nDebug source:\nlong"), 1, "storage failed: connection refused"),
        (StorageUnavailable("20 images in a row"), 1, "tries them again"),
        (EngineError("it died"), 1, "the engine failed: it died"),
        (DamagedFileError("a.parquet"), 1, "damaged: a.parquet"),
        (Drained(), 4, "run the same command again"),
        (TerminationSignal(15), 4, "run the same command again"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_failure_is_a_code_and_a_sentence(error: BaseException, code: int, words: str) -> None:
    found, message = explain_failure(error)
    assert found == code
    assert words in message
    assert "Traceback" not in message
    assert "Debug source" not in message


def test_what_nobody_foresaw_comes_with_its_traceback() -> None:
    code, message = explain_failure(ZeroDivisionError("division by zero"))
    assert code == 1
    assert "ZeroDivisionError: division by zero" in message
    assert "Unexpected" in message
