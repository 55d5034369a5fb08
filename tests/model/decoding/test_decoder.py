import json
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.coordinates import bins_to_pixels
from model.decoding import FLAGS, GEOMETRIES, OUTCOMES, Answer, Flag, TextAnswer, decode, decode_text
from model.prompts import KEYPOINT_NAMES, TASKS, Prompt
from tests.decode_cases import differences, encode, text_looks_like_tokens, vocabulary, written

FINISHES: tuple[Literal["stop", "length"], ...] = ("stop", "length")
CASES = Path(__file__).parents[2] / "cases" / "decode.json"
_ITEM = re.compile(r"<\|(?P<special>[a-z_]+)\|>|<(?P<bin>\d+)>")


def test_worked_cases():
    assert differences(json.loads(CASES.read_text())) == []


def generated(text):
    """An answer written as text, as the list that the worked cases use."""
    items: list[Any] = []
    end = 0
    for match in _ITEM.finditer(text):
        items += [{"text": text[end : match.start()]}] if match.start() > end else []
        items.append(int(match["bin"]) if match["bin"] else {"special": match["special"]})
        end = match.end()
    return items + ([{"text": text[end:]}] if end < len(text) else [])


def group(phrase, content):
    return f"<|object_ref_start|>{phrase}<|object_ref_end|><|box_start|>{content}<|box_end|>"


def tokens(*bins):
    return "".join(f"<{value}>" for value in bins)


def keypoints(name, box, points="", end="}}"):
    values = " ".join(f"<{value}>" for value in box)
    return f'"{name}": {{"bbox": " {values} ", "keypoints": {{{points}{end}'


END = "<|im_end|>"
A, B = tokens(12, 42, 512, 612), tokens(24, 66, 172, 623)
BINS_A, BINS_B = [12, 42, 512, 612], [24, 66, 172, 623]
PERSON = '"nose": " <12> <42> ", "left eye": "unvisible"'
SMALL = [[10 * n, 10 * n, 10 * n + 5, 10 * n + 5] for n in range(1, 6)]

# name, task, asked, finish reason, answer, shapes (phrase, geometry, bins), outcomes, flags, dropped
TABLE: list[tuple[Any, ...]] = [
    ("nothing at all", "detection", ["dog"], "stop", "", [], ["unanswered"], ["empty", "unanswered"], 0),
    ("white space only", "detection", ["dog"], "stop", " \n" + END, [], ["unanswered"], ["empty", "unanswered"], 0),
    ("cut prose", "detection", ["dog"], "length", "There is", [], ["unanswered"], ["malformed", "truncated", "unanswered"], 0),
    ("no end token", "detection", ["dog"], "stop", group("dog", A), [("dog", "box", BINS_A)], ["found"], [], 0),
    ("text around the answer", "detection", ["dog"], "stop", f"Sure: {group('dog', A)} That is all.{END}", [("dog", "box", BINS_A)], ["found"], [], 0),
    ("text after the end", "detection", ["dog"], "stop", f"{group('dog', A)}{END} more{END}", [("dog", "box", BINS_A)], ["found"], [], 0),
    ("padding after the end", "detection", ["dog"], "stop", f"{group('dog', A)}{END}<|endoftext|><|endoftext|>", [("dog", "box", BINS_A)], ["found"], [], 0),
    ("a group after the end", "detection", ["dog"], "stop", END + group("dog", A), [], ["unanswered"], ["malformed", "unanswered"], 1),
    ("boxes outside any list", "detection", ["dog"], "stop", f"{A},{B}{END}", [], ["unanswered"], ["malformed", "unanswered"], 2),
    ("coordinates after a list", "detection", ["dog"], "stop", group("dog", A) + B + END, [("dog", "box", BINS_A)], ["found"], ["malformed"], 1),
    ("a list without a phrase", "detection", ["dog"], "stop", f"<|box_start|>{A}<|box_end|>{END}", [], ["unanswered"], ["malformed", "unanswered"], 1),
    (
        *("a second list for a phrase", "detection", ["dog"], "stop", f"{group('dog', A)}<|box_start|>{B}<|box_end|>{END}"),
        *([("dog", "box", BINS_A), ("dog", "box", BINS_B)], ["found"], ["malformed"], 0),
    ),
    (
        *("a list that never ends", "detection", ["dog", "cat"], "stop", f"{group('dog', A)[:-11]}{group('cat', B)}{END}"),
        *([("dog", "box", BINS_A), ("cat", "box", BINS_B)], ["found", "found"], ["malformed"], 0),
    ),
    ("the last list never ends", "detection", ["dog"], "stop", group("dog", A)[:-11] + END, [("dog", "box", BINS_A)], ["found"], ["malformed"], 0),
    (
        *("a partial box at the end, not cut", "detection", ["dog"], "stop", group("dog", A + ",<1><2><3>")[:-11]),
        *([("dog", "box", BINS_A)], ["found"], ["malformed"], 1),
    ),
    ("a phrase that never ends", "detection", ["dog"], "stop", f"<|object_ref_start|>dog<|box_start|>{A}<|box_end|>", [("dog", "box", BINS_A)], ["found"], ["malformed"], 0),
    ("a phrase begun twice", "detection", ["dog"], "stop", "<|object_ref_start|>cat" + group("dog", A), [("dog", "box", BINS_A)], ["found"], ["malformed"], 0),
    ("a phrase without a list", "detection", ["dog"], "stop", "<|object_ref_start|>dog<|object_ref_end|>" + END, [], ["unanswered"], ["malformed", "unanswered"], 0),
    (
        *("nested groups", "detection", ["dog", "cat"], "stop", group("dog", A + group("cat", B)) + END),
        *([("dog", "box", BINS_A), ("cat", "box", BINS_B)], ["found", "found"], ["malformed"], 0),
    ),
    ("a special token in a list", "detection", ["dog"], "stop", group("dog", f"{A}<|quad_start|>{B}"), [("dog", "box", BINS_A), ("dog", "box", BINS_B)], ["found"], ["malformed"], 0),
    ("a special token in a phrase", "detection", ["dog"], "stop", group("d<|vision_pad|>og", A), [("dog", "box", BINS_A)], ["found"], ["malformed"], 0),
    ("a coordinate in a phrase", "detection", ["dog"], "stop", group("dog<7>", A), [("dog<7>", "box", BINS_A)], ["unanswered"], ["malformed", "unanswered", "unasked"], 0),
    ("words in a list", "detection", ["dog"], "stop", group("dog", f"{A} and {B}"), [("dog", "box", BINS_A), ("dog", "box", BINS_B)], ["found"], ["malformed"], 0),
    ("only words in a list", "detection", ["dog"], "stop", group("dog", "here"), [], ["unanswered"], ["malformed", "unanswered"], 0),
    ("spaces between coordinates", "detection", ["dog"], "stop", group("dog", " <12> <42>  <512> <612> , <24> <66> <172> <623>"), [("dog", "box", BINS_A), ("dog", "box", BINS_B)], ["found"], [], 0),
    ("None beside a box", "detection", ["dog"], "stop", group("dog", f"{A},None"), [("dog", "box", BINS_A)], ["found"], ["malformed"], 0),
    ("None in another group", "detection", ["dog"], "stop", group("dog", A) + ", " + group("dog", "None"), [("dog", "box", BINS_A)], ["found"], [], 0),
    ("None with spaces", "detection", ["dog"], "stop", group("dog", " None "), [], ["absent"], [], 0),
    ("None for what nobody asked", "detection", ["dog"], "stop", group("dog", A) + group("cat", "None"), [("dog", "box", BINS_A)], ["found"], ["unasked"], 0),
    ("cut before the list", "detection", ["dog"], "length", "<|object_ref_start|>dog<|object_ref_end|>", [], ["unanswered"], ["truncated", "unanswered"], 0),
    ("cut at the list's start", "detection", ["dog"], "length", group("dog", "")[:-11], [], ["unanswered"], ["truncated", "unanswered"], 0),
    ("cut inside None", "detection", ["dog"], "length", group("dog", "No")[:-11], [], ["unanswered"], ["truncated", "unanswered"], 0),
    ("cut after None", "detection", ["dog"], "length", group("dog", "None")[:-11], [], ["absent"], ["truncated"], 0),
    ("cut after the comma", "detection", ["dog"], "length", group("dog", A + ",")[:-11], [("dog", "box", BINS_A)], ["found"], ["truncated"], 0),
    ("cut in boxes without commas", "detection", ["dog"], "length", group("dog", A + "<24><66>")[:-11], [("dog", "box", BINS_A)], ["found"], ["truncated"], 1),
    ("cut after the answer", "detection", ["dog"], "length", group("dog", A), [("dog", "box", BINS_A)], ["found"], ["truncated"], 0),
    ("an odd box, then cut", "detection", ["dog"], "length", group("dog", f"<1><2><3>,{A}")[:-11], [("dog", "box", BINS_A)], ["found"], ["malformed", "truncated"], 1),
    ("a point where a box was asked", "detection", ["dog"], "stop", group("dog", "<1><2>"), [("dog", "point", [1, 2])], ["found"], ["geometry"], 0),
    ("a polygon where a box was asked", "detection", ["dog"], "stop", group("dog", "<1><2><3><4><9><2>"), [("dog", "polygon", [1, 2, 3, 4, 9, 2])], ["found"], ["geometry"], 0),
    ("nine coordinates", "detection", ["dog"], "stop", group("dog", A + B + "<1>"), [], ["unanswered"], ["malformed", "unanswered"], 1),
    ("an empty phrase", "detection", ["dog"], "stop", group("", A), [("", "box", BINS_A)], ["unanswered"], ["unanswered", "unasked"], 0),
    ("asked twice", "detection", ["dog", "Dog"], "stop", group("dog", A), [("dog", "box", BINS_A)], ["found", "found"], [], 0),
    ("repeated in other case", "detection", ["dog"], "stop", group("dog", A) + group(" DOG", A), [("dog", "box", BINS_A)], ["found"], ["repeated"], 1),
    ("one box, two phrases", "detection", ["dog", "cat"], "stop", group("dog", A) + group("cat", A), [("dog", "box", BINS_A), ("cat", "box", BINS_A)], ["found", "found"], [], 0),
    ("reversed and repeated", "detection", ["dog"], "stop", group("dog", f"{A},<512><612><12><42>"), [("dog", "box", BINS_A)], ["found"], ["repeated", "reversed"], 1),
    ("no area is no answer", "detection", ["dog"], "stop", group("dog", "<5><5><5><9>"), [], ["unanswered"], ["unanswered", "zero_area"], 1),
    (
        *("one box over five", "detection", ["dog"], "stop", group("dog", ",".join(tokens(*box) for box in [BINS_A, *[[x0 + 50, y0 + 50, x1 + 50, y1 + 50] for x0, y0, x1, y1 in SMALL]]))),
        *([("dog", "box", BINS_A), *(("dog", "box", [value + 50 for value in box]) for box in SMALL)], ["found"], ["large_box"], 0),
    ),
    (
        *("one box over four and a cat", "detection", ["dog", "cat"], "stop"),
        group("dog", ",".join(tokens(*box) for box in [[0, 0, 500, 500], *SMALL[:4]])) + group("cat", tokens(*SMALL[4])),
        *([("dog", "box", [0, 0, 500, 500]), *(("dog", "box", box) for box in SMALL[:4]), ("cat", "box", SMALL[4])], ["found", "found"], [], 0),
    ),
    ("the same point twice", "pointing", ["dog"], "stop", group("dog", "<1><2>,<1><2>"), [("dog", "point", [1, 2])], ["found"], ["repeated"], 1),
    ("one coordinate of a point", "pointing", ["dog"], "stop", group("dog", "<1>,<3><4>"), [("dog", "point", [3, 4])], ["found"], ["malformed"], 1),
    ("points cut", "pointing", ["dog"], "length", group("dog", "<1><2>,<3>")[:-11], [("dog", "point", [1, 2])], ["found"], ["truncated"], 1),
    ("a box for a GUI element", "gui_grounding", ["OK, close"], "stop", group("OK, close", A), [("OK, close", "box", BINS_A)], ["found"], [], 0),
    ("no such GUI element", "gui_pointing", ["OK"], "stop", group("OK", "None"), [], ["absent"], [], 0),
    ("no text", "ocr_box", ["word"], "stop", group("word", "None"), [], ["absent"], [], 0),
    ("text unanswered", "ocr_polygon", ["word"], "stop", END, [], ["unanswered"], ["empty", "unanswered"], 0),
    ("text that reads None", "ocr_box", ["word"], "stop", group("None", A), [("None", "box", BINS_A)], ["found"], [], 0),
    ("the same place, other text", "ocr_box", ["word"], "stop", group("OPEN", A) + group("open", A) + group("OPEN", A), [("OPEN", "box", BINS_A), ("open", "box", BINS_A)], ["found"], ["repeated"], 1),
    ("one line over five", "ocr_box", ["word"], "stop", "".join(group(f"t{box[0]}", tokens(*box)) for box in [[0, 0, 500, 500], *SMALL]), [(f"t{box[0]}", "box", box) for box in [[0, 0, 500, 500], *SMALL]], ["found"], ["large_box"], 0),
    ("an odd polygon", "ocr_polygon", ["word"], "stop", group("a", "<1><2><3><4><9>"), [], ["unanswered"], ["malformed", "unanswered"], 1),
    ("a box where a polygon was asked", "ocr_polygon", ["word"], "stop", group("a", A), [("a", "box", BINS_A)], ["found"], ["geometry"], 0),
    ("a polygon on a line", "ocr_polygon", ["word"], "stop", group("a", "<1><1><5><5><9><9>"), [], ["unanswered"], ["unanswered", "zero_area"], 1),
    ("a polygon cut may be a part", "ocr_polygon", ["word"], "length", group("a", "<1><2><3><4><9><2>")[:-11], [], ["unanswered"], ["truncated", "unanswered"], 1),
    ("the same polygon twice", "ocr_polygon", ["word"], "stop", group("a", "<1><2><3><4><9><2>,<1><2><3><4><9><2>"), [("a", "polygon", [1, 2, 3, 4, 9, 2])], ["found"], ["repeated"], 1),
    ("another polygon of equal bounds", "ocr_polygon", ["word"], "stop", group("a", "<1><2><9><4><9><2>,<1><2><1><4><9><4>"), [("a", "polygon", [1, 2, 9, 4, 9, 2]), ("a", "polygon", [1, 2, 1, 4, 9, 4])], ["found"], [], 0),
    ("two objects shown", "visual_prompting", ["object_1", "object_2"], "stop", group("object_1", A) + group("object_2", "None"), [("object_1", "box", BINS_A)], ["found", "absent"], [], 0),
    ("no fence", "keypoint", ["person"], "stop", "{" + keypoints("person1", BINS_A, PERSON) + "}", [("person", "keypoints", BINS_A)], ["found"], [], 0),
    ("prose about key points", "keypoint", ["person"], "stop", "No person here.", [], ["unanswered"], ["malformed", "unanswered"], 0),
    ("key points: None", "keypoint", ["person"], "stop", "```json\nNone\n```" + END, [], ["absent"], [], 0),
    ("key points: null", "keypoint", ["person"], "stop", '{"person": null}', [], ["absent"], [], 0),
    ("key points: nothing in JSON", "keypoint", ["person"], "stop", "```json\n{}\n```", [], ["unanswered"], ["malformed", "unanswered"], 0),
    ("key points: empty", "keypoint", ["person"], "stop", END, [], ["unanswered"], ["empty", "unanswered"], 0),
    (
        *("one broken instance of three", "keypoint", ["person"], "stop"),
        "{" + keypoints("person1", BINS_A) + ", " + keypoints("person2", BINS_A, '"nose": " <1> <2> , ') + ", " + keypoints("person3", BINS_B) + "}",
        *([("person", "keypoints", BINS_A), ("person", "keypoints", BINS_B)], ["found"], ["malformed"], 1),
    ),
    ("the last brace missing", "keypoint", ["person"], "stop", "{" + keypoints("person1", BINS_A), [("person", "keypoints", BINS_A)], ["found"], ["malformed"], 0),
    ("an instance that never ends", "keypoint", ["person"], "stop", "{" + keypoints("person1", BINS_A, PERSON, ""), [], ["unanswered"], ["malformed", "unanswered"], 1),
    ("cut in the first instance", "keypoint", ["person"], "length", "{" + keypoints("person1", BINS_A, PERSON, ""), [], ["unanswered"], ["truncated", "unanswered"], 1),
    ("cut between instances", "keypoint", ["person"], "length", "{" + keypoints("person1", BINS_A, PERSON) + ', "per', [("person", "keypoints", BINS_A)], ["found"], ["truncated"], 0),
    ("no bbox", "keypoint", ["person"], "stop", '{"person1": {"keypoints": {"nose": " <1> <2> "}}}', [], ["unanswered"], ["malformed", "unanswered"], 1),
    ("three numbers in a bbox", "keypoint", ["person"], "stop", "{" + keypoints("person1", [1, 2, 3]) + "}", [], ["unanswered"], ["malformed", "unanswered"], 1),
    ("no keypoints", "keypoint", ["person"], "stop", '{"person1": {"bbox": " <12><42><512><612> "}}', [("person", "box", BINS_A)], ["found"], ["geometry"], 0),
    ("half a key point", "keypoint", ["person"], "stop", "{" + keypoints("person1", BINS_A, '"nose": " <1> "') + "}", [("person", "keypoints", BINS_A)], ["found"], ["malformed"], 0),
    ("a key point nobody asked", "keypoint", ["person"], "stop", "{" + keypoints("person1", BINS_A, '"tail": " <1> <2> "') + "}", [("person", "keypoints", BINS_A)], ["found"], ["unasked"], 0),
    ("another animal", "keypoint", ["cat"], "stop", "{" + keypoints("dog1", BINS_A) + "}", [("dog", "keypoints", BINS_A)], ["unanswered"], ["unanswered", "unasked"], 0),
    ("a name that ends in a number", "keypoint", ["Player 1"], "stop", "{" + keypoints("player 1", BINS_A) + "}", [("player 1", "keypoints", BINS_A)], ["found"], [], 0),
    ("the same instance twice", "keypoint", ["person"], "stop", "{" + keypoints("person1", BINS_A, PERSON) + "," + keypoints("person2", BINS_A, PERSON) + "}", [("person", "keypoints", BINS_A)], ["found"], ["repeated"], 1),
    ("the same box, another pose", "keypoint", ["person"], "stop", "{" + keypoints("person1", BINS_A, PERSON) + "," + keypoints("person2", BINS_A) + "}", [("person", "keypoints", BINS_A)] * 2, ["found"], [], 0),
    ("an instance without area", "keypoint", ["person"], "stop", "{" + keypoints("person1", [1, 2, 1, 9], PERSON) + "}", [], ["unanswered"], ["unanswered", "zero_area"], 1),
    ("an instance turned", "keypoint", ["person"], "stop", "{" + keypoints("person1", [512, 42, 12, 612], PERSON) + "}", [("person", "keypoints", BINS_A)], ["found"], ["reversed"], 0),
    ("a list of instances", "keypoint", ["person"], "stop", '[{"bbox": "<12><42><512><612>", "keypoints": {}}]', [("person", "keypoints", BINS_A)], ["found"], [], 0),
    ("coordinates without an instance", "keypoint", ["person"], "stop", A, [], ["unanswered"], ["malformed", "unanswered"], 1),
    ("an escape that looks like a coordinate", "keypoint", ["person"], "stop", "{" + keypoints("person1", BINS_A, '"nose": "\\udcff"') + "}", [], ["unanswered"], ["malformed", "unanswered"], 1),
    ("groups where JSON was asked", "keypoint", ["person"], "stop", group("person", A), [("person", "box", BINS_A)], ["found"], ["geometry"], 0),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_odd_answers(row):
    name, task, asked, finish, answer, shapes, outcomes, flags, dropped = row
    case = {
        "name": name,
        "task": task,
        "asked": asked,
        "finish_reason": finish,
        "width": 640,
        "height": 480,
        "generated": generated(answer),
        "expect": {
            "shapes": [{"phrase": phrase, "geometry": geometry, "bins": bins} for phrase, geometry, bins in shapes],
            "outcomes": dict(zip(asked, outcomes, strict=True)),
            "flags": flags,
            "dropped": dropped,
        },
    }
    assert differences({"cases": [case]}) == []


def prompt(task="detection", asked=("dog",)):
    return Prompt(0, task, "", tuple(asked), KEYPOINT_NAMES["person"] if task == "keypoint" else ())


def ask(text, finish="stop", of=None, logprobs=None, **options):
    ids = encode(generated(text))
    return decode([Answer(ids, logprobs, finish, of or prompt(), 640, 480)], vocabulary(), **options)


def test_pixels_of_each_geometry():
    box = ask(group("dog", A)).shapes
    np.testing.assert_allclose(box.bbox_xyxy[0].reshape(2, 2), bins_to_pixels([[12, 42], [512, 612]], (640, 480)))
    assert box.points.size == 0
    edge = ask(group("dog", A), at="edge").shapes
    np.testing.assert_allclose(
        edge.bbox_xyxy[0], [12 / 999 * 640, 42 / 999 * 480, 512 / 999 * 640, 612 / 999 * 480], rtol=1e-6
    )
    point = ask(group("dog", "<5><6>"), of=prompt("pointing")).shapes
    np.testing.assert_allclose(point.points, bins_to_pixels([5, 6], (640, 480)))
    np.testing.assert_allclose(point.bbox_xyxy[0], [*point.points, *point.points])
    polygon = ask(group("a", "<10><40><30><10><20><60>"), of=prompt("ocr_polygon", ["word"])).shapes
    np.testing.assert_allclose(
        polygon.points.reshape(-1, 2), bins_to_pixels([[10, 40], [30, 10], [20, 60]], (640, 480))
    )
    np.testing.assert_allclose(polygon.bbox_xyxy[0].reshape(2, 2), bins_to_pixels([[10, 10], [30, 60]], (640, 480)))


def test_keypoints_have_the_asked_order():
    second = keypoints("person2", BINS_B)
    answer = (
        "{"
        + keypoints("person1", BINS_A, '"right eye": " <7> <8> ", "left eye": "unvisible", "Nose": " <5> <6> "')
        + ","
        + second
        + "}"
    )
    shapes = ask(answer, of=prompt("keypoint", ["person"])).shapes
    visible = shapes.visible.reshape(2, 17)
    assert np.flatnonzero(visible[0]).tolist() == [0, 2] and not visible[1].any()
    np.testing.assert_allclose(shapes.points.reshape(-1, 2), bins_to_pixels([[5, 6], [7, 8]], (640, 480)))
    assert shapes.point_offsets.tolist() == [0, 4, 4]
    assert [GEOMETRIES[geometry] for geometry in shapes.geometry] == ["keypoints", "keypoints"]


def test_scores_are_of_coordinates_only():
    text = group("dog", f"{A},{B}")
    ids = encode(generated(text))
    logprobs = np.full(len(ids), -9, np.float32)
    logprobs[np.flatnonzero(vocabulary().ids_to_bins(ids) >= 0)] = [-0.1, -0.2, -0.3, -0.4, -1, -1, -1, -1]
    np.testing.assert_allclose(ask(text, logprobs=logprobs).shapes.score, np.exp([-0.25, -1]), rtol=1e-6)
    assert np.isnan(ask(text).shapes.score).all()


def test_log_probabilities_must_fit():
    with pytest.raises(ValueError, match="answer 0 has 10 tokens and 3 log probabilities"):
        ask("<1>" * 10, logprobs=np.zeros(3, np.float32))


def test_shapes_carry_their_own_flags():
    decoded = ask(group("dog", f"<512><42><12><612>,{B},{B}") + group("cat", "<1><2>"))
    assert [int(flags) for flags in decoded.shapes.flags] == [
        Flag.REVERSED,
        Flag.REPEATED,
        Flag.UNASKED | Flag.GEOMETRY,
    ]
    assert decoded.flags[0] == Flag.REVERSED | Flag.REPEATED | Flag.UNASKED | Flag.GEOMETRY


def test_synonyms_answer_the_asked_phrase():
    decoded = ask(group("Hound", A), synonyms={"hound": "dog"})
    assert decoded.shapes.asked.tolist() == [0] and decoded.flags[0] == 0
    assert OUTCOMES[decoded.outcomes[0]] == "found" and decoded.phrases[decoded.shapes.phrase[0]] == "Hound"


def test_answers_of_all_tasks_in_one_call_equal_each_alone():
    answers = [
        Answer(
            encode(generated(row[4])),
            None,
            row[3],
            Prompt(0, row[1], "", tuple(row[2]), KEYPOINT_NAMES["person"] if row[1] == "keypoint" else ()),
            640,
            480,
        )
        for row in TABLE
    ]
    together = decode(answers, vocabulary())
    for index, answer in enumerate(answers):
        alone = decode([answer], vocabulary())
        mine = together.shapes.answer == index
        assert together.shapes.instance[mine].tolist() == alone.shapes.instance.tolist()
        assert together.shapes.bbox_xyxy[mine].tolist() == alone.shapes.bbox_xyxy.tolist()
        assert [together.phrases[code] for code in together.shapes.phrase[mine]] == [
            alone.phrases[code] for code in alone.shapes.phrase
        ]
        assert (together.shapes.flags[mine] == alone.shapes.flags).all()
        assert (
            together.flags[index] == alone.flags[0]
            and together.dropped[index] == alone.dropped[0]
            and together.status[index] == alone.status[0]
        )
        offsets = together.outcome_offsets
        assert together.outcomes[offsets[index] : offsets[index + 1]].tolist() == alone.outcomes.tolist()


def test_no_answers():
    decoded = decode([], vocabulary())
    assert len(decoded.shapes.answer) == len(decoded.flags) == 0


@pytest.mark.parametrize(
    ("items", "looks"),
    [
        ([{"text": "<12> <|box_start|>"}], True),
        ([{"text": "<1"}, {"text": "2>"}], True),
        ([{"text": "<|box"}, {"text": "_end|>"}, 7], True),
        ([{"special": "box_start"}, 12, {"text": " <b> "}, {"text": "<"}, 34, {"special": "box_end"}], False),
    ],
)
def test_text_that_looks_like_tokens_is_noticed_across_items(items, looks):
    assert text_looks_like_tokens(items) == looks


def test_text_that_looks_like_tokens_deceives_the_text_decoder_only():
    items = [{"special": "object_ref_start"}, {"text": "<1><2><3><4>"}, *generated(group("", A))[1:]]
    of = prompt("ocr_box", ["word"])
    by_ids = decode([Answer(encode(items), None, "stop", of, 640, 480)], vocabulary())
    assert by_ids.phrases[by_ids.shapes.phrase[0]] == "<1><2><3><4>" and by_ids.flags[0] == 0
    by_text = decode_text([TextAnswer(written(items), "stop", of, 640, 480)])
    assert by_text.flags[0] == Flag.MALFORMED and by_text.token_ids == ()


_WORDS = [
    {"text": text}
    for text in (
        "dog",
        "None",
        ",",
        " ",
        '{"person1": {"bbox": "',
        '", "keypoints": {"nose": "',
        '"}}',
        "```",
        '"',
        "\\",
        "[",
    )
]
_MARKS = [
    {"special": name}
    for name in ("object_ref_start", "object_ref_end", "box_start", "box_end", "im_end", "endoftext", "quad_start")
]
_any_ids = st.lists(st.integers(-3, 1600), max_size=80)
_items = st.lists(st.one_of(st.integers(0, 999), st.integers(0, 3), st.sampled_from(_WORDS + _MARKS)), max_size=60)
_likely = _items.map(lambda items: encode(items).tolist())


@given(
    st.lists(
        st.tuples(st.one_of(_any_ids, _likely), st.sampled_from(TASKS), st.sampled_from(["stop", "length"])), max_size=6
    )
)
@settings(max_examples=300, deadline=None)
def test_any_ids_decode(drawn):
    answers = [
        Answer(np.array(ids, np.int32), np.full(len(ids), -0.5, np.float32), finish, prompt(task), 640, 480)
        for ids, task, finish in drawn
    ]
    decoded = decode(answers, vocabulary())
    shapes = decoded.shapes
    assert len(decoded.flags) == len(answers)
    assert ((shapes.bins >= 0) & (shapes.bins <= 999)).all()
    assert (shapes.bbox_xyxy[:, :2] <= shapes.bbox_xyxy[:, 2:]).all()
    assert (shapes.score > 0).all() and (shapes.score <= 1).all()
    assert (
        len(shapes.bins) == shapes.bin_offsets[-1]
        and len(shapes.points) == shapes.point_offsets[-1]
        and len(shapes.visible) == shapes.visible_offsets[-1]
    )
    # Nothing is left out without a flag that says why.
    for index, (ids, _, finish) in enumerate(drawn):
        assert bool(decoded.flags[index] & Flag.TRUNCATED) == (finish == "length")
        if decoded.dropped[index]:
            assert decoded.flags[index] & (Flag.MALFORMED | Flag.TRUNCATED | Flag.REPEATED | Flag.ZERO_AREA)
        if not len(ids):
            assert decoded.flags[index] & Flag.EMPTY
    decode_text([TextAnswer(vocabulary().text_of(ids), finish, prompt(task), 640, 480) for ids, task, finish in drawn])


@given(_items, st.sampled_from(TASKS), st.sampled_from(["stop", "length"]))
@settings(max_examples=200, deadline=None)
def test_ids_and_text_decode_to_the_same(items, task, finish):
    by_ids = decode([Answer(encode(items), None, finish, prompt(task), 640, 480)], vocabulary())
    by_text = decode_text([TextAnswer(written(items), finish, prompt(task), 640, 480)])
    for column in ("bins", "geometry", "bbox_xyxy", "points", "asked", "flags"):
        assert getattr(by_ids.shapes, column).tolist() == getattr(by_text.shapes, column).tolist()
    for column in ("flags", "dropped", "outcomes"):
        assert getattr(by_ids, column).tolist() == getattr(by_text, column).tolist()
    said = [[decoded.phrases[code] for code in decoded.shapes.phrase] for decoded in (by_ids, by_text)]
    assert said[0] == said[1]


_LONG: dict[str, list[Any]] = {
    "marks": [{"special": "object_ref_start"}, {"special": "box_start"}],
    "boxes in one list": [1, 2, 3, 4],
    "spaces": [{"text": " "}],
    "lists of one phrase": [{"special": "box_start"}, 1, 2, 3, 4],
    "open braces": [{"text": '{"a":'}],
    "open brackets": [{"text": "["}],
    "quotes": [{"text": '"'}],
    "escapes": [{"text": '\\"'}],
    "instances begun": [{"text": '"a": {"bbox": "'}, 1, 2],
    "digits": [{"text": "1"}],
}


@pytest.mark.parametrize("name", _LONG)
@pytest.mark.parametrize("task", ["detection", "ocr_polygon", "keypoint"])
def test_a_hundred_thousand_tokens_decode(name, task):
    # Anything quadratic would take minutes or gigabytes here.
    beginning = {"keypoint": '{"person1": {"bbox": "'}.get(
        task, "<|object_ref_start|>" + "x" * 20_000 + "<|object_ref_end|><|box_start|>"
    )
    block = encode(_LONG[name])
    ids = np.concatenate(
        [encode(generated(beginning)), np.tile(block, 100_000 // len(block)), encode([{"text": '"}}'}])]
    )
    decoded = decode(
        [Answer(ids.astype(np.int32), None, finish, prompt(task), 640, 480) for finish in FINISHES],
        vocabulary(),
    )
    assert (decoded.flags != 0).all()


_box = st.tuples(st.integers(0, 998), st.integers(0, 998)).flatmap(
    lambda corner: st.tuples(
        st.just(corner[0]), st.just(corner[1]), st.integers(corner[0] + 1, 999), st.integers(corner[1] + 1, 999)
    )
)


@given(st.lists(st.lists(_box, min_size=1, max_size=8, unique=True), min_size=1, max_size=4))
def test_encoded_boxes_decode_to_the_same_bins(groups):
    asked = [f"thing {'abcd'[number]}" for number in range(len(groups))]
    text = (
        ", ".join(
            group(phrase, ",".join(tokens(*box) for box in boxes)) for phrase, boxes in zip(asked, groups, strict=True)
        )
        + END
    )
    expected = [value for boxes in groups for box in boxes for value in box]
    for decoded in (
        ask(text, of=prompt(asked=asked)),
        decode_text([TextAnswer(text, "stop", prompt(asked=asked), 640, 480)]),
    ):
        assert decoded.shapes.bins.tolist() == expected
        assert decoded.shapes.asked.tolist() == [number for number, boxes in enumerate(groups) for _ in boxes]
        assert decoded.dropped[0] == 0 and not decoded.flags[0] & ~Flag.LARGE_BOX


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1, max_size=12, unique=True))
def test_encoded_points_decode_to_the_same_bins(points):
    text = group("dog", ",".join(tokens(*point) for point in points)) + END
    assert ask(text, of=prompt("pointing")).shapes.bins.reshape(-1, 2).tolist() == [list(point) for point in points]


def test_flags_are_sorted_by_name():
    assert list(FLAGS) == sorted(FLAGS) and [1 << bit for bit in range(len(FLAGS))] == [int(flag) for flag in Flag]
