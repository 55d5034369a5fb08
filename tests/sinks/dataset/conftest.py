"""Outputs on every kind of store the tests can have: memory, files, and (slow) a real S3 server."""

import secrets
from pathlib import Path

import pytest

from sinks.dataset.ledger import Ledger


@pytest.fixture(params=["memory", "file", pytest.param("s3", marks=pytest.mark.slow)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """The ledger of an empty output."""
    if request.param == "memory":
        return Ledger.open(f"memory://{secrets.token_hex(8)}", None)
    if request.param == "file":
        return Ledger.open(f"file://{tmp_path}/an output", None)
    server = request.getfixturevalue("seaweedfs")
    for name, value in server.credentials("ledger").items():
        monkeypatch.setenv(name, value)
    bucket = server.create_bucket(f"ledger-{secrets.token_hex(4)}")
    return Ledger.open(f"s3://{bucket}/an output", "ledger")


@pytest.fixture
def memory_ledger() -> Ledger:
    return Ledger.open(f"memory://{secrets.token_hex(8)}", None)
