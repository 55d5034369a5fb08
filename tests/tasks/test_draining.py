"""Stopping on signals: the first asks, the second ends, and the handlers of whoever was there before come back."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from prefect.utilities.engine import capture_sigterm

from tasks.draining import Drained, drain_on_signals, until_stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), drain_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        assert number.name in capsys.readouterr().err
        os.kill(os.getpid(), number)


def test_the_former_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(RuntimeError), drain_on_signals():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
        raise RuntimeError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_drain_inside_a_drain_hears_every_signal_too() -> None:
    with drain_on_signals() as outer:
        os.kill(os.getpid(), signal.SIGTERM)  # before the inner one begins, as while planning
        with drain_on_signals() as inner:
            assert inner.is_set()
    with drain_on_signals() as outer:
        with drain_on_signals() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            assert inner.is_set()
        assert outer.is_set()  # the next piece of work is not begun
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_drain_takes_back_what_a_flow_took_over() -> None:
    with drain_on_signals() as outer:
        ours = signal.getsignal(signal.SIGTERM)
        with capture_sigterm():  # what Prefect does as each flow begins
            prefects = signal.getsignal(signal.SIGTERM)
            with drain_on_signals() as inner:
                os.kill(os.getpid(), signal.SIGTERM)
                assert inner.is_set()
            assert signal.getsignal(signal.SIGTERM) is prefects
        assert signal.getsignal(signal.SIGTERM) is ours
        assert outer.is_set()


def test_another_thread_gets_an_event_that_no_signal_sets() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with drain_on_signals() as stop:
            seen.append((stop.is_set(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_half_a_listing_is_not_taken_for_a_whole_one() -> None:
    stop = threading.Event()
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(5):
            if number == 3:
                stop.set()
            yield number

    with pytest.raises(Drained):
        taken.extend(until_stopped(stop, numbers()))
    taken.clear()
    with pytest.raises(Drained):
        for number in until_stopped(stop, [7]):
            taken.append(number)
    assert taken == []
    stop.clear()
    assert list(until_stopped(stop, range(3))) == [0, 1, 2]
