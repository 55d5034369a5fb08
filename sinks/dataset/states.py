"""The output's log of run states: append-only, one numbered record each, so that all writers see one order. Knows nothing of plans and shards."""

import os
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from getpass import getuser

from obstore.store import ObjectStore

from sinks.dataset import layout
from sinks.dataset.json_records import decode_record, encode_record
from sinks.dataset.records import RunState
from sinks.dataset.store import create_once, read_all

PLANNED, STAGED, PROMOTED, HELD, DISCARDED = "planned", "staged", "promoted", "held", "discarded"

_FOLLOWERS: dict[str, tuple[str, ...]] = {
    PLANNED: (STAGED, DISCARDED),
    STAGED: (PROMOTED, HELD, DISCARDED),
    HELD: (PROMOTED, DISCARDED),
    PROMOTED: (),
    DISCARDED: (),
}


def user_name() -> str:
    """Who a state is recorded for where nobody else is named: the user, by number where it has no name, as in many containers."""
    try:
        return getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


class StateError(ValueError):
    """A state that cannot follow the run's present one; the message says what the run is."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record as stored. writer: drawn for each append, so that a writer knows its own record again."""

    writer: str
    record: RunState


class StateLog:
    """The log of one output. Records never change: each is read once and remembered. Safe to use from several threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._known: list[RunState] = []
        self._lock = threading.Lock()

    def read(self) -> tuple[RunState, ...]:
        """All records in order."""
        with self._lock:
            known = len(self._known)
            paths = [meta["path"] for batch in self._store.list(layout.LOG) for meta in batch]
            last = max(map(layout.number_in, paths), default=0)
            # by number, not by listing: a folder's listing may miss a record made meanwhile and show a later one
            missing = [layout.log_path(order) for order in range(known + 1, last + 1)]
            for path, data in zip(missing, read_all(self._store, missing)):
                self._known.append(decode_record(_Entry, data, path).record)
            return tuple(self._known)

    def state_of(self, run_id: str) -> RunState | None:
        """The run's latest record; None while it is only planned, or unknown."""
        return next((entry for entry in reversed(self.read()) if entry.run_id == run_id), None)

    def append(self, run_id: str, state: str, *, who: str, why: str, details: Mapping[str, object]) -> RunState:
        """Adds a record, or returns the run's latest one where that says the same state already. Raises StateError where state cannot follow.

        Of two writers with different states the second in the log's order is judged against the first.
        """
        writer = secrets.token_hex(8)
        while True:
            log = self.read()
            latest = next((entry for entry in reversed(log) if entry.run_id == run_id), None)
            if latest is not None and latest.state == state:
                return latest
            present = latest.state if latest else PLANNED
            if state not in _FOLLOWERS[present]:
                followers = " or ".join(_FOLLOWERS[present]) or "nothing"
                raise StateError(f"run {run_id} is {present}: {followers} can follow, not {state}")
            at = datetime.now(UTC).isoformat(timespec="seconds")
            record = RunState(len(log) + 1, run_id, state, at, who, why, dict(details))
            entry = encode_record(_Entry(writer, record))
            if create_once(self._store, layout.log_path(record.order), entry) == entry:
                return record
