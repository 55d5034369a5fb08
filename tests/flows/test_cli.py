"""What a scheduler sees: exit codes, and what is not loaded when there is nothing to do."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prefect.utilities.engine import capture_sigterm

from flows.cli import main
from flows.label import prelabel as label
from tests.flows.jobs import draw_scenes, make_job, write_job
from tests.flows.processes import environment, prelabel
from tests.pictures import TEXT

DONE, FAULT, BAD_JOB, PARTIAL = 0, 1, 2, 4
HEAVY = ("torch", "vllm", "transformers")

# Put first on sys.path, it is imported before anything else. The modules are found, since others look whether they are there, but do not load.
NOTHING_HEAVY = f"""
import sys
from importlib.machinery import ModuleSpec

class Refuse:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name in {HEAVY!r} else None

    def create_module(self, spec):
        raise ImportError(f"{{spec.name}} was imported though there was nothing to label")

    def exec_module(self, module): ...

sys.meta_path.insert(0, Refuse())
"""


def invoke(*arguments: str | Path) -> Result:
    """The command in this process. What it sets in the environment is taken back."""
    quiet = {
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    return CliRunner(env=quiet).invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A good job over four scenes."""
    draw_scenes(tmp_path / "images", range(4))
    return write_job(tmp_path)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["plan", "-h"], ["status", "-h"], ["--version"]])
def test_help_needs_nothing_but_click(arguments: list[str]) -> None:
    script = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'prefect', 'pydantic', 'pyarrow', 'polars', 'numpy', 'torch'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (DONE, "[]\n")
    assert done.stdout


def test_the_codes_are_in_the_help() -> None:
    text = invoke("run", "--help").output
    assert all(
        word in text for word in ("Exit codes", "0  done", "2  the job", "4  partial", "--limit", "--retry-failed")
    )


def test_a_bad_command_line_is_a_bad_job(job: Path) -> None:
    for arguments in (["run"], ["run", job, "--limit", "0"], ["run", job, "--limit", "x"], ["lable", job]):
        assert invoke(*arguments).exit_code == BAD_JOB


CANNOT_BE_RUN: dict[str, tuple[dict[str, Any], str]] = {
    "a comma": ({"categories": ["cup, mug"]}, "categories[0]"),
    "a checkpoint that is not there": ({"model": {"name": "./nowhere"}}, "model.name: there is no folder"),
    "a folder without a checkpoint": ({"model": {"name": "images"}}, "no config.json"),
    "a prefix that is not there": ({"source": {"prefixes": ["nowhere"]}}, "nowhere"),
    "a prefix nobody can read": ({"source": {"prefixes": ["ftpx://a/b"]}}, "ftpx"),
    "an output nobody can write": ({"output": "http://host/labels"}, "http://host/labels"),
    "an output without a bucket": ({"output": "s3:///labels"}, "bucket"),
    "unknown credentials": (
        {"output": "s3://bucket/labels", "credentials": {"output": "nobody"}},
        "PRELABEL_NOBODY_",
    ),
    "a key list that is not there": ({"source": {"key_list": "keys.csv"}}, "source.key_list"),
}


@pytest.mark.parametrize(("changes", "words"), CANNOT_BE_RUN.values(), ids=CANNOT_BE_RUN)
def test_a_job_that_cannot_be_run(job: Path, changes: dict[str, Any], words: str) -> None:
    write_job(job.parent, **changes)
    planned = invoke("plan", job)
    assert planned.exit_code == BAD_JOB, planned.output
    assert words in planned.stderr
    assert "Traceback" not in planned.output


def test_sigterm_outside_any_drain_is_partial_too(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    try:
        with monkeypatch.context() as imports:  # while modules are loaded
            imports.setattr("flows.job.load_job", terminated)
            assert invoke("run", job).exit_code == PARTIAL
        with monkeypatch.context() as flow:  # while Prefect begins or ends a flow
            flow.setattr("flows.label.prelabel", capture_sigterm()(terminated))
            assert invoke("run", job).exit_code == PARTIAL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("command", ["run", "plan", "status", "report"])
def test_no_command_takes_a_job_that_is_not_there(tmp_path: Path, command: str) -> None:
    result = invoke(command, tmp_path / "none.yaml")
    assert result.exit_code == BAD_JOB
    assert "No such file" in result.stderr


def test_looking_writes_nothing(job: Path) -> None:
    assert invoke("plan", job).exit_code == DONE
    status = invoke("status", job)
    assert (status.exit_code, "no runs" in status.output) == (DONE, True)
    assert not [path for path in (job.parent / "output").rglob("*") if path.is_file()]


def test_nothing_to_show_is_said(job: Path, tmp_path: Path) -> None:
    result = invoke("report", job, "--out", tmp_path / "page.html")
    assert result.exit_code == BAD_JOB
    assert "no promoted run yet" in result.stderr
    result = invoke("report", job, "--out", tmp_path / "page.html", "--run", "20260101-000000-abcdef")
    assert (result.exit_code, "has no run" in result.stderr or "no finished run" in result.stderr) == (BAD_JOB, True)


def test_a_fresh_process_says_what_is_wrong_and_ends_with_2(job: Path, tmp_path: Path) -> None:
    write_job(job.parent, source={"prefixes": ["nowhere"]})
    result = prelabel("run", job, env=environment(tmp_path / "prefect"))
    assert result.returncode == BAD_JOB
    assert "nowhere" in result.stderr
    assert "Unexpected" not in result.stderr


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Path:
    """A job file whose images are all labelled, one of them unreadable."""
    folder = tmp_path_factory.mktemp("labelled")
    draw_scenes(folder / "images", range(4))
    (folder / "images" / "text.jpg").write_bytes(TEXT)
    (report,) = label(make_job(folder))
    assert report.outcome == "done"
    return folder / "job.yaml"


def test_nothing_to_do_is_done_without_an_engine(labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOTHING_HEAVY)
    env = environment(tmp_path / "prefect", PYTHONPATH=str(tmp_path))
    refused = subprocess.run([sys.executable, "-c", "import torch"], env=env, capture_output=True, text=True)
    assert "nothing to label" in refused.stderr  # or this test would say nothing
    result = prelabel("run", labelled, env=env)
    assert result.returncode == DONE, result.stderr
    assert "all 5 images are done already, 1 of them unreadable" in result.stdout


def test_what_is_there_is_shown(labelled: Path, tmp_path: Path) -> None:
    status = invoke("status", labelled)
    assert (status.exit_code, "promoted" in status.output) == (DONE, True)
    page = tmp_path / "page.html"
    assert invoke("report", labelled, "--out", page).exit_code == DONE
    assert "<html" in page.read_text("utf-8")


def test_an_engine_that_cannot_start_is_a_fault_and_a_pilot_of_what_it_left_is_partial(
    job: Path, prefect_server: None
) -> None:
    write_job(job.parent, shard_size=1, engine={"kind": "transformers", "args": {"no_such_argument": 1}})
    result = invoke("run", job)
    assert result.exit_code == FAULT
    assert "the engine failed" in result.stderr

    write_job(job.parent, shard_size=1)
    result = invoke("run", job, "--limit", "3")
    assert result.exit_code == PARTIAL, result.output
    assert "1 of 4 shards left" in result.stdout
    result = invoke("run", job)
    assert result.exit_code == DONE, result.output


def test_a_home_that_cannot_be_made_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file" / "prefect"))
    result = CliRunner().invoke(main, ["status", "job.yaml"])
    assert result.exit_code == 2
    assert "set PREFECT_HOME to a folder that can be written to" in result.output
