"""Golden sets as people have them: mistakes are named before anything is labelled, the sample is the same everywhere and shows every category, and lies evenly over shards."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from model.taxonomy import Category, Taxonomy
from sinks.dataset.store import open_store
from tasks.golden import (
    GoldenSample,
    GoldenSetError,
    GoldenSettings,
    draw_sample,
    find_golden_sample,
    read_golden_set,
    read_golden_sets,
)
from tasks.sources import Sources

TAXONOMY = Taxonomy(
    categories=(Category(name="dog", phrases=("a dog",), synonyms=("hound",)), Category.model_validate("cat"))
)
IMAGE = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}
BOX = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}
CATEGORIES = [{"id": 1, "name": "Dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "horse"}]


def settings(folder: Path, sample: int = 200, **parts: Any) -> GoldenSettings:
    """A golden set in folder, its pictures empty files; parts replace those of a good one."""
    coco = {"images": [IMAGE], "annotations": [BOX], "categories": CATEGORIES} | parts
    (folder / "images").mkdir(exist_ok=True)
    for image in coco["images"]:
        (folder / "images" / image.get("file_name", "a.jpg")).write_bytes(b"picture")
    (folder / "instances.json").write_text(json.dumps(coco))
    return GoldenSettings(coco=f"file://{folder}/instances.json", images=f"file://{folder}/images", sample=sample)


def find(golden: GoldenSettings) -> GoldenSample:
    return find_golden_sample([golden], TAXONOMY, None)


def many(counts: dict[int, int], empty: int = 0) -> dict[str, Any]:
    """Parts of a set with that many pictures of each category, one box each, and pictures of nothing."""
    shown = [category for category, count in counts.items() for _ in range(count)] + [0] * empty
    images = [IMAGE | {"id": number, "file_name": f"{number:03d}.jpg"} for number in range(len(shown))]
    boxes = [BOX | {"image_id": number, "category_id": category} for number, category in enumerate(shown) if category]
    return {"images": images, "annotations": boxes}


def test_names_phrases_and_synonyms_lead_to_the_jobs_categories(tmp_path: Path) -> None:
    names = ["DOG", "a  dog", "hound", "Cat", "horse"]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    boxes = [BOX | {"category_id": number} for number in range(len(names))]
    sample = find(settings(tmp_path, annotations=boxes, categories=categories))
    (image,) = sample.images
    assert sample.unmapped == ("horse",)
    assert image.known.judged == ("dog", "cat")
    assert [truth.category for truth in image.known.truths] == ["dog", "dog", "dog", "cat"]
    assert image.known.truths[0].bbox_xyxy == (10, 10, 30, 30)


def test_images_are_found_with_version_and_size(tmp_path: Path) -> None:
    golden = settings(tmp_path)
    (image,) = find(golden).images
    assert image.record.key == f"file://{tmp_path}/images/a.jpg"
    assert (image.record.source, image.record.size_bytes) == (golden.coco, 7)
    assert image.record.etag.startswith("7-")
    assert find(golden).known == {(golden.coco, image.record.key): image.known}


def test_a_set_anywhere_a_source_reaches(tmp_path: Path) -> None:
    store = open_store("memory://golden-anywhere", None)
    store.put("sets/instances.json", (tmp_path / settings(tmp_path).coco.rpartition("/")[2]).read_bytes())
    store.put("sets/images/a.jpg", b"picture")
    elsewhere = GoldenSettings(
        coco="memory://golden-anywhere/sets/instances.json", images="memory://golden-anywhere/sets/images/"
    )
    (image,) = find(elsewhere).images
    assert image.record.key == "memory://golden-anywhere/sets/images/a.jpg"
    assert image.record.etag


# what is in the file instead; what the message names
MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "box outside": ({"annotations": [BOX | {"bbox": [90, 10, 20, 20]}]}, ("outside their image", "a.jpg (100 × 50) [90.0, 10.0, 20.0, 20.0]")),
    "box before the image": ({"annotations": [BOX | {"bbox": [-5, 10, 20, 20]}]}, ("outside their image",)),
    "box that is no number": ({"annotations": [BOX | {"bbox": [1, 2, 3]}]}, ("annotations.0.bbox", "COCO")),
    "box without area": ({"annotations": [BOX | {"bbox": [10, 10, 0, 20]}]}, ("without area", "[x, y, width, height]")),
    "box of no image": ({"annotations": [BOX | {"image_id": 7}]}, ("images it does not list", "7")),
    "box of no category": ({"annotations": [BOX | {"category_id": 9}]}, ("categories it does not list", "9")),
    "image without size": ({"images": [{"id": 1, "file_name": "a.jpg"}]}, ("images.0.width",)),
    "image twice": ({"images": [IMAGE, IMAGE | {"id": 2}]}, ("file names given twice", "a.jpg")),
    "no images": ({"images": []}, ("images",)),
    "categories the job does not have": ({"categories": [{"id": 1, "name": "horse"}]}, ("none of its categories (horse)", "(dog, cat)", "synonyms")),
    "crowds only": ({"annotations": [BOX | {"iscrowd": 1}]}, ("crowd",)),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named(case: str, tmp_path: Path) -> None:
    parts, words = MISTAKES[case]
    with pytest.raises(GoldenSetError) as caught:
        find(settings(tmp_path, **parts))
    for word in ("golden[0].coco", *words):
        assert word in str(caught.value)


def test_several_mistakes_are_named_at_once(tmp_path: Path) -> None:
    boxes = [BOX | {"bbox": [90, 10, 20, 20]}] * 7 + [BOX | {"image_id": 7}]
    with pytest.raises(GoldenSetError, match=r"(?s)1 boxes of images.*7 boxes outside.*and 2 more"):
        find(settings(tmp_path, annotations=boxes))


def test_a_box_may_stand_out_by_a_rounding(tmp_path: Path) -> None:
    find(settings(tmp_path, annotations=[BOX | {"bbox": [79.6, 30.2, 20.9, 20.3]}]))


def test_missing_images_are_named(tmp_path: Path) -> None:
    golden = settings(tmp_path, **many({1: 3}))
    for number in (0, 2):
        (tmp_path / "images" / f"{number:03d}.jpg").unlink()
    with pytest.raises(GoldenSetError, match=r"golden\[0\]\.images: 2 of 3 images cannot be had: .*missing") as caught:
        find(golden)
    assert "000.jpg" in str(caught.value) and "002.jpg" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_file_that_is_no_coco(content: bytes, tmp_path: Path) -> None:
    golden = settings(tmp_path)
    (tmp_path / "instances.json").write_bytes(content)
    with pytest.raises(GoldenSetError, match="not COCO's format"):
        find(golden)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GoldenSetError, match="there is no such file"):
        find(GoldenSettings(coco=f"file://{tmp_path}/none.json", images=f"file://{tmp_path}"))


def test_the_sample_shows_every_category_and_is_the_same_wherever_the_set_lies(tmp_path: Path) -> None:
    drawn = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        sample = find(settings(tmp_path / place, sample=30, **many({1: 4, 2: 100}, empty=50)))
        shown = Counter(image.known.truths[0].category if image.known.truths else "" for image in sample.images)
        assert shown == {"dog": 4, "cat": 13, "": 13}
        drawn.append([image.record.key.rpartition("/")[2] for image in sample.images])
    assert drawn[0] == drawn[1]


def test_a_larger_sample_keeps_the_smaller_one(tmp_path: Path) -> None:
    golden = settings(tmp_path, **many({1: 20, 2: 30}))
    images = read_golden_set(golden, "golden[0]", TAXONOMY, Sources(None)).images
    assert set(draw_sample(images, 10)) < set(draw_sample(images, 25)) < set(draw_sample(images, 1000)) == set(images)
    assert len(read_golden_sets([golden], TAXONOMY, None).images) == 50


@pytest.mark.parametrize(("images", "shards"), [(0, 3), (1, 5), (5, 1), (5, 5), (48, 3), (7, 4), (3, 1000)])
def test_images_lie_evenly_over_the_shards(images: int, shards: int, tmp_path: Path) -> None:
    found = read_golden_sets([settings(tmp_path, **many({1: images or 1}))], TAXONOMY, None).images[:images]
    shares = [GoldenSample(found).of_shard(index, shards) for index in range(shards)]
    assert [image for share in shares for image in share] == list(found)
    assert all(found[j] in shares[j * shards // images] for j in range(images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
