"""A labelled shard becomes tables and is committed; a finished run is staged. What a marker or a state means is the ledger's business, what a run is worth tasks/checking.py's."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from prefect import task
from prefect.cache_policies import NO_CACHE

from model.annotations import FAILED, MALFORMED, OK, TRUNCATED, UNREADABLE
from model.checks import GoldenKey, KnownAnswer, check_rows
from model.decoding import Answer, decode
from model.engines.base import Generation
from model.prompts import Prompt
from model.rows import ImageFacts, Origin, annotation_rows, image_id, image_rows, unlabelled_image_rows
from sinks.dataset.ledger import Ledger
from sinks.dataset.records import Plan
from sinks.dataset.states import user_name
from tasks.fetching import FetchedImage
from tasks.labelling import LabelledShard
from tasks.preparing import Question
from tasks.reporting import CATEGORY


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """Makes a shard's tables and commits them. attempt: a name no other worker has; one writer may commit many shards, from several threads.

    known: what is known of the golden images that go with the shards.
    """

    ledger: Ledger
    question: Question
    attempt: str
    worker: str
    known: Mapping[GoldenKey, KnownAnswer] = field(default_factory=dict)

    def commit(self, labelled: LabelledShard) -> bool:
        """Whether this attempt's files stand. False is no error: another worker had finished the shard."""
        tables = self.tables(labelled)
        _, won = self.ledger.commit_shard(labelled.shard, self.attempt, tables, shard_counts(tables))
        return won

    def tables(self, labelled: LabelledShard) -> dict[str, pa.Table]:
        """The shard's images and annotations: a row an image and prompt, whatever became of it. With golden images, which are in neither, also its checks."""
        origin = Origin(labelled.shard.run_id, labelled.shard.name, self.attempt, self.worker)
        own = len(labelled.shard.images)
        images, annotations = self._rows(labelled.fetched[:own], labelled.generations[:own], origin)
        tables = {"annotations": annotations, "images": images}
        if labelled.golden:
            golden = self._rows(labelled.fetched[own:], labelled.generations[own:], origin)
            tables["checks"] = check_rows(*golden, self.known)
        return tables

    def _rows(
        self, fetched: Sequence[FetchedImage], answers: Sequence[Sequence[Generation | None]], origin: Origin
    ) -> tuple[pa.Table, pa.Table]:
        """The rows of the tables images and annotations."""
        question = self.question
        answered: list[tuple[FetchedImage, Prompt, Generation]] = []
        lost: list[tuple[FetchedImage, Prompt, str, str]] = []
        for image, generations in zip(fetched, answers, strict=True):
            for prompt, generation in zip(question.prompts, generations, strict=True):
                if generation is None:
                    lost.append((image, prompt, image.status or FAILED, image.error or "never reached the engine"))
                elif generation.finish_reason == "error":
                    lost.append((image, prompt, FAILED, f"the engine refused it: {generation.error}"))
                else:
                    answered.append((image, prompt, generation))

        decoded = decode(
            [_answer(image, prompt, generation) for image, prompt, generation in answered],
            question.checkpoint.vocabulary,
            at=question.coordinates,
            synonyms=question.taxonomy.synonyms,
        )
        facts = self._facts([(image, prompt) for image, prompt, _ in answered])
        rows = image_rows(
            decoded,
            facts,
            question.taxonomy,
            origin,
            prompt_tokens=[generation.prompt_tokens for *_, generation in answered],
            seconds=[generation.seconds for *_, generation in answered],
        )
        unlabelled = unlabelled_image_rows(
            self._facts([(image, prompt) for image, prompt, *_ in lost]),
            [prompt for _, prompt, *_ in lost],
            [status for *_, status, _ in lost],
            [error for *_, error in lost],
            question.taxonomy,
            origin,
        )
        annotations = annotation_rows(decoded, facts, question.taxonomy, origin)
        return pa.concat_tables([rows, unlabelled]), annotations

    def _facts(self, asked: list[tuple[FetchedImage, Prompt]]) -> ImageFacts:
        images = [image for image, _ in asked]
        return ImageFacts(
            image_id=[
                image_id(image.record.key, image.etag, prompt.text, self.question.generation) for image, prompt in asked
            ],
            image_key=[image.record.key for image in images],
            etag=[image.etag for image in images],
            source=[image.record.source for image in images],
            size_bytes=[image.size_bytes for image in images],
            width_px=[image.width_px for image in images],
            height_px=[image.height_px for image in images],
            input_width_px=[image.input_width_px for image in images],
            input_height_px=[image.input_height_px for image in images],
        )


@task(name="commit a shard", task_run_name="commit {labelled.shard.name}", cache_policy=NO_CACHE)
def commit_task(writer: ShardWriter, labelled: LabelledShard) -> bool:
    return writer.commit(labelled)


def shard_counts(tables: Mapping[str, pa.Table]) -> dict[str, int]:
    """What a marker says of its shard: images, answers (an image and prompt each), the answers of each status, annotations, and category:<name> for the shapes of each category."""
    statuses = Counter(tables["images"]["status"].to_pylist())
    categories = Counter(tables["annotations"]["category"].to_pylist())
    counts = {
        "images": pc.count_distinct(tables["images"]["image_key"]).as_py(),
        "answers": tables["images"].num_rows,
        "annotations": tables["annotations"].num_rows,
    }
    counts |= {status: statuses[status] for status in (OK, TRUNCATED, MALFORMED, UNREADABLE, FAILED)}
    return counts | {
        f"{CATEGORY}{name or '(not asked for)'}": count for name, count in sorted(categories.items(), key=str)
    }


def stage_run(ledger: Ledger, plan: Plan, images_per_second: float | None) -> None:
    """Closes a plan that has no shard left, unless somebody else has. images_per_second: of the invocation that finished it."""
    speed: dict[str, Any] = {} if images_per_second is None else {"images_per_second": round(images_per_second, 2)}
    ledger.stage_run(plan, who=user_name(), why=f"all {plan.shards} shards are committed", details=speed)


def _answer(image: FetchedImage, prompt: Prompt, generation: Generation) -> Answer:
    assert image.width_px is not None
    assert image.height_px is not None
    assert generation.finish_reason != "error"
    return Answer(
        generation.token_ids, generation.logprobs, generation.finish_reason, prompt, image.width_px, image.height_px
    )
