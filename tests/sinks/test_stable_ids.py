"""Ids: range, stability, collisions."""

from pathlib import Path

import numpy as np
import pytest

from sinks.coco.stable_ids import ID_BITS, IdSurvey, StableIds, hash_ids

TEXTS = [f"s3://archive/{number:04d}.jpg" for number in range(200)]


def ids_of(folder: Path, texts: list[str], bits: int, *, step: int = 7) -> list[int]:
    survey = IdSurvey(folder, bits)
    for start in range(0, len(texts), step):
        survey.add(texts[start : start + step])
    stable = StableIds(survey)
    return [int(i) for start in range(0, len(texts), step) for i in stable.assign(texts[start : start + step])]


def test_ids_are_known_positive_and_exact_in_doubles(tmp_path: Path) -> None:
    ids = ids_of(tmp_path, TEXTS, ID_BITS)
    assert ids == hash_ids(TEXTS).tolist()
    assert hash_ids(["s3://archive/0000.jpg"]).tolist() == [
        310596643549899
    ]  # files in the world hold ids: never change the hash
    assert all(0 < i < 2**53 for i in ids)


@pytest.mark.parametrize("bits", [8, 9, 12])
def test_collisions_end_unique_and_the_first_in_order_keeps_its_id(tmp_path: Path, bits: int) -> None:
    ids = ids_of(tmp_path, TEXTS, bits)
    hashed = hash_ids(TEXTS, bits).tolist()
    assert len(set(hashed)) < len(TEXTS) == len(set(ids))
    assert all(0 < i <= 2**bits for i in ids)
    for position, wanted in enumerate(hashed):
        if hashed.index(wanted) == position:
            assert ids[position] == wanted


def test_batching_does_not_change_ids(tmp_path: Path) -> None:
    assert ids_of(tmp_path / "a", TEXTS, 9, step=1) == ids_of(tmp_path / "b", TEXTS, 9, step=200)


def test_every_id_can_be_used_and_one_more_is_an_error(tmp_path: Path) -> None:
    assert sorted(ids_of(tmp_path / "full", TEXTS[:64], 6)) == list(range(1, 65))
    with pytest.raises(ValueError, match="no id of 6 bits is left"):
        ids_of(tmp_path / "over", TEXTS[:65], 6)


def test_nothing_is_nothing(tmp_path: Path) -> None:
    survey = IdSurvey(tmp_path)
    survey.add([])
    assert survey.collisions().size == 0
    assert StableIds(survey).assign([]).dtype == np.int64
