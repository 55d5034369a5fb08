"""What a COCO file holds of the tables' rows: images, annotations, categories, as the dictionaries that are written. Knows no file and no store.

COCO has no points. A point is held as COCO's key points hold one: a category with the single key point "point", visible, and a bbox of no width or height at its place,
which detection trainers skip rather than learn from. A polygon becomes a segmentation with its bounds as bbox; its area is the polygon's.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.annotations import BOX, FAILED, KEYPOINTS, MALFORMED, OK, POINT, POLYGON, TRUNCATED, UNREADABLE

POINT_SKELETON = ("point",)
PIXEL_DECIMALS = 3  # a bin of a 10 px image is 0.01 px wide
SCORE_DECIMALS = 6
_BY_HARM = (OK, TRUNCATED, MALFORMED, UNREADABLE, FAILED)
_VISIBLE, _NOT_LABELLED = 2, 0  # COCO's v of a key point; its 1 (labelled, hidden) is never said by the model

UNASKED = "unasked phrase"
NO_SIZE = "image without a known size"
OTHER_SKELETON = "key points that are not its category's"
NO_IMAGE = "shape of an image left out"


@dataclass(frozen=True, slots=True)
class Category:
    """A COCO category. The id is given once and never changes; keypoints is empty until an instance with key points is seen."""

    id: int
    name: str
    keypoints: tuple[str, ...] = ()

    def as_coco(self) -> dict[str, object]:
        """The category as COCO writes it."""
        record: dict[str, object] = {"id": self.id, "name": self.name, "supercategory": ""}
        if self.keypoints:
            record |= {"keypoints": list(self.keypoints), "skeleton": []}
        return record


class CategoryMap:
    """Names → categories. Grows at its end only, from 1: what an earlier export numbered keeps its number."""

    def __init__(self, former: Iterable[Category] = ()) -> None:
        self._by_name = {category.name: category for category in former}
        self._last_id = max((category.id for category in self._by_name.values()), default=0)

    def __iter__(self) -> Iterator[Category]:
        return iter(sorted(self._by_name.values(), key=lambda category: category.id))

    def add(self, names: Iterable[str]) -> None:
        """Numbers the names that are new, in their order."""
        for name in names:
            if name not in self._by_name:
                self._last_id += 1
                self._by_name[name] = Category(self._last_id, name)

    def add_skeleton(self, name: str, keypoints: tuple[str, ...]) -> None:
        """Gives a category its key points, unless it has some."""
        if not self._by_name[name].keypoints:
            self._by_name[name] = replace(self._by_name[name], keypoints=keypoints)

    def __getitem__(self, name: str) -> Category:
        return self._by_name[name]


@dataclass(frozen=True, slots=True)
class ExportedImages:
    """The images of a batch that COCO can hold, columns side by side, in key order."""

    keys: list[str]
    sources: list[str]
    widths_px: list[int]
    heights_px: list[int]
    statuses: list[str]

    def __len__(self) -> int:
        return len(self.keys)


def select_images(images: pa.Table) -> tuple[ExportedImages, dict[str, int]]:
    """The images of a batch that go out, and how many do not, by reason.

    images: rows of the images table, an image once for each prompt. An image goes out if any prompt was answered; its status is then its worst prompt's.
    """
    columns = (images[name].to_pylist() for name in ("image_key", "source", "width_px", "height_px", "status"))
    best: dict[str, int] = {}
    worst: dict[str, int] = {}
    facts: dict[str, tuple[str, int | None, int | None]] = {}
    for key, source, width, height, status in zip(*columns, strict=True):
        harm = _BY_HARM.index(status)
        best[key] = min(best.get(key, harm), harm)
        worst[key] = max(worst.get(key, harm), harm)
        if key not in facts or width is not None:
            facts[key] = (source, width, height)
    out = ExportedImages([], [], [], [], [])
    left_out: dict[str, int] = {}
    for key, (source, width, height) in facts.items():
        status = _BY_HARM[best[key]]
        if status in (UNREADABLE, FAILED) or not width or not height:
            reason = f"{status} image" if status in (UNREADABLE, FAILED) else NO_SIZE
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        out.keys.append(key)
        out.sources.append(source)
        out.widths_px.append(width)
        out.heights_px.append(height)
        out.statuses.append(_BY_HARM[worst[key]])
    return out, left_out


def select_shapes(
    annotations: pa.Table, keys: Sequence[str], categories: CategoryMap
) -> tuple[pa.Table, NDArray[np.int64], dict[str, int]]:
    """The shapes of a batch that go out, the place of each one's image in keys, and how many do not go out, by reason.

    Sorted by image, prompt and instance. Categories gain names and skeletons on the way: the first skeleton seen is a category's for ever.
    """
    left_out: dict[str, int] = {}

    def keep(table: pa.Table, kept: pa.Array | pa.ChunkedArray, reason: str) -> pa.Table:
        filtered = table.filter(kept)
        if filtered.num_rows < table.num_rows:
            left_out[reason] = table.num_rows - filtered.num_rows
        return filtered

    table = keep(annotations, pc.is_valid(annotations["category"]), UNASKED)
    table = keep(table, pc.is_in(table["image_key"], value_set=pa.array(keys, pa.string())), NO_IMAGE)
    places = _column(pc.index_in(table["image_key"], value_set=pa.array(keys, pa.string()))).astype(np.int64)
    order = np.lexsort((_column(table["instance"]), _column(table["prompt_index"]), places))
    table, places = table.take(order), places[order]
    categories.add(pc.unique(table["category"]).to_pylist())
    fits = np.ones(table.num_rows, dtype=bool)
    with_skeleton = np.flatnonzero(_column(pc.is_in(table["geometry"], value_set=pa.array([POINT, KEYPOINTS]))))
    shapes = table.select(["category", "geometry", "keypoint_names"]).take(with_skeleton).to_pylist()
    for row, shape in zip(with_skeleton, shapes, strict=True):
        skeleton = _skeleton(shape["geometry"], shape["keypoint_names"])
        categories.add_skeleton(shape["category"], skeleton)
        fits[row] = categories[shape["category"]].keypoints == skeleton
    return keep(table, pa.array(fits), OTHER_SKELETON), places[fits], left_out


def image_records(images: ExportedImages, ids: NDArray[np.int64], file_names: Sequence[str]) -> list[dict[str, object]]:
    """The images as COCO writes them; besides its own fields coco_url, the image's key, and status, which says whether the answer was whole."""
    columns = (ids.tolist(), file_names, images.widths_px, images.heights_px, images.keys, images.statuses)
    return [
        {"id": id_, "file_name": name, "width": width, "height": height, "coco_url": key, "status": status}
        for id_, name, width, height, key, status in zip(*columns, strict=True)
    ]


def annotation_records(
    shapes: pa.Table, ids: NDArray[np.int64], image_ids: NDArray[np.int64], categories: CategoryMap
) -> list[dict[str, object]]:
    """The shapes as COCO writes them; besides its own fields score, text (what was read, OCR tasks) and flags, each only where there is one."""
    corners = _column(pc.list_flatten(shapes["bbox_xyxy"])).reshape(-1, 4).astype(np.float64)
    sizes = corners[:, 2:] - corners[:, :2]
    boxes = np.concatenate([corners[:, :2], sizes], axis=1).round(PIXEL_DECIMALS).tolist()
    areas = sizes.prod(axis=1).round(PIXEL_DECIMALS).tolist()
    scores = [None if score is None else round(score, SCORE_DECIMALS) for score in shapes["score"].to_pylist()]
    category_ids = [categories[name].id for name in shapes["category"].to_pylist()]
    columns = (ids.tolist(), image_ids.tolist(), category_ids, boxes, areas, scores)
    records: list[dict[str, object]] = []
    for id_, image_id, category_id, box, area, score in zip(*columns, strict=True):
        record = {"id": id_, "image_id": image_id, "category_id": category_id, "bbox": box, "area": area, "iscrowd": 0}
        if score is not None:
            record["score"] = score
        records.append(record)
    for row in _rows_with(pc.not_equal(shapes["geometry"], BOX)):
        records[row] |= _geometry_fields(shapes, row)
    for row in _rows_with(pc.is_valid(shapes["text"])):
        records[row]["text"] = shapes["text"][row].as_py()
    for row in _rows_with(pc.greater(pc.list_value_length(shapes["flags"]), 0)):
        records[row]["flags"] = shapes["flags"][row].as_py()
    return records


def _geometry_fields(shapes: pa.Table, row: int) -> dict[str, object]:
    geometry = shapes["geometry"][row].as_py()
    points = np.asarray(shapes["points"][row].as_py(), dtype=np.float64).reshape(-1, 2)
    if geometry == POLYGON:
        # fewer corners are not a polygon to pycocotools: the bounds stand alone
        return _polygon_fields(points) if len(points) >= 3 else {}
    visible = [True] if geometry == POINT else shapes["keypoint_visible"][row].as_py()
    flat: list[float] = []
    remaining = iter(points.round(PIXEL_DECIMALS).tolist())
    for seen in visible:
        flat += [*next(remaining), _VISIBLE] if seen else [0, 0, _NOT_LABELLED]
    return {"keypoints": flat, "num_keypoints": sum(visible)}


def _polygon_fields(corners: NDArray[np.float64]) -> dict[str, object]:
    x, y = corners.T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2  # the shoelace formula
    return {"segmentation": [corners.round(PIXEL_DECIMALS).ravel().tolist()], "area": round(area, PIXEL_DECIMALS)}


def _skeleton(geometry: str, keypoint_names: list[str] | None) -> tuple[str, ...]:
    return POINT_SKELETON if geometry == POINT else tuple(keypoint_names or ())


def _column(values: pa.ChunkedArray) -> NDArray[Any]:
    return np.asarray(values.to_numpy())


def _rows_with(mask: pa.ChunkedArray) -> list[int]:
    return [int(row) for row in np.flatnonzero(_column(mask))]
