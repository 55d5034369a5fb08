"""Questions about generated scenes, as engines take them."""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from examples.shapes.scenes import ask, make_scene
from model.engines.base import Request

PROMPT = "Detect {}. Output the bounding box coordinates in [x0, y0, x1, y1] format."


def scene_requests(count: int, *, seed: int = 20) -> list[Request]:
    """count scenes with a question each, request ids "0", "1", …; the same for the same seed."""
    rng = random.Random(seed)
    return [_request(str(index), rng) for index in range(count)]


def request(request_id: str, image: NDArray[np.uint8], categories: Sequence[str] = ("red circle",)) -> Request:
    """A detection question about any image."""
    return Request(request_id, image, PROMPT.format(", ".join(categories)))


def _request(request_id: str, rng: random.Random) -> Request:
    scene = make_scene(rng)
    return request(request_id, np.array(scene.image), ask(rng, scene).categories)
