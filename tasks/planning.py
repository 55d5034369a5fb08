"""What a run has to label: the sorted listing merged with the sorted keys of what is labelled already; the rest becomes shards of a stored plan.

Neither side is ever held as a whole. Leaves listing and storing to others.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from model.annotations import FAILED, UNREADABLE
from sinks.dataset.ledger import Ledger
from sinks.dataset.reading import Labelled, labelled_keys
from sinks.dataset.records import ImageRecord, Plan


class UnsortedKeysError(RuntimeError):
    """A stream that has to be sorted by key is not: labelled images would be taken for new ones."""


@dataclass(frozen=True, slots=True)
class PlanCounts:
    """Images by what planning found: listed is the sum of the others."""

    listed: int = 0
    already: int = 0  # labelled in this version
    unreadable: int = 0  # labelled in this version: nobody could read it
    new: int = 0
    changed: int = 0  # labelled in another version
    retried: int = 0  # failed before; with retry_failed also unreadable before

    @property
    def to_label(self) -> int:
        return self.new + self.changed + self.retried


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """plan None: nothing is to be labelled. created False: another process's plan stands, adopt it; counts are of the listing made in vain."""

    plan: Plan | None
    created: bool
    counts: PlanCounts


def plan_run(
    ledger: Ledger,
    fingerprint: str,
    listed: Iterable[ImageRecord],
    *,
    shard_size: int,
    limit: int | None = None,
    retry_failed: bool = False,
    job: str,
    facts: Mapping[str, str],
) -> PlanOutcome:
    """Stores a plan for what is new, changed or failed. listed: sorted by key (by its UTF-8 bytes), each key once.

    limit: stop listing after as many images to label. retry_failed: plan unreadable images again too; failed ones always are.
    Memory does not grow with the listing. Raises UnsortedKeysError, and whatever listed raises: no plan is stored then.
    """
    merge = _Merge(retry_failed)

    def shards() -> Iterator[list[ImageRecord]]:
        # the labelled keys are looked up here, once the plan's slot is chosen: see Ledger.create_plan
        wanted = islice(merge.wanted(listed, labelled_keys(ledger, fingerprint)), limit)
        while shard := list(islice(wanted, shard_size)):
            yield shard

    complete = limit is None and not retry_failed
    plan, created = ledger.create_plan(fingerprint, shards(), job=job, facts=facts, complete_listing=complete)
    return PlanOutcome(plan, created, merge.counts())


def preview_plan(
    ledger: Ledger,
    fingerprint: str,
    listed: Iterable[ImageRecord],
    *,
    limit: int | None = None,
    retry_failed: bool = False,
) -> PlanCounts:
    """What plan_run would find. Stores nothing."""
    merge = _Merge(retry_failed)
    for _ in islice(merge.wanted(listed, labelled_keys(ledger, fingerprint)), limit):
        pass
    return merge.counts()


class _Merge:
    """One pass over both streams, and what was counted in it."""

    def __init__(self, retry_failed: bool) -> None:
        self._again = (FAILED, UNREADABLE) if retry_failed else (FAILED,)
        self._already = self._unreadable = self._new = self._changed = self._retried = 0

    def counts(self) -> PlanCounts:
        kinds = (self._already, self._unreadable, self._new, self._changed, self._retried)
        return PlanCounts(sum(kinds), *kinds)

    def wanted(self, listed: Iterable[ImageRecord], labelled: Iterator[Labelled]) -> Iterator[ImageRecord]:
        """The images to label, in order. Raises UnsortedKeysError."""
        key, etag, status = next(labelled, _END)
        before = ""
        for image in listed:
            wanted_key = image.key
            if wanted_key <= before:
                raise UnsortedKeysError(f"the listing has {wanted_key} after {before}")
            before = wanted_key
            while key is not None and key < wanted_key:
                key, etag, status = next(labelled, _END)
            if key != wanted_key:
                self._new += 1
            elif etag != image.etag:
                self._changed += 1
            elif status in self._again:
                self._retried += 1
            elif status == UNREADABLE:
                self._unreadable += 1
                continue
            else:
                self._already += 1
                continue
            yield image


_END = (None, "", "")
