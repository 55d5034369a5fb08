"""What readers get: the rows of promoted runs, by manifest, the newest answer for each image and task. Writes nothing.

An answer is all that one run says about an image in one task: all prompts' rows and their annotations, never mixed with another run's. The newest run in the
order of promotion wins, with one exception: rows with a `failed` one are no answer, so that an older answer for the same version of the image stays.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from model.annotations import FAILED, UNREADABLE, schema
from sinks.dataset.ledger import Ledger
from sinks.dataset.merging import READERS, SortedRows, windows
from sinks.dataset.parquet import sort_columns
from sinks.dataset.records import FileEntry, Plan
from sinks.dataset.states import HELD, PROMOTED, STAGED
from sinks.dataset.store import absolute_url, split_url, storage_options

Labelled = tuple[str, str, str]  # image key, its version, ok | unreadable | failed

_ANSWER = ("image_key", "task", "run")  # run: its position among the view's runs


@dataclass(frozen=True)
class View:
    """The rows that count, of these runs: oldest promotion first. What is promoted later does not change a view."""

    ledger: Ledger
    runs: tuple[str, ...]

    def plans(self) -> list[Plan]:
        """The plans of the runs, in their order: jobs, models, versions."""
        by_run = {plan.run_id: plan for plan in self.ledger.plans()}
        return [by_run[run_id] for run_id in self.runs]

    def batches(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """(images, annotations) in the order of image_key: whole images only, each once. An image's annotations come in the same batch.

        Rows are sorted by image_key, task, prompt_index, instance. A view without rows gives no batch. Raises DamagedFileError, SchemaVersionError.
        """
        with ThreadPoolExecutor(READERS, thread_name_prefix="rows") as pool:
            images = _streams(self.ledger, self.runs, "images", None, pool)
            annotations = _streams(self.ledger, self.runs, "annotations", None, pool)
            for up_to, parts in windows(images):
                shapes = {run: annotations[run].take(up_to) for run in parts}
                if len(parts) == 1:
                    (run,) = parts
                    alone = shapes[run]
                    yield parts[run], schema("annotations").empty_table() if alone is None else alone
                    continue
                winners = _winners(_facts(parts).lazy()).collect()
                yield _join("images", parts, winners), _join("annotations", shapes, winners)

    def images(self) -> pl.LazyFrame:
        """The images table's rows, for analysis: not in any order."""
        return self._scan("images")

    def annotations(self) -> pl.LazyFrame:
        """The annotations table's rows, for analysis: not in any order."""
        return self._scan("annotations")

    def _scan(self, table: str) -> pl.LazyFrame:
        rows = self._scan_runs(table)
        if len(self.runs) < 2:
            return rows
        numbers = {run_id: number for number, run_id in enumerate(self.runs)}
        run = pl.col("run_id").replace_strict(numbers, return_dtype=pl.Int64)
        winners = _winners(self._scan_runs("images").select("image_key", "task", "etag", "status", run.alias("run")))
        return rows.with_columns(run.alias("run")).join(winners, on=_ANSWER, how="semi").drop("run")

    def _scan_runs(self, table: str) -> pl.LazyFrame:
        files = [
            file for run_id in self.runs for file in self.ledger.files(run_id) if file.table == table and file.rows
        ]
        if not files:
            return pl.from_arrow(schema(table).empty_table()).lazy()  # type: ignore[union-attr]
        url, credentials = self.ledger.url, self.ledger.credentials
        scheme, _, root = split_url(url)
        if scheme == "memory":
            return pl.scan_parquet([bytes(self.ledger.store.get(file.path).bytes()) for file in files])
        base = root if scheme == "file" else url.rstrip("/")
        paths = [f"{base}/{file.path}" for file in files]
        return pl.scan_parquet(paths, glob=False, storage_options=storage_options(url, credentials) or None)


def current_view(ledger: Ledger, *, run: str | None = None) -> View:
    """All promoted runs, as of now; or one finished run alone, whatever its state. Raises UnknownRunError for a run that is not finished."""
    if run is not None:
        ledger.files(run)
        return View(ledger, (run,))
    return View(ledger, tuple(state.run_id for state in ledger.states() if state.state == PROMOTED))


def open_view(output: str, credentials: str | None = None, *, run: str | None = None) -> View:
    """current_view of an output by its URL, or by the path of a folder."""
    return current_view(Ledger.open(absolute_url(output, Path.cwd()), credentials), run=run)


def labelled_keys(ledger: Ledger, fingerprint: str) -> Iterator[Labelled]:
    """Each image that finished runs of this fingerprint hold, by key: the version that was answered last, and whether that succeeded.

    Held runs count, discarded ones do not. The ledger is looked at when the first image is asked for.
    """
    states = ledger.states()
    latest = {state.run_id: state.state for state in states}
    runs = [
        state.run_id
        for state in states
        if state.state == STAGED
        and state.details["fingerprint"] == fingerprint
        and latest[state.run_id] in (STAGED, HELD, PROMOTED)
    ]
    with ThreadPoolExecutor(READERS, thread_name_prefix="keys") as pool:
        for _, parts in windows(_streams(ledger, runs, "images", ("image_key", "task", "etag", "status"), pool)):
            facts = _facts(parts)
            if len(parts) > 1:
                winners = _winners(facts.lazy()).collect()
                facts = facts.join(winners, on=_ANSWER, how="semi").sort("image_key")
            rows = zip(*(facts[name].to_list() for name in ("image_key", "etag", "status")))
            if facts["image_key"].n_unique() == facts.height:
                yield from rows
            else:
                yield from _one_per_key(rows)


def _one_per_key(rows: Iterator[Any]) -> Iterator[Labelled]:
    """An image with several prompts fails with any of them."""
    for key, prompts in groupby(rows, itemgetter(0)):
        answers = list(prompts)
        statuses = {status for _, _, status in answers}
        worst = next((status for status in (FAILED, UNREADABLE) if status in statuses), answers[0][2])
        yield key, answers[0][1], worst


def _streams(
    ledger: Ledger, runs: Sequence[str], table: str, columns: Sequence[str] | None, pool: ThreadPoolExecutor
) -> list[SortedRows]:
    def files(run_id: str) -> list[FileEntry]:
        return [file for file in ledger.files(run_id) if file.table == table]

    return [SortedRows(ledger.store, files(run_id), columns, pool, len(runs)) for run_id in runs]


def _facts(parts: dict[int, pa.Table]) -> pl.DataFrame:
    """What decides over a window: image_key, task, etag, status and run of each of its image rows."""
    names = ["image_key", "task", "etag", "status"]
    return pl.concat(
        [pl.DataFrame(rows.select(names)).with_columns(run=pl.lit(run, pl.Int64)) for run, rows in parts.items()]
    )


def _winners(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The winning run of each image and task: image_key, task, run. rows: image_key, task, etag, status, run."""
    answers = rows.group_by(_ANSWER).agg(pl.col("etag").first(), failed=(pl.col("status") == FAILED).any())
    of_image = ["image_key", "task"]
    newest_etag = pl.col("etag").sort_by("run").last().over(of_image)
    same_version = answers.filter(pl.col("etag") == newest_etag)
    return same_version.group_by(of_image).agg(pl.col("run").sort_by(~pl.col("failed"), "run").last())


def _join(table: str, parts: dict[int, pa.Table | None], winners: pl.DataFrame) -> pa.Table:
    """The winners' rows of all parts, sorted."""
    kept = [
        rows.take(pa.array(_positions(rows, run, winners), pa.int64()))
        for run, rows in parts.items()
        if rows is not None
    ]
    order = [(name, "ascending") for name in sort_columns(table)]
    return pa.concat_tables([schema(table).empty_table(), *kept]).sort_by(order)


def _positions(rows: pa.Table, run: int, winners: pl.DataFrame) -> list[int]:
    answers = (
        pl.DataFrame(rows.select(["image_key", "task"])).with_columns(run=pl.lit(run, pl.Int64)).with_row_index("at")
    )
    return answers.join(winners, on=_ANSWER, how="semi")["at"].to_list()
