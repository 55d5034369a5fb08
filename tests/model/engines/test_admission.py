import threading

import numpy as np
import pytest

from model.engines.admission import Feed, check_request
from model.engines.base import Request

PIXELS = np.zeros((28, 28, 3), np.uint8)
PATIENCE_SECONDS = 30.0  # never waited for by a test that passes


def _requests(count):
    return [Request(str(index), PIXELS, "Detect ring.") for index in range(count)]


def _name(request):
    return request.request_id


def _all(feed):
    taken = []
    while (item := feed.take(wait_seconds=None)) is not None:
        taken.append(item)
    return taken


def test_all_requests_in_order():
    feed = Feed(_requests(50), _name, ahead=3)
    assert _all(feed) == [str(index) for index in range(50)]
    assert feed.exhausted


def test_no_requests():
    feed = Feed([], _name)
    assert feed.take(wait_seconds=None) is None
    assert feed.exhausted


def test_pulls_no_further_than_ahead():
    pulled, gate = [], threading.Event()

    def requests():
        for request in _requests(100):
            pulled.append(request)
            if len(pulled) == 5:
                gate.set()
            yield request

    feed = Feed(requests(), _name, ahead=4)
    assert gate.wait(PATIENCE_SECONDS)
    assert feed.take(wait_seconds=None) == "0"
    feed.close()
    assert len(pulled) <= 4 + 2


def test_a_blocked_source_does_not_block_the_taker():
    gate = threading.Event()

    def requests():
        yield from _requests(1)
        gate.wait(PATIENCE_SECONDS)
        yield from _requests(1)

    feed = Feed(requests(), _name)
    assert feed.take(wait_seconds=None) == "0"
    assert feed.take() is None
    assert not feed.exhausted
    gate.set()
    assert _all(feed) == ["0"]


@pytest.mark.parametrize("place", ["source", "prepare"])
def test_exceptions_reach_the_taker(place):
    def requests():
        yield from _requests(1)
        if place == "source":
            raise OSError("the listing broke off")

    def prepare(request):
        if place == "prepare":
            raise OSError("the listing broke off")
        return request.request_id

    with pytest.raises(OSError, match="broke off"):
        _all(Feed(requests(), prepare))


def test_close_releases_the_source():
    closed = threading.Event()

    def requests():
        try:
            yield from _requests(100)
        finally:
            closed.set()

    feed = Feed(requests(), _name, ahead=2)
    assert feed.take(wait_seconds=None) == "0"
    feed.close()
    assert closed.wait(PATIENCE_SECONDS)
    assert feed.take(wait_seconds=None) is None
    assert feed.exhausted


def test_checked_request():
    assert check_request(_requests(1)[0], [1, 2, 3], cell=28, context_length=100) == 3
    wide = Request("", np.zeros((56, 84, 3), np.uint8), "")
    assert check_request(wide, [1, 2, 3], cell=28, context_length=100) == 2 + 6


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        pytest.param(np.zeros((28, 30, 3), np.uint8), "30×28 pixels", id="not a multiple"),
        pytest.param(np.zeros((0, 28, 3), np.uint8), "28×0 pixels", id="empty"),
        pytest.param(np.zeros((28, 28), np.uint8), "shape", id="grey"),
        pytest.param(np.zeros((28, 28, 4), np.uint8), "shape", id="with alpha"),
        pytest.param(np.zeros((28, 28, 3), np.float32), "float32", id="not bytes"),
        pytest.param(np.zeros((280, 280, 3), np.uint8), "102 tokens", id="larger than the context"),
    ],
)
def test_refused_request(image, reason):
    with pytest.raises(ValueError, match=reason):
        check_request(Request("", image, ""), [1, 2, 3], cell=28, context_length=100)
