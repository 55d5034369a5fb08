"""COCO exports, read back by pycocotools."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pyarrow as pa
import pytest
from obstore.store import LocalStore, MemoryStore, ObjectStore
from pycocotools.coco import COCO

from sinks.coco import CocoSettings, CocoSink, CocoTargetError, instances
from sinks.coco.instances import common_folder, file_name, source_folders
from sinks.files import put_file
from tests.servers.seaweedfs import SeaweedFS
from tests.sinks.made_views import MadeView, image, outcomes, shape, table

PHOTOS = "s3://archive/photos/"
A, B, C, D = (f"{PHOTOS}{name}" for name in ("a.jpg", "b/1.jpg", "b/2.jpg", "c.jpg"))


def sink(store: ObjectStore, **settings: Any) -> CocoSink:
    return CocoSink(CocoSettings(url="memory://coco/", **settings), store)


def read(store: ObjectStore, name: str = "instances.json") -> dict[str, Any]:
    return dict(json.loads(bytes(obstore.get(store, name).bytes())))


def everything(store: ObjectStore) -> dict[str, bytes]:
    paths = [entry["path"] for page in obstore.list(store) for entry in page]
    return {path: bytes(obstore.get(store, path).bytes()) for path in sorted(paths)}


def two_dogs_and_a_cat() -> MadeView:
    images = [image(key, outcomes=outcomes("dog", "cat")) for key in (A, B, C)]
    return MadeView(
        images, [shape(A), shape(A, instance=1, bbox_xyxy=[0.1, 0.2, 639.9, 479.7]), shape(C, "cat", score=None)]
    )


def test_pycocotools_loads_it_and_boxes_come_back(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "out", mkdir=True)
    report = sink(store).push(two_dogs_and_a_cat())
    coco = COCO(str(tmp_path / "out" / "instances.json"))
    names = {image["id"]: image["file_name"] for image in coco.dataset["images"]}
    assert sorted(names.values()) == ["a.jpg", "b/1.jpg", "b/2.jpg"]
    assert [image["coco_url"] for image in coco.dataset["images"]] == [A, B, C]
    assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == [(1, "dog"), (2, "cat")]
    by_image = {names[i]: coco.loadAnns(coco.getAnnIds(imgIds=[i])) for i in names}
    x, y, width, height = by_image["a.jpg"][1]["bbox"]
    np.testing.assert_allclose([x, y, x + width, y + height], [0.1, 0.2, 639.9, 479.7], atol=1e-3)
    assert by_image["a.jpg"][0] | {"id": 0, "image_id": 0} == {
        "id": 0,
        "image_id": 0,
        "category_id": 1,
        "bbox": [10.0, 20.0, 100.0, 200.0],
        "area": 20000.0,
        "iscrowd": 0,
        "score": pytest.approx(0.9, abs=1e-6),
    }
    assert "score" not in by_image["b/2.jpg"][0]
    assert (report.images, report.annotations, report.left_out, report.objects) == (3, 3, {}, ("instances.json",))


def test_its_own_labels_score_as_perfect_results(tmp_path: Path) -> None:
    from pycocotools.cocoeval import COCOeval

    store = LocalStore(tmp_path)
    sink(store).push(two_dogs_and_a_cat())
    truth = COCO(str(tmp_path / "instances.json"))
    results = [{"score": 1.0, **annotation} for annotation in truth.dataset["annotations"]]
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_polygons_keypoints_points_text_and_flags(tmp_path: Path) -> None:
    names = ["nose", "left eye", "right eye"]
    shapes = [
        shape(
            A,
            "text line",
            geometry="polygon",
            points=[0.0, 0.0, 10.0, 0.0, 10.0, 5.0],
            bbox_xyxy=[0.0, 0.0, 10.0, 5.0],
            text="<12>",
            flags=["reversed"],
        ),
        shape(
            A,
            "text line",
            instance=1,
            geometry="polygon",
            points=[0.0, 0.0, 10.0, 5.0],
            bbox_xyxy=[0.0, 0.0, 10.0, 5.0],
        ),
        shape(
            B,
            "person",
            geometry="keypoints",
            points=[5.0, 6.0, 7.5, 8.0],
            keypoint_names=names,
            keypoint_visible=[True, False, True],
        ),
        shape(C, "cup", geometry="point", points=[33.0, 44.0], bbox_xyxy=[33.0, 44.0, 33.0, 44.0]),
        shape(C, "person", instance=1, geometry="point", points=[33.0, 44.0], bbox_xyxy=[33.0, 44.0, 33.0, 44.0]),
        shape(C, "person", instance=2),
    ]
    store = LocalStore(tmp_path)
    report = sink(store).push(MadeView([image(A), image(B), image(C)], shapes))
    coco = COCO(str(tmp_path / "instances.json"))
    categories = {c["name"]: c for c in coco.dataset["categories"]}
    assert categories["person"]["keypoints"] == names
    assert categories["cup"]["keypoints"] == ["point"]
    assert "keypoints" not in categories["text line"]
    triangle, line, person, cup, box = coco.dataset["annotations"]
    assert triangle["segmentation"] == [[0.0, 0.0, 10.0, 0.0, 10.0, 5.0]]
    assert (triangle["area"], triangle["bbox"], triangle["text"], triangle["flags"]) == (
        25.0,
        [0.0, 0.0, 10.0, 5.0],
        "<12>",
        ["reversed"],
    )
    assert coco.annToMask(triangle).shape == (480, 640)
    assert "segmentation" not in line
    assert (person["keypoints"], person["num_keypoints"]) == ([5.0, 6.0, 2, 0, 0, 0, 7.5, 8.0, 2], 2)
    assert (cup["keypoints"], cup["num_keypoints"], cup["bbox"], cup["area"]) == (
        [33.0, 44.0, 2],
        1,
        [33.0, 44.0, 0.0, 0.0],
        0.0,
    )
    assert box["category_id"] == categories["person"]["id"]
    assert report.left_out == {"key points that are not its category's": 1}


def test_what_is_left_out_is_counted() -> None:
    store = MemoryStore()
    images = [
        image(A),
        image(B, status="unreadable", width_px=None, height_px=None, error="zero bytes"),
        image(C, status="failed", error="timeout"),
        image(D, status="truncated"),
        image(D, status="failed", prompt_index=1, width_px=None, height_px=None),
    ]
    report = sink(store).push(MadeView(images, [shape(A), shape(A, "wolf", category=None, instance=1), shape(C)]))
    assert report.left_out == {
        "failed image": 1,
        "shape of an image left out": 1,
        "unasked phrase": 1,
        "unreadable image": 1,
    }
    assert [(i["file_name"], i["width"], i["height"], i["status"]) for i in read(store)["images"]] == [
        ("a.jpg", 640, 480, "ok"),
        ("c.jpg", 640, 480, "failed"),
    ]
    assert report.annotations == len(read(store)["annotations"]) == 1


def test_pushing_twice_leaves_every_byte(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    planned = sink(store).plan(two_dogs_and_a_cat())
    assert everything(store) == {}
    assert sink(store).push(two_dogs_and_a_cat()) == planned
    assert (planned.added, planned.changed, planned.unchanged, planned.removed) == (2, 0, 0, 0)
    before = everything(store), (tmp_path / "instances.json").stat().st_mtime_ns
    again = sink(store).push(two_dogs_and_a_cat())
    assert (again.added, again.changed, again.unchanged, again.removed) == (0, 0, 2, 0)
    assert (everything(store), (tmp_path / "instances.json").stat().st_mtime_ns) == before
    assert sink(store).verify(two_dogs_and_a_cat()) == ()


def test_batches_do_not_show(tmp_path: Path) -> None:
    images = [image(f"{PHOTOS}{n:02d}.jpg") for n in range(11)]
    shapes = [shape(row["image_key"], instance=i) for row in images for i in (1, 0)]
    stores = MemoryStore(), MemoryStore()
    for store, batch_images in zip(stores, (1, 11), strict=True):
        sink(store, images_per_file=4).push(MadeView(images, shapes, batch_images=batch_images))
    assert everything(stores[0]) == everything(stores[1])


def test_verify_names_what_differs() -> None:
    store = MemoryStore()
    sink(store).push(two_dogs_and_a_cat())
    obstore.put(store, "instances.json", bytes(obstore.get(store, "instances.json").bytes()).replace(b"dog", b"god"))
    obstore.delete(store, "categories.json")
    assert sink(store).verify(two_dogs_and_a_cat()) == (
        "categories.json is missing",
        "instances.json differs from what the view makes",
    )


def test_categories_keep_their_ids_when_the_job_changes() -> None:
    store = MemoryStore()
    sink(store).push(MadeView([image(A, outcomes=outcomes("dog", "cat"))]))
    report = sink(store).push(MadeView([image(A, outcomes=outcomes("ant", "cat"))], [shape(A, "cat")]))
    data = read(store)
    assert [(c["id"], c["name"]) for c in data["categories"]] == [(1, "dog"), (2, "cat"), (3, "ant")]
    assert data["annotations"][0]["category_id"] == 2
    assert (report.added, report.changed) == (0, 2)


def test_a_strange_category_file_is_refused_and_left_alone() -> None:
    store = MemoryStore()
    obstore.put(store, "categories.json", b'["dog"]')
    with pytest.raises(CocoTargetError, match=r"categories\.json .* is not one of ours"):
        sink(store).push(two_dogs_and_a_cat())
    assert everything(store) == {"categories.json": b'["dog"]'}


def test_an_image_and_its_shapes_keep_their_ids_among_others() -> None:
    alone, together = MemoryStore(), MemoryStore()
    sink(alone).push(MadeView([image(B)], [shape(B)]))
    sink(together).push(MadeView([image(A), image(B), image(C)], [shape(A), shape(B), shape(C)]))
    assert read(alone)["annotations"][0] in read(together)["annotations"]
    ids = [i["id"] for i in read(together)["images"]]
    assert all(0 < i < 2**53 for i in ids)


def test_colliding_ids_are_resolved_the_same_way_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "ID_BITS", 6)
    images = [image(f"{PHOTOS}{n:02d}.jpg") for n in range(40)]
    shapes = [shape(row["image_key"]) for row in images]
    stores = MemoryStore(), MemoryStore()
    for store, batch_images in zip(stores, (3, 40), strict=True):
        sink(store).push(MadeView(images, shapes, batch_images=batch_images))
    data = read(stores[0])
    assert len({i["id"] for i in data["images"]}) == len({a["id"] for a in data["annotations"]}) == 40
    assert all(1 <= i["id"] <= 64 for i in data["images"])
    names = {i["id"]: i["coco_url"] for i in data["images"]}
    assert [names[a["image_id"]] for a in data["annotations"]] == [row["image_key"] for row in images]
    assert everything(stores[0]) == everything(stores[1])


def test_more_images_than_a_file_holds_make_several_and_an_index(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    images = [image(f"{PHOTOS}{n:02d}.jpg", outcomes=outcomes("dog")) for n in range(10)]
    view = MadeView(images, [shape(row["image_key"], instance=i) for row in images for i in range(3)])
    sink(store).push(MadeView(images[:2]))
    report = sink(store, images_per_file=4).push(view)
    index = read(store, "instances.index.json")
    assert report.objects == ("instances.index.json",)
    assert [(f["images"], f["annotations"]) for f in index["files"]] == [(4, 12), (4, 12), (2, 6)]
    assert (index["images"], index["annotations"]) == (10, 30)
    assert sorted(everything(store)) == sorted(
        ["categories.json", "instances.index.json", *(f["file"] for f in index["files"])]
    )
    parts = [COCO(str(tmp_path / f["file"])) for f in index["files"]]
    assert len({a for part in parts for a in part.getAnnIds()}) == 30
    assert all(part.loadCats([1])[0]["name"] == "dog" for part in parts)
    assert (index["files"][1]["first_key"], index["files"][1]["last_key"]) == (f"{PHOTOS}04.jpg", f"{PHOTOS}07.jpg")
    assert sink(store, images_per_file=4).verify(view) == ()
    assert sink(store, images_per_file=4).push(view).unchanged == 5


def test_parts_of_the_former_index_stay_for_its_readers_until_the_next_change() -> None:
    store = MemoryStore()
    images = [image(f"{PHOTOS}{n}.jpg") for n in range(3)]
    generations = []
    for shapes in (
        [],
        [shape(images[0]["image_key"])],
        [shape(images[0]["image_key"], bbox_xyxy=[1.0, 1.0, 2.0, 2.0])],
    ):
        sink(store, images_per_file=2).push(MadeView(images, shapes))
        generations.append({f["file"] for f in read(store, "instances.index.json")["files"]})
        sink(store, images_per_file=2).push(MadeView(images, shapes))
    kept = {name for name in everything(store) if name.startswith("instances-")}
    assert kept == generations[1] | generations[2] != generations[0] | generations[1] | generations[2]
    sink(store).push(MadeView(images))
    assert sorted(everything(store)) == sorted(["categories.json", "instances.json", *generations[2]])


def test_an_empty_view_is_an_empty_file(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert sink(store).push(MadeView([])).images == 0
    assert COCO(str(tmp_path / "instances.json")).dataset["annotations"] == []


class BrokenStoreError(OSError):
    """The store went away."""


def test_a_push_that_dies_leaves_the_former_export_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    images = [image(f"{PHOTOS}{n}.jpg") for n in range(6)]
    sink(store, images_per_file=2).push(MadeView(images))
    index = read(store, "instances.index.json")
    puts: list[tuple[Any, ...]] = []

    def put_twice_then_die(*arguments: Any) -> None:
        puts.append(arguments)
        if len(puts) == 3:
            raise BrokenStoreError
        put_file(*arguments)

    monkeypatch.setattr(instances, "put_file", put_twice_then_die)
    with pytest.raises(BrokenStoreError):
        sink(store, images_per_file=2).push(MadeView(images, [shape(row["image_key"]) for row in images]))
    assert read(store, "instances.index.json") == index
    assert all(len(read(store, f["file"])["images"]) == f["images"] for f in index["files"])


def test_a_push_that_died_before_its_last_deletion_is_finished_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*arguments: Any) -> None:
        raise BrokenStoreError

    store = MemoryStore()
    sink(store).push(two_dogs_and_a_cat())
    with monkeypatch.context() as patched:
        patched.setattr(obstore, "delete", die)
        with pytest.raises(BrokenStoreError):
            sink(store, images_per_file=2).push(two_dogs_and_a_cat())
    assert {"instances.json", "instances.index.json"} <= set(everything(store))
    report = sink(store, images_per_file=2).push(two_dogs_and_a_cat())
    assert (report.added, report.changed, report.removed) == (0, 0, 1)
    assert "instances.json" not in everything(store)


@pytest.mark.parametrize(
    ("sources", "root", "key", "name"),
    [
        ({"s3://b/x/"}, "s3://b/x/", "s3://b/x/1/2.jpg", "1/2.jpg"),
        ({"s3://b/x/", "s3://b/xy/"}, "s3://b/", "s3://b/xy/1.jpg", "xy/1.jpg"),
        ({"s3://b/x/", "s3://c/x/"}, "s3://", "s3://c/x/1.jpg", "c/x/1.jpg"),
        ({"s3://b/x/", "gs://b/x/"}, "", "gs://b/x/1.jpg", "b/x/1.jpg"),
        (set(), "", "file:///data/1.jpg", "data/1.jpg"),
        ({"s3://b/x/"}, "s3://b/x/", "https://host/1.jpg", "host/1.jpg"),
    ],
)
def test_file_names_are_relative_to_what_the_sources_share(sources: set[str], root: str, key: str, name: str) -> None:
    assert common_folder(sources) == root
    assert file_name(key, root) == name


@pytest.mark.parametrize(
    ("key", "source", "folders"),
    [
        ("s3://b/x/1.jpg", "s3://b/x", {"s3://b/x/"}),
        ("s3://b/x/1.jpg", "s3://b/x/", {"s3://b/x/"}),
        ("s3://b/x/1.jpg", "s3://b/x/1.jpg", {"s3://b/x/"}),
        ("s3://b/x/1.jpg", "s3://b/keys.csv", set()),
    ],
)
def test_sources_that_are_folders(key: str, source: str, folders: set[str]) -> None:
    assert source_folders([key], [source]) == folders


def test_a_real_s3_server_holds_it_too(seaweedfs: SeaweedFS) -> None:
    store = seaweedfs.store(seaweedfs.create_bucket("exports"), "coco")
    assert sink(store, images_per_file=2).push(two_dogs_and_a_cat()).added == 4
    assert sink(store, images_per_file=2).push(two_dogs_and_a_cat()).unchanged == 4
    assert sink(store).push(two_dogs_and_a_cat()).removed == 1
    assert sink(store).verify(two_dogs_and_a_cat()) == ()
    assert obstore.get(store, "instances.json").attributes["Content-Type"] == "application/json"


class ManyImages:
    """A large view that holds one batch at a time."""

    def __init__(self, batches: int) -> None:
        self._batches = batches

    def batches(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """As LabelledImages."""
        for number in range(self._batches):
            keys = [f"{PHOTOS}{number:04d}-{i:03d}.jpg" for i in range(100)]
            yield (
                table("images", [image(key) for key in keys]),
                table("annotations", [shape(key, instance=i) for key in keys for i in range(10)]),
            )


def test_memory_does_not_grow_with_the_archive() -> None:
    peaks = []
    for batches in (3, 12):
        tracemalloc.start()
        sink(MemoryStore(), images_per_file=200).plan(ManyImages(batches))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
