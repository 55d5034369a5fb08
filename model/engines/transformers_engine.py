"""The reference engine: transformers' own generate, in batches. Slow beside vLLM and simple; its greedy tokens are what vLLM's are compared with."""

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from model.checkpoint import Checkpoint
from model.engines.admission import Feed, check_request, refusal
from model.engines.base import EngineError, EngineSettings, FinishReason, Generation, Request, Sampling

_FULL_BATCH_PATIENCE_SECONDS = 0.1  # a batch starts without the images that take longer than this to come


@dataclass(frozen=True, slots=True)
class _Prepared:
    request: Request
    prompt_ids: list[int]
    prompt_tokens: int


class TransformersEngine:
    """Qwen2.5-VL by transformers, on the GPU where there is one. settings.args go to from_pretrained."""

    name = "transformers"

    def __init__(
        self, checkpoint: Checkpoint, settings: EngineSettings, sampling: Sampling, context_length: int
    ) -> None:
        """Loads the weights. Raises EngineError where that fails."""
        try:
            import torch
            import transformers
        except ImportError as error:
            raise EngineError(f"transformers is not installed: {error}") from error
        if settings.quantization is not None:
            raise EngineError(
                "the transformers engine quantises nothing by itself: leave engine.quantization out, or use vllm"
            )
        self.version = transformers.__version__
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.max_in_flight = settings.max_in_flight or (16 if self._device.type == "cuda" else 8)
        self._checkpoint = checkpoint
        self._sampling = sampling
        self._context_length = context_length
        self._cell = checkpoint.image_limits.factor
        self._encode = lru_cache(maxsize=1024)(checkpoint.encode)
        dtype = settings.dtype if settings.dtype != "auto" or self._device.type == "cuda" else "float32"
        try:
            self._images = transformers.AutoImageProcessor.from_pretrained(checkpoint.folder)
            model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
                checkpoint.folder, dtype=dtype, **settings.args
            )
        except Exception as error:
            raise EngineError(f"transformers cannot load {checkpoint.folder}: {error}") from error
        drawing = (
            {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k}
            if sampling.temperature > 0
            else {"do_sample": False}
        )
        # Replaced, not merged: a checkpoint's own generation settings (Rex-Omni's base has some) would mix with the job's.
        self._pad = checkpoint.stop_token_ids[0]
        model.generation_config = transformers.GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            eos_token_id=list(checkpoint.stop_token_ids),
            pad_token_id=self._pad,
            **drawing,
        )
        self._model: Any = model.to(self._device).eval()

    def generate(self, requests: Iterable[Request]) -> Generator[Generation, None, None]:
        """See Engine. A batch is what is ready, at most max_in_flight requests, and is answered as a whole."""
        if self._model is None:
            raise EngineError("the engine is closed")
        feed = Feed(requests, self._prepare, ahead=self.max_in_flight)
        try:
            while batch := self._next_batch(feed):
                yield from (item for item in batch if isinstance(item, Generation))
                answerable = [item for item in batch if isinstance(item, _Prepared)]
                if answerable:
                    yield from self._answer(answerable)
        finally:
            feed.close()

    def close(self) -> None:
        """Frees the model. Idempotent."""
        self._model = None

    def _prepare(self, request: Request) -> _Prepared | Generation:
        try:
            ids = self._encode(request.prompt)
            return _Prepared(
                request, ids, check_request(request, ids, cell=self._cell, context_length=self._context_length)
            )
        except ValueError as error:
            return refusal(request, str(error))

    def _next_batch(self, feed: Feed[_Prepared | Generation]) -> list[_Prepared | Generation]:
        """At least one item, unless the feed is exhausted."""
        batch: list[_Prepared | Generation] = []
        patience: float | None = None
        while len(batch) < self.max_in_flight and (item := feed.take(wait_seconds=patience)) is not None:
            batch.append(item)
            patience = _FULL_BATCH_PATIENCE_SECONDS
        return batch

    def _answer(self, batch: list[_Prepared]) -> Iterator[Generation]:
        import torch

        started = time.perf_counter()
        rows = [self._with_image_tokens(item) for item in batch]
        longest = max(len(row) for row in rows)
        ids = torch.full((len(rows), longest), self._pad)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, longest - len(row) :] = torch.tensor(row)
            mask[index, longest - len(row) :] = 1
        trace = _Trace(self._sampling.repetition_penalty)
        try:
            pixels = self._images(
                images=[item.request.image for item in batch],
                do_resize=False,
                input_data_format="channels_last",
                return_tensors="pt",
            )
            with torch.inference_mode():
                said = self._model.generate(
                    input_ids=ids.to(self._device),
                    attention_mask=mask.to(self._device),
                    mm_token_type_ids=(ids == self._checkpoint.image_token_id).int().to(self._device),
                    pixel_values=pixels["pixel_values"].to(self._device, self._model.dtype),
                    image_grid_thw=pixels["image_grid_thw"].to(self._device),
                    logits_processor=[trace.penalise(mask.to(self._device).bool())],
                    stopping_criteria=[trace.record],
                    # The longest answer that still fits beside the longest prompt of the batch.
                    max_new_tokens=min(self._sampling.max_tokens, self._context_length - longest),
                )[:, longest:].cpu()
        except Exception as error:
            raise EngineError(
                f"transformers failed on a batch of {len(batch)}: {type(error).__name__}: {error}"
            ) from error
        seconds = time.perf_counter() - started
        logprobs = torch.stack(trace.logprobs, dim=1).float().cpu().numpy()
        for index, item in enumerate(batch):
            answer = said[index].numpy().astype(np.int32)
            stops = np.flatnonzero(np.isin(answer, self._checkpoint.stop_token_ids))
            length = int(stops[0]) + 1 if stops.size else answer.size
            reason: FinishReason = "stop" if stops.size else "length"
            yield Generation(
                item.request.request_id,
                answer[:length],
                logprobs[index, :length].copy(),
                reason,
                item.prompt_tokens,
                seconds,
            )

    def _with_image_tokens(self, item: _Prepared) -> list[int]:
        image, (height, width) = self._checkpoint.image_token_id, item.request.image.shape[:2]
        at = item.prompt_ids.index(image)
        return (
            item.prompt_ids[:at] + [image] * (height // self._cell * (width // self._cell)) + item.prompt_ids[at + 1 :]
        )


class _Trace:
    """Watches a generate call: the repetition penalty as vLLM applies it, and each token's log probability before the penalty.

    transformers' own penalty would count the padding on the left as said, and its output_logits keeps a whole vocabulary a token.
    """

    def __init__(self, repetition_penalty: float) -> None:
        self.logprobs: list[Any] = []  # one (batch,) tensor a token
        self._penalty = repetition_penalty
        self._step: Any = None  # (batch, vocabulary) log probabilities of the token about to be chosen

    def penalise(self, prompt_mask: Any) -> Any:
        """The logits processor. prompt_mask: (batch, prompt) bool, False where it is padding."""
        seen: Any = None

        def processor(input_ids: Any, scores: Any) -> Any:
            nonlocal seen
            self._step = scores.float().log_softmax(-1)
            if self._penalty == 1:
                return scores
            if seen is None:
                seen = scores.new_zeros(scores.shape, dtype=prompt_mask.dtype)
                # Padding is written to the column of each row's last, real token, which is seen anyway.
                seen.scatter_(1, input_ids.where(prompt_mask, input_ids[:, -1:]), True)
            else:
                seen.scatter_(1, input_ids[:, -1:], True)
            return scores.where(~seen, (scores * self._penalty).where(scores < 0, scores / self._penalty))

        return processor

    def record(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """The stopping criterion, called when a token was chosen: notes its log probability, stops nothing."""
        self.logprobs.append(self._step.gather(1, input_ids[:, -1:]).squeeze(1))
        return input_ids.new_zeros(input_ids.shape[0], dtype=bool)
