import contextlib
import http.server
import os
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import obstore
import pytest

from sinks.dataset.records import ImageRecord
from sinks.dataset.store import CredentialsError, open_store
from tasks.listing import ListingSettings, SkipCounts, list_images
from tasks.retrying import (
    AccessDenied,
    Changed,
    EmptySource,
    SourceError,
    TooLarge,
    TransientStorageError,
    Unaddressable,
    Vanished,
)
from tasks.sources import Sources, objects, open_source
from tests.servers.seaweedfs import SeaweedFS

# Bytewise order differs from that of folders' names where a name goes on with a character before the slash.
NAMES = [
    "A.jpg",
    "a b.jpg",
    "a#b.jpg",
    "a%20b.jpg",
    "a%b.jpg",
    "a+b.jpg",
    "a-1.jpg",
    "a.jpg",
    "a/b.jpg",
    "a/x.jpg",
    "a?b.jpg",
    "b/c-1/x.jpg",
    "b/c.jpg",
    "b/c/x.jpg",
    "{[*]}.jpg",
    "ä.jpg",
    "日本.png",
    "🙂.jpg",
]


def listed(prefix: str, credentials: str | None = None) -> tuple[list[ImageRecord], dict[str, int]]:
    reasons: Counter[str] = Counter()
    records = list(Sources(credentials).list(prefix, lambda reason: reasons.update([reason])))
    assert records == sorted(records, key=lambda record: record.key.encode())
    return records, dict(reasons)


def fill(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def as_prefix(folder: Path) -> str:
    return f"file://{folder}"


# --- files -----------------------------------------------------------------------------------------------------------


def test_files_keep_their_names_from_listing_to_reading(tmp_path: Path):
    names = [*NAMES, "line\nbreak.jpg", "back\\slash.jpg"]
    fill(tmp_path, names)
    records, reasons = listed(as_prefix(tmp_path))
    assert [record.key for record in records] == sorted(f"file://{tmp_path}/{name}" for name in names)
    assert reasons == {}
    source = Sources(None)
    for record in records:
        data, etag = source.read(record)
        assert f"file://{tmp_path}/{data.decode()}" == record.key
        assert etag == record.etag
        assert source.describe(record.key) == (record.etag, record.size_bytes)
        assert record.source == as_prefix(tmp_path)


def test_a_slash_at_the_end_changes_no_key(tmp_path: Path):
    fill(tmp_path, ["x/1.jpg"])
    plain, slashed = listed(f"file://{tmp_path}")[0], listed(f"file://{tmp_path}/")[0]
    assert [record.key for record in plain] == [record.key for record in slashed]


def test_a_single_file_is_a_prefix(tmp_path: Path):
    fill(tmp_path, ["x.jpg", "x.jpg.txt"])
    records, _ = listed(f"file://{tmp_path}/x.jpg")
    assert [record.key for record in records] == [f"file://{tmp_path}/x.jpg"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    fill(tmp_path, ["real/1.jpg", "inside/2.jpg"])
    (tmp_path / "inside/up").symlink_to(tmp_path)
    (tmp_path / "inside/self").symlink_to(tmp_path / "inside")
    (tmp_path / "inside/other").symlink_to(tmp_path / "real")
    (tmp_path / "inside/3.jpg").symlink_to(tmp_path / "real/1.jpg")
    (tmp_path / "inside/broken.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "inside/ring.jpg").symlink_to(tmp_path / "inside/ring.jpg")
    os.mkfifo(tmp_path / "inside/pipe.jpg")
    records, reasons = listed(as_prefix(tmp_path))
    names = [record.key.removeprefix(f"file://{tmp_path}/") for record in records]
    assert names == ["inside/2.jpg", "inside/3.jpg", "inside/other/1.jpg", "real/1.jpg"]
    assert reasons == {"broken link": 2, "link back to a parent folder": 2, "neither file nor folder": 1}
    source = Sources(None)
    assert [source.read(record)[0] for record in records] == [b"inside/2.jpg", *[b"real/1.jpg"] * 3]


def test_names_that_are_no_text_are_counted(tmp_path: Path):
    fill(tmp_path, ["fine.jpg"])
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.jpg")).write_bytes(b"x")
    records, reasons = listed(as_prefix(tmp_path))
    assert len(records) == 1
    assert reasons == {"name is not UTF-8": 1}


def test_a_file_that_changed_or_went_is_not_read(tmp_path: Path):
    fill(tmp_path, ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    records, _ = listed(as_prefix(tmp_path))
    source = Sources(None)
    (tmp_path / "1.jpg").write_bytes(b"something longer")
    os.utime(tmp_path / "2.jpg", ns=(1, 1))
    (tmp_path / "3.jpg").unlink()
    (tmp_path / "4.jpg").unlink()
    os.mkfifo(tmp_path / "4.jpg")  # reading it would block for ever
    for record, error in zip(records, [Changed, Changed, Vanished, Vanished], strict=True):
        with pytest.raises(error):
            source.read(record)


def test_a_folder_that_is_missing_or_empty_is_said(tmp_path: Path):
    with pytest.raises(SourceError, match=r"no such file or folder.*source\.prefixes"):
        listed(f"file://{tmp_path}/none")
    with pytest.raises(EmptySource, match="empty"):
        listed(as_prefix(tmp_path))


def test_a_folder_that_is_not_wanted_is_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path, ["open/1.jpg", "open/lost+found/2.jpg", "lost+found/3.jpg"])
    scandir = os.scandir

    def refuse(folder: str):
        if folder.endswith("lost+found"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match=r"access denied.*source\.exclude"):
        listed(as_prefix(tmp_path))
    skipped = SkipCounts()
    settings = ListingSettings(prefixes=(as_prefix(tmp_path),), exclude=("lost+found/",))
    records = list(list_images(settings, Sources(None), skipped))
    assert [record.key for record in records] == [f"file://{tmp_path}/open/1.jpg"]
    assert skipped == {"excluded folder": 2}


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_closed_folder_ends_the_listing(tmp_path: Path):
    fill(tmp_path, ["open/1.jpg", "closed/2.jpg"])
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(SourceError, match="access denied"):
            listed(as_prefix(tmp_path))
    finally:
        (tmp_path / "closed").chmod(0o700)


# --- memory and other URLs -------------------------------------------------------------------------------------------


def test_memory_store():
    store = open_store("memory://test-sources", None)
    for name in NAMES:
        obstore.put(store, name, name.encode())
    records, _ = listed("memory://test-sources")
    assert [record.key for record in records] == sorted(f"memory://test-sources/{name}" for name in NAMES)
    source = Sources(None)
    assert [source.read(record)[0].decode() for record in records] == sorted(NAMES)
    assert [record.key for record in listed("memory://test-sources/b/c")[0]] == ["memory://test-sources/b/c/x.jpg"]
    obstore.put(store, NAMES[0], b"new")
    obstore.delete(store, NAMES[1])
    with pytest.raises(Changed):
        source.read(records[0])
    with pytest.raises(Vanished):
        source.read(records[1])
    with pytest.raises(EmptySource, match="not the beginning of a name"):
        listed("memory://test-sources/b/c-")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("pictures/here", "not a URL"),
        ("carrier-pigeon://loft/", "cannot be opened"),
    ],
)
def test_urls_that_lead_nowhere(url: str, message: str):
    with pytest.raises(SourceError, match=message):
        open_source(url, None)


def test_credentials_without_variables_are_said():
    with pytest.raises(CredentialsError, match="PRELABEL_NOBODY_"):
        Sources("nobody").describe("s3://bucket/1.jpg")


def test_any_other_filesystem(tmp_path: Path):
    """fsspec's own file system, under a name that is not taken by a faster way."""
    fill(tmp_path, NAMES)
    prefix = f"local://{tmp_path}"
    records, _ = listed(prefix)
    assert [record.key for record in records] == sorted(f"{prefix}/{name}" for name in NAMES)
    source = Sources(None)
    assert [source.read(record)[0].decode() for record in records] == sorted(NAMES)
    (tmp_path / NAMES[0]).write_bytes(b"another content")
    (tmp_path / NAMES[1]).unlink()
    with pytest.raises(Changed):
        source.read(records[0])
    with pytest.raises(Vanished):
        source.read(records[1])
    with pytest.raises(SourceError, match="no such"):
        listed(f"{prefix}/none")


# --- a real S3 server ------------------------------------------------------------------------------------------------


@pytest.fixture
def named(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> SeaweedFS:
    """The server, its keys known by the name `archive`."""
    for variable, value in seaweedfs.credentials("archive").items():
        monkeypatch.setenv(variable, value)
    return seaweedfs


def test_s3_lists_many_pages_in_order_and_reads_what_was_listed(named: SeaweedFS):
    bucket = named.create_bucket("sources-many")
    store = named.store(bucket)
    names = [*NAMES, *(f"many/{number:05}.jpg" for number in range(2_100))]
    _put_all(store, names)
    records, _ = listed(f"s3://{bucket}", "archive")
    assert [record.key for record in records] == sorted(f"s3://{bucket}/{name}" for name in names)
    assert len(listed(f"s3://{bucket}/many/", "archive")[0]) == 2_100
    source = Sources("archive")
    for record in records[: len(NAMES)]:
        data, etag = source.read(record)
        assert f"s3://{bucket}/{data.decode()}" == record.key
        assert etag == record.etag
        assert source.describe(record.key) == (record.etag, record.size_bytes)
    assert not any('"' in record.etag for record in records)


def test_s3_objects_that_changed_or_went_are_not_read(named: SeaweedFS):
    bucket = named.create_bucket("sources-changing")
    store = named.store(bucket)
    _put_all(store, ["1.jpg", "2.jpg", "3.jpg"])
    records, _ = listed(f"s3://{bucket}", "archive")
    obstore.put(store, "1.jpg", b"another content")
    obstore.delete(store, "2.jpg")
    source = Sources("archive")
    with pytest.raises(Changed):
        source.read(records[0])
    with pytest.raises(Vanished):
        source.read(records[1])
    assert source.read(records[2])[0] == b"3.jpg"
    assert source.read(ImageRecord(records[0].key, "", 0, ""))[0] == b"another content"


class HostileBucket(http.server.BaseHTTPRequestHandler):
    """Lists keys in S3's order that other servers do not even take."""

    keys: tuple[str, ...] = ()

    def do_GET(self) -> None:
        listing = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>x</ETag><Size>{0 if key.endswith('/') else 3}</Size></Contents>"
            for key in sorted(self.keys)
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{listing}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[HostileBucket]]:
    """Its keys are to be set; listed as AWS's own S3 is, whose order is trusted."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HostileBucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = {"ENDPOINT": f"http://127.0.0.1:{server.server_port}", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in options.items():
        monkeypatch.setenv(f"PRELABEL_HOSTILE_{name}", value)
    monkeypatch.setattr(objects, "_lists_in_order", lambda root, credentials: True)
    yield HostileBucket
    server.shutdown()
    server.server_close()


def test_folder_markers_are_no_images_and_no_disorder(hostile: type[HostileBucket]):
    hostile.keys = ("2024-old/1.jpg", "2024/", "2024/1.jpg", "a-1.jpg", "a/", "b/", "b/1.jpg", "c", "c-1.jpg")
    records, skipped = listed("s3://bucket", "hostile")
    images = ["2024-old/1.jpg", "2024/1.jpg", "a-1.jpg", "b/1.jpg", "c", "c-1.jpg"]
    assert [record.key for record in records] == [f"s3://bucket/{name}" for name in images]
    assert skipped == {"folder marker": 3}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("a//b.jpg", "empty path segment"),
        ("a/../b.jpg", "illegal character sequence"),
        ("a/\x7fb.jpg", "illegal character sequence"),
        ("/z.jpg", "out of order"),
    ],
)
def test_keys_that_cannot_be_addressed_end_the_listing_with_a_way_out(
    hostile: type[HostileBucket], key: str, message: str
):
    hostile.keys = ("1.jpg", key, "a/c.jpg")
    with pytest.raises(SourceError, match=rf"{message}.*folders beside them.*source\.key_list"):
        listed("s3://bucket", "hostile")
    with pytest.raises(Unaddressable):
        Sources("hostile").read(ImageRecord(f"s3://bucket/{key}", "", 0, ""))


def test_s3_without_bucket_prefix_or_permission_is_said(named: SeaweedFS, monkeypatch: pytest.MonkeyPatch):
    bucket = named.create_bucket("sources-refusing")
    _put_all(named.store(bucket), ["x/1.jpg"])
    with pytest.raises(SourceError, match=r"no bucket s3://sources-not-there.*source\.prefixes"):
        listed("s3://sources-not-there/x", "archive")
    with pytest.raises(EmptySource, match="nothing is stored"):
        listed(f"s3://{bucket}/y/", "archive")
    assert [record.key for record in listed(f"s3://{bucket}/x/1.jpg", "archive")[0]] == [f"s3://{bucket}/x/1.jpg"]
    monkeypatch.setenv("PRELABEL_ARCHIVE_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(SourceError, match=r"access is denied.*credentials\.source"):
        listed(f"s3://{bucket}/x", "archive")
    with pytest.raises(AccessDenied):
        Sources("archive").describe(f"s3://{bucket}/x/1.jpg")


def _put_all(store, names: list[str]) -> None:
    pending = iter(names)
    lock = threading.Lock()

    def put() -> None:
        while True:
            with lock:
                name = next(pending, None)
            if name is None:
                return
            obstore.put(store, name, name.encode())

    threads = [threading.Thread(target=put) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- the web ---------------------------------------------------------------------------------------------------------


class Pages(http.server.SimpleHTTPRequestHandler):
    """Python's own file server, with a few places that behave like other servers: it knows dates but no ETags by itself."""

    refusals = 0

    def do_GET(self) -> None:
        if self.path.startswith("/closed"):
            self.send_error(403)
        elif self.path.startswith("/busy") and type(self).refusals < 2:
            type(self).refusals += 1
            self.send_error(503)
        elif self.path.startswith("/tagged"):
            self._tagged()
        elif self.path.startswith("/endless"):
            self._endless()
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        if self.path.startswith("/tagged"):
            self.send_error(405)
        else:
            super().do_HEAD()

    def _tagged(self) -> None:
        if self.headers.get("If-Match", '"v2"') != '"v2"':
            self.send_error(412)
            return
        self.send_response(200)
        self.send_header("ETag", '"v2"')
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"tagged")

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            while True:
                self.wfile.write(bytes(1 << 16))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    fill(tmp_path, ["a b.jpg", "a-1.jpg", "a/x #1.jpg", "ä.jpg", "busy.jpg"])
    Pages.refusals = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_web_server_that_lists_its_folders(web: str, tmp_path: Path):
    records, _ = listed(web)
    assert [record.key.removeprefix(f"{web}/") for record in records] == [
        "%C3%A4.jpg",
        "a%20b.jpg",
        "a-1.jpg",
        "a/x%20%231.jpg",
        "busy.jpg",
    ]
    source = Sources(None)
    assert [source.read(record)[0].decode() for record in records] == [
        "ä.jpg",
        "a b.jpg",
        "a-1.jpg",
        "a/x #1.jpg",
        "busy.jpg",
    ]
    etag, size = source.describe(f"{web}/a-1.jpg")
    assert size == 7
    os.utime(tmp_path / "a-1.jpg", (1_000_000_000, 1_000_000_000))
    with pytest.raises(Changed):
        source.read(ImageRecord(f"{web}/a-1.jpg", etag, size, web))


def test_a_web_server_with_etags_and_without_head(web: str):
    source = Sources(None)
    assert source.describe(f"{web}/tagged.jpg") == ("v2", 6)
    assert source.read(ImageRecord(f"{web}/tagged.jpg", "v2", 6, web)) == (b"tagged", "v2")
    with pytest.raises(Changed):
        source.read(ImageRecord(f"{web}/tagged.jpg", "v1", 6, web))


def test_what_has_more_bytes_than_asked_for_is_not_read(web: str, tmp_path: Path):
    obstore.put(open_store("memory://test-sources-large", None), "a-1.jpg", b"a-1.jpg")
    for prefix in (web, f"{web}/endless", f"file://{tmp_path}", f"local://{tmp_path}", "memory://test-sources-large"):
        record = ImageRecord(f"{prefix}/a-1.jpg", "", 0, prefix)
        with pytest.raises(TooLarge, match="more than the limit of 6"):
            Sources(None).read(record, 6)
    assert Sources(None).read(record, 7)[0] == b"a-1.jpg"


def test_what_web_servers_refuse(web: str):
    source = Sources(None)
    with pytest.raises(AccessDenied, match="403"):
        source.read(ImageRecord(f"{web}/closed.jpg", "", 0, web))
    with pytest.raises(Vanished):
        source.read(ImageRecord(f"{web}/none.jpg", "", 0, web))
    with pytest.raises(TransientStorageError):
        source.read(ImageRecord("http://127.0.0.1:9/none.jpg", "", 0, web))
    with pytest.raises(SourceError, match="no such page"):
        listed(f"{web}/none/")
    with pytest.raises(SourceError, match="cannot be listed"):
        listed("http://127.0.0.1:9/")
