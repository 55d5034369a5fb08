"""The working engine: vLLM, with one code for its CUDA and its CPU build, fed continuously. Decodes nothing and knows no job."""

import logging
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
from PIL import Image

from model.checkpoint import Checkpoint
from model.engines.admission import Feed, check_request, refusal
from model.engines.base import EngineError, EngineSettings, Generation, Request, Sampling
from model.image_size import ImageLimits

# Set only where unset, and before vllm is imported, which reads them then.
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout belongs to the program that embeds the engine
}
_CUDA_ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "WARNING"}
_CPU_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",  # a dozen warnings at each start say that this is a CPU
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: starts in seconds, and one process is all two cores can feed
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # bound threads would pin the process's other threads, which fetch images, to the same core
    "TORCH_COMPILE_DISABLE": "1",  # it would compile one small function at the first request: 10 s, and a C++ compiler on the machine
}
_SMALL_WEIGHTS_BYTES = 256 << 20  # below it a second thread costs more in waiting than it computes
_CPU_CACHE_SHARE = 0.25  # of the free memory, at most, for the key-value cache of a CPU engine


@dataclass(frozen=True, slots=True)
class _Prepared:
    request: Request
    engine_input: Any
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class _InFlight:
    request_id: str
    prompt_tokens: int
    admitted_at: float


class VllmEngine:
    """vLLM with its engine core in a process of its own (CUDA) or in this one (CPU). settings.args override EngineArgs by name."""

    name = "vllm"

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: EngineSettings,
        sampling: Sampling,
        limits: ImageLimits,
        context_length: int,
    ) -> None:
        """Loads the weights; to be called on the process's main thread, as vLLM wants it. Raises EngineError where it cannot start."""
        self._cell = limits.factor
        self._context_length = int(settings.args.get("max_model_len", context_length))
        self._encode = lru_cache(maxsize=1024)(checkpoint.encode)
        self._numbers = iter(range(sys.maxsize))
        self._busy = False
        self._engine: Any = None
        on_cpu = _is_cpu_build()
        _prepare_environment(checkpoint, on_cpu)
        in_process = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"
        try:
            self.version = _version()
            from vllm import SamplingParams
            from vllm.engine.arg_utils import EngineArgs
            from vllm.sampling_params import RequestOutputKind
            from vllm.usage.usage_lib import UsageContext
            from vllm.v1.engine.llm_engine import LLMEngine

            arguments = {
                **_arguments(checkpoint, settings, limits, self._context_length, on_cpu, in_process),
                **settings.args,
            }
            self.max_in_flight = int(arguments["max_num_seqs"])
            with _process_left_as_it_was(on_cpu, in_process):
                self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments), usage_context=UsageContext.LLM_CLASS)
            if not in_process:
                _report_death(self._engine.engine_core)
        except ImportError as error:
            raise EngineError(f"vllm cannot be imported: {error}") from error
        except Exception as error:
            raise EngineError(f"vllm cannot start: {type(error).__name__}: {error}") from error
        self._sampling = SamplingParams(
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
            stop_token_ids=list(checkpoint.stop_token_ids),
            logprobs=0,  # of the token itself, of no others
            flat_logprobs=True,
            detokenize=False,  # answers are decoded from ids
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        # One waits in the engine for every eight that run, so that a finished one is replaced within the step.
        self._admitted_at_most = self.max_in_flight + (0 if in_process else -(-self.max_in_flight // 8))

    def generate(self, requests: Iterable[Request]) -> Generator[Generation, None, None]:
        """See Engine. Requests join while others generate; images are prepared for the model in the thread that drains requests."""
        if self._engine is None:
            raise EngineError("the engine is closed")
        if self._busy:
            raise RuntimeError("one generate at a time: chain the requests, or close the former iterator")
        self._busy = True
        feed = Feed(requests, self._prepare)
        in_flight: dict[str, _InFlight] = {}
        try:
            while True:
                yield from self._admit(feed, in_flight)
                if in_flight:
                    yield from self._step(in_flight)
                elif feed.exhausted:
                    return
        finally:
            feed.close()
            self._busy = False
            self._abort(in_flight)

    def close(self) -> None:
        """Ends the engine's processes and frees its memory. Idempotent."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        from vllm.distributed import cleanup_dist_env_and_memory

        engine.engine_core.shutdown()
        engine.renderer.shutdown()
        del engine
        cleanup_dist_env_and_memory()

    def _prepare(self, request: Request) -> _Prepared | Generation:
        """The engine's input for a request, or its refusal. Runs in the feed's thread: patches of images are made here, not between two steps."""
        from vllm.exceptions import VLLMClientError

        try:
            ids = self._encode(request.prompt)
            prompt_tokens = check_request(request, ids, cell=self._cell, context_length=self._context_length)
            prompt = {"prompt_token_ids": list(ids), "multi_modal_data": {"image": Image.fromarray(request.image)}}
            (engine_input,) = self._engine.renderer.render_cmpl([prompt])
        except (ValueError, TypeError, VLLMClientError) as error:
            return refusal(request, str(error))
        return _Prepared(request, engine_input, prompt_tokens)

    def _admit(self, feed: Feed[_Prepared | Generation], in_flight: dict[str, _InFlight]) -> Iterator[Generation]:
        """Hands the engine what is ready and fits; waits for a request only where the engine has nothing else to do. Yields the refusals."""
        from vllm.exceptions import VLLMClientError

        while len(in_flight) < self._admitted_at_most:
            item = feed.take(wait_seconds=0.0 if in_flight else None)
            if item is None:
                return
            if isinstance(item, Generation):
                yield item
                continue
            number = str(next(self._numbers))  # the caller's ids need not be unique among what is in flight
            try:
                self._engine.add_request(number, item.engine_input, self._sampling)
            except (ValueError, TypeError, VLLMClientError) as error:
                yield refusal(item.request, str(error))
            except Exception as error:
                raise _death(error, in_flight) from error
            else:
                in_flight[number] = _InFlight(item.request.request_id, item.prompt_tokens, time.perf_counter())

    def _step(self, in_flight: dict[str, _InFlight]) -> Iterator[Generation]:
        try:
            outputs = self._engine.step()
        except Exception as error:
            raise _death(error, in_flight) from error
        for output in outputs:
            if output.finished:
                yield _generation(in_flight.pop(output.request_id), output.outputs[0])

    def _abort(self, in_flight: dict[str, _InFlight]) -> None:
        if in_flight and self._engine is not None:
            self._engine.abort_request(list(in_flight))


def _report_death(client: Any) -> None:
    """Lets step raise when the engine's process is killed from outside, as the kernel does for memory: vLLM 0.32's client would wait for ever."""
    from vllm.v1.engine.exceptions import EngineDeadError

    sentinels = client.resources.engine_manager.sentinels()

    def watch() -> None:
        multiprocessing.connection.wait(sentinels)
        client.outputs_queue.put(EngineDeadError())

    threading.Thread(target=watch, name="engine-watch", daemon=True).start()


def _death(error: Exception, in_flight: dict[str, _InFlight]) -> EngineError:
    in_flight.clear()  # there is nothing left that could be aborted
    return EngineError(f"vllm has died: {type(error).__name__}: {error}")


def _generation(asked: _InFlight, answer: Any) -> Generation:
    seconds = time.perf_counter() - asked.admitted_at
    token_ids = np.asarray(answer.token_ids, np.int32)
    if answer.finish_reason not in ("stop", "length"):
        return Generation(
            asked.request_id,
            token_ids,
            None,
            "error",
            asked.prompt_tokens,
            seconds,
            f"vllm ended the request: {answer.finish_reason}",
        )
    flat = answer.logprobs
    # A position holds the chosen token first; for a greedy one nothing else.
    logprobs = np.asarray(flat.logprobs, np.float32)[np.asarray(flat.start_indices, np.int64)]
    return Generation(asked.request_id, token_ids, logprobs, answer.finish_reason, asked.prompt_tokens, seconds)


def _arguments(
    checkpoint: Checkpoint,
    settings: EngineSettings,
    limits: ImageLimits,
    context_length: int,
    on_cpu: bool,
    in_process: bool,
) -> dict[str, Any]:
    """EngineArgs for this machine, by name."""
    arguments: dict[str, Any] = {
        "model": str(checkpoint.folder),
        "dtype": "float32" if on_cpu and settings.dtype == "auto" else settings.dtype,
        "quantization": settings.quantization,
        "max_model_len": context_length,
        "max_num_seqs": settings.max_in_flight or (64 if on_cpu else 256),
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        # Images come at the size the model sees; resizing again could move them by a cell where limits are narrow.
        "mm_processor_kwargs": {
            "size": {"shortest_edge": limits.min_pixels, "longest_edge": limits.max_pixels},
            "do_resize": False,
        },
        # An image is asked about once, and stands before the text: nothing of it can be used again.
        "mm_processor_cache_gb": 0,
        "enable_prefix_caching": False,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
    }
    if on_cpu:
        cache_bytes = _cpu_cache_bytes(checkpoint, arguments["max_num_seqs"], context_length)
        arguments |= {"enforce_eager": True, "kv_cache_memory_bytes": cache_bytes}
        if in_process:
            arguments["distributed_executor_backend"] = "uni"
    else:
        arguments["gpu_memory_utilization"] = 0.9
    return arguments


def _cpu_cache_bytes(checkpoint: Checkpoint, sequences: int, context_length: int) -> int:
    """Key-value cache for a quarter of the sequences at full length: answers are seldom long, and where they are, vLLM lets the youngest wait.

    Within a share of the free memory, but never less than one sequence needs.
    """
    block = 128  # tokens vLLM allots at once on a CPU
    one = checkpoint.kv_values_per_token * 4 * (-(-context_length // block) + 1) * block
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(one, min(one * -(-sequences // 4), int(free * _CPU_CACHE_SHARE)))


def _version() -> str:
    try:
        return metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return metadata.version("vllm-cpu") + "+cpu"


def _is_cpu_build() -> bool:
    """As vLLM itself decides it, which must be known before it is imported."""
    if os.environ.get("VLLM_TARGET_DEVICE") == "cpu":
        return True
    try:
        return "cpu" in _version()
    except metadata.PackageNotFoundError:
        return False


def _prepare_environment(checkpoint: Checkpoint, on_cpu: bool) -> None:
    for name, value in (_ENVIRONMENT | (_CPU_ENVIRONMENT if on_cpu else _CUDA_ENVIRONMENT)).items():
        os.environ.setdefault(name, value)
    if on_cpu:
        # A core is left to the threads that fetch and decode images.
        cores = len(os.sched_getaffinity(0))
        os.environ.setdefault(
            "OMP_NUM_THREADS", "1" if checkpoint.weights_bytes < _SMALL_WEIGHTS_BYTES else str(max(1, cores - 1))
        )
        logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # it warns that a CPU has no triton


@contextmanager
def _process_left_as_it_was(on_cpu: bool, in_process: bool) -> Iterator[None]:
    """Undoes what vLLM does to the process that starts it, and keeps Ctrl-C from the engine's own processes.

    An interrupt at the terminal reaches every process of the group; the engine's would die and take down answers that the caller means to finish. A
    signal mask is inherited, where a handler would be replaced. The interrupt itself arrives here once the engine has started.
    """
    import torch

    preload, set_num_threads = os.environ.get("LD_PRELOAD"), torch.set_num_threads
    if on_cpu:
        # The variables alone come too late where torch is already imported.
        set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        if os.environ["TORCH_COMPILE_DISABLE"] == "1":
            torch.compiler.set_stance("force_eager")
    if not in_process:
        resource_tracker.ensure_running()  # or starting it would unblock the signal again, before the engine's processes start
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, set() if in_process else {signal.SIGINT})
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        # On a CPU vLLM preloads its allocator into every later child, and puts a stub that warns here, which its own preparation of images calls.
        torch.set_num_threads = set_num_threads
        if preload is None:
            os.environ.pop("LD_PRELOAD", None)
        else:
            os.environ["LD_PRELOAD"] = preload
