"""What the rest of the tests rely on in their S3 server: it is a real one, signatures, conditional puts and paging included."""

import threading

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from tests.servers.seaweedfs import SeaweedFS


def test_one_of_32_racing_creators_wins(seaweedfs: SeaweedFS) -> None:
    store = seaweedfs.store(seaweedfs.create_bucket("races"))
    start = threading.Barrier(32)
    wins: list[int] = []
    losses: list[int] = []

    def create(racer: int) -> None:
        start.wait()
        try:
            obstore.put(store, "markers/0001", f"racer {racer}".encode(), mode="create")
            wins.append(racer)
        except AlreadyExistsError:
            losses.append(racer)

    threads = [threading.Thread(target=create, args=(racer,)) for racer in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(wins), len(losses)) == (1, 31)
    assert bytes(obstore.get(store, "markers/0001").bytes()) == f"racer {wins[0]}".encode()


def test_listing_pages_through_more_than_a_thousand_keys(seaweedfs: SeaweedFS) -> None:
    store = seaweedfs.store(seaweedfs.create_bucket("pages"))
    keys = [f"images/{number:05}.jpg" for number in range(2100)]
    for key in keys:
        obstore.put(store, key, b"x", use_multipart=False)

    listed = [meta["path"] for batch in obstore.list(store, "images/", chunk_size=500) for meta in batch]

    assert listed == keys


def test_a_wrong_secret_is_refused(seaweedfs: SeaweedFS) -> None:
    bucket = seaweedfs.create_bucket("secrets")
    stranger = S3Store(
        bucket,
        endpoint=seaweedfs.endpoint,
        access_key_id=seaweedfs.access_key_id,
        secret_access_key="guessed",
        region=seaweedfs.region,
        client_options={"allow_http": True},
    )
    with pytest.raises((PermissionDeniedError, UnauthenticatedError)):
        obstore.put(stranger, "key", b"")


def test_if_match_refuses_another_version(seaweedfs: SeaweedFS) -> None:
    store = seaweedfs.store(seaweedfs.create_bucket("versions"))
    first = obstore.put(store, "key", b"first")
    obstore.put(store, "key", b"second")
    with pytest.raises(obstore.exceptions.PreconditionError):
        obstore.get(store, "key", options={"if_match": first["e_tag"]})
