"""Answers in groups, <|object_ref_start|>phrase<|object_ref_end|><|box_start|>list<|box_end|>, read to claims: a whole shard at once, in time linear in its tokens.

What is read how: a list belongs to the phrase last begun before it, and ends at the next mark of any kind. Commas part shapes, white space does not; so does
whatever else stands in a list, which makes the answer malformed. Coordinates outside a list, and lists before any phrase, are shapes nobody can label: counted as
dropped. Text outside groups is no shape and passes without a flag, unless the answer holds nothing else. The first end token ends the answer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.decoding.claims import (
    IS_BOX,
    IS_KEYPOINTS,
    IS_POINT,
    IS_POLYGON,
    Claims,
    Flag,
    Phrases,
    flag_answers,
    offsets_of,
    ragged,
)
from model.decoding.lexing import Stream
from model.decoding.scoring import geometric_mean_probability
from model.tokens import BOX_END, BOX_START, END, REF_END, REF_START, SEPARATOR, SPACE, SPECIAL, TEXT

_FOLLOWS = np.zeros((END + 1, END + 1), np.bool_)  # [mark, next mark] of a well-formed answer
for _before, _after in (
    *((SEPARATOR, after) for after in (SEPARATOR, REF_START, END)),
    *((REF_START, REF_END), (REF_END, BOX_START), (BOX_START, BOX_END)),
    *((BOX_END, after) for after in (SEPARATOR, REF_START, END)),
    *((END, after) for after in (SEPARATOR, END)),
):
    _FOLLOWS[_before, _after] = True


@dataclass(frozen=True, slots=True)
class _Marks:
    """The marks of a stream: where they lie (at), their class, their answer, and the index of the mark with which the phrase begun last begins (-1: none in the answer)."""

    at: NDArray[np.int64]
    kind: NDArray[np.uint8]
    answer: NDArray[np.int64]
    phrase_mark: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Coordinates between commas: first (index among the stream's coordinates), count, mark (index of the mark before), trailing (the answer was cut right after)."""

    first: NDArray[np.int64]
    count: NDArray[np.int64]
    mark: NDArray[np.int64]
    trailing: NDArray[np.bool_]


def read_groups(stream: Stream, expected: NDArray[np.uint8], phrases: Phrases) -> Claims:
    """The claims of a stream of answers. expected: (answers,) the geometry each was asked for. Adds to phrases. No sequence of ids raises."""
    flags = np.zeros(len(stream.cut), np.uint16)
    dropped = np.zeros(len(stream.cut), np.int64)
    marks = _marks(stream)
    runs = _runs(stream, marks)
    junk = np.concatenate(
        [np.zeros(1, np.int32), np.cumsum((stream.classes - np.uint8(TEXT)) <= SPECIAL - TEXT, dtype=np.int32)]
    )  # wraps below TEXT
    _flag_structure(stream, marks, runs, junk, flags)

    lists = np.flatnonzero((marks.kind == BOX_START) & (marks.phrase_mark >= 0))
    none = _flag_lists(stream, marks, runs, lists, junk, phrases, flags)
    inside = (marks.kind[runs.mark] == BOX_START) & (marks.phrase_mark[runs.mark] >= 0)
    misplaced = marks.answer[runs.mark[~inside]]
    flag_answers(flags, misplaced, Flag.MALFORMED)
    # Coordinates inside a phrase stay in its text; elsewhere outside a list they are shapes left out, as many as there would be boxes.
    lost = ~inside & (marks.kind[runs.mark] != REF_START)
    losers = marks.answer[runs.mark[lost]]
    np.add.at(dropped, losers, np.where(_asks_boxes(expected[losers]), -(-runs.count[lost] // 4), 1))

    kept = _Runs(runs.first[inside], runs.count[inside], runs.mark[inside], runs.trailing[inside])
    first, count, geometry, run = _shapes(
        kept, expected[marks.answer[kept.mark]], marks.answer[kept.mark], flags, dropped
    )
    score = (
        np.full(len(first), np.nan, np.float32)
        if stream.coordinate_logprobs is None
        else geometric_mean_probability(stream.coordinate_logprobs, first, count)
    )
    shape_mark = kept.mark[run]
    unexpected = geometry != expected[marks.answer[shape_mark]]
    return Claims(
        statement_answer=marks.answer[lists],
        statement_phrase=_phrase_codes(stream, marks, lists, phrases),
        statement_none=none,
        statement=np.searchsorted(lists, shape_mark),
        geometry=geometry,
        bins=stream.coordinate_bins[ragged(first, count)],
        offsets=offsets_of(count),
        score=score,
        flags=np.where(unexpected, np.uint16(Flag.GEOMETRY), np.uint16(0)),
        keypoint_bins=np.zeros((0, 2), np.int16),
        keypoint_offsets=np.zeros(len(first) + 1, np.int64),
        answer_flags=flags,
        dropped=dropped,
    )


def _marks(stream: Stream) -> _Marks:
    at = np.flatnonzero(stream.classes >= SEPARATOR)
    kind = stream.classes[at]
    index = np.arange(len(at))
    separator = np.maximum.accumulate(np.where(kind == SEPARATOR, index, 0))
    ends = np.cumsum(kind == END)
    ended = (ends - (kind == END) > ends[separator]) & (kind != SEPARATOR)
    kind[ended] = END
    begun = np.maximum.accumulate(np.where(kind == REF_START, index, -1))
    return _Marks(at, kind, np.cumsum(kind == SEPARATOR) - 1, np.where(begun > separator, begun, -1))


def _runs(stream: Stream, marks: _Marks) -> _Runs:
    at = stream.coordinate_at
    apart = np.diff(at, prepend=-2) != 1
    if len(at) and (stream.classes[at + 1] == SPACE).any():
        apart = np.diff(np.cumsum(stream.classes != SPACE)[at], prepend=-2) != 1
    first = np.flatnonzero(apart)
    count = np.diff(first, append=len(at))
    mark = np.searchsorted(marks.at, at[first]) - 1
    return _Runs(first, count, mark, at[first + count - 1] == _tails(stream)[marks.answer[mark]])


def _tails(stream: Stream) -> NDArray[np.int64]:
    """Where the last token that is no white space lies in each answer that was cut; -1 in the others."""
    tails = np.where(stream.cut, stream.starts[1:] - 1, -1)
    blank = np.flatnonzero(stream.cut & (stream.classes[tails] == SPACE))
    if len(blank):
        solid = np.flatnonzero(stream.classes != SPACE)
        tails[blank] = solid[np.searchsorted(solid, tails[blank]) - 1]
    return tails


def _flag_structure(
    stream: Stream, marks: _Marks, runs: _Runs, junk: NDArray[np.int32], flags: NDArray[np.uint16]
) -> None:
    """Flags answers whose marks do not follow each other as they should, that hold special tokens of no use in an answer, only prose, or nothing."""
    wrong = np.flatnonzero(~_FOLLOWS[marks.kind[:-1], marks.kind[1:]])
    cut = stream.cut[marks.answer[wrong]] & (marks.kind[wrong + 1] == SEPARATOR)
    flag_answers(flags, marks.answer[wrong[~cut]], Flag.MALFORMED)

    specials = np.flatnonzero(stream.classes == SPECIAL)
    mark = np.searchsorted(marks.at, specials) - 1
    flag_answers(
        flags, marks.answer[mark[marks.kind[mark] != END]], Flag.MALFORMED
    )  # padding after the end is no fault

    bare = np.ones(len(stream.cut), np.bool_)
    bare[marks.answer[(marks.kind != SEPARATOR) & (marks.kind != END)]] = False
    bare[marks.answer[runs.mark]] = False
    answers = np.flatnonzero(bare)
    separators = np.flatnonzero(marks.kind == SEPARATOR)[answers]
    prose = junk[marks.at[separators + 1]] > junk[marks.at[separators]]
    flag_answers(flags, answers[prose], Flag.MALFORMED)
    flag_answers(flags, answers[~prose], Flag.EMPTY)


def _flag_lists(
    stream: Stream,
    marks: _Marks,
    runs: _Runs,
    lists: NDArray[np.int64],
    junk: NDArray[np.int32],
    phrases: Phrases,
    flags: NDArray[np.uint16],
) -> NDArray[np.bool_]:
    """Whether each list says None. Flags the answers of lists that say neither that nor a shape, or something besides shapes."""
    holds_shapes = np.zeros(len(marks.at), np.bool_)
    holds_shapes[runs.mark] = True
    begin, end = marks.at[lists] + 1, marks.at[lists + 1]
    odd = junk[end] > junk[begin]  # junk[i] counts the tokens before i
    wordless = np.flatnonzero(~holds_shapes[lists])
    codes = _codes(stream, begin[wordless], end[wordless], phrases)
    says_none = np.array([text.casefold() == "none" for text in phrases.texts], np.bool_)
    none = np.zeros(len(lists), np.bool_)
    none[wordless] = says_none[codes]
    unfinished = stream.cut[marks.answer[lists]] & (marks.kind[lists + 1] == SEPARATOR)
    wrong = np.where(holds_shapes[lists], odd, ~none & ~unfinished)
    flag_answers(flags, marks.answer[lists[wrong]], Flag.MALFORMED)
    return none


def _phrase_codes(stream: Stream, marks: _Marks, lists: NDArray[np.int64], phrases: Phrases) -> NDArray[np.int64]:
    begin, inverse = np.unique(
        marks.phrase_mark[lists], return_inverse=True
    )  # each once: a long phrase may be followed by many lists
    return _codes(stream, marks.at[begin] + 1, marks.at[begin + 1], phrases)[inverse.reshape(-1)]


def _codes(stream: Stream, begin: NDArray[np.int64], end: NDArray[np.int64], phrases: Phrases) -> NDArray[np.int64]:
    raw = stream.ids.tobytes()
    keys = [
        raw[first:last] for first, last in zip((begin * 4).tolist(), (end * 4).tolist(), strict=True)
    ]  # 4 bytes an id
    return np.fromiter(map(phrases.__getitem__, keys), np.int64, len(keys))


def _shapes(
    runs: _Runs,
    expected: NDArray[np.uint8],
    answers: NDArray[np.int64],
    flags: NDArray[np.uint16],
    dropped: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """First coordinate, number of coordinates, geometry and run of each shape. Counts and flags what is none.

    Where boxes were asked for, a run of 4, 8, 12 … is as many boxes. Otherwise 2 coordinates are a point, 4 a box, 6, 8, 10 … a polygon, and an odd number
    is no shape. The run at which an answer was cut holds the boxes or points that are whole; of a polygon one cannot know whether more was to come.
    """
    boxes = _asks_boxes(expected) & (runs.trailing | (runs.count % 4 == 0))
    whole = np.where(runs.trailing & (expected == IS_POLYGON), 0, 1 - runs.count % 2)
    shapes = np.where(boxes, runs.count // 4, whole)
    partial = np.where(boxes, runs.count % 4 > 0, whole == 0)
    np.add.at(dropped, answers[partial], 1)
    flag_answers(flags, answers[partial & ~runs.trailing], Flag.MALFORMED)

    count = np.where(boxes, 4, runs.count)
    geometry = np.where(count == 2, IS_POINT, np.where(count == 4, IS_BOX, IS_POLYGON)).astype(np.uint8)
    run = np.repeat(np.arange(len(shapes)), shapes)
    number = np.arange(len(run)) - np.repeat(np.cumsum(shapes) - shapes, shapes)
    return runs.first[run] + 4 * number, count[run], geometry[run], run


def _asks_boxes(expected: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((expected == IS_BOX) | (expected == IS_KEYPOINTS))
