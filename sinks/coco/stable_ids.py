"""Positive integers for texts that stay the same from run to run, as COCO wants ids. Bounded memory: collisions are found on disk."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ID_BITS = 52  # ids are 1 … 2**52: JSON numbers are doubles in most readers, exact up to 2**53
_BUCKET_BITS = 6
_BUFFERED_IDS = 1 << 20  # 8 MiB


def hash_ids(texts: Sequence[str], bits: int = ID_BITS) -> NDArray[np.int64]:
    """An id from 1 to 2**bits for each text, by its hash alone: equal for two texts once in about 2**bits pairs."""
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return (np.frombuffer(digests, dtype=">u8") >> np.uint64(64 - bits)).astype(np.int64) + 1


class IdSurvey:
    """First reading of all texts, each once: finds which ids more than one text wants. Spools 8 bytes a text into folder (made if missing)."""

    def __init__(self, folder: Path, bits: int = ID_BITS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.bits = bits
        self._folder = folder
        self._buffer: list[NDArray[np.int64]] = []
        self._buffered = 0

    def add(self, texts: Sequence[str]) -> None:
        """Counts these texts in."""
        self._buffer.append(hash_ids(texts, self.bits))
        self._buffered += len(texts)
        if self._buffered >= _BUFFERED_IDS:
            self._flush()

    def collisions(self) -> NDArray[np.int64]:
        """The ids that more than one text wants, sorted. Reads one of 64 buckets at a time."""
        self._flush()
        repeated = []
        for bucket in range(1 << _BUCKET_BITS):
            ids, counts = np.unique(self._read_bucket(bucket), return_counts=True)
            repeated.append(ids[counts > 1])
        return np.sort(np.concatenate(repeated))

    def wanted(self, id_: int) -> bool:
        """Whether any text hashes to this id."""
        self._flush()
        return bool(np.any(self._read_bucket(int(self._buckets(np.array([id_]))[0])) == id_))

    def _buckets(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return (ids - 1) >> max(self.bits - _BUCKET_BITS, 0)

    def _read_bucket(self, bucket: int) -> NDArray[np.int64]:
        path = self._folder / f"{bucket:02d}"
        return np.fromfile(path, dtype=np.int64) if path.exists() else np.empty(0, dtype=np.int64)

    def _flush(self) -> None:
        if not self._buffered:
            return
        ids = np.sort(np.concatenate(self._buffer))
        self._buffer, self._buffered = [], 0
        buckets = self._buckets(ids)
        for bucket in np.unique(buckets):
            with (self._folder / f"{bucket:02d}").open("ab") as file:
                ids[buckets == bucket].tofile(file)


class StableIds:
    """Second reading: gives each text its id. The texts must come in the same order in every run, then the same text has the same id.

    Of texts that want one id the first keeps it; a later one is hashed again with a count (text#1, text#2 …) until it finds an id nobody wants.
    """

    def __init__(self, survey: IdSurvey) -> None:
        self._survey = survey
        self._collisions = survey.collisions()
        self._taken: set[int] = (
            set()
        )  # collided ids already given away, and second choices: as many as there are collisions

    def assign(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Unique ids for the next texts, in their order. Raises ValueError if there are more texts than ids."""
        ids = hash_ids(texts, self._survey.bits)
        for position in np.flatnonzero(np.isin(ids, self._collisions)):
            wanted = int(ids[position])
            if wanted in self._taken:
                ids[position] = wanted = self._second_choice(texts[position])
            self._taken.add(wanted)
        return ids

    def _second_choice(self, text: str) -> int:
        for count in range(1, 1 << 16):
            candidate = int(hash_ids([f"{text}#{count}"], self._survey.bits)[0])
            if candidate not in self._taken and not self._survey.wanted(candidate):
                return candidate
        raise ValueError(f"no id of {self._survey.bits} bits is left for {text!r}")
