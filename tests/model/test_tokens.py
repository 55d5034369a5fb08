import json
from pathlib import Path

import numpy as np
import pytest

from model.tokens import TEXT, TokenizerError, Vocabulary
from tests.decode_cases import encode, vocabulary

TOKENIZER = Path(__file__).parents[2] / "examples" / "shapes" / "checkpoint" / "tokenizer.json"


def test_bins_and_ids():
    bins = np.arange(1000)
    ids = vocabulary().bins_to_ids(bins)
    assert ids.dtype == np.int32 and len(set(ids.tolist())) == 1000
    assert (vocabulary().ids_to_bins(ids) == bins).all()
    assert vocabulary().ids_to_bins([[0, -1], [5000, 3]]).tolist() == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize("text", ["person", " a dog", 'Café "50%", Ø 12 出口', "<12><34> <|box_start|>", "\n\t"])
def test_text_of_what_was_encoded(text):
    assert vocabulary().text_of(encode([{"text": text}])) == text


def test_text_of_odd_ids():
    assert vocabulary().text_of(encode([{"special": "box_start"}, 12, {"text": "x"}])) == "<|box_start|><12>x"
    assert vocabulary().text_of(encode([{"text": "出"}])[:1]) == "\ufffd"  # a character cut in two
    assert vocabulary().text_of([-1, 10**6]) == ""
    assert vocabulary().classes_of([10**6, -5]).tolist() == [TEXT, TEXT]


def _tokenizer(tmp_path, change):
    document = json.loads(TOKENIZER.read_text())
    change(document)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document))
    return path


def _without(content):
    def change(document):
        next(token for token in document["added_tokens"] if token["content"] == content)["content"] = "<|unused|>"

    return change


def _id_already_taken(document):
    last = next(token for token in document["added_tokens"] if token["content"] == "<999>")
    document["model"]["vocab"]["zzz"] = last["id"]


def _all_one_lower(document):
    document["added_tokens"].pop(0)  # loaded, the others move up


@pytest.mark.parametrize(
    ("change", "rows", "message"),
    [
        (lambda document: None, 1497, "<999> has id 1497.*1497 embedding rows"),
        (_without("<500>"), 1498, "1 of the coordinates.*<500>"),
        (_without("<|box_start|>"), 1498, "no <|box_start|>".replace("|", r"\|")),
        (_id_already_taken, 1498, "<0> has id 499, not 498 as the file says"),
        (_id_already_taken, 1600, "<0> has id 499, not 498 as the file says"),  # spare rows hide it from the row count
        (_all_one_lower, 1498, "<0> has id 497, not 498 as the file says"),
    ],
)
def test_tokenizers_that_cannot_be_used(tmp_path, change, rows, message):
    with pytest.raises(TokenizerError, match=message):
        Vocabulary.from_tokenizer_file(_tokenizer(tmp_path, change), embedding_rows=rows)


def test_a_tokenizer_without_endoftext_can_be_used(tmp_path):
    assert Vocabulary.from_tokenizer_file(_tokenizer(tmp_path, _without("<|endoftext|>")), embedding_rows=1498)
