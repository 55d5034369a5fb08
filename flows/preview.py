"""Looking without touching: what a run would do, and what the runs of an output are."""

from flows.job import LabelJob
from sinks.dataset.ledger import Ledger
from sinks.dataset.states import STAGED
from tasks.checking import run_counts
from tasks.draining import drain_on_signals, until_stopped
from tasks.listing import SkipCounts, list_images
from tasks.planning import preview_plan
from tasks.progress import show_listing
from tasks.reporting import Preview, RunStatus, add_counts
from tasks.sources import Sources


def preview_run(job: LabelJob, *, limit: int | None, retry_failed: bool) -> Preview:
    """Lists and compares; loads no engine and stores nothing. Raises Drained when stopped, and GoldenSetError."""
    question = job.question()
    job.golden_sample()  # looked up only for its mistakes to be said now
    ledger = Ledger.open(job.output, job.credentials.output)
    unfinished = ledger.open_plan(question.generation)
    skipped = SkipCounts()
    listed = list_images(job.source, Sources(job.credentials.source), skipped, credentials=job.credentials.source)
    with drain_on_signals() as stop:
        planned = preview_plan(
            ledger,
            question.generation,
            until_stopped(stop, show_listing(listed)),
            limit=limit,
            retry_failed=retry_failed,
        )
    return Preview(
        job.output,
        question.files.name,
        tuple(prompt.text for prompt in question.prompts),
        planned,
        dict(skipped),
        unfinished,
        len(ledger.shards_left(unfinished)) if unfinished else 0,
        question.files.licence,
    )


def run_statuses(job: LabelJob) -> list[RunStatus]:
    """Every run of the job's output, oldest first, whatever job made it."""
    ledger = Ledger.open(job.output, job.credentials.output)
    if not (plans := ledger.plans()):
        return []
    fingerprint = job.question().generation
    latest = {state.run_id: state for state in ledger.states()}
    finished = {state.run_id for state in ledger.states() if state.state == STAGED}
    statuses = []
    for plan in plans:
        state = latest.get(plan.run_id)
        statuses.append(
            RunStatus(
                plan,
                state.state if state else "planned",
                state.why if state else "not finished",
                len(ledger.shards_left(plan)),
                run_counts(ledger, plan.run_id) if plan.run_id in finished else add_counts(ledger.markers(plan)),
                plan.fingerprint == fingerprint,
            )
        )
    return statuses
