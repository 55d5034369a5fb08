"""Publishing: the current view to each of the job's sinks, or a gallery of it to a file. One sink's failure does not keep the others from being pushed."""

from pathlib import Path

from prefect import flow

from flows.job import LabelJob
from sinks.dataset.ledger import Ledger
from sinks.dataset.reading import View, current_view
from sinks.gallery import JobFacts
from tasks.publishing import Push, describe_view, image_loader, push_task, write_gallery
from tasks.retrying import first_line


class NothingPromotedError(ValueError):
    """There are no labels to show yet."""


@flow(name="publish", flow_run_name="publish {job.name}")
def publish(job: LabelJob) -> tuple[Push, ...]:
    """Pushes the current view of all promoted runs; a sink that holds it already is left alone. A failed sink is a Push with its error."""
    view = current_view(Ledger.open(job.output, job.credentials.output))
    facts, load = _facts(job, view), image_loader(job.credentials.source, job.fetching.max_pixels)
    pushes = []
    for sink in job.sinks:
        state = push_task(sink, job.credentials.output, view, facts, load, return_state=True)
        result = state.result(raise_on_failure=False)
        if not isinstance(result, Push):
            result = Push(sink.kind, "failed", error=f"{type(result).__name__}: {first_line(result)}")
        pushes.append(result)
    return tuple(pushes)


def write_report(job: LabelJob, run_id: str | None, page: Path) -> None:
    """Writes the gallery of the current view, or of one finished run, to a file. Raises UnknownRunError, NothingPromotedError."""
    view = current_view(Ledger.open(job.output, job.credentials.output), run=run_id)
    write_gallery(page, view, _facts(job, view), image_loader(job.credentials.source, job.fetching.max_pixels))


def _facts(job: LabelJob, view: View) -> JobFacts:
    if not view.runs:
        raise NothingPromotedError(
            f"{job.output} holds no promoted run yet; `prelabel run` makes one, `prelabel status` lists what there is"
        )
    places = {"Dataset": job.output} | {
        f"{sink.kind} export".capitalize(): sink.url for sink in job.sinks if sink.kind != "gallery"
    }
    return describe_view(view, job.name, job.taxonomy.names, places)
