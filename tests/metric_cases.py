"""Compares the published protocols with documents of worked cases. Knows the documents' form; which file is read is left to run_cases."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from model.metrics.masks import Mask
from model.metrics.published import Published, per_image, pointing, referring
from model.metrics.published_coco import coco
from model.metrics.shapes import Boxes, Masks, Points

TOLERANCE = 1e-6
SECTIONS = ("per_image_protocol", "referring_protocol", "coco_protocol", "pointing_protocol")

Json = dict[str, Any]
Score = Callable[
    [], Published
]  # a protocol with its input, yet to be computed: only reading the input can fail by the document's fault


class CaseFormatError(ValueError):
    """A document that is not of the form of the worked cases; the message says where."""


def differences(document: Json) -> list[str]:
    """Every number in which the protocols of the document come out otherwise, a sentence each; empty: all equal within TOLERANCE.

    Raises CaseFormatError where the document holds none of SECTIONS, no case at all, or a section of another form.
    """
    return [difference for section in _sections(document) for difference in _section_differences(document, section)]


def compared(document: Json) -> tuple[int, int]:
    """How many cases (samples, and images of the COCO protocol) and how many expected numbers differences looks at. Raises CaseFormatError as it does."""
    sections = _sections(document)
    numbers = sum(len(values) for section in sections for values in _expected(document, section).values())
    return sum(_size(document, section) for section in sections), numbers


def _sections(document: Json) -> list[str]:
    sections = [section for section in SECTIONS if section in document]
    if not sections:
        raise CaseFormatError(f"none of {', '.join(SECTIONS)}")
    for section in sections:
        if not isinstance(document[section], dict):
            raise CaseFormatError(f"{section} is not an object")
    if not any(_size(document, section) for section in sections):
        raise CaseFormatError(f"no cases in {', '.join(sections)}")
    if not any(_expected(document, section) for section in sections):
        raise CaseFormatError(f"nothing expected in {', '.join(sections)}")
    return sections


def _size(document: Json, section: str) -> int:
    if section != "coco_protocol":
        return len(_samples(document, section))
    images = document[section].get("gt", {}).get("images")
    if not isinstance(images, list):
        raise CaseFormatError(f"{section}.gt has no images")
    return len(images)


def _samples(document: Json, section: str) -> list[Json]:
    """The section's samples; the referring protocol's are the per-image protocol's unless it has its own."""
    holders = ("referring_protocol", "per_image_protocol") if section == "referring_protocol" else (section,)
    for holder in holders:
        samples = document.get(holder, {}).get("samples")
        if isinstance(samples, list):
            return samples
    raise CaseFormatError(f"{section} has no samples")


def _expected(document: Json, section: str) -> dict[str, Json]:
    """Numbers by threshold; the pointing protocol has but one, called pointing."""
    expected = document[section].get("expected")
    if not isinstance(expected, dict):
        raise CaseFormatError(f"{section} has nothing expected")
    if section == "pointing_protocol":
        expected = {"pointing": expected} if expected else {}
    for key, values in expected.items():
        if not isinstance(values, dict):
            raise CaseFormatError(f"{section}.expected.{key} is not an object")
    return expected


def _section_differences(document: Json, section: str) -> list[str]:
    expected = _expected(document, section)
    try:
        score = (
            _coco(document[section]) if section == "coco_protocol" else READERS[section](_samples(document, section))
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CaseFormatError(f"{section}: {type(error).__name__}: {error}") from error
    actual = _named("pointing" if section == "pointing_protocol" else None, score())
    found = []
    for key, values in expected.items():
        for name, value in values.items():
            computed = actual.get(key, {}).get(name)
            if computed is None:
                found.append(f"{section} {key} {name}: expected {value}, and the protocol has no such number")
            elif not isinstance(value, int | float) or not math.isclose(computed, value, rel_tol=0, abs_tol=TOLERANCE):
                found.append(f"{section} {key} {name}: expected {value}, computed {computed}")
    return found


def _named(only: str | None, published: Published) -> dict[str, dict[str, float]]:
    """The numbers of a protocol by threshold ("0.50" … "0.95", "mean") and name; under one key where the protocol has one threshold."""
    keys = [only] if only else [f"{threshold:.2f}" for threshold in published.thresholds]
    rows = zip(published.precision.tolist(), published.recall.tolist(), published.f1.tolist(), strict=True)
    named = {
        key: dict(zip(("precision", "recall", "f1"), row, strict=True)) for key, row in zip(keys, rows, strict=True)
    }
    if not only:
        named["mean"] = {
            "precision": published.mean_precision,
            "recall": published.mean_recall,
            "f1": published.mean_f1,
        }
    return named


def _per_image(samples: list[Json]) -> Score:
    category = _categories(samples)
    truth, predicted = _boxes(samples, "gt", category), _boxes(samples, "pred", category)
    without_box = [
        (image, category[name])
        for image, sample in enumerate(samples)
        for name, boxes in sample["gt"].items()
        if not boxes
    ]
    image, named = np.asarray(without_box, dtype=np.int64).reshape(-1, 2).T
    return partial(per_image, truth, predicted, len(samples), also_named=(image, named))


def _referring(samples: list[Json]) -> Score:
    category = _categories(samples)
    return partial(referring, _boxes(samples, "gt", category), _boxes(samples, "pred", category), len(samples))


def _pointing(samples: list[Json]) -> Score:
    category = _categories(samples)
    image, kind, masks = _columns(samples, "gt", category)
    truth = Masks.of(image, kind, tuple(Mask.from_coco(mask["size"], mask["counts"]) for mask in masks))
    return partial(pointing, truth, Points.of(*_columns(samples, "pred", category)), len(samples))


def _coco(section: Json) -> Score:
    truth = section["gt"]
    index = {image: position for position, image in enumerate(sorted(image["id"] for image in truth["images"]))}
    # a box of an image or a category that is not listed is nobody's, as in pycocotools
    listed = {category["id"] for category in truth["categories"]}
    annotations = [
        annotation
        for annotation in truth["annotations"]
        if annotation["image_id"] in index and annotation["category_id"] in listed
    ]
    predictions = [
        (index[int(image)], box)
        for image, boxes in section["predictions"].items()
        if int(image) in index
        for box in boxes
        if box["category_id"] in listed
    ]
    crowd = np.asarray([bool(annotation.get("iscrowd", 0)) for annotation in annotations], dtype=np.bool_)
    return partial(
        coco,
        _coco_boxes((index[annotation["image_id"]], annotation) for annotation in annotations),
        _coco_boxes(predictions),
        crowd=crowd,
    )


READERS: dict[str, Callable[[list[Json]], Score]] = {
    "per_image_protocol": _per_image,
    "referring_protocol": _referring,
    "pointing_protocol": _pointing,
}


def _coco_boxes(boxes: Iterable[tuple[int, Json]]) -> Boxes:
    rows = [
        (image, box["category_id"], (x, y, x + width, y + height))
        for image, box in boxes
        for x, y, width, height in [box["bbox"]]
    ]
    return Boxes.of([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def _categories(samples: list[Json]) -> dict[str, int]:
    names = dict.fromkeys(name for sample in samples for side in ("gt", "pred") for name in sample[side])
    return {name: index for index, name in enumerate(names)}


def _boxes(samples: list[Json], side: str, category: dict[str, int]) -> Boxes:
    return Boxes.of(*_columns(samples, side, category))


def _columns(samples: list[Json], side: str, category: dict[str, int]) -> tuple[list[int], list[int], list[Any]]:
    """Image, category and shape of every shape of a side, in the listed order."""
    rows = [
        (image, category[name], shape)
        for image, sample in enumerate(samples)
        for name, shapes in sample[side].items()
        for shape in shapes
    ]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
