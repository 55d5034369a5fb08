"""Shards through the engine: images become requests, generations come back in any order, a shard is done when its last answer is in.

One stream for the engine's whole life: while a shard's stragglers generate, the next shards' images are already being fetched and admitted. Leaves fetching, generating and
decoding to others; writes nothing.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from model.engines.base import Engine, Generation, Request
from model.prompts import Prompt
from sinks.dataset.records import ImageRecord, Shard
from tasks.fetching import FetchedImage

FetchImages = Callable[[Iterable[ImageRecord]], Iterator[FetchedImage]]


@dataclass(slots=True)
class LabelledShard:
    """A shard's images and after them the golden ones that go with it, as fetched but without pixels, and their answers: generations[image][prompt], None for an
    image that never reached the model."""

    shard: Shard
    fetched: list[FetchedImage] = field(default_factory=list)
    generations: list[list[Generation | None]] = field(default_factory=list)
    unanswered: int = 0
    golden: tuple[ImageRecord, ...] = ()

    @property
    def records(self) -> tuple[ImageRecord, ...]:
        return (*self.shard.images, *self.golden)

    @property
    def fetched_all(self) -> bool:
        return len(self.fetched) == len(self.shard.images) + len(self.golden)

    @property
    def whole(self) -> bool:
        return self.fetched_all and not self.unanswered


def stream_shards(
    shards: Iterable[Shard],
    engine: Engine,
    prompts: Sequence[Prompt],
    fetch: FetchImages,
    *,
    golden: Callable[[Shard], Sequence[ImageRecord]] = lambda shard: (),
    on_answer: Callable[[], None] = lambda: None,
) -> Iterator[LabelledShard]:
    """Each shard once all of it is answered, in the order they finish. golden: the golden images that go with a shard. on_answer is called for each image
    that is through, golden ones left out.

    Ends early, leaving unfinished shards out, when fetch ends early (a drain): what is in flight is answered first. Raises what the engine and the storage raise.
    """
    stream = _ShardStream(prompts, golden, on_answer)
    for generation in engine.generate(stream.requests(shards, fetch)):
        stream.answer(generation)
        yield from stream.finished()
    yield from stream.finished()


class _ShardStream:
    """Which answers each open shard still waits for. Requests are made in the engine's feeding thread, answers arrive in the consuming one."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        golden: Callable[[Shard], Sequence[ImageRecord]],
        on_answer: Callable[[], None],
    ) -> None:
        self._prompts = prompts
        self._golden = golden
        self._on_answer = on_answer
        self._open: dict[str, tuple[LabelledShard, int, int]] = {}  # request → its shard, image and prompt
        self._finished: deque[LabelledShard] = deque()
        self._lock = threading.Lock()

    def requests(self, shards: Iterable[Shard], fetch: FetchImages) -> Iterator[Request]:
        queued: deque[LabelledShard] = deque()

        def records() -> Iterator[ImageRecord]:
            for shard in shards:
                queued.append(LabelledShard(shard, golden=tuple(self._golden(shard))))
                yield from queued[-1].records

        for image in fetch(records()):
            yield from self._ask(queued[0], image)
            if queued[0].fetched_all:
                queued.popleft()

    def _ask(self, labelled: LabelledShard, image: FetchedImage) -> Iterator[Request]:
        position = len(labelled.fetched)
        requests = []
        with self._lock:
            labelled.fetched.append(image.without_pixels())
            labelled.generations.append([None] * len(self._prompts))
            if image.pixels is not None:
                for prompt in self._prompts:
                    request_id = f"{labelled.shard.name}/{position}/{prompt.index}"
                    requests.append(Request(request_id, image.pixels, prompt.text))
                    self._open[request_id] = (labelled, position, prompt.index)
                labelled.unanswered += len(self._prompts)
            elif position < len(labelled.shard.images):
                self._on_answer()
            if labelled.whole:
                self._finished.append(labelled)
        yield from requests

    def answer(self, generation: Generation) -> None:
        with self._lock:
            labelled, position, prompt_index = self._open.pop(generation.request_id)
            answers = labelled.generations[position]
            answers[prompt_index] = generation
            labelled.unanswered -= 1
            if position < len(labelled.shard.images) and all(answer is not None for answer in answers):
                self._on_answer()
            if labelled.whole:
                self._finished.append(labelled)

    def finished(self) -> Iterator[LabelledShard]:
        while self._finished:
            yield self._finished.popleft()
