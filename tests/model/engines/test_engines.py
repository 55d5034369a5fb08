import dataclasses
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import CheckpointError
from model.engines import open_engine
from model.engines.admission import AHEAD
from model.engines.base import EngineError, EngineSettings, Request, Sampling
from model.engines.transformers_engine import TransformersEngine
from model.tokens import TokenizerError
from tests.scene_requests import request, scene_requests

PATIENCE_SECONDS = 120.0  # never waited for by a test that passes

engines = pytest.mark.parametrize(
    "engine_name", [pytest.param("vllm_engine", marks=pytest.mark.engine), "transformers_engine"]
)


@pytest.fixture
def engine(request, engine_name):
    return request.getfixturevalue(engine_name)


def _answers(engine, requests):
    answers = {generation.request_id: generation for generation in engine.generate(iter(requests))}
    assert sorted(answers) == sorted(item.request_id for item in requests)
    return answers


def _disagreements(ours, theirs):
    """Requests whose tokens differ; the others' log probabilities must not."""
    different = []
    for request_id, generation in ours.items():
        other = theirs[request_id]
        if not np.array_equal(generation.token_ids, other.token_ids):
            different.append(request_id)
            continue
        np.testing.assert_allclose(generation.logprobs, other.logprobs, atol=1e-3)
        assert generation.finish_reason == other.finish_reason
        assert generation.prompt_tokens == other.prompt_tokens
    return different


@pytest.mark.engine
@pytest.mark.parametrize("count", [32, pytest.param(200, marks=pytest.mark.slow)])
def test_engines_agree(vllm_engine, transformers_engine, count):
    requests = scene_requests(count)
    ours, theirs = _answers(vllm_engine, requests), _answers(transformers_engine, requests)
    assert len(_disagreements(ours, theirs)) <= count // 100


@pytest.mark.engine
def test_engines_agree_under_a_strong_repetition_penalty(vllm_engine, transformers_engine, monkeypatch):
    requests = scene_requests(12, seed=21)
    former = _answers(vllm_engine, requests)
    monkeypatch.setattr(vllm_engine._sampling, "repetition_penalty", 1.6)
    monkeypatch.setattr(transformers_engine, "_sampling", Sampling(repetition_penalty=1.6, max_tokens=256))
    ours, theirs = _answers(vllm_engine, requests), _answers(transformers_engine, requests)
    assert not _disagreements(ours, theirs)
    assert any(not np.array_equal(ours[key].token_ids, former[key].token_ids) for key in ours)


@pytest.mark.engine
def test_images_are_not_resized_again(vllm_engine, transformers_engine, checkpoint):
    # The preprocessor, left to itself, would shrink these to at most 64 cells.
    rng = np.random.default_rng(0)
    sizes = [(196, 280), (28, 2744), (280, 224)]
    requests = [request(str(i), rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for i, size in enumerate(sizes)]
    ours, theirs = _answers(vllm_engine, requests), _answers(transformers_engine, requests)
    text = len(checkpoint.encode(requests[0].prompt)) - 1
    assert [ours[key].prompt_tokens - text for key in "012"] == [70, 98, 80]
    assert not _disagreements(ours, theirs)


@engines
def test_an_answer(engine, checkpoint):
    generation = _answers(engine, scene_requests(1))["0"]
    assert generation.finish_reason == "stop"
    assert generation.token_ids.dtype == np.int32
    assert generation.token_ids[-1] == checkpoint.stop_token_ids[-1]
    assert "<|box_start|>" in checkpoint._tokenizer.decode(generation.token_ids.tolist(), skip_special_tokens=False)
    assert generation.logprobs.dtype == np.float32
    assert generation.logprobs.shape == generation.token_ids.shape
    assert (generation.logprobs <= 0).all()
    assert generation.seconds > 0
    assert generation.error is None


@engines
def test_bad_requests_are_answered_with_the_reason(engine):
    good = scene_requests(3)
    bad = [
        request("size", np.zeros((224, 225, 3), np.uint8)),
        request("grey", np.zeros((224, 224), np.uint8)),
        request("long", good[0].image, ["ring"] * 3000),
        Request("placeholder", good[0].image, "Detect <|image_pad|>."),
    ]
    answers = _answers(engine, [good[0], *bad, *good[1:]])
    assert {key: answers[key].finish_reason for key in answers} == {
        **dict.fromkeys("012", "stop"),
        **dict.fromkeys(("size", "grey", "long", "placeholder"), "error"),
    }
    assert all(not answers[item.request_id].token_ids.size for item in bad)
    assert "multiples of 28" in answers["size"].error
    assert "context" in answers["long"].error
    assert "placeholders" in answers["placeholder"].error


@engines
def test_truncated_answers_say_so(engine, engine_name, monkeypatch):
    if engine_name == "vllm_engine":
        monkeypatch.setattr(engine._sampling, "max_tokens", 7)
    else:
        monkeypatch.setattr(engine, "_sampling", Sampling(max_tokens=7))
    for generation in _answers(engine, scene_requests(2)).values():
        assert generation.finish_reason == "length"
        assert len(generation.token_ids) == len(generation.logprobs) == 7


@engines
def test_nothing_asked(engine):
    assert list(engine.generate([])) == []


@engines
def test_repeated_request_ids_are_each_answered(engine):
    image = scene_requests(1)[0].image
    answers = list(engine.generate([request("same", image)] * 3))
    assert [answer.request_id for answer in answers] == ["same"] * 3


@engines
def test_a_waiting_source_does_not_stop_the_engine(engine):
    """The source gives the second half only when the first is answered: an engine that waited for a whole batch would never end."""
    answered = threading.Semaphore(0)
    first, second = scene_requests(3), scene_requests(6)[3:]

    def requests():
        yield from first
        for _ in first:
            assert answered.acquire(timeout=PATIENCE_SECONDS)
        yield from second

    seen = []
    for generation in engine.generate(requests()):
        seen.append(generation.request_id)
        answered.release()
    assert set(seen[:3]) == set("012")
    assert set(seen[3:]) == set("345")


@engines
def test_bounded_in_flight(engine):
    pulled = []

    def requests():
        for item in scene_requests(4) * 1000:
            pulled.append(item)
            yield item

    answers = engine.generate(requests())
    next(answers)
    answers.close()
    assert len(pulled) <= engine.max_in_flight + max(AHEAD, engine.max_in_flight) + 2


@engines
def test_exceptions_of_the_source_are_raised_and_the_engine_lives(engine):
    def requests():
        yield from scene_requests(2)
        raise OSError("the listing broke off")

    with pytest.raises(OSError, match="broke off"):
        list(engine.generate(requests()))
    assert len(_answers(engine, scene_requests(2))) == 2


@engines
def test_closing_early_drops_the_rest_and_the_engine_lives(engine):
    expected = _answers(engine, scene_requests(4, seed=22))
    answers = engine.generate(scene_requests(40))
    next(answers)
    answers.close()
    assert not _disagreements(_answers(engine, scene_requests(4, seed=22)), expected)


@pytest.mark.engine
def test_one_generate_at_a_time(vllm_engine):
    answers = vllm_engine.generate(scene_requests(20))
    next(answers)
    with pytest.raises(RuntimeError, match="one generate at a time"):
        next(vllm_engine.generate(scene_requests(1)))
    answers.close()


@pytest.mark.engine
def test_a_dead_engine_raises(vllm_engine, monkeypatch):
    def step():
        raise ValueError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(vllm_engine._engine, "step", step)
        with pytest.raises(EngineError, match="has died: ValueError: out of memory"):
            list(vllm_engine.generate(scene_requests(1)))


@pytest.mark.engine
def test_an_argument_that_vllm_does_not_know(checkpoint):
    settings = EngineSettings(args={"gpu_memory_utilisation": 0.5})
    with pytest.raises(EngineError, match="gpu_memory_utilisation"):
        open_engine(checkpoint, settings, Sampling(max_tokens=64), checkpoint.image_limits, longest_prompt_tokens=40)


@pytest.mark.engine
def test_the_process_is_left_as_it_was(vllm_engine):
    import torch

    assert "tcmalloc" not in os.environ.get("LD_PRELOAD", "")
    assert torch.set_num_threads.__name__ == "set_num_threads"


def test_a_job_that_cannot_work_is_refused_before_anything_is_loaded(checkpoint):
    limits, nowhere = checkpoint.image_limits, dataclasses.replace(checkpoint, folder=Path("/nowhere"))
    with pytest.raises(CheckpointError, match="lower max_tokens to"):
        open_engine(checkpoint, EngineSettings(), Sampling(), limits, longest_prompt_tokens=40)
    with pytest.raises(TokenizerError):
        small = dataclasses.replace(checkpoint, embedding_rows=1000)
        open_engine(small, EngineSettings(), Sampling(max_tokens=64), limits, longest_prompt_tokens=40)
    with pytest.raises(EngineError, match="cannot load"):
        TransformersEngine(nowhere, EngineSettings(), Sampling(), 512)
