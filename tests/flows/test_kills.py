"""A job that is killed at random moments, in a process of its own with the real vLLM, and started again until it is done: as if nothing had happened."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sinks.dataset.ledger import Ledger
from tests.datasets import Answer, Key, answers, assert_equal
from tests.flows.jobs import draw_scenes, write_job
from tests.flows.processes import PRELABEL, environment, prelabel
from tests.sinks.dataset.outputs import named_by_records, paths

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1500)]

SHARDS, SHARD_SIZE = 40, 4
LOOKS_EVERY_SECONDS = 0.002


@dataclass(frozen=True)
class Killing:
    """When a process dies: once what is waited for is there, and after a while more."""

    wait_for: Callable[[Path, int], bool]  # given the output's folder and the markers at the process's start
    seconds: float

    def wait(self, output: Path, process: subprocess.Popen[bytes]) -> None:
        before = markers(output)
        while not self.wait_for(output, before) and process.poll() is None:
            time.sleep(LOOKS_EVERY_SECONDS)
        time.sleep(self.seconds)


def at_start(output: Path, before: int) -> bool:
    return True


def while_planning(output: Path, before: int) -> bool:
    return output.exists()


def after_markers(count: int) -> Callable[[Path, int], bool]:
    return lambda output, before: markers(output) >= before + count


def ten_killings(rng: random.Random) -> list[Killing]:
    """Few shards each, so that some are left for the tenth."""
    later = [
        Killing(at_start, rng.uniform(0, 12)),  # imports, Prefect, the checkpoint, loading the engine
        *(Killing(after_markers(rng.randint(1, 3)), 0) for _ in range(4)),
        *(Killing(after_markers(1), rng.uniform(0, 0.4)) for _ in range(3)),
    ]
    rng.shuffle(later)
    return [Killing(at_start, rng.uniform(0, 5)), Killing(while_planning, rng.uniform(0, 0.05)), *later]


def markers(output: Path) -> int:
    return sum(1 for path in output.glob("runs/*/markers/*.json") if "#" not in path.name)


@dataclass(frozen=True)
class Site:
    """An archive, what an undisturbed run says of it, and the environment in which jobs run."""

    folder: Path
    env: dict[str, str]
    undisturbed: dict[Key, Answer]

    def job(self, name: str) -> tuple[Path, Path]:
        """A job over the archive with an output of its own: the job file, the output's folder."""
        path = write_job(self.folder / name, **JOB)
        return path, path.parent / "output"


JOB = {"source": {"prefixes": ["../images"]}, "shard_size": SHARD_SIZE, "engine": {"kind": "vllm"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("kills")
    env = environment(folder / "prefect")
    draw_scenes(folder / "images", range(SHARDS * SHARD_SIZE))
    job = write_job(folder / "undisturbed", **JOB)
    done = prelabel("run", job, env=env)
    assert done.returncode == 0, done.stderr
    return Site(folder, env, answers(f"file://{job.parent / 'output'}"))


@contextmanager
def started(job: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The job's process; what it leaves running is ended with the block."""
    process = subprocess.Popen([PRELABEL, "run", str(job)], env=env, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # nothing was left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def assert_as_undisturbed(site: Site, output: Path) -> None:
    found = answers(f"file://{output}")
    assert len(found) == SHARDS * SHARD_SIZE
    assert_equal(found, site.undisturbed)


def test_killed_ten_times_and_run_again_it_ends_as_if_undisturbed(site: Site) -> None:
    job, output = site.job("killed")
    seen: list[int] = []
    for killing in ten_killings(random.Random(20)):
        with started(job, site.env) as process:
            killing.wait(output, process)
            assert process.poll() is None, f"it ended before it could be killed, after {seen} shards"
            process.kill()
            process.wait()
            seen.append(markers(output))
    assert seen == sorted(seen)
    assert 0 < seen[-1] < SHARDS
    assert len(set(seen)) > 5  # most of them died at work

    done = prelabel("run", job, env=site.env)
    assert done.returncode == 0, done.stderr
    assert_as_undisturbed(site, output)

    ledger = Ledger.open(f"file://{output}", None)
    assert len(ledger.plans()) == 1
    assert [state.state for state in ledger.states()] == ["staged", "promoted"]
    ledger.clean()
    assert stored(ledger) == [path for path in named_by_records(ledger) if path.startswith(("runs/", "parts/"))]
    assert drafts(output) == []

    again = prelabel("run", job, env=site.env)
    assert (again.returncode, "are done already" in again.stdout) == (0, True), again.stderr


def stored(ledger: Ledger) -> list[str]:
    return [path for path in paths(ledger.store) if path.startswith(("runs/", "parts/"))]


def drafts(output: Path) -> list[Path]:
    """Files that no listing shows: halves of local writes."""
    return [path for folder in ("runs", "parts") for path in (output / folder).rglob("*#*")]


def test_sigterm_commits_what_is_whole_and_the_next_run_goes_on(site: Site) -> None:
    job, output = site.job("terminated")
    with started(job, site.env) as process:
        Killing(after_markers(3), 0).wait(output, process)
        process.terminate()
        assert process.wait(timeout=120) == 4
    ledger = Ledger.open(f"file://{output}", None)
    (plan,) = ledger.plans()
    left = ledger.shards_left(plan)
    assert 0 < len(left) < SHARDS
    assert len(list(ledger.markers(plan))) + len(left) == SHARDS
    assert all(marker.counts["images"] == SHARD_SIZE for marker in ledger.markers(plan))

    done = prelabel("run", job, env=site.env)
    assert done.returncode == 0, done.stderr
    assert_as_undisturbed(site, output)
