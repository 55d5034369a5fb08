"""Which pictures a gallery shows, and what it counts: chosen while reading a view once, in memory bounded by the number of pictures. Draws nothing."""

from bisect import insort
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from model.annotations import FAILED, MALFORMED, OK, TRUNCATED, UNREADABLE
from sinks.base import LabelledImages

UNASKED = "(unasked)"  # stands for all phrases nobody asked for
STATUSES = (OK, TRUNCATED, MALFORMED, UNREADABLE, FAILED)  # by harm
_EXAMPLES = 3  # of each category, flag and status, so that every filter finds a picture
_LISTED_FAILURES = 60


@dataclass(frozen=True, slots=True)
class Failure:
    """An image without labels, and why."""

    key: str
    status: str
    error: str


@dataclass(slots=True)
class Counts:
    """images, by worst status and by flag (its own or a shape's); shapes, by category."""

    images: int = 0
    shapes: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a gallery shows. No key is in two of emptiest (fewest shapes first), least_certain (lowest score of a shape first) and sample (in key order)."""

    counts: Counts
    failures: tuple[Failure, ...]  # the first in key order; counts.statuses says how many there are
    emptiest: tuple[str, ...]
    least_certain: tuple[str, ...]
    sample: tuple[str, ...]


@dataclass(slots=True)
class _ImageFacts:
    status: str
    errors: list[str]
    flags: set[str]
    shapes: int = 0
    lowest_score: float | None = None
    categories: set[str] = field(default_factory=set)


class _Smallest:
    """The size smallest ranks offered; a rank ends with the image's key."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ranks: list[tuple[Any, ...]] = []

    def offer(self, *rank: Any) -> None:
        if len(self._ranks) < self._size or rank < self._ranks[-1]:
            insort(self._ranks, rank)
            del self._ranks[self._size :]

    def ranked(self) -> list[str]:
        return [rank[-1] for rank in self._ranks]


def select_pictures(view: LabelledImages, pictures: int) -> Selection:
    """Counts a view and chooses up to this many pictures of its labelled images, the same ones for the same view.

    A tenth of them (of a small view an eighth) are the emptiest, as many the least certain; the rest is drawn by the keys' hashes, a few of each category, flag
    and status first.
    """
    counts = Counts()
    failures: list[Failure] = []
    emptiest, least_certain, sample = _Smallest(pictures), _Smallest(pictures), _Smallest(pictures)
    examples: defaultdict[tuple[str, str], _Smallest] = defaultdict(lambda: _Smallest(_EXAMPLES))
    for images, annotations in view.batches():
        for key, facts in _batch_facts(images, annotations, counts).items():
            if facts.status in (UNREADABLE, FAILED) and not facts.shapes:
                if len(failures) < _LISTED_FAILURES:
                    failures.append(Failure(key, facts.status, "; ".join(facts.errors) or "no reason recorded"))
                continue
            draw = blake2b(key.encode(), digest_size=8).digest()
            emptiest.offer(facts.shapes, draw, key)
            sample.offer(draw, key)
            if facts.lowest_score is not None:
                least_certain.offer(facts.lowest_score, draw, key)
            labels = (
                [("category", c) for c in facts.categories]
                + [("flag", f) for f in facts.flags]
                + [("status", facts.status)]
            )
            for label in labels:
                examples[label].offer(draw, key)
    shown = counts.images - counts.statuses[UNREADABLE] - counts.statuses[FAILED]
    quota = min(pictures // 10, shown // 8)
    chosen_emptiest = emptiest.ranked()[:quota]
    chosen_least_certain = [key for key in least_certain.ranked() if key not in chosen_emptiest][:quota]
    taken = {*chosen_emptiest, *chosen_least_certain}
    drawn = [key for label in sorted(examples) for key in examples[label].ranked()] + sample.ranked()
    chosen_sample = [key for key in dict.fromkeys(drawn) if key not in taken][: pictures - len(taken)]
    return Selection(
        counts,
        tuple(failures),
        tuple(chosen_emptiest),
        tuple(chosen_least_certain),
        tuple(sorted(chosen_sample, key=str.encode)),
    )


def _batch_facts(images: pa.Table, annotations: pa.Table, counts: Counts) -> dict[str, _ImageFacts]:
    """What is to be known of each image of a batch; adds the batch to counts."""
    facts: dict[str, _ImageFacts] = {}
    columns = (images[name].to_pylist() for name in ("image_key", "status", "error", "flags"))
    for key, status, error, flags in zip(*columns, strict=True):
        known = facts.setdefault(key, _ImageFacts(status, [], set()))
        known.status = max(known.status, status, key=STATUSES.index)
        known.errors += [error] if error and error not in known.errors else []
        known.flags.update(flags)
    categories = pc.fill_null(annotations["category"], UNASKED)
    shapes = pa.table({"key": annotations["image_key"], "category": categories, "score": annotations["score"]})
    grouped = shapes.group_by(["key", "category"]).aggregate([("score", "min"), ("category", "count")])
    columns = (grouped[name].to_pylist() for name in ("key", "category", "score_min", "category_count"))
    for key, category, score, count in zip(*columns, strict=True):
        known = facts[key]
        known.shapes += count
        known.categories.add(category)
        if score is not None and (known.lowest_score is None or score < known.lowest_score):
            known.lowest_score = score
        counts.categories[category] += count
        counts.shapes += count
    flagged = annotations.select(["image_key", "flags"]).filter(
        pc.greater(pc.list_value_length(annotations["flags"]), 0)
    )
    for key, flags in zip(flagged["image_key"].to_pylist(), flagged["flags"].to_pylist(), strict=True):
        facts[key].flags.update(flags)
    counts.images += len(facts)
    for known in facts.values():
        counts.statuses[known.status] += 1
        counts.flags.update(known.flags)
    return facts
