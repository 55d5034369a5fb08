"""Opening an engine by its settings. Imports none of the libraries that run models until asked to."""

from model.checkpoint import Checkpoint
from model.engines.base import Engine, EngineSettings, Sampling
from model.image_size import ImageLimits


def open_engine(
    checkpoint: Checkpoint,
    settings: EngineSettings,
    sampling: Sampling,
    limits: ImageLimits,
    *,
    longest_prompt_tokens: int,
) -> Engine:
    """Loads the model. longest_prompt_tokens: the largest len(checkpoint.encode(prompt)) among the job's prompts.

    Raises TokenizerError for a tokenizer that maps coordinates wrongly and CheckpointError for a context too short for the job, both before anything
    heavy is loaded; EngineError where the engine cannot start.
    """
    _ = checkpoint.vocabulary
    context_length = checkpoint.context_for(limits, longest_prompt_tokens, sampling.max_tokens)
    if settings.replicas > 1:
        from model.engines.replicas import ReplicatedEngine

        return ReplicatedEngine(checkpoint, settings, sampling, limits, longest_prompt_tokens)
    if settings.kind == "transformers":
        from model.engines.transformers_engine import TransformersEngine

        return TransformersEngine(checkpoint, settings, sampling, context_length)
    from model.engines.vllm_engine import VllmEngine

    return VllmEngine(checkpoint, settings, sampling, limits, context_length)
