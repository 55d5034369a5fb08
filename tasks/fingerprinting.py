"""The two fingerprints: what decides whether an image must be generated again, and what decides whether stored answers must be decoded again.

Left out of both: prefixes, patterns, output, shard size, sinks, concurrency, credentials and the engine's version: they change where and how fast, not what.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from model.checkpoint import Checkpoint
from model.decoding import DECODER_VERSION
from model.engines.base import EngineSettings, Sampling
from model.image_size import ImageLimits
from model.prompts import Prompt
from model.taxonomy import Taxonomy

IMAGE_PREPARATION = 1  # raised when tasks/pictures.py would give the model other pixels for the same file


def generation_fingerprint(
    checkpoint: Checkpoint,
    revision: str | None,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    engine: EngineSettings,
    limits: ImageLimits,
) -> str:
    """16 hex digits. revision: the hub's commit where there is one; a plain folder's weights count by their contents."""
    return _digest(
        {
            "weights": revision or checkpoint.weights_hash,
            "tokenizer": checkpoint.tokenizer_hash,
            "chat_template": checkpoint.chat_template_hash,
            "dtype": checkpoint.dtype if engine.dtype == "auto" else engine.dtype,
            "quantization": engine.quantization or checkpoint.quantization,
            "dialect": "rex_omni",
            "prompts": [[prompt.task, prompt.text] for prompt in prompts],
            "sampling": sampling.model_dump(),
            "image_preparation": [IMAGE_PREPARATION, limits.min_pixels, limits.max_pixels, limits.factor],
        }
    )


def decoding_fingerprint(taxonomy: Taxonomy, coordinates: str) -> str:
    """16 hex digits: decoder version, coordinate mode and the map from phrases to categories."""
    return _digest(
        {"decoder": DECODER_VERSION, "coordinates": coordinates, "taxonomy": taxonomy.model_dump(mode="json")}
    )


def _digest(facts: Mapping[str, Any]) -> str:
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
