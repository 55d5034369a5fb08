import pytest

from model.engines import open_engine
from model.engines.base import EngineError, EngineSettings, Sampling
from model.engines.replicas import _devices
from tests.scene_requests import scene_requests

TOKENS = 200


def _open(checkpoint, **settings):
    return open_engine(
        checkpoint,
        EngineSettings(kind="transformers", replicas=2, max_in_flight=4, **settings),
        Sampling(max_tokens=TOKENS),
        checkpoint.image_limits,
        longest_prompt_tokens=100,
    )


@pytest.mark.slow
def test_replicas(checkpoint, transformers_engine):
    """One life of two replicas: asked, broken off, asked again, failed by its source, and killed."""
    engine = _open(checkpoint)
    requests = scene_requests(40)
    expected = {
        generation.request_id: generation.token_ids.tolist() for generation in transformers_engine.generate(requests)
    }
    try:
        assert (engine.name, engine.max_in_flight) == ("transformers", 8)
        for _ in range(2):
            answers = {generation.request_id: generation.token_ids.tolist() for generation in engine.generate(requests)}
            assert answers == expected

            answers = engine.generate(requests)
            next(answers)
            answers.close()

        def broken():
            yield from requests[:3]
            raise OSError("the listing broke off")

        with pytest.raises(OSError, match="broke off"):
            list(engine.generate(broken()))
        assert len(list(engine.generate(requests[:5]))) == 5

        answers = engine.generate(requests * 10)
        next(answers)
        engine._replicas[1].process.kill()
        with pytest.raises(EngineError, match=r"engine replica 1 \(device 1\): its process has died with exit code -9"):
            list(answers)
        with pytest.raises(EngineError, match="replica 1"):
            list(engine.generate(requests))
    finally:
        processes = [replica.process for replica in engine._replicas]
        engine.close()
        engine.close()
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(EngineError, match="closed"):
        next(engine.generate(requests))


@pytest.mark.slow
def test_a_replica_that_cannot_start_is_named(checkpoint):
    with pytest.raises(
        EngineError, match=r"engine replica 0 \(device 0\) cannot start: EngineError: transformers cannot load"
    ):
        _open(checkpoint, args={"attn_implementation": "none such"})


@pytest.mark.parametrize(
    ("visible", "devices"),
    [("", ["0", "1"]), ("3,5,7", ["3", "5"]), ("GPU-a1,GPU-b2", ["GPU-a1", "GPU-b2"])],
)
def test_devices(monkeypatch, visible, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _devices(2) == devices


def test_fewer_devices_than_replicas(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(EngineError, match=r"replicas is 2, but CUDA_VISIBLE_DEVICES names 1 device"):
        _devices(2)
