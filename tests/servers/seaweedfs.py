"""A real S3 server for tests: SeaweedFS on this machine, storing in a temporary folder, checking signatures. Knows nothing of prelabel."""

import json
import os
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from obstore.store import S3Store

START_SECONDS = 60  # 2-5 s are usual; a loaded machine takes longer


@dataclass(frozen=True, slots=True)
class SeaweedFS:
    """A running server: what a client needs to reach it."""

    endpoint: str
    filer: str
    access_key_id: str = "tester"
    secret_access_key: str = "only-for-tests"
    region: str = "us-east-1"

    def create_bucket(self, name: str) -> str:
        """Makes the bucket if it is not there; returns its name."""
        # through the server's filer: a bucket is a folder there, and obstore has no call for it
        _call("POST", f"{self.filer}/buckets/{name}/")
        # its volumes are made for its first object, for which many writers at once would wait ten seconds
        _call("PUT", f"{self.filer}/buckets/{name}/first", b"object")
        _call("DELETE", f"{self.filer}/buckets/{name}/first")
        return name

    def store(self, bucket: str, prefix: str | None = None) -> S3Store:
        return S3Store(
            bucket,
            prefix=prefix,
            endpoint=self.endpoint,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            region=self.region,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def credentials(self, name: str) -> dict[str, str]:
        """The environment variables under which a job finds this server's credentials as `name`."""
        options = {
            "ACCESS_KEY_ID": self.access_key_id,
            "SECRET_ACCESS_KEY": self.secret_access_key,
            "ENDPOINT": self.endpoint,
            "REGION": self.region,
        }
        return {f"PRELABEL_{name.upper()}_{option}": value for option, value in options.items()}


@contextmanager
def running_seaweedfs() -> Iterator[SeaweedFS]:
    """Starts a server on free ports of the loopback address and stops it; its data is deleted. RuntimeError if it does not start."""
    with tempfile.TemporaryDirectory(prefix="seaweedfs-") as name:
        folder = Path(name)
        server, command = _configure(folder)
        with (folder / "log").open("wb") as log:
            # an environment of its own: credentials or a configuration of the user's would be taken up
            process = subprocess.Popen(
                command, cwd=folder, env={"PATH": os.defpath, "HOME": name}, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            _wait_until_it_stores(server, process, folder / "log")
            yield server
        finally:
            process.kill()  # a polite stop takes ten seconds, for data that goes anyway
            process.wait()


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """One server for the whole session; give each test a bucket of its own."""
    with running_seaweedfs() as server:
        yield server


def _configure(folder: Path) -> tuple[SeaweedFS, list[str]]:
    http = dict(zip(("s3", "filer", "master", "volume"), _free_ports(4)))
    grpc = dict(zip(http, _free_ports(4)))
    server = SeaweedFS(f"http://127.0.0.1:{http['s3']}", f"http://127.0.0.1:{http['filer']}")
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": server.access_key_id, "secretKey": server.secret_access_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    return server, [
        str(Path(sysconfig.get_path("scripts")) / "weed"),
        "server",
        "-ip=127.0.0.1",
        f"-dir={folder / 'data'}",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=256",
        "-volume.max=200",  # a bucket takes several volumes
        *(f"-{part}.port={port}" for part, port in http.items()),
        *(f"-{part}.port.grpc={port}" for part, port in grpc.items()),
    ]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:  # all at once, so that they differ
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_it_stores(server: SeaweedFS, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            _call("PUT", f"{server.filer}/probe", b"ready?")
            _call("GET", server.endpoint)
        except urllib.error.HTTPError as answer:
            if answer.url == server.endpoint:
                return  # refused for want of a signature: the gateway is up too
        except OSError:  # nobody listens yet
            pass
        time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _call(method: str, url: str, body: bytes | None = None) -> None:
    urllib.request.urlopen(urllib.request.Request(url, data=body, method=method), timeout=10).close()
