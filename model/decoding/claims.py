"""What answers say before it is judged: shapes and the phrases they were said for, as columns. Filled by the readers, judged by model/decoding/decoder.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.annotations import BOX, KEYPOINTS, POINT, POLYGON
from model.prompts import GUI_POINTING, KEYPOINT, OCR_POLYGON, POINTING
from model.tokens import SPECIAL, Vocabulary


class Flag(IntFlag):
    """What is odd about a shape or an answer, a bit each, in order of their names; model/decoding/decoder.py says what they mean."""

    EMPTY = auto()
    GEOMETRY = auto()
    LARGE_BOX = auto()
    MALFORMED = auto()
    REPEATED = auto()
    REVERSED = auto()
    TRUNCATED = auto()
    UNANSWERED = auto()
    UNASKED = auto()
    ZERO_AREA = auto()


FLAGS = tuple(str(flag.name).lower() for flag in Flag)  # their names in the tables, by bit

GEOMETRIES = (BOX, POINT, POLYGON, KEYPOINTS)
IS_BOX, IS_POINT, IS_POLYGON, IS_KEYPOINTS = range(4)
NOT_VISIBLE = -1  # in place of a key point's bins


def expected_geometry(task: str) -> int:
    """The geometry (index into GEOMETRIES) that a task asks for."""
    return {POINTING: IS_POINT, GUI_POINTING: IS_POINT, OCR_POLYGON: IS_POLYGON, KEYPOINT: IS_KEYPOINTS}.get(
        task, IS_BOX
    )


class Phrases(dict[bytes, int]):
    """Distinct phrases by the bytes of their int32 ids: looked up in C, decoded once. texts holds them stripped, special tokens left out."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._codes: dict[str, int] = {}
        self._vocabulary = vocabulary

    def __missing__(self, key: bytes) -> int:
        ids = np.frombuffer(key, np.int32)
        self[key] = code = self.code_of(self._vocabulary.text_of(ids[self._vocabulary.classes[ids] != SPECIAL]).strip())
        return code

    def code_of(self, text: str) -> int:
        """The code of a phrase given as text."""
        code = self._codes.setdefault(text, len(self.texts))
        if code == len(self.texts):
            self.texts.append(text)
        return code


@dataclass(frozen=True, slots=True)
class Claims:
    """What answers say, in their order.

    Statements, a phrase each that was answered: statement_answer, statement_phrase (code in Phrases), statement_none (it is said to be absent).
    Shapes: statement, geometry (index into GEOMETRIES), bins with offsets (shapes + 1,) (for key points the instance's box), score (NaN: none), flags.
    Key points: keypoint_bins (pairs, 2), NOT_VISIBLE where not visible, with keypoint_offsets (shapes + 1,); a row for each name asked for, none for other geometries.
    Answers: answer_flags, dropped (shapes that cannot be told, partial ones too).
    """

    statement_answer: NDArray[np.int64]
    statement_phrase: NDArray[np.int64]
    statement_none: NDArray[np.bool_]
    statement: NDArray[np.int64]
    geometry: NDArray[np.uint8]
    bins: NDArray[np.int16]
    offsets: NDArray[np.int64]
    score: NDArray[np.float32]
    flags: NDArray[np.uint16]
    keypoint_bins: NDArray[np.int16]
    keypoint_offsets: NDArray[np.int64]
    answer_flags: NDArray[np.uint16]
    dropped: NDArray[np.int64]


def offsets_of(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Where each of consecutive pieces of these sizes begins, and the end of the last: (n + 1,)."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def ragged(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The indices start, start + 1, … of each piece, one piece after another."""
    ends = np.cumsum(counts)
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts), np.int64)


def flag_answers(flags: NDArray[np.uint16], answers: NDArray[Any] | Sequence[int], flag: Flag) -> None:
    """Sets a flag on these answers, in place."""
    flags[answers] |= np.uint16(flag)


def merged(parts: Sequence[tuple[Claims, NDArray[np.int64]]], answers: int) -> Claims:
    """The claims of several readers about different answers as one, shapes in order of the answers. Each part comes with the answers its own are, of `answers` in all."""
    if len(parts) == 1:
        return parts[0][0]
    statements = np.cumsum([0, *(len(part.statement_answer) for part, _ in parts)])
    statement_answer = np.concatenate([indices[part.statement_answer] for part, indices in parts])
    statement = np.concatenate([part.statement + before for (part, _), before in zip(parts, statements, strict=False)])
    order = np.argsort(statement_answer[statement], kind="stable")
    bins, offsets = _reordered([(part.bins, part.offsets) for part, _ in parts], order)
    keypoint_bins, keypoint_offsets = _reordered(
        [(part.keypoint_bins, part.keypoint_offsets) for part, _ in parts], order
    )
    answer_flags, dropped = np.zeros(answers, np.uint16), np.zeros(answers, np.int64)
    for part, indices in parts:
        answer_flags[indices], dropped[indices] = part.answer_flags, part.dropped
    return Claims(
        statement_answer=statement_answer,
        statement_phrase=np.concatenate([part.statement_phrase for part, _ in parts]),
        statement_none=np.concatenate([part.statement_none for part, _ in parts]),
        statement=statement[order],
        geometry=np.concatenate([part.geometry for part, _ in parts])[order],
        bins=bins,
        offsets=offsets,
        score=np.concatenate([part.score for part, _ in parts])[order],
        flags=np.concatenate([part.flags for part, _ in parts])[order],
        keypoint_bins=keypoint_bins,
        keypoint_offsets=keypoint_offsets,
        answer_flags=answer_flags,
        dropped=dropped,
    )


def _reordered(
    parts: Sequence[tuple[NDArray[np.int16], NDArray[np.int64]]], order: NDArray[np.int64]
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    counts = np.concatenate([np.diff(offsets) for _, offsets in parts])
    starts = offsets_of(counts)[:-1]
    values = np.concatenate([values for values, _ in parts])
    return values[ragged(starts[order], counts[order])], offsets_of(counts[order])
