"""Images on web servers: read over HTTP with If-Match, listed where a server shows its folders as pages of links. The version is the ETag, else the date, else the size."""

import sys
from collections.abc import Iterator
from typing import Any

import httpx

from sinks.dataset.records import ImageRecord
from sinks.dataset.store import credential_options
from tasks.retrying import (
    AccessDenied,
    Changed,
    EmptySource,
    SourceError,
    StorageError,
    TooLarge,
    TransientStorageError,
    Unaddressable,
    Vanished,
    first_line,
    retry_transient,
)
from tasks.sources.base import Enter, Entry, Skip, bare_etag, every_folder, quoted_etag, walk_in_order

TIMEOUT_SECONDS = 30.0  # for each wait: connecting, the next bytes; not for the whole file
CONNECTIONS = 64


class WebSource:
    """Any web server. Options of a name of credentials: token (sent as a bearer token), or username and password."""

    def __init__(self, credentials: str | None) -> None:
        options = credential_options(credentials)
        headers = {"Accept-Encoding": "identity"}
        if "token" in options:
            headers["Authorization"] = f"Bearer {options['token']}"
        self._client = httpx.Client(
            headers=headers,
            auth=(options["username"], options.get("password", "")) if "username" in options else None,
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            follow_redirects=True,
        )

    def list(self, prefix: str, skip: Skip, enter: Enter = every_folder) -> Iterator[ImageRecord]:
        """etags are left "": a page of links holds none."""
        import fsspec  # late: only listing needs it

        pages = fsspec.filesystem(
            "http", use_listings_cache=False, client_kwargs={"headers": dict(self._client.headers)}
        )
        root = prefix.rstrip("/")
        nothing = True
        try:
            for below, _ in walk_in_order(root, lambda folder: _links(pages, folder, skip), skip, enter):
                nothing = False
                yield ImageRecord(f"{root}/{below}", "", 0, prefix)
        except FileNotFoundError as error:
            raise SourceError(f"{prefix}: there is no such page. Check source.prefixes.") from error
        except Exception as error:
            if not type(error).__module__.startswith("aiohttp") and not isinstance(error, OSError | ValueError):
                raise
            raise SourceError(f"{prefix}: cannot be listed: {first_line(error)}") from error
        if nothing:
            raise EmptySource(
                f"{prefix}: the server shows no files there. Not every server lists its folders: give the images' URLs as source.key_list instead."
            )

    def describe(self, key: str) -> tuple[str, int]:
        return retry_transient(lambda: self._describe(key))

    def read(self, record: ImageRecord, max_bytes: int = sys.maxsize) -> tuple[bytes, str]:
        return retry_transient(lambda: self._read(record, max_bytes))

    def _describe(self, key: str) -> tuple[str, int]:
        try:
            response = self._client.head(key)
            if not response.is_success:
                # Some servers know no HEAD, and a URL signed for GET refuses it: ask for the file and hang up.
                with self._client.stream("GET", key) as response:
                    _check(response)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _meaning(error) from error
        return _version(response), _size(response)

    def _read(self, record: ImageRecord, max_bytes: int) -> tuple[bytes, str]:
        # A date or a size in place of an ETag would never match: those are compared after the reading.
        headers = {"If-Match": quoted_etag(record.etag)} if record.etag and not _stands_in(record.etag) else {}
        try:
            with self._client.stream("GET", record.key, headers=headers) as response:
                _check(response)
                version = _version(response)
                if record.etag and version != record.etag:
                    raise Changed
                if _size(response) > max_bytes:
                    raise TooLarge(_size(response), max_bytes)
                data = bytearray()
                for chunk in response.iter_bytes():  # a server need not say the size, nor the true one
                    data += chunk
                    if len(data) > max_bytes:
                        raise TooLarge(len(data), max_bytes)
                return bytes(data), version
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _meaning(error) from error


def _links(pages: Any, folder: str, skip: Skip) -> Iterator[Entry]:
    for item in pages.ls(f"{folder}/", detail=True):
        name = item["name"].removeprefix(f"{folder}/")
        if "/" in name.rstrip("/") or name.startswith(("?", "#")) or not name:
            skip("link to elsewhere")
        else:
            yield Entry(name.rstrip("/"), name.endswith("/"))


def _check(response: httpx.Response) -> None:
    code = response.status_code
    if response.is_success:
        return
    if code in (404, 410):
        raise Vanished
    if code == 412:
        raise Changed
    if code in (401, 403, 407, 451):
        raise AccessDenied(f"access denied: HTTP {code} {response.reason_phrase}")
    raise TransientStorageError(f"storage failed: HTTP {code} {response.reason_phrase}")


def _meaning(error: Exception) -> StorageError:
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Unaddressable(f"not an address: {first_line(error)}")
    return TransientStorageError(f"storage failed: {type(error).__name__}: {first_line(error)}")


def _version(response: httpx.Response) -> str:
    etag = response.headers.get("ETag")
    if etag:
        return bare_etag(etag)
    modified = response.headers.get("Last-Modified")
    return f"modified {modified}" if modified else f"size {_size(response)}"


def _stands_in(etag: str) -> bool:
    return etag.startswith(("modified ", "size ", "W/"))  # If-Match compares strongly: a weak etag never matches


def _size(response: httpx.Response) -> int:
    return int(response.headers.get("Content-Length", 0))
