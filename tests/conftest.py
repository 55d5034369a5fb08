"""Fixtures that cost seconds to make and are shared by the whole session: the shipped checkpoint and the real engines that run it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.checkpoint import Checkpoint
from model.engines import open_engine
from model.engines.base import Engine, EngineSettings, Sampling
from tests.servers.seaweedfs import seaweedfs  # noqa: F401 - a fixture

# read when Prefect and vLLM are imported: neither calls home
os.environ |= {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

LONGEST_PROMPT_TOKENS = 160
SAMPLING = Sampling(max_tokens=256)


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """The shipped tiny checkpoint of Rex-Omni's architecture."""
    return Checkpoint.load(Path(__file__).parents[1] / "examples" / "shapes" / "checkpoint")


@pytest.fixture(scope="session")
def vllm_engine(checkpoint: Checkpoint) -> Iterator[Engine]:
    """The real vLLM, in this process. There can be one at a time, so no test opens another."""
    yield from _opened(checkpoint, EngineSettings())


@pytest.fixture(scope="session")
def transformers_engine(checkpoint: Checkpoint) -> Iterator[Engine]:
    """The reference engine."""
    yield from _opened(checkpoint, EngineSettings(kind="transformers"))


def _opened(checkpoint: Checkpoint, settings: EngineSettings) -> Iterator[Engine]:
    engine = open_engine(
        checkpoint, settings, SAMPLING, checkpoint.image_limits, longest_prompt_tokens=LONGEST_PROMPT_TOKENS
    )
    yield engine
    engine.close()
