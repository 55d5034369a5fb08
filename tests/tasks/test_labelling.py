"""Shards through a made-up engine that answers out of order: what belongs to which image, when a shard is whole, what a drain and an error leave."""

import random
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from model.engines.base import EngineError, Generation, Request
from model.prompts import Prompt
from sinks.dataset.records import ImageRecord, Shard
from tasks.fetching import FetchedImage
from tasks.labelling import LabelledShard, stream_shards
from tasks.retrying import StorageUnavailable

ONE_PROMPT = (Prompt(0, "detection", "Detect cat.", ("cat",)),)
THREE_PROMPTS = tuple(Prompt(index, "keypoint", f"Find {'x' * index}", (f"{index}",)) for index in range(3))


@dataclass
class MadeUpEngine:
    """Says of each picture the value of its pixels, of each prompt its length, and answers in the order that pick(requests in flight) chooses."""

    max_in_flight: int = 4
    pick: Callable[[list[Request]], int] = lambda waiting: 0
    refuses: Collection[int] = ()  # pixel values of images
    dies_after: int = 10**9
    name: str = "made up"
    version: str = "1"
    answered: list[str] = field(default_factory=list)

    def generate(self, requests: Iterable[Request]) -> Generator[Generation, None, None]:
        feed = iter(requests)
        waiting: list[Request] = []
        while True:
            while len(waiting) < self.max_in_flight and (request := next(feed, None)) is not None:
                waiting.append(request)
            if not waiting:
                return
            if len(self.answered) == self.dies_after:
                raise EngineError("out of memory")
            request = waiting.pop(self.pick(waiting))
            self.answered.append(request.request_id)
            yield self._answer(request)

    def _answer(self, request: Request) -> Generation:
        value = int(request.image[0, 0, 0])
        if value in self.refuses:
            return Generation(request.request_id, np.array([], np.int32), None, "error", 0, 0.0, "too long")
        ids = np.array([value], np.int32)
        return Generation(request.request_id, ids, None, "stop", len(request.prompt), 0.1)

    def close(self) -> None: ...


def made_shards(*sizes: int) -> list[Shard]:
    """Shards of so many images each; images are numbered through: 000.jpg, 001.jpg …"""
    shards, first = [], 0
    for index, size in enumerate(sizes):
        images = tuple(
            ImageRecord(f"s3://archive/{number:03d}.jpg", "1", 10, "s3://archive/")
            for number in range(first, first + size)
        )
        shards.append(Shard(f"run-{index:06d}", "run", index, images))
        first += size
    return shards


def number_of(record: ImageRecord) -> int:
    return int(record.key[-7:-4])


def fetching(
    *, unreadable: Collection[int] = (), until: int = 10**9, log: list[int] | None = None
) -> Callable[[Iterable[ImageRecord]], Iterator[FetchedImage]]:
    """A fetch that gives each image its number as pixels. until: a drain before that image. log: numbers as they are asked for."""

    def fetch(records: Iterable[ImageRecord]) -> Iterator[FetchedImage]:
        for record in records:
            number = number_of(record)
            if number >= until:
                return
            if log is not None:
                log.append(number)
            if number in unreadable:
                yield FetchedImage(record, "1", "unreadable", "truncated", 10)
            else:
                yield FetchedImage(record, "1", None, None, 10, 56, 28, np.full((28, 56, 3), number, np.uint8), 56, 28)

    return fetch


def said(labelled: LabelledShard) -> list[list[int | None]]:
    """What the engine said of each image: the picture's number for each prompt, None where it was not asked."""
    return [
        [None if generation is None else int(generation.token_ids[0]) for generation in generations]
        for generations in labelled.generations
    ]


@pytest.mark.parametrize("in_flight", [1, 3, 64])
@pytest.mark.parametrize("seed", range(5))
def test_each_answer_finds_its_image_and_prompt_in_whatever_order(seed: int, in_flight: int) -> None:
    rng = random.Random(seed)
    engine = MadeUpEngine(in_flight, pick=lambda waiting: rng.randrange(len(waiting)))
    shards = made_shards(4, 1, 3, 5)
    through: list[None] = []
    labelled = list(
        stream_shards(
            shards, engine, THREE_PROMPTS, fetching(unreadable={2, 4}), on_answer=lambda: through.append(None)
        )
    )
    assert sorted(one.shard.index for one in labelled) == [0, 1, 2, 3]
    for one in labelled:
        numbers = [number_of(record) for record in one.shard.images]
        assert [number_of(image.record) for image in one.fetched] == numbers
        assert said(one) == [[None if number in (2, 4) else number] * 3 for number in numbers]
        lengths = [[g.prompt_tokens for g in row if g] for row in one.generations]
        assert all(row in ([], [len(prompt.text) for prompt in THREE_PROMPTS]) for row in lengths)
    assert len(through) == 13  # each image once, whatever became of it
    assert len(engine.answered) == len(set(engine.answered)) == 11 * 3


def test_no_pixels_are_kept() -> None:
    (labelled,) = stream_shards(made_shards(2), MadeUpEngine(), ONE_PROMPT, fetching())
    assert [(image.pixels, image.width_px, image.input_width_px) for image in labelled.fetched] == [(None, 56, 56)] * 2


@pytest.mark.parametrize("empty", [0, 1, 2, "all"])
def test_a_shard_without_a_readable_image_is_whole_without_the_engine(empty: int | str) -> None:
    shards = made_shards(2, 2, 2)
    unreadable = range(6) if empty == "all" else range(2 * int(empty), 2 * int(empty) + 2)
    labelled = list(stream_shards(shards, MadeUpEngine(), ONE_PROMPT, fetching(unreadable=unreadable)))
    assert sorted(one.shard.index for one in labelled) == [0, 1, 2]
    assert all(one.whole for one in labelled)


@pytest.mark.parametrize("in_flight", [1, 64])
def test_golden_images_end_with_their_shard_and_are_not_counted(in_flight: int) -> None:
    def golden(shard: Shard) -> list[ImageRecord]:
        number = 90 + shard.index
        return [ImageRecord(f"s3://golden/{number:03d}.jpg", "1", 10, "s3://golden/")] if shard.index != 1 else []

    through: list[None] = []
    labelled = list(
        stream_shards(
            made_shards(2, 2, 1),
            MadeUpEngine(in_flight),
            ONE_PROMPT,
            fetching(unreadable={0, 1}),
            golden=golden,
            on_answer=lambda: through.append(None),
        )
    )
    assert [said(one) for one in labelled] == [[[None], [None], [90]], [[2], [3]], [[4], [92]]]
    assert [len(one.shard.images) for one in labelled] == [2, 2, 1]
    assert len(through) == 5


def test_nothing_to_do_asks_for_nothing() -> None:
    engine = MadeUpEngine()
    assert list(stream_shards([], engine, ONE_PROMPT, fetching())) == []
    assert engine.answered == []


def test_a_refused_image_is_an_answer_and_the_others_go_on() -> None:
    (labelled,) = stream_shards(made_shards(3), MadeUpEngine(refuses={1}), ONE_PROMPT, fetching())
    (refused,) = labelled.generations[1]
    assert refused is not None
    assert (refused.finish_reason, refused.error) == ("error", "too long")
    assert labelled.whole


@pytest.mark.parametrize(
    ("until", "whole"),
    [(0, []), (1, []), (3, [0]), (4, [0, 1]), (6, [0, 1]), (7, [0, 1, 2])],
    ids=["at-once", "in-the-first", "between", "in-the-third", "before-the-last-image", "at-the-end"],
)
@pytest.mark.parametrize("in_flight", [1, 64])
def test_a_drain_answers_what_is_in_flight_and_leaves_the_unfinished_shard_out(
    until: int, whole: list[int], in_flight: int
) -> None:
    engine = MadeUpEngine(in_flight)
    labelled = list(stream_shards(made_shards(3, 1, 3), engine, ONE_PROMPT, fetching(until=until)))
    assert [one.shard.index for one in labelled] == whole
    assert len(engine.answered) == until  # what was fetched is answered, though some of it for nothing


def test_a_fetch_that_reads_far_ahead_of_what_it_yields() -> None:
    def fetch(records: Iterable[ImageRecord]) -> Iterator[FetchedImage]:
        yield from fetching()(list(records))

    labelled = list(stream_shards(made_shards(2, 3, 1), MadeUpEngine(), ONE_PROMPT, fetch))
    assert [said(one) for one in labelled] == [[[0], [1]], [[2], [3], [4]], [[5]]]


def test_the_next_shard_is_asked_for_before_the_last_answer_of_the_former() -> None:
    straggler = "run-000000/0/0"

    def last_of_all(waiting: list[Request]) -> int:
        return next((i for i, request in enumerate(waiting) if request.request_id != straggler), 0)

    asked_for: list[int] = []
    engine = MadeUpEngine(max_in_flight=3, pick=last_of_all)
    labelled = list(stream_shards(made_shards(2, 2, 2), engine, ONE_PROMPT, fetching(log=asked_for)))
    assert engine.answered[-1] == straggler
    assert [one.shard.index for one in labelled] == [1, 2, 0]
    assert asked_for == list(range(6))


def test_shards_are_read_only_as_far_as_images_are_asked_for() -> None:
    read = []

    def shards() -> Iterator[Shard]:
        for shard in made_shards(*[2] * 50):
            read.append(shard.index)
            yield shard

    stream = stream_shards(shards(), MadeUpEngine(max_in_flight=4), ONE_PROMPT, fetching())
    next(stream)
    assert len(read) <= 4


def test_what_the_storage_raises_comes_through_after_the_shards_that_were_whole() -> None:
    def fetch(records: Iterable[ImageRecord]) -> Iterator[FetchedImage]:
        yield from fetching(until=3)(records)
        raise StorageUnavailable("20 images in a row could not be read")

    stream = stream_shards(made_shards(2, 2), MadeUpEngine(max_in_flight=1), ONE_PROMPT, fetch)
    assert next(stream).shard.index == 0
    with pytest.raises(StorageUnavailable, match="20 images"):
        next(stream)


def test_what_the_engine_raises_comes_through() -> None:
    stream = stream_shards(made_shards(2, 2), MadeUpEngine(dies_after=3), ONE_PROMPT, fetching())
    assert next(stream).shard.index == 0
    with pytest.raises(EngineError, match="out of memory"):
        next(stream)
