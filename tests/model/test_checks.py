"""Golden images' answers against their truths: the verdict on every shape, and what all of them are worth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from model.annotations import schema
from model.checks import KnownAnswer, Truth, check_rows, match_again, score_checks
from tests.sinks.made_views import image, shape, table

SOURCE = "s3://golden/instances.json"
BOX, BESIDE, NEAR = (10, 10, 30, 30), (60, 60, 80, 80), (10, 10, 30, 28)  # NEAR: IoU 0.9 with BOX

Said = Sequence[tuple[str | None, Sequence[float]]]


def checks(
    said: Mapping[str, Said],
    true: Mapping[str, Said],
    *,
    task: str = "detection",
    rows: Mapping[str, Mapping[str, Any]] = {},
) -> pa.Table:
    """The table of images a, b, …: what was said of each, what is true; rows: columns of single images."""
    images = [image(key, **{"source": SOURCE, "task": task, "token_ids": [1], **rows.get(key, {})}) for key in said]
    geometry = "point" if task == "pointing" else "box"
    shapes = [
        shape(key, category or "moose", category=category, instance=number, bbox_xyxy=box, source=SOURCE, task=task, geometry=geometry)
        for key, found in said.items()
        for number, (category, box) in enumerate(found)
    ]  # fmt: skip
    return check_rows(table("images", images), table("annotations", shapes), known(true))


def known(true: Mapping[str, Said], judged: tuple[str, ...] = ("dog", "cat")) -> dict[tuple[str, str], KnownAnswer]:
    return {
        (SOURCE, key): KnownAnswer(640, 480, judged, tuple(truth(str(category), box) for category, box in truths))
        for key, truths in true.items()
    }


def truth(category: str, box: Sequence[float]) -> Truth:
    x0, y0, x1, y1 = box
    return Truth(category, (x0, y0, x1, y1))


def verdicts(rows: pa.Table, side: str) -> list[list[str | None]]:
    return [[one["verdict"] for one in shapes] for shapes in rows[side].to_pylist()]


def test_every_shape_gets_its_verdict() -> None:
    rows = checks(
        {"a": [("dog", NEAR), ("dog", BESIDE), ("cat", BOX), (None, BOX), ("horse", BOX)], "b": []},
        {"a": [("dog", BOX), ("dog", (200, 200, 220, 220))], "b": [("cat", BOX)]},
    )
    assert rows.schema.equals(schema("checks"), check_metadata=True)
    assert verdicts(rows, "predicted") == [["hit", "false_alarm", "false_alarm", None, None], []]
    assert verdicts(rows, "truths") == [["hit", "miss"], ["miss"]]
    assert rows["judged"].to_pylist() == [["dog", "cat"]] * 2
    assert rows["source"].to_pylist() == [SOURCE] * 2


def test_scores_are_those_of_the_pairs() -> None:
    absent = {"outcomes": [{"category": "cat", "outcome": "absent", "count": 0}]}
    scores = score_checks(
        checks(
            {"a": [("dog", NEAR), ("dog", BOX)], "b": [("cat", BOX)], "c": []},
            {"a": [("dog", BOX)], "b": [], "c": [("cat", BOX)]},
            rows={"c": absent, "a": {"flags": ["repeated"], "dropped": 3, "status": "truncated"}},
        )
    )
    assert (scores.images, scores.unjudged, scores.truths, scores.predictions) == (3, 0, 2, 3)
    assert (scores.truncated, scores.repeated) == (1, 3)
    assert scores.thresholds == pytest.approx(np.arange(0.5, 0.96, 0.05))
    assert scores.micro.f1 == pytest.approx([2 / 5] * 10)
    assert (scores.micro.precision, scores.micro.recall) == pytest.approx((1 / 3, 1 / 2))
    assert scores.macro.f1[0] == pytest.approx((2 / 3 + 0) / 2)
    dog, cat = scores.categories
    assert (dog.name, dog.images, dog.truths, dog.predictions, dog.hits, dog.duplicates) == ("dog", 1, 1, 2, 1, 1)
    assert (cat.images, cat.f1, cat.wrong_nones, cat.hallucinated, cat.duplicates) == (1, 0, 1, 1, 0)
    low, high = scores.micro.intervals[0] or (9, 9)
    assert 0 <= low < 0.4 < high <= 1


def test_scores_do_not_depend_on_how_the_images_were_sharded() -> None:
    said = {key: [("dog", NEAR if key in "ace" else BESIDE)] * (1 + (key == "b")) for key in "abcdef"}
    rows = checks(said, {key: [("dog", BOX)] for key in "abcdef"})
    assert score_checks(rows.take([3, 1, 5, 0, 4, 2])) == score_checks(rows)


def test_the_threshold_matters() -> None:
    scores = score_checks(checks({"a": [("dog", NEAR)]}, {"a": [("dog", BOX)]}))
    assert scores.micro.f1 == (1.0,) * 9 + (0.0,)
    assert scores.micro.mean == pytest.approx(0.9)


def test_points_are_in_the_box_or_not() -> None:
    inside, outside = (20, 20, 20, 20), (31, 20, 31, 20)
    said = {"a": [("dog", inside), ("dog", (11, 11, 11, 11)), ("dog", outside)], "b": [("cat", inside)]}
    rows = checks(said, {"a": [("dog", BOX)], "b": [("cat", BOX)]}, task="pointing")
    (first, second, third), other = verdicts(rows, "predicted")
    assert sorted([str(first), str(second)]) == ["false_alarm", "hit"]
    assert (third, other) == ("false_alarm", ["hit"])
    scores = score_checks(rows)
    assert scores.thresholds == (1.0,)
    assert scores.micro.f1 == pytest.approx((2 * 2 / 6,))
    assert [category.duplicates for category in scores.categories] == [1, 0]


def test_a_box_where_a_point_was_asked_for_hits_nothing() -> None:
    images = table("images", [image("a", source=SOURCE, task="pointing")])
    shapes = table("annotations", [shape("a", "dog", source=SOURCE, task="pointing", bbox_xyxy=BOX)])
    rows = check_rows(images, shapes, known({"a": [("dog", BOX)]}))
    assert verdicts(rows, "predicted") == [["false_alarm"]]


def test_what_the_golden_set_says_nothing_about_is_not_judged() -> None:
    rows = check_rows(
        table("images", [image("a", source=SOURCE)]),
        table("annotations", [shape("a", "cat", source=SOURCE, bbox_xyxy=BOX)]),
        known({"a": [("dog", BOX)]}, judged=("dog",)),
    )
    assert verdicts(rows, "predicted") == [[None]]
    assert [category.name for category in score_checks(rows).categories] == ["dog"]


def test_images_without_an_answer_are_left_out() -> None:
    rows = checks(
        {"a": [("dog", BOX)], "b": [], "c": [("dog", BOX)]},
        {key: [("dog", BOX)] for key in "abc"},
        rows={
            "b": {"status": "failed", "error": "storage is down", "token_ids": None},
            "c": {"width_px": 480, "height_px": 640},
        },
    )
    errors = rows["error"].to_pylist()
    assert errors[:2] == [None, "storage is down"]
    assert errors[2] == "the golden set says 640 × 480, the upright image is 480 × 640"
    assert verdicts(rows, "truths") == [["hit"], [None], [None]]
    scores = score_checks(rows)
    assert (scores.images, scores.unjudged, scores.micro.f1[0]) == (1, 2, 1.0)


def test_nothing_to_score() -> None:
    scores = score_checks(checks({"a": []}, {"a": []}))
    assert (scores.images, scores.micro.f1[0], scores.micro.intervals[0], scores.micro.mean) == (1, None, None, None)
    assert score_checks(schema("checks").empty_table()).images == 0


def test_a_changed_golden_set_is_matched_anew() -> None:
    """Truths, verdicts and errors follow the golden set; the answers stay."""
    rows = checks(
        {"a": [("dog", BESIDE)], "b": [("cat", BOX)], "c": [("cat", BOX)]},
        {"a": [("dog", BOX)], "b": [("cat", BOX)], "c": [("cat", BOX)]},
        rows={"c": {"width_px": 480, "height_px": 640}},
    )
    turned = {(SOURCE, "c"): KnownAnswer(480, 640, ("cat",), (Truth("cat", BOX),))}
    again = match_again(rows, known({"a": [("dog", BESIDE)]}) | turned)
    assert again["image_key"].to_pylist() == ["a", "c"]
    assert verdicts(again, "predicted") == verdicts(again, "truths") == [["hit"], ["hit"]]
    assert again["error"].to_pylist() == [None, None]
    assert score_checks(again).micro.f1[0] == 1.0
    assert match_again(rows, known({key: [("dog", BOX)] for key in "ab"}))["token_ids"].to_pylist() == [[1], [1]]
