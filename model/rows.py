"""Decoded answers as the Arrow tables of model/annotations.py, column by column, without a Python object a shape. Stores nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.annotations import schema
from model.decoding import OUTCOMES, STATUSES, Decoded
from model.decoding.claims import FLAGS, GEOMETRIES, IS_BOX, IS_KEYPOINTS, offsets_of, ragged
from model.prompts import OCR_TASKS, Prompt
from model.taxonomy import Taxonomy

_FOUND, _ABSENT, _UNANSWERED = range(len(OUTCOMES))


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of images whatever the model says: columns with an entry for each image and prompt, named as in the table images."""

    image_id: Sequence[str]
    image_key: Sequence[str]
    etag: Sequence[str]
    source: Sequence[str]
    size_bytes: Sequence[int]
    width_px: Sequence[int | None]
    height_px: Sequence[int | None]
    input_width_px: Sequence[int | None]
    input_height_px: Sequence[int | None]


@dataclass(frozen=True, slots=True)
class Origin:
    """Who made the rows of a shard."""

    run_id: str
    shard: str
    attempt: str
    worker: str


def image_id(key: str, etag: str, prompt_text: str, generation_fingerprint: str) -> str:
    """16 hex digits that stand for an image's version, a prompt and the way of generating."""
    return blake2b("\0".join((key, etag, prompt_text, generation_fingerprint)).encode(), digest_size=8).hexdigest()


def annotation_rows(decoded: Decoded, images: ImageFacts, taxonomy: Taxonomy, origin: Origin) -> pa.Table:
    """The table annotations of decoded answers: a row a shape, in order of the answers. images: an entry for each answer, in the same order."""
    shapes = decoded.shapes
    count = len(shapes.answer)
    prompt = decoded.prompt[shapes.answer]
    instance = pa.array(shapes.instance)
    phrase = _taken(decoded.phrases, shapes.phrase)
    reads = np.array([one.task in OCR_TASKS for one in decoded.prompts], np.bool_)[prompt]
    asked_by = offsets_of(np.array([len(one.asked) for one in decoded.prompts]))
    categories = [_category(phrase, taxonomy) for one in decoded.prompts for phrase in one.asked]
    has_keypoints = shapes.geometry == IS_KEYPOINTS
    columns: dict[str, Any] = {
        "annotation_id": pc.binary_join_element_wise(
            _taken(images.image_id, shapes.answer), instance.cast(pa.string()), "-"
        ),
        "image_key": _taken(images.image_key, shapes.answer),
        "etag": _taken(images.etag, shapes.answer),
        "source": _taken(images.source, shapes.answer),
        "width_px": pa.array(decoded.sizes_px[shapes.answer, 0].astype(np.int32)),
        "height_px": pa.array(decoded.sizes_px[shapes.answer, 1].astype(np.int32)),
        **_prompt_columns(decoded.prompts, prompt),
        "instance": instance,
        "phrase": phrase,
        "category": _taken(categories, asked_by[:-1][prompt] + shapes.asked, null=shapes.asked < 0),
        "geometry": _taken(GEOMETRIES, shapes.geometry),
        "bbox_xyxy": pa.FixedSizeListArray.from_arrays(pa.array(shapes.bbox_xyxy.ravel()), 4),
        "bins": _lists(shapes.bins.astype(np.int32), shapes.bin_offsets),
        "points": _lists(shapes.points, shapes.point_offsets, null=shapes.geometry == IS_BOX),
        "keypoint_names": _keypoint_names(decoded.prompts, prompt, null=~has_keypoints),
        "keypoint_visible": _lists(shapes.visible, shapes.visible_offsets, null=~has_keypoints),
        "text": pc.if_else(pa.array(reads), phrase, pa.scalar(None, pa.string()))
        if reads.any()
        else pa.nulls(count, pa.string()),
        "score": pa.array(shapes.score, from_pandas=True),  # NaN to null
        "flags": _flag_lists(shapes.flags),
        "run_id": pa.repeat(origin.run_id, count),
        "shard": pa.repeat(origin.shard, count),
    }
    return _table("annotations", columns)


def image_rows(
    decoded: Decoded,
    images: ImageFacts,
    taxonomy: Taxonomy,
    origin: Origin,
    *,
    prompt_tokens: Sequence[int],
    seconds: Sequence[float],
) -> pa.Table:
    """The table images of decoded answers: a row an answer, in their order, as are images, prompt_tokens and seconds (of the engine's generations)."""
    answers = len(decoded.prompt)
    outcomes = _outcomes(decoded.prompts, decoded.prompt, decoded.outcomes, decoded.outcome_counts, taxonomy)
    columns = {
        **_image_columns(images, decoded.prompts, decoded.prompt, origin),
        "status": _taken(STATUSES, decoded.status),
        "error": pa.nulls(answers, pa.string()),
        "outcomes": outcomes,
        "flags": _flag_lists(decoded.flags),
        "dropped": pa.array(decoded.dropped.astype(np.int32)),
        **_token_columns(decoded, answers),
        "prompt_tokens": pa.array(prompt_tokens, pa.int32()),
        "seconds": pa.array(seconds, pa.float32()),
    }
    return _table("images", columns)


def unlabelled_image_rows(
    images: ImageFacts,
    prompts: Sequence[Prompt],
    statuses: Sequence[str],
    errors: Sequence[str],
    taxonomy: Taxonomy,
    origin: Origin,
) -> pa.Table:
    """The table images of images that the model did not answer about. prompts, statuses (unreadable | failed), errors: an entry for each of images."""
    rows = len(prompts)
    distinct = tuple(dict.fromkeys(prompts))
    prompt = np.array([distinct.index(one) for one in prompts], np.int64)
    asked = sum(len(one.asked) for one in prompts)
    nothing = _outcomes(distinct, prompt, np.full(asked, _UNANSWERED, np.uint8), np.zeros(asked, np.int64), taxonomy)
    columns = {
        **_image_columns(images, distinct, prompt, origin),
        "status": pa.array(statuses, pa.string()),
        "error": pa.array(errors, pa.string()),
        "outcomes": nothing,
        "flags": _flag_lists(np.zeros(rows, np.uint16)),
        "dropped": pa.array(np.zeros(rows, np.int32)),
        **{
            name: pa.nulls(rows, schema("images").field(name).type)
            for name in ("token_ids", "token_logprobs", "prompt_tokens", "answer_tokens", "seconds")
        },
    }
    return _table("images", columns)


def _table(name: str, columns: dict[str, Any]) -> pa.Table:
    wanted = schema(name)
    return pa.Table.from_arrays([columns[field.name] for field in wanted], schema=wanted)


def _image_columns(
    images: ImageFacts, prompts: Sequence[Prompt], prompt: NDArray[np.int64], origin: Origin
) -> dict[str, Any]:
    return {
        **{name: pa.array(getattr(images, name), pa.string()) for name in ("image_id", "image_key", "etag", "source")},
        "size_bytes": pa.array(images.size_bytes, pa.int64()),
        **{
            name: pa.array(getattr(images, name), pa.int32())
            for name in ("width_px", "height_px", "input_width_px", "input_height_px")
        },
        **_prompt_columns(prompts, prompt),
        "prompt": _taken([one.text for one in prompts], prompt),
        **{name: pa.repeat(getattr(origin, name), len(prompt)) for name in ("attempt", "worker", "run_id", "shard")},
    }


def _prompt_columns(prompts: Sequence[Prompt], prompt: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "task": _taken([one.task for one in prompts], prompt),
        "prompt_index": pa.array(np.array([one.index for one in prompts], np.int32)[prompt]),
    }


def _token_columns(decoded: Decoded, answers: int) -> dict[str, Any]:
    """The raw answers; null where they came as text."""
    if not len(decoded.token_ids):
        return {
            name: pa.nulls(answers, schema("images").field(name).type)
            for name in ("token_ids", "token_logprobs", "answer_tokens")
        }
    counts = np.fromiter(map(len, decoded.token_ids), np.int64, answers)
    without = np.fromiter((values is None for values in decoded.logprobs), np.bool_, answers)
    empty = np.zeros(0, np.float32)
    logprobs = np.concatenate(
        [empty if values is None else values for values in decoded.logprobs], dtype=np.float32, casting="unsafe"
    )
    return {
        "token_ids": _lists(np.concatenate(decoded.token_ids, dtype=np.int32, casting="unsafe"), offsets_of(counts)),
        "token_logprobs": _lists(logprobs, offsets_of(np.where(without, 0, counts)), null=without),
        "answer_tokens": pa.array(counts.astype(np.int32)),
    }


def _outcomes(
    prompts: Sequence[Prompt],
    prompt: NDArray[np.int64],
    outcomes: NDArray[np.uint8],
    counts: NDArray[np.int64],
    taxonomy: Taxonomy,
) -> pa.ListArray:
    """Outcomes of asked phrases as outcomes of categories: found if one of its phrases was, absent if all were, else unanswered."""
    names: list[list[str]] = []
    slots: list[NDArray[np.int64]] = []  # for each prompt: each asked phrase's place among the prompt's categories
    for one in prompts:
        order: dict[str, int] = {}
        slots.append(
            np.array([order.setdefault(_category(phrase, taxonomy), len(order)) for phrase in one.asked], np.int64)
        )
        names.append(list(order))
    categories_by = np.array([len(own) for own in names], np.int64)
    asked_by = np.array([len(own) for own in slots], np.int64)
    offsets = offsets_of(categories_by[prompt])
    if not np.array_equal(categories_by, asked_by):
        slot = np.concatenate(slots)[ragged(offsets_of(asked_by)[:-1][prompt], asked_by[prompt])] + np.repeat(
            offsets[:-1], asked_by[prompt]
        )
        phrases, absent = np.bincount(slot), np.bincount(slot[outcomes == _ABSENT], minlength=int(offsets[-1]))
        counts = np.bincount(slot, weights=counts).astype(np.int64)
        outcomes = np.where(counts > 0, _FOUND, np.where(absent == phrases, _ABSENT, _UNANSWERED)).astype(np.uint8)
    which = ragged(offsets_of(categories_by)[:-1][prompt], categories_by[prompt])
    struct = schema("images").field("outcomes").type.value_type
    values = pa.StructArray.from_arrays(
        [
            _taken([name for own in names for name in own], which),
            _taken(OUTCOMES, outcomes),
            pa.array(counts.astype(np.int32)),
        ],
        fields=[struct.field(index) for index in range(struct.num_fields)],
    )
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


def _category(phrase: str, taxonomy: Taxonomy) -> str:
    """An asked phrase's category; phrases that no taxonomy holds, such as the names of reference boxes, are their own."""
    return taxonomy.category_of(phrase) or phrase


def _keypoint_names(prompts: Sequence[Prompt], prompt: NDArray[np.int64], *, null: NDArray[np.bool_]) -> pa.Array:
    kind = pa.list_(pa.string())
    return (
        pa.array([list(one.keypoint_names) for one in prompts], kind).take(pa.array(prompt, mask=null))
        if not null.all()
        else pa.nulls(len(prompt), kind)
    )


def _flag_lists(flags: NDArray[np.uint16]) -> pa.ListArray:
    flagged = np.flatnonzero(flags)
    row, bit = np.nonzero((flags[flagged, None] >> np.arange(len(FLAGS))) & 1)
    counts = np.bincount(flagged[row], minlength=len(flags))
    return pa.ListArray.from_arrays(pa.array(offsets_of(counts).astype(np.int32)), _taken(FLAGS, bit))


def _taken(values: Sequence[str], indices: NDArray[Any], *, null: NDArray[np.bool_] | None = None) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(indices, mask=null))


def _lists(values: NDArray[Any], offsets: NDArray[np.int64], *, null: NDArray[np.bool_] | None = None) -> pa.ListArray:
    return pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.array(values), mask=None if null is None else pa.array(null)
    )
