"""Answers laid end to end: one array of ids and their classes for a whole shard, from token ids or from text. Leaves their meaning to the readers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.coordinates import BINS
from model.tokens import COORDINATE, Vocabulary


@dataclass(frozen=True, slots=True)
class Stream:
    """The tokens of several answers, a separator before each and one after the last.

    ids, classes: (tokens,). starts: (answers + 1,), where each answer's separator lies. coordinate_at: (coordinates,), where coordinates lie.
    coordinate_bins: (coordinates,). coordinate_logprobs: (coordinates,) float32, NaN in answers without; None where no answer has any.
    cut: (answers,), whether the answer hit the length limit.
    """

    vocabulary: Vocabulary
    ids: NDArray[np.int32]
    classes: NDArray[np.uint8]
    starts: NDArray[np.int64]
    coordinate_at: NDArray[np.int64]
    coordinate_bins: NDArray[np.int16]
    coordinate_logprobs: NDArray[np.float32] | None
    cut: NDArray[np.bool_]

    def answer(self, index: int) -> NDArray[np.int32]:
        """The ids of one answer; unknown ids are the vocabulary's unknown id."""
        return self.ids[self.starts[index] + 1 : self.starts[index + 1]]


def lay_out(
    vocabulary: Vocabulary,
    token_ids: Sequence[NDArray[Any]],
    logprobs: Sequence[NDArray[np.float32] | None],
    cut: NDArray[np.bool_],
) -> Stream:
    """The stream of these answers. Any integers may be ids. Raises ValueError if an answer has more or fewer log probabilities than tokens."""
    unknown, separator = len(vocabulary.pieces), len(vocabulary.pieces) + 1
    answers = len(token_ids)
    starts = np.zeros(answers + 1, np.int64)
    starts[1:] = np.cumsum(np.fromiter(map(len, token_ids), np.int64, answers) + 1)
    parts: list[Any] = [np.array([separator], np.int32)] * (2 * answers + 1)
    parts[1::2] = token_ids
    ids = np.concatenate(parts, dtype=np.int32, casting="unsafe")
    outside = ids.view(np.uint32) >= unknown  # negative ids too
    if np.count_nonzero(outside) > answers + 1:
        ids[outside] = unknown
        ids[starts] = separator
    classes = vocabulary.classes[ids]
    at = np.flatnonzero(classes == COORDINATE)
    scored = None
    if any(values is not None for values in logprobs):
        scored = _scored(token_ids, logprobs)[at]
    return Stream(vocabulary, ids, classes, starts, at, vocabulary.bins[ids[at]], scored, cut)


def _scored(token_ids: Sequence[NDArray[Any]], logprobs: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32]:
    gap = np.array([np.nan], np.float32)
    parts: list[Any] = [gap] * (2 * len(token_ids) + 1)
    for index, (ids, values) in enumerate(zip(token_ids, logprobs, strict=True)):
        if values is not None and len(values) != len(ids):
            raise ValueError(f"answer {index} has {len(ids)} tokens and {len(values)} log probabilities")
        parts[2 * index + 1] = np.full(len(ids), np.nan, np.float32) if values is None else values
    return np.concatenate(parts, dtype=np.float32, casting="unsafe")


_MARKUP = re.compile(r"<\|[a-z_]{1,24}\|>|<(?:0|[1-9]\d{0,2})>|,|[^<,]+|<")
_SPECIALS = (
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|im_end|>",
    "<|endoftext|>",
)


def tokens_of_texts(texts: Sequence[str]) -> tuple[Vocabulary, list[NDArray[np.int32]]]:
    """Texts of answers as ids of a vocabulary made for them, special tokens and coordinates by how they are written: text in a picture that reads <12> is taken for one."""
    ids = {f"<{value}>": value for value in range(BINS)}
    for special in _SPECIALS:
        ids[special] = len(ids)
    answers = [
        np.array([ids.setdefault(piece, len(ids)) for piece in _MARKUP.findall(text)], np.int32) for text in texts
    ]
    pieces = [piece.encode(errors="replace") for piece in ids]
    specials = [index for piece, index in ids.items() if piece.startswith("<|") and piece.endswith("|>")]
    return Vocabulary.from_pieces(pieces, range(BINS), specials), answers
