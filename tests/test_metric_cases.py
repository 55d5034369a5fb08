"""The worked cases hold, and the comparison notices where they do not."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.metric_cases import SECTIONS, CaseFormatError, compared, differences

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parent / "cases" / "metrics.json").read_text())
LITTLE: dict[str, Any] = {
    "per_image_protocol": {
        "samples": [
            {"gt": {"cup": [[0, 0, 10, 10]], "dog": []}, "pred": {"dog": [[0, 0, 10, 10]], "car": [[0, 0, 10, 10]]}},
            {"gt": {}, "pred": {}},
        ],
        "expected": {"0.50": {"precision": 0.25, "recall": 0.5, "f1": 1 / 3}, "mean": {"f1": 1 / 3}},
    },
    "referring_protocol": {"expected": {"0.95": {"recall": 0.5}}},
}


def test_worked_cases():
    assert differences(DOCUMENT) == []
    assert compared(DOCUMENT) == (150 + 150 + 120 + 60, 31 + 31 + 9 + 3)


@pytest.mark.parametrize("section", SECTIONS)
def test_each_section_alone(section):
    part = {section: DOCUMENT[section]}
    if section == "referring_protocol":
        part = {section: {**DOCUMENT[section], "samples": DOCUMENT["per_image_protocol"]["samples"]}}
    assert differences(part) == []


@pytest.mark.parametrize("section", SECTIONS)
def test_every_changed_number_is_noticed(section):
    document = copy.deepcopy(DOCUMENT)

    def change(values: dict[str, Any]) -> int:
        changed = 0
        for name, value in values.items():
            if isinstance(value, dict):
                changed += change(value)
            else:
                values[name] = value + 1.1e-6
                changed += 1
        return changed

    changed = change(document[section]["expected"])
    assert len(differences(document)) == changed


def test_classes_named_without_boxes_and_images_without_anything():
    assert differences(LITTLE) == []


def test_thresholds_that_the_protocol_does_not_have_and_numbers_that_are_none():
    document = copy.deepcopy(LITTLE)
    document["per_image_protocol"]["expected"] = {"0.42": {"f1": 0.0}, "0.50": {"f1": None, "accuracy": 1.0}}
    assert len(differences(document)) == 3


def test_coco_without_predictions_and_with_unused_images_and_categories():
    truth = {
        "images": [{"id": 9}, {"id": 3}, {"id": 5}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 2, "bbox": [0, 0, 10, 10]},
            {"id": 2, "image_id": 9, "category_id": 2, "bbox": [0, 0, 10, 10], "iscrowd": 0},
        ],
        "categories": [{"id": 2}, {"id": 7}],
    }
    nothing: dict[str, Any] = {
        "gt": truth,
        "predictions": {},
        "expected": {"mean": {"precision": 0, "recall": 0, "f1": 0}},
    }
    assert differences({"coco_protocol": nothing}) == []
    one = {"3": [{"category_id": 2, "bbox": [0, 0, 10, 10]}], "5": [{"category_id": 7, "bbox": [0, 0, 1, 1]}], "9": []}
    found = {"gt": truth, "predictions": one, "expected": {"0.50": {"precision": 1, "recall": 0.5}}}
    assert differences({"coco_protocol": found}) == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"note": "nothing else"},
        {"per_image_protocol": []},
        {"per_image_protocol": {"samples": [], "expected": {"0.50": {"f1": 0}}}},
        {"per_image_protocol": {"samples": [{"gt": {}, "pred": {}}]}},
        {"per_image_protocol": {"samples": [{"gt": {}, "pred": {}}], "expected": {}}},
        {"per_image_protocol": {"samples": [{"gt": {}, "pred": {}}], "expected": {"0.50": 1}}},
        {"per_image_protocol": {"samples": [{"gt": {}}], "expected": {"0.50": {"f1": 0}}}},
        {"per_image_protocol": {"samples": [{"gt": {"a": [[1, 2]]}, "pred": {}}], "expected": {"0.50": {"f1": 0}}}},
        {"referring_protocol": {"expected": {"0.50": {"f1": 0}}}},
        {"coco_protocol": {"expected": {"0.50": {"f1": 0}}}},
        {
            "coco_protocol": {
                "gt": {"images": [], "annotations": [], "categories": []},
                "predictions": {},
                "expected": {"0.50": {"f1": 0}},
            }
        },
        {
            "pointing_protocol": {
                "samples": [{"gt": {"a": [{"size": [2, 2], "counts": "1"}]}, "pred": {}}],
                "expected": {"f1": 0},
            }
        },
    ],
)
def test_documents_of_another_form(document):
    with pytest.raises(CaseFormatError):
        differences(document)
