"""What people read: the summary of a run, what a run would do, the list of runs. Shows what it is given and computes nothing but sums and rates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console
from rich.table import Table

from model.annotations import FAILED, MALFORMED, OK, TRUNCATED, UNREADABLE
from model.checks import Scores
from sinks.dataset.records import Marker, Plan
from sinks.dataset.states import HELD, PROMOTED
from tasks.checking import Verdict
from tasks.planning import PlanCounts
from tasks.publishing import Push

CATEGORY = "category:"  # what counts of shapes by category begin with

SHOWN_IOUS = (0.5, 0.75, 0.95)

Outcome = Literal["done", "nothing", "held", "partial"]


@dataclass(frozen=True, slots=True)
class RunReport:
    """What became of one run in one invocation. run_id None: there was nothing to label.

    counts: of the whole run so far (see sinks/dataset/records.Marker); images, seconds: labelled now, with the engine loaded.
    """

    outcome: Outcome
    sentence: str
    output: str
    run_id: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    planned: PlanCounts | None = None  # None where an unfinished run was taken up
    skipped: Mapping[str, int] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    engine: str = ""
    pushes: tuple[Push, ...] = ()
    scores: Scores | None = None  # None: not judged, or without golden images
    unmapped: tuple[str, ...] = ()  # categories of the golden sets that the job does not ask for
    licence: str | None = None  # of the model, where users must know it


@dataclass(frozen=True, slots=True)
class CheckReport:
    """A run judged again. state: the one it has; unanswered: images of the present golden sets that were not labelled with it."""

    output: str
    run_id: str
    state: str
    verdict: Verdict
    unanswered: int
    unmapped: tuple[str, ...]

    @property
    def passes(self) -> bool:
        return self.verdict.state == PROMOTED


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would find and do. unfinished: the plan it would take up first, with that many shards left."""

    output: str
    model: str
    prompts: tuple[str, ...]
    planned: PlanCounts
    skipped: Mapping[str, int]
    unfinished: Plan | None
    shards_left: int
    licence: str | None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run as it stands. state: planned | staged | promoted | held | discarded; counts are of its committed shards."""

    plan: Plan
    state: str
    why: str
    shards_left: int
    counts: Mapping[str, int]
    same_question: bool  # asks what the job asks now


def add_counts(markers: Iterable[Marker]) -> dict[str, int]:
    """The sum of the shards' counts; empty for no shards."""
    total: dict[str, int] = {}
    for marker in markers:
        for name, count in marker.counts.items():
            total[name] = total.get(name, 0) + count
    return total


def print_summary(report: RunReport) -> None:
    """The end of a run, on standard output."""
    console = Console(markup=False, highlight=False)
    console.print(report.sentence[:1].upper() + report.sentence[1:], style="bold", soft_wrap=True)
    table = _table()
    if report.run_id:
        table.add_row("run", report.run_id)
    for name, text in _planned_rows(report.planned, report.skipped):
        table.add_row(name, text)
    for name, text in _count_rows(report.counts):
        table.add_row(name, text)
    if report.images and report.seconds:
        table.add_row(
            "speed", f"{report.images / report.seconds:.1f} images/s over {report.seconds:.1f} s ({report.engine})"
        )
    if report.licence:
        table.add_row("licence", report.licence)
    table.add_row("dataset", report.output)
    for push in report.pushes:
        table.add_row(
            push.sink, f"FAILED: {push.error}" if push.error else f"{', '.join(push.places)} ({push.sentence})"
        )
    console.print(table)
    if report.scores:
        print_scores(console, report.scores, report.unmapped)


def print_check(report: CheckReport) -> None:
    """A run judged again, on standard output."""
    console = Console(markup=False, highlight=False)
    verdict = report.verdict
    outcome = "would be promoted" if report.passes else "would be held"
    if report.passes and report.state == HELD:
        todo = f" Held so far: `prelabel promote JOB {report.run_id} --why …` lets it count."
    else:
        todo = f" It is {report.state}, and stays so." if report.state != verdict.state else ""
    console.print(f"run {report.run_id} {outcome}: {verdict.why}.{todo}", style="bold", soft_wrap=True)
    if report.unanswered:
        console.print(f"{report.unanswered:,} images of the golden sets were not labelled with this run")
    if verdict.scores:
        print_scores(console, verdict.scores, report.unmapped)


def print_preview(preview: Preview) -> None:
    """What a run would do, on standard output."""
    console = Console(markup=False, highlight=False)
    table = _table()
    table.add_row("model", preview.model)
    if preview.licence:
        table.add_row("licence", preview.licence)
    for prompt in preview.prompts:
        table.add_row("asks", prompt)
    for name, text in _planned_rows(preview.planned, preview.skipped):
        table.add_row(name, text)
    if preview.unfinished:
        table.add_row(
            "first",
            f"takes up run {preview.unfinished.run_id}: {preview.shards_left} of {preview.unfinished.shards} shards are left; their images count as new above",
        )
    table.add_row("dataset", preview.output)
    console.print(table)


def print_statuses(output: str, statuses: Sequence[RunStatus]) -> None:
    """The runs of an output, on standard output."""
    console = Console(markup=False, highlight=False)
    if not statuses:
        console.print(f"no runs in {output} yet")
        return
    table = Table(title=f"Runs in {output}", title_justify="left", box=None, pad_edge=False)
    for heading in ("run", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("images", "shapes", "not labelled", "shards left"):
        table.add_column(heading, justify="right")
    for status in statuses:
        bad = status.counts.get(UNREADABLE, 0) + status.counts.get(FAILED, 0)
        done = f"{status.counts.get('images', 0):,} of {status.plan.images:,}"
        table.add_row(
            status.plan.run_id,
            status.state,
            done,
            f"{status.counts.get('annotations', 0):,}",
            f"{bad:,}",
            f"{status.shards_left:,}",
        )
    console.print(table)
    for status in statuses:
        other = "" if status.same_question else " (it asked something else than the job does now)"
        console.print(f"{status.plan.run_id}: {status.why}{other}", soft_wrap=True)
    for status in statuses:
        if status.state == HELD:
            console.print(
                f"{status.counts['images']:,} images wait in held run {status.plan.run_id}: `prelabel promote|discard JOB {status.plan.run_id} --why …`",
                soft_wrap=True,
            )


def print_scores(console: Console, scores: Scores, unmapped: Sequence[str] = ()) -> None:
    """What golden images say a run is worth, as two tables: F1 by threshold, and each category at the first."""
    points = scores.thresholds == (1.0,)
    at = [0] if points else [scores.thresholds.index(threshold) for threshold in SHOWN_IOUS]
    sides = f"{scores.truths:,} true boxes, {scores.predictions:,} {'points' if points else 'boxes'} of the model's"
    lost = f", {scores.unjudged:,} more could not be judged" if scores.unjudged else ""
    said = f", {scores.truncated:,} answers cut" if scores.truncated else ""
    console.print(f"spot check: {scores.images:,} golden images{lost}, {sides}{said}")
    if unmapped:
        console.print(f"  not checked, since the job does not ask for them: {', '.join(unmapped)}")
    table = Table(box=None, pad_edge=False)
    table.add_column("F1, 95 % interval", no_wrap=True)
    headings = ["in the box"] if points else [*(f"IoU {threshold:g}" for threshold in SHOWN_IOUS), "mean"]
    for heading in (*headings, "precision", "recall"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, level in (("shapes, micro", scores.micro), ("categories, macro", scores.macro)):
        mean, mean_interval = ([], []) if points else ([level.mean], [level.mean_interval])
        table.add_row(
            name,
            *(_ratio(f1) for f1 in (*(level.f1[index] for index in at), *mean)),
            _ratio(level.precision),
            _ratio(level.recall),
        )
        table.add_row("", *(_range(bounds) for bounds in (*(level.intervals[index] for index in at), *mean_interval)))
    console.print(table)
    table = Table(box=None, pad_edge=False)
    table.add_column("category", overflow="fold")
    for heading in ("images", "F1", "interval", "true", "said", "hits", "wrong\nNone", "made\nup", "said\ntwice"):
        table.add_column(heading, justify="right", no_wrap=True)
    for category in sorted(scores.categories, key=lambda one: (one.f1 is None, one.f1)):
        counts = (category.truths, category.predictions, category.hits)
        wrong = (category.wrong_nones, category.hallucinated, category.duplicates)
        table.add_row(
            category.name,
            f"{category.images:,}",
            _ratio(category.f1),
            _range(category.interval),
            *(f"{count:,}" for count in (*counts, *wrong)),
        )
    console.print(table)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _range(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.2f}–{interval[1]:.2f}"


def _table() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _planned_rows(planned: PlanCounts | None, skipped: Mapping[str, int]) -> list[tuple[str, str]]:
    rows = []
    if planned:
        parts = {
            "labelled already": planned.already,
            "unreadable already": planned.unreadable,
            "new": planned.new,
            "changed": planned.changed,
            "tried again": planned.retried,
        }
        found = ", ".join(f"{count:,} {what}" for what, count in parts.items() if count)
        rows.append(("listed", f"{planned.listed:,} images" + (f": {found}" if found else "")))
    if skipped:
        rows.append(("skipped", ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items()))))
    return rows


def _count_rows(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    if not counts:
        return []
    statuses = ", ".join(
        f"{counts[status]:,} {status}"
        for status in (OK, TRUNCATED, MALFORMED, UNREADABLE, FAILED)
        if counts.get(status)
    )
    categories = {name.removeprefix(CATEGORY): count for name, count in counts.items() if name.startswith(CATEGORY)}
    several = f" in {counts['answers']:,} answers" if counts["answers"] != counts["images"] else ""
    rows = [("images", f"{counts['images']:,}{several}: {statuses}"), ("shapes", f"{counts['annotations']:,}")]
    most_first = sorted(categories.items(), key=lambda item: (-item[1], item[0]))
    return rows + [("", f"{count:>7,}  {name}") for name, count in most_first]
