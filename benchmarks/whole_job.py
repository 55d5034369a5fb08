"""Images/s of the whole labelling job (fetch, decode, generate, decode answers, commit) against the bare engine on the same requests, taken in turn. `python -m benchmarks.whole_job` prints one line of JSON."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from statistics import median

SCENES = 600
SHARD_SIZE = 100
PAIRS = 3  # measurements of each kind, in turn
_EXAMPLE = Path(__file__).parents[1] / "examples" / "shapes"
_CATEGORIES = ("orange circle", "green square", "purple star", "cyan ring")


def measure() -> dict[str, float]:
    """Medians over PAIRS pairs of fresh processes. share: the job's images/s over the engine's, pair by pair. peak_memory_mib: of the job's process."""
    with tempfile.TemporaryDirectory(prefix="prelabel-bench-") as folder:
        _draw(Path(folder))
        pairs = [
            (_measure_in_new_process("engine", folder, n), _measure_in_new_process("job", folder, n))
            for n in range(PAIRS)
        ]
    return {
        "images": SCENES,
        "engine_images_per_second": round(median(engine["images_per_second"] for engine, _ in pairs), 2),
        "job_images_per_second": round(median(job["images_per_second"] for _, job in pairs), 2),
        "share": round(median(job["images_per_second"] / engine["images_per_second"] for engine, job in pairs), 3),
        "engine_peak_memory_mib": round(median(engine["peak_memory_mib"] for engine, _ in pairs)),
        "job_peak_memory_mib": round(median(job["peak_memory_mib"] for _, job in pairs)),
    }


def _measure_in_new_process(kind: str, folder: str, number: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.whole_job", kind, folder, str(number)]
    quiet = {
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_HOME": f"{folder}/prefect",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=os.environ | quiet)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _draw(folder: Path) -> None:
    command = [
        sys.executable,
        str(_EXAMPLE / "generate.py"),
        "--out",
        str(folder),
        "--count",
        str(SCENES),
        "--categories",
        *_CATEGORIES,
    ]
    subprocess.run(command, check=True, capture_output=True)


def _job(folder: str, number: int):
    from flows.job import LabelJob

    return LabelJob.model_validate(
        {
            "name": "bench",
            "source": {"prefixes": [f"{folder}/images"]},
            "categories": _CATEGORIES,
            "model": {"name": str(_EXAMPLE / "checkpoint")},
            "sampling": {"max_tokens": 256},
            "output": f"{folder}/dataset-{number}",
            "shard_size": SHARD_SIZE,
        }
    ).located(Path(folder))


def _engine_alone(folder: str, number: int) -> dict[str, float]:
    """All images fetched and decoded before the clock starts; the same requests as the job's, in the same order."""
    from model.engines.base import Request
    from tasks.fetching import fetch_images
    from tasks.listing import SkipCounts, list_images
    from tasks.preparing import load_engine
    from tasks.sources import Sources

    job = _job(folder, number)
    question = job.question()
    source = Sources(None)
    records = list(list_images(job.source, source, SkipCounts()))
    fetched = list(fetch_images(records, source, question.limits, job.fetching, threading.Event()))
    requests = [
        Request(image.record.key, image.pixels, question.prompts[0].text)
        for image in fetched
        if image.pixels is not None
    ]
    with closing(load_engine(question, job.engine)) as engine:
        started = time.monotonic()
        answers = sum(1 for _ in engine.generate(requests))
        seconds = time.monotonic() - started
    assert answers == SCENES
    return {"images_per_second": answers / seconds}


def _whole_job(folder: str, number: int) -> dict[str, float]:
    """From the loaded engine's first request to the last shard's marker."""
    from flows.label import prelabel

    (report,) = prelabel(_job(folder, number))
    assert report.outcome == "done"
    assert report.counts["ok"] == SCENES
    return {"images_per_second": report.images / report.seconds}


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(json.dumps(measure()))
    else:
        result = {"engine": _engine_alone, "job": _whole_job}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result | {"peak_memory_mib": peak}))
