"""A program for test_vllm_processes.py: vLLM with its core in processes of their own, as on CUDA, interrupted and then killed."""

import multiprocessing
import os
import signal
from pathlib import Path

from model.checkpoint import Checkpoint
from model.engines import open_engine
from model.engines.base import EngineError, EngineSettings, Sampling
from tests.scene_requests import scene_requests


def main() -> None:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    checkpoint = Checkpoint.load(Path(__file__).parents[3] / "examples" / "shapes" / "checkpoint")
    engine = open_engine(
        checkpoint, EngineSettings(), Sampling(max_tokens=256), checkpoint.image_limits, longest_prompt_tokens=160
    )
    requests = scene_requests(40)

    interrupts = []
    signal.signal(signal.SIGINT, lambda *_: interrupts.append(1))
    answers = engine.generate(requests)
    next(answers)
    os.killpg(os.getpgrp(), signal.SIGINT)
    print("after an interrupt:", 1 + len(list(answers)), "answers,", len(interrupts), "interrupt")

    answers = engine.generate(requests)
    next(answers)
    answers.close()
    print("after closing early:", len(list(engine.generate(requests))), "answers")

    answers = engine.generate(requests * 10)
    next(answers)
    for child in multiprocessing.active_children():
        child.kill()
    try:
        print("killed:", len(list(answers)), "answers")
    except EngineError as error:
        print("killed:", error)
    engine.close()
    print("left:", multiprocessing.active_children())


if __name__ == "__main__":  # vLLM's processes import this file again
    main()
