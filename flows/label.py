"""The main job, in order: take up what is unfinished, list, plan, label, stage, judge, publish. Failure policy is here; every step is elsewhere."""

from dataclasses import replace
from threading import Event

from prefect import flow

from flows.job import LabelJob
from flows.label_shards import label_shards
from flows.publish import publish
from sinks.dataset.ledger import Ledger
from sinks.dataset.reading import current_view
from sinks.dataset.records import Plan, RunState
from sinks.dataset.states import DISCARDED, HELD, PLANNED
from tasks.checking import UNCHECKED, held_runs, judge_staged_runs, run_counts, scores_of
from tasks.committing import stage_run
from tasks.draining import Drained, drain_on_signals, until_stopped
from tasks.listing import SkipCounts, list_images
from tasks.planning import PlanCounts, plan_run
from tasks.preparing import Question
from tasks.progress import show_listing
from tasks.reporting import RunReport, add_counts
from tasks.sources import Sources


@flow(name="prelabel", flow_run_name="label {job.name}")
def prelabel(job: LabelJob, limit: int | None = None, retry_failed: bool = False) -> list[RunReport]:
    """Labels what is new or changed. A report for an unfinished run that was taken up, if there was one, one for this invocation's own, and one for each run that
    was held before and still waits.

    limit caps the images labelled now (in whole shards where an unfinished run is taken up). retry_failed also plans images again that could not be read.
    """
    with drain_on_signals() as stop:
        question = job.question()
        unmapped = job.golden_sample().unmapped  # found before anything is planned, so that its mistakes are said first
        ledger = Ledger.open(job.output, job.credentials.output)
        judge_staged_runs(ledger, question.generation, job.gates)  # a crash between the two states left some staged
        waiting = [_waiting(job, ledger, held) for held in held_runs(ledger, question.generation)]
        reports = []
        if unfinished := ledger.open_plan(question.generation):
            reports.append(_finish(job, ledger, unfinished, limit))
        if not reports or (reports[-1].outcome != "partial" and limit is None):
            reports.append(_label_new(job, ledger, question, limit, retry_failed, stop))
        licence = question.files.licence
        return [*(replace(report, unmapped=unmapped, licence=licence) for report in reports), *waiting]


def _label_new(
    job: LabelJob, ledger: Ledger, question: Question, limit: int | None, retry_failed: bool, stop: Event
) -> RunReport:
    skipped = SkipCounts()
    listed = list_images(job.source, Sources(job.credentials.source), skipped, credentials=job.credentials.source)
    try:
        outcome = plan_run(
            ledger,
            question.generation,
            until_stopped(stop, show_listing(listed)),
            shard_size=job.shard_size,
            limit=limit,
            retry_failed=retry_failed,
            job=job.model_dump_json(),
            facts=question.facts(job.engine),
        )
    except Drained:
        return RunReport("partial", "stopped while listing: nothing was planned, nothing is lost", job.output)
    if outcome.plan is None:
        return _nothing_to_do(job, ledger, outcome.counts, skipped)
    if not outcome.created and ledger.state_of(outcome.plan.run_id) != PLANNED:
        # another process's plan took the slot and is finished already: what it did not hold is planned now
        return _label_new(job, ledger, question, limit, retry_failed, stop)
    report = _finish(job, ledger, outcome.plan, limit)
    return replace(report, planned=outcome.counts if outcome.created else None, skipped=dict(skipped))


def _finish(job: LabelJob, ledger: Ledger, plan: Plan, limit: int | None) -> RunReport:
    """Labels what is left of the plan and, once nothing is, stages and judges it, and publishes what passes."""
    labelled = label_shards(job, plan.run_id, limit)
    report = RunReport(
        "partial", "", job.output, plan.run_id, images=labelled.images, seconds=labelled.seconds, engine=labelled.engine
    )
    if left := len(ledger.shards_left(plan)):
        why = "stopped" if labelled.drained else "the limit is reached"
        sentence = f"{why} with {left} of {plan.shards} shards left; run the same command again to go on"
        return replace(report, sentence=sentence, counts=add_counts(ledger.markers(plan)))
    stage_run(ledger, plan, labelled.images_per_second)
    judge_staged_runs(ledger, plan.fingerprint, job.gates)
    states = ledger.states()
    judged = next(state for state in reversed(states) if state.run_id == plan.run_id)
    report = replace(report, counts=run_counts(ledger, plan.run_id), scores=scores_of(states, plan.run_id))
    if judged.state == DISCARDED:
        sentence = f"run {plan.run_id} was discarded by {judged.who} meanwhile: {judged.why}. Run the same command again to label its images anew"
        return replace(report, sentence=sentence)
    if judged.state == HELD:
        return replace(report, outcome="held", sentence=f"{judged.why}. {_decision(plan.run_id)}")
    sentence = UNCHECKED if judged.why == UNCHECKED else f"promoted: {judged.why}"
    return replace(report, outcome="done", sentence=sentence, pushes=publish(job))


def _waiting(job: LabelJob, ledger: Ledger, held: RunState) -> RunReport:
    images = run_counts(ledger, held.run_id)["images"]
    sentence = f"{images:,} images wait in held run {held.run_id}: {held.why}. {_decision(held.run_id)}"
    return RunReport("held", sentence, job.output, held.run_id)


def _decision(run_id: str) -> str:
    return f"Look at it with `prelabel report JOB --run {run_id}`, then `prelabel promote JOB {run_id} --why …` or `prelabel discard JOB {run_id} --why …`"


def _nothing_to_do(job: LabelJob, ledger: Ledger, counts: PlanCounts, skipped: SkipCounts) -> RunReport:
    """Still publishes: a push that failed last time, or a sink that is new in the job, is made good."""
    if not counts.listed:
        sentence = "nothing to do: no image was found under source; what was skipped is listed below"
    else:
        unreadable = f", {counts.unreadable:,} of them unreadable" if counts.unreadable else ""
        sentence = f"nothing to do: all {counts.listed:,} images are done already{unreadable}"
    pushes = publish(job) if current_view(ledger).runs else ()
    return RunReport("nothing", sentence, job.output, planned=counts, skipped=dict(skipped), pushes=pushes)
