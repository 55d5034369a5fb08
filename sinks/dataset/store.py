"""Object stores by URL: file, s3, gs, az and memory, all through obstore, and the one write that decides races. Knows nothing of what is stored.

URLs are taken literally: a percent sign, a hash or a space in a path or key stands for itself.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, ObjectStore, S3Store

SCHEMES = ("file", "s3", "gs", "az", "memory")

_READERS = 16  # small objects at once
_MEMORY: dict[str, MemoryStore] = {}
_MEMORY_LOCK = threading.Lock()
_CONFLICT_PAUSES_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_AMBIENT_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


class StoreUrlError(ValueError):
    """A URL that names no store this project can use; the message says what would be right."""


class StoreConflictError(RuntimeError):
    """The store neither takes a record nor shows the one that is in its way."""


class CredentialsError(ValueError):
    """A name of credentials without environment variables, or with one the store does not know."""


def absolute_url(value: str, folder: Path) -> str:
    """A URL as it is; a path (absolute, relative to folder, or with ~) as its file:// URL. A slash at the end stays."""
    if "://" in value:
        return value
    path = os.path.abspath(folder / Path(value).expanduser())
    return f"file://{path}{'/' if value.endswith('/') and path != '/' else ''}"


def split_url(url: str) -> tuple[str, str, str]:
    """(scheme, bucket, path): the bucket is empty for files; the path has no slash at its ends, but keeps a file's first one.

    Raises StoreUrlError for another scheme, a missing bucket or a relative file path.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise StoreUrlError(f"{url}: a URL that starts with one of {known} is needed")
    if scheme == "file":
        if not rest.startswith("/"):
            raise StoreUrlError(f"{url}: a file URL has three slashes, as in file:///data/labels")
        return scheme, "", "/" + rest.strip("/")
    bucket, _, path = rest.partition("/")
    if not bucket:
        raise StoreUrlError(f"{url}: the bucket's name is missing, as in {scheme}://bucket/labels")
    return scheme, bucket, path.strip("/")


def open_store(url: str, credentials: str | None, *, create: bool = False) -> ObjectStore:
    """The store whose root is url: paths in it are relative to url. Reaches for nothing yet, but a file URL's folder has to exist.

    credentials: a NAME, whose options are the environment variables PRELABEL_<NAME>_<OPTION>, with obstore's option names (access_key_id,
    secret_access_key, endpoint, region …); None: the provider's default chain. An http:// endpoint is spoken to in plain HTTP.
    create: make a file URL's folder where there is none. memory:// stores live as long as the process, one a name.
    Raises StoreUrlError (also for a missing folder) and CredentialsError.
    """
    scheme, bucket, path = split_url(url)
    if scheme == "file":
        return _open_folder(path, create)
    if scheme == "memory":
        if path:
            raise StoreUrlError(f"{url}: a memory store is a name without a path, as in memory://labels")
        with _MEMORY_LOCK:
            return _MEMORY.setdefault(bucket, MemoryStore())
    options = credential_options(credentials)
    try:
        return _open_bucket(scheme, bucket, path, options)
    except ValueError as error:
        raise StoreUrlError(f"{url}: the path cannot be used: {error}") from error
    except BaseError as error:
        reason = str(error).partition("\n")[0]
        raise CredentialsError(
            f"{url}: the store refuses the credentials {credentials or '(default chain)'}: {reason}"
        ) from error


def create_once(store: ObjectStore, path: str, record: bytes) -> bytes:
    """Stores record at path unless something is there already; returns what is there now: record itself, or an earlier writer's.

    Equal bytes mean that this writer won, even where the store says "already exists": a client repeats a put whose answer it lost, and is then
    refused by its own success. So a record that races others holds something no other writer has. Raises obstore's errors where the outcome is unknown.
    """
    for pause_seconds in _CONFLICT_PAUSES_SECONDS:
        try:
            store.put(path, record, mode="create")
            return record
        except (AlreadyExistsError, PreconditionError):
            pass  # 409 or 412: somebody, perhaps this client, was first
        try:
            return _read(store, path)
        except FileNotFoundError:
            time.sleep(pause_seconds)  # 409 says only that another put is under way: it may still fail
    raise StoreConflictError(f"{path}: the store refuses to create it, yet nothing is there")


def read_all(store: ObjectStore, paths: Iterable[str]) -> Iterator[bytes]:
    """The objects' contents in order, a bounded number of reads ahead. Raises FileNotFoundError."""
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
        for path in paths:
            waiting.append(pool.submit(_read, store, path))
            if len(waiting) > 2 * _READERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(store: ObjectStore, path: str) -> bytes:
    return bytes(store.get(path).bytes())


def credential_options(credentials: str | None) -> dict[str, str]:
    """The options of a name of credentials, keys in lower case; empty for None. Raises CredentialsError if nothing is set for the name."""
    if credentials is None:
        return {}
    prefix = f"PRELABEL_{credentials.upper().replace('-', '_')}_"
    options = {key[len(prefix) :].lower(): value for key, value in os.environ.items() if key.startswith(prefix)}
    if not options:
        raise CredentialsError(
            f"credentials {credentials}: no environment variable starts with {prefix} (such as {prefix}ACCESS_KEY_ID)"
        )
    return options


def storage_options(url: str, credentials: str | None) -> dict[str, str]:
    """What polars' scan_parquet(storage_options=) needs to read below url with these credentials; empty for files."""
    scheme, _, _ = split_url(url)
    if scheme in ("file", "memory"):
        return {}
    options = credential_options(credentials)
    prefix = {"s3": "aws_", "gs": "google_", "az": "azure_"}[scheme]
    named = {key if key.startswith(prefix) else prefix + key: value for key, value in options.items()}
    if scheme == "s3" and "access_key_id" in options:
        named.setdefault("aws_session_token", "")
    return named | ({"allow_http": "true"} if _speaks_http(scheme, options) else {})


def _open_folder(path: str, create: bool) -> LocalStore:
    try:
        return LocalStore(prefix=path, mkdir=create, automatic_cleanup=create)
    except (BaseError, OSError) as error:
        does_what = "made or opened" if create else "opened"
        raise StoreUrlError(f"file://{path}: there is no such folder, or it cannot be {does_what}") from error


def _open_bucket(scheme: str, bucket: str, path: str, options: dict[str, str]) -> ObjectStore:
    client: Any = {"allow_http": True} if _speaks_http(scheme, options) else {}
    config: Any = options
    prefix = path or None
    if scheme == "gs":
        return GCSStore(bucket, prefix=prefix, config=config, client_options=client)
    if scheme == "az":
        return AzureStore(bucket, prefix=prefix, config=config, client_options=client)
    return S3Store(
        bucket, prefix=prefix, config=config, client_options=client, credential_provider=_static_keys(options)
    )


def _speaks_http(scheme: str, options: Mapping[str, str]) -> bool:
    named = [value for key, value in options.items() if key.removeprefix("aws_").startswith("endpoint")]
    ambient = [os.environ.get(name, "") for name in _AMBIENT_ENDPOINTS] if scheme == "s3" and not named else []
    return any(endpoint.startswith("http://") for endpoint in (*named, *ambient))


def _static_keys(options: Mapping[str, str]) -> Callable[[], Any] | None:
    """Named keys as a provider: given as options they would be joined by an AWS_SESSION_TOKEN that belongs to the ambient keys."""
    if "access_key_id" not in options or "secret_access_key" not in options:
        return None
    keys = {
        "access_key_id": options["access_key_id"],
        "secret_access_key": options["secret_access_key"],
        "token": options.get("session_token"),
        "expires_at": None,
    }
    return lambda: keys
