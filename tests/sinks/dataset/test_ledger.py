import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa
import pytest

from sinks.dataset import layout
from sinks.dataset.json_records import BrokenRecordError
from sinks.dataset.ledger import Ledger, UnknownRunError
from sinks.dataset.plans import LayoutVersionError, UnsafeStoreError
from sinks.dataset.records import Plan
from sinks.dataset.states import StateError
from tests.sinks.dataset.outputs import (
    FINGERPRINT,
    WatchedStore,
    create_plan,
    label,
    paths,
    records,
    tables_of,
    whole_run,
)

RACERS = 32
T = TypeVar("T")


def race(act: Callable[[int], T]) -> list[T]:
    start = threading.Barrier(RACERS)

    def run(racer: int) -> T:
        start.wait()
        return act(racer)

    with ThreadPoolExecutor(RACERS) as pool:
        return list(pool.map(run, range(RACERS)))


def planned(ledger: Ledger, images: int = 5, size: int = 2) -> Plan:
    plan, created = create_plan(ledger, records(*range(images)), size=size)
    assert plan
    assert created
    return plan


def test_a_plan_is_read_back_as_it_was_stored(ledger: Ledger) -> None:
    plan = planned(ledger)
    assert (plan.shards, plan.images, plan.number, plan.facts) == (3, 5, 1, {"model": "tiny"})
    again = Ledger.open(ledger.url, ledger.credentials)
    assert again.open_plan(FINGERPRINT) == plan
    assert again.plans() == [plan]
    shards = [again.read_shard(plan, index) for index in range(plan.shards)]
    assert [image for shard in shards for image in shard.images] == records(*range(5))
    assert shards[1].name == f"{plan.run_id}-000001"
    with pytest.raises(IndexError, match="3 shards"):
        again.read_shard(plan, 3)


def test_shards_beyond_one_part(memory_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SHARDS_PER_PART", 3)
    plan = planned(memory_ledger, images=20)
    assert [path for path in paths(memory_ledger.store) if path.startswith("parts/")] == [
        layout.part_path(plan.folder, part) for part in range(4)
    ]
    assert memory_ledger.read_shard(plan, 9).images == tuple(records(18, 19))


def test_no_shards_make_no_plan(ledger: Ledger) -> None:
    assert create_plan(ledger, []) == (None, False)
    assert ledger.plans() == []


def test_one_of_many_creators_makes_the_plan(ledger: Ledger) -> None:
    outcomes = race(
        lambda racer: create_plan(Ledger.open(ledger.url, ledger.credentials), records(*range(racer, racer + 4)))
    )
    plans = {plan.run_id for plan, _ in outcomes if plan}
    assert len(plans) == 1
    assert sum(created for _, created in outcomes) == 1
    assert [plan.run_id for plan in ledger.plans()] == list(plans)
    ledger.clean()
    assert [path for path in paths(ledger.store) if path.startswith("parts/")] == [
        layout.part_path(ledger.plans()[0].folder, 0)
    ]


def test_an_open_plan_is_adopted_and_a_closed_one_followed_by_the_next(ledger: Ledger) -> None:
    first = planned(ledger)
    assert create_plan(ledger, records(7)) == (first, False)
    label(ledger, first)
    assert ledger.shards_left(first) == []
    assert ledger.open_plan(FINGERPRINT) == first  # all is marked, but nobody has said so
    ledger.stage_run(first, who="test", why="done")
    assert ledger.open_plan(FINGERPRINT) is None
    second, created = create_plan(ledger, records(7))
    assert second
    assert (created, second.number) == (True, 2)
    assert ledger.open_plan("another fingerprint") is None


def test_one_of_many_attempts_ends_a_shard_and_the_others_files_go(ledger: Ledger) -> None:
    plan = planned(ledger)
    shard = ledger.read_shard(plan, 0)
    outcomes = race(lambda racer: ledger.commit_shard(shard, f"attempt-{racer}", tables_of(shard), {"images": racer}))
    assert sum(won for _, won in outcomes) == 1
    (marker,) = {marker.attempt: marker for marker, _ in outcomes}.values()
    before = paths(ledger.store)
    cleaned = ledger.clean().files
    assert cleaned % 2 == 0
    assert len(before) - cleaned == len(paths(ledger.store))
    left = [path for path in paths(ledger.store) if path.startswith(layout.attempts_folder(plan.run_id))]
    assert left == sorted(file.path for file in marker.files)
    assert ledger.clean().files == 0
    assert list(ledger.markers(plan)) == [marker]
    assert ledger.shards_left(plan) == [1, 2]


def test_a_marker_says_what_was_written(ledger: Ledger) -> None:
    plan = planned(ledger)
    shard = ledger.read_shard(plan, 0)
    marker, won = ledger.commit_shard(shard, "a", tables_of(shard), {"images": 2})
    assert won
    assert [(file.table, file.rows, file.first_key, file.last_key) for file in marker.files] == [
        ("images", 2, "s3://archive/0000.jpg", "s3://archive/0001.jpg"),
        ("annotations", 4, "s3://archive/0000.jpg", "s3://archive/0001.jpg"),
    ]
    assert all(ledger.store.head(file.path)["size"] == file.size_bytes for file in marker.files)


def test_a_shard_without_annotations_is_committed(ledger: Ledger) -> None:
    plan = planned(ledger)
    shard = ledger.read_shard(plan, 0)
    marker, _ = ledger.commit_shard(shard, "a", tables_of(shard, shapes=0), {})
    assert [(file.rows, file.first_key) for file in marker.files] == [(2, "s3://archive/0000.jpg"), (0, "")]


def test_a_late_worker_loses_to_an_abandoned_shard(ledger: Ledger) -> None:
    plan = planned(ledger)
    shard = ledger.read_shard(plan, 1)
    marker, abandoned = ledger.abandon_shard(shard, "its worker was never seen again")
    assert abandoned
    late, won = ledger.commit_shard(shard, "late", tables_of(shard), {})
    assert (late, won) == (marker, False)
    assert (late.abandoned, late.why, late.files) == (True, "its worker was never seen again", ())
    assert ledger.shards_left(plan) == [0, 2]


def test_a_committed_shard_cannot_be_abandoned(ledger: Ledger) -> None:
    plan = planned(ledger)
    shard = ledger.read_shard(plan, 1)
    marker, _ = ledger.commit_shard(shard, "first", tables_of(shard), {})
    assert ledger.abandon_shard(shard, "too slow") == (marker, False)


def test_an_attempt_whose_answer_was_lost_wins_when_it_commits_again(memory_ledger: Ledger) -> None:
    plan = planned(memory_ledger)
    shard = memory_ledger.read_shard(plan, 0)
    first, won = memory_ledger.commit_shard(shard, "a", tables_of(shard), {})
    assert won
    assert memory_ledger.commit_shard(shard, "a", tables_of(shard, shapes=5), {}) == (first, True)


def test_an_attempt_made_twice_never_replaces_a_file(memory_ledger: Ledger) -> None:
    """The first call's marker arrives late: after the second call has written other rows under the same name."""
    plan = planned(memory_ledger)
    shard = memory_ledger.read_shard(plan, 0)
    store = memory_ledger.store
    path = layout.marker_path(plan.run_id, 0)
    first, _ = memory_ledger.commit_shard(shard, "a", tables_of(shard), {})
    marker = bytes(store.get(path).bytes())
    store.delete(path)

    def arrive_late(when: str, name: str, args: tuple[Any, ...]) -> None:
        if (when, name, args[0]) == ("before", "put", path):
            store.put(path, marker)

    watched: Any = WatchedStore(store, arrive_late)
    standing, won = Ledger(watched, memory_ledger.url, None).commit_shard(shard, "a", tables_of(shard, shapes=5), {})
    assert (standing, won) == (first, True)
    assert all(hashlib.sha256(store.get(file.path).bytes()).hexdigest() == file.sha256 for file in standing.files)
    assert memory_ledger.clean().files == 1  # the second annotations: the images were the same


def test_tables_of_another_schema_are_refused(memory_ledger: Ledger) -> None:
    shard = memory_ledger.read_shard(planned(memory_ledger), 0)
    good = tables_of(shard)
    images = good["images"]
    status = images.column_names.index("status")
    without = images.remove_column(status)
    nulls = without.append_column("status", pa.nulls(images.num_rows, pa.string()))
    numbers = good["annotations"].drop_columns(["bbox_xyxy"]).append_column("bbox_xyxy", pa.array(["x"] * 4))
    for rows, table, complaint in (
        (without, "images", "status"),
        (nulls, "images", "non-nullable"),
        (numbers, "annotations", "cast"),
    ):
        with pytest.raises(ValueError, match=f"table {table}.*{complaint}"):
            memory_ledger.commit_shard(shard, "a", {**good, table: rows}, {})
    assert memory_ledger.shards_left(memory_ledger.plans()[0]) == [0, 1, 2]


def test_a_run_is_staged_when_no_shard_is_left(ledger: Ledger) -> None:
    plan = planned(ledger)
    with pytest.raises(StateError, match="3 of 3 shards are left"):
        ledger.stage_run(plan, who="test", why="done")
    ledger.abandon_shard(ledger.read_shard(plan, 2), "broken")
    label(ledger, plan)
    staged = ledger.stage_run(plan, who="test", why="done", details={"seconds": 3.5})
    assert staged.details["counts"] == {"images": 4, "abandoned_shards": 1}
    assert staged.details["seconds"] == 3.5
    assert ledger.stage_run(plan, who="somebody else", why="again") == staged
    assert [file.table for file in ledger.files(plan.run_id)] == ["images", "annotations"] * 2
    assert ledger.shards_left(plan) == []


def test_many_finishers_stage_a_run_once(ledger: Ledger) -> None:
    plan = planned(ledger)
    label(ledger, plan)
    outcomes = race(
        lambda racer: Ledger.open(ledger.url, ledger.credentials).stage_run(plan, who=str(racer), why="done")
    )
    assert len({state.who for state in outcomes}) == 1
    assert [state.state for state in ledger.states()] == ["staged"]


def test_many_writers_of_the_log_lose_nothing(ledger: Ledger) -> None:
    runs = [planned_and_staged(ledger, f"f{number}") for number in range(RACERS)]
    race(
        lambda racer: Ledger.open(ledger.url, ledger.credentials).append_state(
            runs[racer], "held", str(racer), "below min_f1"
        )
    )
    log = Ledger.open(ledger.url, ledger.credentials).states()
    assert [state.order for state in log] == list(range(1, 2 * RACERS + 1))
    assert {state.run_id for state in log if state.state == "held"} == set(runs)
    assert all(state.who == str(runs.index(state.run_id)) for state in log if state.state == "held")


def planned_and_staged(ledger: Ledger, fingerprint: str) -> str:
    plan, _ = create_plan(ledger, records(1), fingerprint=fingerprint)
    assert plan
    ledger.abandon_shard(ledger.read_shard(plan, 0), "not needed here")
    return ledger.stage_run(plan, who="test", why="done").run_id


@pytest.mark.parametrize("states", [("promoted",), ("held", "promoted"), ("held", "discarded"), ("discarded",)])
def test_states_that_may_follow(memory_ledger: Ledger, states: tuple[str, ...]) -> None:
    run_id = planned_and_staged(memory_ledger, FINGERPRINT)
    for state in states:
        entry = memory_ledger.append_state(run_id, state, "me", "I looked at it", {"f1": 0.9})
        assert (entry.who, entry.why, entry.details) == ("me", "I looked at it", {"f1": 0.9})
        assert memory_ledger.append_state(run_id, state, "you", "twice") == entry
        assert memory_ledger.state_of(run_id) == state


@pytest.mark.parametrize(
    ("states", "refused"),
    [
        (("promoted",), "discarded"),
        (("discarded",), "promoted"),
        (("held",), "staged"),
        ((), "planned"),
        (("promoted",), "held"),
    ],
)
def test_states_that_may_not_follow(memory_ledger: Ledger, states: tuple[str, ...], refused: str) -> None:
    run_id = planned_and_staged(memory_ledger, FINGERPRINT)
    for state in states:
        memory_ledger.append_state(run_id, state, "me", "x")
    with pytest.raises(StateError, match="staged by" if refused == "staged" else f"not {refused}"):
        memory_ledger.append_state(run_id, refused, "me", "x")


def test_promoting_and_discarding_at_once_has_one_outcome(ledger: Ledger) -> None:
    run_id = planned_and_staged(ledger, FINGERPRINT)

    def judge(racer: int) -> str:
        try:
            return (
                Ledger.open(ledger.url, ledger.credentials)
                .append_state(run_id, ("promoted", "discarded")[racer % 2], "x", "y")
                .state
            )
        except StateError:
            return "refused"

    outcomes = race(judge)
    assert outcomes.count("refused") == RACERS // 2
    assert len({*outcomes}) == 2


def test_an_open_run_can_be_discarded_and_its_workers_work_in_vain(ledger: Ledger) -> None:
    plan = planned(ledger)
    shard = ledger.read_shard(plan, 0)
    ledger.append_state(plan.run_id, "discarded", "me", "wrong categories")
    assert ledger.open_plan(FINGERPRINT) is None
    assert ledger.shards_left(plan) == []
    ledger.commit_shard(shard, "late", tables_of(shard), {})
    assert ledger.stage_run(plan, who="late worker", why="done").state == "discarded"


def test_an_unknown_run_is_named(memory_ledger: Ledger) -> None:
    with pytest.raises(UnknownRunError, match="no run 20261120"):
        memory_ledger.append_state("20261120", "promoted", "me", "x")
    with pytest.raises(UnknownRunError, match="no finished run 20261120"):
        memory_ledger.files("20261120")


def test_a_store_without_conditional_writes_is_refused(memory_ledger: Ledger) -> None:
    class Careless(WatchedStore):
        def put(self, path: str, data: bytes, **options: Any) -> Any:
            return self._store.put(path, data)

    store: Any = Careless(memory_ledger.store, lambda *call: None)
    with pytest.raises(UnsafeStoreError, match="If-None-Match"):
        create_plan(Ledger(store, "memory://x", None), records(1))


def test_an_output_of_another_layout_is_refused(memory_ledger: Ledger) -> None:
    whole_run(memory_ledger, records(1))
    memory_ledger.store.put(layout.OUTPUT, b'{"layout_version": 2, "created_at": "2030-01-01", "writer": "x"}')
    with pytest.raises(LayoutVersionError, match="layout 2"):
        Ledger.open(memory_ledger.url, None)


def test_a_record_somebody_damaged_is_named(memory_ledger: Ledger) -> None:
    plan = planned(memory_ledger)
    path = layout.slot_path(FINGERPRINT, 1)
    memory_ledger.store.put(path, b'{"run_id": "x"}')
    with pytest.raises(BrokenRecordError, match=rf"{path}.*Plan.*fingerprint"):
        memory_ledger.plans()
    assert plan
