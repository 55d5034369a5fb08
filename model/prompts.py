"""The questions Rex-Omni was trained on, in their exact words. Leaves images, the chat template and the reading of answers to others."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.coordinates import BINS
from model.taxonomy import normalised

DETECTION, POINTING, VISUAL_PROMPTING, KEYPOINT = "detection", "pointing", "visual_prompting", "keypoint"
OCR_BOX, OCR_POLYGON, GUI_GROUNDING, GUI_POINTING = "ocr_box", "ocr_polygon", "gui_grounding", "gui_pointing"

# Referring and layout are detection, affordance and spatial pointing are pointing, with other phrases.
_TEMPLATES = {
    DETECTION: "Detect {categories}. Output the bounding box coordinates in [x0, y0, x1, y1] format.",
    POINTING: "Point to {categories}.",
    VISUAL_PROMPTING: "Given reference boxes {json} indicating one or more objects, find all similar objects in the image and output their bounding boxes.",
    KEYPOINT: (
        "Can you detect each {category} in the image using a [x0, y0, x1, y1] box format, and then provide the coordinates of its {keypoints} as [x0, y0]? "
        "Output the answer in JSON format."
    ),
    OCR_BOX: "Detect all {categories} and recognize them.",
    OCR_POLYGON: "Can you detect all {categories} in this image in polygon format like [x0, y0, x1, y1, x2, y2 ...] and then recognize them?",
    GUI_GROUNDING: 'Detect element "{category}"" in the image.',  # the doubled quote is the published string
    GUI_POINTING: 'Point to element "{category}".',
}
TASKS = tuple(_TEMPLATES)
OCR_TASKS = frozenset({OCR_BOX, OCR_POLYGON})
_ONE_EACH = frozenset({KEYPOINT, GUI_GROUNDING, GUI_POINTING})  # tasks that ask for one phrase at a time

_SIDES = ("left", "right")
KEYPOINT_NAMES: dict[str, tuple[str, ...]] = {
    "person": (
        "nose",
        *(
            f"{side} {part}"
            for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
            for side in _SIDES
        ),
    ),
    "animal": (
        *(
            "left eye",
            "right eye",
            "nose",
            "neck",
            "root of tail",
            "left shoulder",
            "left elbow",
            "left front paw",
            "right shoulder",
        ),
        *(
            "right elbow",
            "right front paw",
            "left hip",
            "left knee",
            "left back paw",
            "right hip",
            "right knee",
            "right back paw",
        ),
    ),
    # Documented upstream as 21 points, no list published.
    "hand": (
        "wrist",
        *(
            f"{finger} {joint}"
            for finger in ("thumb", "forefinger", "middle finger", "ring finger", "pinky finger")
            for joint in (1, 2, 3, 4)
        ),
    ),
}

_CONTROL = re.compile(r"<\|[^<>|]*\|>|<\d{1,3}>")  # would be read as special and coordinate tokens, not as words


class PromptError(ValueError):
    """What was asked cannot be put to the model. field is the place in the job; the message begins with it and says what would be right."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question about an image. index: its place among the job's prompts; text: the user turn; asked: the phrases it asks for, as given.

    keypoint_names: the key points asked for, in order; empty unless task is keypoint.
    """

    index: int
    task: str
    text: str
    asked: tuple[str, ...]
    keypoint_names: tuple[str, ...] = ()


def build_prompts(
    task: str,
    phrases: Sequence[str],
    *,
    keypoints: str | None = None,
    fields: Sequence[str] | None = None,
) -> tuple[Prompt, ...]:
    """The prompts that ask for the phrases: one for all, in the tasks keypoint, gui_grounding and gui_pointing one each.

    keypoints: "person", "animal" or "hand", in the keypoint task only. fields: where in the job each phrase was written (Taxonomy.fields), for errors.
    Raises PromptError for an unknown task or key point type, no phrases, an empty or repeated one, or one that would be read as something else.
    """
    if task not in _TEMPLATES:
        raise PromptError("task", f"{task!r} is unknown; use one of {', '.join(TASKS)}")
    if task == VISUAL_PROMPTING:
        raise PromptError("task", "visual_prompting asks with reference boxes of each image, not with categories")
    if task == KEYPOINT and keypoints not in KEYPOINT_NAMES:
        raise PromptError(
            "keypoints", f"{keypoints!r} is no known type of key points; use one of {', '.join(KEYPOINT_NAMES)}"
        )
    if task != KEYPOINT and keypoints is not None:
        raise PromptError("keypoints", f"belongs to the task keypoint; leave it out in the task {task}")
    fields = fields or [f"categories[{index}]" for index in range(len(phrases))]
    asked = _checked(task, [phrase.strip() for phrase in phrases], fields)

    template = _TEMPLATES[task]
    if task not in _ONE_EACH:
        return (Prompt(0, task, template.format(categories=", ".join(asked)), asked),)
    names = KEYPOINT_NAMES[keypoints] if keypoints else ()
    texts = [template.format(category=phrase, keypoints=", ".join(names)) for phrase in asked]
    return tuple(
        Prompt(index, task, text, (phrase,), names)
        for index, (text, phrase) in enumerate(zip(texts, asked, strict=True))
    )


def visual_prompt(reference_bins: Mapping[str, NDArray[Any]]) -> Prompt:
    """The prompt that asks for what looks like the reference boxes, which lie in the same image.

    reference_bins: name of an object (object_1, object_2, … in training) → its boxes, (n, 4) bins x0, y0, x1, y1. Raises PromptError where there are none
    or where they are no boxes.
    """
    if not reference_bins:
        raise PromptError("references", "name at least one object with a reference box, such as object_1")
    written: dict[str, list[str]] = {}
    for name, boxes in reference_bins.items():
        bins = np.asarray(boxes)
        if bins.ndim != 2 or bins.shape[1] != 4 or not len(bins):
            raise PromptError(
                f"references[{name!r}]", f"give one box or more as x0, y0, x1, y1; got an array of shape {bins.shape}"
            )
        if bins.min() < 0 or bins.max() >= BINS:
            raise PromptError(
                f"references[{name!r}]", f"bins run from 0 to {BINS - 1}; got {bins.min()} to {bins.max()}"
            )
        written[name] = ["".join(f"<{int(value)}>" for value in box) for box in bins]
    text = _TEMPLATES[VISUAL_PROMPTING].format(json=json.dumps(written, ensure_ascii=False))
    return Prompt(0, VISUAL_PROMPTING, text, tuple(written))


def training_phrase(phrase: str) -> str:
    """The phrase as the training code writes category names: the part before the first "/", "_" as a space, without commas."""
    return " ".join(phrase.split("/")[0].replace("_", " ").replace(",", "").split())


def _checked(task: str, phrases: Sequence[str], fields: Sequence[str]) -> tuple[str, ...]:
    if not phrases:
        raise PromptError("categories", f"the list is empty; the task {task} needs at least one")
    if task in OCR_TASKS and len(phrases) > 1:
        raise PromptError(
            "categories",
            "reading text asks for one unit: word or text line; an answer does not say which of two it means",
        )
    said: dict[str, str] = {}
    for phrase, field in zip(phrases, fields, strict=True):
        if not phrase:
            raise PromptError(field, "is empty; write what the model should look for")
        if control := _CONTROL.search(phrase):
            raise PromptError(
                field,
                f"{phrase!r} contains {control.group()}, which the model would read as a token of its own; leave it out",
            )
        if "," in phrase and task not in (GUI_GROUNDING, GUI_POINTING):
            raise PromptError(
                field,
                f"{phrase!r} contains a comma, which the model would read as two phrases; write them as two, or without it (rewrite_phrases: true leaves it out)",
            )
        if normalised(phrase) in said:
            raise PromptError(field, f"{phrase!r} is asked for in {said[normalised(phrase)]} already; ask for it once")
        said[normalised(phrase)] = field
    return tuple(phrases)
