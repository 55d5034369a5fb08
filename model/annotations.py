"""The tables' Arrow schemas, one list of documented columns a table, and their version. Knows nothing of how rows are made or where they are stored.

Frames: pixels are positions in the *oriented* image (EXIF orientation applied), origin at the top left, x to the right, y down; bins are Rex-Omni's 0–999.
"""

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1  # written to every file's metadata under SCHEMA_VERSION_KEY; a reader refuses a newer one
SCHEMA_VERSION_KEY = b"prelabel.schema_version"

# geometry of a shape
BOX, POINT, POLYGON, KEYPOINTS = "box", "point", "polygon", "keypoints"
# status of an image and prompt
OK, TRUNCATED, MALFORMED, UNREADABLE, FAILED = "ok", "truncated", "malformed", "unreadable", "failed"
# outcome of a category in an answer
FOUND, ABSENT, UNANSWERED = "found", "absent", "unanswered"
# verdict on a shape of a golden image: of a prediction hit or false alarm, of a truth hit or miss
HIT, MISS, FALSE_ALARM = "hit", "miss", "false_alarm"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. meaning says its unit, its frame and what null means."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False


# fmt: off - a column a line
_IDENTITY = (
    Column("image_key", pa.string(), "URL of the image: s3://bucket/key, file:///path"),
    Column(
        "etag",
        pa.string(),
        "version of the object that was read: the store's etag, for files size and mtime; of the listing where nothing could be read",
    ),
    Column("source", pa.string(), "the job's prefix (or key list) under which the image was listed"),
)
_ORIGIN = (
    Column("run_id", pa.string(), "the run that made the row"),
    Column("shard", pa.string(), "the shard that made the row"),
)

ANNOTATIONS = (
    Column(
        "annotation_id",
        pa.string(),
        "unique in a run; the same image version, prompt and generation settings give the same id: <image id>-<instance>",
    ),
    *_IDENTITY,
    Column("width_px", pa.int32(), "width of the oriented image"),
    Column("height_px", pa.int32(), "height of the oriented image"),
    Column("task", pa.string(), "detection, pointing, …: the job's task"),
    Column("prompt_index", pa.int32(), "which of the job's prompts, from 0"),
    Column("instance", pa.int32(), "the shape's order in the answer, from 0; carries no confidence"),
    Column("phrase", pa.string(), "what the model said, stripped; for read text the text"),
    Column(
        "category", pa.string(), "the job's category the phrase belongs to; null: nobody asked for it", nullable=True
    ),
    Column("geometry", pa.string(), "box | point | polygon | keypoints"),
    Column(
        "bbox_xyxy",
        pa.list_(pa.float32(), 4),
        "pixels x0, y0, x1, y1: the box, a polygon's or point's bounds, a keypoint instance's box",
    ),
    Column(
        "bins",
        pa.list_(pa.int32()),
        "the shape's coordinate bins as said, corners reordered; for keypoints the instance's box",
    ),
    Column(
        "points",
        pa.list_(pa.float32()),
        "pixels x, y, x, y …: the point, the polygon's corners, the visible key points; null for a box",
        nullable=True,
    ),
    Column(
        "keypoint_names",
        pa.list_(pa.string()),
        "all names asked for, in the asked order; null unless geometry is keypoints",
        nullable=True,
    ),
    Column(
        "keypoint_visible",
        pa.list_(pa.bool_()),
        "for each name whether points holds it (in order); null unless geometry is keypoints",
        nullable=True,
    ),
    Column("text", pa.string(), "the text read (OCR tasks); null elsewhere", nullable=True),
    Column(
        "score",
        pa.float32(),
        "geometric mean probability of the shape's coordinate tokens, uncalibrated; null: the engine gave none",
        nullable=True,
    ),
    Column("flags", pa.list_(pa.string()), "what is odd about this shape: see model/decoding/decoder.py"),
    *_ORIGIN,
)

_OUTCOME = pa.struct(
    [
        pa.field("category", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("count", pa.int32(), nullable=False),
    ]
)

IMAGES = (
    Column("image_id", pa.string(), "16 hex digits of key, version, prompt and generation fingerprint"),
    *_IDENTITY,
    Column("size_bytes", pa.int64(), "size of the stored object"),
    Column("width_px", pa.int32(), "width of the oriented image; null: its header could not be read", nullable=True),
    Column("height_px", pa.int32(), "height of the oriented image; null: its header could not be read", nullable=True),
    Column("input_width_px", pa.int32(), "width the model saw; null: it saw nothing", nullable=True),
    Column("input_height_px", pa.int32(), "height the model saw; null: it saw nothing", nullable=True),
    Column("task", pa.string(), "detection, pointing, …: the job's task"),
    Column("prompt_index", pa.int32(), "which of the job's prompts, from 0"),
    Column("prompt", pa.string(), "the user turn's text as sent"),
    Column(
        "status",
        pa.string(),
        "ok | truncated | malformed | unreadable (final for this version) | failed (the next run tries again)",
    ),
    Column("error", pa.string(), "why it is unreadable or failed, in a sentence; null otherwise", nullable=True),
    Column(
        "outcomes",
        pa.list_(_OUTCOME),
        "for each asked category found, absent (the model said None) or unanswered, and how many shapes",
    ),
    Column("flags", pa.list_(pa.string()), "what is odd about the answer, sorted: see model/decoding/decoder.py"),
    Column("dropped", pa.int32(), "shapes left out (partial, repeated, zero area, odd count of coordinates)"),
    Column("token_ids", pa.list_(pa.int32()), "the raw answer; null: there is none", nullable=True),
    Column(
        "token_logprobs",
        pa.list_(pa.float32()),
        "log probability of each token of the answer; null: the engine gave none",
        nullable=True,
    ),
    Column(
        "prompt_tokens",
        pa.int32(),
        "tokens of the prompt, visual ones included; null: there was no answer",
        nullable=True,
    ),
    Column("answer_tokens", pa.int32(), "tokens of the answer; null: there was no answer", nullable=True),
    Column(
        "seconds",
        pa.float32(),
        "from the request's admission to its last token; null: there was no answer",
        nullable=True,
    ),
    Column("attempt", pa.string(), "which attempt at the shard made the row"),
    Column("worker", pa.string(), "host and process of that attempt"),
    *_ORIGIN,
)

_BOX = pa.list_(pa.float32(), 4)
_PREDICTED = pa.struct(
    [
        pa.field("phrase", pa.string(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("geometry", pa.string(), nullable=False),
        pa.field("bbox_xyxy", _BOX, nullable=False),
        pa.field("score", pa.float32()),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("verdict", pa.string()),
    ]
)
_TRUTH = pa.struct(
    [
        pa.field("category", pa.string(), nullable=False),
        pa.field("bbox_xyxy", _BOX, nullable=False),
        pa.field("verdict", pa.string()),
    ]
)
_OF_GOLDEN_IMAGES = {
    "source": Column("source", pa.string(), "the golden set: URL of its COCO file"),
    "error": Column(
        "error",
        pa.string(),
        "why the image cannot be judged (unreadable, failed, not of the size the golden set says), in a sentence; null otherwise",
        nullable=True,
    ),
}

CHECKS = (
    *(_OF_GOLDEN_IMAGES.get(column.name, column) for column in IMAGES),
    Column(
        "judged",
        pa.list_(pa.string()),
        "the categories of the job that the golden set tells the truth about, for this image",
    ),
    Column(
        "predicted",
        pa.list_(_PREDICTED),
        "the answer's shapes, columns as in annotations (a point's box is x, y, x, y); verdict hit | false_alarm, null where the category is not judged",
    ),
    Column(
        "truths",
        pa.list_(_TRUTH),
        "the golden set's boxes of the judged categories, pixels; verdict hit | miss, null where the image cannot be judged",
    ),
)
# fmt: on

TABLES: dict[str, tuple[Column, ...]] = {"annotations": ANNOTATIONS, "images": IMAGES, "checks": CHECKS}


def schema(table: str) -> pa.Schema:
    """The Arrow schema of a table ("annotations", "images", "checks"), each field's meaning and the schema version in the metadata."""
    fields = [pa.field(c.name, c.type, nullable=c.nullable, metadata={"meaning": c.meaning}) for c in TABLES[table]]
    return pa.schema(fields, metadata={SCHEMA_VERSION_KEY: str(SCHEMA_VERSION)})
