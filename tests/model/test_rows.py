from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from model.annotations import schema
from model.decoding import Answer, TextAnswer, decode, decode_text
from model.prompts import build_prompts, visual_prompt
from model.rows import ImageFacts, Origin, annotation_rows, image_id, image_rows, unlabelled_image_rows
from model.taxonomy import Taxonomy
from tests.decode_cases import encode, vocabulary
from tests.model.decoding.test_decoder import BINS_A, END, A, B, generated, group, keypoints

ORIGIN = Origin("20261120-115501-a1b2c3", "20261120-115501-a1b2c3-00000", "attempt", "host:1")
TAXONOMY = Taxonomy.model_validate(
    {"categories": [{"name": "animal", "phrases": ["dog", "cat"], "synonyms": ["hound"]}, "person"]}
)


def facts(count, **changed):
    columns: dict[str, Any] = {
        "image_id": [f"{number:016x}" for number in range(count)],
        "image_key": [f"s3://bucket/{number}.jpg" for number in range(count)],
        "etag": ["abc"] * count,
        "source": ["s3://bucket/"] * count,
        "size_bytes": [1000] * count,
        **dict.fromkeys(("width_px", "input_width_px"), [640] * count),
        **dict.fromkeys(("height_px", "input_height_px"), [480] * count),
    }
    return ImageFacts(**(columns | changed))


def tables(prompt, texts, *, finish="stop", scored=False, taxonomy=TAXONOMY):
    ids = [encode(generated(text)) for text in texts]
    answers = [
        Answer(one, np.full(len(one), -0.5, np.float32) if scored else None, finish, prompt, 640, 480) for one in ids
    ]
    decoded = decode(answers, vocabulary(), synonyms=taxonomy.synonyms)
    images = facts(len(texts))
    usage: dict[str, Any] = {"prompt_tokens": [300] * len(texts), "seconds": [0.25] * len(texts)}
    annotations, rows = (
        annotation_rows(decoded, images, taxonomy, ORIGIN),
        image_rows(decoded, images, taxonomy, ORIGIN, **usage),
    )
    for table, name in ((annotations, "annotations"), (rows, "images")):
        assert table.schema.equals(schema(name), check_metadata=True)
        table.validate(full=True)
        assert not [field.name for field in table.schema if not field.nullable and table[field.name].null_count]
    return annotations.to_pylist(), rows.to_pylist()


def test_a_shape_is_a_row():
    (prompt,) = build_prompts("detection", TAXONOMY.phrases)
    answer = group("dog", A) + group("Hound", B) + group("cat", "None") + group("shadow", "<512><42><12><612>") + END
    annotations, images = tables(prompt, [END, answer], scored=True)
    assert [(row["annotation_id"], row["phrase"], row["category"], row["flags"]) for row in annotations] == [
        ("0000000000000001-0", "dog", "animal", []),
        ("0000000000000001-1", "Hound", "animal", []),
        ("0000000000000001-2", "shadow", None, ["reversed", "unasked"]),
    ]
    first = annotations[0]
    assert (
        first["image_key"] == "s3://bucket/1.jpg"
        and first["bins"] == BINS_A
        and first["points"] is None
        and first["text"] is None
    )
    assert first["keypoint_names"] is None and first["keypoint_visible"] is None
    assert first["score"] == pytest.approx(np.exp(-0.5)) and first["geometry"] == "box" and first["task"] == "detection"
    assert first["bbox_xyxy"] == pytest.approx(
        [12.5 / 999 * 640, 42.5 / 999 * 480, 512.5 / 999 * 640, 612.5 / 999 * 480]
    )

    empty, image = images
    assert (empty["status"], empty["flags"], empty["dropped"]) == ("malformed", ["empty", "unanswered"], 0)
    assert image["status"] == "ok" and image["flags"] == ["reversed", "unanswered", "unasked"]
    assert image["outcomes"] == [
        {"category": "animal", "outcome": "found", "count": 2},
        {"category": "person", "outcome": "unanswered", "count": 0},
    ]
    assert image["token_ids"] == encode(generated(answer)).tolist() and len(image["token_logprobs"]) == image[
        "answer_tokens"
    ] == len(image["token_ids"])
    assert (image["prompt"], image["prompt_tokens"], image["seconds"], image["error"]) == (prompt.text, 300, 0.25, None)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (group("dog", "None") + group("cat", "None"), "absent"),
        (group("dog", "None"), "unanswered"),
        (group("dog", "None") + group("cat", A), "found"),
    ],
)
def test_outcome_of_a_category_with_two_phrases(answer, outcome):
    (prompt,) = build_prompts("detection", TAXONOMY.phrases)
    _, (image,) = tables(prompt, [answer])
    assert image["outcomes"][0]["outcome"] == outcome


def test_read_text():
    taxonomy = Taxonomy.model_validate({"categories": ["text line"]})
    (prompt,) = build_prompts("ocr_polygon", taxonomy.phrases)
    (row,), _ = tables(prompt, [group("OPEN", "<10><10><200><12><198><60>")], taxonomy=taxonomy)
    assert (row["phrase"], row["text"], row["category"], row["geometry"]) == ("OPEN", "OPEN", "text line", "polygon")
    assert len(row["points"]) == len(row["bins"]) == 6 and row["score"] is None


def test_keypoint_rows():
    taxonomy = Taxonomy.model_validate({"categories": ["person"]})
    (prompt,) = build_prompts("keypoint", taxonomy.phrases, keypoints="person")
    texts = [
        "{" + keypoints("person1", BINS_A, '"nose": " <5> <6> "') + "}",
        '{"person1": {"bbox": "<12><42><512><612>"}}',
    ]
    (posed, boxed), _ = tables(prompt, texts, taxonomy=taxonomy)
    assert posed["keypoint_names"] == list(prompt.keypoint_names)
    assert posed["keypoint_visible"] == [True] + [False] * 16 and len(posed["points"]) == 2
    assert boxed["geometry"] == "box" and boxed["keypoint_names"] is None and boxed["points"] is None


def test_reference_boxes_are_their_own_categories():
    (row,), (image,) = tables(visual_prompt({"object_1": np.array([[1, 2, 3, 4]])}), [group("object_1", A)])
    assert row["category"] == "object_1" and image["outcomes"] == [
        {"category": "object_1", "outcome": "found", "count": 1}
    ]


def test_truncated():
    (prompt,) = build_prompts("detection", ["dog"])
    _, (image,) = tables(prompt, [group("dog", A + ",<1><2>")[:-11]], finish="length")
    assert (image["status"], image["flags"], image["dropped"]) == ("truncated", ["truncated"], 1)
    assert image["token_logprobs"] is None


def test_no_shapes_and_no_answers():
    (prompt,) = build_prompts("detection", ["dog"])
    assert tables(prompt, [])[0] == tables(prompt, [])[1] == tables(prompt, [END])[0] == []


def test_answers_as_text_have_no_ids():
    (prompt,) = build_prompts("detection", ["dog"])
    decoded = decode_text([TextAnswer(group("dog", A), "stop", prompt, 640, 480)])
    (image,) = image_rows(decoded, facts(1), TAXONOMY, ORIGIN, prompt_tokens=[3], seconds=[1.0]).to_pylist()
    assert image["token_ids"] is None and image["answer_tokens"] is None and image["status"] == "ok"


def test_images_that_never_reached_the_model():
    (prompt,) = build_prompts("detection", TAXONOMY.phrases)
    unknown = facts(
        2, width_px=[None, 640], height_px=[None, 480], input_width_px=[None, None], input_height_px=[None, None]
    )
    table = unlabelled_image_rows(
        unknown,
        [prompt, prompt],
        ["unreadable", "failed"],
        ["it is empty", "the store did not answer"],
        TAXONOMY,
        ORIGIN,
    )
    table.validate(full=True)
    assert table.schema.equals(schema("images"), check_metadata=True)
    first, second = table.to_pylist()
    assert (first["status"], first["error"], first["width_px"], first["token_ids"]) == (
        "unreadable",
        "it is empty",
        None,
        None,
    )
    assert [outcome["outcome"] for outcome in second["outcomes"]] == ["unanswered", "unanswered"]
    assert pa.concat_tables([table, table]).num_rows == 4


def test_image_id():
    assert image_id("a", "b", "c", "d") == image_id("a", "b", "c", "d")
    assert len({image_id("a", "b", "c", "d"), image_id("a", "b", "c", "e"), image_id("a", "x", "c", "d")}) == 3
    assert len(image_id("a", "b", "c", "d")) == 16
