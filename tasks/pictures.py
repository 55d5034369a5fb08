"""The bytes of an image file become the pixels the model sees, or a reason why not. Knows nothing of storage.

What is shown: the first frame, turned as EXIF says, transparency on white, 16-bit grey scaled from its whole range; an embedded colour profile is left unapplied, as in the
model's training. Raise tasks/fingerprinting.IMAGE_PREPARATION when any of this changes.
"""

import importlib.util
import io
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from model.image_size import ImageAspectError, ImageLimits

# What may be opened at all: Pillow's other formats include interpreters of other programs (EPS) and parsers nobody has looked at for years. MPO comes with JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")

DECODING_BYTES_PER_PIXEL = 8  # the decoded picture, its conversion to RGB and what a decoder holds beside them

ORIENTATION = 0x0112  # EXIF's tag
TIFF_TILE_WIDTH, TIFF_TILE_LENGTH = 322, 323
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_BEGINNINGS = {b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"GIF8": "GIF", b"BM": "BMP"}
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# Pillow's own limit is one for the whole process and hides the size it refuses. Ours is the job's, and checked before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
Image.init()
if importlib.util.find_spec("pillow_heif") is not None:
    importlib.import_module("pillow_heif").register_heif_opener()


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """What became of a file's bytes: pixels, or the error that makes it unreadable.

    width_px, height_px: the oriented picture as stored, None where no header could be read. pixels: (height, width, 3) uint8 RGB, oriented, at the model's size.
    """

    width_px: int | None
    height_px: int | None
    pixels: NDArray[np.uint8] | None
    error: str | None


class _Unreadable(Exception):
    """Why a file is no picture for the model."""


def decode_image(
    data: bytes,
    limits: ImageLimits,
    *,
    max_pixels: int,
    admit: Callable[[int], AbstractContextManager[object]] = lambda size_bytes: nullcontext(),
) -> DecodedPicture:
    """Decodes, orients and resizes a picture; never raises for what is in data. Its content decides what it is, no name does.

    A picture of more than max_pixels, by its header, is refused undecoded. admit(size_bytes) is entered for as long as a whole decoded picture is in memory.
    """
    width = height = None
    try:
        with _open(data) as image:
            width, height = _oriented_size(image)
            if width * height > max_pixels:
                raise _Unreadable(f"{width}×{height} pixels, more than the limit of {max_pixels:,}")
            if _tile_pixels(image) > max_pixels:
                raise _Unreadable(f"tiles of more pixels than the limit of {max_pixels:,}")
            size = limits.fit(width, height)
            with admit(width * height * DECODING_BYTES_PER_PIXEL):
                pixels = _pixels(image, size)
    except (_Unreadable, ImageAspectError) as error:
        reason = f"aspect ratio: {error}" if isinstance(error, ImageAspectError) else str(error)
        return DecodedPicture(width, height, None, reason)
    return DecodedPicture(width, height, pixels, None)


def _open(data: bytes) -> Image.Image:
    if not data:
        raise _Unreadable("empty: zero bytes")
    with _damage():
        try:
            return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
        except UnidentifiedImageError:
            pass
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        raise _Unreadable("a HEIC/HEIF picture, which needs the package pillow-heif (not installed)")
    claimed = next((name for beginning, name in _BEGINNINGS.items() if data.startswith(beginning)), None)
    if claimed:
        raise _Unreadable(f"damaged or truncated: begins like {claimed}, but its header cannot be read")
    raise _Unreadable("not an image of a known format (JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF)")


def _pixels(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(height, width, 3) at size (width, height), oriented."""
    with _damage():
        image.load()  # raises where the file ends early: LOAD_TRUNCATED_IMAGES stays off
        orientation = _orientation(image)
        rgb = _rgb(image)
        resized = _resize(rgb, size, orientation)
        if orientation in _TURNS:
            resized = resized.transpose(_TURNS[orientation])
        return np.array(resized)


def _resize(rgb: Image.Image, size: tuple[int, int], orientation: int) -> Image.Image:
    """The picture as stored, at the oriented size: it is turned afterwards, when there is less to turn.

    One direction at a time, what will be the width first. In one call Pillow chooses the order itself, and differs by up to 23 levels from torchvision and from
    the Pillow the model was trained with, because each pass is clipped to 0–255.
    """
    width, height = size
    if orientation in _SIDEWAYS:
        return _scaled(_scaled(rgb, (rgb.width, width)), (height, width))
    return _scaled(_scaled(rgb, (width, rgb.height)), size)


def _scaled(rgb: Image.Image, size: tuple[int, int]) -> Image.Image:
    return rgb if rgb.size == size else rgb.resize(size, Image.Resampling.BICUBIC)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image  # the common case: convert would copy it
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255.
        deep = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((deep + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "I":
        raise _Unreadable("32-bit integer pixels have no known brightness")
    if image.mode == "F":
        raise _Unreadable("float pixels have no known brightness")
    return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    transparent = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(transparent, mask=transparent.getchannel("A"))
    return white


def _oriented_size(image: Image.Image) -> tuple[int, int]:
    # A PNG may keep its EXIF behind the pixels, where asking for it decodes them all: only what comes first is looked at.
    sideways = (image.format != "PNG" or "exif" in image.info) and _orientation(image) in _SIDEWAYS
    return (image.height, image.width) if sideways else image.size


def _tile_pixels(image: Image.Image) -> int:
    """Pixels of one tile of a TIFF, which is decoded whole, however small the picture in it; 0 where there are none."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    sides = tags.get(TIFF_TILE_WIDTH, 0), tags.get(TIFF_TILE_LENGTH, 0)
    return sides[0] * sides[1] if all(isinstance(side, int) for side in sides) else 0


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation where it has to be applied, else 1."""
    if image.format == "TIFF":
        return 1  # Pillow turns those itself, and says the turned size before
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error):
        return 1  # nonsense in the metadata; the pixels are still good
    return value if isinstance(value, int) and value in _TURNS else 1


@contextmanager
def _damage() -> Iterator[None]:
    """Whatever Pillow raises on the bytes of a file becomes the file's fault. Lack of memory stays the machine's."""
    try:
        yield
    except (_Unreadable, UnidentifiedImageError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # its parsers raise anything on hostile bytes: struct.error, KeyError, SyntaxError, zlib.error …
        words = str(error).strip().partition("\n")[0] or type(error).__name__
        raise _Unreadable(f"damaged: {words}") from error
