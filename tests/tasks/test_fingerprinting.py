"""Which change of a job makes its images be generated again, which only their answers be read again, and which neither."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.job import LabelJob
from model.checkpoint import Checkpoint

NEITHER, DECODING, GENERATION, BOTH = (False, False), (False, True), (True, False), (True, True)

JOB: dict[str, Any] = {
    "name": "shapes",
    "source": {"prefixes": ["s3://archive/2026"]},
    "output": "s3://labels/shapes",
    "task": "detection",
    "categories": ["ring", {"name": "star", "synonyms": ["asterisk"]}],
    "model": {"name": "checkpoint"},
    "sampling": {"max_tokens": 256},
}
COCO = {"kind": "coco", "url": "s3://labels/coco"}


def fingerprints(folder: Path, **changes: Any) -> tuple[str, str]:
    job = LabelJob.model_validate(JOB | {"model": {"name": str(folder)}} | changes)
    question = job.question()
    return question.generation, question.decoding


CHANGES: list[tuple[str, dict[str, Any], tuple[bool, bool]]] = [
    ("name", {"name": "other"}, NEITHER),
    ("prefixes", {"source": {"prefixes": ["gs://elsewhere"]}}, NEITHER),
    ("include", {"source": {"prefixes": ["s3://archive/2026"], "include": ["*.png"]}}, NEITHER),
    ("exclude", {"source": {"prefixes": ["s3://archive/2026"], "exclude": ["thumbnails/"]}}, NEITHER),
    ("suffixes", {"source": {"prefixes": ["s3://archive/2026"], "suffixes": [".dat"]}}, NEITHER),
    ("key list", {"source": {"key_list": "keys.csv"}}, NEITHER),
    ("output", {"output": "file:///labels"}, NEITHER),
    ("shard size", {"shard_size": 7}, NEITHER),
    ("sinks", {"sinks": [COCO]}, NEITHER),
    ("credentials", {"credentials": {"source": "archive", "output": "labels"}}, NEITHER),
    ("fetching", {"fetching": {"threads": 3, "max_pixels": 1000, "ahead": 5}}, NEITHER),
    ("engine", {"engine": {"kind": "transformers"}}, NEITHER),
    ("engine arguments", {"engine": {"args": {"gpu_memory_utilization": 0.5}}}, NEITHER),
    ("engine replicas", {"engine": {"replicas": 8}}, NEITHER),
    ("requests in flight", {"engine": {"max_in_flight": 3}}, NEITHER),
    ("dtype as the checkpoint has it", {"engine": {"dtype": "float32"}}, NEITHER),
    ("a default written out", {"sampling": {"max_tokens": 256, "temperature": 0.0}}, NEITHER),
    ("coordinates", {"coordinates": "edge"}, DECODING),
    ("a synonym", {"categories": ["ring", {"name": "star", "synonyms": ["asterisk", "sun"]}]}, DECODING),
    ("a category's name", {"categories": ["ring", {"name": "estrella", "phrases": ["star"]}]}, DECODING),
    ("dtype", {"engine": {"dtype": "bfloat16"}}, GENERATION),
    ("quantisation", {"engine": {"quantization": "fp8"}}, GENERATION),
    ("temperature", {"sampling": {"max_tokens": 256, "temperature": 0.5}}, GENERATION),
    ("repetition penalty", {"sampling": {"max_tokens": 256, "repetition_penalty": 1.0}}, GENERATION),
    ("max_tokens", {"sampling": {"max_tokens": 512}}, GENERATION),
    ("task", {"task": "pointing"}, GENERATION),
    ("another category", {"categories": ["ring", "star", "cross"]}, BOTH),
    ("the categories' order", {"categories": ["star", "ring"]}, BOTH),
    ("another phrase", {"categories": ["ring", {"name": "star", "phrases": ["a star"]}]}, BOTH),
]


@pytest.mark.parametrize(("changes", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_what_a_change_of_the_job_does(
    checkpoint: Checkpoint, changes: dict[str, Any], expected: tuple[bool, bool]
) -> None:
    before, after = fingerprints(checkpoint.folder), fingerprints(checkpoint.folder, **changes)
    assert (before[0] != after[0], before[1] != after[1]) == expected


def test_the_model_input_size_counts(checkpoint: Checkpoint) -> None:
    smaller = {"name": str(checkpoint.folder), "max_pixels": 28 * 28}
    assert fingerprints(checkpoint.folder, model=smaller)[0] != fingerprints(checkpoint.folder)[0]
    as_allowed = {"name": str(checkpoint.folder), "max_pixels": checkpoint.image_limits.max_pixels}
    assert fingerprints(checkpoint.folder, model=as_allowed) == fingerprints(checkpoint.folder)


def append(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("a") as file:
            file.write(text)

    return change


def swap_two_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"].reverse()
    path.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: None, False),
        (append("generation_config.json", "\n"), False),
        (append("model.safetensors", " "), True),
        (append("chat_template.jinja", " "), True),
        (swap_two_tokens, True),
    ],
    ids=["moved", "generation config", "weights", "chat template", "tokenizer"],
)
def test_a_checkpoint_counts_by_its_contents_not_its_place(
    checkpoint: Checkpoint, tmp_path: Path, change: Callable[[Path], None], expected: bool
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint.folder, folder)
    change(folder)
    before, after = fingerprints(checkpoint.folder), fingerprints(folder)
    assert (before[0] != after[0]) == expected
    assert before[1] == after[1]


def test_fingerprints_are_short_and_fit_for_a_path(checkpoint: Checkpoint) -> None:
    for fingerprint in fingerprints(checkpoint.folder):
        assert len(fingerprint) == 16
        assert set(fingerprint) <= set("0123456789abcdef")
