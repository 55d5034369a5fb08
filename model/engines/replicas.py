"""Several engines on this machine behind one, each in a process of its own with a GPU of its own. Knows no kind of engine."""

import atexit
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from model.checkpoint import Checkpoint
from model.engines.admission import AHEAD, Feed
from model.engines.base import EngineError, EngineSettings, Generation, Request, Sampling
from model.image_size import ImageLimits

_CLOSE_SECONDS = 20.0  # after it, a replica that does not end is killed


@dataclass(frozen=True, slots=True)
class _Ready:
    """A replica's first message: its engine's facts."""

    name: str
    version: str
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class _Ended:
    """A replica's last message of a generate call. error: why its engine died; None: it waits for the next call."""

    error: str | None = None


@dataclass(frozen=True, slots=True)
class _NoMoreRequests:
    """To a replica: the generate call has no more requests. dropped: those it has need no answer."""

    dropped: bool


class _Dropped(Exception):
    """Raised among a replica's requests: ends its generate call without the answers."""


@dataclass(slots=True)
class _Replica:
    label: str
    process: SpawnProcess
    connection: Connection
    capacity: int = 0  # requests it takes before it has answered one
    room: threading.Semaphore = field(default_factory=threading.Semaphore)  # how many more it can take in this call


class ReplicatedEngine:
    """settings.replicas engines of settings.kind. A request goes to whichever has room first."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: EngineSettings,
        sampling: Sampling,
        limits: ImageLimits,
        longest_prompt_tokens: int,
    ) -> None:
        """Starts all at once and waits for them. Raises EngineError naming the replica that does not start."""
        self._replicas: list[_Replica] = []
        self._answers: queue.Queue[tuple[_Replica, Generation | _Ready | _Ended | BaseException]] = queue.Queue()
        self._busy = False
        context = multiprocessing.get_context("spawn")
        threads = max(1, len(os.sched_getaffinity(0)) // settings.replicas)
        single = settings.model_copy(update={"replicas": 1})
        try:
            for index, device in enumerate(_devices(settings.replicas)):
                ours, theirs = context.Pipe()
                arguments = (
                    theirs,
                    device,
                    threads,
                    checkpoint.folder,
                    single,
                    sampling,
                    limits,
                    longest_prompt_tokens,
                )
                process = context.Process(target=_serve, args=arguments, name=f"engine-{index}")
                process.start()
                theirs.close()  # the replica's alone now, so that its death ends the pipe
                self._replicas.append(_Replica(f"engine replica {index} (device {device})", process, ours))
            atexit.register(self.close)  # without it, the end of this process waits for children that wait for it
            facts = [_await_start(replica) for replica in self._replicas]
        except BaseException:
            self.close()
            raise
        self.name, self.version = facts[0].name, facts[0].version
        self.max_in_flight = sum(fact.max_in_flight for fact in facts)

    def generate(self, requests: Iterable[Request]) -> Generator[Generation, None, None]:
        """See Engine. The death of one replica ends the call and the engine: what it was asked is not asked again here."""
        if not self._replicas:
            raise EngineError("the engine is closed")
        if self._busy:
            raise RuntimeError("one generate at a time: chain the requests, or close the former iterator")
        self._busy = True
        feed: Feed[Request] = Feed(requests, lambda request: request)
        stopped = threading.Event()
        for replica in self._replicas:
            replica.room = threading.Semaphore(replica.capacity)
            threading.Thread(
                target=self._send, args=(replica, feed, stopped), name="engine-sender", daemon=True
            ).start()
            threading.Thread(target=self._collect, args=(replica,), name="engine-collector", daemon=True).start()
        running = len(self._replicas)
        try:
            while running:
                replica, answer = self._answers.get()
                if isinstance(answer, Generation):
                    replica.room.release()
                    yield answer
                elif isinstance(answer, BaseException):
                    raise answer
                elif isinstance(answer, _Ended):
                    running -= 1
                    if answer.error is not None:
                        raise EngineError(f"{replica.label}: {answer.error}")
        finally:
            stopped.set()
            feed.close()
            for replica in self._replicas:
                replica.room.release()  # wakes a sender that waits for room
            while running:  # so that the next call starts with nothing left of this one
                running -= isinstance(self._answers.get()[1], _Ended)
            self._busy = False

    def close(self) -> None:
        """Ends the processes. Idempotent."""
        atexit.unregister(self.close)
        replicas, self._replicas = self._replicas, []
        for replica in replicas:
            replica.connection.close()  # a replica ends when nobody is left at the other end
        for replica in replicas:
            replica.process.join(_CLOSE_SECONDS)
            if replica.process.is_alive():
                replica.process.kill()
                replica.process.join()

    def _send(self, replica: _Replica, feed: Feed[Request], stopped: threading.Event) -> None:
        message: Request | _NoMoreRequests | None = None
        while not isinstance(message, _NoMoreRequests):
            replica.room.acquire()
            try:
                message = None if stopped.is_set() else feed.take(wait_seconds=None)
            except BaseException as error:  # noqa: BLE001  what requests raised belongs to the caller of generate
                stopped.set()
                self._answers.put((replica, error))
            if message is None or stopped.is_set():
                message = _NoMoreRequests(dropped=stopped.is_set())
            try:
                replica.connection.send(message)
            except OSError:
                return  # the pipe is broken: the collector sees it too, and says why

    def _collect(self, replica: _Replica) -> None:
        while True:
            message = _receive(replica)
            self._answers.put((replica, message))
            if isinstance(message, _Ended):
                return


def _devices(count: int) -> list[str]:
    visible = [device for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
    if visible and len(visible) < count:
        raise EngineError(f"engine.replicas is {count}, but CUDA_VISIBLE_DEVICES names {len(visible)} device(s)")
    return visible[:count] or [str(index) for index in range(count)]


def _receive(replica: _Replica) -> Generation | _Ready | _Ended:
    try:
        message: Generation | _Ready | _Ended = replica.connection.recv()
    except (EOFError, OSError):
        replica.process.join(1.0)
        return _Ended(f"its process has died with exit code {replica.process.exitcode}")
    return message


def _await_start(replica: _Replica) -> _Ready:
    message = _receive(replica)
    if isinstance(message, _Ready):
        replica.capacity = message.max_in_flight + AHEAD
        return message
    raise EngineError(f"{replica.label} cannot start: {message.error if isinstance(message, _Ended) else message}")


def _serve(
    connection: Connection,
    device: str,
    threads: int,
    folder: Path,
    settings: EngineSettings,
    sampling: Sampling,
    limits: ImageLimits,
    longest_prompt_tokens: int,
) -> None:
    """A replica's process: one generate call after another, until the other end of the pipe is gone."""
    # Interrupts reach the whole process group, but only the parent decides when its replicas end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    # More threads than cores wait for each other busily: two replicas on two cores were a hundred times slower.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    from model.engines import open_engine  # only now may CUDA be looked for

    try:
        engine = open_engine(
            Checkpoint.load(folder), settings, sampling, limits, longest_prompt_tokens=longest_prompt_tokens
        )
    except Exception as error:  # noqa: BLE001  told to the parent, which raises it
        connection.send(_Ended(f"{type(error).__name__}: {error}"))
        return
    ended = _Ended()
    try:
        connection.send(_Ready(engine.name, engine.version, engine.max_in_flight))
        while ended.error is None:
            try:
                for generation in engine.generate(_requests(connection)):
                    connection.send(generation)
            except _Dropped:
                pass
            except EngineError as error:
                ended = _Ended(str(error))
            connection.send(ended)
    except (EOFError, OSError):
        pass  # the parent has closed its end, or is gone
    finally:
        engine.close()


def _requests(connection: Connection) -> Iterator[Request]:
    while not isinstance(message := connection.recv(), _NoMoreRequests):
        yield message
    if message.dropped:
        raise _Dropped
