"""Worked cases of answers and what they should decode to, compared with what they do: each by token ids and by text. The format is explained in cases/decode.json."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from model.coordinates import BinEdge, bins_to_pixels
from model.decoding import FLAGS, GEOMETRIES, OUTCOMES, STATUSES, Answer, Decoded, TextAnswer, decode, decode_text
from model.prompts import DETECTION, KEYPOINT, KEYPOINT_NAMES, POINTING, Prompt
from model.tokens import Vocabulary

_CHECKPOINT = Path(__file__).parents[1] / "examples" / "shapes" / "checkpoint"
_EMBEDDING_ROWS = 1498
_LOOKS_LIKE_TOKENS = re.compile(r"<\|[a-z_]+\|>|<\d{1,3}>")
_PIXEL_TOLERANCE = 0.01
_SAME_PROMPT = {"referring": DETECTION, "layout": DETECTION, "affordance": POINTING, "spatial_pointing": POINTING}


@cache
def vocabulary() -> Vocabulary:
    """The tiny checkpoint's vocabulary."""
    return Vocabulary.from_tokenizer_file(_CHECKPOINT / "tokenizer.json", embedding_rows=_EMBEDDING_ROWS)


@cache
def _plain_tokenizer() -> Tokenizer:
    """The tiny checkpoint's tokenizer without its added tokens: all it is given is ordinary text."""
    tokenizer = Tokenizer.from_file(str(_CHECKPOINT / "tokenizer.json"))
    plain = Tokenizer(tokenizer.model)
    plain.pre_tokenizer = tokenizer.pre_tokenizer
    return plain


def encode(generated: Sequence[Any]) -> np.ndarray:
    """Token ids of an answer written as a list: an integer is a coordinate, {"text"} ordinary text, {"special"} a special token."""
    ids: list[int] = []
    pieces = {piece: index for index, piece in enumerate(vocabulary().pieces) if piece.startswith(b"<|")}
    for item in generated:
        if isinstance(item, int):
            ids.append(int(vocabulary().bins_to_ids(item)))
        elif "special" in item:
            ids.append(pieces[f"<|{item['special']}|>".encode()])
        else:
            ids += _plain_tokenizer().encode(item["text"]).ids
    return np.array(ids, np.int32)


def written(generated: Sequence[Any]) -> str:
    """The same answer as text."""
    return "".join(
        f"<{item}>" if isinstance(item, int) else f"<|{item['special']}|>" if "special" in item else item["text"]
        for item in generated
    )


def text_looks_like_tokens(generated: Sequence[Any]) -> bool:
    """Whether ordinary text, in one item or across several, reads like a special token or a coordinate: then the answer as text is another one."""
    tokens = sum(isinstance(item, int) or "special" in item for item in generated)
    return len(_LOOKS_LIKE_TOKENS.findall(written(generated))) != tokens


def differences(document: Mapping[str, Any]) -> list[str]:
    """What decodes otherwise than a document of cases says, a line each, beginning with the case's name; empty if all is as it should be."""
    found: list[str] = []
    for case in document["cases"]:
        prompt = _prompt(case)
        size = int(case["width"]), int(case["height"])
        at: BinEdge = case.get("coordinates", "center")
        generated, finish = case["generated"], case.get("finish_reason", "stop")
        by_ids = decode([Answer(encode(generated), None, finish, prompt, *size)], vocabulary(), at=at)
        found += [f"{case['name']} (by ids): {line}" for line in _compare(case, by_ids, at)]
        if not text_looks_like_tokens(generated):
            by_text = decode_text([TextAnswer(written(generated), finish, prompt, *size)], at=at)
            found += [f"{case['name']} (by text): {line}" for line in _compare(case, by_text, at)]
    return found


def _prompt(case: Mapping[str, Any]) -> Prompt:
    """The case's prompt. Which key points are asked for may be given by type or by name; otherwise it follows from the category."""
    names: Sequence[str] = ()
    if case["task"] == KEYPOINT:
        given = case.get("keypoint_names", case.get("keypoints", case.get("keypoint_type")))
        asked = case["asked"][0].strip().casefold() if case["asked"] else "person"
        kind = given if isinstance(given, str) else asked if asked in KEYPOINT_NAMES else "animal"
        names = KEYPOINT_NAMES[kind] if given is None or isinstance(given, str) else given
    return Prompt(0, _SAME_PROMPT.get(case["task"], case["task"]), "", tuple(case["asked"]), tuple(names))


def _compare(case: Mapping[str, Any], decoded: Decoded, at: BinEdge) -> list[str]:
    expect = case["expect"]
    prompt = decoded.prompts[0]
    seen = {
        "outcomes": {phrase: OUTCOMES[outcome] for phrase, outcome in zip(prompt.asked, decoded.outcomes, strict=True)},
        "counts": {phrase: int(count) for phrase, count in zip(prompt.asked, decoded.outcome_counts, strict=True)},
        "flags": _flag_names(int(decoded.flags[0])),
        "dropped": int(decoded.dropped[0]),
        "status": STATUSES[decoded.status[0]],
    }
    lines = [
        f"{key}: {seen.get(key)!r}, should be {value!r}"
        for key, value in expect.items()
        if key != "shapes" and seen.get(key) != value
    ]
    if "shapes" not in expect:
        return lines
    wanted, count = expect["shapes"], len(decoded.shapes.answer)
    if len(wanted) != count:
        lines.append(f"{count} shapes, should be {len(wanted)}")
    for index in range(min(count, len(wanted))):
        lines += [f"shape {index}: {line}" for line in _compare_shape(wanted[index], decoded, index, at)]
    return lines


def _compare_shape(wanted: Mapping[str, Any], decoded: Decoded, index: int, at: BinEdge) -> list[str]:
    shapes, prompt = decoded.shapes, decoded.prompts[0]
    points = shapes.points[shapes.point_offsets[index] : shapes.point_offsets[index + 1]]
    visible = shapes.visible[shapes.visible_offsets[index] : shapes.visible_offsets[index + 1]].tolist()
    geometry = GEOMETRIES[shapes.geometry[index]]
    box = shapes.bbox_xyxy[index]
    asked = int(shapes.asked[index])
    pixels = box if geometry in ("box", "keypoints") else points
    text = decoded.phrases[shapes.phrase[index]]
    said: dict[str, Any] = {
        "phrase": text,
        "text": text if prompt.task.startswith("ocr") else None,
        "category": prompt.asked[asked] if asked >= 0 else None,
        "geometry": geometry,
        "bins": shapes.bins[shapes.bin_offsets[index] : shapes.bin_offsets[index + 1]].tolist(),
        "instance": int(shapes.instance[index]),
        "flags": _flag_names(int(shapes.flags[index])),
        "keypoint_names": list(prompt.keypoint_names),
        "keypoint_visible": visible,
        "visible": visible,
    }
    positions = {
        "pixels": pixels,
        "bbox": box,
        "bbox_xyxy": box,
        "box": box,
        "points": points,
        "point": points,
        "polygon": points,
        "xyxy": box,
    }
    lines = []
    for key, value in wanted.items():
        if key == "keypoints" and isinstance(value, Mapping):
            lines += _compare_keypoints(
                value,
                dict(
                    zip(
                        [name for name, shown in zip(prompt.keypoint_names, visible, strict=True) if shown],
                        points.reshape(-1, 2),
                        strict=True,
                    )
                ),
                decoded,
                at,
            )
        elif key in positions:
            there = np.asarray(value, np.float64).ravel()
            if there.shape != positions[key].shape or not np.allclose(there, positions[key], atol=_PIXEL_TOLERANCE):
                lines.append(f"{key}: {positions[key].tolist()}, should be {value!r}")
        elif key not in said or said[key] != value:
            lines.append(f"{key}: {said.get(key)!r}, should be {value!r}")
    return lines


def _compare_keypoints(
    wanted: Mapping[str, Any], seen: Mapping[str, np.ndarray], decoded: Decoded, at: BinEdge
) -> list[str]:
    """Key points by name: two bins, or something else for one that is not visible."""
    lines = []
    for name, value in wanted.items():
        position = seen.get(name)
        if not isinstance(value, Sequence) or isinstance(value, str):
            lines += (
                [f"key point {name}: visible at {position.tolist()}, should not be"] if position is not None else []
            )
        elif position is None or not np.allclose(
            bins_to_pixels(value, decoded.sizes_px[0], at=at), position, atol=_PIXEL_TOLERANCE
        ):
            lines.append(
                f"key point {name}: {None if position is None else position.tolist()}, should be bins {value!r}"
            )
    return lines


def _flag_names(flags: int) -> list[str]:
    return [name for bit, name in enumerate(FLAGS) if flags >> bit & 1]
