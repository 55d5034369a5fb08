"""Golden sets: pictures whose true boxes are known, read from COCO files, checked, and sampled for the spot check. Leaves comparing answers with them to model/checks.py."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.checks import GoldenKey, KnownAnswer, Truth
from model.taxonomy import Taxonomy, normalised
from sinks.dataset.records import ImageRecord
from tasks.retrying import StorageError, StorageUnavailable, TransientStorageError, Vanished
from tasks.sources import Sources

OUTSIDE_PX = 1.0  # how far a box may reach beyond its picture: COCO's own files round that much
_NAMED = 5  # of many mistakes of one kind
_LOOKUPS = 16  # images looked up at once


class GoldenSetError(ValueError):
    """A golden set that nothing can be checked with; the message names the job's field, what is wrong and what would be right."""


class GoldenSettings(BaseModel):
    """A golden set: pictures whose true boxes are known, labelled again by every run to see what its labels are worth."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    coco: str = Field(
        description="URL of the true boxes, in COCO's format (instances.json); read, as the images, with credentials.source"
    )
    images: str = Field(description="folder URL of the pictures, which the file's file_name is relative to")
    sample: int = Field(
        200, ge=1, description="pictures checked in a run, the same ones each time, spread over categories"
    )


@dataclass(frozen=True, slots=True)
class GoldenImage:
    """A picture of a golden set. record.source is the set's COCO file; record.etag is "" until it was looked up."""

    record: ImageRecord
    known: KnownAnswer


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """A golden set as read. unmapped: its categories that the job does not ask for; images with crowd regions are left out, since no box can be held against one."""

    coco: str
    unmapped: tuple[str, ...]
    images: tuple[GoldenImage, ...]


@dataclass(frozen=True, slots=True)
class GoldenSample:
    """The pictures a run is checked with, in an order that mixes categories. unmapped: categories of the golden sets that the job does not ask for."""

    images: tuple[GoldenImage, ...] = ()
    unmapped: tuple[str, ...] = ()

    def of_shard(self, index: int, shards: int) -> tuple[GoldenImage, ...]:
        """The pictures that go with a plan's shard: the j-th of n goes with shard j · shards // n, so that they lie evenly over the plan."""
        count = len(self.images)
        first, end = -(-index * count // shards), -(-(index + 1) * count // shards)
        return self.images[first:end]

    @property
    def known(self) -> dict[GoldenKey, KnownAnswer]:
        """What is known of each picture, by its set's COCO file and its key."""
        return {(image.record.source, image.record.key): image.known for image in self.images}

    def truths_of(self, category: str) -> int:
        return sum(truth.category == category for image in self.images for truth in image.known.truths)


def find_golden_sample(settings: Sequence[GoldenSettings], taxonomy: Taxonomy, credentials: str | None) -> GoldenSample:
    """The pictures of a run, each looked up where it lies. Raises GoldenSetError, and StorageUnavailable where storage does not answer."""
    sources = Sources(credentials)
    sets = _read_all(settings, taxonomy, sources)
    images: list[GoldenImage] = []
    for number, (golden, found) in enumerate(zip(settings, sets)):
        images += _looked_up(draw_sample(found.images, golden.sample), f"golden[{number}].images", sources)
    return GoldenSample(tuple(sorted(images, key=_draw)), _unmapped(sets))


def read_golden_sets(settings: Sequence[GoldenSettings], taxonomy: Taxonomy, credentials: str | None) -> GoldenSample:
    """Every picture of the golden sets, none looked up. Raises as find_golden_sample."""
    sets = _read_all(settings, taxonomy, Sources(credentials))
    return GoldenSample(tuple(image for found in sets for image in found.images), _unmapped(sets))


def read_golden_set(settings: GoldenSettings, field: str, taxonomy: Taxonomy, sources: Sources) -> GoldenSet:
    """The whole set, its pictures not looked up. field: the job's, for errors. Raises GoldenSetError, StorageUnavailable."""
    where = f"{field}.coco: {settings.coco}"
    try:
        data, _ = sources.read(ImageRecord(settings.coco, "", 0, ""))
    except TransientStorageError as error:
        raise StorageUnavailable(f"{where}: {error}") from error
    except StorageError as error:
        reason = "there is no such file" if isinstance(error, Vanished) else f"cannot be read ({error})"
        raise GoldenSetError(f"{where}: {reason}; relative paths count from the job file's folder") from error
    try:
        coco = _Coco.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise GoldenSetError(
            f"{where} is not COCO's format: {place}: {first['msg']}. It needs images (id, file_name, width, height), annotations (image_id, category_id, bbox) and categories (id, name)"
        ) from error
    mistakes = list(_mistakes(coco))
    if mistakes:
        raise GoldenSetError(f"{where} has mistakes:\n" + "\n".join(f"  {mistake}" for mistake in mistakes))
    category_of = {category.id: _category_of(category.name, taxonomy) for category in coco.categories}
    unmapped = tuple(category.name for category in coco.categories if category_of[category.id] is None)
    judged = tuple(name for name in taxonomy.names if name in category_of.values())
    if not judged:
        raise GoldenSetError(
            f"{where}: none of its categories ({_some(list(unmapped))}) is one of the job's ({_some(list(taxonomy.names))}); name it as the job does, or add it to a category's synonyms"
        )
    truths: defaultdict[int, list[Truth]] = defaultdict(list)
    crowded = set()
    for box in coco.annotations:
        category = category_of[box.category_id]
        if category is not None and box.iscrowd:
            crowded.add(box.image_id)
        elif category is not None:
            x, y, width, height = box.bbox
            truths[box.image_id].append(Truth(category, (x, y, x + width, y + height)))
    images = tuple(
        GoldenImage(
            ImageRecord(_key(settings.images, image.file_name), "", 0, settings.coco),
            KnownAnswer(image.width, image.height, judged, tuple(truths[image.id])),
        )
        for image in coco.images
        if image.id not in crowded
    )
    if not images:
        raise GoldenSetError(f"{where} has no image without a crowd region: nothing can be checked with it")
    return GoldenSet(settings.coco, unmapped, images)


def draw_sample(images: Sequence[GoldenImage], size: int) -> tuple[GoldenImage, ...]:
    """At most size of the pictures, the same ones for the same set: taken in turn for each category, the rarest first, and for the pictures that show none.

    Every category gets its share while it has pictures, so rare ones are seen more often than in the set; which of them is decided by the keys' hashes.
    """
    strata: defaultdict[str, list[GoldenImage]] = defaultdict(list)
    for image in sorted(images, key=_draw, reverse=True):
        for category in {truth.category for truth in image.known.truths} or {""}:
            strata[category].append(image)
    waiting = [strata[category] for category in sorted(strata, key=lambda name: (len(strata[name]), name))]
    chosen: dict[str, GoldenImage] = {}
    while waiting and len(chosen) < size:
        for stratum in waiting:
            while stratum and stratum[-1].record.key in chosen:
                stratum.pop()
            if stratum and len(chosen) < size:
                image = stratum.pop()
                chosen[image.record.key] = image
        waiting = [stratum for stratum in waiting if stratum]
    return tuple(chosen.values())


class _CocoImage(BaseModel):
    id: int
    file_name: str = Field(min_length=1)
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class _CocoBox(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: Literal[0, 1] = 0


class _CocoCategory(BaseModel):
    id: int
    name: str = Field(min_length=1)


class _Coco(BaseModel):
    images: list[_CocoImage] = Field(min_length=1)
    annotations: list[_CocoBox]
    categories: list[_CocoCategory] = Field(min_length=1)


def _mistakes(coco: _Coco) -> Iterator[str]:
    """What is wrong with the file in itself, a sentence a kind of mistake."""
    images = {image.id: image for image in coco.images}
    categories = {category.id: category.name for category in coco.categories}
    for what, values in (
        ("image ids", [image.id for image in coco.images]),
        ("file names", [image.file_name for image in coco.images]),
        ("category ids", [category.id for category in coco.categories]),
    ):
        if twice := [str(value) for value, count in Counter(values).items() if count > 1]:
            yield f"{what} given twice: {_some(twice)}; each may occur once"
    lost, nameless, flat, outside = [], [], [], []
    for box in coco.annotations:
        image, (x, y, width, height) = images.get(box.image_id), box.bbox
        if box.category_id not in categories:
            nameless.append(str(box.category_id))
        if image is None:
            lost.append(str(box.image_id))
        elif not (width > 0 and height > 0):
            flat.append(f"{image.file_name} {list(box.bbox)}")
        elif not (
            x >= -OUTSIDE_PX
            and y >= -OUTSIDE_PX
            and x + width <= image.width + OUTSIDE_PX
            and y + height <= image.height + OUTSIDE_PX
        ):
            outside.append(f"{image.file_name} ({image.width} × {image.height}) {list(box.bbox)}")
    for found, sentence in (
        (lost, "boxes of images it does not list: image_id {}; list the images or leave the boxes out"),
        (nameless, "boxes of categories it does not list: category_id {}; list the categories or leave the boxes out"),
        (flat, "boxes without area: {}; a bbox is [x, y, width, height] in pixels"),
        (outside, "boxes outside their image: {}; a bbox is [x, y, width, height] in pixels of the upright image"),
    ):
        if found:
            yield f"{len(found):,} {sentence.format(_some(found))}"


def _read_all(settings: Sequence[GoldenSettings], taxonomy: Taxonomy, sources: Sources) -> list[GoldenSet]:
    return [read_golden_set(golden, f"golden[{number}]", taxonomy, sources) for number, golden in enumerate(settings)]


def _unmapped(sets: Sequence[GoldenSet]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for found in sets for name in found.unmapped))


def _looked_up(images: Sequence[GoldenImage], field: str, sources: Sources) -> list[GoldenImage]:
    """The pictures with version and size, as a listing would give them."""

    def look_up(image: GoldenImage) -> GoldenImage | StorageError:
        try:
            etag, size_bytes = sources.describe(image.record.key)
        except TransientStorageError as error:
            raise StorageUnavailable(f"{field}: {image.record.key}: {error}") from error
        except StorageError as error:
            return error
        return replace(image, record=replace(image.record, etag=etag, size_bytes=size_bytes))

    with ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="golden") as pool:
        looked_up = list(pool.map(look_up, images))
    bad = [
        f"{image.record.key} ({'missing' if isinstance(found, Vanished) else found})"
        for image, found in zip(images, looked_up)
        if isinstance(found, StorageError)
    ]
    if bad:
        raise GoldenSetError(
            f"{field}: {len(bad):,} of {len(images):,} images cannot be had: {_some(bad)}; file_name in the COCO file is relative to {field}, which is relative to the job file's folder"
        )
    return [found for found in looked_up if isinstance(found, GoldenImage)]


def _category_of(name: str, taxonomy: Taxonomy) -> str | None:
    """The job's category of that name, or the one that a phrase or synonym of that name belongs to."""
    own = {normalised(category): category for category in taxonomy.names}
    return own.get(normalised(name)) or taxonomy.category_of(name)


def _key(folder: str, file_name: str) -> str:
    return file_name if "://" in file_name else f"{folder.rstrip('/')}/{file_name}"


def _draw(image: GoldenImage) -> tuple[bytes, str]:
    """A place in an order that has nothing to do with what a picture shows, and is the same wherever the set lies."""
    key = image.record.key
    return blake2b(key.rpartition("/")[2].encode(), digest_size=8).digest(), key


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
