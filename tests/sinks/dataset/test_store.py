import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import MemoryStore

from sinks.dataset.ledger import Ledger
from sinks.dataset.store import (
    CredentialsError,
    StoreConflictError,
    StoreUrlError,
    absolute_url,
    create_once,
    open_store,
    split_url,
    storage_options,
)

RACERS = 32


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("labels", "file:///jobs/labels"),
        ("labels/", "file:///jobs/labels/"),
        ("../out/a b", "file:///out/a b"),
        ("/data", "file:///data"),
        ("s3://bucket/x", "s3://bucket/x"),
        ("file:///x%20y", "file:///x%20y"),
    ],
)
def test_paths_become_urls(value: str, url: str) -> None:
    assert absolute_url(value, Path("/jobs")) == url


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("file:///data/labels/", ("file", "", "/data/labels")),
        ("s3://bucket", ("s3", "bucket", "")),
        ("gs://bucket/a/b#c%20/", ("gs", "bucket", "a/b#c%20")),
        ("memory://name/", ("memory", "name", "")),
    ],
)
def test_urls_are_taken_literally(url: str, parts: tuple[str, str, str]) -> None:
    assert split_url(url) == parts


@pytest.mark.parametrize(
    "url", ["labels", "ftp://host/x", "file://labels", "s3:///labels", "s3://bucket/a//b", "memory://name/path"]
)
def test_a_url_of_no_store_is_refused(url: str) -> None:
    with pytest.raises(StoreUrlError, match=url):
        open_store(url, None)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUrlError, match="cannot be made"):
        open_store(f"file://{tmp_path}/file/labels", None, create=True)


def test_a_missing_folder_is_made_only_on_request(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/a/100% #1"
    with pytest.raises(StoreUrlError, match="no such folder"):
        open_store(url, None)
    open_store(url, None, create=True).put("x", b"1")
    assert (tmp_path / "a" / "100% #1" / "x").read_bytes() == b"1"


def test_a_memory_store_is_one_by_name() -> None:
    open_store("memory://one-by-name", None).put("x", b"1")
    assert open_store("memory://one-by-name/", None).get("x").bytes() == b"1"


def test_credentials_come_from_the_environment_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELABEL_MY_ARCHIVE_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("PRELABEL_MY_ARCHIVE_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PRELABEL_MY_ARCHIVE_ENDPOINT", "http://127.0.0.1:9")
    assert storage_options("s3://bucket", "my-archive") == {
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "aws_endpoint": "http://127.0.0.1:9",
        "aws_session_token": "",
        "allow_http": "true",
    }
    assert open_store("s3://bucket/x", "my-archive").prefix == "x"  # type: ignore[union-attr]


def test_unknown_credentials_say_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CredentialsError, match="PRELABEL_NOBODY_ACCESS_KEY_ID"):
        open_store("s3://bucket", "nobody")
    monkeypatch.setenv("PRELABEL_TYPO_ACCES_KEY", "x")
    with pytest.raises(CredentialsError, match="acces_key"):
        open_store("s3://bucket", "typo")


def test_one_of_many_racers_creates(ledger: Ledger) -> None:
    records = [f"writer {number} ".encode() * 50 for number in range(RACERS)]
    start = threading.Barrier(RACERS)

    def race(record: bytes) -> bytes:
        start.wait()
        return create_once(ledger.store, "a/record.json", record)

    with ThreadPoolExecutor(RACERS) as pool:
        seen = set(pool.map(race, records))
    assert len(seen) == 1
    assert bytes(ledger.store.get("a/record.json").bytes()) in seen
    assert seen <= set(records)


class _Conflicting:
    """A store whose creations are refused; stores: whether they take effect all the same."""

    def __init__(self, error: type[Exception], stores: bool) -> None:
        self._store, self._error, self._stores = MemoryStore(), error, stores

    def put(self, path: str, data: bytes, **options: Any) -> None:
        if self._stores:
            self._store.put(path, data, mode="create")
        raise self._error("refused")

    def get(self, path: str) -> Any:
        return self._store.get(path)


@pytest.mark.parametrize("error", [AlreadyExistsError, PreconditionError])
def test_a_writer_refused_by_its_own_success_has_won(error: type[Exception]) -> None:
    store: Any = _Conflicting(error, stores=True)
    assert create_once(store, "record.json", b"mine") == b"mine"


def test_a_store_that_neither_takes_nor_shows_a_record_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    store: Any = _Conflicting(AlreadyExistsError, stores=False)
    with pytest.raises(StoreConflictError, match=r"record\.json"):
        create_once(store, "record.json", b"mine")
