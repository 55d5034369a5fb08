import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sinks.dataset.ledger import Ledger
from sinks.dataset.records import ImageRecord, Plan
from tasks.planning import PlanCounts, PlanOutcome, UnsortedKeysError, plan_run, preview_plan
from tests.sinks.dataset.outputs import FINGERPRINT, label, records, whole_run


@pytest.fixture
def ledger() -> Ledger:
    return Ledger.open(f"memory://{secrets.token_hex(8)}", None)


def plan(
    ledger: Ledger, listed: list[ImageRecord], *, limit: int | None = None, retry_failed: bool = False
) -> PlanOutcome:
    return plan_run(
        ledger, FINGERPRINT, listed, shard_size=2, limit=limit, retry_failed=retry_failed, job="{}", facts={}
    )


def planned(ledger: Ledger, stored: Plan | None) -> list[ImageRecord]:
    assert stored
    return [image for index in range(stored.shards) for image in ledger.read_shard(stored, index).images]


def test_a_first_run_labels_everything(ledger: Ledger) -> None:
    outcome = plan(ledger, records(*range(5)))
    assert outcome.created
    assert planned(ledger, outcome.plan) == records(*range(5))
    assert outcome.counts == PlanCounts(listed=5, new=5)
    assert outcome.plan
    assert (outcome.plan.shards, outcome.plan.complete_listing) == (3, True)


def test_only_new_changed_and_failed_images_are_labelled_again(ledger: Ledger) -> None:
    whole_run(ledger, records(1, 2, 3, 5, 6), status={"0003.jpg": "failed", "0005.jpg": "unreadable"})
    listed = [*records(0, 1), *records(2, etag="2"), *records(3, 5, 9)]
    outcome = plan(ledger, listed)
    assert planned(ledger, outcome.plan) == [*records(0), *records(2, etag="2"), *records(3, 9)]
    assert outcome.counts == PlanCounts(listed=6, already=1, unreadable=1, new=2, changed=1, retried=1)
    assert outcome.counts.to_label == 4


def test_an_unchanged_archive_makes_no_plan(ledger: Ledger) -> None:
    whole_run(ledger, records(1, 2), state="held")
    outcome = plan(ledger, records(1, 2))
    assert outcome == PlanOutcome(None, False, PlanCounts(listed=2, already=2))
    assert len(ledger.plans()) == 1


def test_an_empty_listing_makes_no_plan(ledger: Ledger) -> None:
    assert plan(ledger, []) == PlanOutcome(None, False, PlanCounts())


def test_unreadable_images_are_tried_again_on_request(ledger: Ledger) -> None:
    whole_run(ledger, records(1, 2), status={"0002.jpg": "unreadable"})
    outcome = plan(ledger, records(1, 2), retry_failed=True)
    assert planned(ledger, outcome.plan) == records(2)
    assert outcome.counts == PlanCounts(listed=2, already=1, retried=1)
    assert outcome.plan
    assert not outcome.plan.complete_listing


def test_a_pilot_stops_listing_at_its_limit(ledger: Ledger) -> None:
    whole_run(ledger, records(0))

    def listed() -> Iterator[ImageRecord]:
        yield from records(0, 1, 2, 3)
        raise AssertionError("listed beyond the limit")

    outcome = plan_run(ledger, FINGERPRINT, listed(), shard_size=2, limit=3, job="{}", facts={})
    assert planned(ledger, outcome.plan) == records(1, 2, 3)
    assert outcome.counts == PlanCounts(listed=4, already=1, new=3)
    assert outcome.plan
    assert not outcome.plan.complete_listing


def test_a_discarded_run_is_labelled_again(ledger: Ledger) -> None:
    whole_run(ledger, records(1), state="discarded")
    assert planned(ledger, plan(ledger, records(1)).plan) == records(1)


def test_images_of_an_abandoned_shard_are_planned_again(ledger: Ledger) -> None:
    first = plan(ledger, records(1, 2, 3)).plan
    assert first
    ledger.abandon_shard(ledger.read_shard(first, 1), "its worker dies of it")
    label(ledger, first)
    ledger.stage_run(first, who="test", why="done")
    assert planned(ledger, plan(ledger, records(1, 2, 3)).plan) == records(3)


def test_an_open_plan_stands(ledger: Ledger) -> None:
    first = plan(ledger, records(1)).plan
    outcome = plan(ledger, records(1, 2))
    assert (outcome.plan, outcome.created) == (first, False)


def test_a_run_that_comes_and_goes_while_another_plans_is_not_labelled_twice(ledger: Ledger) -> None:
    """The other run takes the slot, labels and ends between this planner's look at the labelled keys and its own plan."""
    others = []

    def listed() -> Iterator[ImageRecord]:
        others.append(whole_run(ledger, records(1, 2)))
        yield from records(1, 2)

    outcome = plan_run(ledger, FINGERPRINT, listed(), shard_size=2, job="{}", facts={})
    assert outcome.plan
    assert (outcome.plan.run_id, outcome.created) == (others[0], False)
    assert ledger.shards_left(outcome.plan) == []
    assert plan(ledger, records(1, 2)).plan is None


def test_an_unsorted_listing_is_refused_and_nothing_stored(ledger: Ledger) -> None:
    with pytest.raises(UnsortedKeysError, match=r"0001\.jpg after .*0002\.jpg"):
        plan(ledger, records(2, 1))
    assert ledger.plans() == []


def test_a_preview_counts_and_stores_nothing(ledger: Ledger) -> None:
    whole_run(ledger, records(1))
    assert preview_plan(ledger, FINGERPRINT, records(1, 2)) == PlanCounts(listed=2, already=1, new=1)
    assert len(ledger.plans()) == 1


@pytest.mark.slow
def test_planning_a_million_keys_half_of_them_labelled_keeps_little_in_memory(tmp_path: Path) -> None:
    def measure(step: str) -> dict[str, int]:
        command = [sys.executable, "-m", "tests.tasks.plan_at_scale", step, f"file://{tmp_path}/output", "1000000"]
        said: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return said

    measure("label")
    found = measure("plan")
    assert (found["listed"], found["already"], found["new"], found["shards"]) == (1_000_000, 500_000, 500_000, 977)
    assert found["grown_bytes"] < 250 << 20
