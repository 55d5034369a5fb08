"""Keys listed and images read per CPU second of this process, from files and from a real S3 server on this machine. `python -m benchmarks.storage` prints one line of JSON."""

import json
import os
import tempfile
import time
from pathlib import Path

import obstore

from sinks.dataset.records import ImageRecord
from tasks.concurrency import run_ahead
from tasks.listing import ListingSettings, SkipCounts, list_images
from tasks.sources import Sources
from tests.servers.seaweedfs import running_seaweedfs

KEYS = 20_000
READS = 4_000
OBJECT_BYTES = 100_000
THREADS = 16


def measure() -> dict[str, float]:
    """For files and for S3: keys listed and objects of OBJECT_BYTES read per CPU second, with their etags checked. The server's own CPU is not counted."""
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="prelabel-bench-") as folder:
        for number in range(READS):
            _write(Path(folder), f"large/{number:05}.jpg", OBJECT_BYTES)
        for number in range(KEYS):
            _write(Path(folder), f"small/{number // 500:03}/{number:05}.jpg", 1)
        results |= _rates("files", f"file://{folder}", None)
    with running_seaweedfs() as server:
        os.environ.update(server.credentials("bench"))
        store = server.store(server.create_bucket("bench"))
        names = [f"small/{number // 500:03}/{number:05}.jpg" for number in range(KEYS)]
        for _ in run_ahead(lambda name: obstore.put(store, name, b"x"), names, threads=THREADS, ahead=64):
            pass
        names = [f"large/{number:05}.jpg" for number in range(READS)]
        body = os.urandom(OBJECT_BYTES)
        for _ in run_ahead(lambda name: obstore.put(store, name, body), names, threads=THREADS, ahead=64):
            pass
        results |= _rates("s3", "s3://bench", "bench")
    return {name: round(value) for name, value in results.items()}


def _rates(kind: str, root: str, credentials: str | None) -> dict[str, float]:
    source = Sources(credentials)
    started = time.process_time()
    keys = len(_listed(f"{root}/small", source))
    listing = time.process_time() - started
    records = _listed(f"{root}/large", source)
    started = time.process_time()
    size = sum(len(data) for data, _ in run_ahead(source.read, records, threads=THREADS, ahead=64))
    reading = time.process_time() - started
    if keys != KEYS or size != READS * OBJECT_BYTES:
        raise RuntimeError(f"{kind}: {keys} keys and {size} bytes came back")
    return {
        f"{kind}_keys_listed_per_cpu_second": keys / listing,
        f"{kind}_reads_per_cpu_second": len(records) / reading,
    }


def _listed(prefix: str, source: Sources) -> list[ImageRecord]:
    return list(list_images(ListingSettings(prefixes=(prefix,)), source, SkipCounts()))


def _write(folder: Path, name: str, size_bytes: int) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size_bytes))


if __name__ == "__main__":
    print(json.dumps(measure()))
