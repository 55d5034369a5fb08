"""Answers in JSON, {"person1": {"bbox": " <1> <36> <987> <984> ", "keypoints": {"nose": " <540> <351> ", "right eye": "unvisible"}}}, read to claims.

An instance is an object that follows its name, or holds a "bbox". Each is parsed alone, so that a broken one costs itself only: the text is cut where instances
begin. A key point without two coordinates is not visible; an instance without four in its bbox is no shape. Which coordinate belongs where is known from their
order, as the text shows each as the same character, one that no decoded text can hold.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.decoding.claims import IS_BOX, IS_KEYPOINTS, NOT_VISIBLE, Claims, Flag, Phrases, offsets_of
from model.decoding.lexing import Stream
from model.decoding.scoring import geometric_mean_probability
from model.prompts import Prompt
from model.taxonomy import normalised
from model.tokens import COORDINATE, END, Vocabulary

_COORDINATE = "\udcff"  # the byte FF, which is in no UTF-8, as "surrogateescape" decodes it
_HEAD = re.compile(r'"(?P<name>(?!(?:bbox|keypoints)")[^"\\{}]*)"\s*:\s*\{|\{(?=\s*"bbox"\s*:)')


class _Object(tuple[tuple[str, Any], ...]):
    """A JSON object as its pairs, in order, repeated keys included."""

    __slots__ = ()


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, strict=False)


@dataclass(slots=True)
class _Instance:
    """An instance as found: first and count of its coordinates among the answer's, indices of its box's four, of each asked key point's two or None."""

    phrase: str
    first: int
    count: int
    box: list[int]
    points: list[list[int] | None] | None
    unasked: bool


@dataclass(slots=True)
class _Reading:
    """What one answer's JSON says."""

    instances: list[_Instance] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    dropped: int = 0
    malformed: bool = False
    empty: bool = False


def read_keypoints(stream: Stream, prompts: Sequence[Prompt], phrases: Phrases) -> Claims:
    """The claims of a stream of JSON answers. prompts: one an answer. Adds to phrases. No sequence of ids raises."""
    pieces = _pieces(stream.vocabulary)
    ordinals = np.searchsorted(stream.coordinate_at, stream.starts)
    statements: list[tuple[int, int, bool]] = []
    shapes: list[
        tuple[int, int, int, int, int]
    ] = []  # statement, geometry, first coordinate, number of coordinates, flags
    boxes: list[int] = []
    points: list[int] = []
    flags = np.zeros(len(prompts), np.uint16)
    dropped = np.zeros(len(prompts), np.int64)
    for answer, prompt in enumerate(prompts):
        reading = _read(_text_of(stream, answer, pieces), prompt, bool(stream.cut[answer]))
        flags[answer] = (Flag.MALFORMED if reading.malformed else 0) | (Flag.EMPTY if reading.empty else 0)
        dropped[answer] = reading.dropped
        statements += [(answer, phrases.code_of(phrase), True) for phrase in reading.absent]
        first = int(ordinals[answer])
        for instance in reading.instances:
            geometry = IS_BOX if instance.points is None else IS_KEYPOINTS
            flag = (Flag.GEOMETRY if instance.points is None else 0) | (Flag.UNASKED if instance.unasked else 0)
            shapes.append((len(statements), geometry, first + instance.first, instance.count, flag))
            statements.append((answer, phrases.code_of(instance.phrase), False))
            boxes += [first + index for index in instance.box]
            for pair in instance.points or ():
                points += [-1, -1] if pair is None else [first + index for index in pair]
    said = np.array(statements, np.int64).reshape(-1, 3)
    shape = np.array(shapes, np.int64).reshape(-1, 5)
    bins = np.append(stream.coordinate_bins, np.int16(NOT_VISIBLE))  # index -1
    names = np.array([len(prompts[answer].keypoint_names) for answer in said[shape[:, 0], 0]], np.int64)
    return Claims(
        statement_answer=said[:, 0],
        statement_phrase=said[:, 1],
        statement_none=said[:, 2].astype(np.bool_),
        statement=shape[:, 0],
        geometry=shape[:, 1].astype(np.uint8),
        bins=bins[np.array(boxes, np.int64)],
        offsets=np.arange(len(shape) + 1, dtype=np.int64) * 4,
        score=(
            np.full(len(shape), np.nan, np.float32)
            if stream.coordinate_logprobs is None
            else geometric_mean_probability(stream.coordinate_logprobs, shape[:, 2], shape[:, 3])
        ),
        flags=shape[:, 4].astype(np.uint16),
        keypoint_bins=bins[np.array(points, np.int64)].reshape(-1, 2),
        keypoint_offsets=offsets_of(np.where(shape[:, 1] == IS_KEYPOINTS, names, 0)),
        answer_flags=flags,
        dropped=dropped,
    )


def _pieces(vocabulary: Vocabulary) -> list[bytes]:
    """Each id's bytes in the text to parse: FF for a coordinate and nowhere else."""
    lookalike = b"\xff"
    pieces = [piece.replace(lookalike, b"?") if lookalike in piece else piece for piece in vocabulary.pieces]
    for index in vocabulary.coordinate_ids.tolist():
        pieces[index] = lookalike
    return [*pieces, b""]  # the unknown id


def _text_of(stream: Stream, answer: int, pieces: list[bytes]) -> str:
    ids = stream.answer(answer)
    classes = stream.classes[stream.starts[answer] + 1 : stream.starts[answer + 1]]
    ends = np.flatnonzero(classes == END)
    raw = b"".join([pieces[index] for index in (ids[: ends[0]] if len(ends) else ids).tolist()])
    # What follows the end is no text, but its coordinates are counted.
    after = int(np.count_nonzero(classes[ends[0] :] == COORDINATE)) if len(ends) else 0
    text = raw.decode("utf-8", "surrogateescape")
    return text + "\n" + _COORDINATE * after if after else text


def _read(text: str, prompt: Prompt, cut: bool) -> _Reading:
    reading = _Reading()
    body = text.strip().removeprefix("```").removeprefix("json").removesuffix("```").strip()
    if not body:
        reading.empty = True
        return reading
    if body.casefold() == "none":
        reading.absent += prompt.asked
        return reading
    document = _document(body)
    if isinstance(document, _Object):
        reading.absent += [_phrase(name, prompt) for name, value in document if _is_none(value)]
    heads = list(_HEAD.finditer(text))
    seen = text.count(_COORDINATE, 0, heads[0].start() if heads else len(text))
    if seen:
        _drop(reading, forgiven=cut and not heads)
    for number, head in enumerate(heads, start=1):
        last = number == len(heads)
        end = len(text) if last else heads[number].start()
        first = seen + text.count(_COORDINATE, head.start(), head.end())
        seen = first + text.count(_COORDINATE, head.end(), end)
        _read_instance(reading, text[head.end() - 1 : end], head["name"], first, prompt, forgiven=cut and last)
    said_nothing = not (reading.instances or reading.absent or reading.dropped)
    if cut:
        reading.malformed |= said_nothing and "{" not in text
    else:
        reading.malformed |= document is None or said_nothing
    return reading


def _read_instance(
    reading: _Reading, text: str, name: str | None, first: int, prompt: Prompt, *, forgiven: bool
) -> None:
    """Reads the instance with which the text begins. first: its first coordinate's index; forgiven: the answer was cut in this text, so that being partial is no fault."""
    try:
        value, stop = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        if _COORDINATE in text:  # otherwise an object around instances, or one of which nothing was said yet
            _drop(reading, forgiven=forgiven)
        return
    phrase = _phrase(name, prompt)
    count = text.count(_COORDINATE, 0, stop)
    if any(_is_none(box) for key, box in value if key == "bbox"):
        reading.absent.append(phrase)
    else:
        instance = _instance(reading, value, phrase, first, count, prompt)
        if instance is None:
            _drop(reading, forgiven=False)
        else:
            reading.instances.append(instance)
    if text.find(_COORDINATE, stop) >= 0:
        _drop(reading, forgiven=forgiven)


def _instance(
    reading: _Reading, value: _Object, phrase: str, first: int, count: int, prompt: Prompt
) -> _Instance | None:
    """The instance that an object describes; None if its box does not have four coordinates."""
    slots = {_key(name): slot for slot, name in enumerate(prompt.keypoint_names)}
    found = _Instance(phrase, first, count, [], None, False)
    index = first
    for key, said in value:
        index += key.count(_COORDINATE)
        if key == "bbox" and not found.box:
            found.box = list(range(index, index + _coordinates_in(said)))
        elif key == "keypoints" and found.points is None and (said is None or isinstance(said, _Object)):
            found.points = [None] * len(slots)
            inner = index
            for name, position in said or ():
                inner += name.count(_COORDINATE)
                here = _coordinates_in(position)
                slot = slots.get(_key(name))
                if here == 2 and slot is not None and found.points[slot] is None:
                    found.points[slot] = [inner, inner + 1]
                elif here == 2:
                    found.unasked = True
                reading.malformed |= here not in (0, 2)
                inner += here
        index += _coordinates_in(said)
    # Escapes (\udcff) can write the character that stands for a coordinate: then the order tells nothing.
    return found if len(found.box) == 4 and index == first + count else None


def _drop(reading: _Reading, *, forgiven: bool) -> None:
    reading.dropped += 1
    reading.malformed |= not forgiven


def _document(body: str) -> Any:
    """The JSON between the first opening and the last closing bracket; None if it does not parse."""
    opening = min((place for place in (body.find("{"), body.find("[")) if place >= 0), default=len(body))
    closing = max(body.rfind("}"), body.rfind("]"))
    try:
        return _DECODER.decode(body[opening : closing + 1])
    except (ValueError, RecursionError):
        return None


def _phrase(name: str | None, prompt: Prompt) -> str:
    """What an instance is: its name without the number, unless it was asked for so; of a nameless one what was asked for."""
    name = (name or "").replace(_COORDINATE, "").strip()
    if normalised(name) not in {normalised(asked) for asked in prompt.asked}:
        name = name.rstrip("0123456789").rstrip(" _#-")
    return name or next(iter(prompt.asked), "")


def _is_none(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().casefold() == "none")


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def _coordinates_in(value: Any) -> int:
    """How many coordinates a JSON value holds, at any depth, names included. Not recursive: an answer may nest as deep as the parser allows."""
    total, waiting = 0, [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, str):
            total += here.count(_COORDINATE)
        elif isinstance(here, list | tuple):
            waiting.extend(here)
    return total
