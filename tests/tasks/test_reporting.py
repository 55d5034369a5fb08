"""What people read, to the letter: nothing in a prompt, a category or a path is taken for markup."""

import pytest

from tasks.planning import PlanCounts
from tasks.reporting import Preview, RunReport, print_preview, print_summary


def test_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    prompts = ("Detect [red] ring. Output [x0, y0, x1, y1].",)
    print_preview(Preview("file:///o", "tiny", prompts, PlanCounts(), {"excluded [x]": 1}, None, 0, None))
    shown = capsys.readouterr().out
    assert "Detect [red] ring. Output [x0, y0, x1, y1]." in shown
    assert "1 excluded [x]" in shown
    assert "\\" not in shown


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"images": 2, "answers": 2, "ok": 2, "annotations": 0}, "2: 2 ok"),
        ({"images": 2, "answers": 4, "ok": 3, "failed": 1, "annotations": 0}, "2 in 4 answers: 3 ok, 1 failed"),
    ],
)
def test_images_are_not_their_answers(capsys: pytest.CaptureFixture[str], counts: dict[str, int], line: str) -> None:
    print_summary(RunReport("done", "promoted", "file:///o", "run", counts=counts))
    assert line in capsys.readouterr().out
