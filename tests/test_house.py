"""What the import contracts in pyproject.toml cannot say: that heavy packages are imported late, so that everything starts fast."""

import pkgutil
import subprocess
import sys

import pytest

import model
import sinks
import tasks

ENGINES = {"torch", "torchvision", "transformers", "vllm"}


def modules_of(package) -> list[str]:
    return [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        (["flows.cli"], {*ENGINES, "flows.job", "model", "numpy", "prefect", "pyarrow", "pydantic", "sinks", "tasks"}),
        (["flows.job"], {*ENGINES, "prefect"}),
        (modules_of(tasks), ENGINES),
        (modules_of(sinks), {*ENGINES, "prefect"}),
        (modules_of(model), {*ENGINES, "prefect"}),
    ],
    ids=["command line", "job", "tasks", "sinks", "model"],
)
def test_importing_it_leaves_alone(modules: list[str], unwanted: set[str]) -> None:
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert unwanted.isdisjoint(done.stdout.split())
