"""The ledger of an output: plans, the commitment of shards, and the states of runs, all decided by records that are created once in the bucket.

Leaves reading rows to reading.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import pyarrow as pa
from obstore.store import ObjectStore

from sinks.dataset import cleaning, layout, markers
from sinks.dataset.cleaning import Cleaned
from sinks.dataset.manifests import put_manifest, read_manifest
from sinks.dataset.plans import Plans, check_layout
from sinks.dataset.records import FileEntry, ImageRecord, Marker, Plan, RunState, Shard
from sinks.dataset.states import STAGED, StateError, StateLog
from sinks.dataset.store import open_store


class UnknownRunError(ValueError):
    """A run the output does not have, or one that has no manifest yet."""


class Ledger:
    """One output's records. Any number of processes may have one each; safe to use from several threads.

    Every method may be called again after an error or a crash, by this process or another one.
    """

    def __init__(self, store: ObjectStore, url: str, credentials: str | None) -> None:
        self.store, self.url, self.credentials = store, url, credentials
        self._plans = Plans(store)
        self._log = StateLog(store)

    @classmethod
    def open(cls, url: str, credentials: str | None) -> "Ledger":
        """The ledger at url, which may be empty: a file URL's folder is made. Raises StoreUrlError, CredentialsError, LayoutVersionError."""
        store = open_store(url, credentials, create=True)
        with suppress(FileNotFoundError):  # a new output: its first plan says what it is
            check_layout(bytes(store.get(layout.OUTPUT).bytes()))
        return cls(store, url, credentials)

    def plans(self) -> list[Plan]:
        """All plans of the output, oldest run first."""
        return self._plans.all()

    def plan(self, run_id: str) -> Plan:
        """The run's plan. Raises UnknownRunError."""
        plan = next((plan for plan in self.plans() if plan.run_id == run_id), None)
        if plan is None:
            raise UnknownRunError(f"{self.url} has no run {run_id}")
        return plan

    def open_plan(self, fingerprint: str) -> Plan | None:
        """The plan to adopt and finish before another is made; None: there is none, or its run has a state."""
        latest = self._plans.latest(fingerprint)
        return latest if latest and self._log.state_of(latest.run_id) is None else None

    def create_plan(
        self,
        fingerprint: str,
        shards: Iterable[Sequence[ImageRecord]],
        *,
        job: str,
        facts: Mapping[str, str],
        complete_listing: bool,
    ) -> tuple[Plan | None, bool]:
        """Stores shards (none of them empty) as the fingerprint's next plan. Returns the plan that stands, and whether it is this one.

        An open plan, or another creator's that took the slot meanwhile, is returned instead, with False: adopt it. It may be closed by then: nothing
        of it is left, plan again. (None, False): shards held nothing, nothing was stored.
        shards is pulled only after the slot is chosen: what it leaves out as labelled must be looked up while it is pulled, not before, or a run
        that ended in between would be labelled twice. Holds the lists of 1,000 shards in memory.
        """
        latest = self._plans.latest(fingerprint)
        if latest and self._log.state_of(latest.run_id) is None:
            return latest, False
        number = latest.number + 1 if latest else 1
        return self._plans.create(fingerprint, number, shards, job=job, facts=facts, complete_listing=complete_listing)

    def shards_left(self, plan: Plan) -> list[int]:
        """Indices of the plan's shards that have no marker, ascending; none once its run has a state."""
        if self._log.state_of(plan.run_id) is not None:
            return []
        marked = set(markers.marked_indices(self.store, plan.run_id))
        return [index for index in range(plan.shards) if index not in marked]

    def read_shard(self, plan: Plan, index: int) -> Shard:
        """Raises IndexError beyond the plan's shards."""
        return self._plans.read_shard(plan, index)

    def commit_shard(
        self, shard: Shard, attempt: str, tables: Mapping[str, pa.Table], counts: Mapping[str, int]
    ) -> tuple[Marker, bool]:
        """Writes this attempt's tables ("images", "annotations"), then the shard's marker. Returns the marker that stands, and whether it is this attempt's.

        attempt: a name no other attempt has, fit for a path. Losing is no error: somebody else finished the shard, or abandoned it.
        The rows need not be sorted. Raises ValueError for tables that are not of the schema; what the store raises leaves the shard to be tried again.
        """
        return markers.commit(self.store, shard, attempt, tables, counts)

    def abandon_shard(self, shard: Shard, why: str) -> tuple[Marker, bool]:
        """Gives the shard up: a late worker loses, a later plan has its images again. Returns the marker that stands, and whether the shard is abandoned."""
        return markers.abandon(self.store, shard, why)

    def markers(self, plan: Plan) -> Iterator[Marker]:
        """The plan's markers so far, in the shards' order."""
        return markers.read_indices(self.store, plan.run_id, markers.marked_indices(self.store, plan.run_id))

    def stage_run(self, plan: Plan, *, who: str, why: str, details: Mapping[str, object] = {}) -> RunState:
        """Closes a finished plan: its manifest, then the state `staged`, whose details get the manifest's path and hash and the summed counts.

        Returns the run's present state if it has one. Raises StateError while shards are left.
        """
        present = self._log.state_of(plan.run_id)
        if present is not None:
            return present
        left = self.shards_left(plan)
        if left:
            raise StateError(f"run {plan.run_id} cannot be staged: {len(left)} of {plan.shards} shards are left")
        path, digest, counts = put_manifest(self.store, plan.run_id, self.markers(plan))
        about: dict[str, object] = {
            "fingerprint": plan.fingerprint,
            "manifest": path,
            "manifest_sha256": digest,
            "counts": counts,
        }
        return self._log.append(plan.run_id, STAGED, who=who, why=why, details={**details, **about})

    def append_state(
        self,
        run_id: str,
        state: str,
        who: str,
        why: str,
        details: Mapping[str, object] = {},
    ) -> RunState:
        """promoted, held or discarded; stage_run stages. A run that has the state already keeps its record, which is returned.

        Raises UnknownRunError, and StateError where the state cannot follow the present one.
        """
        if state == STAGED:
            raise StateError("a run is staged by stage_run, which writes its manifest")
        self.plan(run_id)
        return self._log.append(run_id, state, who=who, why=why, details=details)

    def states(self) -> tuple[RunState, ...]:
        """The log of all runs in its order. A run without a record is planned: see plans."""
        return self._log.read()

    def state_of(self, run_id: str) -> str:
        """planned | staged | promoted | held | discarded."""
        latest = self._log.state_of(run_id)
        return latest.state if latest else "planned"

    def files(self, run_id: str) -> list[FileEntry]:
        """The files of a staged run, sorted by key within each table: a run's shards follow one another in key order. Raises UnknownRunError."""
        staged = next((s for s in self.states() if s.run_id == run_id and s.state == STAGED), None)
        if staged is None:
            raise UnknownRunError(f"{self.url} has no finished run {run_id}")
        return read_manifest(self.store, str(staged.details["manifest"]), str(staged.details["manifest_sha256"]))

    def clean(self) -> Cleaned:
        """Deletes what lost: files of attempts whose shard is marked for another attempt or abandoned, shard lists whose plan slot went to another run.

        Nothing is deleted for its age, nothing of a shard or slot that is still open. May run beside workers and readers.
        """
        return cleaning.clean(self.store, self._plans.all(), self._log)
