"""Deleting what lost a race, and nothing else: a path may go once the record that decides over it stands and does not name it."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from obstore.store import LocalStore, ObjectStore

from sinks.dataset import layout, markers
from sinks.dataset.records import Marker, Plan
from sinks.dataset.states import STAGED, StateLog

# obstore writes a local file beside its place and links it there; a killed process leaves the draft
_LOCAL_DRAFT = re.compile(r"#\d+$")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was deleted."""

    files: int
    size_bytes: int


class _Verdicts:
    """What the records that stand say of a path. A shard's marker is read once, and only if the shard has files."""

    def __init__(self, store: ObjectStore, plans: Iterable[Plan], log: StateLog) -> None:
        self._store = store
        self._winners = {layout.slot_path(plan.fingerprint, plan.number): plan.run_id for plan in plans}
        self._manifests = {
            entry.run_id: str(entry.details["manifest"]) for entry in log.read() if entry.state == STAGED
        }
        self._last_read: tuple[str, Marker | None] = ("", None)

    def named(self, path: str) -> bool | None:
        """Whether the record that decides over path names it; None: that record is still to come, or path is nothing that can lose."""
        match path.split("/"):
            case [layout.PARTS, fingerprint, number, run_id, _]:
                winner = self._winners.get(layout.slot_path(fingerprint, int(number)))
                return None if winner is None else winner == run_id
            case ["runs", run_id, "shards", index, _, _]:
                marker = self._marker(layout.marker_path(run_id, int(index)))
                return None if marker is None else any(file.path == path for file in marker.files)
            case ["runs", run_id, name] if name.startswith("manifest-") and run_id in self._manifests:
                return self._manifests[run_id] == path
            case _:
                return None

    def _marker(self, path: str) -> Marker | None:
        if self._last_read[0] != path:  # a listing has a shard's files together
            self._last_read = (path, markers.read(self._store, path))
        return self._last_read[1]


def clean(store: ObjectStore, plans: Iterable[Plan], log: StateLog) -> Cleaned:
    """Deletes every path that lost. See Ledger.clean."""
    verdicts = _Verdicts(store, plans, log)
    lost = [
        (meta["path"], meta["size"])
        for folder in (layout.PARTS, "runs")
        for batch in store.list(folder)
        for meta in batch
        if verdicts.named(meta["path"]) is False
    ]
    for path, _ in lost:
        with suppress(FileNotFoundError):  # another clean was faster
            store.delete(path)
    drafts = [(draft, draft.stat().st_size) for draft in _lost_drafts(store, verdicts)]
    for draft, _ in drafts:
        draft.unlink(missing_ok=True)
    return Cleaned(len(lost) + len(drafts), sum(size for _, size in (*lost, *drafts)))


def _lost_drafts(store: ObjectStore, verdicts: _Verdicts) -> Iterator[Path]:
    """Drafts of local files whose record stands, and of such records: once it stands no draft can win any more."""
    if not isinstance(store, LocalStore) or store.prefix is None:
        return
    root = Path(store.prefix)
    for path in root.rglob("*#*"):
        target = _LOCAL_DRAFT.sub("", path.relative_to(root).as_posix())
        is_draft = _LOCAL_DRAFT.search(path.name) is not None and path.is_file()
        is_record = target.endswith(".json")
        if is_draft and ((root / target).exists() if is_record else verdicts.named(target) is not None):
            yield path
