"""The example's scenes: the same for the same seed, boxes that fit the pixels, and a golden set that is what it says."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from examples.shapes.generate import ODD, draw
from examples.shapes.scenes import CATEGORIES, MAX_HIDDEN, SHAPES, SIDE_PX, Scene, SceneObject, ask, make_scene

SHAPES_FOLDER = Path(__file__).parents[2] / "examples" / "shapes"
GOLDEN = SHAPES_FOLDER / "golden"
DEMO = ("orange circle", "green square", "purple star", "cyan ring")


def extent_of_colour(image: Image.Image) -> tuple[int, int, int, int]:
    """The box of all that is vivid: backgrounds are dull, and the noise is grey."""
    vivid = np.ptp(np.asarray(image).astype(int), axis=2) > 45
    rows, columns = np.flatnonzero(vivid.any(1)), np.flatnonzero(vivid.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_the_same_seed_draws_the_same_scene():
    first, again, other = (make_scene(random.Random(seed)) for seed in ("a", "a", "b"))
    assert first.objects == again.objects
    assert first.image.tobytes() == again.image.tobytes()
    assert first.image.tobytes() != other.image.tobytes()


def test_boxes_fit_the_pixels():
    seen: Counter[str] = Counter()
    for seed in range(400):
        scene = make_scene(random.Random(seed), most=1)
        if len(scene.objects) != 1:
            continue
        item = scene.objects[0]
        seen[item.shape] += 1
        # A tip's last pixels are mostly background.
        tolerance = 3 if item.shape in ("star", "triangle") else 1
        assert np.abs(np.subtract(extent_of_colour(scene.image), item.box_xyxy)).max() <= tolerance, (seed, item)
    assert set(seen) == set(SHAPES)


def test_objects_stay_inside_and_visible():
    for seed in range(200):
        scene = make_scene(random.Random(seed))
        assert scene.image.size == (SIDE_PX, SIDE_PX)
        assert scene.image.mode == "RGB"
        assert 1 <= len(scene.objects) <= 8
        boxes = [item.box_xyxy for item in scene.objects]
        for number, (x0, y0, x1, y1) in enumerate(boxes):
            assert 0 <= x0 < x1 <= SIDE_PX
            assert 0 <= y0 < y1 <= SIDE_PX
            assert min(x1 - x0, y1 - y0) >= 16
            for u0, v0, u1, v1 in boxes[:number]:
                shared = max(0, min(x1, u1) - max(x0, u0)) * max(0, min(y1, v1) - max(y0, v0))
                assert shared <= MAX_HIDDEN * min((x1 - x0) * (y1 - y0), (u1 - u0) * (v1 - v0))


def test_wanted_categories_are_placed_often():
    categories = Counter(
        item.category for seed in range(200) for item in make_scene(random.Random(seed), categories=DEMO).objects
    )
    share = sum(categories[name] for name in DEMO) / categories.total()
    assert 0.7 < share < 0.9
    assert set(DEMO) < set(categories) <= set(CATEGORIES)


def test_an_unknown_category_is_named():
    with pytest.raises(ValueError, match="pink cow"):
        make_scene(random.Random(1), categories=("red star", "pink cow"))


def test_questions_ask_for_what_is_there_and_what_is_not():
    present = absent = bare = 0
    for seed in range(300):
        rng = random.Random(seed)
        scene = make_scene(rng)
        question = ask(rng, scene)
        assert 1 <= len(question.categories) <= 4
        assert len(set(question.categories)) == len(question.categories)
        for category in question.categories:
            assert category in CATEGORIES or category in SHAPES
            found = question.answers(category, scene)
            present, absent, bare = present + bool(found), absent + (not found), bare + (category in SHAPES)
    assert present > 300
    assert absent > 100
    assert bare > 30


def test_a_bare_shape_means_any_colour():
    objects = (SceneObject("red", "ring", (0, 0, 20, 20)), SceneObject("cyan", "ring", (40, 40, 80, 90)))
    scene = Scene(Image.new("RGB", (SIDE_PX, SIDE_PX)), objects)
    question = ask(random.Random(0), scene)
    assert question.answers("ring", scene) == list(objects)
    assert question.answers("red ring", scene) == [objects[0]]
    assert question.answers("red star", scene) == []


@pytest.fixture(scope="module")
def golden() -> COCO:
    return COCO(str(GOLDEN / "instances.json"))


def test_the_golden_set_is_small_and_whole(golden: COCO):
    files = [path for path in GOLDEN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 1_000_000
    images = golden.loadImgs(golden.getImgIds())
    assert len(images) == 48
    assert {image["file_name"] for image in images} == {path.name for path in (GOLDEN / "images").iterdir()}
    for image in images:
        with Image.open(GOLDEN / "images" / image["file_name"]) as stored:
            assert stored.size == (image["width"], image["height"]) == (SIDE_PX, SIDE_PX)


def test_the_golden_set_answers_the_demo_job(golden: COCO):
    job = yaml.safe_load((SHAPES_FOLDER / "job.yaml").read_text())
    names = {category["id"]: category["name"] for category in golden.loadCats(golden.getCatIds())}
    assert tuple(names.values()) == tuple(job["categories"]) == DEMO
    annotations = golden.loadAnns(golden.getAnnIds())
    assert min(Counter(names[a["category_id"]] for a in annotations).values()) >= 20
    for annotation in annotations:
        x, y, width, height = annotation["bbox"]
        assert min(x, y, SIDE_PX - x - width, SIDE_PX - y - height) >= 0
        assert annotation["area"] == width * height > 0


def test_the_golden_set_is_what_the_generator_draws(golden: COCO):
    names = {category["id"]: category["name"] for category in golden.loadCats(golden.getCatIds())}
    for drawing, image in zip(draw(48, 48, DEMO, days=0, odd=False), golden.loadImgs(golden.getImgIds()), strict=True):
        assert drawing.name == image["file_name"]
        assert drawing.scene is not None
        stored = [
            (names[a["category_id"]], tuple(a["bbox"])) for a in golden.loadAnns(golden.getAnnIds(imgIds=image["id"]))
        ]
        drawn = [
            (item.category, (x0, y0, x1 - x0, y1 - y0))
            for item in drawing.scene.objects
            if item.category in DEMO
            for x0, y0, x1, y1 in [item.box_xyxy]
        ]
        assert stored == drawn
        with Image.open(GOLDEN / "images" / drawing.name) as picture:
            difference = np.abs(np.asarray(picture).astype(int) - np.asarray(drawing.scene.image))
        assert difference.mean() < 4  # JPEG's own, whichever libjpeg wrote it


def generate(folder: Path, count: int) -> None:
    arguments = ["--out", str(folder), "--count", str(count), "--seed", "5", "--odd", "--categories", *DEMO]
    subprocess.run([sys.executable, SHAPES_FOLDER / "generate.py", *arguments], check=True)


def test_a_larger_count_only_adds(tmp_path: Path):
    generate(tmp_path, 8)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.jpg")}
    generate(tmp_path, 12)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.jpg")}
    assert len(before) == 8 + len(ODD)
    assert len(after) == 12 + len(ODD)
    assert before == {path: after[path] for path in before}
    assert {path.parent.name for path in after} == {"2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"}


def test_odd_files_are_odd_as_named(tmp_path: Path):
    generate(tmp_path, 0)
    truth = COCO(str(tmp_path / "instances.json"))
    odd = tmp_path / "images" / "2026-03-01"
    scenes = {Path(drawing.name).name: drawing.scene for drawing in draw(0, 5, DEMO, days=4, odd=True)}
    with Image.open(odd / "odd-turned-by-exif.jpg") as turned:
        upright = ImageOps.exif_transpose(turned)
        scene = scenes["odd-turned-by-exif.jpg"]
        assert turned.getexif()[0x0112] == 6
        assert scene is not None
        assert np.abs(np.asarray(upright).astype(int) - np.asarray(scene.image)).mean() < 4
    with Image.open(odd / "odd-really-a-png.jpg") as png:
        assert png.format == "PNG"
    with Image.open(odd / "odd-cut-short.jpg") as cut, pytest.raises(OSError, match="truncated"):
        cut.load()
    assert (odd / "odd-empty.jpg").stat().st_size == 0
    assert {image["file_name"] for image in truth.loadImgs(truth.getImgIds())} == {
        "2026-03-01/odd-turned-by-exif.jpg",
        "2026-03-01/odd-really-a-png.jpg",
    }


def test_the_ground_truth_lists_all_categories_where_none_is_asked_for(tmp_path: Path):
    command = [sys.executable, str(SHAPES_FOLDER / "generate.py"), "--out", str(tmp_path), "--count", "3"]
    subprocess.run(command, check=True)
    truth = json.loads((tmp_path / "instances.json").read_text())
    assert [category["name"] for category in truth["categories"]] == list(CATEGORIES)
    assert len(truth["images"]) == 3
    assert truth["annotations"]
