"""What an exception means for whoever started the command: an exit code and a sentence that says what to do."""

import traceback

from obstore.exceptions import BaseError as StoreError
from obstore.exceptions import PermissionDeniedError, UnauthenticatedError
from prefect.exceptions import TerminationSignal

from flows.job import JobError
from flows.publish import NothingPromotedError
from flows.spot_check import NothingToCheckError
from model.checkpoint import CheckpointError
from model.engines.base import EngineError
from model.tokens import TokenizerError
from sinks.dataset.json_records import BrokenRecordError
from sinks.dataset.ledger import UnknownRunError
from sinks.dataset.parquet import DamagedFileError, SchemaVersionError
from sinks.dataset.plans import LayoutVersionError, UnsafeStoreError
from sinks.dataset.states import StateError
from sinks.dataset.store import CredentialsError, StoreConflictError, StoreUrlError
from tasks.checkpoints import CheckpointUnavailable
from tasks.draining import Drained
from tasks.golden import GoldenSetError
from tasks.key_lists import KeyListError
from tasks.retrying import SourceError, StorageUnavailable, first_line

FAULT, BAD_JOB, PARTIAL = 1, 2, 4

_BAD_JOB = (
    JobError,
    CheckpointError,
    CheckpointUnavailable,
    TokenizerError,
    CredentialsError,
    StoreUrlError,
    KeyListError,
    SourceError,
    UnknownRunError,
    StateError,
    UnsafeStoreError,
    LayoutVersionError,
    SchemaVersionError,
    NothingPromotedError,
    NothingToCheckError,
    GoldenSetError,
)


def explain_failure(error: BaseException) -> tuple[int, str]:
    """(exit code, message). What is nobody's fault but the program's comes with its traceback."""
    if isinstance(error, Drained):
        return PARTIAL, "stopped before anything was planned; run the same command again to go on"
    if isinstance(error, TerminationSignal):  # SIGTERM where no drain listens: as a flow begins or ends, or publishes
        return PARTIAL, "stopped; run the same command again to go on"
    if isinstance(error, _BAD_JOB):
        return BAD_JOB, str(error)
    if isinstance(error, EngineError):
        return FAULT, f"the engine failed: {error}\nWhat was committed is kept; the next run goes on from there."
    if isinstance(error, StorageUnavailable):
        return (
            FAULT,
            f"storage cannot be reached: {error}\nNothing was recorded for these images; the next run tries them again.",
        )
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return BAD_JOB, f"the store of the output or of a sink refuses the credentials: {first_line(error)}"
    if isinstance(error, StoreError | StoreConflictError):
        return (
            FAULT,
            f"storage failed: {first_line(error)}\nWhat was committed is kept; the next run goes on from there.",
        )
    if isinstance(error, BrokenRecordError | DamagedFileError):
        return FAULT, f"the dataset is damaged: {error}"
    details = "".join(traceback.format_exception(error))
    return FAULT, f"{details}\nUnexpected. What was committed is kept; the next run goes on from there."
