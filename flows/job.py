"""What a user asks for: the job file as one validated request, and where its relative paths lead. Each part is configured beside the code it steers; this file only composes them."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.engines.base import EngineSettings, Sampling
from model.prompts import DETECTION, POINTING, Prompt, build_prompts, training_phrase
from model.taxonomy import Category, Taxonomy
from sinks.coco import CocoSettings
from sinks.dataset.store import StoreUrlError, absolute_url, split_url
from sinks.gallery import GallerySettings
from tasks.checking import GateSettings
from tasks.checkpoints import ModelSettings
from tasks.fetching import FetchSettings
from tasks.golden import GoldenSample, GoldenSetError, GoldenSettings, find_golden_sample
from tasks.listing import ListingSettings
from tasks.preparing import Question, prepare_question

Task = Literal["detection", "pointing", "keypoint", "ocr_box", "ocr_polygon", "gui_grounding", "gui_pointing"]
_SINKS: tuple[type[BaseModel], ...] = (CocoSettings, GallerySettings)
SinkSettings = Annotated[CocoSettings | GallerySettings, Field(discriminator="kind")]


class JobError(ValueError):
    """The job file cannot be run as it stands; the message names each field and says what would be right."""


class Credentials(BaseModel):
    """Names of credentials, never the secrets: NAME stands for the environment variables PRELABEL_<NAME>_<OPTION>."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = Field(
        None, description="who reads the images; null: the provider's default chain (AWS_… and so on)"
    )
    output: str | None = Field(
        None, description="who reads and writes the output and the sinks; null: the default chain"
    )


class LabelJob(BaseModel):
    """A labelling job: which images, what to look for, with which model, and where the labels go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="short name, seen in runs and reports")
    source: ListingSettings = Field(description="where the images are")
    output: str = Field(
        min_length=1, description="folder URL of the labelled dataset: file path, s3://, gs:// or az://"
    )
    task: Task = Field("detection", description="what is asked of the model")
    categories: tuple[Category, ...] = Field(
        min_length=1, description="what to look for; a plain string is a category asked by its own name"
    )
    rewrite_phrases: bool = Field(
        False,
        description="ask for phrases as Rex-Omni was trained on category names: the part before a /, _ as a space, without commas",
    )
    keypoints: Literal["person", "animal", "hand"] | None = Field(
        None, description="the skeleton, for the task keypoint: person, animal or hand"
    )
    model: ModelSettings = Field(description="the checkpoint: a folder or a name on the Hugging Face hub")
    coordinates: Literal["center", "edge"] = Field(
        "center",
        description="where in its bin a coordinate lies: center is unbiased, edge reproduces published numbers",
    )
    sampling: Sampling = Field(default_factory=Sampling)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    fetching: FetchSettings = Field(default_factory=FetchSettings)
    shard_size: int = Field(512, ge=1, le=100_000, description="images a shard: the unit of work and of commitment")
    golden: tuple[GoldenSettings, ...] = Field(
        (), description="golden sets: pictures whose true boxes are known, labelled with every run to check it"
    )
    gates: GateSettings = Field(
        default_factory=GateSettings, description="what a run must be worth to be promoted; others are held"
    )
    sinks: tuple[SinkSettings, ...] = Field((), description="where promoted labels are pushed")
    credentials: Credentials = Field(default_factory=Credentials)

    @model_validator(mode="after")
    def _askable(self) -> Self:
        self.prompts()
        return self

    @model_validator(mode="after")
    def _checkable(self) -> Self:
        if self.golden and self.task not in (DETECTION, POINTING):
            raise ValueError(
                f"golden: answers of the task {self.task} cannot be checked, those of detection (boxes) and pointing (points in boxes) can; leave golden out"
            )
        if len({golden.coco for golden in self.golden}) < len(self.golden):
            raise ValueError("golden: the same COCO file is named twice; name each once")
        if self.gates.min_f1 and not self.golden:
            raise ValueError(
                "gates.min_f1: there is no F1 without a golden set; name one under golden, or leave min_f1 out"
            )
        if unknown := [name for name in self.gates.gated_categories if name not in self.taxonomy.names]:
            raise ValueError(
                f"gates.min_f1: {unknown[0]!r} is not one of the job's categories ({', '.join(self.taxonomy.names)}), nor overall"
            )
        return self

    @property
    def taxonomy(self) -> Taxonomy:
        """The categories as they are asked for. Raises a ValueError naming the field of a phrase that two of them share."""
        if not self.rewrite_phrases:
            return Taxonomy(categories=self.categories)
        rewritten = (
            category.model_copy(update={"phrases": tuple(map(training_phrase, category.phrases))})
            for category in self.categories
        )
        return Taxonomy(categories=tuple(rewritten))

    def prompts(self) -> tuple[Prompt, ...]:
        """What each image is asked, in order. Raises PromptError naming the field."""
        return build_prompts(self.task, self.taxonomy.phrases, keypoints=self.keypoints, fields=self.taxonomy.fields)

    def question(self) -> Question:
        """The job's question, its checkpoint fetched. Raises CheckpointUnavailable, CheckpointError, TokenizerError."""
        return prepare_question(self.model, self.prompts(), self.taxonomy, self.coordinates, self.sampling, self.engine)

    def golden_sample(self) -> GoldenSample:
        """The golden images that go with a run, looked up where they lie. Raises GoldenSetError."""
        sample = find_golden_sample(self.golden, self.taxonomy, self.credentials.source)
        for name in self.gates.gated_categories:
            if not sample.truths_of(name):
                raise GoldenSetError(
                    f"gates.min_f1: no golden image of the sample shows {name!r}, so its F1 cannot be had; add some that do, or leave it out"
                )
        return sample

    def located(self, folder: Path) -> Self:
        """The same job with every relative path taken from folder (the job file's), as URLs."""

        def url(value: str) -> str:
            return absolute_url(value, folder)

        source = self.source.model_copy(
            update={
                "prefixes": tuple(map(url, self.source.prefixes)),
                "key_list": self.source.key_list and url(self.source.key_list),
            }
        )
        return self.model_copy(
            update={
                "source": source,
                "output": url(self.output),
                "model": self.model.located(folder),
                "golden": tuple(
                    golden.model_copy(update={"coco": url(golden.coco), "images": url(golden.images)})
                    for golden in self.golden
                ),
                "sinks": tuple(sink.model_copy(update={"url": url(sink.url)}) for sink in self.sinks),
            }
        )


def load_job(path: Path) -> LabelJob:
    """Reads and checks a job file; relative paths in it are taken from its folder. Raises JobError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise JobError(
            f"{path}: {error.strerror or error}. Give the path of a job file; examples/shapes/job.yaml is one."
        ) from error
    except UnicodeDecodeError as error:
        raise JobError(f"{path} is not UTF-8 text (byte {error.start} is not): save it as UTF-8") from error
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JobError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise JobError(
            f"{path}: a job file is a mapping of fields (name, source, output, categories, model, …), this is {type(raw).__name__}"
        )
    try:
        job = LabelJob.model_validate(raw).located(path.resolve().parent)
    except ValidationError as error:
        raise JobError(f"{path} cannot be run:\n" + "\n".join(explain(error))) from error
    if mistakes := _unusable_targets(job):
        raise JobError(f"{path} cannot be run:\n" + "\n".join(mistakes))
    return job


def _unusable_targets(job: LabelJob) -> list[str]:
    """A line for each URL that nothing can be written to, and for a sink in the output's place."""
    lines = []
    for field, url in (("output", job.output), *((f"sinks[{n}].url", sink.url) for n, sink in enumerate(job.sinks))):
        try:
            split_url(url)
        except StoreUrlError as error:
            lines.append(f"  {field}: {error}")
        if field != "output" and url.rstrip("/") == job.output.rstrip("/"):
            lines.append(f"  {field}: is the output itself; give the sink a folder of its own")
    return lines


def explain(error: ValidationError) -> list[str]:
    """One line a mistake: the field's path, what is wrong, what would be right."""
    mistakes = error.errors(include_url=False)
    inside = {item["loc"][: len(item["loc"]) - depth] for item in mistakes for depth in range(1, len(item["loc"]))}
    lines = []
    for item in mistakes:
        if item["type"] == "too_short" and item["loc"] in inside:
            continue  # pydantic does not count the items it has refused
        field = _field(item["loc"])
        lines.append(f"  {field}: {_sentence(item)}" if field else f"  {_sentence(item)}")
    return lines


def _field(location: tuple[int | str, ...]) -> str:
    """ "" for the job as a whole: its mistakes name their fields themselves."""
    path = ""
    for place, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (location[0] == "sinks" and place == 2):  # the sink's kind, no field of the file
            path += f".{part}" if path else part
    return path


def _sentence(item: Any) -> str:
    if item["type"] == "missing":
        return "is required and missing"
    if item["type"] == "extra_forbidden":
        known = _fields_beside(item["loc"])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        return "is not a field" + (
            f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}" if known else ""
        )
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    if item["type"] in ("too_short", "string_too_short"):
        return "is empty"
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = ", ".join(settings.model_fields["kind"].default for settings in _SINKS)
        return f"kind is needed, one of {kinds}" + (f", not {tag!r}" if (tag := item["ctx"].get("tag")) else "")
    if item["type"] == "tuple_type":
        return f"a list is needed, not {item['input']!r}"
    if item["type"] == "model_type":
        return f"a mapping of fields is needed, not {item['input']!r}"
    return f"{item['msg']}, not {item['input']!r}"


def _fields_beside(location: tuple[int | str, ...]) -> list[str]:
    """The fields of the model that holds the last part of location."""
    here: Any = LabelJob
    for part in location[:-1]:
        if isinstance(part, int):
            here = get_args(here)[0]  # of tuple[Item, ...]
        elif isinstance(here, type) and issubclass(here, BaseModel):
            here = here.model_fields[part].annotation
        else:
            here = next(settings for settings in _SINKS if settings.model_fields["kind"].default == part)
    return list(here.model_fields)
