"""The GPU worker: one engine for its life, many shards, the images of the next shard already on their way while this one's stragglers generate."""

import os
import secrets
import socket
import time
from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from flows.job import LabelJob
from sinks.dataset.ledger import Ledger
from sinks.dataset.records import ImageRecord, Shard
from tasks.committing import ShardWriter, commit_task
from tasks.draining import drain_on_signals
from tasks.fetching import fetch_images
from tasks.labelling import stream_shards
from tasks.preparing import load_engine
from tasks.progress import announce, show_progress
from tasks.sources import Sources

COMMITTING_AT_ONCE = 2  # more would only fight over the CPU with the fetching threads
COMMITS_AHEAD = 4  # shards labelled but not committed yet: bounds memory where the store is slower than the engine


class OtherQuestionError(RuntimeError):
    """This machine would ask something else than the plan was made for: another checkpoint, prompt or setting."""


@dataclass(frozen=True, slots=True)
class ShardsReport:
    """What one worker did. shards: committed by it; drained: it was asked to stop and left shards over; seconds: with the engine loaded."""

    shards: int
    images: int
    drained: bool
    engine: str
    seconds: float

    @property
    def images_per_second(self) -> float | None:
        return self.images / self.seconds if self.images else None


@flow(
    name="label-shards",
    flow_run_name="label the shards of {run_id}",
    task_runner=ThreadPoolTaskRunner(max_workers=COMMITTING_AT_ONCE),  # type: ignore[arg-type]  # its type has no place for one
)
def label_shards(job: LabelJob, run_id: str, limit: int | None = None) -> ShardsReport:
    """Labels and commits the run's shards that are left, and with each its share of the job's golden images; limit caps the images, rounded up to whole shards.

    Raises what breaks a machine (EngineError, StorageUnavailable, OtherQuestionError): the shards it had not committed are done again by the next worker.
    """
    question = job.question()
    ledger = Ledger.open(job.output, job.credentials.output)
    plan = ledger.plan(run_id)
    if plan.fingerprint != question.generation:
        raise OtherQuestionError(
            f"run {run_id} was planned under {plan.fingerprint}, this machine would ask under {question.generation}: use the job and the checkpoint it was planned with"
        )
    left = ledger.shards_left(plan)
    if limit is not None:
        left = left[: -(-limit * plan.shards // plan.images)]
    if not left:
        return ShardsReport(0, 0, False, "none was needed", 0.0)
    sample = job.golden_sample()

    def golden(shard: Shard) -> list[ImageRecord]:
        return [image.record for image in sample.of_shard(shard.index, plan.shards)]

    worker, attempt = f"{socket.gethostname()}:{os.getpid()}", secrets.token_hex(6)
    with ExitStack() as resources:
        stop = resources.enter_context(drain_on_signals())
        if stop.is_set():
            return ShardsReport(0, 0, True, "was not loaded any more", 0.0)
        announce(f"loading {question.files.name} into {job.engine.kind}")
        engine = resources.enter_context(closing(load_engine(question, job.engine)))
        started = time.monotonic()
        write = ShardWriter(ledger, question, attempt, worker, sample.known)
        fetch = partial(
            fetch_images,
            source=Sources(job.credentials.source),
            limits=question.limits,
            settings=job.fetching,
            stop=stop,
        )
        shards = (ledger.read_shard(plan, index) for index in takewhile(lambda _: not stop.is_set(), left))
        commits: deque[PrefectFuture[bool]] = deque()
        committed = images = 0
        with show_progress("labelling", plan.images * len(left) // plan.shards) as advance:
            for labelled in stream_shards(shards, engine, question.prompts, fetch, golden=golden, on_answer=advance):
                commits.append(commit_task.submit(quote(write), quote(labelled)))  # type: ignore[call-overload]  # quote is unwrapped
                while len(commits) > COMMITS_AHEAD:
                    commits.popleft().result()
                committed, images = committed + 1, images + len(labelled.shard.images)
        for commit in commits:
            commit.result()
        return ShardsReport(
            committed, images, stop.is_set(), f"{engine.name} {engine.version}", time.monotonic() - started
        )
