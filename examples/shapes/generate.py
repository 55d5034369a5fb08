"""Draws scenes into a folder tree of images, as an archive would hold them, with their COCO ground truth. What a scene is, scenes.py says.

Run as a script; `--help` explains.
"""

import argparse
import io
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script's path begins at its own folder

from examples.shapes.scenes import CATEGORIES, Scene, make_scene

FIRST_DAY = date(2026, 3, 1)
MOST, SMALLEST = 5, 0.15  # objects a scene, and their least size: scenes that are good to look at
JPEG = {"quality": 92, "subsampling": 0}  # the checkpoint's answers are as good as on the undamaged pixels

HELP = """\
Draws pictures of coloured shapes, and writes down what is in them:

  DIR/images/2026-03-01/scene-00000.jpg …   the pictures, 224 × 224, spread over folders named after days
  DIR/instances.json                        their ground truth in COCO's format, file names relative to DIR/images

The same seed draws the same scenes, and a larger --count only adds to them: files that are there and equal are left
untouched, so that a labelling job sees the rest as new."""

EXAMPLES = """\
examples:
  python examples/shapes/generate.py --out demo-output --count 240 --seed 1 --odd \\
      --categories "orange circle" "green square" "purple star" "cyan ring"
  python examples/shapes/generate.py --out /tmp/scenes --count 10000 --days 30      any colours and shapes"""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A file to be written. name: relative to the folder of images; scene: what is in it, None where nobody could tell."""

    name: str
    data: bytes
    scene: Scene | None


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    drawings = draw(options.count, options.seed, options.categories, days=options.days, odd=options.odd)
    images = options.out / "images"
    written, truth = 0, []
    total = options.count + (len(ODD) if options.odd else 0)
    for drawing in track(drawings, "drawing scenes", total=total):
        written += write_if_new(images / drawing.name, drawing.data)
        if drawing.scene is not None:
            truth.append((drawing.name, drawing.scene))
    instances = json.dumps(coco(truth, options.categories or CATEGORIES)).encode()
    write_if_new(options.out / "instances.json", instances)
    print(f"{total} files under {images}, {written} of them new; ground truth in {options.out / 'instances.json'}")


def draw(count: int, seed: int, categories: Sequence[str], *, days: int, odd: bool) -> Iterator[Drawing]:
    """The scenes as JPEG files, then (odd) one of each odd file. Scene i depends on the seed and i alone."""
    for index in range(count):
        scene = make_scene(_rng(seed, index), categories=categories, most=MOST, smallest=SMALLEST)
        yield Drawing(f"{_folder(index, days)}scene-{index:05d}.jpg", _encoded(scene.image, "JPEG", **JPEG), scene)
    for name in ODD if odd else ():
        scene = make_scene(_rng(seed, name), categories=categories, most=MOST, smallest=SMALLEST)
        data, readable = ODD[name](scene)
        yield Drawing(f"{_folder(0, days)}{name}", data, scene if readable else None)


def coco(scenes: Sequence[tuple[str, Scene]], categories: Sequence[str]) -> dict[str, Any]:
    """COCO's instances format: boxes as x, y, width, height in pixels; objects of other categories are left out."""
    ids = {name: number for number, name in enumerate(categories, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, scene) in enumerate(scenes, 1):
        width, height = scene.image.size
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for item in scene.objects:
            if item.category not in ids:
                continue
            x0, y0, x1, y1 = item.box_xyxy
            box = [x0, y0, x1 - x0, y1 - y0]
            facts = {"id": len(annotations) + 1, "image_id": image_id, "category_id": ids[item.category]}
            annotations.append(facts | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    listed = [{"id": number, "name": name, "supercategory": name.split()[1]} for name, number in ids.items()]
    info = {"description": "coloured shapes, drawn by examples/shapes/generate.py", "version": "1"}
    return {"info": info, "images": images, "annotations": annotations, "categories": listed}


def write_if_new(path: Path, data: bytes) -> bool:
    """Writes data unless the file holds just that; says whether it wrote."""
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def _turned(scene: Scene) -> tuple[bytes, bool]:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise when shown
    return _encoded(scene.image.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, **JPEG), True


def _png(scene: Scene) -> tuple[bytes, bool]:
    return _encoded(scene.image, "PNG"), True


def _cut_short(scene: Scene) -> tuple[bytes, bool]:
    data = _encoded(scene.image, "JPEG", **JPEG)
    return data[: len(data) // 2], False


def _empty(scene: Scene) -> tuple[bytes, bool]:
    return b"", False


def _text(scene: Scene) -> tuple[bytes, bool]:
    return b"The pictures of this day are in the other folder.\n", False


# Files as every archive has them: made from a scene, and whether the scene can be seen in them.
ODD = {
    "odd-turned-by-exif.jpg": _turned,
    "odd-really-a-png.jpg": _png,
    "odd-cut-short.jpg": _cut_short,
    "odd-empty.jpg": _empty,
    "odd-really-a-text.jpg": _text,
}


def _folder(index: int, days: int) -> str:
    return f"{FIRST_DAY + timedelta(index % days)}/" if days else ""


def _rng(seed: int, what: int | str) -> random.Random:
    return random.Random(f"{seed}/{what}")


def _encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=HELP, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; made if need be")
    parser.add_argument("--count", type=_whole, default=240, metavar="N", help="how many scenes (default 240)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="which scenes (default 1)")
    parser.add_argument(
        "--categories",
        nargs="+",
        default=[],
        choices=CATEGORIES,
        metavar="NAME",
        help="draw mostly these and list only these in the ground truth, other objects being distractors; "
        "a name is a colour and a shape, such as 'red star' (default: all 42)",
    )
    parser.add_argument(
        "--days", type=_whole, default=4, metavar="N", help="folders to spread over (default 4; 0: none)"
    )
    parser.add_argument(
        "--odd", action="store_true", help=f"add {len(ODD)} odd files, three of them unreadable: {', '.join(ODD)}"
    )
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


if __name__ == "__main__":
    main()
