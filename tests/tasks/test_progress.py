"""Progress as it is seen: lines in a log, a bar on a terminal, counted from any thread."""

import io
import sys
import threading

import pytest

from tasks import progress
from tasks.progress import show_listing, show_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_one_line_at_the_end_of_a_short_piece_of_work(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("labelling", 3) as advance:
        for _ in range(3):
            advance()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("labelling: 3 of 3 images, ")
    assert line.endswith(" images/s")


def test_a_log_gets_lines_on_the_way_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    with show_progress("labelling", 4) as advance:
        advance()
        advance()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "labelling: 1 of 4 images",
        "labelling: 2 of 4 images",
        "labelling: 2 of 4 images",
    ]
    assert all(" s left" in line for line in lines)


def test_nothing_done_is_said_without_a_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("labelling", 4):
        pass
    assert capsys.readouterr().err == "labelling: 0 of 4 images, 0.0 images/s\n"


def test_the_last_line_comes_even_when_the_work_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), show_progress("labelling", 4) as advance:
        advance()
        raise RuntimeError
    assert "labelling: 1 of 4 images" in capsys.readouterr().err


def test_a_listing_is_counted_and_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(show_listing(iter("abc"))) == ["a", "b", "c"]
    assert capsys.readouterr().err.startswith("listing: 3 images, ")


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_images_are_counted_from_any_thread(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")

    with show_progress("labelling", 400) as advance:

        def work() -> None:
            for _ in range(100):
                advance()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ("400/400" if shown.isatty() else "400 of 400 images") in shown.getvalue()
    assert "images/s" in shown.getvalue()


def test_a_terminal_shows_a_listing_without_a_total(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    assert list(show_listing(range(5))) == [0, 1, 2, 3, 4]
    assert "5/?" in terminal.getvalue()
