import io
import re
import struct

import numpy as np
import pytest
from PIL import Image, ImageFile

from model.image_size import ImageLimits
from tasks.pictures import decode_image
from tests.pictures import CORNER_TOLERANCE, ORIENTED, PHOTOGRAPHS, PICTURES, Picture, corners_of, encode, jpeg, turned

LIMITS = ImageLimits()
MAX_PIXELS = 200_000_000


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on nonsense in metadata
@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_every_picture_becomes_pixels_or_a_reason(picture: Picture):
    decoded = decode_image(picture.data(), LIMITS, max_pixels=MAX_PIXELS)
    size = (decoded.width_px, decoded.height_px) if decoded.width_px else None
    assert size == picture.size_px
    if picture.status == "unreadable":
        assert decoded.pixels is None
        assert re.search(picture.reason, decoded.error or "", re.IGNORECASE)
        return
    assert decoded.error is None
    assert decoded.pixels is not None
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape == (*reversed(LIMITS.fit(*picture.size_px or (0, 0))), 3)
    if picture.corners is not None:
        differences = np.abs(corners_of(decoded.pixels).astype(int) - np.array(picture.corners))
        assert differences.max() <= CORNER_TOLERANCE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_the_same_as_one_turned_before_resizing(orientation: int):
    upright = decode_image(jpeg(), LIMITS, max_pixels=MAX_PIXELS).pixels
    turned_back = decode_image(turned(orientation), LIMITS, max_pixels=MAX_PIXELS).pixels
    assert upright is not None
    assert turned_back is not None
    assert turned_back.shape == upright.shape
    # JPEG's blocks fall differently on a turned picture; the wrong turn would be off by dozens of levels.
    assert np.abs(turned_back.astype(int) - upright).mean() < 2


def test_grey_of_16_bits_keeps_its_scale():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    square = np.tile(np.repeat(ramp, 7)[: 28 * 64], (28, 1))  # already a multiple of 28: not resized
    decoded = decode_image(encode(square, "TIFF"), LIMITS, max_pixels=10**6)
    assert decoded.pixels is not None
    assert np.array_equal(decoded.pixels[0, :, 0], (square[0].astype(np.uint32) + 128) // 257)


def test_half_transparent_pixels_lie_on_white():
    rgba = np.zeros((56, 56, 4), np.uint8)
    rgba[...] = (255, 0, 0, 128)
    decoded = decode_image(encode(rgba, "PNG"), ImageLimits(28 * 28), max_pixels=10**6)
    assert decoded.pixels is not None
    assert np.abs(decoded.pixels.reshape(-1, 3).astype(int) - (255, 127, 127)).max() <= 1


def test_the_pixel_limit_is_the_callers():
    decoded = decode_image(jpeg(), LIMITS, max_pixels=451 * 300 - 1)
    assert (decoded.width_px, decoded.height_px) == (451, 300)
    assert decoded.pixels is None
    assert "135,299" in (decoded.error or "")
    assert decode_image(jpeg(), LIMITS, max_pixels=451 * 300).pixels is not None


def test_nothing_is_decoded_before_it_is_admitted():
    asked: list[int] = []

    class Refused(Exception):
        pass

    def admit(size_bytes: int):
        asked.append(size_bytes)
        raise Refused

    with pytest.raises(Refused):
        decode_image(jpeg(), LIMITS, max_pixels=MAX_PIXELS, admit=admit)
    decode_image(b"no picture", LIMITS, max_pixels=MAX_PIXELS, admit=admit)
    assert len(asked) == 1
    assert asked[0] >= 451 * 300 * 3


def test_a_small_picture_in_a_huge_tile_is_refused():
    """A TIFF of 64 × 64 pixels in one tile of 60,000 × 60,000, for which libtiff would make room."""
    entries = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 300, 325: 64}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    header = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", 0)
    decoded = decode_image(header.ljust(300, b"\0") + bytes(64), LIMITS, max_pixels=MAX_PIXELS)
    assert (decoded.width_px, decoded.height_px) == (64, 64)
    assert "tile" in (decoded.error or "")


def test_truncated_pictures_are_not_completed_with_grey():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    for cut in range(1, 12):
        assert decode_image(jpeg()[: -1 - 997 * cut], LIMITS, max_pixels=MAX_PIXELS).pixels is None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_damage_never_raises():
    random = np.random.default_rng(7)
    for picture in (*PHOTOGRAPHS[1:2], *ORIENTED[::5], *(p for p in PICTURES if p.name.startswith("kinds/"))):
        data = bytearray(picture.data())
        for position in random.integers(0, len(data), 12):
            data[position] = int(random.integers(0, 256))
        decoded = decode_image(bytes(data), LIMITS, max_pixels=MAX_PIXELS)
        assert (decoded.pixels is None) == (decoded.error is not None)


@pytest.mark.parametrize(
    ("name", "scale"), [("hubble_deep_field.jpg", 1), ("rocket.jpg", 1), ("chelsea.png", 1), ("coffee.png", 3)]
)
def test_pixels_equal_those_of_the_models_own_preprocessing(name: str, scale: int):
    """hubble_deep_field grows in one direction and shrinks in the other, and clips: there the order of the two passes shows."""
    processing = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    processor = processing.Qwen2VLImageProcessor(
        min_pixels=LIMITS.min_pixels, max_pixels=LIMITS.max_pixels, do_rescale=False, do_normalize=False
    )
    picture = next(p for p in PHOTOGRAPHS if p.name.endswith(name))
    image = Image.open(io.BytesIO(picture.data())).convert("RGB")
    image = image.resize((image.width * scale, image.height * scale))
    ours = decode_image(encode(image, "PNG"), LIMITS, max_pixels=MAX_PIXELS).pixels
    theirs = _image_of_patches(processor(images=image, return_tensors="np"))
    assert ours is not None
    differences = np.abs(ours.astype(float) - theirs)
    assert differences.mean() < 0.01
    assert differences.max() <= 2


def _image_of_patches(features) -> np.ndarray:
    """The processor's flattened patches put together again: (height, width, 3)."""
    times, rows, columns = features["image_grid_thw"][0].tolist()
    patches = np.asarray(features["pixel_values"]).reshape(times, rows // 2, columns // 2, 2, 2, 3, 2, 14, 14)
    frames = patches.transpose(0, 6, 1, 3, 7, 2, 4, 8, 5)
    picture: np.ndarray = frames.reshape(times * 2, rows * 14, columns * 14, 3)[0]
    return picture
