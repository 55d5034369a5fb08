import numpy as np
import pytest

from model.prompts import KEYPOINT_NAMES, TASKS, PromptError, build_prompts, training_phrase, visual_prompt

PERSON = (
    "nose, left eye, right eye, left ear, right ear, left shoulder, right shoulder, left elbow, right elbow, left wrist, right wrist, "
    "left hip, right hip, left knee, right knee, left ankle, right ankle"
)
ANIMAL = (
    "left eye, right eye, nose, neck, root of tail, left shoulder, left elbow, left front paw, right shoulder, right elbow, right front paw, "
    "left hip, left knee, left back paw, right hip, right knee, right back paw"
)


@pytest.mark.parametrize(
    ("task", "phrases", "texts"),
    [
        (
            "detection",
            ["person", "traffic light"],
            ["Detect person, traffic light. Output the bounding box coordinates in [x0, y0, x1, y1] format."],
        ),
        ("pointing", ["person", "dog"], ["Point to person, dog."]),
        ("ocr_box", ["text line"], ["Detect all text line and recognize them."]),
        (
            "ocr_polygon",
            ["word"],
            [
                "Can you detect all word in this image in polygon format like [x0, y0, x1, y1, x2, y2 ...] and then recognize them?"
            ],
        ),
        (
            "gui_grounding",
            ["submit button", "menu"],
            ['Detect element "submit button"" in the image.', 'Detect element "menu"" in the image.'],
        ),
        ("gui_pointing", ["save, then close"], ['Point to element "save, then close".']),
    ],
)
def test_exact_texts(task, phrases, texts):
    prompts = build_prompts(task, phrases)
    assert [prompt.text for prompt in prompts] == texts
    assert [prompt.index for prompt in prompts] == list(range(len(texts)))
    assert [phrase for prompt in prompts for phrase in prompt.asked] == phrases


@pytest.mark.parametrize(("kind", "names"), [("person", PERSON), ("animal", ANIMAL)])
def test_keypoint_prompt(kind, names):
    (prompt,) = build_prompts("keypoint", ["dog"], keypoints=kind)
    assert prompt.text == (
        "Can you detect each dog in the image using a [x0, y0, x1, y1] box format, and then provide the coordinates of its "
        f"{names} as [x0, y0]? Output the answer in JSON format."
    )
    assert ", ".join(prompt.keypoint_names) == names


def test_hands_have_21_points():
    names = KEYPOINT_NAMES["hand"]
    assert len(set(names)) == 21
    assert names[:2] == ("wrist", "thumb 1") and names[-1] == "pinky finger 4"


def test_visual_prompt():
    prompt = visual_prompt({"object_1": np.array([[12, 412, 339, 568], [0, 0, 999, 999]])})
    assert prompt.asked == ("object_1",)
    assert prompt.text == (
        'Given reference boxes {"object_1": ["<12><412><339><568>", "<0><0><999><999>"]} indicating one or more objects, '
        "find all similar objects in the image and output their bounding boxes."
    )


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ({}, "references: "),
        ({"object_1": [[1, 2, 3]]}, "object_1.*shape"),
        ({"object_1": []}, "object_1"),
        ({"object_1": [[0, 0, 1, 1000]]}, "0 to 999"),
    ],
)
def test_visual_prompt_errors(references, message):
    with pytest.raises(PromptError, match=message):
        visual_prompt(references)


@pytest.mark.parametrize(
    ("task", "phrases", "keypoints", "field", "message"),
    [
        ("segmentation", ["person"], None, "task", "use one of detection, pointing"),
        ("visual_prompting", ["person"], None, "task", "reference boxes"),
        ("detection", [], None, "categories", "empty"),
        ("detection", ["person", "dog", "cat, small"], None, "categories[2]", "comma"),
        ("keypoint", ["person, dog"], "person", "categories[0]", "comma"),
        ("detection", ["person", "  "], None, "categories[1]", "empty"),
        ("detection", ["dog", "Dog"], None, "categories[1]", "already"),
        ("detection", ["<|box_start|>"], None, "categories[0]", "<|box_start|>"),
        ("pointing", ["line <12>"], None, "categories[0]", "<12>"),
        ("keypoint", ["person"], "face", "keypoints", "person, animal, hand"),
        ("keypoint", ["person"], None, "keypoints", "person, animal, hand"),
        ("detection", ["person"], "person", "keypoints", "leave it out"),
        ("ocr_box", ["word", "text line"], None, "categories", "word or text line"),
    ],
)
def test_errors_name_the_field(task, phrases, keypoints, field, message):
    with pytest.raises(PromptError) as raised:
        build_prompts(task, phrases, keypoints=keypoints)
    assert raised.value.field == field
    assert str(raised.value).startswith(f"{field}: ") and message in str(raised.value)


def test_errors_name_the_taxonomys_field():
    with pytest.raises(PromptError, match=r"^categories\[0\]\.phrases\[1\]: "):
        build_prompts("detection", ["car", "a, b"], fields=["categories[0].phrases[0]", "categories[0].phrases[1]"])


@pytest.mark.parametrize(
    ("phrase", "rewritten"),
    [("jug/pitcher", "jug"), ("traffic_light", "traffic light"), ("cup, small", "cup small"), ("dog", "dog")],
)
def test_training_phrase(phrase, rewritten):
    assert training_phrase(phrase) == rewritten


def test_eight_tasks():
    assert sorted(TASKS) == sorted(
        [
            "detection",
            "pointing",
            "visual_prompting",
            "keypoint",
            "ocr_box",
            "ocr_polygon",
            "gui_grounding",
            "gui_pointing",
        ]
    )
