"""Boxes per CPU second from token ids to the Arrow tables of annotations and images. Run as a script it prints one line of JSON."""

import json
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from model.decoding import Answer, decode
from model.prompts import build_prompts
from model.rows import ImageFacts, Origin, annotation_rows, image_id, image_rows
from model.taxonomy import Taxonomy
from model.tokens import BOX_END, BOX_START, END, REF_END, REF_START, Vocabulary

_TOKENIZER = Path(__file__).parents[1] / "examples" / "shapes" / "checkpoint" / "tokenizer.json"
_CATEGORIES = ("red circle", "blue square", "green triangle", "person", "dog", "traffic light")
_IMAGES = 1024  # a shard
_BOXES = 7  # an answer, on average
_SHARDS = 20


def measure() -> dict[str, float]:
    """boxes_per_cpu_second over synthetic shards of 1,024 answers, 7 boxes an answer on average, two or three phrases found, one absent, with log probabilities."""
    vocabulary = Vocabulary.from_tokenizer_file(_TOKENIZER, embedding_rows=1498)
    taxonomy = Taxonomy.model_validate({"categories": _CATEGORIES})
    (prompt,) = build_prompts("detection", taxonomy.phrases)
    shards = [_shard(vocabulary, seed) for seed in range(_SHARDS)]
    seconds, boxes = 0.0, 0
    for number, shard in enumerate([shards[0], *shards]):  # the first once more, as a warm-up
        begun = time.process_time()
        answers = [Answer(ids, logprobs, "stop", prompt, 640, 480) for ids, logprobs in shard]
        keys = [f"s3://archive/2026/11/20/camera-{index:04d}/frame-{number:06d}.jpg" for index in range(len(shard))]
        etags = ["d41d8cd98f00b204e9800998ecf8427e"] * len(shard)
        sizes = [640] * len(shard), [480] * len(shard)
        facts = ImageFacts(
            [image_id(key, etag, prompt.text, "fingerprint") for key, etag in zip(keys, etags, strict=True)],
            keys,
            etags,
            ["s3://archive/2026/"] * len(shard),
            [100_000] * len(shard),
            *sizes,
            *sizes,
        )
        origin = Origin("20261120-115501-a1b2c3", f"20261120-115501-a1b2c3-{number:05d}", "attempt", "worker")
        decoded = decode(answers, vocabulary)
        annotations = annotation_rows(decoded, facts, taxonomy, origin)
        images = image_rows(
            decoded, facts, taxonomy, origin, prompt_tokens=[300] * len(shard), seconds=[0.5] * len(shard)
        )
        if number:
            seconds += time.process_time() - begun
            boxes += annotations.num_rows
            assert images.num_rows == len(shard)
    return {
        "boxes": boxes,
        "answers": _IMAGES * _SHARDS,
        "cpu_seconds": round(seconds, 4),
        "boxes_per_cpu_second": round(boxes / seconds),
    }


def _shard(vocabulary: Vocabulary, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    pieces = {piece: index for index, piece in enumerate(vocabulary.pieces)}
    comma, space = pieces[b","], pieces[b" "]
    tokenizer = Tokenizer.from_file(str(_TOKENIZER))
    names, none = [tokenizer.encode(name).ids for name in _CATEGORIES], tokenizer.encode("None").ids
    marks = {
        kind: int(np.flatnonzero(vocabulary.classes == kind)[0]) for kind in (REF_START, REF_END, BOX_START, BOX_END)
    }
    end = pieces[b"<|im_end|>"]
    assert vocabulary.classes[end] == END
    answers = []
    for _ in range(_IMAGES):
        ids: list[int] = []
        chosen = rng.permutation(len(_CATEGORIES))[: rng.integers(3, 5)]
        groups = rng.multinomial(rng.poisson(_BOXES), [1 / (len(chosen) - 1)] * (len(chosen) - 1)).tolist()
        for category, boxes in zip(chosen, [*groups, 0], strict=True):
            ids += [comma, space] if ids else []
            ids += [marks[REF_START], *names[category], marks[REF_END], marks[BOX_START]]
            for number in range(boxes):
                low, high = rng.integers(0, 500, 2), rng.integers(500, 1000, 2)
                ids += ([comma] if number else []) + vocabulary.bins_to_ids(np.concatenate([low, high])).tolist()
            ids += ([] if boxes else none) + [marks[BOX_END]]
        answers.append((np.array([*ids, end], np.int32), -rng.exponential(0.2, len(ids) + 1).astype(np.float32)))
    return answers


if __name__ == "__main__":
    print(json.dumps(measure()))
