"""Small outputs for tests: image records, shards labelled with made-up rows, whole runs, and stores that fail on purpose."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from obstore.store import ObjectStore

from sinks.dataset import layout
from sinks.dataset.ledger import Ledger
from sinks.dataset.records import ImageRecord, Plan, Shard
from tests.sinks.made_views import image, shape, table

FINGERPRINT = "f1"


def record(key: str, etag: str = "1") -> ImageRecord:
    return ImageRecord(f"s3://archive/{key}", etag, 1000, "s3://archive/")


def records(*numbers: int, etag: str = "1") -> list[ImageRecord]:
    return [record(f"{number:04d}.jpg", etag) for number in numbers]


def shards_of(images: Sequence[ImageRecord], size: int = 2) -> list[list[ImageRecord]]:
    return [list(images[start : start + size]) for start in range(0, len(images), size)]


def create_plan(
    ledger: Ledger, images: Sequence[ImageRecord], *, size: int = 2, fingerprint: str = FINGERPRINT
) -> tuple[Plan | None, bool]:
    return ledger.create_plan(
        fingerprint, shards_of(images, size), job="{}", facts={"model": "tiny"}, complete_listing=True
    )


def tables_of(
    shard: Shard,
    *,
    status: Mapping[str, str] = {},
    phrase: str = "dog",
    task: str = "detection",
    shapes: int = 2,
    prompts: int = 1,
) -> dict[str, pa.Table]:
    """status: of single images by their key's last part, instead of ok; images without ok have no shapes. Rows are not in order."""
    images, annotations = [], []
    for item in reversed(shard.images):
        said = status.get(item.key.rpartition("/")[2], "ok")
        common: dict[str, Any] = {"etag": item.etag, "run_id": shard.run_id, "shard": shard.name, "task": task}
        for prompt in range(prompts):
            images.append(image(item.key, status=said, prompt_index=prompt, **common))
            if said == "ok":
                annotations += [
                    shape(item.key, phrase, prompt_index=prompt, instance=n, **common) for n in range(shapes)
                ]
    return {"images": table("images", images), "annotations": table("annotations", annotations)}


def label(ledger: Ledger, plan: Plan, **how: Any) -> None:
    """Commits every shard that is left."""
    for index in ledger.shards_left(plan):
        shard = ledger.read_shard(plan, index)
        ledger.commit_shard(
            shard, f"attempt-{secrets.token_hex(4)}", tables_of(shard, **how), {"images": len(shard.images)}
        )


def whole_run(
    ledger: Ledger,
    images: Sequence[ImageRecord],
    *,
    state: str = "promoted",
    fingerprint: str = FINGERPRINT,
    size: int = 2,
    **how: Any,
) -> str:
    """A run from plan to state; returns its id."""
    plan, created = create_plan(ledger, images, fingerprint=fingerprint, size=size)
    assert plan
    assert created
    label(ledger, plan, **how)
    ledger.stage_run(plan, who="test", why="all shards are marked")
    if state != "staged":
        ledger.append_state(plan.run_id, state, "test", "because")
    return plan.run_id


def paths(store: ObjectStore) -> list[str]:
    return sorted(meta["path"] for batch in store.list() for meta in batch)


def named_by_records(ledger: Ledger) -> list[str]:
    """Every path that a record names, and the records."""
    (plan,) = ledger.plans()
    markers = list(ledger.markers(plan))
    states = ledger.states()
    return sorted(
        [
            layout.OUTPUT,
            layout.slot_path(plan.fingerprint, 1),
            layout.part_path(plan.folder, 0),
            *(layout.marker_path(plan.run_id, index) for index in range(plan.shards)),
            *(file.path for marker in markers for file in marker.files),
            *(layout.log_path(state.order) for state in states),
            *(str(state.details["manifest"]) for state in states if state.state == "staged"),
        ]
    )


class StorageDown(Exception):
    """What a failing store raises."""


class WatchedStore:
    """A store that asks a hook before and after each call. The hook may raise: before, the call has no effect; after, it has, and its answer is lost."""

    def __init__(self, store: ObjectStore, hook: Callable[[str, str, tuple[Any, ...]], None]) -> None:
        self._store, self._hook = store, hook

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*args: Any, **options: Any) -> Any:
            self._hook("before", name, args)
            answer = method(*args, **options)
            self._hook("after", name, args)
            return answer

        return call


def fail_at(number: int, moment: str) -> tuple[Callable[[str, str, tuple[Any, ...]], None], Callable[[], int]]:
    """A hook that raises StorageDown at the number-th call (from 0), "before" or "after" it, and from then on at each; and how many calls there were."""
    calls = -1

    def hook(when: str, name: str, args: tuple[Any, ...]) -> None:
        nonlocal calls
        calls += when == "before"
        if calls > number or (calls == number and when == moment):
            raise StorageDown(f"{name}{args[:1]}")

    return hook, lambda: calls + 1


def rows_of(batches: Iterator[tuple[pa.Table, pa.Table]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_rows, annotation_rows in batches:
        images += image_rows.to_pylist()
        annotations += annotation_rows.to_pylist()
    return images, annotations
