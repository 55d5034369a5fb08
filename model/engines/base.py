"""What every engine is: requests in, generations out as they finish, bounded in flight. Knows no model, no image format, no storage."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length", "error"]


class Sampling(BaseModel):
    """How tokens are drawn. The defaults are Rex-Omni's published ones: greedy, a slight repetition penalty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(0.0, ge=0)
    top_k: int = Field(1, ge=1)
    repetition_penalty: float = Field(1.05, gt=0)
    max_tokens: int = Field(4096, ge=1, description="longest answer; a longer one is cut and flagged truncated")


class EngineSettings(BaseModel):
    """Which engine runs the model and how. Nothing here changes what is generated but dtype and quantisation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["vllm", "transformers"] = "vllm"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: as the checkpoint says on a GPU, float32 on a CPU"
    )
    quantization: str | None = Field(
        None, description="vLLM's name of a quantisation (awq, fp8); null: as the checkpoint says"
    )
    max_in_flight: int | None = Field(
        None, ge=1, description="requests in each engine at once; null: chosen for the machine"
    )
    replicas: int = Field(1, ge=1, description="engines on this machine, one process and one GPU each")
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="further arguments of the engine by its own names, e.g. gpu_memory_utilization",
    )


@dataclass(frozen=True, slots=True)
class Request:
    """One question about one image. image: (height, width, 3) uint8 RGB, already at the model's input size; prompt: the user turn's text."""

    request_id: str
    image: NDArray[np.uint8]
    prompt: str


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer. token_ids hold the end token where there is one; logprobs has one natural log probability a token, or is None where the engine gives none.

    finish_reason "error": the engine could not answer this request (error says why); the engine itself goes on.
    """

    request_id: str
    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32] | None
    finish_reason: FinishReason
    prompt_tokens: int
    seconds: float
    error: str | None = None


class EngineError(RuntimeError):
    """The engine cannot start or has died; nothing it was asked may be taken as answered."""


class Engine(Protocol):
    """A loaded model. name and version are recorded in runs; max_in_flight is the most requests it works on at once."""

    name: str
    version: str
    max_in_flight: int

    def generate(self, requests: Iterable[Request]) -> Generator[Generation, None, None]:
        """Answers in the order they finish, each request once. Pulls requests ahead of need, but only a few beyond max_in_flight unanswered ones.

        requests may block while images are being fetched: it is drained in a thread, so that a wait there never stops the engine. When it ends, what is
        in flight is finished. Raises EngineError if the engine dies; an exception raised by requests is raised here. Closing the iterator early drops
        what is in flight; the engine can be asked again. One call at a time: chain shards into one stream, or each one's stragglers leave the engine idle.
        """
        ...

    def close(self) -> None:
        """Frees the device and ends the engine's processes. Idempotent."""
        ...
