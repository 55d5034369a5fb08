"""What a labelled dataset says, and whether two say the same: the same images, versions and prompts, each once; equal status, phrase, category and bins; scores within 1e-3."""

from dataclasses import dataclass
from typing import Any

from sinks.dataset.ledger import Ledger
from sinks.dataset.reading import current_view

SCORE_TOLERANCE = 1e-3

Key = tuple[str, str, int]  # image key, version, prompt


@dataclass(frozen=True)
class Answer:
    """An image's row and its shapes, without what may differ between two honest runs (seconds, attempt, worker, run, shard)."""

    status: str
    error: str | None
    outcomes: tuple[tuple[str, str, int], ...]
    flags: tuple[str, ...]
    token_ids: tuple[int, ...] | None
    shapes: tuple[tuple[Any, ...], ...]
    scores: tuple[float, ...]


def answers(output: str, *, strip: str = "", credentials: str | None = None) -> dict[Key, Answer]:
    """Every image row of the current view with its annotations. strip: a leading part of the keys to leave out, so that archives in two places can be compared.

    Fails where an image, version and prompt has two rows or an annotation has no image row.
    """
    found: dict[Key, Answer] = {}
    for images, annotations in current_view(Ledger.open(output, credentials)).batches():
        shapes: dict[Key, list[dict[str, Any]]] = {}
        for row in annotations.to_pylist():
            shapes.setdefault(_key(row, strip), []).append(row)
        for row in images.to_pylist():
            key = _key(row, strip)
            assert key not in found, f"two rows for {key}"
            own = sorted(shapes.pop(key, []), key=lambda shape: shape["instance"])
            found[key] = Answer(
                status=row["status"],
                error=row["error"],
                outcomes=tuple((o["category"], o["outcome"], o["count"]) for o in row["outcomes"]),
                flags=tuple(row["flags"]),
                token_ids=None if row["token_ids"] is None else tuple(row["token_ids"]),
                shapes=tuple((s["phrase"], s["category"], s["geometry"], tuple(s["bins"])) for s in own),
                scores=tuple(s["score"] for s in own),
            )
        assert not shapes, f"annotations without an image row: {list(shapes)[:3]}"
    return found


def _key(row: dict[str, Any], strip: str) -> Key:
    return row["image_key"].removeprefix(strip), row["etag"], row["prompt_index"]


def assert_equal(left: dict[Key, Answer], right: dict[Key, Answer], *, versions: bool = True) -> None:
    """versions False: the same pictures stored in two places, whose etags differ."""
    if not versions:
        left, right = ({(key[0], "", key[2]): value for key, value in side.items()} for side in (left, right))
    assert left.keys() == right.keys()
    for key, one in left.items():
        other = right[key]
        assert (one.status, one.outcomes, one.flags, one.shapes) == (
            other.status,
            other.outcomes,
            other.flags,
            other.shapes,
        ), key
        assert len(one.scores) == len(other.scores)
        assert all(abs(a - b) <= SCORE_TOLERANCE for a, b in zip(one.scores, other.scores, strict=True)), key
