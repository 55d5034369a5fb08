"""Scenes of coloured shapes with exact boxes, the same for the same seed: what the tiny checkpoint was trained on. Knows nothing of files, models or prompts."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE_PX = 224  # 8 × 8 cells of 28 pixels: the only size the tiny checkpoint knows
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 165, 60),
    "blue": (45, 80, 220),
    "yellow": (240, 215, 40),
    "purple": (140, 50, 170),
    "orange": (245, 135, 25),
    "cyan": (50, 205, 220),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
CATEGORIES = tuple(f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES))

LARGEST = 0.40  # of the side; the smallest is the caller's
NARROWEST_PX = 16
MAX_HIDDEN = 0.30  # the most of the smaller box that two boxes may share
RING_WIDTH = 0.22  # of its box's shorter side
SUPERSAMPLING = 2  # shapes are drawn larger and averaged down: soft edges


@dataclass(frozen=True, slots=True)
class SceneObject:
    """A shape. box_xyxy: pixels, the far edges exclusive, of the whole shape even where a later one covers part of it."""

    colour: str
    shape: str
    box_xyxy: tuple[int, int, int, int]

    @property
    def category(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture (SIDE_PX square, RGB) and all that is in it, in the order of drawing."""

    image: Image.Image
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """The categories asked of one scene, in the prompt's order; some may be absent. A bare shape ("ring") means one of any colour."""

    categories: tuple[str, ...]

    def answers(self, category: str, scene: Scene) -> list[SceneObject]:
        """The scene's objects that category names."""
        return [o for o in scene.objects if category in (o.category, o.shape)]


def make_scene(rng: random.Random, *, categories: Sequence[str] = (), most: int = 8, smallest: float = 0.10) -> Scene:
    """One scene of 1 to `most` objects, all of it decided by rng.

    categories: those to place often (about three objects in four); none: any, as in training. smallest: the least side of an object as a share of the
    picture's. Raises ValueError for a category that is none of CATEGORIES.
    """
    if unknown := [c for c in categories if c not in CATEGORIES]:
        raise ValueError(
            f"there is no {unknown[0]!r}: a category is a colour ({', '.join(COLOURS)}) and a shape ({', '.join(SHAPES)})"
        )
    image = Image.fromarray(_background(rng)).resize((SIDE_PX * SUPERSAMPLING, SIDE_PX * SUPERSAMPLING))
    canvas = ImageDraw.Draw(image)
    objects: list[SceneObject] = []
    wanted = _wanted(rng, categories, rng.randint(1, most))
    for _ in range(
        4 * len(wanted)
    ):  # a place that overlaps too much is tried again, not for ever: crowded scenes end smaller
        if len(objects) == len(wanted):
            break
        box = _place(rng, smallest)
        if any(_shared(box, other.box_xyxy) > MAX_HIDDEN for other in objects):
            continue
        colour, shape = wanted[len(objects)].split()
        fill = tuple(min(255, max(0, value + rng.randint(-22, 22))) for value in COLOURS[colour])
        _draw(canvas, shape, box, fill)
        objects.append(SceneObject(colour, shape, box))
    pixels = np.asarray(image.reduce(SUPERSAMPLING))
    return Scene(Image.fromarray(_with_noise(rng, pixels) if rng.random() < 0.5 else pixels), tuple(objects))


def ask(rng: random.Random, scene: Scene, *, most: int = 4) -> Question:
    """A question of 1 to `most` categories: mostly present ones, and absent ones, half of which share a colour or a shape with something present."""
    present = sorted({o.category for o in scene.objects})
    rng.shuffle(present)
    asked: list[str] = []
    for _ in range(rng.randint(1, most)):
        chance = rng.random()
        if present and chance < 0.72:
            category = present.pop()
        elif chance < 0.86:
            category = _near(rng, rng.choice(scene.objects).category)
        else:
            category = rng.choice(CATEGORIES)
        if rng.random() < 0.12:
            category = category.split()[1]
        if category not in asked:
            asked.append(category)
    return Question(tuple(asked))


def _wanted(rng: random.Random, categories: Sequence[str], count: int) -> list[str]:
    """The categories of the scene's objects, in the order of drawing."""
    if categories:
        own = rng.sample(list(categories), rng.randint(1, len(categories)))
        other = rng.sample([c for c in CATEGORIES if c not in categories], 2)
        return [rng.choice(own) if i == 0 or rng.random() < 0.75 else rng.choice(other) for i in range(count)]
    if rng.random() < 0.3:  # no two alike in colour or in shape: the phrase alone decides which object is meant
        count = rng.randint(3, 6)
        return [f"{c} {s}" for c, s in zip(rng.sample(list(COLOURS), count), rng.sample(SHAPES, count), strict=True)]
    pool = rng.sample(CATEGORIES, rng.randint(1, min(5, count)))
    if len(pool) > 1 and rng.random() < 0.5:
        pool[1] = _near(rng, pool[0])
    return [rng.choice(pool) for _ in range(count)]


def _near(rng: random.Random, category: str) -> str:
    """A category of the same colour or of the same shape."""
    colour, shape = category.split()
    return f"{colour} {rng.choice(SHAPES)}" if rng.random() < 0.5 else f"{rng.choice(list(COLOURS))} {shape}"


def _place(rng: random.Random, smallest: float) -> tuple[int, int, int, int]:
    """A box inside the picture: sizes and aspect ratios (up to 1.55) uniform in their logarithm."""
    size_px = math.exp(rng.uniform(math.log(smallest), math.log(LARGEST))) * SIDE_PX
    stretch = math.exp(rng.uniform(-0.22, 0.22))
    width, height = max(NARROWEST_PX, round(size_px * stretch)), max(NARROWEST_PX, round(size_px / stretch))
    x0, y0 = rng.randint(0, SIDE_PX - width), rng.randint(0, SIDE_PX - height)
    return x0, y0, x0 + width, y0 + height


def _shared(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """The boxes' intersection as a share of the smaller one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(0, width) * max(0, height) / smaller


def _star() -> NDArray[np.float64]:
    """(10, 2) corners of a five-pointed star, stretched to fill the unit square."""
    angles = -math.pi / 2 + np.arange(10) * math.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.45)
    corners = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    filled: NDArray[np.float64] = (corners - corners.min(0)) / np.ptp(corners, axis=0)
    return filled


_POLYGONS = {  # corners in the unit square
    "triangle": np.array([(1 / 2, 0), (1, 1), (0, 1)]),
    "star": _star(),
    "cross": np.array([(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (2, 2), (2, 3), (1, 3), (1, 2), (0, 2), (0, 1), (1, 1)])
    / 3,
}


def _draw(canvas: ImageDraw.ImageDraw, shape: str, box_xyxy: tuple[int, int, int, int], fill: tuple[int, ...]) -> None:
    x0, y0, x1, y1 = (v * SUPERSAMPLING for v in box_xyxy)
    x1, y1 = x1 - 1, y1 - 1  # Pillow's far edges are inclusive
    if shape == "square":
        canvas.rectangle((x0, y0, x1, y1), fill=fill)
    elif shape == "circle":
        canvas.ellipse((x0, y0, x1, y1), fill=fill)
    elif shape == "ring":
        canvas.ellipse((x0, y0, x1, y1), outline=fill, width=max(2, round(RING_WIDTH * min(x1 - x0, y1 - y0))))
    else:
        corners = _POLYGONS[shape] * (x1 - x0, y1 - y0) + (x0, y0)
        canvas.polygon([(float(x), float(y)) for x, y in corners], fill=fill)


def _background(rng: random.Random) -> NDArray[np.uint8]:
    """(SIDE_PX, SIDE_PX, 3) a dull tone: plain, a gradient, or soft blotches."""
    tone = rng.randint(0, 255) + np.array([rng.randint(-18, 18) for _ in range(3)])
    chance = rng.random()
    cells = 1 if chance < 0.4 else 2 if chance < 0.7 else rng.randint(3, 8)
    light = np.array([rng.gauss(0, 22) if cells > 1 else 0.0 for _ in range(cells * cells)]).reshape(cells, cells, 1)
    coarse = Image.fromarray(np.clip(tone + light, 0, 255).astype(np.uint8))
    return np.asarray(coarse.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))


def _with_noise(rng: random.Random, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey noise of a standard deviation between 1 and 8, as a camera's in poor light."""
    deviation = rng.uniform(1, 8)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, deviation, pixels.shape[:2])
    return np.clip(pixels + noise[..., None], 0, 255).astype(np.uint8)
