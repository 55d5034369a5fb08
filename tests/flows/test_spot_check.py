"""The spot check in whole runs, by the real engine: held, waiting, judged again, promoted, discarded and labelled again; golden images never among the labels."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from prefect.testing.utilities import prefect_test_harness

from flows import label
from flows.cli import main
from flows.job import JobError, LabelJob
from flows.label import prelabel
from flows.label_shards import ShardsReport
from flows.spot_check import NothingToCheckError, check_run, discard_run, promote_run
from sinks.dataset.ledger import Ledger, UnknownRunError
from sinks.dataset.reading import current_view
from sinks.dataset.states import StateError
from tasks.checking import read_checks
from tasks.golden import GoldenSetError
from tasks.planning import PlanCounts, PlanOutcome, plan_run
from tests.datasets import answers
from tests.flows.jobs import CHECKPOINT, draw_scenes, make_job, write_job

GOLDEN = [{"coco": "golden/instances.json", "images": "golden/images", "sample": 6}]
SHIPPED = CHECKPOINT.parent / "golden"


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    with prefect_test_harness():
        yield


def write_golden(folder: Path, *, shift: int = 0) -> None:
    """The shipped golden set, its boxes shifted by that many pixels: a set that the model cannot please."""
    (folder / "golden").mkdir(exist_ok=True)
    if not (folder / "golden" / "images").exists():
        shutil.copytree(SHIPPED / "images", folder / "golden" / "images")
    coco = json.loads((SHIPPED / "instances.json").read_text())
    sizes = {image["id"]: image["width"] for image in coco["images"]}
    for box in coco["annotations"]:
        x, y, width, height = box["bbox"]
        box["bbox"] = [(x + shift) % (sizes[box["image_id"]] - width), y, width, height]
    (folder / "golden" / "instances.json").write_text(json.dumps(coco))


def checked_job(folder: Path, **changes: Any) -> Path:
    fields = {"shard_size": 2, "golden": GOLDEN, "gates": {"min_f1": 0.6}, "sinks": [{"kind": "coco", "url": "coco"}]}
    return write_job(folder, **(fields | changes))


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_from_held_to_promoted(tmp_path: Path) -> None:
    draw_scenes(tmp_path / "images", range(5))
    write_golden(tmp_path, shift=60)
    path = checked_job(tmp_path)

    first = invoke("run", path)
    assert first.exit_code == 3, first.output
    assert "less than 0.6" in first.output and "prelabel promote" in first.output and "wrong" in first.output
    ledger = Ledger.open(f"file://{tmp_path}/output", None)
    (plan,) = ledger.plans()
    assert ledger.state_of(plan.run_id) == "held"
    assert not current_view(ledger).runs and not (tmp_path / "coco").exists()

    checks = read_checks(ledger, plan.run_id)
    assert checks.num_rows == 6
    assert sorted(checks["shard"].unique().to_pylist()) == [f"{plan.run_id}-{index:06d}" for index in range(3)]
    assert all("/golden/images/" in key for key in checks["image_key"].to_pylist())
    assert all(checks["token_ids"].is_valid().to_pylist()) and all(checks["token_logprobs"].is_valid().to_pylist())
    of_run = current_view(ledger, run=plan.run_id)
    for labelled in (of_run.images(), of_run.annotations()):
        assert not labelled.filter(pl.col("image_key").str.contains("golden")).collect().height
    markers = list(ledger.markers(plan))
    assert [marker.counts["images"] for marker in markers] == [2, 2, 1]

    second = invoke("run", path)  # nothing is new, but something waits
    assert second.exit_code == 3, second.output
    assert "Nothing to do" in second.output
    assert f"5 images wait in held run {plan.run_id}" in second.output.replace("\n", " ")
    assert len(ledger.plans()) == 1

    assert f"5 images wait in held run {plan.run_id}" in invoke("status", path).output

    again = invoke("check", path)
    assert again.exit_code == 3 and "would be held" in again.output
    write_golden(tmp_path)  # the mistake was in the golden set
    again = invoke("check", path, "--run", plan.run_id)
    assert again.exit_code == 0, again.output
    assert "would be promoted" in again.output and f"prelabel promote JOB {plan.run_id}" in again.output
    assert ledger.state_of(plan.run_id) == "held"

    promoted = invoke("promote", path, plan.run_id, "--why", "the golden set was wrong", "--who", "ada")
    assert promoted.exit_code == 0, promoted.output
    assert ledger.states()[-1].who == "ada" and ledger.states()[-1].why == "the golden set was wrong"
    assert len(json.loads((tmp_path / "coco" / "instances.json").read_text())["images"]) == 5
    assert len(answers(f"file://{tmp_path}/output")) == 5
    assert invoke("run", path).exit_code == 0
    assert invoke("discard", path, plan.run_id, "--why", "too late").exit_code == 2


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_what_is_discarded_is_labelled_again_and_what_is_new_meanwhile_on_its_own(tmp_path: Path) -> None:
    draw_scenes(tmp_path / "images", range(3))
    write_golden(tmp_path)
    gates = {"min_f1": {"overall": 0.1, "purple star": 1.0, "cyan ring": 1.0, "green square": 1.0}, "max_unreadable": 0}
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no picture")
    (held,) = prelabel(make_job(tmp_path, golden=GOLDEN, gates=gates))
    assert held.outcome == "held" and held.run_id
    assert "1 of 4 answers are missing" in held.sentence

    (tmp_path / "images" / "broken.jpg").unlink()
    draw_scenes(tmp_path / "images", range(4))
    lenient = make_job(tmp_path, golden=GOLDEN, gates={"min_f1": 0.1})
    own, waiting = prelabel(lenient)
    assert (own.outcome, waiting.outcome, waiting.run_id) == ("done", "held", held.run_id)
    assert own.counts["images"] == 1 and own.scores and own.scores.images == 6
    assert own.sentence.startswith("promoted: F1 is ")
    output = f"file://{tmp_path}/output"
    assert len(answers(output)) == 1

    report = discard_run(lenient, held.run_id, who="ada", why="a broken file")
    assert "labels its images again" in report.sentence
    (third,) = prelabel(lenient)
    assert (third.outcome, third.counts["images"]) == ("done", 3)
    assert len(answers(output)) == 4
    with pytest.raises(StateError, match="discarded"):
        promote_run(lenient, held.run_id, who="ada", why="after all")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_points_in_boxes(tmp_path: Path) -> None:
    """The tiny model was never taught to point: what counts is that its answers are judged as points, and the run held."""
    draw_scenes(tmp_path / "images", range(1))
    write_golden(tmp_path)
    job = make_job(tmp_path, task="pointing", golden=GOLDEN, gates={"min_f1": 0.99})
    (report,) = prelabel(job)
    assert report.outcome == "held"
    assert report.scores and report.scores.thresholds == (1.0,)
    assert report.scores.images == 6


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_without_a_golden_set_it_is_said_loudly(tmp_path: Path) -> None:
    draw_scenes(tmp_path / "images", range(1))
    (report,) = prelabel(make_job(tmp_path))
    assert (report.outcome, report.scores) == ("done", None)
    assert "unchecked" in report.sentence
    with pytest.raises(NothingToCheckError, match="names no golden set"):
        check_run(make_job(tmp_path), None)
    write_golden(tmp_path)
    with pytest.raises(NothingToCheckError, match="before the job named a golden set"):
        check_run(make_job(tmp_path, golden=GOLDEN), report.run_id)


# fields of the job; words of what is said
BAD_JOBS: dict[str, tuple[dict[str, Any], str]] = {
    "a task that cannot be checked": ({"task": "ocr_box", "categories": ["word"], "golden": GOLDEN}, "golden: answers of the task ocr_box cannot be checked"),
    "a gate without a golden set": ({"gates": {"min_f1": 0.5}}, "no F1 without a golden set"),
    "a gate of an unknown category": ({"golden": GOLDEN, "gates": {"min_f1": {"blue dog": 0.5}}}, "'blue dog' is not one of the job's categories"),
    "a gate that is no share": ({"golden": GOLDEN, "gates": {"min_f1": 80}}, "gates.min_f1.overall"),
    "the same set twice": ({"golden": GOLDEN * 2}, "named twice"),
    "no images": ({"golden": [{"coco": "golden/instances.json"}]}, "golden[0].images"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_JOBS)
def test_jobs_that_cannot_be_checked(case: str, tmp_path: Path) -> None:
    fields, words = BAD_JOBS[case]
    with pytest.raises(JobError) as caught:
        make_job(tmp_path, **fields)
    assert words in str(caught.value)


def test_paths_of_the_golden_set_are_taken_from_the_job_files_folder(tmp_path: Path) -> None:
    (golden,) = make_job(tmp_path, golden=GOLDEN).golden
    assert golden.coco == f"file://{tmp_path}/golden/instances.json"
    assert golden.images == f"file://{tmp_path}/golden/images"


def test_golden_sets_and_gates_change_no_fingerprint(tmp_path: Path) -> None:
    bare, checked = make_job(tmp_path).question(), make_job(tmp_path, golden=GOLDEN, gates={"min_f1": 0.5}).question()
    assert (bare.generation, bare.decoding) == (checked.generation, checked.decoding)


@pytest.mark.usefixtures("prefect")
def test_a_broken_golden_set_is_said_before_anything_is_planned(tmp_path: Path) -> None:
    draw_scenes(tmp_path / "images", range(1))
    write_golden(tmp_path)
    (tmp_path / "golden" / "images" / "scene-00003.jpg").unlink()
    job = make_job(tmp_path, golden=[GOLDEN[0] | {"sample": 48}])
    with pytest.raises(GoldenSetError, match=r"golden\[0\].images: 1 of 48 images cannot be had: .*scene-00003.jpg"):
        prelabel(job)
    assert not (tmp_path / "output").exists()
    result = invoke("run", checked_job(tmp_path, golden=[GOLDEN[0] | {"coco": "golden/none.json"}]))
    assert result.exit_code == 2
    assert "there is no such file" in result.output


def test_runs_that_are_not_there(tmp_path: Path) -> None:
    write_golden(tmp_path)
    job = make_job(tmp_path, golden=GOLDEN)
    with pytest.raises(NothingToCheckError, match="no finished run yet"):
        check_run(job, None)
    for call in (promote_run, discard_run):
        with pytest.raises(UnknownRunError):
            call(job, "20260101-000000-abcdef", who="ada", why="a try")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_run_discarded_while_it_is_labelled_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_scenes(tmp_path / "images", range(2))
    job = make_job(tmp_path)

    def discard_meanwhile(job: LabelJob, run_id: str, limit: int | None) -> ShardsReport:
        discard_run(job, run_id, who="ada", why="the wrong job")
        return ShardsReport(0, 0, False, "none", 0.0)

    monkeypatch.setattr(label, "label_shards", discard_meanwhile)
    (report,) = prelabel(job)
    assert report.outcome == "partial"
    assert "discarded by ada meanwhile: the wrong job" in report.sentence
    monkeypatch.undo()
    (again,) = prelabel(job)
    assert (again.outcome, again.counts["images"]) == ("done", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_plan_that_another_process_finished_first_is_followed_by_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_scenes(tmp_path / "images", range(2))
    job = make_job(tmp_path)

    def be_overtaken(*args: Any, **kwargs: Any) -> PlanOutcome:
        monkeypatch.setattr(label, "plan_run", plan_run)
        (first,) = prelabel(job)  # the other process: all it finds is labelled before this one has its plan
        draw_scenes(tmp_path / "images", range(3))
        ledger = Ledger.open(job.output, None)
        return PlanOutcome(ledger.plan(str(first.run_id)), False, PlanCounts())

    monkeypatch.setattr(label, "plan_run", be_overtaken)
    (report,) = prelabel(job)
    assert (report.outcome, report.counts["images"]) == ("done", 1)
