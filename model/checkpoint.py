"""The facts of a checkpoint folder that everything else needs before (or without) loading the model: limits, lengths, the rendered prompt, hashes.

Reads local files only; loads no weights and knows no engine.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from model.image_size import ImageLimits

if TYPE_CHECKING:
    from model.tokens import Vocabulary

SYSTEM_TEXT = "You are a helpful assistant"  # Rex-Omni's, without the full stop of Qwen2.5-VL's default
END_TOKEN = "<|im_end|>"
IMAGE_TOKEN = "<|image_pad|>"


class CheckpointError(ValueError):
    """The folder holds no checkpoint this project can use, or one too short for what is asked."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in a local folder, in the layout of transformers.

    embedding_rows: ids the model can read and say; context_length: tokens of prompt and answer together; dtype: as stored ("bfloat16");
    quantization: the method's name or None; image_limits: what the preprocessor allows, never beyond Rex-Omni's published limits;
    stop_token_ids: any of them ends an answer; kv_values_per_token: numbers in the key-value cache for a token.
    """

    folder: Path
    embedding_rows: int
    context_length: int
    dtype: str
    quantization: str | None
    image_limits: ImageLimits
    image_token_id: int
    stop_token_ids: tuple[int, ...]
    kv_values_per_token: int
    chat_template: str

    @classmethod
    def load(cls, folder: Path) -> "Checkpoint":
        """Reads config.json, preprocessor_config.json, tokenizer.json and the chat template. Raises CheckpointError naming what is missing or wrong."""
        config = _read_json(folder, "config.json")
        text = config.get("text_config", config)
        tokenizer = _read_tokenizer(folder)
        end = tokenizer.token_to_id(END_TOKEN)
        image = tokenizer.token_to_id(IMAGE_TOKEN)
        if end is None or image is None:
            raise CheckpointError(
                f"{folder}: tokenizer.json has no {END_TOKEN if end is None else IMAGE_TOKEN}: not a checkpoint of Qwen2.5-VL's family"
            )
        try:
            heads = text["num_attention_heads"]
            head_size = text.get("head_dim") or text["hidden_size"] // heads
            return cls(
                folder=folder,
                embedding_rows=text["vocab_size"],
                context_length=text["max_position_embeddings"],
                dtype=str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "float32"),
                quantization=(config.get("quantization_config") or {}).get("quant_method"),
                image_limits=_image_limits(folder),
                image_token_id=image,
                stop_token_ids=_stop_token_ids(folder, end),
                kv_values_per_token=2
                * text["num_hidden_layers"]
                * (text.get("num_key_value_heads") or heads)
                * head_size,
                chat_template=_chat_template(folder),
            )
        except KeyError as error:
            raise CheckpointError(f"{folder}: config.json has no {error.args[0]}") from error

    def render(self, prompt: str) -> str:
        """The whole conversation up to the answer's first token: system text, then the image (one placeholder), then the prompt's text."""
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True
        )  # as transformers renders templates
        user = [{"type": "image"}, {"type": "text", "text": prompt}]
        messages = [{"role": "system", "content": SYSTEM_TEXT}, {"role": "user", "content": user}]
        return environment.from_string(self.chat_template).render(messages=messages, add_generation_prompt=True)

    def encode(self, prompt: str) -> list[int]:
        """Ids of the rendered conversation, the image as one placeholder id. Its length plus an image's visual tokens less one is what the model reads."""
        ids: list[int] = self._tokenizer.encode(self.render(prompt), add_special_tokens=False).ids
        if ids.count(self.image_token_id) != 1:
            raise CheckpointError(
                f"the rendered prompt holds {ids.count(self.image_token_id)} image placeholders instead of 1: {prompt!r}"
            )
        return ids

    def context_for(self, limits: ImageLimits, longest_prompt_tokens: int, max_tokens: int) -> int:
        """Tokens of context the engine needs: the largest image, the longest prompt (as encode gives it) and the longest answer.

        Raises CheckpointError, saying what to lower, where the checkpoint has less.
        """
        needed = limits.most_visual_tokens + longest_prompt_tokens - 1 + max_tokens
        if needed > self.context_length:
            over = needed - self.context_length
            raise CheckpointError(
                f"the model's context of {self.context_length} tokens is too short for {limits.most_visual_tokens} visual tokens, {longest_prompt_tokens - 1} "
                f"of prompt and max_tokens {max_tokens}: lower max_tokens to {max_tokens - over}"
                if max_tokens > over
                else f"the model's context of {self.context_length} tokens cannot hold {limits.most_visual_tokens} visual tokens and "
                f"{longest_prompt_tokens - 1} of prompt: lower max_pixels, or ask for fewer categories at a time"
            )
        return needed

    @cached_property
    def vocabulary(self) -> "Vocabulary":
        """The tokenizer's ids, checked: raises TokenizerError where <0> … <999> are not 1000 distinct single ids below embedding_rows."""
        from model.tokens import Vocabulary

        return Vocabulary.from_tokenizer_file(self.folder / "tokenizer.json", embedding_rows=self.embedding_rows)

    @cached_property
    def weights_hash(self) -> str:
        """sha256 over config.json's and the weight files' names and contents, in the names' order. Reads them all: seconds for gigabytes."""
        files = self._weight_files
        if not files:
            raise CheckpointError(f"{self.folder}: no *.safetensors")
        return _hash_files(
            [self.folder / "config.json", *files]
        )  # the same weights say something else under another rope setting

    @cached_property
    def weights_bytes(self) -> int:
        """Size of the weight files."""
        return sum(path.stat().st_size for path in self._weight_files)

    @cached_property
    def tokenizer_hash(self) -> str:
        """sha256 of tokenizer.json."""
        return _hash_files([self.folder / "tokenizer.json"])

    @property
    def chat_template_hash(self) -> str:
        """sha256 of the template together with the system text it is given."""
        return hashlib.sha256(f"{SYSTEM_TEXT}\0{self.chat_template}".encode()).hexdigest()

    @property
    def _weight_files(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return _read_tokenizer(self.folder)


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no {name}, so no checkpoint") from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    return content


def _read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.exists():
        raise CheckpointError(f"{folder}: no tokenizer.json")
    return Tokenizer.from_file(str(path))


def _image_limits(folder: Path) -> ImageLimits:
    """The preprocessor's limits; Qwen's stock ones reach 16,384 cells, far beyond what Rex-Omni was trained on, and are replaced by its published ones."""
    facts = _read_json(folder, "preprocessor_config.json")
    size = facts.get("size") or {}
    published = ImageLimits()
    min_pixels = facts.get("min_pixels") or size.get("shortest_edge") or published.min_pixels
    max_pixels = facts.get("max_pixels") or size.get("longest_edge") or published.max_pixels
    if max_pixels > published.max_pixels:
        return published
    return ImageLimits(min_pixels, max_pixels, facts.get("patch_size", 14) * facts.get("merge_size", 2))


def _stop_token_ids(folder: Path, end: int) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    stops = _read_json(folder, path.name).get("eos_token_id") if path.exists() else None
    listed = stops if isinstance(stops, list) else [stops] if stops is not None else []
    return tuple(sorted({end, *listed}))


def _chat_template(folder: Path) -> str:
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        return jinja.read_text("utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _read_json(folder, name).get("chat_template") if (folder / name).exists() else None
        if isinstance(template, str):
            return template
    raise CheckpointError(
        f"{folder}: no chat template (chat_template.jinja, chat_template.json or tokenizer_config.json)"
    )


def _hash_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
