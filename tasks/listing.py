"""Which images a job means: prefixes with patterns, or a list of keys, as one sorted stream of records. Says nothing of which of them need work."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Annotated, Self

import pathspec
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sinks.dataset.records import ImageRecord
from tasks.concurrency import run_ahead
from tasks.key_lists import read_key_list
from tasks.ordering import merge_by_key
from tasks.retrying import StorageError
from tasks.sources import ImageSource

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
DESCRIBED_AT_ONCE = 32  # requests for the version of a key, where the listing holds none

# Reasons for which something listed is no image of the job; sources add their own (folder marker, broken link …).
SUFFIX, EXCLUDED, NOT_INCLUDED, DUPLICATE = "suffix", "excluded", "not included", "listed twice"


class SkipCounts(Counter[str]):
    """How many listed things are left out, by reason. Complete once the listing has been read to its end."""

    def skip(self, reason: str) -> None:
        self[reason] += 1


class ListingSettings(BaseModel):
    """Where the images are: prefixes, narrowed by patterns and suffixes, or a list of keys.

    Patterns follow .gitignore's rules and are matched against the key relative to its prefix: `*` stays within a folder, `**` does not, a pattern without a slash
    matches at any depth, one that ends in a slash matches everything in such a folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefixes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="folders or single images: paths, file://, s3://, gs://, az://, http:// or any other fsspec URL"
    )
    include: tuple[str, ...] = Field((), description="patterns an image must match one of; empty: every image")
    exclude: tuple[str, ...] = Field((), description="patterns of what is left out, folders too; stronger than include")
    suffixes: tuple[str, ...] = Field(
        SUFFIXES, description="endings of keys that are images, in any case; empty: every key"
    )
    key_list: str | None = Field(
        None,
        description="instead of prefixes: a CSV or Parquet file with a column image_key or key, and optionally etag and size",
    )

    @field_validator("include", "exclude")
    @classmethod
    def _readable_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                _spec([pattern])
            except ValueError as error:
                raise ValueError(f"{pattern!r} is not a pattern: {error}") from error
        return patterns

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.prefixes) == (self.key_list is not None):
            raise ValueError("either prefixes or key_list is needed, and not both")
        if self.key_list is not None and (self.include or self.exclude):
            raise ValueError("include and exclude narrow prefixes; a key_list is taken as it stands, leave them out")
        return self


def list_images(
    settings: ListingSettings, source: ImageSource, skipped: SkipCounts, *, credentials: str | None = None
) -> Iterator[ImageRecord]:
    """The job's images sorted by key (bytewise on its UTF-8), each once, streamed. What is left out is counted in skipped as the stream goes.

    A key list is taken as it stands, whatever its suffixes. An image whose listing shows no version is asked for it; where that fails the record's etag is "",
    and reading it will tell why. credentials: for reading the key list. Raises SourceError, EmptySource (a prefix with nothing under it), KeyListError.
    """
    if settings.key_list is not None:
        records = read_key_list(settings.key_list, credentials, partial(skipped.skip, DUPLICATE))
    else:
        streams = [_list_prefix(prefix, settings, source, skipped) for prefix in dict.fromkeys(settings.prefixes)]
        records = merge_by_key(streams, lambda _: skipped.skip(DUPLICATE))
    return _with_versions(records, source)


def _list_prefix(
    prefix: str, settings: ListingSettings, source: ImageSource, skipped: SkipCounts
) -> Iterator[ImageRecord]:
    suffixes = tuple(suffix.lower() for suffix in settings.suffixes)
    include, exclude = _spec(settings.include), _spec(settings.exclude)
    start = len(prefix.rstrip("/")) + 1
    # What is in a folder that matches is excluded as well, unless a pattern takes something back.
    prunes = not any(pattern.startswith("!") for pattern in settings.exclude)
    for record in source.list(prefix, skipped.skip, lambda folder: not (prunes and exclude.match_file(folder))):
        relative = record.key[start:] or record.key.rpartition("/")[2]  # a prefix may be a single image
        if suffixes and not relative.lower().endswith(suffixes):
            skipped.skip(SUFFIX)
        elif settings.exclude and exclude.match_file(relative):
            skipped.skip(EXCLUDED)
        elif settings.include and not include.match_file(relative):
            skipped.skip(NOT_INCLUDED)
        else:
            yield record


def _spec(patterns: Sequence[str]) -> pathspec.PathSpec[pathspec.Pattern]:
    return pathspec.PathSpec.from_lines("gitignore", patterns)


def _with_versions(records: Iterable[ImageRecord], source: ImageSource) -> Iterator[ImageRecord]:
    for versioned, group in groupby(records, key=lambda record: bool(record.etag)):
        if versioned:
            yield from group
        else:
            yield from run_ahead(
                partial(_described, source), group, threads=DESCRIBED_AT_ONCE, ahead=4 * DESCRIBED_AT_ONCE
            )


def _described(source: ImageSource, record: ImageRecord) -> ImageRecord:
    try:
        etag, size = source.describe(record.key)
    except StorageError:
        return record
    return ImageRecord(record.key, etag, size, record.source)
