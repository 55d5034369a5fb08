"""The main job from images to COCO and gallery, in this process, with the reference engine: what each run labels, and that whatever happens between ends as if nothing had."""

import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pycocotools.coco import COCO

from examples.shapes.generate import draw
from flows.job import LabelJob
from flows.label import prelabel
from model.engines.base import Engine, EngineError, Generation, Request
from sinks.dataset.ledger import Ledger
from sinks.dataset.reading import current_view, open_view
from tasks.preparing import load_engine
from tasks.reporting import RunReport
from tests.datasets import Answer, Key, answers, assert_equal
from tests.flows.jobs import CATEGORIES, draw_scenes, make_job
from tests.pictures import PICTURES, Picture, write_pictures
from tests.servers.seaweedfs import SeaweedFS

pytestmark = pytest.mark.usefixtures("prefect_server")

SCENES, SEED = 40, 5
LOAD_ENGINE = "flows.label_shards.load_engine"  # as the worker calls it
SINKS = [{"kind": "coco", "url": "coco"}, {"kind": "gallery", "url": "gallery", "pictures": 12}]


@dataclass(frozen=True)
class Site:
    """An archive of SCENES scenes, and what an undisturbed run over it says."""

    folder: Path
    job: LabelJob
    reports: list[RunReport]
    undisturbed: dict[Key, Answer]

    def another_job(self, folder: Path, **changes: Any) -> LabelJob:
        """The same job over the same archive with an output of its own."""
        return make_job(folder, source={"prefixes": [str(self.folder / "images")]}, **changes)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Site:
    folder = tmp_path_factory.mktemp("site")
    draw_scenes(folder / "images", range(SCENES), seed=SEED)
    job = make_job(folder, sinks=SINKS)
    reports = prelabel(job)
    return Site(folder, job, reports, answers(job.output))


def ledger_of(job: LabelJob) -> Ledger:
    return Ledger.open(job.output, job.credentials.output)


def states(job: LabelJob) -> list[str]:
    return [state.state for state in ledger_of(job).states()]


# --- an undisturbed run ----------------------------------------------------------------------------------------------


def test_a_run_labels_every_image_and_says_so(site: Site) -> None:
    (report,) = site.reports
    assert (report.outcome, report.images) == ("done", SCENES)
    assert report.planned is not None
    assert (report.planned.listed, report.planned.new) == (SCENES, SCENES)
    shapes = sum(len(answer.shapes) for answer in site.undisturbed.values())
    assert report.counts["images"] == report.counts["ok"] == len(site.undisturbed) == SCENES
    assert report.counts["annotations"] == shapes > SCENES
    assert sum(report.counts[f"category:{name}"] for name in CATEGORIES) == shapes
    assert "unchecked" in report.sentence
    plan = ledger_of(site.job).plan(report.run_id or "")
    assert (plan.shards, plan.images, plan.complete_listing) == (SCENES // 8, SCENES, True)
    assert LabelJob.model_validate_json(plan.job) == site.job


def test_the_labels_are_where_the_shapes_are(site: Site) -> None:
    view = open_view(site.job.output)
    boxes = view.annotations().select("image_key", "category", "bbox_xyxy").collect()
    found = wanted = 0
    for drawing in draw(SCENES, SEED, CATEGORIES, days=0, odd=False):
        assert drawing.scene is not None
        own = boxes.filter(pl.col("image_key").str.ends_with(drawing.name))
        for thing in drawing.scene.objects:
            if thing.category in CATEGORIES:
                said = own.filter(pl.col("category") == thing.category)["bbox_xyxy"].to_list()
                wanted += 1
                found += any(overlap(box, thing.box_xyxy) > 0.5 for box in said)
    assert found / wanted > 0.9


def overlap(one: Iterable[float], other: Iterable[float]) -> float:
    """Intersection over union of two boxes."""
    a, b = np.array(list(one)), np.array(list(other))
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    return float(sides.prod() / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - sides.prod()))


def test_coco_and_gallery_hold_what_the_dataset_holds(site: Site) -> None:
    coco = COCO(str(site.folder / "coco" / "instances.json"))
    assert len(coco.imgs) == SCENES
    assert len(coco.anns) == site.reports[0].counts["annotations"]
    assert {category["name"] for category in coco.cats.values()} == set(CATEGORIES)
    page = (site.folder / "gallery" / "gallery.html").read_text("utf-8")
    assert "scene-000" in page
    assert all(name in page for name in CATEGORIES)
    assert [(push.sink, push.error) for push in site.reports[0].pushes] == [("coco", None), ("gallery", None)]


def test_run_again_there_is_nothing_to_do_and_no_engine_is_loaded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOAD_ENGINE, never)
    before = states(site.job)
    (report,) = prelabel(site.job)
    assert (report.outcome, report.run_id) == ("nothing", None)
    assert [push.sentence for push in report.pushes] == ["up to date", "up to date"]
    assert states(site.job) == before


def never(*_: object) -> Engine:
    raise AssertionError("an engine was loaded")


def test_a_sink_that_is_lost_or_new_is_made_good_without_an_engine(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOAD_ENGINE, never)
    shutil.copytree(site.folder / "output", tmp_path / "output")
    job = site.another_job(tmp_path, sinks=SINKS[:1])
    before = json.loads((site.folder / "coco" / "instances.json").read_bytes())
    (report,) = prelabel(job)
    assert (report.outcome, report.pushes[0].error) == ("nothing", None)
    assert json.loads((tmp_path / "coco" / "instances.json").read_bytes()) == before
    (tmp_path / "coco" / "instances.json").unlink()
    prelabel(job)
    assert json.loads((tmp_path / "coco" / "instances.json").read_bytes()) == before


def test_a_sink_that_fails_fails_alone_and_is_pushed_by_the_next_run(site: Site, tmp_path: Path) -> None:
    shutil.copytree(site.folder / "output", tmp_path / "output")
    (tmp_path / "coco").write_text("a file where the folder should be")
    job = site.another_job(tmp_path, sinks=SINKS)
    (report,) = prelabel(job)
    coco, gallery = report.pushes
    assert coco.error is not None
    assert gallery.error is None
    assert (tmp_path / "gallery" / "gallery.html").exists()
    (tmp_path / "coco").unlink()
    (report,) = prelabel(job)
    assert [push.error for push in report.pushes] == [None, None]


# --- what the next run labels ----------------------------------------------------------------------------------------


def test_only_what_is_new_or_changed_is_labelled(tmp_path: Path) -> None:
    images = tmp_path / "images"
    draw_scenes(images, range(12))
    job = make_job(tmp_path, shard_size=5, sinks=SINKS[:1])
    prelabel(job)
    before = answers(job.output)

    draw_scenes(images, range(12, 15))
    changed, removed = images / "scene-00004.jpg", images / "scene-00007.jpg"
    changed.write_bytes((images / "scene-00009.jpg").read_bytes())
    removed.unlink()
    (report,) = prelabel(job)
    assert report.planned is not None
    assert (report.planned.already, report.planned.new, report.planned.changed) == (10, 3, 1)
    assert (report.outcome, report.images) == ("done", 4)

    after = answers(job.output)
    of = {Path(key[0]).name: value for key, value in after.items()}
    assert len(of) == len(after) == 15  # one version of each
    assert of["scene-00004.jpg"].shapes == of["scene-00009.jpg"].shapes
    kept = [key for key in before if Path(key[0]).name != "scene-00004.jpg"]
    assert all(after[key] == before[key] for key in kept)
    assert len(COCO(str(tmp_path / "coco" / "instances.json")).imgs) == 15


def test_a_pilot_then_the_rest(site: Site, tmp_path: Path) -> None:
    job = site.another_job(tmp_path)
    (pilot,) = prelabel(job, limit=10)
    assert (pilot.outcome, pilot.images, len(answers(job.output))) == ("done", 10, 10)
    (rest,) = prelabel(job)
    assert rest.planned is not None
    assert (rest.planned.already, rest.images) == (10, SCENES - 10)
    assert_equal(answers(job.output), site.undisturbed)


def test_unreadable_images_are_tried_again_only_when_asked(site: Site, tmp_path: Path) -> None:
    strict = site.another_job(tmp_path, fetching={"max_pixels": 10_000})
    (report,) = prelabel(strict)
    assert report.counts["unreadable"] == SCENES
    job = site.another_job(tmp_path)
    (report,) = prelabel(job)
    assert report.outcome == "nothing"
    (report,) = prelabel(job, retry_failed=True)
    assert report.planned is not None
    assert (report.planned.retried, report.counts["ok"]) == (SCENES, SCENES)
    assert_equal(answers(job.output), site.undisturbed)


def test_another_question_is_asked_of_every_image(site: Site, tmp_path: Path) -> None:
    shutil.copytree(site.folder / "output", tmp_path / "output")
    job = site.another_job(tmp_path, categories=["ring"], shard_size=100)
    (report,) = prelabel(job, limit=6)
    assert (report.outcome, report.images) == ("done", 6)
    assert report.planned is not None
    assert report.planned.already == 0


# --- disturbances ----------------------------------------------------------------------------------------------------


@dataclass
class DisturbedEngine:
    """A real engine that dies after so many answers, or refuses some requests."""

    engine: Engine
    dies_after: int = 10**9
    refuses: Callable[[int], bool] = lambda number: False

    def __post_init__(self) -> None:
        self.name, self.version, self.max_in_flight = self.engine.name, self.engine.version, self.engine.max_in_flight

    def generate(self, requests: Iterable[Request]) -> Generator[Generation, None, None]:
        for number, generation in enumerate(self.engine.generate(requests)):
            if number == self.dies_after:
                raise EngineError("the device is gone")
            if self.refuses(number):
                nothing = np.array([], np.int32)
                yield replace(generation, token_ids=nothing, logprobs=None, finish_reason="error", error="too long")
            else:
                yield generation

    def close(self) -> None:
        self.engine.close()


def disturb(monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    monkeypatch.setattr(LOAD_ENGINE, lambda *args: DisturbedEngine(load_engine(*args), **how))


def test_what_a_dying_engine_left_is_adopted_and_finished(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = site.another_job(tmp_path, sinks=SINKS[:1])
    with monkeypatch.context() as disturbed:
        disturb(disturbed, dies_after=21)
        with pytest.raises(EngineError, match="the device is gone"):
            prelabel(job)
    (plan,) = ledger_of(job).plans()
    assert 0 < len(ledger_of(job).shards_left(plan)) < plan.shards
    assert answers(job.output) == {}  # nothing of an unfinished run is seen
    assert not (tmp_path / "coco").exists()

    adopted, rest = prelabel(job)
    assert (adopted.outcome, adopted.run_id, rest.outcome) == ("done", plan.run_id, "nothing")
    assert adopted.counts["images"] == SCENES > adopted.images
    assert_equal(answers(job.output), site.undisturbed)
    assert len(COCO(str(tmp_path / "coco" / "instances.json")).imgs) == SCENES


def test_a_store_that_fails_in_a_commit_loses_no_shard(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = site.another_job(tmp_path)
    commit, calls = Ledger.commit_shard, []

    def failing(self: Ledger, *args: Any) -> Any:
        calls.append(args[0].index)
        if len(calls) == 3:
            raise OSError("no space left on device")
        return commit(self, *args)

    with monkeypatch.context() as disturbed:
        disturbed.setattr(Ledger, "commit_shard", failing)
        with pytest.raises(OSError, match="no space left"):
            prelabel(job)
    (plan,) = ledger_of(job).plans()
    assert calls[2] in ledger_of(job).shards_left(plan)
    adopted, _ = prelabel(job)
    assert (adopted.outcome, adopted.run_id) == ("done", plan.run_id)
    assert_equal(answers(job.output), site.undisturbed)


def test_an_unfinished_run_is_taken_up_by_pilots_in_whole_shards(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = site.another_job(tmp_path)
    with monkeypatch.context() as disturbed:
        disturb(disturbed, dies_after=9)
        with pytest.raises(EngineError):
            prelabel(job)
    (report,) = prelabel(job, limit=9)
    assert (report.outcome, report.images, report.counts["images"]) == ("partial", 16, 24)
    assert "2 of 5 shards left" in report.sentence
    adopted, _ = prelabel(job)
    assert (adopted.outcome, adopted.images) == ("done", 16)
    assert_equal(answers(job.output), site.undisturbed)


def test_refused_images_are_failed_rows_and_the_next_run_tries_them_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = site.another_job(tmp_path)
    with monkeypatch.context() as disturbed:
        disturb(disturbed, refuses=lambda number: number % 10 == 3)
        (report,) = prelabel(job)
    assert (report.outcome, report.counts["failed"], report.counts["ok"]) == ("done", 4, 36)
    failed = [answer for answer in answers(job.output).values() if answer.status == "failed"]
    assert {answer.error for answer in failed} == {"the engine refused it: too long"}
    (report,) = prelabel(job)
    assert report.planned is not None
    assert (report.planned.retried, report.planned.already, report.images) == (4, 36, 4)
    assert_equal(answers(job.output), site.undisturbed)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_around_the_promotion(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    job = site.another_job(tmp_path, sinks=SINKS[:1])
    append = Ledger.append_state

    def crashing(self: Ledger, *args: Any, **options: Any) -> Any:
        if when == "after":
            append(self, *args, **options)
        raise RuntimeError("the power went")

    with monkeypatch.context() as disturbed:
        disturbed.setattr(Ledger, "append_state", crashing)
        with pytest.raises(RuntimeError, match="the power went"):
            prelabel(job)
    assert states(job) == ["staged"] + ["promoted"] * (when == "after")

    monkeypatch.setattr(LOAD_ENGINE, never)
    (report,) = prelabel(job)
    assert report.outcome == "nothing"
    assert states(job) == ["staged", "promoted"]
    assert_equal(answers(job.output), site.undisturbed)
    assert len(COCO(str(tmp_path / "coco" / "instances.json")).imgs) == SCENES


def test_an_image_that_goes_or_changes_after_it_was_listed(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(site.folder / "images", tmp_path / "images")
    job = make_job(tmp_path)

    def meanwhile(*args: Any) -> Engine:
        (tmp_path / "images" / "scene-00003.jpg").unlink()
        os.utime(tmp_path / "images" / "scene-00031.jpg", (1, 1))
        return load_engine(*args)

    with monkeypatch.context() as disturbed:
        disturbed.setattr(LOAD_ENGINE, meanwhile)
        (report,) = prelabel(job)
    assert (report.counts["failed"], report.counts["ok"]) == (2, SCENES - 2)
    of = {Path(key[0]).name: answer for key, answer in answers(job.output).items()}
    assert "gone" in (of["scene-00003.jpg"].error or "")
    assert "changed" in (of["scene-00031.jpg"].error or "")

    (report,) = prelabel(job)
    assert report.planned is not None
    assert (report.planned.changed, report.planned.already, report.images) == (1, SCENES - 2, 1)
    of = {Path(key[0]).name: answer for key, answer in answers(job.output).items()}
    assert of["scene-00031.jpg"].status == "ok"


# --- pictures of every kind ------------------------------------------------------------------------------------------


def test_every_picture_of_an_archive_ends_as_one_row(tmp_path: Path) -> None:
    written = write_pictures(tmp_path / "images")
    job = make_job(tmp_path, source={"prefixes": ["images"], "suffixes": []}, shard_size=20, sinks=SINKS)
    (report,) = prelabel(job)
    assert report.outcome == "done"
    assert [push.error for push in report.pushes] == [None, None]

    view = current_view(ledger_of(job))
    rows = view.images().collect()
    shapes = view.annotations().collect()
    assert rows.height == rows["image_key"].n_unique() == len(PICTURES)
    by_key = {row["image_key"]: row for row in rows.to_dicts()}
    for picture, path in zip(PICTURES, written, strict=True):
        row = by_key[f"file://{path}"]
        check_row(picture, row)
        own = shapes.filter(pl.col("image_key") == row["image_key"])
        if picture.status:
            assert own.is_empty()
        for x0, y0, x1, y1 in own["bbox_xyxy"].to_list():
            assert 0 <= x0 <= x1 <= row["width_px"], picture.name
            assert 0 <= y0 <= y1 <= row["height_px"], picture.name


def check_row(picture: Picture, row: dict[str, Any]) -> None:
    """The row of a picture's file says what PICTURES wants."""
    if picture.status is None:
        assert row["status"] in ("ok", "truncated", "malformed"), (picture.name, row["error"])
        assert row["error"] is None or row["status"] != "ok", picture.name
        assert row["token_ids"], picture.name
    else:
        assert (row["status"], row["token_ids"]) == (picture.status, None), picture.name
        pattern = pl.Series([row["error"].lower()]).str.contains(picture.reason.lower())
        assert pattern.all(), (picture.name, row["error"])
    size = (row["width_px"], row["height_px"])
    assert size == (picture.size_px or (None, None)), picture.name


# --- a real S3 -------------------------------------------------------------------------------------------------------


def test_the_same_job_on_s3_says_the_same(
    site: Site, seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "wrong")  # the job's own credentials are meant
    for name in ("archive", "labels"):
        for variable, value in seaweedfs.credentials(name).items():
            monkeypatch.setenv(variable, value)
    archive = seaweedfs.store(seaweedfs.create_bucket("whole-job-archive"))
    labels = seaweedfs.create_bucket("whole-job-labels")
    pictures = sorted((site.folder / "images").iterdir())
    for number in range(2300):  # three pages of a listing
        archive.put(f"2026/tiles/tile-{number:05d}.png", b"not one of the job's")
    for path in pictures:
        archive.put(f"2026/scenes/{path.name}", path.read_bytes())
    job = make_job(
        tmp_path,
        source={"prefixes": ["s3://whole-job-archive/2026"], "include": ["scenes/"]},
        output=f"s3://{labels}/scenes",
        sinks=[
            {"kind": "coco", "url": f"s3://{labels}/coco"},
            {"kind": "gallery", "url": f"s3://{labels}/gallery"},
        ],
        credentials={"source": "archive", "output": "labels"},
    )
    (pilot,) = prelabel(job, limit=11)
    (report,) = prelabel(job)
    assert (pilot.images, report.images, report.outcome) == (11, SCENES - 11, "done")
    assert report.skipped == {"not included": 2300}
    assert [push.error for push in report.pushes] == [None, None]

    found = answers(job.output, strip="s3://whole-job-archive/2026/scenes/", credentials="labels")
    local = answers(site.job.output, strip=f"file://{site.folder}/images/")
    assert_equal(found, local, versions=False)
    coco = json.loads(bytes(seaweedfs.store(labels).get("coco/instances.json").bytes()))
    assert len(coco["images"]) == SCENES
    (again,) = prelabel(job)
    assert again.outcome == "nothing"
