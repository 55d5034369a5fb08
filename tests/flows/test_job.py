"""Job files as people write them: what is wrong is named by its field, with what would be right; what is right leads to the same places from anywhere."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.job import JobError, LabelJob, load_job
from tests.flows.jobs import make_job, write_job

EXAMPLE = Path(__file__).parents[2] / "examples" / "shapes" / "job.yaml"
COCO = {"kind": "coco", "url": "coco"}


def refusal(path: Path) -> str:
    with pytest.raises(JobError) as caught:
        load_job(path)
    message = str(caught.value)
    assert str(path) in message
    return message


# what is changed in a good job; the field the message names; words of what is wrong or would be right
BAD_FIELDS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "mistyped field": ({"catgories": ["ring"]}, "catgories", ("not a field", "did you mean categories?")),
    "mistyped field inside": ({"sampling": {"max_token": 9}}, "sampling.max_token", ("did you mean max_tokens?",)),
    "mistyped field of the source": ({"source": {"prefixs": ["a"]}}, "source.prefixs", ("did you mean prefixes?",)),
    "unknown field": ({"colour": "red"}, "colour", ("not a field", "known here", "shard_size")),
    "unknown field of a category": ({"categories": [{"name": "a", "colour": "red"}]}, "categories[0].colour", ()),
    "comma": ({"categories": ["ring", "cup, mug"]}, "categories[1]", ("'cup, mug' contains a comma", "write them as")),
    "comma in a phrase": (
        {"categories": [{"name": "cup", "phrases": ["cup", "mug, large"]}]},
        "categories[0].phrases[1]",
        ("contains a comma",),
    ),
    "coordinate token": ({"categories": ["<5>"]}, "categories[0]", ("<5>", "leave it out")),
    "no categories": ({"categories": []}, "categories", ("is empty",)),
    "null categories": ({"categories": None}, "categories", ()),
    "one category without a list": ({"categories": "ring"}, "categories", ("'ring'",)),
    "number as a category": ({"categories": ["ring", 3]}, "categories[1]", ("3",)),
    "yes as a category": ({"categories": [True]}, "categories[0]", ("True",)),
    "empty category": ({"categories": ["ring", ""]}, "categories[1]", ()),
    "blank category": ({"categories": ["ring", "  "]}, "categories[1]", ("empty phrase",)),
    "category twice": ({"categories": ["ring", "Ring"]}, "categories[1]", ("categories[0] already",)),
    "synonym twice": (
        {"categories": ["mug", {"name": "cup", "synonyms": ["mug"]}]},
        "categories[1].synonyms[0]",
        ("categories[0]",),
    ),
    "unknown task": ({"task": "detect"}, "task", ("'detection'", "'pointing'", "'ocr_box'")),
    "two units of text": ({"task": "ocr_box", "categories": ["word", "text line"]}, "categories", ("one unit",)),
    "unknown keypoints": ({"task": "keypoint", "keypoints": "fish"}, "keypoints", ("'person', 'animal' or 'hand'",)),
    "no keypoints": ({"task": "keypoint"}, "keypoints", ("person, animal, hand",)),
    "keypoints of another task": ({"keypoints": "person"}, "keypoints", ("task keypoint", "leave it out")),
    "word for a number": ({"shard_size": "many"}, "shard_size", ("integer", "'many'")),
    "empty shards": ({"shard_size": 0}, "shard_size", ("greater than or equal to 1",)),
    "negative length": ({"sampling": {"max_tokens": -1}}, "sampling.max_tokens", ("greater than or equal to 1",)),
    "source as a list": ({"source": ["images"]}, "source", ("['images']",)),
    "empty prefix": ({"source": {"prefixes": [""]}}, "source.prefixes[0]", ()),
    "prefix without a list": ({"source": {"prefixes": "images"}}, "source.prefixes", ("'images'",)),
    "prefixes and key list": ({"source": {"prefixes": ["a"], "key_list": "b.csv"}}, "source", ("and not both",)),
    "neither": ({"source": {}}, "source", ("either prefixes or key_list is needed",)),
    "key list and patterns": ({"source": {"key_list": "b.csv", "include": ["*.png"]}}, "source", ("leave them out",)),
    "bad pattern": ({"source": {"prefixes": ["a"], "exclude": ["!"]}}, "source.exclude", ("not a pattern",)),
    "name with a space": ({"name": "my job"}, "name", ("'my job'",)),
    "unknown engine": ({"engine": {"kind": "llama"}}, "engine.kind", ("'vllm' or 'transformers'",)),
    "model as a name": ({"model": "checkpoint"}, "model", ("'checkpoint'",)),
    "tiny picture": ({"model": {"name": "a", "max_pixels": 9}}, "model.max_pixels", ("784",)),
    "credentials as a name": ({"credentials": "archive"}, "credentials", ("'archive'",)),
    "a secret": ({"credentials": {"source": {"secret": "x"}}}, "credentials.source", ("string",)),
    "unknown sink": ({"sinks": [{"kind": "yolo", "url": "a"}]}, "sinks[0]", ("coco, gallery", "not 'yolo'")),
    "mistyped field of a sink": (
        {"sinks": [{"kind": "coco", "url": "a", "images_per_fil": 3}]},
        "sinks[0].images_per_fil",
        ("did you mean images_per_file?",),
    ),
    "mistyped field of a category": (
        {"categories": [{"name": "a", "synonym": ["b"]}]},
        "categories[0].synonym",
        ("did you mean synonyms?",),
    ),
    "empty output": ({"output": ""}, "output", ("is empty",)),  # not the job file's own folder
    "sink without a kind": ({"sinks": [{"url": "a"}]}, "sinks[0]", ("kind",)),
    "pictures of the gallery": ({"sinks": [COCO, {"kind": "gallery", "url": "a", "pictures": 0}]}, "sinks[1]", ("1",)),
}


@pytest.mark.parametrize(("changes", "field", "words"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_a_bad_field_is_named_with_what_would_be_right(
    tmp_path: Path, changes: dict[str, Any], field: str, words: tuple[str, ...]
) -> None:
    message = refusal(write_job(tmp_path, **changes))
    assert any(f"{field}{end}" in message for end in (":", ".")), message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("field", ["name", "source", "output", "categories", "model"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    path = write_job(tmp_path)
    fields = yaml.safe_load(path.read_text())
    del fields[field]
    path.write_text(yaml.safe_dump(fields))
    assert f"{field}: is required and missing" in refusal(path)


def test_a_mistake_is_named_once_and_begins_with_its_field(tmp_path: Path) -> None:
    for changes, field in (({"categories": [3]}, "categories[0]"), ({"categories": ["a, b"]}, "categories[0]")):
        _, *lines = refusal(write_job(tmp_path, **changes)).splitlines()
        assert [line.split(":")[0] for line in lines] == [f"  {field}"]


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    message = refusal(write_job(tmp_path, shard_size=0, task="detect", colour="red"))
    assert all(f"\n  {field}: " in message for field in ("shard_size", "task", "colour"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- images\n- labels\n", ("mapping of fields", "list")),
        ("", ("mapping of fields",)),
        ("just a text", ("mapping of fields", "str")),
        ("name: [1\nsource: }", ("not valid YAML", "line 1")),
        ("name: a\tb: c\n\t- d", ("not valid YAML", "line")),
    ],
    ids=["list", "empty", "text", "open bracket", "tabs"],
)
def test_what_is_no_job_file(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    message = refusal(path)
    assert all(word in message for word in words), message


def test_another_encoding_is_said(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes("name: caf\xe9".encode("latin-1"))
    assert "UTF-8" in refusal(path)


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        message = refusal(path)
        assert words in message
        assert "examples/shapes/job.yaml" in message


def test_relative_paths_are_taken_from_the_job_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs" / "tiny").mkdir(parents=True)
    path = write_job(
        tmp_path / "jobs",
        source={"prefixes": ["../images/", "/elsewhere", "s3://bucket/a b", "~/pictures"]},
        output="labels",
        model={"name": "tiny"},
        sinks=[COCO, {"kind": "gallery", "url": "gs://bucket/page"}],
    )
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    job = load_job(Path("jobs/job.yaml"))
    assert job.source.prefixes == (
        f"file://{tmp_path}/images/",
        "file:///elsewhere",
        "s3://bucket/a b",
        "file:///home/somebody/pictures",
    )
    assert job.output == f"file://{tmp_path}/jobs/labels"
    assert job.model.name == str(tmp_path / "jobs" / "tiny")
    assert [sink.url for sink in job.sinks] == [f"file://{tmp_path}/jobs/coco", "gs://bucket/page"]
    assert job == load_job(path)


def test_a_key_list_lies_beside_the_job_too(tmp_path: Path) -> None:
    job = make_job(tmp_path, source={"key_list": "keys.csv"})
    assert job.source.key_list == f"file://{tmp_path}/keys.csv"


def test_the_example_loads_and_asks_its_question() -> None:
    job = load_job(EXAMPLE)
    assert job.model.name == str(EXAMPLE.parent / "checkpoint")
    assert [prompt.text for prompt in job.prompts()] == [
        "Detect orange circle, green square, purple star, cyan ring. Output the bounding box coordinates in [x0, y0, x1, y1] format."
    ]
    assert [sink.kind for sink in job.sinks] == ["coco", "gallery"]
    assert len(job.question().generation) == 16


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sinks": [COCO, {"kind": "gallery", "url": "gallery", "pictures": 7}]},
        {"source": {"key_list": "keys.csv"}, "credentials": {"source": "archive"}},
        {"task": "keypoint", "keypoints": "hand", "categories": ["hand"]},
        {"categories": ["ring", {"name": "star", "phrases": ["a star", "an asterisk"], "synonyms": ["sun"]}]},
        {"engine": {"args": {"gpu_memory_utilization": 0.5, "nested": {"list": [1, None]}}}},
    ],
    ids=["plain", "sinks", "key list", "key points", "phrases", "engine arguments"],
)
def test_a_job_survives_being_prefects_parameter(tmp_path: Path, changes: dict[str, Any]) -> None:
    job = make_job(tmp_path, **changes)
    assert LabelJob.model_validate_json(job.model_dump_json()) == job
    assert LabelJob.model_validate(job.model_dump(mode="json")) == job
    assert LabelJob.model_json_schema()["properties"].keys() == job.model_dump().keys()


def test_each_field_of_prefects_form_is_explained() -> None:
    schema = LabelJob.model_json_schema()
    unexplained = {
        f"{name}.{field}" if name != "LabelJob" else field
        for name, model in {"LabelJob": schema, **schema["$defs"]}.items()
        for field, about in model["properties"].items()
        if "description" not in about and "$ref" not in about and "const" not in about
    }
    assert unexplained <= EXPLAINED_BY_THEIR_NAMES, unexplained - EXPLAINED_BY_THEIR_NAMES


EXPLAINED_BY_THEIR_NAMES = {
    "Category.name",
    "EngineSettings.kind",
    "Sampling.temperature",
    "Sampling.top_k",
    "Sampling.repetition_penalty",
}


def test_phrases_are_rewritten_as_in_training_when_asked_for(tmp_path: Path) -> None:
    job = make_job(
        tmp_path,
        categories=["traffic_light", "cup, mug", {"name": "tin", "phrases": ["can/tin"]}],
        rewrite_phrases=True,
    )
    assert [prompt.asked for prompt in job.prompts()] == [("traffic light", "cup mug", "can")]
    assert [job.taxonomy.category_of(phrase) for phrase in ("traffic light", "cup mug", "can")] == [
        "traffic_light",
        "cup, mug",
        "tin",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"output": "ftp://host/labels"}, "output: ftp://host/labels"),
        ({"sinks": [{"kind": "coco", "url": "ftp://host/coco"}]}, "sinks[0].url: ftp://host/coco"),
        ({"output": "labels", "sinks": [{"kind": "coco", "url": "labels/"}]}, "sinks[0].url: is the output itself"),
    ],
)
def test_what_nothing_can_be_written_to_is_said_before_anything_is_fetched(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    assert words in refusal(write_job(tmp_path, **changes))
