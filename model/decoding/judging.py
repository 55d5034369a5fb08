"""Claims held against what was asked and against each other: corners put in order, shapes that are none or said before left out. Leaves pixels and outcomes to others."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.decoding.claims import IS_BOX, IS_KEYPOINTS, IS_POINT, IS_POLYGON, Claims, Flag, flag_answers, ragged
from model.decoding.quality import first_of_each, large_boxes, number_keys, polygons_without_area
from model.prompts import OCR_TASKS, Prompt
from model.taxonomy import normalised

NOT_ASKED = -1
_MOST_STATEMENTS = 1 << 21  # what is left of 63 bits beside a shape's geometry (2) and box (40)


def match_asked(
    claims: Claims,
    texts: Sequence[str],
    prompts: Sequence[Prompt],
    prompt: NDArray[np.int64],
    synonyms: Mapping[str, str],
) -> NDArray[np.int64]:
    """Which of its prompt's asked phrases each statement answers, NOT_ASKED if none. Read text, whatever it says, answers the first.

    texts: the normalised phrases; prompt: (answers,) index into prompts; synonyms: normalised phrase → asked phrase.
    """
    pairs, inverse = np.unique(
        prompt[claims.statement_answer] * len(texts) + claims.statement_phrase, return_inverse=True
    )
    asked_by = [
        {normalised(phrase): index for index, phrase in reversed(list(enumerate(one.asked)))} for one in prompts
    ]
    found = np.full(len(pairs), NOT_ASKED, np.int64)
    for place, (number, code) in enumerate(
        zip(*(part.tolist() for part in np.divmod(pairs, len(texts) or 1)), strict=True)
    ):
        if prompts[number].task in OCR_TASKS:
            found[place] = 0 if prompts[number].asked else NOT_ASKED
        else:
            text = texts[code]
            asked = asked_by[number]
            found[place] = asked.get(text, asked.get(normalised(synonyms.get(text, text)), NOT_ASKED))
    return np.asarray(found[inverse.reshape(-1)])


def order_corners(claims: Claims) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """The claims' bins with boxes' corners in order, and (shapes, 4) the bounds x0, y0, x1, y1 of each shape. Flags, in place, what was reversed or has no area."""
    bins = claims.bins.copy()
    bounds = np.zeros((len(claims.geometry), 4), np.int16)
    first = claims.offsets[:-1]

    quads = np.flatnonzero((claims.geometry == IS_BOX) | (claims.geometry == IS_KEYPOINTS))
    where = first[quads, None] + np.arange(4)
    said = bins[where]
    low, high = np.minimum(said[:, :2], said[:, 2:]), np.maximum(said[:, :2], said[:, 2:])
    bounds[quads] = bins[where] = np.concatenate([low, high], axis=1)
    claims.flags[quads[(low != said[:, :2]).any(axis=1)]] |= np.uint16(Flag.REVERSED)
    claims.flags[quads[(low == high).any(axis=1)]] |= np.uint16(Flag.ZERO_AREA)

    dots = np.flatnonzero(claims.geometry == IS_POINT)
    bounds[dots] = bins[first[dots, None] + np.array([0, 1, 0, 1])]

    polygons = np.flatnonzero(claims.geometry == IS_POLYGON)
    if len(polygons):
        counts = np.diff(claims.offsets)[polygons]
        corners = bins[ragged(first[polygons], counts)].reshape(-1, 2).astype(np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts // 2)])
        bounds[polygons, :2] = np.minimum.reduceat(corners, starts[:-1])
        bounds[polygons, 2:] = np.maximum.reduceat(corners, starts[:-1])
        claims.flags[polygons[polygons_without_area(corners, starts)]] |= np.uint16(Flag.ZERO_AREA)
    return bins, bounds


def keep_one_of_each(
    claims: Claims,
    bins: NDArray[np.int16],
    bounds: NDArray[np.int16],
    texts: Sequence[str],
    prompts: Sequence[Prompt],
    prompt: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The shapes that stay, ascending: all with an area, of equal ones with an equal phrase in one answer the first. Counts the others as dropped and flags repetitions.

    bins, bounds: of order_corners. texts: normalised phrases; read text is compared to the letter instead. Raises ValueError for too many statements.
    """
    if len(claims.statement_answer) > _MOST_STATEMENTS:
        raise ValueError(
            f"{len(claims.statement_answer)} answered phrases in one call; decode at most {_MOST_STATEMENTS} at once"
        )
    sound = np.flatnonzero((claims.flags & Flag.ZERO_AREA) == 0)
    codes: dict[str, int] = {}
    alike = np.array([codes.setdefault(text, len(codes)) for text in texts], np.int64)
    phrase = claims.statement_phrase
    reads = np.array([one.task in OCR_TASKS for one in prompts], np.bool_)[prompt[claims.statement_answer]]
    alike_phrase = np.where(reads, phrase, alike[phrase]) if reads.any() else alike[phrase]
    _, speaker = np.unique(claims.statement_answer * len(texts) + alike_phrase, return_inverse=True)
    speaker = speaker.reshape(-1)[claims.statement]

    keys = ((speaker[sound] << 2) | claims.geometry[sound]) << 40
    for place, shift in enumerate((30, 20, 10, 0)):
        keys |= bounds[sound, place].astype(np.int64) << shift
    intricate = (claims.geometry[sound] == IS_POLYGON) | (claims.geometry[sound] == IS_KEYPOINTS)
    if intricate.any():
        # Bounds do not tell these apart: they get keys by all their bins, negative, so as not to meet the others'.
        chosen = sound[intricate]
        detail = [
            b"%d %s %s"
            % (key, bins[claims.offsets[shape] : claims.offsets[shape + 1]].tobytes(), _keypoints(claims, shape))
            for key, shape in zip(keys[intricate].tolist(), chosen.tolist(), strict=True)
        ]
        keys[intricate] = -1 - number_keys(detail)
    first, counts = first_of_each(keys)
    kept = sound[first]
    claims.flags[kept[counts > 1]] |= np.uint16(Flag.REPEATED)
    answer = claims.statement_answer[claims.statement]
    left_out = np.ones(len(answer), np.bool_)
    left_out[kept] = False
    np.add.at(claims.dropped, answer[left_out], 1)
    return kept


def flag_large(claims: Claims, kept: NDArray[np.int64], bounds: NDArray[np.int16], asked: NDArray[np.int64]) -> None:
    """Flags, in place, large boxes among the kept shapes. asked: (kept,) what each answers; what nobody asked for is a class of its own by its phrase."""
    statement = claims.statement[kept]
    classes = np.where(asked >= 0, asked, claims.statement_phrase[statement] + (1 << 20)) + (
        claims.statement_answer[statement] << 32
    )
    boxes = np.flatnonzero((claims.geometry[kept] == IS_BOX) | (claims.geometry[kept] == IS_KEYPOINTS))
    large = large_boxes(bounds[kept[boxes]], classes[boxes])
    claims.flags[kept[boxes[large]]] |= np.uint16(Flag.LARGE_BOX)


def pass_on_flags(claims: Claims) -> None:
    """Gives each answer, in place, the flags of its shapes, of those left out too."""
    flagged = np.flatnonzero(claims.flags)
    np.bitwise_or.at(claims.answer_flags, claims.statement_answer[claims.statement[flagged]], claims.flags[flagged])


def flag_unasked(claims: Claims, asked: NDArray[np.int64]) -> None:
    """Flags, in place, the shapes and answers of statements about what nobody asked for. asked: (statements,)."""
    flag_answers(claims.answer_flags, claims.statement_answer[asked == NOT_ASKED], Flag.UNASKED)
    claims.flags[asked[claims.statement] == NOT_ASKED] |= np.uint16(Flag.UNASKED)


def _keypoints(claims: Claims, shape: int) -> bytes:
    return claims.keypoint_bins[claims.keypoint_offsets[shape] : claims.keypoint_offsets[shape + 1]].tobytes()
