"""Rex-Omni's vocabulary: which ids are coordinates, which mark up an answer, and what text the others stand for. Knows nothing of shapes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer

from model.coordinates import BINS

# What an id is in an answer. The order matters to model/decoding/groups.py: from SEPARATOR on they give an answer its structure.
SPACE, COMMA, TEXT, SPECIAL, COORDINATE, SEPARATOR, REF_START, REF_END, BOX_START, BOX_END, END = range(11)

_MARKS = {
    "<|object_ref_start|>": REF_START,
    "<|object_ref_end|>": REF_END,
    "<|box_start|>": BOX_START,
    "<|box_end|>": BOX_END,
    "<|im_end|>": END,
    "<|endoftext|>": END,
}


class TokenizerError(ValueError):
    """A tokenizer with which Rex-Omni's answers cannot be read."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What each id stands for.

    pieces: the bytes of each id's text. classes: (n + 2,) uint8, one of the constants above; the last two entries are for an unknown id and for the
    separator that lies between answers. bins: (n + 2,) int16, the bin of a coordinate, -1 elsewhere. coordinate_ids: (1000,) int32, the id of each bin.
    """

    pieces: Sequence[bytes]
    classes: NDArray[np.uint8]
    bins: NDArray[np.int16]
    coordinate_ids: NDArray[np.int32]

    @classmethod
    def from_tokenizer_file(cls, path: Path, *, embedding_rows: int) -> "Vocabulary":
        """Reads a tokenizer.json (byte-level BPE) and checks that <0> … <999> are 1000 distinct single ids below embedding_rows, and that the marks exist.

        Raises TokenizerError where they are not, or have other ids than the file says, as when they were added to a tokenizer instead of put in place of its last ids.
        """
        tokenizer = Tokenizer.from_file(str(path))
        stated = {
            token["content"]: token["id"] for token in json.loads(path.read_text("utf-8")).get("added_tokens", ())
        }
        added = tokenizer.get_added_tokens_decoder()
        rows = max(embedding_rows, 1 + max(tokenizer.get_vocab(with_added_tokens=True).values()))
        pieces = [b""] * rows
        for word, index in tokenizer.get_vocab(with_added_tokens=False).items():
            pieces[index] = _bytes_of(word)
        for index, token in added.items():
            pieces[index] = token.content.encode()
        _check_stated_ids(tokenizer, stated)
        coordinate_ids = _checked_coordinates(tokenizer, embedding_rows)
        return cls.from_pieces(pieces, coordinate_ids, [index for index, token in added.items() if token.special])

    @classmethod
    def from_pieces(
        cls, pieces: Sequence[bytes], coordinate_ids: Sequence[int], specials: Iterable[int]
    ) -> "Vocabulary":
        """A vocabulary of these pieces. specials: ids of special tokens; those named like an answer's marks are the marks. Raises TokenizerError if a mark is missing."""
        classes = np.full(len(pieces) + 2, TEXT, np.uint8)
        for index, piece in enumerate(pieces):
            stripped = piece.strip()
            if not stripped and piece:
                classes[index] = SPACE
            elif stripped == b",":
                classes[index] = COMMA
        classes[list(specials)] = SPECIAL
        marks = {piece.decode(errors="replace"): index for index, piece in enumerate(pieces) if piece.startswith(b"<|")}
        missing = [mark for mark in _MARKS if mark not in marks and mark != "<|endoftext|>"]
        if missing:
            raise TokenizerError(f"the tokenizer has no {', '.join(missing)}; Rex-Omni's answers are written with them")
        for mark, kind in _MARKS.items():
            if mark in marks:
                classes[marks[mark]] = kind
        ids = np.asarray(coordinate_ids, np.int32)
        classes[ids] = COORDINATE
        classes[-1] = SEPARATOR
        bins = np.full(len(classes), -1, np.int16)
        bins[ids] = np.arange(BINS)
        return cls(pieces, classes, bins, ids)

    def bins_to_ids(self, bins: ArrayLike) -> NDArray[np.int32]:
        """The ids of bins 0–999, of any shape."""
        return np.asarray(self.coordinate_ids[np.asarray(bins)])

    def ids_to_bins(self, ids: ArrayLike) -> NDArray[np.int16]:
        """The bins of ids, of any shape; -1 for an id that is no coordinate."""
        return np.asarray(self.bins[self._known(ids)])

    def classes_of(self, ids: ArrayLike) -> NDArray[np.uint8]:
        """The classes of ids, of any shape; TEXT for an unknown id."""
        return np.asarray(self.classes[self._known(ids)])

    def _known(self, ids: ArrayLike) -> NDArray[Any]:
        values: NDArray[Any] = np.asarray(ids)
        return np.where((values >= 0) & (values < len(self.pieces)), values, len(self.pieces))

    def text_of(self, ids: ArrayLike) -> str:
        """The text of ids, special tokens written out. Bytes that are no UTF-8 (a character cut in two) become U+FFFD, unknown ids nothing."""
        known = [index for index in np.asarray(ids).tolist() if 0 <= index < len(self.pieces)]
        return b"".join([self.pieces[index] for index in known]).decode(errors="replace")


def _check_stated_ids(tokenizer: Tokenizer, stated: Mapping[str, int]) -> None:
    """Raises TokenizerError for a coordinate or mark whose id is not the stated one: loading numbers added tokens anew where a word has an id already or one is missing."""
    for name in (*(f"<{value}>" for value in range(BINS)), *_MARKS):
        loaded = tokenizer.token_to_id(name)
        if stated.get(name, loaded) != loaded:
            raise TokenizerError(
                f"{name} has id {loaded}, not {stated[name]} as the file says, which is {tokenizer.id_to_token(stated[name])!r}: the ids would mean other "
                "coordinates to the model; take the checkpoint's own tokenizer"
            )


def _checked_coordinates(tokenizer: Tokenizer, embedding_rows: int) -> list[int]:
    names = [f"<{value}>" for value in range(BINS)]
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(names, add_special_tokens=False)]
    split = [
        name for name, ids in zip(names, encoded, strict=True) if len(ids) != 1 or tokenizer.id_to_token(ids[0]) != name
    ]
    if split:
        raise TokenizerError(
            f"{len(split)} of the coordinates <0> … <999> are not one token of their own, first {split[0]}; take the checkpoint's own tokenizer"
        )
    ids = [encoding[0] for encoding in encoded]  # distinct, since each stands for its own name
    if max(ids) >= embedding_rows:
        raise TokenizerError(
            f"<{ids.index(max(ids))}> has id {max(ids)}, but the model has only {embedding_rows} embedding rows: the tokenizer is of another model"
        )
    return ids


def _byte_alphabet() -> dict[str, int]:
    """The character by which byte-level BPE writes each byte (GPT-2's table, which Qwen's tokenizer uses)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _bytes_of(token: str) -> bytes:
    return (
        bytes(_BYTES[character] for character in token)
        if all(character in _BYTES for character in token)
        else token.encode()
    )
