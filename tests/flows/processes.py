"""`prelabel` as a process of its own, as a scheduler starts it: its exit code and what it says."""

import os
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

PRELABEL = str(Path(sysconfig.get_path("scripts")) / "prelabel")


def environment(prefect_home: Path, **variables: str) -> dict[str, str]:
    """This process's environment with a Prefect of the test's own: nothing of the user's is read, nothing is reported."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PRELABEL_"))}
    return inherited | {"PREFECT_HOME": str(prefect_home), "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"} | variables


def prelabel(*arguments: str | Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    return subprocess.run([PRELABEL, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=300)
