from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.annotations import SCHEMA_VERSION_KEY, schema
from sinks.dataset import merging, parquet
from sinks.dataset.ledger import Ledger, UnknownRunError
from sinks.dataset.parquet import DamagedFileError, RangeReader, SchemaVersionError
from sinks.dataset.reading import current_view, labelled_keys
from sinks.dataset.records import FileEntry
from tests.sinks.dataset.outputs import FINGERPRINT, create_plan, label, records, rows_of, whole_run


def seen(ledger: Ledger, run: str | None = None) -> dict[str, tuple[str, str, str, int]]:
    """By image: version, status, run and number of annotations in the view, read in batches; checked against the lazy frames."""
    view = current_view(ledger, run=run)
    for images, annotations in view.batches():
        assert images.schema.equals(schema("images"))
        assert annotations.schema.equals(schema("annotations"))
        assert set(annotations["image_key"].to_pylist()) <= set(images["image_key"].to_pylist())
    images, annotations = rows_of(view.batches())
    keys = [(row["image_key"], row["task"], row["prompt_index"]) for row in images]
    assert keys == sorted(set(keys)), "sorted, each once"
    shapes = [(row["image_key"], row["task"], row["prompt_index"], row["instance"]) for row in annotations]
    assert shapes == sorted(set(shapes))
    owners = {(row["image_key"], row["task"], row["run_id"], row["etag"]) for row in images}
    assert {(row["image_key"], row["task"], row["run_id"], row["etag"]) for row in annotations} <= owners
    assert_same_rows(view.images(), images, ["image_key", "task", "prompt_index"])
    assert_same_rows(view.annotations(), annotations, ["image_key", "task", "prompt_index", "instance"])
    return {
        row["image_key"].rpartition("/")[2]: (
            row["etag"],
            row["status"],
            row["run_id"],
            sum(shape["image_key"] == row["image_key"] for shape in annotations),
        )
        for row in images
    }


def assert_same_rows(frame: pl.LazyFrame, rows: list[dict[str, Any]], order: list[str]) -> None:
    assert frame.sort(order).collect().to_dicts() == rows


def test_an_empty_output_has_an_empty_view(ledger: Ledger) -> None:
    assert seen(ledger) == {}
    assert list(labelled_keys(ledger, FINGERPRINT)) == []


def test_one_run(ledger: Ledger) -> None:
    run = whole_run(ledger, records(*range(7)), size=3)
    assert seen(ledger) == {f"{number:04d}.jpg": ("1", "ok", run, 2) for number in range(7)}
    assert [plan.run_id for plan in current_view(ledger).plans()] == [run]


@pytest.mark.parametrize("state", ["staged", "held", "discarded"])
def test_only_promoted_runs_are_seen_but_any_finished_one_by_name(ledger: Ledger, state: str) -> None:
    run = whole_run(ledger, records(1, 2), state=state)
    assert seen(ledger) == {}
    assert set(seen(ledger, run)) == {"0001.jpg", "0002.jpg"}


def test_an_unfinished_run_is_not_seen(ledger: Ledger) -> None:
    plan, _ = create_plan(ledger, records(1, 2))
    assert plan
    label(ledger, plan)
    assert seen(ledger) == {}
    assert list(labelled_keys(ledger, FINGERPRINT)) == []
    with pytest.raises(UnknownRunError, match=plan.run_id):
        current_view(ledger, run=plan.run_id)


def test_the_latest_promoted_run_wins_an_image(ledger: Ledger) -> None:
    first = whole_run(ledger, records(*range(8)), size=3)
    second = whole_run(ledger, records(1, 4, etag="2") + records(9), size=2, shapes=5)
    assert seen(ledger) == {
        **{f"{number:04d}.jpg": ("1", "ok", first, 2) for number in (0, 2, 3, 5, 6, 7)},
        **{f"{number:04d}.jpg": ("2", "ok", second, 5) for number in (1, 4)},
        "0009.jpg": ("1", "ok", second, 5),
    }


def test_promotion_decides_the_order_not_the_run_ids(memory_ledger: Ledger) -> None:
    first = whole_run(memory_ledger, records(1), state="held", fingerprint="f1")
    second = whole_run(memory_ledger, records(1), fingerprint="f2")
    assert seen(memory_ledger)["0001.jpg"][2] == second
    memory_ledger.append_state(first, "promoted", "me", "better than it looked")
    assert seen(memory_ledger)["0001.jpg"][2] == first


def test_a_view_stays_what_it_was(memory_ledger: Ledger) -> None:
    first = whole_run(memory_ledger, records(1))
    view = current_view(memory_ledger)
    whole_run(memory_ledger, records(1, 2), fingerprint="f2")
    assert [row["run_id"] for row in rows_of(view.batches())[0]] == [first]


@pytest.mark.parametrize(
    ("etag", "status", "stays"),
    [
        ("1", "failed", True),  # no new answer: the older one is of this very version
        ("2", "failed", False),  # the older answer is of another version
        ("1", "unreadable", False),  # final: that is the newest answer
        ("1", "truncated", False),
    ],
)
def test_a_failed_image_keeps_the_older_answer_for_the_same_version(
    memory_ledger: Ledger, etag: str, status: str, stays: bool
) -> None:
    first = whole_run(memory_ledger, records(1, 2, 3))
    second = whole_run(memory_ledger, records(2, etag=etag), fingerprint="f2", status={"0002.jpg": status})
    expected = ("1", "ok", first, 2) if stays else (etag, status, second, 0)
    assert seen(memory_ledger)["0002.jpg"] == expected


def test_an_image_that_never_had_an_answer_shows_its_latest_failure(memory_ledger: Ledger) -> None:
    whole_run(memory_ledger, records(1), status={"0001.jpg": "failed"})
    second = whole_run(memory_ledger, records(1), status={"0001.jpg": "failed"})
    assert seen(memory_ledger) == {"0001.jpg": ("1", "failed", second, 0)}


def test_prompts_of_two_runs_are_never_mixed(memory_ledger: Ledger) -> None:
    whole_run(memory_ledger, records(1), prompts=3)
    second = whole_run(memory_ledger, records(1), prompts=2, fingerprint="f2")
    images, annotations = rows_of(current_view(memory_ledger).batches())
    assert {(row["prompt_index"], row["run_id"]) for row in images} == {(0, second), (1, second)}
    assert len(annotations) == 4


def test_tasks_do_not_replace_each_other(memory_ledger: Ledger) -> None:
    first = whole_run(memory_ledger, records(1))
    second = whole_run(memory_ledger, records(1), task="pointing", fingerprint="f2")
    images, annotations = rows_of(current_view(memory_ledger).batches())
    assert [(row["task"], row["run_id"]) for row in images] == [("detection", first), ("pointing", second)]
    assert len(annotations) == 4


def test_many_runs_that_overlap_in_every_way(memory_ledger: Ledger) -> None:
    newest: dict[str, str] = {}
    for number in range(20):
        numbers = sorted({(number * 7 + step * (number % 5 + 1)) % 60 for step in range(9)})
        run = whole_run(
            memory_ledger, records(*numbers), size=number % 4 + 1, fingerprint=f"f{number}", shapes=number % 3
        )
        newest |= {f"{image:04d}.jpg": run for image in numbers}
    assert {key: run for key, (_, _, run, _) in seen(memory_ledger).items()} == newest


def test_large_files_are_read_in_batches_and_images_stay_whole(
    memory_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = whole_run(memory_ledger, records(*range(50)), size=50, prompts=3, shapes=4)
    second = whole_run(memory_ledger, records(*range(0, 50, 7)), size=50, prompts=3, shapes=5, fingerprint="f2")
    monkeypatch.setattr(parquet, "WHOLE_FILE_BYTES", 0)
    monkeypatch.setattr(merging, "WHOLE_FILE_BYTES", 0)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 7)
    batches = list(current_view(memory_ledger).batches())
    assert len(batches) > 10
    for images, annotations in batches:
        keys = images["image_key"].to_pylist()
        assert all(keys.count(key) == 3 for key in keys)
        counts = {key: 15 if int(key[-8:-4]) % 7 == 0 else 12 for key in keys}
        assert {key: annotations["image_key"].to_pylist().count(key) for key in keys} == counts
    runs = {key: run for key, (_, _, run, _) in seen(memory_ledger).items()}
    assert runs == {f"{number:04d}.jpg": second if number % 7 == 0 else first for number in range(50)}


def test_labelled_keys_are_of_finished_runs_of_the_fingerprint(ledger: Ledger) -> None:
    whole_run(ledger, records(1, 2), state="held")
    whole_run(ledger, records(3), state="staged")
    whole_run(ledger, records(4), state="discarded")
    whole_run(ledger, records(5), fingerprint="another")
    whole_run(
        ledger, records(2, etag="2") + records(6, 7), status={"0006.jpg": "failed", "0007.jpg": "unreadable"}, prompts=2
    )
    assert list(labelled_keys(ledger, FINGERPRINT)) == [
        ("s3://archive/0001.jpg", "1", "ok"),
        ("s3://archive/0002.jpg", "2", "ok"),
        ("s3://archive/0003.jpg", "1", "ok"),
        ("s3://archive/0006.jpg", "1", "failed"),
        ("s3://archive/0007.jpg", "1", "unreadable"),
    ]


def test_a_file_of_another_schema_version_is_refused(memory_ledger: Ledger) -> None:
    run = whole_run(memory_ledger, records(1))
    file = next(file for file in memory_ledger.files(run) if file.table == "images")
    rows = next(iter(current_view(memory_ledger).batches()))[0]
    for metadata, complaint in (({SCHEMA_VERSION_KEY: b"99"}, "version 99.*update"), ({}, "not written it")):
        path = f"runs/{run}/other.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(rows.replace_schema_metadata(metadata), sink)
        memory_ledger.store.put(path, sink.getvalue().to_pybytes())
        size = memory_ledger.store.head(path)["size"]
        entry = FileEntry("images", path, size, file.sha256, 1, file.first_key, file.last_key)
        with pytest.raises(SchemaVersionError, match=rf"other\.parquet.*{complaint}"):
            next(parquet.read_rows(memory_ledger.store, entry, ["image_key"]))


def test_a_damaged_file_is_named(memory_ledger: Ledger) -> None:
    run = whole_run(memory_ledger, records(1))
    path = memory_ledger.files(run)[0].path
    memory_ledger.store.put(path, b"PAR1 not any more PAR1")
    with pytest.raises(DamagedFileError, match=path):
        list(current_view(memory_ledger).batches())


def test_files_are_sorted_plain_and_versioned(memory_ledger: Ledger) -> None:
    run = whole_run(memory_ledger, records(*range(9)), size=9)
    for entry in memory_ledger.files(run):
        file = pq.ParquetFile(RangeReader(memory_ledger.store, entry.path, entry.size_bytes))
        assert file.metadata.metadata[SCHEMA_VERSION_KEY] == b"1"
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        assert file.schema_arrow.field("image_key").type == pa.string()
        keys = file.read(columns=["image_key"])["image_key"].to_pylist()
        assert keys == sorted(keys)
        assert (entry.first_key, entry.last_key) == (keys[0], keys[-1])
