"""Pushing a view to one of the job's sinks, unless the sink was given this very view before and still holds it."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from obstore.store import ObjectStore
from PIL import Image
from prefect import task
from prefect.cache_policies import NO_CACHE

from model.image_size import ImageLimits
from sinks.base import Sink
from sinks.coco import CocoSettings, CocoSink
from sinks.dataset.ledger import Ledger
from sinks.dataset.pushes import PushRecord, read_push, write_push
from sinks.dataset.reading import View
from sinks.dataset.records import ImageRecord, RunState
from sinks.dataset.states import HELD, PROMOTED
from sinks.dataset.store import open_store
from sinks.gallery import PAGE as GALLERY_PAGE
from sinks.gallery import GallerySettings, GallerySink, ImageUnavailableError, JobFacts, LoadImage
from tasks.checking import read_checks, scores_of
from tasks.pictures import decode_image
from tasks.retrying import StorageError
from tasks.sources import Sources

_AS_STORED = ImageLimits(min_pixels=1, max_pixels=1 << 62, factor=1)  # fits any picture to its own size


@dataclass(frozen=True, slots=True)
class Push:
    """What became of one sink. places: the URLs to open first; error: why it could not be pushed, None where it was."""

    sink: str
    sentence: str
    places: tuple[str, ...] = ()
    error: str | None = None


def push_to_sink(
    settings: CocoSettings | GallerySettings,
    credentials: str | None,
    view: View,
    facts: JobFacts,
    load_image: LoadImage,
) -> Push:
    """Makes the sink hold the view. credentials: used where the sink names none of its own. Raises what the target's store raises."""
    store = open_store(settings.url, settings.credentials or credentials, create=True)
    output = view.ledger.store
    wanted = settings.model_dump_json()
    last = read_push(output, settings.kind, settings.url)
    if last and last.view == view.runs and last.settings == wanted and _holds(store, last.objects):
        return Push(settings.kind, "up to date", _places(settings.url, last.objects))
    report = _open_sink(settings, view.ledger, store, facts, load_image).push(view)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_push(
        output,
        PushRecord(
            settings.kind, settings.url, wanted, view.runs, now, report.images, report.annotations, report.objects
        ),
    )
    left_out = "".join(f"; {count:,} left out: {reason}" for reason, count in report.left_out.items())
    return Push(
        settings.kind,
        f"{report.images:,} images, {report.annotations:,} shapes{left_out}",
        _places(settings.url, report.objects),
    )


@task(name="push to a sink", task_run_name="push to {settings.kind}", cache_policy=NO_CACHE)
def push_task(
    settings: CocoSettings | GallerySettings,
    credentials: str | None,
    view: View,
    facts: JobFacts,
    load_image: LoadImage,
) -> Push:
    return push_to_sink(settings, credentials, view, facts, load_image)


def describe_view(view: View, job: str, categories: tuple[str, ...], places: Mapping[str, str]) -> JobFacts:
    """What stands at the top of a gallery of the view: the facts of its newest run. The view holds one run at least."""
    newest = view.plans()[-1]
    of_run = [state for state in view.ledger.states() if state.run_id == newest.run_id]
    speed = next((state.details["images_per_second"] for state in of_run if "images_per_second" in state.details), None)
    scores = scores_of(of_run, newest.run_id)
    return JobFacts(
        job=job,
        run_id=newest.run_id,
        state=of_run[-1].state,
        note=_note(of_run),
        model=newest.facts["model"],
        revision=newest.facts["revision"],
        task=newest.facts["task"],
        categories=categories,
        finished_at=of_run[-1].at,
        images_per_second=speed if isinstance(speed, float) else None,
        f1=scores.micro.f1[0] if scores else None,
        f1_interval=scores.micro.intervals[0] if scores else None,
        places=places,
    )


def _note(states: Sequence[RunState]) -> str:
    """What a reader must know about a run before anything else; nothing where it passed its spot check. states: the run's, in order."""
    latest = states[-1]
    if latest.state == PROMOTED and "scores" in latest.details:
        return ""
    held = next((state for state in states if state.state == HELD), None)
    if held and held is not latest:
        return f"The spot check held this run: {held.why}. It was {latest.state} by {latest.who}: {latest.why}"
    return latest.why


def image_loader(credentials: str | None, max_pixels: int) -> LoadImage:
    """Reads an image of any key for showing, decoded and turned as for the model but at its own size. It raises ImageUnavailableError, with the reason, where it cannot."""
    sources = Sources(credentials)

    def load(key: str) -> Image.Image:
        try:
            data, _ = sources.read(ImageRecord(key, "", 0, ""))
        except StorageError as error:
            raise ImageUnavailableError(str(error)) from error
        picture = decode_image(data, _AS_STORED, max_pixels=max_pixels)
        if picture.pixels is None:
            raise ImageUnavailableError(picture.error or "it cannot be decoded")
        return Image.fromarray(picture.pixels)

    return load


def write_gallery(page: Path, view: View, facts: JobFacts, load_image: LoadImage) -> None:
    """The gallery of a view in a file of that name, instead of at a sink's url."""
    page.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prelabel-report-") as folder:
        store = open_store(f"file://{folder}", None)
        checks = read_checks(view.ledger, facts.run_id)
        GallerySink(GallerySettings(url=f"file://{folder}"), store, facts, load_image, checks).push(view)
        shutil.move(Path(folder) / GALLERY_PAGE, page)


def _open_sink(
    settings: CocoSettings | GallerySettings, ledger: Ledger, store: ObjectStore, facts: JobFacts, load_image: LoadImage
) -> Sink:
    if isinstance(settings, CocoSettings):
        return CocoSink(settings, store)
    return GallerySink(settings, store, facts, load_image, checks=read_checks(ledger, facts.run_id))


def _holds(store: ObjectStore, objects: tuple[str, ...]) -> bool:
    for path in objects:
        try:
            store.head(path)
        except FileNotFoundError:
            return False
    return True


def _places(url: str, objects: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{url.rstrip('/')}/{path}" for path in objects)
