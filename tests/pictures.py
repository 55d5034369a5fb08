"""Pictures as archives really hold them: photographs from scikit-image's wheel, their many encodings, and broken files, each with the outcome it must have.

Knows nothing of the code under test: PICTURES is a table for whoever decodes images.
"""

import functools
import importlib.util
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]
Corners = tuple[Colour, Colour, Colour, Colour]

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (20, 160, 60), (30, 60, 210), (240, 210, 30)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
HIDDEN = (255, 0, 255)  # lies under transparent pixels: seeing it means alpha was thrown away
MARKED: Corners = (RED, GREEN, BLUE, YELLOW)
GREY: Corners = tuple((v, v, v) for v in (round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in MARKED))  # type: ignore[assignment]  # four
BILEVEL: Corners = (WHITE, BLACK, BLACK, WHITE)
CORNER_TOLERANCE = 24  # per channel: JPEG's and chroma subsampling's error on a plain block
SIZE = (451, 300)  # of the marked photograph, oriented


@dataclass(frozen=True, slots=True)
class Picture:
    """A file and what must become of it.

    status: None where it can be labelled, "unreadable" where it cannot. size_px: width, height of the oriented picture, for an unreadable one what its header
    says, None where that is nothing. reason: a regular expression, to be searched without regard to case in an unreadable picture's reason. corners: colours of the
    oriented picture at top left, top right, bottom left, bottom right, transparency shown on white; see corners_of.
    """

    name: str
    data: Callable[[], bytes]
    status: str | None = None
    size_px: tuple[int, int] | None = SIZE
    reason: str = ""
    corners: Corners | None = None


def write_pictures(folder: Path, pictures: "Sequence[Picture] | None" = None) -> list[Path]:
    """Writes the pictures (all of them by default) under folder and returns their paths in the same order."""
    paths = []
    for picture in PICTURES if pictures is None else pictures:
        path = folder / picture.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.data())
        paths.append(path)
    return paths


def corners_of(pixels: Pixels) -> Pixels:
    """(4, 3) colours in the middle of the four marked blocks of a (height, width, 3) picture, at whatever size it was resized to."""
    height, width = pixels.shape[:2]
    left, right, top, bottom = width // 16, width - 1 - width // 16, height // 16, height - 1 - height // 16
    return np.stack([pixels[top, left], pixels[top, right], pixels[bottom, left], pixels[bottom, right]])


def photograph(name: str) -> Path:
    """A photograph that scikit-image ships inside its wheel (astronaut.png, chelsea.png, coffee.png, rocket.jpg, camera.png …), without importing it."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the photographs are scikit-image's: install the dev requirements")
    return Path(spec.origin).parent / "data" / name


@functools.cache
def marked() -> Pixels:
    """(300, 451, 3) a cat with a plain block of red, green, blue and yellow in its corners (top left, top right, bottom left, bottom right)."""
    pixels = np.asarray(Image.open(photograph("chelsea.png")).convert("RGB")).copy()
    height, width = pixels.shape[0] // 6, pixels.shape[1] // 6
    for (rows, columns), colour in zip(
        (
            (slice(0, height), slice(0, width)),
            (slice(0, height), slice(-width, None)),
            (slice(-height, None), slice(0, width)),
            (slice(-height, None), slice(-width, None)),
        ),
        MARKED,
        strict=True,
    ):
        pixels[rows, columns] = colour
    return pixels


def encode(pixels: NDArray[Any] | Image.Image, format: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(**options: Any) -> bytes:
    return encode(marked(), "JPEG", **({"quality": 92} | options))


def png(**options: Any) -> bytes:
    return encode(marked(), "PNG", **options)


# --- orientation -----------------------------------------------------------------------------------------------------

# What is stored for a picture V (row, column), by EXIF 2.3's definition of tag 0x0112: which visual side row 0 and column 0 are.
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda v: v,  # top, left
    2: lambda v: v[:, ::-1],  # top, right
    3: lambda v: v[::-1, ::-1],  # bottom, right
    4: lambda v: v[::-1],  # bottom, left
    5: lambda v: v.transpose(1, 0, 2),  # left, top
    6: lambda v: v[:, ::-1].transpose(1, 0, 2),  # right, top
    7: lambda v: v[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda v: v[::-1].transpose(1, 0, 2),  # left, bottom
}


def turned(orientation: int, format: str = "JPEG") -> bytes:
    """The marked picture, stored as a camera in that orientation stores it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(
        np.ascontiguousarray(STORED[orientation](marked())),
        format,
        exif=exif.tobytes(),
        **({"quality": 92} if format != "PNG" else {}),
    )


def turned_tiff(orientation: int) -> bytes:
    return encode(np.ascontiguousarray(STORED[orientation](marked())), "TIFF", tiffinfo={274: orientation})


def odd_orientation(value: bytes) -> bytes:
    """A JPEG whose EXIF block is well formed but for the orientation: `value` is the directory entry after its tag (type, count, value)."""
    directory = struct.pack("<HH", 1, 0x0112) + value + struct.pack("<I", 0)
    return jpeg(exif=b"Exif\0\0II" + struct.pack("<HI", 42, 8) + directory)


# --- pixels of every kind --------------------------------------------------------------------------------------------


def png_file(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG from filtered scan lines, for the kinds Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows, 6))
        + png_chunk(b"IEND", b"")
    )


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey16() -> NDArray[np.uint16]:
    """The marked picture's greys over the whole range of 16 bits: an 8-bit reader that clips instead of scaling shows white nearly everywhere."""
    return np.asarray(Image.fromarray(marked()).convert("L")).astype(np.uint16) * 257


def rgb16_png() -> bytes:
    big = (marked().astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in big)
    return png_file(big.shape[1], big.shape[0], 16, 2, rows)


def bilevel() -> Image.Image:
    pixels = np.where(np.asarray(Image.fromarray(marked()).convert("L")) > 128, 255, 0).astype(np.uint8)
    height, width = pixels.shape
    for corner, colour in zip(((0, 0), (0, 1), (1, 0), (1, 1)), BILEVEL, strict=True):
        rows = slice(-(height // 6), None) if corner[0] else slice(0, height // 6)
        columns = slice(-(width // 6), None) if corner[1] else slice(0, width // 6)
        pixels[rows, columns] = colour[0]
    return Image.fromarray(pixels).convert("1", dither=Image.Dither.NONE)


def see_through() -> Image.Image:
    """RGBA: the marked picture with its top right and bottom left blocks wholly transparent over HIDDEN."""
    rgba = np.dstack([marked(), np.full(marked().shape[:2], 255, np.uint8)])
    height, width = rgba.shape[0] // 6, rgba.shape[1] // 6
    rgba[:height, -width:] = (*HIDDEN, 0)
    rgba[-height:, :width] = (*HIDDEN, 0)
    return Image.fromarray(rgba)


SEEN_THROUGH: Corners = (RED, WHITE, WHITE, YELLOW)
SEEN_THROUGH_GREY: Corners = (GREY[0], WHITE, WHITE, GREY[3])


def palette_png(*, transparent: bool) -> bytes:
    """Eight bits of palette; with transparent, the green block's colour is see-through."""
    image = Image.fromarray(marked()).quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    if not transparent:
        return encode(image, "PNG")
    return encode(image, "PNG", transparency=image.getpixel((SIZE[0] - 8, 8)))


def animation(format: str) -> bytes:
    """Three frames: the marked picture, then black, then white."""
    frames = [Image.new("RGB", SIZE, colour) for colour in (BLACK, WHITE)]
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    return encode(Image.fromarray(marked()), format, save_all=True, append_images=frames, duration=100, **options)


def multi_picture_jpeg() -> bytes:
    """As many phones write: a JPEG with a second picture behind it (MPO)."""
    return encode(
        Image.fromarray(marked()), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64), BLACK)], quality=92
    )


# --- broken, lying, hostile ------------------------------------------------------------------------------------------


def overwritten(data: bytes, share: float, junk: bytes) -> bytes:
    start = int(len(data) * share)
    return data[:start] + junk + data[start + len(junk) :]


def huge_header_png() -> bytes:
    """Says 60,000 × 60,000 RGB pixels (10.8 GB) and holds next to none."""
    return png_file(60_000, 60_000, 8, 2, b"\0" * 1000)


def real_bomb_png() -> bytes:
    """Really holds 20,000 × 20,000 black pixels, in some 50 KB."""
    return png_file(20_000, 20_000, 1, 0, b"\0" * (2501 * 20_000))


def metadata_bomb_png() -> bytes:
    """A small picture with a compressed text of 100 MB before its pixels."""
    text = PngInfo()
    text.add(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 100_000_000, 9))
    return png(pnginfo=text)


HEIC = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + struct.pack(">I", 8) + b"mdat" + bytes(range(256)) * 8
TEXT = b"This is not a picture. It was saved by a script that ran out of disk.\n" * 20
HTML = b"<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head><body><h1>Forbidden</h1></body></html>\n"
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle cx="20" cy="20" r="10"/></svg>\n'
PDF = b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n"
# Pillow would hand this to Ghostscript, a program interpreter: it must be refused by its format.
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n0 0 64 64 rectfill\nshowpage\n%%EOF\n"

NOT_AN_IMAGE = "not an image|not a picture|unknown format|no image format"
TRUNCATED = "truncated|cut short|ends before|incomplete"
TOO_MANY_PIXELS = "pixels"


def _photo(name: str, size_px: tuple[int, int]) -> Picture:
    return Picture(f"photographs/{name}", lambda: photograph(name).read_bytes(), size_px=size_px)


def _fine(
    name: str, data: Callable[[], bytes], corners: Corners | None = MARKED, size_px: tuple[int, int] = SIZE
) -> Picture:
    return Picture(name, data, size_px=size_px, corners=corners)


def _bad(name: str, data: Callable[[], bytes] | bytes, reason: str, size_px: tuple[int, int] | None = None) -> Picture:
    return Picture(name, (lambda: data) if isinstance(data, bytes) else data, "unreadable", size_px, reason)


PHOTOGRAPHS = (
    _photo("astronaut.png", (512, 512)),
    _photo("chelsea.png", (451, 300)),
    _photo("coffee.png", (600, 400)),
    _photo("motorcycle_left.png", (741, 500)),
    _photo("rocket.jpg", (640, 427)),
    _photo("hubble_deep_field.jpg", (1000, 872)),
    _photo("camera.png", (512, 512)),  # grey
    _photo("horse.png", (400, 328)),  # RGBA
)

ORIENTED = (
    *(_fine(f"turned/exif-{n}.jpg", functools.partial(turned, n)) for n in STORED),
    _fine("turned/exif-6.png", functools.partial(turned, 6, "PNG")),
    _fine("turned/exif-8.webp", functools.partial(turned, 8, "WEBP")),
    _fine("turned/tag-5.tif", functools.partial(turned_tiff, 5)),
    _fine("turned/tag-6.tif", functools.partial(turned_tiff, 6)),
    # Cameras and editors write nonsense; the picture is then shown as it is stored.
    _fine("turned/orientation-0.jpg", lambda: odd_orientation(struct.pack("<HIHH", 3, 1, 0, 0))),
    _fine("turned/orientation-9.jpg", lambda: odd_orientation(struct.pack("<HIHH", 3, 1, 9, 0))),
    _fine("turned/orientation-text.jpg", lambda: odd_orientation(struct.pack("<HI4s", 2, 4, b"top\0"))),
    _fine("turned/orientation-two-values.jpg", lambda: odd_orientation(struct.pack("<HIHH", 3, 2, 1, 1))),
    _fine("turned/exif-garbage.jpg", lambda: jpeg(exif=b"Exif\0\0" + bytes(range(200)))),
    _fine("turned/exif-cut.jpg", lambda: jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")),
    _fine("turned/exif-bad-offset.jpg", lambda: jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")),
)

ENCODED = (
    _fine("kinds/baseline.jpg", jpeg),
    _fine("kinds/progressive.jpg", lambda: jpeg(progressive=True)),
    _fine("kinds/full-chroma.jpeg", lambda: jpeg(subsampling=0)),
    _fine("kinds/grey.jpg", lambda: encode(Image.fromarray(marked()).convert("L"), "JPEG", quality=92), GREY),
    _fine("kinds/cmyk.jpg", lambda: encode(Image.fromarray(marked()).convert("CMYK"), "JPEG", quality=92)),
    _fine(
        "kinds/profile.jpg",
        lambda: jpeg(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
    ),
    _fine("kinds/profile-garbage.jpg", lambda: jpeg(icc_profile=b"no profile at all")),
    _fine("kinds/two-pictures.jpg", multi_picture_jpeg),
    _fine("kinds/rgb.png", png),
    _fine("kinds/rgb16.png", rgb16_png),
    _fine("kinds/grey.png", lambda: encode(Image.fromarray(marked()).convert("L"), "PNG"), GREY),
    _fine("kinds/grey16.png", lambda: encode(grey16(), "PNG"), GREY),
    _fine("kinds/grey16.tif", lambda: encode(grey16(), "TIFF"), GREY),
    _fine(
        "kinds/grey16-big-endian.tif",
        lambda: encode(Image.frombytes("I;16B", SIZE, grey16().astype(">u2").tobytes()), "TIFF"),
        GREY,
    ),
    _fine("kinds/bilevel.png", lambda: encode(bilevel(), "PNG"), BILEVEL),
    _fine("kinds/bilevel-fax.tif", lambda: encode(bilevel(), "TIFF", compression="group4"), BILEVEL),
    _fine("kinds/palette.png", lambda: palette_png(transparent=False)),
    _fine("kinds/palette-transparent.png", lambda: palette_png(transparent=True), (RED, WHITE, BLUE, YELLOW)),
    _fine("kinds/rgb-one-colour-transparent.png", lambda: png(transparency=BLUE), (RED, GREEN, WHITE, YELLOW)),
    _fine("kinds/rgba.png", lambda: encode(see_through(), "PNG"), SEEN_THROUGH),
    _fine("kinds/rgba.webp", lambda: encode(see_through(), "WEBP", lossless=True, exact=True), SEEN_THROUGH),
    _fine("kinds/rgba.tif", lambda: encode(see_through(), "TIFF"), SEEN_THROUGH),
    _fine("kinds/grey-alpha.png", lambda: encode(see_through().convert("LA"), "PNG"), SEEN_THROUGH_GREY),
    _fine("kinds/still.gif", lambda: encode(Image.fromarray(marked()), "GIF")),
    _fine("kinds/animated.gif", lambda: animation("GIF")),
    _fine("kinds/animated.webp", lambda: animation("WEBP")),
    _fine("kinds/animated.png", lambda: animation("PNG")),
    _fine("kinds/pages.tif", lambda: animation("TIFF")),
    _fine("kinds/deflated.tif", lambda: encode(marked(), "TIFF", compression="tiff_adobe_deflate")),
    _fine("kinds/cmyk.tif", lambda: encode(Image.fromarray(marked()).convert("CMYK"), "TIFF")),
    _fine("kinds/plain.bmp", lambda: encode(marked(), "BMP")),
    _fine(
        "kinds/one-pixel.png", lambda: encode(np.full((1, 1, 3), RED, np.uint8), "PNG"), (RED, RED, RED, RED), (1, 1)
    ),
    _fine(
        "kinds/aspect-199.png",
        lambda: encode(np.full((10, 1990, 3), GREEN, np.uint8), "PNG"),
        (GREEN, GREEN, GREEN, GREEN),
        (1990, 10),
    ),
    # Content decides, not the name.
    _fine("misnamed/png.jpg", png),
    _fine("misnamed/jpeg.png", jpeg),
    _fine("misnamed/webp.jpg", lambda: encode(marked(), "WEBP", quality=92)),
    _fine("misnamed/jpeg-without-suffix", jpeg),
    _fine("misnamed/JPEG.JPG", jpeg),
    _fine("misnamed/umlaut ä, 100 % #1?.jpg", jpeg),
    _fine("damaged/trailing-garbage.jpg", lambda: jpeg() + bytes(range(256)) * 40),
    # libjpeg only warns of this, and Pillow passes no warning on: it is labelled, its lower half garbled.
    _fine("damaged/overwritten.jpg", lambda: overwritten(jpeg(), 0.5, bytes(500)), None),
)

BROKEN = (
    _bad("broken/zero-bytes.jpg", b"", "empty|zero bytes|0 bytes|no bytes"),
    _bad("broken/one-byte.jpg", b"\xff", NOT_AN_IMAGE),
    _bad("broken/text.jpg", TEXT, NOT_AN_IMAGE),
    _bad("broken/page.png", HTML, f"html|{NOT_AN_IMAGE}"),
    _bad("broken/drawing.png", SVG, f"svg|{NOT_AN_IMAGE}"),
    _bad("broken/document.png", PDF, f"pdf|{NOT_AN_IMAGE}"),
    _bad("broken/postscript.jpg", POSTSCRIPT, f"eps|postscript|format|{NOT_AN_IMAGE}"),
    _bad("broken/phone.heic.jpg", HEIC, "heic|heif"),
    _bad("broken/header-only.jpg", lambda: jpeg()[:12], f"{NOT_AN_IMAGE}|{TRUNCATED}"),
    _bad("broken/half.jpg", lambda: jpeg()[: len(jpeg()) // 2], TRUNCATED, SIZE),
    _bad("broken/without-end-marker.jpg", lambda: jpeg()[:-2], TRUNCATED, SIZE),
    _bad("broken/half-progressive.jpg", lambda: jpeg(progressive=True)[:20_000], TRUNCATED, SIZE),
    _bad("broken/half-turned.jpg", lambda: turned(6)[:20_000], TRUNCATED, SIZE),
    _bad("broken/half.png", lambda: png()[: len(png()) // 2], TRUNCATED, SIZE),
    _bad(
        "broken/half.webp",
        lambda: encode(marked(), "WEBP", quality=92)[:9_000],
        f"{TRUNCATED}|webp|corrupt|damaged|{NOT_AN_IMAGE}",
    ),
    _bad("broken/half.gif", lambda: encode(Image.fromarray(marked()), "GIF")[:30_000], TRUNCATED, SIZE),
    _bad(
        "broken/half.tif",
        lambda: encode(marked(), "TIFF", compression="tiff_adobe_deflate")[:60_000],
        f"{TRUNCATED}|corrupt|damaged|{NOT_AN_IMAGE}",
    ),
    _bad("broken/half-uncompressed.tif", lambda: encode(marked(), "TIFF")[:200_000], TRUNCATED, SIZE),
    _bad("broken/overwritten.jpg", lambda: overwritten(jpeg(), 0.5, b"\xff" * 500), "corrupt|damaged|broken", SIZE),
    _bad(
        "broken/overwritten.png",
        lambda: overwritten(png(), 0.5, b"\xa5" * 4000),
        "corrupt|damaged|broken|unrecognized|checksum|crc",
        SIZE,
    ),
    _bad(
        "broken/aspect-400.png",
        lambda: encode(np.full((5, 2000, 3), GREEN, np.uint8), "PNG"),
        "aspect|too wide|narrow",
        (2000, 5),
    ),
    _bad("broken/float.tif", lambda: encode(grey16().astype(np.float32), "TIFF"), "float", SIZE),
    _bad("broken/integer32.tif", lambda: encode(grey16().astype(np.int32), "TIFF"), "32|integer", SIZE),
    _bad("broken/header-60000.png", huge_header_png, TOO_MANY_PIXELS, (60_000, 60_000)),
    _bad("broken/bomb-20000.png", real_bomb_png, TOO_MANY_PIXELS, (20_000, 20_000)),
    _bad("broken/metadata-bomb.png", metadata_bomb_png, "too large|metadata|text"),
)

PICTURES: tuple[Picture, ...] = (*PHOTOGRAPHS, *ORIENTED, *ENCODED, *BROKEN)
