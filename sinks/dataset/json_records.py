"""The dataset's small records as JSON and back, checked on the way in: the bucket is the outside world."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}  # building one is slow


class BrokenRecordError(RuntimeError):
    """An object of the dataset that is not what its path says. Nothing here writes one: somebody else has."""


def encode_record(record: object) -> bytes:
    return bytes(_adapter(type(record)).dump_json(record, indent=1))


def decode_record(kind: type[T], data: bytes, path: str) -> T:
    """Raises BrokenRecordError naming the path and the field."""
    try:
        record: T = _adapter(kind).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise BrokenRecordError(f"{path}: not a {kind.__name__.strip('_')} record: {field} {first['msg']}") from error
    return record


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
