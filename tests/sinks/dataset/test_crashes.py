"""Every storage call of a run fails once, before and after it takes effect; whoever comes next brings the output to the same end."""

import secrets
from pathlib import Path
from typing import Any

import pytest

from sinks.dataset import layout
from sinks.dataset.cleaning import Cleaned
from sinks.dataset.ledger import Ledger
from sinks.dataset.reading import current_view
from sinks.dataset.store import open_store
from tests.sinks.dataset.outputs import (
    FINGERPRINT,
    StorageDown,
    WatchedStore,
    create_plan,
    fail_at,
    label,
    named_by_records,
    paths,
    records,
    rows_of,
    tables_of,
)

_TRACE = ("run_id", "shard", "attempt")  # differ between two honest runs


def run(ledger: Ledger) -> None:
    """A worker's whole life: adopt or plan, label what is left, stage, promote."""
    plan = ledger.open_plan(FINGERPRINT)
    if plan is None and not any(state.state == "promoted" for state in ledger.states()):
        staged = [state.run_id for state in ledger.states() if state.state == "staged"]
        if staged:
            ledger.append_state(staged[-1], "promoted", "test", "no golden set")
            return
        plan, _ = create_plan(ledger, records(*range(5)))
    if plan:
        label(ledger, plan)
        ledger.stage_run(plan, who="test", why="done")
        ledger.append_state(plan.run_id, "promoted", "test", "no golden set")


def contents(ledger: Ledger) -> list[dict[str, Any]]:
    images, annotations = rows_of(current_view(ledger).batches())
    return [{name: value for name, value in row.items() if name not in _TRACE} for row in (*images, *annotations)]


def calls_of_a_run() -> int:
    hook, calls = fail_at(10**9, "before")
    store: Any = WatchedStore(open_store(f"memory://{secrets.token_hex(8)}", None), hook)
    run(Ledger(store, "memory://watched", None))
    return calls()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_that_dies_at_any_storage_call_is_finished_by_the_next(moment: str) -> None:
    whole = Ledger.open(f"memory://{secrets.token_hex(8)}", None)
    run(whole)
    calls = calls_of_a_run()
    assert calls > 30
    for number in range(calls):
        url = f"memory://{secrets.token_hex(8)}"
        hook, _ = fail_at(number, moment)
        store: Any = WatchedStore(open_store(url, None), hook)
        with pytest.raises(StorageDown):
            run(Ledger(store, url, None))
        survivor = Ledger.open(url, None)
        before = contents(survivor)
        assert before in ([], contents(whole))
        run(survivor)
        assert contents(survivor) == contents(whole), f"call {number} failed {moment} taking effect"
        survivor.clean()
        assert paths(survivor.store) == named_by_records(survivor)
        assert len(survivor.plans()) == 1


def test_a_worker_that_dies_at_any_storage_call_may_commit_the_same_attempt_again() -> None:
    for number in range(8):
        url = f"memory://{secrets.token_hex(8)}"
        ledger = Ledger.open(url, None)
        plan, _ = create_plan(ledger, records(1, 2))
        assert plan
        hook, calls = fail_at(number, "after")
        store: Any = WatchedStore(ledger.store, hook)
        from_wire = Ledger(store, url, None)
        shard = ledger.read_shard(plan, 0)
        tables = tables_of(shard)
        try:
            from_wire.commit_shard(shard, "a", tables, {})
        except StorageDown:
            assert ledger.commit_shard(shard, "a", tables, {})[1]
        assert calls() <= 8
        assert ledger.clean().files == 0
        assert ledger.shards_left(plan) == []


def test_what_clean_leaves_alone(ledger: Ledger) -> None:
    plan, _ = create_plan(ledger, records(*range(4)))
    assert plan
    for path in (
        layout.file_path(plan.run_id, 0, "unfinished", "images", "0" * 8),  # its shard has no marker
        layout.part_path(layout.parts_folder(FINGERPRINT, 2, "20260101-000000-aaaaaa"), 0),  # its slot is not taken
        layout.part_path(layout.parts_folder("other", 1, "20260101-000000-aaaaaa"), 0),
        f"runs/{plan.run_id}/manifest-0123456789abcdef.parquet",  # its run is not staged
        "notes/of a person.txt",
    ):
        ledger.store.put(path, b"x")
    before = paths(ledger.store)
    assert ledger.clean().files == 0
    assert paths(ledger.store) == before
    label(ledger, plan)
    ledger.stage_run(plan, who="test", why="done")
    assert ledger.clean().files == 2
    assert len(paths(ledger.store)) > len(before)


def test_drafts_of_killed_local_writers_go_with_what_is_decided(tmp_path: Path) -> None:
    ledger = Ledger.open(f"file://{tmp_path}", None)
    plan, _ = create_plan(ledger, records(*range(4)))
    assert plan
    decided = tmp_path / (layout.file_path(plan.run_id, 0, "killed", "images", "0" * 8) + "#1")
    undecided = tmp_path / (layout.file_path(plan.run_id, 1, "working", "images", "0" * 8) + "#1")
    marker = tmp_path / (layout.marker_path(plan.run_id, 0) + "#2")
    for draft in (decided, undecided, marker):
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(b"half")
    assert ledger.clean().files == 0
    shard = ledger.read_shard(plan, 0)
    ledger.commit_shard(shard, "a", tables_of(shard), {})
    assert ledger.clean() == Cleaned(2, 8)
    assert undecided.exists()
