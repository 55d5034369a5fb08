"""Answers of the model to shapes in pixels, outcomes and flags: a whole shard as columns, from token ids or from text. Leaves tables to model/rows.py.

What an answer says is read by model/decoding/groups.py and model/decoding/keypoints.py; here it is judged, and nothing goes without a trace. Flags of an answer (a shape carries those
that concern it):

empty       nothing was said                                     truncated  the length limit cut it; the shapes before are kept, a partial one is dropped
malformed   part of it cannot be read                            geometry   a shape of another kind than the task asks for; kept as what it is
reversed    corners of a box the wrong way round; reordered      zero_area  a box or polygon that covers nothing; dropped
repeated    the same shape of the same phrase; one is kept, the others are dropped
unasked     a phrase (or a key point) nobody asked for; its shapes are kept, without a category
unanswered  an asked phrase has no shape and no None             large_box  a box over (nearly) the whole image, or over 5 others of its class; kept

An asked phrase is found if a shape of it was kept, else absent if the model said None to it, else unanswered. Read text has no phrase of the job's: its shapes, and
None, answer what was asked. Phrases are compared as model/taxonomy.py does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.annotations import ABSENT, FOUND, MALFORMED, OK, TRUNCATED, UNANSWERED
from model.coordinates import BinEdge, bins_to_pixels
from model.decoding.claims import (
    IS_BOX,
    IS_KEYPOINTS,
    IS_POINT,
    IS_POLYGON,
    Claims,
    Flag,
    Phrases,
    expected_geometry,
    flag_answers,
    merged,
    offsets_of,
    ragged,
)
from model.decoding.groups import read_groups
from model.decoding.judging import flag_large, flag_unasked, keep_one_of_each, match_asked, order_corners, pass_on_flags
from model.decoding.keypoints import read_keypoints
from model.decoding.lexing import lay_out, tokens_of_texts
from model.prompts import KEYPOINT, OCR_TASKS, Prompt
from model.taxonomy import normalised
from model.tokens import BOX_START, Vocabulary

DECODER_VERSION = 1  # part of the decoding fingerprint: raise it whenever the same ids decode to something else
STATUSES = (OK, TRUNCATED, MALFORMED)
OUTCOMES = (FOUND, ABSENT, UNANSWERED)
_FOUND, _ABSENT, _UNANSWERED = range(3)


@dataclass(frozen=True, slots=True)
class Answer:
    """An engine's answer to a prompt about an image. logprobs: one natural log probability a token, or None; width_px, height_px: of the oriented image."""

    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32] | None
    finish_reason: Literal["stop", "length"]
    prompt: Prompt
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """The answer of an engine that returns text only, special tokens kept."""

    text: str
    finish_reason: Literal["stop", "length"]
    prompt: Prompt
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes in order of the answers and, in each, as said. n shapes; offsets are (n + 1,) into the array before them.

    answer, instance (place in its answer, from 0), phrase (index into Decoded.phrases), asked (index into the prompt's asked, -1: nobody asked): (n,).
    geometry: index into GEOMETRIES. bbox_xyxy: (n, 4) float32 pixels, what encloses the shape, for key points the instance's box. bins: corners reordered.
    points: pixels x, y, x, y … of a point, of a polygon's corners, of the visible key points; none of a box. visible: for each key point asked for.
    score: float32, NaN where the engine gave no log probabilities. flags: bits of Flag.
    """

    answer: NDArray[np.int64]
    instance: NDArray[np.int32]
    phrase: NDArray[np.int64]
    asked: NDArray[np.int64]
    geometry: NDArray[np.uint8]
    bbox_xyxy: NDArray[np.float32]
    bins: NDArray[np.int16]
    bin_offsets: NDArray[np.int64]
    points: NDArray[np.float32]
    point_offsets: NDArray[np.int64]
    visible: NDArray[np.bool_]
    visible_offsets: NDArray[np.int64]
    score: NDArray[np.float32]
    flags: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What answers say, as columns. prompt: (answers,) index into prompts. flags: (answers,) bits of Flag. dropped: (answers,) shapes left out.

    phrases: as said, stripped, each once. sizes_px: (answers, 2) width and height of the oriented images.

    outcomes, outcome_counts: for each phrase that each answer's prompt asks for, index into OUTCOMES and the number of shapes, with outcome_offsets (answers + 1,).
    token_ids, logprobs: the answers as they came; empty where they came as text.
    """

    prompts: tuple[Prompt, ...]
    prompt: NDArray[np.int64]
    phrases: tuple[str, ...]
    shapes: Shapes
    flags: NDArray[np.uint16]
    dropped: NDArray[np.int64]
    outcomes: NDArray[np.uint8]
    outcome_counts: NDArray[np.int64]
    outcome_offsets: NDArray[np.int64]
    sizes_px: NDArray[np.int64]
    token_ids: Sequence[NDArray[np.int32]]
    logprobs: Sequence[NDArray[np.float32] | None]

    @property
    def status(self) -> NDArray[np.uint8]:
        """(answers,) index into STATUSES: truncated before malformed (which an empty answer is too) before ok."""
        unreadable = np.where(self.flags & (Flag.MALFORMED | Flag.EMPTY), 2, 0)
        return np.where(self.flags & Flag.TRUNCATED, 1, unreadable).astype(np.uint8)


def decode(
    answers: Sequence[Answer],
    vocabulary: Vocabulary,
    *,
    at: BinEdge = "center",
    synonyms: Mapping[str, str] | None = None,
) -> Decoded:
    """Shapes, outcomes and flags of answers, from their token ids. Any ids decode; time is linear in their number.

    at: see bins_to_pixels. synonyms: normalised phrase → the asked phrase that it answers (Taxonomy.synonyms). Raises ValueError if an answer's log
    probabilities do not fit its tokens, or for more than two million answered phrases at once.
    """
    return _decode(
        answers,
        vocabulary,
        [answer.token_ids for answer in answers],
        [answer.logprobs for answer in answers],
        at,
        synonyms or {},
    )


def decode_text(
    answers: Sequence[TextAnswer], *, at: BinEdge = "center", synonyms: Mapping[str, str] | None = None
) -> Decoded:
    """decode for engines that return only text. Text in a picture that reads like a coordinate or a mark is taken for one: prefer token ids."""
    vocabulary, token_ids = tokens_of_texts([answer.text for answer in answers])
    decoded = _decode(answers, vocabulary, token_ids, [None] * len(answers), at, synonyms or {})
    return replace(decoded, token_ids=(), logprobs=())


def _decode(
    answers: Sequence[Answer] | Sequence[TextAnswer],
    vocabulary: Vocabulary,
    token_ids: Sequence[NDArray[np.int32]],
    logprobs: Sequence[NDArray[np.float32] | None],
    at: BinEdge,
    synonyms: Mapping[str, str],
) -> Decoded:
    numbers: dict[
        int, int
    ] = {}  # by identity: a job's answers share their prompts, and hashing a prompt's text would cost more than reading its answer
    prompt = np.fromiter(
        (numbers.setdefault(id(answer.prompt), len(numbers)) for answer in answers), np.int64, len(answers)
    )
    prompts = tuple(answers[index].prompt for index in np.unique(prompt, return_index=True)[1])
    cut = np.fromiter((answer.finish_reason == "length" for answer in answers), np.bool_, len(answers))
    sizes_px = np.array([(answer.width_px, answer.height_px) for answer in answers], np.int64).reshape(-1, 2)
    phrases = Phrases(vocabulary)
    claims = _read(vocabulary, token_ids, logprobs, cut, prompts, prompt, phrases)
    flag_answers(claims.answer_flags, np.flatnonzero(cut), Flag.TRUNCATED)

    texts = [normalised(text) for text in phrases.texts]
    asked = match_asked(claims, texts, prompts, prompt, synonyms)
    flag_unasked(claims, asked)
    bins, bounds = order_corners(claims)
    kept = keep_one_of_each(claims, bins, bounds, texts, prompts, prompt)
    flag_large(claims, kept, bounds, asked[claims.statement[kept]])
    pass_on_flags(claims)
    shapes = _shapes(claims, kept, asked, bins, bounds, sizes_px, at)
    outcomes, counts, offsets = _outcomes(claims, asked, shapes, prompts, prompt)
    return Decoded(
        prompts,
        prompt,
        tuple(phrases.texts),
        shapes,
        claims.answer_flags,
        claims.dropped,
        outcomes,
        counts,
        offsets,
        sizes_px,
        token_ids,
        logprobs,
    )


def _read(
    vocabulary: Vocabulary,
    token_ids: Sequence[NDArray[np.int32]],
    logprobs: Sequence[NDArray[np.float32] | None],
    cut: NDArray[np.bool_],
    prompts: Sequence[Prompt],
    prompt: NDArray[np.int64],
    phrases: Phrases,
) -> Claims:
    """The claims of all answers. Key points come as JSON; an answer in groups, where JSON was asked for, is read as what it is."""
    expected = np.array([expected_geometry(one.task) for one in prompts], np.uint8)[prompt]
    as_json = np.array([one.task == KEYPOINT for one in prompts], np.bool_)[prompt]
    for index in np.flatnonzero(as_json):
        as_json[index] = not (vocabulary.classes_of(token_ids[index]) == BOX_START).any()
    parts: list[tuple[Claims, NDArray[np.int64]]] = []
    for mine, reads_json in ((np.flatnonzero(~as_json), False), (np.flatnonzero(as_json), True)):
        if reads_json and not len(mine):
            continue
        stream = lay_out(
            vocabulary,
            [token_ids[index] for index in mine.tolist()],
            [logprobs[index] for index in mine.tolist()],
            cut[mine],
        )
        claims = (
            read_keypoints(stream, [prompts[number] for number in prompt[mine]], phrases)
            if reads_json
            else read_groups(stream, expected[mine], phrases)
        )
        parts.append((claims, mine))
    return merged(parts, len(token_ids))


def _shapes(
    claims: Claims,
    kept: NDArray[np.int64],
    asked: NDArray[np.int64],
    bins: NDArray[np.int16],
    bounds: NDArray[np.int16],
    sizes_px: NDArray[np.int64],
    at: BinEdge,
) -> Shapes:
    statement, geometry = claims.statement[kept], claims.geometry[kept]
    answer = claims.statement_answer[statement]
    counts = np.diff(claims.offsets)[kept]
    names = np.diff(claims.keypoint_offsets)[kept]
    bin_offsets, visible_offsets = offsets_of(counts), offsets_of(names)
    kept_bins = bins[ragged(claims.offsets[:-1][kept], counts)]
    keypoints = claims.keypoint_bins[ragged(claims.keypoint_offsets[:-1][kept], names)]
    visible = keypoints[:, 0] >= 0

    shown = np.diff(offsets_of(visible)[visible_offsets])
    pairs = np.where(geometry == IS_BOX, 0, np.where(geometry == IS_KEYPOINTS, shown, counts // 2))
    pair_bins = np.zeros((int(pairs.sum()), 2), np.int16)
    drawn = np.repeat(geometry, pairs)
    pair_bins[drawn == IS_KEYPOINTS] = keypoints[visible]
    outlined = (geometry == IS_POINT) | (geometry == IS_POLYGON)
    pair_bins[drawn != IS_KEYPOINTS] = kept_bins[ragged(bin_offsets[:-1][outlined], counts[outlined])].reshape(-1, 2)

    sizes = sizes_px[answer]
    return Shapes(
        answer=answer,
        instance=(np.arange(len(kept)) - np.searchsorted(answer, answer)).astype(np.int32),
        phrase=claims.statement_phrase[statement],
        asked=asked[statement],
        geometry=geometry,
        bbox_xyxy=bins_to_pixels(bounds[kept].reshape(-1, 2, 2), sizes[:, None], at=at).reshape(-1, 4),
        bins=kept_bins,
        bin_offsets=bin_offsets,
        points=bins_to_pixels(pair_bins, np.repeat(sizes, pairs, axis=0), at=at).reshape(-1),
        point_offsets=offsets_of(2 * pairs),
        visible=visible,
        visible_offsets=visible_offsets,
        score=claims.score[kept],
        flags=claims.flags[kept],
    )


def _outcomes(
    claims: Claims, asked: NDArray[np.int64], shapes: Shapes, prompts: Sequence[Prompt], prompt: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Decoded's outcomes, outcome_counts and outcome_offsets. Flags, in place, the answers that leave something unanswered."""
    asked_by = np.array([len(one.asked) for one in prompts], np.int64)[prompt]
    offsets = offsets_of(asked_by)
    known = shapes.asked >= 0
    counts = np.bincount(offsets[shapes.answer[known]] + shapes.asked[known], minlength=int(offsets[-1]))
    outcomes = np.full(len(counts), _UNANSWERED, np.uint8)
    absent = claims.statement_none & (asked >= 0)
    outcomes[offsets[claims.statement_answer[absent]] + asked[absent]] = _ABSENT
    outcomes[counts > 0] = _FOUND

    first_alike = [_first_alike(one) for one in prompts]
    if any((alike != np.arange(len(alike))).any() for alike in first_alike):
        starts = offsets_of(np.array([len(alike) for alike in first_alike]))[:-1][prompt]
        same = np.concatenate(first_alike)[ragged(starts, asked_by)] + np.repeat(offsets[:-1], asked_by)
        outcomes, counts = outcomes[same], counts[same]
    flag_answers(
        claims.answer_flags, np.repeat(np.arange(len(prompt)), asked_by)[outcomes == _UNANSWERED], Flag.UNANSWERED
    )
    return outcomes, counts, offsets


def _first_alike(prompt: Prompt) -> NDArray[np.int64]:
    """For each phrase the first asked one that the same answer answers: read text answers all of them, other phrases those that differ in case or spaces only."""
    if prompt.task in OCR_TASKS:
        return np.zeros(len(prompt.asked), np.int64)
    first: dict[str, int] = {}
    return np.array(
        [first.setdefault(normalised(phrase), index) for index, phrase in enumerate(prompt.asked)], np.int64
    )
