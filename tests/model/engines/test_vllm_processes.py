import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.engine
def test_interrupted_and_killed():
    """The engine's processes survive Ctrl-C, which reaches the whole group; the death of one is an EngineError, not a wait without end."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.model.engines.vllm_processes"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,  # the interrupt is for that group alone
        check=False,
    )
    assert run.stdout.splitlines() == [
        "after an interrupt: 40 answers, 1 interrupt",
        "after closing early: 40 answers",
        "killed: vllm has died: EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "left: []",
    ], run.stderr
