"""What every sink is: it plans, pushes and verifies a view of the dataset. Knows no destination, and not how the dataset is stored."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


class LabelledImages(Protocol):
    """What a sink is given: the dataset's current view, or one run of it. A snapshot: every reading gives the same rows."""

    def batches(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Rows of the images table with all rows of the annotations table that belong to them, an image never torn, ordered by image_key (bytewise)."""
        ...


@dataclass(frozen=True, slots=True)
class PushReport:
    """What a push did, or would do. added, changed, unchanged and removed count objects of the target: files, tasks, rows.

    images and annotations: what the target holds afterwards. left_out: reason → how many images or shapes the target cannot or should not hold.
    """

    sink: str
    added: int
    changed: int
    unchanged: int
    removed: int
    images: int
    annotations: int
    left_out: Mapping[str, int]
    objects: tuple[str, ...]  # the files to open first, relative to the sink's url


class Sink(Protocol):
    """A destination of labels. Everything about an image is replaced at once; pushing twice is pushing once. One push at a time per target."""

    def plan(self, view: LabelledImages) -> PushReport:
        """What push would do. Writes nothing to the target."""
        ...

    def push(self, view: LabelledImages) -> PushReport:
        """Makes the target hold the view. Whoever reads the target meanwhile sees the former state or the new one, whole; so does one after a crash."""
        ...

    def verify(self, view: LabelledImages) -> tuple[str, ...]:
        """Reads the target back and says, a sentence each, where it differs from the view; empty: it does not."""
        ...
