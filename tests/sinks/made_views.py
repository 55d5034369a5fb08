"""Views made of hand-written rows, for tests of sinks: the tables' schemas, no dataset behind them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from model.annotations import schema

_IMAGE = {
    "image_id": "0" * 16,
    "etag": "1",
    "source": "s3://archive/photos/",
    "size_bytes": 1000,
    "width_px": 640,
    "height_px": 480,
    "input_width_px": 640,
    "input_height_px": 480,
    "task": "detection",
    "prompt_index": 0,
    "prompt": "Detect dog.",
    "status": "ok",
    "outcomes": [],
    "flags": [],
    "dropped": 0,
    "attempt": "a",
    "worker": "w",
    "run_id": "r",
    "shard": "s",
}
_SHAPE = {
    "etag": "1",
    "source": "s3://archive/photos/",
    "width_px": 640,
    "height_px": 480,
    "task": "detection",
    "prompt_index": 0,
    "instance": 0,
    "geometry": "box",
    "bbox_xyxy": [10.0, 20.0, 110.0, 220.0],
    "bins": [],
    "score": 0.9,
    "flags": [],
    "run_id": "r",
    "shard": "s",
}


def outcomes(*categories: str, count: int = 1) -> list[dict[str, Any]]:
    """Asked categories, each found."""
    return [{"category": name, "outcome": "found" if count else "absent", "count": count} for name in categories]


def image(key: str, **columns: Any) -> dict[str, Any]:
    """A row of the images table; columns replace the defaults."""
    return {**_IMAGE, "image_key": key, **columns}


def shape(key: str, phrase: str = "dog", **columns: Any) -> dict[str, Any]:
    """A row of the annotations table; the category is the phrase unless said; columns replace the defaults."""
    row = {**_SHAPE, "image_key": key, "phrase": phrase, "category": phrase, **columns}
    return {"annotation_id": f"{key}-{row['prompt_index']}-{row['instance']}", **row}


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of the schema, missing columns null."""
    wanted = schema(name)
    return pa.table({f.name: pa.array([row.get(f.name) for row in rows], f.type) for f in wanted}, schema=wanted)


class MadeView:
    """Images and shapes as a view: sorted by key, batch_images images a batch."""

    def __init__(
        self, images: Sequence[Mapping[str, Any]], shapes: Sequence[Mapping[str, Any]] = (), *, batch_images: int = 3
    ) -> None:
        self._images, self._shapes, self._batch_images = images, shapes, batch_images

    def batches(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """As LabelledImages."""
        keys = sorted({row["image_key"] for row in self._images}, key=str.encode)
        for start in range(0, len(keys), self._batch_images):
            batch = keys[start : start + self._batch_images]
            images = [row for key in batch for row in self._images if row["image_key"] == key]
            shapes = [row for key in batch for row in self._shapes if row["image_key"] == key]
            yield table("images", images), table("annotations", shapes)
