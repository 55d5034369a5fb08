"""Archives of generated scenes and the jobs that label them with the shipped checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from examples.shapes.generate import draw, write_if_new
from flows.job import LabelJob, load_job

CHECKPOINT = Path(__file__).parents[2] / "examples" / "shapes" / "checkpoint"
CATEGORIES = ("orange circle", "green square", "purple star", "cyan ring")


def draw_scenes(folder: Path, numbers: Sequence[int], *, seed: int = 5) -> list[Path]:
    """Writes the scenes of these numbers as folder/scene-00007.jpg and so on; returns their paths."""
    drawings = list(draw(max(numbers) + 1, seed, CATEGORIES, days=0, odd=False))
    for number in numbers:
        write_if_new(folder / drawings[number].name, drawings[number].data)
    return [folder / drawings[number].name for number in numbers]


def write_job(folder: Path, **changes: Any) -> Path:
    """A job file in folder: images/ to output/, in shards of 8, by the transformers engine, without sinks. changes: fields to have otherwise."""
    fields: dict[str, Any] = {
        "name": "scenes",
        "source": {"prefixes": ["images"]},
        "output": "output",
        "categories": list(CATEGORIES),
        "model": {"name": str(CHECKPOINT)},
        "sampling": {"max_tokens": 256},
        "engine": {"kind": "transformers"},
        "shard_size": 8,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(fields | changes), encoding="utf-8")
    return path


def make_job(folder: Path, **changes: Any) -> LabelJob:
    """The same, loaded."""
    return load_job(write_job(folder, **changes))
