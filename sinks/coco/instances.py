"""COCO files of a view: one `instances.json`, or several with an index, written in two readings of the view with bounded memory.

The first reading numbers categories and finds ids that collide; the second writes. Under the sink's url lie
* `categories.json`: names and ids, written first and only ever added to, so that an id means the same category in every export;
* `instances.json` while the images fit into one file; beyond, `instances-00000-<hash>.json` … and, written last, `instances.index.json`, which names them with their sizes, hashes and
  first and last keys. Readers follow the index. Files it no longer names stay until the export after the next change, for whoever still reads them.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import obstore
import orjson
import pyarrow.compute as pc
from obstore.store import ObjectStore
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sinks.base import LabelledImages, PushReport
from sinks.coco.entries import Category, CategoryMap, annotation_records, image_records, select_images, select_shapes
from sinks.coco.stable_ids import ID_BITS, IdSurvey, StableIds
from sinks.files import Difference, compare_with_stored, file_sha256, put_file, read_chunks, stored_size

CATEGORIES_FILE = "categories.json"
SINGLE_FILE = "instances.json"
INDEX_FILE = "instances.index.json"
_VERSION = 1
_CHUNK_ROWS = (
    20_000  # measured: orjson in chunks of 20 k annotations is faster than in one piece, in a twelfth of the memory
)
_PART_NAME = re.compile(r"instances-\d{5,}-[0-9a-f]{16}\.json")


class CocoSettings(BaseModel):
    """Where COCO files go and how many images one may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["coco"] = "coco"
    url: str = Field(description="folder or prefix the files are written under")
    credentials: str | None = Field(None, description="name of the credentials for url; null: those of the output")
    images_per_file: int = Field(50_000, ge=1, description="more images than this make several files and an index")


class CocoTargetError(ValueError):
    """What lies at the target was not written by this sink, or by a newer one."""


class _SavedCategory(BaseModel):
    id: int = Field(ge=1)
    name: str
    keypoints: tuple[str, ...] = ()


class _CategoriesFile(BaseModel):
    version: Literal[1]
    categories: tuple[_SavedCategory, ...]


class _IndexEntry(BaseModel):
    file: str
    bytes: int
    sha256: str
    images: int
    annotations: int
    first_key: str | None
    last_key: str | None


class _IndexFile(BaseModel):
    version: Literal[1]
    images: int
    annotations: int
    files: tuple[_IndexEntry, ...]


_File = TypeVar("_File", _CategoriesFile, _IndexFile)


@dataclass(frozen=True, slots=True)
class _Survey:
    """What the first reading found. root: what file names are relative to, see file_name."""

    categories: CategoryMap
    image_ids: StableIds
    annotation_ids: StableIds
    root: str
    images: int
    annotations: int
    left_out: dict[str, int]


class CocoSink:
    """A view as COCO instances. store is rooted at the settings' url. When the store raises, the target still holds the former export."""

    def __init__(self, settings: CocoSettings, store: ObjectStore) -> None:
        self._images_per_file = settings.images_per_file
        self._store = store

    def plan(self, view: LabelledImages) -> PushReport:
        """What push would do. Makes the files here, one at a time, to know."""
        return self._export(view, write=False)

    def push(self, view: LabelledImages) -> PushReport:
        """Makes the target hold the view; an equal view leaves every byte as it is."""
        return self._export(view, write=True)

    def verify(self, view: LabelledImages) -> tuple[str, ...]:
        """Reads every file back and compares it with the one the view makes."""
        problems = []
        with tempfile.TemporaryDirectory(prefix="prelabel-coco-") as folder:
            survey = self._survey(view, Path(folder))
            for name, local in self._files(view, survey, Path(folder)):
                difference = compare_with_stored(self._store, name, local)
                if difference != "unchanged":
                    problems.append(
                        f"{name} is missing" if difference == "added" else f"{name} differs from what the view makes"
                    )
        return tuple(problems)

    def _export(self, view: LabelledImages, *, write: bool) -> PushReport:
        differences: Counter[Difference] = Counter()
        names = []
        former_index = self._read_index()
        with tempfile.TemporaryDirectory(prefix="prelabel-coco-") as folder:
            survey = self._survey(view, Path(folder))
            for name, local in self._files(view, survey, Path(folder)):
                difference = self._difference(name, local)
                differences[difference] += 1
                names.append(name)
                if write and difference != "unchanged":
                    put_file(self._store, name, local, "application/json")
        removed = self._obsolete(names, former_index)
        if not differences["added"] and not differences["changed"]:
            # parts of the former index stay; a head file is what a push left that died before its end
            removed = [name for name in removed if name in (SINGLE_FILE, INDEX_FILE)]
        for name in removed if write else ():
            obstore.delete(self._store, name)
        return PushReport(
            sink="coco",
            added=differences["added"],
            changed=differences["changed"],
            unchanged=differences["unchanged"],
            removed=len(removed),
            images=survey.images,
            annotations=survey.annotations,
            left_out=survey.left_out,
            objects=(names[-1],),
        )

    def _difference(self, name: str, local: Path) -> Difference:
        if name in (CATEGORIES_FILE, SINGLE_FILE, INDEX_FILE):
            return compare_with_stored(self._store, name, local)
        # the name holds the content's hash: its presence says enough
        return "unchanged" if stored_size(self._store, name) == local.stat().st_size else "added"

    def _obsolete(self, names: list[str], former_index: _IndexFile | None) -> list[str]:
        """What lies at the target and no longer belongs there, but for the files of the former index: somebody may be reading them."""
        spared = {entry.file for entry in former_index.files} if former_index else set()
        # only what lies beside our files: there may be a whole archive below
        stored = [entry["path"] for entry in obstore.list_with_delimiter(self._store)["objects"]]
        ours = {path for path in stored if path in (SINGLE_FILE, INDEX_FILE) or _PART_NAME.fullmatch(path)}
        return sorted(ours - spared - set(names))

    def _survey(self, view: LabelledImages, folder: Path) -> _Survey:
        categories = CategoryMap(self._read_categories())
        images_seen, annotations_seen = (
            IdSurvey(folder / "image-ids", ID_BITS),
            IdSurvey(folder / "annotation-ids", ID_BITS),
        )
        roots: set[str] = set()
        images = annotations = 0
        left_out: Counter[str] = Counter()
        for image_rows, annotation_rows in view.batches():
            exported, images_left_out = select_images(image_rows)
            categories.add(pc.unique(pc.struct_field(pc.list_flatten(image_rows["outcomes"]), "category")).to_pylist())
            shapes, _, shapes_left_out = select_shapes(annotation_rows, exported.keys, categories)
            images_seen.add(exported.keys)
            annotations_seen.add(shapes["annotation_id"].to_pylist())
            roots |= source_folders(exported.keys, exported.sources)
            images += len(exported)
            annotations += shapes.num_rows
            left_out += Counter(images_left_out) + Counter(shapes_left_out)
        ids = StableIds(images_seen), StableIds(annotations_seen)
        return _Survey(categories, *ids, common_folder(roots), images, annotations, dict(sorted(left_out.items())))

    def _files(self, view: LabelledImages, survey: _Survey, folder: Path) -> Iterator[tuple[str, Path]]:
        """The export's files with their names, in the order of writing; each is deleted here when the next is asked for."""
        local = folder / "file.json"
        local.write_bytes(
            _dump({"version": _VERSION, "categories": [category.as_coco() for category in survey.categories]})
        )
        yield CATEGORIES_FILE, local
        entries: list[_IndexEntry] = []
        for part in _write_parts(view, survey, local, self._images_per_file):
            sha256 = file_sha256(local)
            name = (
                f"instances-{len(entries):05d}-{sha256[:16]}.json"
                if survey.images > self._images_per_file
                else SINGLE_FILE
            )
            size = local.stat().st_size
            entries.append(
                _IndexEntry(
                    file=name,
                    bytes=size,
                    sha256=sha256,
                    images=part.images,
                    annotations=part.annotations,
                    first_key=part.first_key,
                    last_key=part.last_key,
                )
            )
            yield name, local
        if survey.images <= self._images_per_file:
            return
        index = _IndexFile(version=_VERSION, images=survey.images, annotations=survey.annotations, files=tuple(entries))
        local.write_bytes(_dump(index.model_dump(mode="json")))
        yield INDEX_FILE, local

    def _read_categories(self) -> list[Category]:
        saved = self._read_json(CATEGORIES_FILE, _CategoriesFile)
        return [Category(c.id, c.name, c.keypoints) for c in saved.categories] if saved else []

    def _read_index(self) -> _IndexFile | None:
        return self._read_json(INDEX_FILE, _IndexFile)

    def _read_json(self, name: str, kind: type[_File]) -> _File | None:
        try:
            data = bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            raise CocoTargetError(
                f"{name} at the COCO sink's url is not one of ours: {error}; choose another url or move the file away"
            ) from error


def source_folders(keys: Iterable[str], sources: Iterable[str]) -> set[str]:
    """The folders, each ending in a slash, that the sources of these keys are: a source that names one image is its folder, a key list is none."""
    folders = set()
    for key, source in zip(keys, sources, strict=True):
        folder = key[: key.rfind("/") + 1] if key == source else source.rstrip("/") + "/"
        if key.startswith(folder):
            folders.add(folder)
    return folders


def common_folder(folders: Iterable[str]) -> str:
    """The deepest folder that holds all of these (each ending in a slash); empty if there is none."""
    shared = []
    for segments in zip(*(folder.split("/")[:-1] for folder in folders), strict=False):
        if len(set(segments)) > 1:
            break
        shared.append(segments[0] + "/")
    return "".join(shared)


def file_name(key: str, root: str) -> str:
    """What COCO's tools join to their image folder: the key below root, the job's source or what its sources have in common; other keys without their scheme."""
    return key[len(root) :] if root and key.startswith(root) else key.split("://", 1)[-1].lstrip("/")


class _Part:
    """One COCO file as it grows: its images go straight into it, its annotations into a second file that is joined to it at the end."""

    def __init__(self, local: Path, categories: CategoryMap) -> None:
        self.images = self.annotations = 0
        self.first_key: str | None = None
        self.last_key: str | None = None
        self._local = local
        self._spool = local.with_suffix(".annotations")
        self._spool.write_bytes(b"")
        # no date: equal labels make equal bytes
        info = _dump({"description": "Labels made by prelabel", "version": str(_VERSION)})
        listed = _dump([category.as_coco() for category in categories])
        local.write_bytes(b'{"info":' + info + b',"licenses":[],"categories":' + listed + b',"images":[')

    def add_images(self, records: list[dict[str, object]], keys: list[str]) -> None:
        """Appends the next images; keys are theirs."""
        _append_items(self._local, records, first=self.images == 0)
        self.images += len(records)
        self.first_key, self.last_key = self.first_key or keys[0], keys[-1]

    def add_annotations(self, records: list[dict[str, object]]) -> None:
        """Appends the next annotations."""
        _append_items(self._spool, records, first=self.annotations == 0)
        self.annotations += len(records)

    def finish(self) -> None:
        """Makes the file whole."""
        with self._local.open("ab") as file:
            file.write(b'],"annotations":[')
            for chunk in read_chunks(self._spool):
                file.write(chunk)
            file.write(b"]}\n")


def _write_parts(view: LabelledImages, survey: _Survey, local: Path, images_per_file: int) -> Iterator[_Part]:
    """The second reading: makes one file after the other at local, the next one only when asked for. An empty view makes one file."""
    part = _Part(local, survey.categories)
    for image_rows, annotation_rows in view.batches():
        images, _ = select_images(image_rows)
        shapes, places, _ = select_shapes(annotation_rows, images.keys, survey.categories)
        image_ids = survey.image_ids.assign(images.keys)
        shape_ids = survey.annotation_ids.assign(shapes["annotation_id"].to_pylist())
        records = image_records(images, image_ids, [file_name(key, survey.root) for key in images.keys])
        start = 0
        while start < len(images):
            if part.images == images_per_file:
                part.finish()
                yield part
                part = _Part(local, survey.categories)
            end = min(len(images), start + images_per_file - part.images)
            part.add_images(records[start:end], images.keys[start:end])
            first, last = np.searchsorted(places, (start, end)).tolist()
            for low in range(first, last, _CHUNK_ROWS):
                rows = slice(low, min(low + _CHUNK_ROWS, last))
                chunk = shapes.slice(rows.start, rows.stop - rows.start)
                part.add_annotations(
                    annotation_records(chunk, shape_ids[rows], image_ids[places[rows]], survey.categories)
                )
            start = end
    part.finish()
    yield part


def _append_items(path: Path, records: list[dict[str, object]], *, first: bool) -> None:
    if records:
        with path.open("ab") as file:
            file.write(b"" if first else b",\n")
            # a line an item at a tenth of the cost of encoding each; inside a JSON string the quotes would be escaped
            file.write(_dump(records)[1:-1].replace(b'},{"id":', b'},\n{"id":'))


def _dump(value: object) -> bytes:
    return orjson.dumps(value)
