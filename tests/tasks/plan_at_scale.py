"""Planning over a simulated archive whose every other image is labelled, in a process of its own so that its memory can be measured.

    python -m tests.tasks.plan_at_scale label|plan OUTPUT_URL KEYS

`label` fills the output, `plan` plans the rest. Prints what it found as JSON.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache

import pyarrow as pa

from model.annotations import schema
from sinks.dataset.ledger import Ledger
from sinks.dataset.records import ImageRecord, Shard
from tasks.planning import plan_run

FINGERPRINT = "simulated"
SHARD_IMAGES = 512
SOURCE = "s3://archive/photos/"
CONSTANTS: dict[str, object] = {
    "status": "ok",
    "task": "detection",
    "prompt": "Detect dog.",
    "token_ids": list(range(151_000, 151_060)),  # an answer's usual length
    "token_logprobs": [-0.25] * 60,
}
EMPTY = {pa.string(): "x", pa.int32(): 0, pa.int64(): 0}


def listing(keys: int, step: int = 1) -> Iterator[ImageRecord]:
    for number in range(0, keys, step):
        yield ImageRecord(f"{SOURCE}{number:012d}.jpg", f"{number * 2654435761 % 2**64:032x}", 100_000, SOURCE)


def labelled(shard: Shard) -> dict[str, pa.Table]:
    rows = len(shard.images)
    own = {
        "image_key": pa.array([image.key for image in shard.images]),
        "etag": pa.array([image.etag for image in shard.images]),
        "image_id": pa.array([f"{number:016x}" for number in range(rows)]),
    }
    images = schema("images")
    table = pa.table([own[f.name] if f.name in own else constant(f.name, rows) for f in images], schema=images)
    return {"images": table, "annotations": schema("annotations").empty_table()}


@cache
def constant(name: str, rows: int) -> pa.Array:
    field = schema("images").field(name)
    if field.nullable and name not in CONSTANTS:
        return pa.nulls(rows, field.type)
    return pa.array([CONSTANTS.get(name, EMPTY.get(field.type, []))] * rows, field.type)


def fill(ledger: Ledger, keys: int) -> dict[str, int]:
    outcome = plan_run(ledger, FINGERPRINT, listing(keys, step=2), shard_size=SHARD_IMAGES, job="{}", facts={})
    assert outcome.plan
    for index in range(outcome.plan.shards):
        shard = ledger.read_shard(outcome.plan, index)
        ledger.commit_shard(shard, "a", labelled(shard), {"images": len(shard.images)})
    ledger.stage_run(outcome.plan, who="simulation", why="done")
    return {"shards": outcome.plan.shards}


def plan(ledger: Ledger, keys: int) -> dict[str, int]:
    before = _peak_bytes()
    started = time.perf_counter()
    outcome = plan_run(ledger, FINGERPRINT, listing(keys), shard_size=SHARD_IMAGES, job="{}", facts={})
    assert outcome.plan
    return {
        **asdict(outcome.counts),
        "shards": outcome.plan.shards,
        "keys_per_second": round(keys / (time.perf_counter() - started)),
        "grown_bytes": _peak_bytes() - before,
        "peak_bytes": _peak_bytes(),
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    what, url, keys = sys.argv[1:]
    step = {"label": fill, "plan": plan}[what]
    print(json.dumps(step(Ledger.open(url, None), int(keys))))
